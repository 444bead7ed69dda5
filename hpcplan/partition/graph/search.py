"""The search for the best split: all ideals where they can be listed, a growing neighbourhood of cuts where not.

Either way a valid split is known early and improves, a lower bound holds throughout, and both are there when time runs
out. All is deterministic, except where in its work the time limit stops it.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable
from typing import Final

from hpcplan.errors import HpcplanError
from hpcplan.partition.graph.bounds import lower_bound
from hpcplan.partition.graph.check import check_split, device_loads
from hpcplan.partition.graph.gaps import gap_triples
from hpcplan.partition.graph.groups import Groups, contract
from hpcplan.partition.graph.ideals import (
    MAX_TABLE,
    Family,
    TooManyIdealsError,
    all_ideals,
    family,
    masks_near,
    prefixes,
)
from hpcplan.partition.graph.infeasible import refuse_if_infeasible, why_infeasible
from hpcplan.partition.graph.model import LayerGraph, Split
from hpcplan.partition.graph.relax import lifted, relaxed
from hpcplan.partition.graph.sweep import Chain, OutOfTimeError, Sweep, Triple

__all__ = ["partition_graph"]

MAX_IDEALS: Final = 1_500_000
MANY_IDEALS: Final = 50_000  # above this, find a good split first, and raise the bound in steps
STEPS: Final = (0.1, 0.3, 1.0)  # of the way from bound to the best known split
COARSE: Final = 300  # cuts tried before the time limit counts
ORDERS: Final = 12  # random topological orders beside the depth-first one
PROVEN: Final = 1e-11
SAME: Final = 1e-12  # relative; loads closer than this are equal but for rounding
RELAXED: Final = (20_000, 200_000)  # ideals of smaller problems, solved for a bound
NEAR: Final = (100, 400, 1600, 6400)  # ideals around each cut, ever more
MAX_ROUNDS: Final = 500


def partition_graph(graph: LayerGraph, *, time_limit_s: float = 60.0) -> Split:
    """Split a graph over its devices so that the busiest one is least busy.

    Args:
        graph: what to split, and over what.
        time_limit_s: when to stop and return the best split found so far, with the bound proven so far.

    Raises:
        InfeasibleError: no split keeps every rule; names what binds and what would make one possible.
        HpcplanError: none was found within the time limit, though one may exist.
    """
    search = _Search(graph, time.monotonic() + time_limit_s)
    return search.run()


class _Search:
    def __init__(self, graph: LayerGraph, deadline: float) -> None:
        self.graph = graph
        self.deadline = deadline
        self.groups = self.side = contract(graph)
        refuse_if_infeasible(self.groups)
        self.bound = lower_bound(self.groups)
        self.forbidden: dict[Triple, None] = {}
        self.chain: Chain | None = None
        self.chain_groups = self.groups
        # No device can be busier than one that does everything and pays for every output.
        g = self.groups
        self.limit = float(g.accelerator_time.sum() + g.cpu_time.sum() + g.border_time.sum()) + 1.0

    def run(self) -> Split:
        """Return the best split; see :func:`partition_graph`."""
        table: Family | None = None
        try:
            self._start()
            if self.proven():
                return self._result()
            self._choose_side()
            table = self._table()
            if table is None or len(table) > MANY_IDEALS:
                self._approach(table is None)
            if table is not None:
                self._prove(table)
        except OutOfTimeError:
            pass
        if self.chain is None:
            self._mirrored()
        return self._result()

    def proven(self) -> bool:
        """Return whether the best split known reaches the bound, but for rounding."""
        return self.chain is not None and self.bound >= self.chain.load * (1 - PROVEN)

    def _table(self) -> Family | None:
        limit = min(MAX_IDEALS, MAX_TABLE // len(self.groups))
        try:
            return all_ideals(self.side, limit)
        except TooManyIdealsError:
            return None

    def _choose_side(self) -> None:
        """Sweep from the end where the busiest device is: if nothing beats its piece, the sweep stops there."""
        if self.chain is not None:
            assignment = _names(self.graph, self.groups, self.chain)
            loads = device_loads(self.graph, assignment)
            names = list(_device_names(self.chain))
            if 2 * names.index(max(names, key=loads.__getitem__)) + 1 > len(names):
                self.side = self.groups.backwards()

    def _start(self) -> None:
        """Find a first split, coarse but soon, whatever the time limit; then one that may cut anywhere in one order."""
        masks = prefixes(self.groups, range(len(self.groups)))
        end, self.deadline = self.deadline, float("inf")
        self._take(self.groups, family(self.groups, masks[:: -(-len(masks) // COARSE)]))
        self.deadline = end
        if len(masks) > COARSE:
            self._take(self.groups, family(self.groups, masks))

    def _try_orders(self, groups: Groups) -> None:
        """Cut a few topological orders of the groups, at all their prefixes at once."""
        masks = prefixes(groups, range(len(groups)))
        for seed in range(ORDERS):
            masks += prefixes(groups, _random_order(groups, seed))
        self._take(groups, family(groups, masks))

    def _approach(self, only: bool) -> None:
        """Find a good split and a good bound without all ideals; take more time if that is the ``only`` way."""
        self._try_orders(self.groups)
        self._improve(self.groups, NEAR[:1])
        for limit in RELAXED if only else RELAXED[:1]:
            self._relax(limit)
        self._improve(self.groups, NEAR if only else NEAR[:2])

    def _relax(self, limit: int) -> None:
        """Raise the bound to the optimum of a smaller problem, and look for a split near that."""
        if self.proven():
            return
        part, table, kept = relaxed(self.groups, limit)
        top = self.limit if self.chain is None else self.chain.load * (1 - SAME)
        found = Sweep(part, table, top, deadline=self.deadline).best()
        if found is None and self.chain is None:
            raise why_infeasible(self.groups)
        if found is None:
            self.bound = self.limit
            return
        self.bound = max(self.bound, found.load * (1 - SAME))
        cuts = lifted(self.groups, kept, found.cuts)
        self._take(self.groups, family(self.groups, cuts))
        masks = [mask for cut in cuts for mask in masks_near(self.groups, cut, NEAR[0])]
        self._take(self.groups, family(self.groups, masks))

    def _improve(self, groups: Groups, reach: Iterable[int]) -> None:
        """Move every cut of the best split a little, in every combination, until none of that helps."""
        for near in reach:
            better = True
            while better and self.chain is not None and not self.proven():
                before = self.chain.load
                masks = [mask for cut in self.chain.cuts for mask in masks_near(groups, cut, near)]
                self._take(groups, family(groups, masks))
                better = self.chain.load < before

    def _prove(self, table: Family) -> None:
        """Sweep every ideal under a rising limit: what is not found under a limit is proven not to be there."""
        top = self.limit if self.chain is None else self.chain.load * (1 - SAME)
        for step in STEPS if len(table) > MANY_IDEALS and self.chain is not None else (1.0,):
            limit = top if step == 1.0 else self.bound + step * (top - self.bound)
            found = self._sweep(self.side, table, limit)
            if found is not None:
                self.chain, self.chain_groups, self.bound = found, self.side, found.load
                return
            self.bound = max(self.bound, limit)
        if self.chain is None:
            raise why_infeasible(self.groups)
        self.bound = self.chain.load

    def _take(self, groups: Groups, chosen: Family) -> None:
        found = self._sweep(groups, chosen, self.limit)
        if found is not None and (self.chain is None or found.load < self.chain.load):
            self.chain, self.chain_groups, self.limit = found, groups, found.load

    def _sweep(self, groups: Groups, chosen: Family, limit: float) -> Chain | None:
        """Return the best chain without gaps in backward parts: sweep, forbid the gaps it has, and sweep again."""
        for _ in range(MAX_ROUNDS):
            rules = [(self.turn(groups, a), self.turn(groups, b), self.turn(groups, c)) for a, b, c in self.forbidden]
            found = Sweep(groups, chosen, limit, rules, self.deadline).best()
            gaps = gap_triples(groups, [piece for _, piece in found.pieces]) if found is not None else ()
            if not gaps:
                return found
            for a, b, c in gaps:
                self.forbidden[self.turn(groups, a), self.turn(groups, b), self.turn(groups, c)] = None
        raise OutOfTimeError

    def turn(self, groups: Groups, g: int) -> int:
        """Return the number of a group of ``groups`` as the other side counts, if that is the one turned round."""
        return len(groups) - 1 - g if groups is self.side is not self.groups else g

    def _mirrored(self) -> None:
        """Try the order in which backward parts cannot have gaps: fewer splits, but quick to find one."""
        groups = contract(self.graph, mirrored=True)
        self.forbidden.clear()
        self.deadline = max(self.deadline, time.monotonic() + 5.0)
        with contextlib.suppress(OutOfTimeError):
            self._try_orders(groups)
        if self.chain is None:
            message = "no split was found within the time limit, and none is known to be impossible"
            raise HpcplanError(message, hint="give it more time with --time-limit, or devices more memory")

    def _result(self) -> Split:
        assert self.chain is not None
        if self.chain_groups is self.side is not self.groups:
            self.chain = Chain(self.chain.load, self.chain.pieces[::-1], ())
        assignment = _names(self.graph, self.chain_groups, self.chain)
        wrong = check_split(self.graph, assignment)
        if wrong:
            raise HpcplanError(f"the split found breaks a rule, so it is not shown: {wrong[0]}")
        loads = device_loads(self.graph, assignment)
        loads = {device: loads[device] for device in dict.fromkeys(_device_names(self.chain)) if device in loads}
        objective = max(loads.values())
        return Split(objective, objective if self.proven() else min(self.bound, objective), assignment, loads)


def _device_names(chain: Chain) -> Iterable[str]:
    count = {True: 0, False: 0}
    for on_cpu, _ in chain.pieces:
        yield f"{'cpu' if on_cpu else 'acc'}{count[on_cpu]}"
        count[on_cpu] += 1


def _names(graph: LayerGraph, groups: Groups, chain: Chain) -> dict[int, str]:
    device = [""] * len(graph.nodes)
    for name, (_, piece) in zip(_device_names(chain), chain.pieces, strict=True):
        for g in piece:
            for i in groups.members[g]:
                device[i] = name
    return {node.id: device[i] for i, node in enumerate(graph.nodes)}


def _random_order(groups: Groups, seed: int) -> list[int]:
    """Return a topological order that prefers, by turns of the seed, to go deep or wide."""
    chance = random.Random(seed)
    waiting = [len(before) for before in groups.before]
    ready = [g for g, count in enumerate(waiting) if not count]
    order = []
    while ready:
        at = chance.randrange(len(ready)) if seed % 3 == 0 else (-1 if seed % 3 == 1 else 0)
        if chance.random() < 0.1:
            at = chance.randrange(len(ready))
        order.append(ready.pop(at))
        for g in groups.after[order[-1]]:
            waiting[g] -= 1
            if not waiting[g]:
                ready.append(g)
    return order
