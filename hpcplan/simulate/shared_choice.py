"""Which nodes a job that shares them gets (select/cons_tres of Slurm 22.05; slurm.conf(5), ``SelectType``).

Nodes of less weight go first. Of those of equal weight, the run of consecutive nodes with the fewest CPUs that has
enough, or else the one with the most CPUs and so on; in a run, where one node is all that is wanted still, the one with
the fewest CPUs that has enough, else one after another from the lowest. Where the least loaded are to be taken (LLN),
those with the most CPUs for the job go first, whatever stands between them. A node counts with all the CPUs that the
job could use there, and the job takes of it what it still wants, less one core for each node to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hpcplan.simulate.jobs import Request

    Numbers = NDArray[np.integer[Any]]
    Positions = NDArray[np.intp]

__all__ = ["Offer", "choose_nodes"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What each node of a machine has for one job: CPUs (0: it cannot serve), CPUs of a core, GPUs free, weight."""

    cpus: Numbers
    threads: Numbers
    gpus: Numbers
    weights: Numbers


class _Wanted:
    """What a job still wants."""

    def __init__(self, request: Request, offer: Offer) -> None:
        self.offer = offer
        self.whole = request.whole
        self.least = request.node_cpus
        self.minimum = request.minimum
        self.nodes = request.minimum if request.spread else request.maximum
        self.most = request.maximum
        if request.spread:  # a task a node is the most that it spreads out to
            self.most = min(self.most, max(request.cpus // request.node_cpus, request.minimum))
        self.asked = self.nodes
        self.cpus = self.cpus_left = request.cpus
        self.nodes_to_come = request.minimum
        self.chosen = 0

    @property
    def done(self) -> bool:
        return self.nodes <= 0 and self.cpus <= 0

    def enough(self, nodes: int) -> bool:
        """Whether so many more nodes would do, for the fewest that the job accepts."""
        return nodes >= self.nodes + self.minimum - self.asked

    def take(self, node: int) -> None:
        """Give a node to the job."""
        cpus = int(self.offer.cpus[node])
        if not self.whole:
            left = self.cpus_left - max(0, self.nodes_to_come - 1) * int(self.offer.threads[node])
            if cpus > left:
                cpus = max(left, self.least)
        self.cpus -= cpus
        self.cpus_left -= cpus
        self.nodes -= 1
        self.nodes_to_come -= 1
        self.most -= 1
        self.chosen |= 1 << node


@dataclass(slots=True)
class _Run:
    """Consecutive nodes of one weight; ``required`` is the first among them that the job has already."""

    nodes: list[int]
    cpus: int
    weight: int
    required: int | None = None


def choose_nodes(request: Request, usable: Positions, offer: Offer) -> int:
    """Return the mask of the nodes among ``usable`` (ascending) that the job would be given, 0 if it does not fit.

    If it does not, it is tried again without the nodes that offer least, as far as there are more than it needs.
    """
    some = usable[offer.cpus[usable] > 0]
    if len(some) < request.minimum:
        return 0
    if request.maximum == 1 and not (request.spread or request.required or request.least_loaded):
        return _one_node(request, some, offer)
    found = _evaluate(request, some, offer)
    if found or len(some) <= request.minimum:
        return found
    import numpy as np

    left: list[int] = some.tolist()
    sizes = dict(zip(left, (offer.cpus[some] + offer.gpus[some]).tolist(), strict=True))
    for size in sorted(set(sizes.values()))[:-1]:
        for node in list(left):
            if sizes[node] == size and not request.required >> node & 1:
                left.remove(node)
                if len(left) <= request.minimum:
                    break
        found = _evaluate(request, np.array(left), offer)
        if found or len(left) <= request.minimum:
            break
    return found


def _one_node(request: Request, nodes: Positions, offer: Offer) -> int:
    """Return what :func:`_evaluate` does for a job of one node."""
    import numpy as np

    cpus, weights = offer.cpus[nodes], offer.weights[nodes]
    enough = cpus >= request.cpus
    firsts = _firsts(nodes, weights)
    runs = np.flatnonzero(np.logical_or.reduceat(enough, firsts))
    if not len(runs):
        return 0
    light = weights[firsts][runs]
    runs = runs[light == light.min()]
    run = int(runs[np.add.reduceat(cpus, firsts)[runs].argmin()])
    first, end = int(firsts[run]), int(firsts[run + 1]) if run + 1 < len(firsts) else len(nodes)
    inside = np.flatnonzero(enough[first:end]) + first
    return 1 << int(nodes[inside[cpus[inside].argmin()]])


def _firsts(nodes: Positions, weights: Numbers) -> Positions:
    """Return where runs of consecutive nodes of one weight begin."""
    import numpy as np

    new = (nodes[1:] != nodes[:-1] + 1) | (weights[1:] != weights[:-1])
    return np.concatenate(([0], np.flatnonzero(new) + 1))


def _evaluate(request: Request, usable: Positions, offer: Offer) -> int:
    nodes: list[int] = usable.tolist()
    if len(nodes) < request.minimum:
        return 0
    wanted = _Wanted(request, offer)
    if request.required:
        for node in nodes:
            if request.required >> node & 1:
                wanted.take(node)
        if request.required & ~wanted.chosen:
            return 0
        if wanted.done:
            return wanted.chosen
        if wanted.most <= 0:
            return 0
    if request.least_loaded:
        left = [node for node in nodes if not wanted.chosen >> node & 1]
        for node in sorted(left, key=lambda node: (offer.weights[node], -offer.cpus[node])):
            wanted.take(node)
            if wanted.done:
                return wanted.chosen
            if wanted.most <= 0:
                break
        return wanted.chosen if wanted.cpus <= 0 and wanted.enough(0) else 0
    runs = _around(nodes, offer, request.required) if request.required else _runs(usable, nodes, offer)
    while runs and wanted.most > 0:
        run = _best(runs, wanted)
        runs.remove(run)
        _fill(run, wanted)
        if wanted.done:
            return wanted.chosen
    return wanted.chosen if wanted.cpus <= 0 and wanted.enough(0) else 0


def _runs(usable: Positions, nodes: list[int], offer: Offer) -> list[_Run]:
    """Return the runs of consecutive nodes."""
    import numpy as np

    weights = offer.weights[usable]
    firsts = _firsts(usable, weights)
    totals = np.add.reduceat(offer.cpus[usable], firsts).tolist()
    begins: list[int] = firsts.tolist()
    return [
        _Run(nodes[begin:end], total, weight)
        for begin, end, total, weight in zip(
            begins, [*begins[1:], len(nodes)], totals, weights[firsts].tolist(), strict=True
        )
    ]


def _around(nodes: Sequence[int], offer: Offer, required: int) -> list[_Run]:
    """Return the runs where nodes among them are taken already."""
    runs: list[_Run] = []
    run: _Run | None = None
    before = -2
    first_required: int | None = None
    for node in nodes:
        if node != before + 1:
            run, first_required = None, None
        before = node
        if required >> node & 1:
            if run is not None:
                run.required = node if run.required is None else run.required
            elif first_required is None:
                first_required = node
            continue
        if run is None or run.weight != offer.weights[node]:
            run = _Run([], 0, int(offer.weights[node]), first_required)
            runs.append(run)
            first_required = None
        run.nodes.append(node)
        run.cpus += int(offer.cpus[node])
    return runs


def _best(runs: Sequence[_Run], wanted: _Wanted) -> _Run:
    """Return the run to take nodes from next: one with a required node, of the least weight, that fits tightest."""
    best: _Run | None = None
    fits = False
    for run in runs:
        enough = run.cpus >= wanted.cpus and wanted.enough(len(run.nodes))
        if (
            best is None
            or (best.required is None and run.required is not None)
            or run.weight < best.weight
            or (
                run.weight == best.weight
                and ((enough and (not fits or run.cpus < best.cpus)) or (not enough and run.cpus > best.cpus))
            )
        ):
            best, fits = run, enough
    assert best is not None
    return best


def _fill(run: _Run, wanted: _Wanted) -> None:
    cpus = wanted.offer.cpus
    order = run.nodes
    if run.required is not None:
        order = [node for node in order if node > run.required]
        order += [node for node in reversed(run.nodes) if node < run.required]
    elif wanted.nodes <= 1:
        single = [node for node in order if cpus[node] >= wanted.cpus]
        if single:
            order = [min(single, key=lambda node: cpus[node])]
    for node in order:
        if wanted.most <= 0 or wanted.done:
            break
        if run.required is None and wanted.most == 1 and cpus[node] < wanted.cpus:
            continue
        wanted.take(node)
