"""What a tree of switches answers in closed form: all pairs of hosts, and the hosts that are closest together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcplan.errors import InfeasibleError
from hpcplan.site.hierarchy import Hierarchy, Ints, Levels

__all__ = ["choose_on_tree", "tree_pairs"]

_NO_LEVEL = 127  # of pairs that nothing joins


def tree_pairs(
    hierarchy: Hierarchy, numbers: Ints, real: type[np.floating[Any]] = np.float32
) -> tuple[Levels, NDArray[Any], NDArray[Any]]:
    """Return level, bandwidth and latency of all pairs of hosts on a tree, shape (hosts, hosts) each."""
    size = (len(numbers), len(numbers))
    level = np.full(size, _NO_LEVEL, dtype=np.int8)
    bandwidth = np.zeros(size, dtype=real)
    latency = np.full(size, np.inf, dtype=real)
    above = hierarchy.above[:, numbers]
    narrowest = hierarchy.reach_bytes_per_s[:, numbers].astype(real)
    delay = hierarchy.reach_latency_s[:, numbers].astype(real)
    for row in range(len(above) - 1, -1, -1):  # from the roots down, so that the lowest common switch has the last word
        for switch in np.unique(above[row][above[row] >= 0]):
            members = np.flatnonzero(above[row] == switch)
            pairs = _block(members)
            level[pairs] = row + 1
            bandwidth[pairs] = np.minimum.outer(narrowest[row, members], narrowest[row, members])
            latency[pairs] = np.add.outer(delay[row, members], delay[row, members])
    return level, bandwidth, latency


def _block(members: Ints) -> tuple[slice, slice] | tuple[Ints, ...]:
    """Return the index of all pairs among ``members``; a slice, which is far cheaper, where they are consecutive."""
    if members[-1] - members[0] + 1 == len(members):
        run = slice(int(members[0]), int(members[-1]) + 1)
        return run, run
    return tuple(np.ix_(members, members))


def choose_on_tree(hierarchy: Hierarchy, count: int, free: Ints) -> Ints:
    """Return ``count`` of the ``free`` hosts (ascending numbers), as ``best_nodes`` describes it.

    Raises:
        InfeasibleError: nothing joins so many of them.
    """
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
