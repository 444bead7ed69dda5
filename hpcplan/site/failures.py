"""What a failed switch, node or link costs: nodes cut off, and the bandwidth that is left to the others."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import networkx as nx
import numpy as np

from hpcplan.errors import HpcplanError, nearest
from hpcplan.site.bisection import bisection_bytes_per_s
from hpcplan.site.hierarchy import Floats, Hierarchy
from hpcplan.site.topology import Topology

__all__ = ["Failure", "cost_of_failure", "without"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is left after a failure; bandwidths in bytes/s, one way.

    ``lost`` are the nodes that the largest part of the fabric cannot reach any more, the failed one included;
    ``slowed`` the others that get less than before. ``share_*`` is what the worst-placed node gets when all talk to all
    at once, ``bisection_*`` between two halves, each among the nodes that are left (before: among all).
    """

    failed: str
    lost: tuple[str, ...]
    slowed: tuple[str, ...]
    share_before_bytes_per_s: float
    share_after_bytes_per_s: float
    bisection_before_bytes_per_s: float
    bisection_after_bytes_per_s: float


def cost_of_failure(topology: Topology, failed: str | tuple[str, str], *, links: int | None = None) -> Failure:
    """Return what the failure of a switch, a node, or a link (its two ends) costs.

    Args:
        topology: of the site.
        failed: a vertex of the graph, or the ends of an edge.
        links: how many of the edge's parallel cables fail; all of them if not given.

    Raises:
        HpcplanError: no such vertex or edge, or fewer cables than that.
    """
    left = without(topology, failed, links=links)
    hosts = topology.hierarchy.hosts
    part = max(
        nx.connected_components(left.graph), key=lambda names: sum(name in names for name in hosts), default=set()
    )
    reached = [host for host in hosts if host in part]
    before, after = _shares(topology), _shares(left)
    bisection = _bisection(topology, list(hosts))
    return Failure(
        failed if isinstance(failed, str) else " - ".join(failed),
        tuple(host for host in hosts if host not in part),
        tuple(
            host for number, host in enumerate(hosts) if host in part and after[number] < before[number] * (1 - 1e-9)
        ),
        float(before.min(initial=math.inf)),
        float(min((after[number] for number, host in enumerate(hosts) if host in part), default=0.0)),
        bisection,
        min(bisection, _bisection(left, reached)),
    )


def without(topology: Topology, failed: str | tuple[str, str], *, links: int | None = None) -> Topology:
    """Return the topology without a vertex, or without an edge or some of its cables; hosts stay, if cut off.

    Raises:
        HpcplanError: as :func:`cost_of_failure`.
    """
    graph = topology.graph.copy()
    if isinstance(failed, str):
        if failed not in graph:
            raise HpcplanError(f"no node or switch is called {failed!r}" + nearest(failed, graph.nodes))
        graph.remove_edges_from([(failed, other) for other in topology.graph[failed]])
        if topology.graph.nodes[failed]["kind"] == "switch":
            graph.remove_node(failed)
    else:
        _cut(graph, failed, links)
    return Topology(
        graph, _weakened(topology, graph), kind=topology.kind, grids=topology.grids, drained=topology.drained
    )


def _cut(graph: nx.Graph[str], ends: tuple[str, str], links: int | None) -> None:
    if not graph.has_edge(*ends):
        raise HpcplanError(f"no link joins {ends[0]!r} and {ends[1]!r}")
    edge = graph.edges[ends]
    there = int(edge["links"])
    if links is None or links == there:
        graph.remove_edge(*ends)
        return
    if not 0 < links < there:
        raise HpcplanError(f"{ends[0]!r} and {ends[1]!r} are joined by {there} cables, not {links}")
    edge["bandwidth_bytes_per_s"] *= (there - links) / there
    edge["links"] = there - links


def _weakened(topology: Topology, graph: nx.Graph[str]) -> Hierarchy:
    """Return the hierarchy with the share of each up-link that the graph still has."""
    h = topology.hierarchy
    if topology.kind == "torus":
        return h
    before, after = _leaving(topology, topology.graph), _leaving(topology, graph)
    part = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    links = np.maximum(np.round(h.up_links * part).astype(np.int64), 0)
    return dataclasses.replace(h, up_bytes_per_s=h.up_bytes_per_s * part, up_links=links)


def _leaving(topology: Topology, graph: nx.Graph[str]) -> Floats:
    """Return the bandwidth of a graph's edges that leave what is below each vertex of the hierarchy."""
    h = topology.hierarchy
    chains: dict[str, list[int]] = {}
    for number, name in enumerate(h.names):
        chain = [number]
        while h.parent[chain[-1]] >= 0:
            chain.append(int(h.parent[chain[-1]]))
        for member in h.bundles[name].switches if name in h.bundles else (name,):
            chains[member] = chain
    total = np.zeros(len(h.names))
    for a, b, data in graph.edges(data=True):
        one, other = set(chains[a]), set(chains[b])
        for vertex in one ^ other:
            total[vertex] += data["bandwidth_bytes_per_s"]
    return total


def _shares(topology: Topology) -> Floats:
    """Return what each host gets when all talk to all at once: its part of the narrowest link on its way up."""
    h = topology.hierarchy
    if topology.grids:
        shares: Floats = np.zeros(h.host_count)
        for grid in topology.grids:
            shares[grid.hosts] = grid.share_bytes_per_s(grid.torus.dims)
        degree = np.array([topology.graph.degree(host) for host in h.hosts])
        return np.where(degree > 0, shares * np.minimum(1.0, degree / degree.max(initial=1)), 0.0)
    share: Floats = np.full(h.host_count, math.inf)
    at = np.arange(h.host_count)
    for _ in range(len(h.above)):
        here = np.flatnonzero(h.parent[at] >= 0)
        share[here] = np.minimum(share[here], h.up_bytes_per_s[at[here]] / h.hosts_below[at[here]])
        at[here] = h.parent[at[here]]
    return share


def _bisection(topology: Topology, hosts: list[str]) -> float:
    return bisection_bytes_per_s(topology, hosts) if len(hosts) > 1 else 0.0
