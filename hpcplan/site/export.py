"""A site's tree as Slurm takes it: topology.conf and topology.yaml (topology.conf(5), topology.yaml(5))."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from hpcplan.hostlist import compress
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology, build_topology

__all__ = ["FORMATS", "topology_conf", "topology_yaml"]


def _switches(topology: Topology) -> list[tuple[str, list[str], list[str]]]:
    """Return (switch, nodes, switches right below it), leaves first."""
    level = {name: data["level"] for name, data in topology.graph.nodes(data=True)}
    below: dict[str, list[str]] = {name: [] for name in topology.switches()}
    for name in topology.graph.nodes:
        above = topology.ancestors(name)
        if above:
            below[above[0]].append(name)
    ordered = sorted(below, key=lambda name: level[name])
    return [
        (name, [child for child in below[name] if not level[child]], [child for child in below[name] if level[child]])
        for name in ordered
    ]


def topology_conf(site: Site) -> str:
    """Return the text of topology.conf; ``LinkSpeed`` is left out, since Slurm does not use it."""
    lines = [f"# The switches of {site.name}, for TopologyPlugin=topology/tree"]
    for name, nodes, switches in _switches(build_topology(site)):
        below = f"Nodes={compress(nodes)}" if nodes else f"Switches={compress(switches)}"
        lines.append(f"SwitchName={name} {below}")
    return "\n".join(lines) + "\n"


def topology_yaml(site: Site) -> str:
    """Return the text of topology.yaml with one topology, named ``default`` (Slurm 25.05 and later)."""
    lines = ["---", "- topology: default", "  cluster_default: true", "  tree:", "    switches:"]
    for name, nodes, switches in _switches(build_topology(site)):
        key, names = ("nodes", nodes) if nodes else ("children", switches)
        lines += [f"      - switch: {json.dumps(name)}", f"        {key}: {json.dumps(compress(names))}"]
    return "\n".join(lines) + "\n"


FORMATS: Final[Mapping[str, Callable[[Site], str]]] = {"topology.conf": topology_conf, "topology.yaml": topology_yaml}
