"""The topology of a site: its graph, its levels, and the questions that planning asks of it.

Edges of the graph have ``bandwidth_bytes_per_s`` (all parallel links together, one way), ``latency_s`` (one traversal)
and ``links``. Vertices have ``kind`` (``switch`` or ``node``; with :func:`hpcplan.site.inside.with_insides` also
``gpu``, ``nic``, ``socket`` and ``nvswitch``), ``level`` (0 for nodes, 1 for leaf switches, …), nodes also ``group``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hpcplan.errors import HpcplanError, nearest
from hpcplan.hostlist import expand
from hpcplan.site.bundles import bundles_of
from hpcplan.site.fabric_graph import graph_of
from hpcplan.site.hierarchy import Bundle, Floats, Hierarchy, Ints, Levels, hierarchy_of
from hpcplan.site.model import Site
from hpcplan.site.torus import Grid, links_of
from hpcplan.site.tree import choose_on_tree, tree_pairs

__all__ = ["Level", "Tier", "Topology", "build_topology"]


@dataclass(frozen=True, slots=True)
class Tier:
    """A neighbourhood of equal nodes: up to ``nodes`` of them talk at ``bandwidth_bytes_per_s`` each, one way.

    The bandwidth is what a node gets when all nodes of the neighbourhood talk across it at once, so oversubscription
    is in it; ``latency_s`` is from interface to interface.
    """

    name: str
    nodes: int
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Level:
    """One level of switches: how many, what enters from below and leaves upwards (bytes/s, one way, all together).

    What is no switch but joins others, a dragonfly's group or a torus, counts as one.
    """

    level: int
    switches: int
    down_bytes_per_s: float
    up_bytes_per_s: float

    @property
    def oversubscription(self) -> float | None:
        """Bandwidth from below over bandwidth upwards; ``None`` at the top."""
        return self.down_bytes_per_s / self.up_bytes_per_s if self.up_bytes_per_s else None


class Topology:
    """The graph of a site (every switch on its own) and its :class:`~hpcplan.site.hierarchy.Hierarchy`.

    ``kind`` is that of the site's fabric; ``drained`` are the nodes that take no jobs.
    """

    def __init__(
        self,
        graph: nx.Graph[str],
        hierarchy: Hierarchy,
        *,
        kind: str = "tree",
        grids: Sequence[Grid] = (),
        drained: frozenset[str] = frozenset(),
    ) -> None:
        self.graph = graph
        self.hierarchy = hierarchy
        self.kind = kind
        self.grids = tuple(grids)
        self.drained = drained

    def nodes(self, group: str | None = None) -> list[str]:
        """Return the hosts, of one group or all, in the site's order."""
        if group is None:
            return list(self.hierarchy.hosts)
        return [name for name in self.hierarchy.hosts if self.graph.nodes[name]["group"] == group]

    def switches(self, level: int | None = None) -> list[str]:
        """Return the switches, of one level or all, each on its own."""
        data = self.graph.nodes(data=True)
        return [name for name, a in data if a["kind"] == "switch" and level in (None, a["level"])]

    def bundles(self, level: int | None = None) -> list[Bundle]:
        """Return the vertices of the hierarchy above the hosts, of one level or all, children before parents."""
        index, levels = self.hierarchy.index, self.hierarchy.level
        bundles = self.hierarchy.bundles.values()
        return [bundle for bundle in bundles if level in (None, int(levels[index[bundle.name]]))]

    @cached_property
    def _parent(self) -> dict[str, str]:
        names, parent = self.hierarchy.names, self.hierarchy.parent
        above = {names[child]: names[above] for child, above in enumerate(parent.tolist()) if above >= 0}
        inside = {name: bundle.name for bundle in self.bundles() for name in bundle.switches if name != bundle.name}
        return above | {name: above[bundle] for name, bundle in inside.items() if bundle in above}

    def ancestors(self, name: str) -> list[str]:
        """Return the switches above a vertex, nearest first; parallel ones as one, by the name of their bundle."""
        above: list[str] = []
        while name in self._parent:
            name = self._parent[name]
            above.append(name)
        return above

    def path(self, a: str, b: str) -> list[str]:
        """Return the vertices from ``a`` to ``b``, both included; one of the fastest ways where there are several.

        Raises:
            HpcplanError: one of them is unknown, or no path joins them.
        """
        for name in (a, b):
            if name not in self.graph:
                raise HpcplanError(f"no node or switch is called {name!r}" + nearest(name, self.graph.nodes))
        if self.kind not in ("tree", "blocks"):
            try:
                return [*nx.shortest_path(self.graph, a, b, weight="latency_s")]
            except nx.NetworkXNoPath:
                raise HpcplanError(f"no path joins {a!r} and {b!r}") from None
        up_a, up_b = [a, *self.ancestors(a)], [b, *self.ancestors(b)]
        common = next((vertex for vertex in up_a if vertex in set(up_b)), None)
        if common is None:
            raise HpcplanError(f"no path joins {a!r} and {b!r}")
        return up_a[: up_a.index(common) + 1] + up_b[: up_b.index(common)][::-1]

    def _edges(self, a: str, b: str) -> Iterator[dict[str, float]]:
        for low, high in pairwise(self.path(a, b)):
            yield self.graph.edges[low, high]

    def bandwidth(self, a: str, b: str) -> float:
        """Return the bottleneck between two vertices in bytes/s, one way; infinite from a vertex to itself.

        Between hosts all parallel paths count together, and the links of a common accelerator domain where they are
        wider. See :func:`hpcplan.site.distances.distances` for many pairs, :mod:`hpcplan.site.flows` for sets.

        Raises:
            HpcplanError: one of them is unknown, or no path joins them.
        """
        fabric = min((edge["bandwidth_bytes_per_s"] for edge in self._edges(a, b)), default=math.inf)
        if a == b or not self._are_hosts(a, b):
            return fabric
        pair = self.hierarchy.numbers([a, b])
        if self.kind not in ("tree", "blocks"):
            fabric = float(self.pairs(pair, np.float64)[1][0, 1])
        return max(fabric, self.hierarchy.domain_link(*pair)[0])

    def latency(self, a: str, b: str) -> float:
        """Return the latency between two vertices in seconds: its links and the switches between.

        Raises:
            HpcplanError: one of them is unknown, or no path joins them.
        """
        fabric = sum(edge["latency_s"] for edge in self._edges(a, b))
        if a == b or not self._are_hosts(a, b):
            return fabric
        return min(fabric, self.hierarchy.domain_link(*self.hierarchy.numbers([a, b]))[1])

    def _are_hosts(self, a: str, b: str) -> bool:
        return all(self.graph.nodes[name]["kind"] == "node" for name in (a, b))

    def pairs(
        self, numbers: Ints, real: type[np.floating[Any]] = np.float32
    ) -> tuple[Levels, NDArray[Any], NDArray[Any]]:
        """Return level, bandwidth and latency of all pairs of hosts; see :mod:`hpcplan.site.distances`."""
        level, bandwidth, latency = tree_pairs(self.hierarchy, numbers, real)
        if self.kind == "dragonfly":
            latency = self._by_shortest_paths(numbers, latency)
        for grid in self.grids:
            place = {int(host): index for index, host in enumerate(grid.hosts)}
            here = [index for index, number in enumerate(numbers.tolist()) if number in place]
            block = np.ix_(here, here)
            places = np.array([place[int(numbers[index])] for index in here], dtype=np.int64)
            level[block], bandwidth[block], latency[block] = grid.pairs(places)
        return level, bandwidth, latency

    def _by_shortest_paths(self, numbers: Ints, latency: NDArray[Any]) -> NDArray[Any]:
        """Return latencies by the shortest paths: routers with a global link of their own need no local hop to it."""
        index, between = self._router_latency_s
        router = np.array([index[self.hierarchy.names[above]] for above in self.hierarchy.parent[numbers].tolist()])
        to_router = self.hierarchy.up_latency_s[numbers]
        paths = between[np.ix_(router, router)] + np.add.outer(to_router, to_router)
        np.fill_diagonal(paths, 0.0)
        shortest: NDArray[Any] = paths.astype(latency.dtype)
        return shortest

    @cached_property
    def _router_latency_s(self) -> tuple[dict[str, int], Floats]:
        """Return the latency from router to router of a dragonfly, seconds, with the number of each router."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import shortest_path

        index = {name: number for number, name in enumerate(self.switches())}
        edges = [
            (index[a], index[b], data["latency_s"])
            for a, b, data in self.graph.edges(data=True)
            if a in index and b in index
        ]
        rows, columns, latencies = zip(*edges, strict=True) if edges else ((), (), ())
        matrix = csr_matrix((latencies, (rows, columns)), shape=(len(index), len(index)), dtype=float)
        return index, np.asarray(shortest_path(matrix, method="D", directed=False), dtype=np.float64)

    def choose(self, count: int, free: Ints) -> Ints:
        """Return the ``count`` of ``free`` hosts that are closest together; see :mod:`hpcplan.site.nearest`."""
        best: tuple[int, Ints] | None = None
        for grid in self.grids:
            places = np.flatnonzero(np.isin(grid.hosts, free))
            chosen = grid.choose(count, places)
            if chosen is not None and (best is None or len(places) < best[0]):
                best = len(places), grid.hosts[chosen]
        return best[1] if best is not None else choose_on_tree(self.hierarchy, count, free)

    def levels(self) -> list[Level]:
        """Return the levels of switches, leaves first, with what enters and leaves each."""
        up, level = self.hierarchy.up_bytes_per_s, self.hierarchy.level
        found: list[Level] = []
        for number in range(1, int(level.max(initial=0)) + 1):
            here = self.bundles(number)
            own = np.array([self.hierarchy.index[bundle.name] for bundle in here], dtype=np.int64)
            enters = float(up[np.isin(self.hierarchy.parent, own)].sum())
            count = sum(max(1, len(bundle.switches)) for bundle in here)
            found.append(Level(number, count, enters, float(up[own].sum())))
        return found

    def tiers(self, hosts: Sequence[str]) -> list[Tier]:
        """Return the neighbourhoods around the best-placed of ``hosts``, nearest first, the last holding all of them.

        For each switch above it: how many of the hosts are below, and what each gets if all talk across it at once,
        limited by every up-link on the way (shared among the hosts below that link). On a torus: boxes of growing size.
        """
        h, numbers = self.hierarchy, self.hierarchy.numbers(hosts)
        mine = np.zeros(h.host_count)
        mine[numbers] = 1.0
        below = h.below(mine)
        chains = {tuple(h.above[:, number].tolist()): number for number in reversed(numbers.tolist())}
        score = {chain: [int(below[v]) for v in chain if v >= 0] for chain in chains}
        chain_with_most = max(reversed(chains), key=lambda chain: score[chain])
        best, chain = chains[chain_with_most], [v for v in chain_with_most if v >= 0]
        tiers = self._torus_tiers(best, mine)
        if not tiers:
            tiers = [Tier(h.names[chain[0]], int(below[chain[0]]), float(h.up_bytes_per_s[best]),
                          2 * float(h.up_latency_s[best]))]  # fmt: skip
        bandwidth, latency = tiers[-1].bandwidth_bytes_per_s, tiers[-1].latency_s
        for low, high in pairwise(chain):
            bandwidth = min(bandwidth, float(h.up_bytes_per_s[low]) / below[low])
            latency += 2 * float(h.up_latency_s[low])
            if below[high] > tiers[-1].nodes:
                tiers.append(Tier(h.names[high], int(below[high]), float(bandwidth), latency))
        return tiers

    def _torus_tiers(self, host: int, mine: Floats) -> list[Tier]:
        """Return boxes of the torus that a host is in; of a torus that is not all among the hosts, only as many."""
        for grid in self.grids:
            if host in grid.hosts:
                limit = int(mine[grid.hosts].sum())
                shapes = [shape for shape in grid.boxes() if math.prod(shape) > 1] or [grid.torus.dims]
                sizes = [min(limit, math.prod(shape)) for shape in shapes]
                return [
                    Tier(f"{grid.torus.name} {'x'.join(map(str, shape))}", size, grid.share_bytes_per_s(shape),
                         grid.diameter(shape) * grid.torus.latency_s)
                    for n, (shape, size) in enumerate(zip(shapes, sizes, strict=True)) if n == 0 or size > sizes[n - 1]
                ]  # fmt: skip
        return []

    def closest(self, count: int, hosts: Sequence[str]) -> list[str]:
        """Return ``count`` of ``hosts`` under the lowest switch that holds so many, fullest leaves first.

        :func:`hpcplan.site.nearest.best_nodes` also knows of busy nodes and leaves large gaps whole.

        Raises:
            HpcplanError: fewer hosts than that are given, or no switch joins enough of them.
        """
        under: dict[str, list[str]] = {}
        for host in hosts:
            for switch in self.ancestors(host):
                under.setdefault(switch, []).append(host)
        index, level = self.hierarchy.index, self.hierarchy.level
        enough = [switch for switch, members in under.items() if len(members) >= count]
        if not enough or count > len(hosts):
            raise HpcplanError(f"no switch joins {count} of the {len(hosts)} nodes")
        switch = min(enough, key=lambda name: (level[index[name]], len(under[name]), name))
        place = {host: number for number, host in enumerate(hosts)}
        leaf = {host: self._parent[host] for host in under[switch]}
        ordered = sorted(under[switch], key=lambda host: (-len(under[leaf[host]]), leaf[host], place[host]))
        return ordered[:count]


def build_topology(site: Site) -> Topology:
    """Return the topology of a valid site."""
    hosts, nics = _hosts(site)
    bandwidth = np.array([nic[0] for nic in nics])
    grids: list[Grid] = []
    bundles = bundles_of(site.fabric, dict(zip(hosts, bandwidth.tolist(), strict=True)))
    latency = np.array([nic[1] for nic in nics])
    links = np.array([nic[2] for nic in nics], dtype=np.int64)
    number = {host: index for index, host in enumerate(hosts)}
    for torus in site.fabric.toruses:
        members = np.array([number[host] for host in expand(torus.nodes)], dtype=np.int64)
        grids.append(Grid(torus, members))
        bandwidth[members] = torus.link_bytes_per_s * max(1, links_of(torus.dims))
        links[members] = max(1, links_of(torus.dims))
    hierarchy = _with_domains(site, hierarchy_of(hosts, bundles, bandwidth, latency, links))
    drained = frozenset(expand(site.drained)) if site.drained else frozenset()
    return Topology(graph_of(site, hierarchy), hierarchy, kind=site.fabric.kind, grids=grids, drained=drained)


def _hosts(site: Site) -> tuple[list[str], list[tuple[float, float, int]]]:
    hosts: list[str] = []
    nics: list[tuple[float, float, int]] = []
    for group in site.node_groups.values():
        names = group.hostnames()
        hosts += names
        nics += [(group.node_bandwidth_bytes_per_s, group.nics.latency_s, group.nics.count)] * len(names)
    return hosts, nics


def _with_domains(site: Site, hierarchy: Hierarchy) -> Hierarchy:
    """Number the accelerator domains: as many consecutive nodes of a group as its ``domain_nodes`` says."""
    first = domain = 0
    for group in site.node_groups.values():
        count = len(group.hostnames())
        inside = group.intra_node
        if inside is not None and inside.domain_nodes > 1 and group.accelerators is not None:
            run = slice(first, first + count)
            hierarchy.domain[run] = domain + np.arange(count) // inside.domain_nodes
            hierarchy.domain_bytes_per_s[run] = group.accelerators.count * inside.bandwidth_bytes_per_s
            hierarchy.domain_latency_s[run] = inside.latency_s
            domain += math.ceil(count / inside.domain_nodes)
        first += count
    return hierarchy
