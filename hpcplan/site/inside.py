"""The inside of nodes as a graph, on demand: accelerators, interfaces, sockets and what joins them.

A vertex is called ``node/gpu0``, ``node/nic0``, ``node/socket0`` or ``node/nvswitch``; edges carry what those of the
:class:`~hpcplan.site.topology.Topology` carry. Where a site file does not say what is near to which socket,
accelerators and interfaces are spread evenly over the sockets, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import networkx as nx

from hpcplan.site.model import Site
from hpcplan.site.node import NodeGroup, NumaNode
from hpcplan.site.topology import Topology

__all__ = ["node_graph", "with_insides"]

# Where the file gives no rate: PCIe 4.0 x16 after its encoding, and a socket interconnect (three UPI 2.0 links).
PCIE_BYTES_PER_S: Final = 16e9 * 16 * 128 / 130 / 8
SOCKETS_BYTES_PER_S: Final = 62.4e9
_PCIE_LATENCY_S: Final = 1e-6
_SOCKET_LATENCY_S: Final = 1e-7


def with_insides(topology: Topology, site: Site, hosts: Sequence[str] | None = None) -> nx.Graph[str]:
    """Return a copy of the topology's graph with the insides of ``hosts`` (all if not given) hung onto them.

    A host's own vertex stays, joined to its interfaces; ``kind`` says what a vertex is.

    Raises:
        HpcplanError: an unknown host.
    """
    graph = topology.graph.copy()
    names = list(topology.hierarchy.hosts if hosts is None else hosts)
    topology.hierarchy.numbers(names)
    for host in names:
        group = site.node_groups[graph.nodes[host]["group"]]
        graph.update(node_graph(group, host))
        for number in range(group.nics.count):
            _join(graph, host, f"{host}/nic{number}", group.nics.bandwidth_bytes_per_s, group.nics.latency_s)
    return graph


def node_graph(group: NodeGroup, host: str) -> nx.Graph[str]:
    """Return the inside of one node of a group."""
    graph: nx.Graph[str] = nx.Graph()
    near = _numa(group)
    gpus = group.accelerators.count if group.accelerators else 0
    for kind, count in (("socket", len(near)), ("gpu", gpus), ("nic", group.nics.count)):
        graph.add_nodes_from([f"{host}/{kind}{n}" for n in range(count)], kind=kind, level=-1, host=host)
    _add_sockets(graph, group, near, host)
    _add_nearest(graph, group, host)
    _add_accelerator_links(graph, group, host, gpus)
    return graph


def _numa(group: NodeGroup) -> Sequence[NumaNode]:
    if group.intra_node is not None and group.intra_node.numa:
        return group.intra_node.numa
    gpus = group.accelerators.count if group.accelerators else 0
    return [
        NumaNode(accelerators=_spread(gpus, group.sockets, n), nics=_spread(group.nics.count, group.sockets, n))
        for n in range(group.sockets)
    ]


def _spread(count: int, parts: int, number: int) -> tuple[int, ...]:
    return tuple(item for item in range(count) if item * parts // count == number)


def _add_sockets(graph: nx.Graph[str], group: NodeGroup, near: Sequence[NumaNode], host: str) -> None:
    pcie = (group.intra_node.pcie_bytes_per_s if group.intra_node else None) or PCIE_BYTES_PER_S
    for number, numa in enumerate(near):
        socket = f"{host}/socket{number}"
        for gpu in numa.accelerators:
            _join(graph, socket, f"{host}/gpu{gpu}", pcie, _PCIE_LATENCY_S)
        for nic in numa.nics:
            _join(graph, socket, f"{host}/nic{nic}", max(pcie, group.nics.bandwidth_bytes_per_s), _PCIE_LATENCY_S)
        for other in range(number):
            _join(graph, socket, f"{host}/socket{other}", SOCKETS_BYTES_PER_S, _SOCKET_LATENCY_S)


def _add_nearest(graph: nx.Graph[str], group: NodeGroup, host: str) -> None:
    """Join each accelerator to the interfaces of its rail, through the PCIe switch that they share."""
    names = group.nics.names or tuple(dict.fromkeys(name for nics in group.nics.nearest for name in nics))
    for gpu, nics in enumerate(group.nics.nearest):
        for name in nics:
            if name in names[: group.nics.count]:
                nic = f"{host}/nic{names.index(name)}"
                _join(graph, f"{host}/gpu{gpu}", nic, group.nics.bandwidth_bytes_per_s, _PCIE_LATENCY_S)


def _add_accelerator_links(graph: nx.Graph[str], group: NodeGroup, host: str, gpus: int) -> None:
    inside = group.intra_node
    if inside is None or gpus < 2 or inside.kind in ("none", "pcie"):
        return
    rate, latency = inside.bandwidth_bytes_per_s, inside.latency_s
    if inside.mesh:
        most = max(sum(row) for row in inside.mesh)
        for a, row in enumerate(inside.mesh):
            for b in range(a):
                if row[b]:
                    _join(graph, f"{host}/gpu{a}", f"{host}/gpu{b}", rate * row[b] / most, latency, row[b])
        return
    if inside.kind == "nvswitch":
        switch = f"{host}/nvswitch"
        graph.add_node(switch, kind="nvswitch", level=-1, host=host)
        for gpu in range(gpus):
            _join(graph, f"{host}/gpu{gpu}", switch, rate, latency / 2, inside.links or 1)
        return
    for a in range(gpus):  # all to all, each accelerator's links divided over the others
        for b in range(a):
            links = max(1, (inside.links or 1) // (gpus - 1))
            _join(graph, f"{host}/gpu{a}", f"{host}/gpu{b}", rate / (gpus - 1), latency, links)


def _join(graph: nx.Graph[str], a: str, b: str, bytes_per_s: float, latency_s: float, links: int = 1) -> None:
    graph.add_edge(a, b, bandwidth_bytes_per_s=bytes_per_s, latency_s=latency_s, links=links)
