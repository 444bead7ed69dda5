"""The topology graph: switches and nodes as vertices, links as edges that carry bandwidth and latency.

Edges have ``bandwidth_bytes_per_s`` (all parallel links together, one way), ``latency_s`` (one traversal) and
``links``. Vertices have ``kind`` (``switch`` or ``node``), ``level`` (0 for nodes, 1 for leaf switches, …) and, for
nodes, ``group``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import networkx as nx
import numpy as np

from hpcplan.errors import HpcplanError, nearest
from hpcplan.hostlist import expand
from hpcplan.site.distances import Levels, Singles, tree_pairs
from hpcplan.site.hierarchy import Bundle, Hierarchy, Ints, hierarchy_of
from hpcplan.site.model import Fabric, Site
from hpcplan.site.nearest import choose_on_tree

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
    """One level of switches: how many, what enters from below and leaves upwards (bytes/s, one way, all together)."""

    level: int
    switches: int
    down_bytes_per_s: float
    up_bytes_per_s: float

    @property
    def oversubscription(self) -> float | None:
        """Bandwidth from below over bandwidth upwards; ``None`` at the top."""
        return self.down_bytes_per_s / self.up_bytes_per_s if self.up_bytes_per_s else None


class Topology:
    """The graph of a site, and the questions that planning asks of it."""

    def __init__(self, graph: nx.Graph[str], hierarchy: Hierarchy, drained: frozenset[str] = frozenset()) -> None:
        self.graph = graph
        self.hierarchy = hierarchy
        self.drained = drained

    def pairs(self, numbers: Ints) -> tuple[Levels, Singles, Singles]:
        """Return level, bandwidth and latency of all pairs of hosts; see :mod:`hpcplan.site.distances`."""
        return tree_pairs(self.hierarchy, numbers)

    def choose(self, count: int, free: Ints) -> Ints:
        """Return the ``count`` of ``free`` hosts that are closest together; see :mod:`hpcplan.site.nearest`."""
        return choose_on_tree(self.hierarchy, count, free)

    def nodes(self, group: str | None = None) -> list[str]:
        """Return the hosts, of one group or all, in the site's order."""
        data = self.graph.nodes(data=True)
        return [name for name, a in data if a["kind"] == "node" and group in (None, a["group"])]

    def switches(self, level: int | None = None) -> list[str]:
        """Return the switches, of one level or all."""
        data = self.graph.nodes(data=True)
        return [name for name, a in data if a["kind"] == "switch" and level in (None, a["level"])]

    @cached_property
    def _parent(self) -> dict[str, str]:
        level = nx.get_node_attributes(self.graph, "level")
        return {low: high for a, b in self.graph.edges for low, high in [(a, b) if level[a] < level[b] else (b, a)]}

    def ancestors(self, name: str) -> list[str]:
        """Return the switches above a vertex, nearest first."""
        above: list[str] = []
        while name in self._parent:
            name = self._parent[name]
            above.append(name)
        return above

    def path(self, a: str, b: str) -> list[str]:
        """Return the vertices from ``a`` to ``b``, both included.

        Raises:
            HpcplanError: one of them is unknown, or no path joins them.
        """
        for name in (a, b):
            if name not in self.graph:
                raise HpcplanError(f"no node or switch is called {name!r}" + nearest(name, self.graph.nodes))
        up_a, up_b = [a, *self.ancestors(a)], [b, *self.ancestors(b)]
        common = next((vertex for vertex in up_a if vertex in set(up_b)), None)
        if common is None:
            raise HpcplanError(f"no path joins {a!r} and {b!r}")
        return up_a[: up_a.index(common) + 1] + up_b[: up_b.index(common)][::-1]

    def _edges(self, a: str, b: str) -> Iterator[dict[str, float]]:
        path = self.path(a, b)
        for low, high in pairwise(path):
            yield self.graph.edges[low, high]

    def bandwidth(self, a: str, b: str) -> float:
        """Return the bottleneck between two vertices in bytes/s, one way; infinite from a vertex to itself."""
        return min((edge["bandwidth_bytes_per_s"] for edge in self._edges(a, b)), default=math.inf)

    def latency(self, a: str, b: str) -> float:
        """Return the latency between two vertices in seconds: its links and the switches between."""
        return sum(edge["latency_s"] for edge in self._edges(a, b))

    def levels(self) -> list[Level]:
        """Return the levels of switches, leaves first, with what enters and leaves each."""
        totals: dict[int, list[float]] = {}
        for name, attributes in self.graph.nodes(data=True):
            if attributes["kind"] != "switch":
                continue
            total = totals.setdefault(attributes["level"], [0, 0.0, 0.0])
            total[0] += 1
            for neighbour in self.graph[name]:
                bandwidth = self.graph.edges[name, neighbour]["bandwidth_bytes_per_s"]
                total[2 if self._parent.get(name) == neighbour else 1] += bandwidth
        return [Level(level, int(n), down, up) for level, (n, down, up) in sorted(totals.items())]

    def tiers(self, hosts: Sequence[str]) -> list[Tier]:
        """Return the neighbourhoods around the best-placed of ``hosts``, nearest first, the last holding all of them.

        For each switch above it: how many of the hosts are below, and what each gets if all talk across it at once,
        limited by every up-link on the way (shared among the hosts below that link).
        """
        below: dict[str, int] = {}
        chains = {host: self.ancestors(host) for host in hosts}
        for chain in chains.values():
            for switch in chain:
                below[switch] = below.get(switch, 0) + 1
        best = max(hosts, key=lambda host: [below[switch] for switch in chains[host]])
        chain = chains[best]
        edge = self.graph.edges[best, chain[0]]
        bandwidth, latency = edge["bandwidth_bytes_per_s"], 2 * edge["latency_s"]
        tiers = [Tier(chain[0], below[chain[0]], bandwidth, latency)]
        for low, high in pairwise(chain):
            link = self.graph.edges[low, high]
            bandwidth = min(bandwidth, link["bandwidth_bytes_per_s"] / below[low])
            latency += 2 * link["latency_s"]
            if below[high] > tiers[-1].nodes:
                tiers.append(Tier(high, below[high], bandwidth, latency))
        return tiers

    def closest(self, count: int, hosts: Sequence[str]) -> list[str]:
        """Return ``count`` of ``hosts`` under the lowest switch that holds so many, fullest leaves first.

        Raises:
            HpcplanError: fewer hosts than that are given, or no switch joins enough of them.
        """
        under: dict[str, list[str]] = {}
        for host in hosts:
            for switch in self.ancestors(host):
                under.setdefault(switch, []).append(host)
        level = nx.get_node_attributes(self.graph, "level")
        enough = [switch for switch, members in under.items() if len(members) >= count]
        if not enough or count > len(hosts):
            raise HpcplanError(f"no switch joins {count} of the {len(hosts)} nodes")
        switch = min(enough, key=lambda name: (level[name], len(under[name]), name))
        leaf_size = {host: len(under[self.ancestors(host)[0]]) for host in under[switch]}
        ordered = sorted(under[switch], key=lambda host: (-leaf_size[host], self.ancestors(host)[0], hosts.index(host)))
        return ordered[:count]


