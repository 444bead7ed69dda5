"""Which nodes, in which order: what Slurm would do, what packing under switches gives, and random ones to compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpcplan.cost.shardings import Ints
from hpcplan.hostlist import compress, expand
from hpcplan.partition.placement.torus import boxes
from hpcplan.plan import Neighbourhood
from hpcplan.rank_map import Fabric
from hpcplan.site.hierarchy import Hierarchy
from hpcplan.site.topology import Topology

__all__ = ["fabric_of", "neighbourhoods", "random_choices", "slurm_choice"]


def neighbourhoods(topology: Topology, hosts: Sequence[str]) -> tuple[Neighbourhood, ...]:
    """Return what is above ``hosts``, children before parents, as a plan carries it: domains, switches, boxes."""
    hierarchy = topology.hierarchy
    members: dict[int, list[str]] = {}
    inside: dict[tuple[int, int], list[str]] = {}
    for number, name in zip(hierarchy.numbers(hosts), hosts, strict=True):
        leaf, domain = int(hierarchy.parent[number]), int(hierarchy.domain[number])
        if domain >= 0:
            inside.setdefault((leaf, domain), []).append(name)
        else:
            members.setdefault(leaf, []).append(name)
    used = {leaf for leaf, _ in inside} | set(members)
    for vertex in range(hierarchy.host_count, len(hierarchy.names)):  # children stand before parents
        if vertex in used:
            used.add(int(hierarchy.parent[vertex]))
    grids = {hierarchy.index[grid.torus.name]: grid for grid in topology.grids}
    result = [
        Neighbourhood(
            name=f"domain{of}@{hierarchy.names[leaf]}", parent=hierarchy.names[leaf], nodes=compress(names), domain=True
        )
        for (leaf, of), names in inside.items()
    ]
    for vertex in sorted(used - {-1}):
        parts = boxes(grids[vertex], hosts, hierarchy.names) if vertex in grids else []
        result += parts[:-1]
        result.append(_of_vertex(hierarchy, vertex, [] if parts else members.get(vertex, [])))
    return tuple(result)


def _of_vertex(hierarchy: Hierarchy, vertex: int, hosts: list[str]) -> Neighbourhood:
    bundle = hierarchy.bundles.get(hierarchy.names[vertex])
    return Neighbourhood(
        name=hierarchy.names[vertex],
        parent=_name(hierarchy, int(hierarchy.parent[vertex])),
        nodes=compress(hosts) if hosts else None,
        uplink_bytes_per_s=float(hierarchy.up_bytes_per_s[vertex]) or None,
        latency_s=bundle.latency_s if bundle else 0.0,
    )


def _name(hierarchy: Hierarchy, vertex: int) -> str | None:
    return hierarchy.names[vertex] if vertex >= 0 else None


def fabric_of(places: Sequence[Neighbourhood], hosts: Sequence[str]) -> Fabric:
    """Return neighbourhoods as the job script's own program sees them."""
    return Fabric([{**p.model_dump(), "nodes": expand(p.nodes) if p.nodes else []} for p in places], list(hosts))


def slurm_choice(hierarchy: Hierarchy, free: Ints, count: int, *, topology: bool) -> Ints:
    """Return the nodes that Slurm would give a job, in the order in which it numbers them: that of its configuration.

    With a topology plugin, the lowest switch that has so many, and under it the leaves that fit best; without one, runs
    of consecutive nodes that fit best (slurm.conf(5), SelectType; topology.conf(5)). ``free`` is ascending.
    """
    if not topology:
        runs = np.split(free, np.flatnonzero(np.diff(free) != 1) + 1)
        return np.sort(_best_fit(runs, count))
    for row in hierarchy.above:
        switches, sizes = np.unique(row[free][row[free] >= 0], return_counts=True)
        enough = np.flatnonzero(sizes >= count)
        if len(enough):
            below = free[row[free] == switches[enough[np.argmin(sizes[enough])]]]
            leaf = hierarchy.parent[below]
            return np.sort(_best_fit([below[leaf == one] for one in np.unique(leaf)], count))
    return np.sort(free[:count])


def _best_fit(sets: list[Ints], count: int) -> Ints:
    """Return ``count`` hosts: of the smallest set that has so many, else of the largest one after another."""
    left, taken = list(sets), [np.zeros(0, dtype=np.int64)]
    while count > 0 and left:
        sizes = [len(one) for one in left]
        large = [size for size in sizes if size >= count]
        at = sizes.index(min(large) if large else max(sizes))
        taken.append(left.pop(at)[:count])
        count -= len(taken[-1])
    return np.concatenate(taken)


def random_choices(free: Ints, count: int, samples: int, seed: int) -> Ints:
    """Return random nodes in random order, shape (samples, count)."""
    generator = np.random.default_rng(seed)
    return np.array([generator.permutation(free)[:count] for _ in range(samples)], dtype=np.int64)
