"""Which nodes are closest together: the best nodes for a job, given that some are busy or drained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcplan.errors import HpcplanError, InfeasibleError
from hpcplan.site.hierarchy import Hierarchy, Ints

if TYPE_CHECKING:
    from hpcplan.site.topology import Topology

__all__ = ["best_nodes"]


def best_nodes(
    topology: Topology,
    count: int,
    *,
    hosts: Iterable[str] | None = None,
    busy: Collection[str] = (),
    drained: Collection[str] | None = None,
) -> list[str]:
    """Return the ``count`` nodes that are closest together, in the order of the fabric: neighbours stand together.

    They are under the lowest switch that has so many free; of several such switches the one with the fewest free, so
    that large gaps stay whole. Under it, whole accelerator domains and leaves are filled, fullest first, and what
    remains comes from the smallest that is large enough: few leaves, and few of them broken. On a torus they are the
    smallest box.

    Args:
        topology: of the site.
        count: how many.
        hosts: the nodes to choose from; all of the site if not given.
        busy: nodes that are taken.
        drained: nodes that take no jobs; those that the site file calls drained if not given.

    Raises:
        InfeasibleError: fewer nodes are free, or nothing joins so many of them.
        HpcplanError: an unknown node, or a count below 1.
    """
    if count < 1:
        raise HpcplanError(f"{count} is no number of nodes")
    hierarchy = topology.hierarchy
    usable = np.zeros(hierarchy.host_count, dtype=bool)
    usable[hierarchy.numbers(hierarchy.hosts if hosts is None else hosts)] = True
    out = topology.drained if drained is None else drained
    for taken in (busy, out):
        numbers = hierarchy.numbers(taken)
        usable[numbers[numbers < hierarchy.host_count]] = False
    free = np.flatnonzero(usable)
    if len(free) < count:
        raise InfeasibleError(f"{count} nodes are wanted and {len(free)} are free")
    return [hierarchy.names[number] for number in topology.choose(count, free)]


def choose_on_tree(hierarchy: Hierarchy, count: int, free: Ints) -> Ints:
    """Return ``count`` of the ``free`` hosts (ascending numbers), as :func:`best_nodes` describes it."""
    if count == 1:
        return _of_least_room(hierarchy, free)
    domain = _within_a_domain(hierarchy, count, free)
    if domain is not None:
        return domain
    for level, row in enumerate(hierarchy.above):
        switches, sizes = np.unique(row[free][row[free] >= 0], return_counts=True)
        enough = np.flatnonzero(sizes >= count)
        if len(enough):
            switch = switches[enough[np.argmin(sizes[enough])]]
            return _fill(hierarchy, count, free[row[free] == switch], level)
    raise InfeasibleError(f"{count} nodes are wanted; {len(free)} are free, but nothing joins so many of them")


def _of_least_room(hierarchy: Hierarchy, free: Ints) -> Ints:
    leaf = hierarchy.parent[free]
    _, inverse, sizes = np.unique(leaf, return_inverse=True, return_counts=True)
    return free[[int(np.argmin(sizes[inverse.ravel()]))]]


def _within_a_domain(hierarchy: Hierarchy, count: int, free: Ints) -> Ints | None:
    domain = hierarchy.domain[free]
    numbers, sizes = np.unique(domain[domain >= 0], return_counts=True)
    enough = np.flatnonzero(sizes >= count)
    if not len(enough):
        return None
    chosen = numbers[enough[np.argmin(sizes[enough])]]
    inside: Ints = free[domain == chosen][:count]
    return inside


def _fill(hierarchy: Hierarchy, count: int, free: Ints, level: int) -> Ints:
    """Return ``count`` of hosts under one switch of ``level``: whole units first, the rest from the smallest unit.

    Units are what the switches of the next lower level join; under a leaf, accelerator domains, then single hosts.
    """
    if level < 0:
        return free[:count]
    units = _units(hierarchy.above[level - 1][free] if level else hierarchy.domain[free], free)
    units.sort(key=lambda unit: (-len(unit), int(unit[0])))
    chosen: list[Ints] = []
    missing = count
    while missing:
        if len(units[0]) > missing:
            fitting = [unit for unit in units if len(unit) >= missing]
            smallest = min(fitting, key=lambda unit: (len(unit), int(unit[0])))
            chosen.append(_fill(hierarchy, missing, smallest, level - 1))
            break
        chosen.append(units.pop(0))
        missing -= len(chosen[-1])
    ordered: Sequence[Ints] = sorted(chosen, key=lambda unit: int(unit[0]))
    return np.concatenate(ordered)


def _units(key: Ints, free: Ints) -> list[Ints]:
    """Return hosts by their key, each list in the order of the site."""
    order = np.argsort(key, kind="stable")
    _, starts = np.unique(key[order], return_index=True)
    return [np.sort(part) for part in np.split(free[order], starts[1:])]
