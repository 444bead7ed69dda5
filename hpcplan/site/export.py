"""A site's topology in the formats of others: Slurm's topology.conf(5) and topology.yaml(5), GraphML, JSON, DOT."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import networkx as nx

from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import compress, expand
from hpcplan.site.fabric import Torus
from hpcplan.site.importers.blocks import MAX_RING_NODES
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology, build_topology

if TYPE_CHECKING:
    from networkx import Graph

__all__ = [
    "FORMATS", "GRAPHS", "PLUGINS", "SLURM_FORMATS", "graph_as", "slurm_blocks", "topology_conf", "topology_yaml",
]  # fmt: skip

PLUGINS: Final = ("auto", "tree", "block")
_TORUS_DIMS: Final = 3


def _switches(topology: Topology) -> list[tuple[str, list[str], list[str]]]:
    """Return (switch, nodes, switches right below it), leaves first.

    The roots of a Clos network stand one by one, as topology.conf(5) has them; rails stand for one leaf, since Slurm
    wants every node under one.
    """
    if topology.kind != "clos":
        return [(bundle.name, bundle.hosts, bundle.children) for bundle in topology.bundles()]
    graph = topology.graph
    found = []
    for bundle in topology.bundles():
        for name in bundle.switches:
            level = graph.nodes[name]["level"]
            below = [other for other in graph[name] if graph.nodes[other]["level"] < level]
            hosts = [other for other in below if graph.nodes[other]["kind"] == "node"]
            found.append((name, hosts, [other for other in below if graph.nodes[other]["kind"] == "switch"]))
    return found


def _plugin(site: Site, plugin: str) -> str:
    """Return the topology plugin of Slurm that fits best: ``tree``, ``block``, ``ring`` or ``torus3d``.

    Raises:
        InputError: Slurm has none for this fabric.
    """
    if plugin != "auto":
        if site.fabric.toruses:
            raise InputError(Problem(f"a torus cannot be written for topology/{plugin}", file=site.name))
        return plugin
    if site.fabric.kind == "blocks":
        return "block"
    if not site.fabric.toruses:
        return "tree"
    if all(len(torus.dims) == 1 and torus.cells <= MAX_RING_NODES for torus in site.fabric.toruses):
        return "ring"
    if all(len(torus.dims) <= _TORUS_DIMS for torus in site.fabric.toruses):
        return "torus3d"
    raise InputError(Problem("Slurm knows no torus of more than three dimensions", file=site.name))


def slurm_blocks(site: Site) -> tuple[list[tuple[str, list[str]]], list[int]]:
    """Return what Slurm's topology/block has of a site: each block's name and nodes, and the sizes in nodes."""
    return _blocks(site, build_topology(site))


def _blocks(site: Site, topology: Topology) -> tuple[list[tuple[str, list[str]]], list[int]]:
    """Return blocks (accelerator domains where there are, else leaves) and their sizes in nodes."""
    hierarchy = topology.hierarchy
    leaves = [(bundle.name, bundle.hosts) for bundle in topology.bundles(1) if bundle.hosts]
    if (hierarchy.domain >= 0).all():
        members: dict[int, list[str]] = {}
        for host, domain in zip(hierarchy.hosts, hierarchy.domain.tolist(), strict=True):
            members.setdefault(domain, []).append(host)
        if {tuple(sorted(hosts)) for _, hosts in leaves} != {tuple(sorted(hosts)) for hosts in members.values()}:
            leaves = [(f"domain{number + 1}", hosts) for number, hosts in enumerate(members.values())]
    return leaves, list(site.fabric.block_sizes) or [min(len(hosts) for _, hosts in leaves)]


def topology_conf(site: Site, plugin: str = "auto") -> str:
    """Return the text of topology.conf; ``LinkSpeed`` is left out, since Slurm does not use it.

    Raises:
        InputError: topology.conf cannot say it; topology.yaml may.
    """
    topology = build_topology(site)
    chosen = _plugin(site, plugin)
    if chosen == "torus3d":
        message = "topology.conf knows no torus; write topology.yaml, which Slurm 26.05 and later read"
        raise InputError(Problem(message, file=site.name))
    if chosen == "ring":
        rings = [f"RingName={torus.name} Nodes={compress(expand(torus.nodes))}" for torus in site.fabric.toruses]
        return "\n".join([f"# The rings of {site.name}, for TopologyPlugin=topology/ring", *rings]) + "\n"
    if chosen == "block":
        blocks, sizes = _blocks(site, topology)
        lines = [f"# The blocks of {site.name}, for TopologyPlugin=topology/block (Slurm 23.11 and later)"]
        lines += [f"BlockName={name} Nodes={compress(hosts)}" for name, hosts in blocks]
        return "\n".join([*lines, f"BlockSizes={','.join(map(str, sizes))}"]) + "\n"
    lines = [f"# The switches of {site.name}, for TopologyPlugin=topology/tree"]
    if topology.kind == "dragonfly":
        lines.append("# and TopologyParam=dragonfly in slurm.conf")
    for name, nodes, switches in _switches(topology):
        below = f"Nodes={compress(nodes)}" if nodes else f"Switches={compress(switches)}"
        lines.append(f"SwitchName={name} {below}")
    return "\n".join(lines) + "\n"


def topology_yaml(site: Site, plugin: str = "auto") -> str:
    """Return the text of topology.yaml with one topology, named ``default`` (Slurm 25.05 and later).

    Raises:
        InputError: Slurm has no plugin for this fabric.
    """
    topology = build_topology(site)
    lines = ["---", "- topology: default", "  cluster_default: true"]
    match _plugin(site, plugin):
        case "torus3d":
            lines += ["  torus3d:", "    toruses:"]
            for torus in site.fabric.toruses:
                lines += _torus(torus)
        case "ring":
            lines += ["  ring:", "    rings:"]
            for torus in site.fabric.toruses:
                lines += [f"      - ring: {json.dumps(torus.name)}", f"        nodes: {json.dumps(torus.nodes)}"]
        case "block":
            blocks, sizes = _blocks(site, topology)
            lines += ["  block:", "    block_sizes:", *(f"      - {size}" for size in sizes), "    blocks:"]
            for name, hosts in blocks:
                lines += [f"      - block: {json.dumps(name)}", f"        nodes: {json.dumps(compress(hosts))}"]
        case _:
            lines += ["  tree:", "    switches:"]
            for name, nodes, switches in _switches(topology):
                key, names = ("nodes", nodes) if nodes else ("children", switches)
                lines += [f"      - switch: {json.dumps(name)}", f"        {key}: {json.dumps(compress(names))}"]
    return "\n".join(lines) + "\n"


def _torus(torus: Torus) -> list[str]:
    dims = [1] * (_TORUS_DIMS - len(torus.dims)) + list(torus.dims)
    sizes = [f"          {axis}: {size}" for axis, size in zip("xyz", dims, strict=True)]
    return [
        f"      - name: {json.dumps(torus.name)}",
        "        dims:",
        *sizes,
        f"        nodes: {json.dumps(torus.nodes)}",
    ]


def graph_as(graph: Graph[str], form: str) -> str:
    """Return a graph as text: ``graphml``, ``json`` (networkx's node-link form) or ``dot`` (Graphviz).

    Raises:
        InputError: another form.
    """
    if form not in GRAPHS:
        raise InputError(f"no form of graph is called {form!r}; known: {', '.join(GRAPHS)}")
    return GRAPHS[form](graph)


def _graphml(graph: Graph[str]) -> str:
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def _json(graph: Graph[str]) -> str:
    return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1) + "\n"


def _dot(graph: Graph[str]) -> str:
    """Return Graphviz's language; edges are as wide as the logarithm of their bandwidth, labelled in Gb/s."""
    lines = [f"graph {json.dumps(str(graph.name or 'site'))} {{", "  node [fontsize=10];"]
    lines += [f"  {json.dumps(name)} [{_attributes(data)}];" for name, data in graph.nodes(data=True)]
    for a, b, data in graph.edges(data=True):
        rate = data["bandwidth_bytes_per_s"] * 8 / 1e9
        shown = {**data, "label": f"{rate:.6g} Gb/s", "penwidth": round(max(0.5, len(f"{rate:.0f}") * 0.8), 2)}
        lines.append(f"  {json.dumps(a)} -- {json.dumps(b)} [{_attributes(shown)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _attributes(data: Mapping[str, Any]) -> str:
    shape = {"shape": "box"} if data.get("kind") == "switch" else {}
    return ", ".join(f"{key}={json.dumps(str(value))}" for key, value in {**data, **shape}.items())


GRAPHS: Final[Mapping[str, Callable[[Any], str]]] = {"graphml": _graphml, "json": _json, "dot": _dot}


def _graph(form: str) -> Callable[[Site, str], str]:
    def write(site: Site, _plugin: str = "auto") -> str:
        return graph_as(build_topology(site).graph, form)

    return write


SLURM_FORMATS: Final[Mapping[str, Callable[[Site, str], str]]] = {
    "topology.conf": topology_conf,
    "topology.yaml": topology_yaml,
}
FORMATS: Final[Mapping[str, Callable[[Site, str], str]]] = {**SLURM_FORMATS, **{form: _graph(form) for form in GRAPHS}}
