"""Contraction: which nodes must share a device, and the order that pieces must follow between such groups.

Nodes of one colour share a device. Since a piece has no gaps, whatever lies on a path between two nodes of one colour
shares it too, which is a strongly connected component once every colour is drawn together. What remains is a partial
order of groups. A piece is a difference of two of its ideals (sets that are closed under "comes before"), and a split
is a chain of ideals from nothing to everything, so pieces can run one after the other.

Backward nodes go where their colour's forward nodes go, so only forward edges order the groups; a group that has no
forward node is put into the order by its backward edges, reversed, since gradients flow against the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcplan.partition.graph.model import LayerGraph

__all__ = ["Groups", "contract", "strong_components"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of nodes in a topological order, as arrays over groups.

    ``before[g]`` and ``after[g]`` are the direct neighbours of group ``g``. ``borders`` are the sets of groups that
    meet one output, or several of the same: the group that makes it and those that use it; a piece that has some but
    not all of them pays ``border_time``.
    """

    graph: LayerGraph
    members: tuple[tuple[int, ...], ...]
    accelerator_time: Floats
    cpu_time: Floats
    size_bytes: Floats
    on_accelerator: NDArray[np.bool_]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    borders: tuple[tuple[int, ...], ...]
    border_time: Floats

    def __len__(self) -> int:
        return len(self.members)

    def backwards(self) -> Groups:
        """Return the same groups in reverse: group ``g`` becomes ``len(self) - 1 - g``, and before becomes after."""
        last = len(self) - 1

        def turned(rows: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
            return tuple(tuple(sorted(last - g for g in row)) for row in rows)

        return Groups(
            graph=self.graph,
            members=self.members[::-1],
            accelerator_time=self.accelerator_time[::-1],
            cpu_time=self.cpu_time[::-1],
            size_bytes=self.size_bytes[::-1],
            on_accelerator=self.on_accelerator[::-1],
            before=turned(self.after)[::-1],
            after=turned(self.before)[::-1],
            borders=turned(self.borders),
            border_time=self.border_time,
        )


def contract(graph: LayerGraph, *, mirrored: bool = False) -> Groups:
    """Return the groups of a graph.

    Args:
        graph: what to contract.
        mirrored: let every backward edge order the groups, so that the backward part of every piece is contiguous by
            construction. Otherwise that has to be checked, and fewer nodes are forced together.
    """
    colors: dict[object, int] = {}
    color = [colors.setdefault(("node", i) if node.color is None else node.color, len(colors))
             for i, node in enumerate(graph.nodes)]  # fmt: skip
    order = _order(graph, color, len(colors), mirrored=mirrored)
    component = strong_components(len(colors), order)
    host = _hosts(graph, [component[c] for c in color])
    number: dict[int, int] = {}
    place = [number.setdefault(h, len(number)) for h in host]
    group = [place[component[c]] for c in color]
    count = len(number)
    first = [group.index(g) for g in range(count)]
    arcs = sorted({(place[component[a]], place[component[b]]) for a, b in order} - {(g, g) for g in range(count)})
    rank = _topological(count, arcs, first)
    group = [rank[g] for g in group]
    return _assemble(graph, group, count, [(rank[a], rank[b]) for a, b in arcs])


def _hosts(graph: LayerGraph, group: Sequence[int]) -> list[int]:
    """Return for each group the one that it may as well share a device with: itself, mostly.

    A group that costs no time anywhere and has one neighbour can follow it: no device is busier for it. If its memory
    could matter, it stays on its own.
    """
    count = max(group) + 1
    near: list[set[int]] = [set() for _ in range(count)]
    for source, target in graph.edges:
        a, b = group[source], group[target]
        if a != b:
            near[a].add(b)
            near[b].add(a)
    roomy = sum(node.size_bytes for node in graph.nodes) <= graph.memory_bytes
    free = [True] * count
    for node, g in zip(graph.nodes, group, strict=True):
        costs = node.cpu_time + node.accelerator_time > 0 or (node.size_bytes > 0 and not roomy)
        free[g] &= node.on_accelerator and not costs
    host = list(range(count))
    leaves = [g for g in range(count) if free[g] and len(near[g]) == 1]
    for leaf in leaves:  # grows while it is walked
        if len(near[leaf]) != 1:
            continue  # its neighbour was a leaf too, and has joined it
        other = near[leaf].pop()
        near[other].discard(leaf)
        host[leaf] = other
        if free[other] and len(near[other]) == 1:
            leaves.append(other)
    for g in range(count):
        while host[g] != host[host[g]]:
            host[g] = host[host[g]]
    return host


def _order(graph: LayerGraph, color: Sequence[int], count: int, *, mirrored: bool) -> list[tuple[int, int]]:
    forward = [False] * count
    for i, node in enumerate(graph.nodes):
        forward[color[i]] |= not node.backward
    arcs: dict[tuple[int, int], None] = {}
    for source, target in graph.edges:
        a, b = color[source], color[target]
        if a == b:
            continue
        if not graph.nodes[target].backward:
            arcs[a, b] = None
        elif graph.nodes[source].backward and (mirrored or not (forward[a] and forward[b])):
            arcs[b, a] = None
    return list(arcs)


def _assemble(graph: LayerGraph, group: Sequence[int], count: int, arcs: Sequence[tuple[int, int]]) -> Groups:
    members: list[list[int]] = [[] for _ in range(count)]
    for i, g in enumerate(group):
        members[g].append(i)
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in sorted(arcs):
        before[b].append(a)
        after[a].append(b)
    pins: dict[int, set[int]] = {}
    for source, target in graph.edges:
        pins.setdefault(source, {group[source]}).add(group[target])
    borders: dict[tuple[int, ...], float] = {}
    for source in sorted(pins):
        key = tuple(sorted(pins[source]))
        if len(key) > 1 and graph.nodes[source].transfer > 0:
            borders[key] = borders.get(key, 0.0) + graph.nodes[source].transfer
    nodes = graph.nodes
    return Groups(
        graph=graph,
        members=tuple(map(tuple, members)),
        accelerator_time=np.array([sum(nodes[i].accelerator_time for i in m) for m in members]),
        cpu_time=np.array([sum(nodes[i].cpu_time for i in m) for m in members]),
        size_bytes=np.array([sum(nodes[i].size_bytes for i in m) for m in members]),
        on_accelerator=np.array([all(nodes[i].on_accelerator for i in m) for m in members], dtype=np.bool_),
        before=tuple(map(tuple, before)),
        after=tuple(map(tuple, after)),
        borders=tuple(borders),
        border_time=np.array(list(borders.values()), dtype=np.float64),
    )


def strong_components(count: int, arcs: Sequence[tuple[int, int]]) -> list[int]:
    """Return the number of the strongly connected component of each vertex (Tarjan 1972, without recursion)."""
    after: list[list[int]] = [[] for _ in range(count)]
    for a, b in arcs:
        after[a].append(b)
    index, low, component = [-1] * count, [0] * count, [-1] * count
    path: list[int] = []
    seen = found = 0
    for root in range(count):
        work = [(root, 0)] if index[root] < 0 else []
        while work:
            vertex, step = work.pop()
            if step == 0:
                index[vertex] = low[vertex] = seen
                seen += 1
                path.append(vertex)
            elif component[after[vertex][step - 1]] < 0:
                low[vertex] = min(low[vertex], low[after[vertex][step - 1]])
            while step < len(after[vertex]):
                other = after[vertex][step]
                step += 1
                if index[other] < 0:
                    work += [(vertex, step), (other, 0)]
                    break
                if component[other] < 0:
                    low[vertex] = min(low[vertex], index[other])
            else:
                if low[vertex] == index[vertex]:
                    while component[vertex] < 0:
                        component[path.pop()] = found
                    found += 1
    return component


def _topological(count: int, arcs: Sequence[tuple[int, int]], key: Sequence[int]) -> list[int]:
    """Return the rank of each vertex: depth first, so that what hangs together stays close together."""
    after: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for a, b in arcs:
        after[a].append(b)
        waiting[b] += 1
    ready = sorted((v for v in range(count) if not waiting[v]), key=key.__getitem__, reverse=True)
    rank = [0] * count
    for position in range(count):
        vertex = ready.pop()
        rank[vertex] = position
        freed = []
        for other in after[vertex]:
            waiting[other] -= 1
            if not waiting[other]:
                freed.append(other)
        ready += sorted(freed, key=key.__getitem__, reverse=True)
    return rank
