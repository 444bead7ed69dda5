"""Which nodes Slurm gives a job: the tightest run of consecutive nodes, or the tightest place in a tree of switches.

After ``_job_test`` and ``_job_test_topo`` of Slurm 22.05's select plugins (select/linear and select/cons_tres agree on
whole nodes), as slurm.conf(5), ``SelectType``, and topology.conf(5) describe them: nodes of less weight first, with
select/linear line by line of slurm.conf (NodeName), but not in backfill's plans; among those, blocks of consecutive
nodes, the smallest that holds the job, or else the largest one after another; in a tree the lowest switch that holds
the job, and under it leaf switches, the smallest first (with select/cons_tres: see :mod:`.switch_tree`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.block_topology import Blocks
from hpcplan.simulate.machine import lowest
from hpcplan.simulate.shared_choice import choose_nodes
from hpcplan.simulate.switch_tree import SwitchShape, Tree

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import JobSpec, Request
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.shared_choice import Offer, Positions

__all__ = ["Placement", "SwitchShape", "best_fit", "blocks"]

_UNAVAILABLE: Final = "Requested node configuration is not available"


def blocks(mask: int) -> list[int]:
    """Return the runs of consecutive bits of ``mask``, lowest first.

    >>> [bin(block) for block in blocks(0b1101110)]
    ['0b1110', '0b1100000']
    """
    found = []
    while mask:
        block = mask & ~(mask + (mask & -mask))
        found.append(block)
        mask ^= block
    return found


def best_fit(sets: Sequence[int], wanted: int) -> int:
    """Return ``wanted`` bits: of the smallest set that has so many, else of the largest one after another.

    The first of equals counts; within a set the lowest bits do. All the bits, if there are not enough.
    """
    if len(sets) == 1:
        return lowest(sets[0], wanted)
    chosen = 0
    left = list(sets)
    while wanted > 0 and left:
        sizes = [block.bit_count() for block in left]
        large = [size for size in sizes if size >= wanted]
        size = min(large) if large else max(sizes)
        block = left.pop(sizes.index(size))
        chosen |= lowest(block, wanted)
        wanted -= size
    return chosen


def _positions(mask: int) -> list[int]:
    found = []
    while mask:
        bit = mask & -mask
        found.append(bit.bit_length() - 1)
        mask ^= bit
    return found


class Placement:
    """How nodes are chosen on one machine; ``by_line`` of slurm.conf where select/linear does not preempt."""

    def __init__(
        self,
        machine: Machine,
        switches: Sequence[SwitchShape] = (),
        block_sizes: Sequence[int] = (),
        *,
        by_line: bool = True,
    ) -> None:
        weights = sorted({group.weight for group in machine.groups})
        self._tiers = [sum(group.mask for group in machine.groups if group.weight == weight) for weight in weights]
        self._switches = switches
        self._leaves = [switch for switch in switches if not switch.level]
        self._consumable = machine.sharing is not None and machine.sharing.cpus
        in_order = sorted(machine.groups, key=lambda group: group.weight)
        self._sets = [group.mask for group in in_order] if by_line else self._tiers
        self._tree = Tree(switches) if self._consumable and switches else None
        self._blocks = Blocks([leaf.mask for leaf in self._leaves], block_sizes) if block_sizes else None
        self._machine = machine
        self._kept: dict[int, int] = {}  # nodes of blocks that jobs with --exclusive=topo have to themselves

    @property
    def switched(self) -> bool:
        """Whether there are switches, so that not only numbers count."""
        return bool(self._switches)

    def keep(self, job_id: int, nodes: int) -> None:
        """Keep others out of the blocks of a job (sbatch(1), --exclusive=topo) until it leaves."""
        if self._blocks is not None:
            self._kept[job_id] = self._blocks.around(nodes)

    def leave(self, job_id: int) -> None:
        """Let others into the blocks of a job that has ended."""
        self._kept.pop(job_id, None)

    def _open(self, request: Request, mask: int) -> int:
        """Return the nodes of ``mask`` that are not kept from a request."""
        usable = mask & request.eligible
        if self._blocks is None:
            return usable
        for kept in self._kept.values():
            usable &= ~kept
        return usable & self._blocks.untouched(mask & usable) if request.alone else usable

    def refuse(self, spec: JobSpec) -> None:
        """Refuse what no blocks can hold, unless it is held: slurmctld looks at such a job once it is released.

        That are segments that do not divide the nodes asked for (one, where only tasks are), several segments beside
        a list of nodes, more nodes than the whole blocks have, and nodes that no block has together.

        Raises:
            SlurmError: in sbatch's words.
        """
        if self._blocks is None or spec.hold:
            return
        from hpcplan.simulate.admission import refusal

        nodes = spec.nodes_min or 1
        size = spec.segment or nodes
        topology = "Requested topology configuration is not available"
        if nodes % size:
            raise refusal(topology, hint=f"--nodes has to be a multiple of --segment={size}")
        if spec.nodelist and nodes > size:
            raise refusal(topology, hint="--nodelist and several segments exclude each other")
        if size > self._blocks.most and not spec.nodelist:
            raise refusal(_UNAVAILABLE, hint=f"the blocks hold {self._blocks.most} nodes")
        required = self._machine.mask_of(expand(spec.nodelist)) if spec.nodelist else 0
        if required and not self._blocks.choose(self._machine.all_nodes, max(nodes, required.bit_count()), 0, required):
            raise refusal(_UNAVAILABLE, hint="no block has all the nodes of --nodelist")

    def fits(self, request: Request, mask: int) -> bool:
        """Whether the request fits into ``mask``; without switches that is a matter of numbers."""
        if self._switches:
            return self.choose(request, mask) != 0
        return (mask & request.eligible).bit_count() >= request.minimum and not request.required & ~mask

    def fits_scattered(self, request: Request, mask: int) -> bool:
        """Whether the request would fit into ``mask`` if it did not insist on its number of switches."""
        return self.fits(replace(request, switches=0) if request.switches else request, mask)

    def plan(self, request: Request, mask: int) -> int:
        """Return the nodes of ``mask`` that backfill would promise to the request; select/linear has no weights there.

        0, if it does not fit.
        """
        usable = self._open(request, mask)
        if self._consumable or self._switches:
            return self.choose(request, mask)
        if usable.bit_count() < request.minimum or request.required & ~usable:
            return 0
        return self._in_blocks(request, usable, 0)

    def choose(self, request: Request, mask: int) -> int:
        """Return the nodes of ``mask`` that the request would be given, 0 if it does not fit."""
        usable = self._open(request, mask)
        if usable.bit_count() < request.minimum or request.required & ~usable:
            return 0
        if not self._consumable and not self._switches:
            pool = 0
            for nodes in self._sets:
                pool |= usable & nodes
                if pool.bit_count() >= request.maximum and not request.required & ~pool:
                    break
            return self._in_blocks(request, pool, 0)
        lighter = 0
        for tier in self._tiers:
            pool = lighter | usable & tier
            if pool.bit_count() >= request.minimum and not request.required & ~pool:
                nodes = (
                    self._under_switches(request, pool) if self._switches else self._in_blocks(request, pool, lighter)
                )
                if nodes:
                    return nodes
            lighter = pool
        return 0

    def choose_shared(self, request: Request, usable: int, positions: Positions, offer: Offer) -> int:
        """Return the nodes that a request gets a share of (select/cons_tres), 0 if it does not fit.

        All of ``usable``, which are at ``positions``, have the least that it takes of a node.
        """
        if request.required & ~usable:
            return 0
        if not self._switches:
            return choose_nodes(request, positions, offer)
        usable = self._open(request, usable)
        if request.required & ~usable:
            return 0
        for count in range(request.minimum, (request.maximum if request.spread else request.minimum) + 1):
            nodes = self._under_switches(
                replace(request, minimum=count, maximum=count) if request.spread else request, usable
            )
            if not request.spread or sum(int(offer.cpus[node]) for node in _positions(nodes)) >= request.cpus:
                return nodes
        return 0

    def _in_blocks(self, request: Request, pool: int, lighter: int) -> int:
        """Return all of the lighter nodes, which are too few, and the rest from the blocks of the others."""
        wanted = min(pool.bit_count(), request.maximum)
        if wanted == pool.bit_count():
            return pool
        chosen = request.required
        chosen |= lowest(lighter & ~chosen, wanted - chosen.bit_count())
        return chosen | best_fit(blocks(pool & ~lighter & ~chosen), wanted - chosen.bit_count())

    def _under_switches(self, request: Request, pool: int) -> int:
        if self._blocks is not None:
            return self._blocks.choose(
                pool, request.minimum, request.segment, request.required, together=request.together, apart=request.apart
            )
        holding = [
            switch
            for switch in self._switches
            if (switch.mask & pool).bit_count() >= request.minimum and not request.required & ~switch.mask
        ]
        if not holding:
            return 0
        best = min(holding, key=lambda switch: (switch.level, (switch.mask & pool).bit_count()))
        pool &= best.mask
        wanted = min(pool.bit_count(), request.maximum) - request.required.bit_count()
        if self._tree is not None:
            nodes = request.required | self._tree.leaf_by_leaf(pool & ~request.required, wanted, request.required)
            few = not request.switches or self._leaf_count(nodes) <= request.switches
            return nodes if few else 0
        nodes = request.required | self._smallest_leaves(pool & ~request.required, wanted, request.required)
        if request.switches and self._leaf_count(nodes) > request.switches:
            return 0  # it waits for better ones, for a while (sbatch(1), --switches)
        return nodes

    def _smallest_leaves(self, pool: int, wanted: int, given: int) -> int:
        """Return nodes leaf by leaf, those first that hold a node already, then those with the fewest (select/linear).

        The fewest, so that the job is under many leaves where it is under several, for bandwidth.
        """
        chosen = 0
        leaves = sorted(
            (leaf.mask for leaf in self._leaves if leaf.mask & pool),
            key=lambda mask: (not mask & given, (mask & pool).bit_count()),
        )
        for mask in leaves:
            if chosen.bit_count() >= wanted:
                break
            chosen |= lowest(mask & pool & ~chosen, wanted - chosen.bit_count())
        return chosen

    def _leaf_count(self, nodes: int) -> int:
        return sum(bool(leaf.mask & nodes) for leaf in self._leaves)
