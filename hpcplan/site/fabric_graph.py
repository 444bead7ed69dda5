"""From the hierarchy of a fabric to its graph: every switch on its own, every cable where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from math import prod

import networkx as nx

from hpcplan.hostlist import expand
from hpcplan.site.bundles import children_of
from hpcplan.site.fabric import Torus
from hpcplan.site.hierarchy import Bundle, Hierarchy
from hpcplan.site.model import Site

__all__ = ["graph_of"]


def graph_of(site: Site, hierarchy: Hierarchy) -> nx.Graph[str]:
    """Return the graph; its vertices and edges are those of :class:`hpcplan.site.topology.Topology`."""
    graph: nx.Graph[str] = nx.Graph(name=site.name)
    for name, group in site.node_groups.items():
        graph.add_nodes_from(group.hostnames(), kind="node", level=0, group=name)
    for bundle in hierarchy.bundles.values():
        level = int(hierarchy.level[hierarchy.index[bundle.name]])
        graph.add_nodes_from(bundle.switches, kind="switch", level=level, bundle=bundle.name)
    if site.fabric.toruses:
        _add_toruses(graph, site, hierarchy)
        return graph
    _add_hosts(graph, site, hierarchy)
    if site.fabric.kind == "dragonfly":
        _add_dragonfly(graph, hierarchy)
    elif site.fabric.switches:
        _add_written(graph, site, hierarchy)
    else:
        _add_regular(graph, hierarchy)
    return graph


def _add_hosts(graph: nx.Graph[str], site: Site, hierarchy: Hierarchy) -> None:
    """Join each host to its leaf switches: to all of a bundle, or to those that a written fabric puts it under."""
    leaves: dict[str, list[str]] = {}
    for leaf in site.fabric.switches:
        for host in expand(leaf.nodes) if leaf.nodes else []:
            leaves.setdefault(host, []).append(leaf.name)
    latency = {switch.name: switch.latency_s for switch in site.fabric.switches}
    for bundle in hierarchy.bundles.values():
        for host in bundle.hosts:
            nics = site.node_groups[graph.nodes[host]["group"]].nics
            several = leaves.get(host) or bundle.switches
            for number, switch in enumerate(several):
                graph.add_edge(
                    host,
                    switch,
                    bandwidth_bytes_per_s=nics.count * nics.bandwidth_bytes_per_s / len(several),
                    latency_s=nics.latency_s + latency.get(switch, bundle.latency_s) / 2,
                    links=max(1, _part(nics.count, len(several), number)),
                )


def _part(total: int, parts: int, number: int) -> int:
    return total // parts + (number < total % parts)


def _add_regular(graph: nx.Graph[str], hierarchy: Hierarchy) -> None:
    for parent in hierarchy.bundles.values():
        for name in parent.children:
            child = hierarchy.bundles[name]
            pairs = list(product(child.switches, parent.switches))
            _add_cables(graph, child, parent, pairs, child.up_bytes_per_s or 0.0, child.up_links)


def _add_cables(
    graph: nx.Graph[str], a: Bundle, b: Bundle, pairs: Sequence[tuple[str, str]], total: float, links: int
) -> None:
    for number, (low, high) in enumerate(pairs):
        graph.add_edge(
            low,
            high,
            bandwidth_bytes_per_s=total / len(pairs),
            latency_s=(a.latency_s + b.latency_s) / 2,
            links=max(1, _part(links, len(pairs), number)),
        )


def _add_written(graph: nx.Graph[str], site: Site, hierarchy: Hierarchy) -> None:
    switches = {switch.name: switch for switch in site.fabric.switches}
    parents: dict[str, list[str]] = {}
    for name, below in children_of(site.fabric).items():
        for child in below:
            parents.setdefault(child, []).append(name)
    for child, above in parents.items():
        bundle = hierarchy.bundles[graph.nodes[child]["bundle"]]
        cables = switches[child].parents()
        uplink = switches[child].uplink_bytes_per_s
        share = uplink if uplink is not None else (bundle.up_bytes_per_s or 0.0) / len(bundle.switches)
        for number, parent in enumerate(above):
            known = cables.get(parent)
            links = switches[child].links or len(above)
            graph.add_edge(
                child,
                parent,
                bandwidth_bytes_per_s=known.total_bytes_per_s if known else share / len(above),
                latency_s=(switches[child].latency_s + switches[parent].latency_s) / 2,
                links=known.links if known else max(1, _part(links, len(above), number)),
            )


def _add_dragonfly(graph: nx.Graph[str], hierarchy: Hierarchy) -> None:
    """Join the routers of a group all to all, and the groups all to all, spread over their routers.

    A router's up-link is divided over the other routers of its group, a group's over the other groups; of two ends
    that differ the smaller counts.
    """
    for bundle in hierarchy.bundles.values():
        children = [hierarchy.bundles[name] for name in bundle.children]
        if not children:
            continue
        count = len(children)
        for (i, a), (j, b) in combinations(enumerate(children), 2):
            total = min(a.up_bytes_per_s or 0.0, b.up_bytes_per_s or 0.0) / (count - 1)
            here = _ports(hierarchy, a, j - 1, count - 1)
            there = _ports(hierarchy, b, i, count - 1)
            most = max(len(here), len(there))
            pairs = list(dict.fromkeys((here[k % len(here)], there[k % len(there)]) for k in range(most)))
            _add_cables(graph, a, b, pairs, total, max(1, min(a.up_links, b.up_links) // (count - 1)))


def _ports(hierarchy: Hierarchy, group: Bundle, peer: int, peers: int) -> list[str]:
    """Return the routers of a group that hold its cables to the ``peer``-th of ``peers`` other groups."""
    if group.physical:
        return [group.name]
    routers = list(_routers(hierarchy, group))
    return routers[peer::peers] or [routers[peer % len(routers)]]


def _routers(hierarchy: Hierarchy, group: Bundle) -> Iterator[str]:
    if group.physical:
        yield from group.switches
    for child in group.children:
        yield from _routers(hierarchy, hierarchy.bundles[child])


def _add_toruses(graph: nx.Graph[str], site: Site, hierarchy: Hierarchy) -> None:
    for torus in site.fabric.toruses:
        hosts = expand(torus.nodes)
        for a, b in _neighbours(torus):
            graph.add_edge(
                hosts[a], hosts[b], bandwidth_bytes_per_s=torus.link_bytes_per_s, latency_s=torus.latency_s, links=1
            )
        above = int(hierarchy.parent[hierarchy.index[torus.name]])
        if above < 0 or torus.uplink_bytes_per_s is None:
            continue
        for host in hosts:
            graph.add_edge(
                host,
                hierarchy.names[above],
                bandwidth_bytes_per_s=torus.uplink_bytes_per_s / len(hosts),
                latency_s=site.node_groups[graph.nodes[host]["group"]].nics.latency_s,
                links=1,
            )


def _neighbours(torus: Torus) -> Iterator[tuple[int, int]]:
    """Yield each pair of neighbours once; in a dimension of two both ways lead to the same neighbour."""
    for place, coordinates in enumerate(product(*(range(size) for size in torus.dims))):
        for axis, size in enumerate(torus.dims):
            if size == 1 or (size == 2 and coordinates[axis] == 1):
                continue
            stride = prod(torus.dims[axis + 1 :])
            ahead = stride if coordinates[axis] < size - 1 else -stride * (size - 1)
            yield place, place + ahead
