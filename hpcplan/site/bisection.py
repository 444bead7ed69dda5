"""Bisection bandwidth: the least bandwidth between two halves of the nodes, over all ways of halving them.

On trees, and on rails and Clos networks through their hierarchy, it is exact: the least cut for every number of nodes
on one side is built up from the leaves (dynamic programming over the tree; equal subtrees are computed once). On a
torus it is that of straight cuts, which are the best where the longest dimension is even; on a dragonfly that of halves
made of whole groups, or of whole groups and routers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcplan.errors import HpcplanError
from hpcplan.site.hierarchy import Floats, Hierarchy

if TYPE_CHECKING:
    from hpcplan.site.topology import Topology
    from hpcplan.site.torus import Grid

__all__ = ["bisection_bytes_per_s"]

_MAX_ORDERS = 16  # groups of a dragonfly that the first half may begin with


def bisection_bytes_per_s(topology: Topology, hosts: Sequence[str] | None = None) -> float:
    """Return the bisection bandwidth of the site, or of some of its nodes, in bytes/s one way.

    With an odd number of nodes one half has one more. Links inside accelerator domains do not count.

    Raises:
        HpcplanError: fewer than two nodes, a node twice, or an unknown one.
    """
    hierarchy = topology.hierarchy
    numbers = hierarchy.numbers(hierarchy.hosts if hosts is None else hosts)
    wanted = np.zeros(hierarchy.host_count, dtype=bool)
    wanted[numbers] = True
    if len(numbers) < 2 or int(wanted.sum()) < len(numbers):
        raise HpcplanError("a bisection needs at least two nodes, each once")
    if topology.kind == "dragonfly":
        return _cut_in_order(topology, wanted)
    if len(topology.grids) == 1 and wanted.all():
        return _straight_cut(topology, topology.grids[0])
    return _Cuts(topology, wanted).halves()


class _Cuts:
    """The least cut of every subtree, by how many of its nodes are on the side of its own switch."""

    def __init__(self, topology: Topology, wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
        self.hierarchy: Hierarchy = topology.hierarchy
        self.wanted = wanted
        self.grids: dict[str, Grid] = {grid.torus.name: grid for grid in topology.grids}
        self.known: dict[tuple[object, ...], Floats] = {}

    def halves(self) -> float:
        """Return the least cut into halves; roots that nothing joins hang together on a link without bandwidth."""
        h = self.hierarchy
        cut: dict[int, Floats] = {}
        keys: dict[int, tuple[object, ...]] = {}
        roots: list[int] = []
        for number in range(h.host_count, len(h.names)):  # children stand before parents
            bundle = h.bundles[h.names[number]]
            key = self._key(bundle.name, [keys[h.index[child]] for child in bundle.children])
            if key not in self.known:
                self.known[key] = self._own(bundle.name, [h.index[child] for child in bundle.children], cut, keys)
            cut[number], keys[number] = self.known[key], (*key, float(h.up_bytes_per_s[number]))
            if h.parent[number] < 0:
                roots.append(number)
        for host in np.flatnonzero(self.wanted & (h.parent[: h.host_count] < 0)):
            cut[int(host)], keys[int(host)] = np.array([math.inf, 0.0]), ("host",)
            roots.append(int(host))
        whole = _join([(cut[root], 0.0, keys[root]) for root in roots])
        return float(whole[(len(whole) - 1) // 2])

    def _rates(self, name: str) -> Floats:
        h = self.hierarchy
        members = np.array([h.index[host] for host in h.bundles[name].hosts], dtype=np.int64)
        return np.sort(h.up_bytes_per_s[members[self.wanted[members]]]) if len(members) else np.zeros(0)

    def _key(self, name: str, below: list[tuple[object, ...]]) -> tuple[object, ...]:
        """Return what two subtrees must have in common to have the same cuts."""
        if name in self.grids:
            return ("torus", name)
        return (self._rates(name).tobytes(), *sorted(below, key=repr))

    def _own(
        self, name: str, children: list[int], cut: dict[int, Floats], keys: dict[int, tuple[object, ...]]
    ) -> Floats:
        if name in self.grids:
            return self._torus(self.grids[name])
        rates = self._rates(name)  # the nodes with the least bandwidth are the cheapest to leave on the other side
        nodes = np.concatenate([[0.0], np.cumsum(rates)])[::-1]
        up = self.hierarchy.up_bytes_per_s
        return _convolve(nodes, _join([(cut[child], float(up[child]), keys[child]) for child in children]))

    def _torus(self, grid: Grid) -> Floats:
        """Return the cuts of a torus along straight sections, each as many nodes as it has.

        Of a torus that is not wanted as a whole, any number of nodes is cut off by such a section as well.
        """
        count = int(self.wanted[grid.hosts].sum())
        link = grid.torus.link_bytes_per_s
        cells = len(grid.hosts)
        cut = np.full(count + 1, math.inf)
        cut[count] = 0.0
        for size in grid.torus.dims:
            if size == 1:
                continue
            section = cells // size
            cost = section * link * (2 if size > 2 else 1)
            steps = range(section, cells, section) if count == cells else range(count + 1)
            cut[list(steps)] = np.minimum(cut[list(steps)], cost)
        if np.isinf(cut[count // 2]):  # all dimensions are odd: the nearest section and a partial one
            cut[count // 2] = max(c for c in cut if math.isfinite(c)) + link * len(grid.torus.dims)
        uplink = grid.torus.uplink_bytes_per_s or 0.0
        apart = (count - np.arange(count + 1)) * uplink / cells  # up-links of nodes on the other side
        return cut + apart


def _join(children: Sequence[tuple[Floats, float, tuple[object, ...]]]) -> Floats:
    """Return the cuts of several subtrees together, each hanging on a link of that bandwidth."""
    equal: dict[tuple[object, ...], tuple[Floats, int]] = {}
    for cut, link, key in children:
        full = (*key, link)
        if full in equal:
            equal[full] = equal[full][0], equal[full][1] + 1
        else:
            equal[full] = np.minimum(cut, cut[::-1] + link), 1
    result = np.zeros(1)
    for cut, times in sorted(equal.values(), key=lambda one: len(one[0])):
        result = _convolve(result, _repeated(cut, times))
    return result


def _repeated(cut: Floats, times: int) -> Floats:
    """Return the cuts of ``times`` equal subtrees, by repeated doubling."""
    result = np.zeros(1)
    while times:
        if times % 2:
            result = _convolve(result, cut)
        times //= 2
        if times:
            cut = _convolve(cut, cut)
    return result


def _convolve(a: Floats, b: Floats) -> Floats:
    """Return the least a[i] + b[j] for every i + j."""
    if len(a) > len(b):
        a, b = b, a
    result = np.full(len(a) + len(b) - 1, math.inf)
    for offset, value in enumerate(a.tolist()):
        if math.isfinite(value):
            part = result[offset : offset + len(b)]
            np.minimum(part, b + value, out=part)
    return result


def _straight_cut(topology: Topology, grid: Grid) -> float:
    """Return the least cut between halves of a torus that straight sections make, by the links that it still has.

    A dimension of odd length is cut beside its middle, so that the halves differ by one section.
    """
    place = {name: index for index, name in enumerate(topology.hierarchy.names[host] for host in grid.hosts)}
    edges = [(place[a], place[b]) for a, b in topology.graph.edges]
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    rates = np.array([data["bandwidth_bytes_per_s"] for _, _, data in topology.graph.edges(data=True)])
    even = [axis for axis, size in enumerate(grid.torus.dims) if size % 2 == 0]
    longest = [int(np.argmax(grid.torus.dims))]
    least = math.inf
    for axis in even or longest:
        size = grid.torus.dims[axis]
        for offset in range(size // 2 if size % 2 == 0 else size):
            side = (grid.coordinates[:, axis] - offset) % size < size // 2
            least = min(least, float(rates[side[ends[:, 0]] != side[ends[:, 1]]].sum()))
    return least


def _cut_in_order(topology: Topology, wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Return the least cut of the graph when nodes are halved in the order of groups and routers, from any group on."""
    h = topology.hierarchy
    numbers = np.flatnonzero(wanted)
    order = numbers[np.lexsort(tuple(h.above[row, numbers] for row in range(len(h.above))))]
    _, starts = np.unique(h.above[min(1, len(h.above) - 1), order], return_index=True)
    several = np.sort(starts)[:_MAX_ORDERS]
    return min(_cut_of(topology, [h.names[number] for number in np.roll(order, -start).tolist()]) for start in several)


def _cut_of(topology: Topology, order: Sequence[str]) -> float:
    side = {name: index < len(order) // 2 for index, name in enumerate(order)}
    below: dict[str, list[bool]] = {}
    for host, first in side.items():
        below.setdefault(topology.ancestors(host)[0], []).append(first)
    side |= {router: sum(votes) * 2 > len(votes) for router, votes in below.items()}
    crossing = [data for a, b, data in topology.graph.edges(data=True) if side.get(a, 2) + side.get(b, 2) == 1]
    return float(sum(data["bandwidth_bytes_per_s"] for data in crossing))