def build_topology(site: Site) -> Topology:
    """Return the graph of a valid site."""
    graph: nx.Graph[str] = nx.Graph(name=site.name)
    for name, group in site.node_groups.items():
        graph.add_nodes_from(group.hostnames(), kind="node", level=0, group=name)
    if site.fabric.levels:
        _add_regular(graph, site)
    else:
        _add_written(graph, site)
    return Topology(graph, _hierarchy(graph, site))


def _hierarchy(graph: nx.Graph[str], site: Site) -> Hierarchy:
    hosts = [name for name, data in graph.nodes(data=True) if data["kind"] == "node"]
    level = nx.get_node_attributes(graph, "level")
    bundles = {name: Bundle(name, (name,)) for name in graph.nodes if level[name]}
    for a, b, data in graph.edges(data=True):
        low, high = (a, b) if level[a] < level[b] else (b, a)
        if low in bundles:
            bundles[low].up_bytes_per_s, bundles[low].up_links = data["bandwidth_bytes_per_s"], data["links"]
            bundles[high].children.append(low)
        else:
            bundles[high].hosts.append(low)
    nics = [site.node_groups[graph.nodes[host]["group"]].nics for host in hosts]
    ordered = sorted(bundles.values(), key=lambda bundle: level[bundle.name])
    return hierarchy_of(
        hosts, ordered, np.array([nic.count * nic.bandwidth_bytes_per_s for nic in nics]),
        np.array([nic.latency_s for nic in nics]), np.array([nic.count for nic in nics]),
    )  # fmt: skip


def _link_node(graph: nx.Graph[str], site: Site, host: str, switch: str, latency_s: float) -> None:
    nics = site.node_groups[graph.nodes[host]["group"]].nics
    graph.add_edge(
        host,
        switch,
        bandwidth_bytes_per_s=nics.count * nics.bandwidth_bytes_per_s,
        latency_s=nics.latency_s + latency_s / 2,
        links=nics.count,
    )


def _add_regular(graph: nx.Graph[str], site: Site) -> None:
    members = list(graph.nodes)
    for depth, level in enumerate(site.fabric.levels):
        count = math.ceil(len(members) / level.size)
        width = len(str(count))
        switches = [f"{level.name}{number:0{width}d}" for number in range(1, count + 1)]
        graph.add_nodes_from(switches, kind="switch", level=depth + 1)
        below = site.fabric.levels[depth - 1]
        for index, member in enumerate(members):
            switch = switches[index // level.size]
            if depth == 0:
                _link_node(graph, site, member, switch, level.latency_s)
            else:
                assert below.uplink_bytes_per_s is not None  # the schema has seen to it
                latency = (below.latency_s + level.latency_s) / 2
                graph.add_edge(
                    member, switch, bandwidth_bytes_per_s=below.uplink_bytes_per_s, latency_s=latency, links=1
                )
        members = switches


def _add_written(graph: nx.Graph[str], site: Site) -> None:
    by_name = {switch.name: switch for switch in site.fabric.switches}
    depth = _depths(site.fabric)
    for switch in site.fabric.switches:
        graph.add_node(switch.name, kind="switch", level=depth[switch.name])
    for switch in site.fabric.switches:
        for host in expand(switch.nodes) if switch.nodes else []:
            _link_node(graph, site, host, switch.name, switch.latency_s)
        for child in switch.switches:
            uplink = by_name[child].uplink_bytes_per_s
            assert uplink is not None  # the schema has seen to it
            latency = (by_name[child].latency_s + switch.latency_s) / 2
            graph.add_edge(child, switch.name, bandwidth_bytes_per_s=uplink, latency_s=latency, links=1)


def _depths(fabric: Fabric) -> dict[str, int]:
    depth: dict[str, int] = {switch.name: 1 for switch in fabric.switches if switch.nodes}
    pending = [switch for switch in fabric.switches if not switch.nodes]
    while pending:
        ready = [switch for switch in pending if all(child in depth for child in switch.switches)]
        depth.update({switch.name: 1 + max(depth[child] for child in switch.switches) for switch in ready})
        pending = [switch for switch in pending if switch.name not in depth]
    return depth
