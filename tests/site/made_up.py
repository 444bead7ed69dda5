"""Fabrics made up for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from hypothesis import strategies as st

from hpcplan.documents import parse_document
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology, build_topology
from hpcplan.validation import validate

__all__ = ["Tree", "site_of", "topology_of", "trees"]


@dataclass(frozen=True)
class Tree:
    """Leaf switches as (nodes, up-link in GB/s) under ``above`` tiers, each joining ``width`` of those below."""

    leaves: tuple[tuple[int, float], ...]
    width: int = 2
    nic_gb_per_s: float = 10.0


def site_of(fabric: dict[str, object], nodes: str = "n[0-15]", **more: object) -> Site:
    """Return a site of equal nodes with this fabric."""
    nics = {"count": 2, "bandwidth": "40 Gb/s", "latency": "1 us"}
    group = {"nodes": nodes, "cpus": 4, "memory": "8 GiB", "nics": nics, **more}
    text = yaml.safe_dump({"name": "made-up", "node_groups": {"g": group}, "partitions": {"p": {"nodes": "g"}},
                           "fabric": fabric})  # fmt: skip
    return validate(parse_document(text, "made-up.yaml"), Site)


def topology_of(tree: Tree) -> Topology:
    """Return the graph of a tree."""
    switches: list[dict[str, object]] = []
    first = 0
    below: list[tuple[str, float]] = []
    for number, (size, uplink) in enumerate(tree.leaves):
        switches.append(
            {"name": f"leaf{number}", "nodes": f"n[{first}-{first + size - 1}]", "uplink": f"{uplink} GB/s"}
        )
        below.append((f"leaf{number}", uplink))
        first += size
    level = 1
    while len(below) > 1:
        level += 1
        above: list[tuple[str, float]] = []
        for number in range(0, len(below), tree.width):
            part = below[number : number + tree.width]
            uplink = sum(rate for _, rate in part) / 2
            name = f"s{level}x{number}"
            switches.append({"name": name, "switches": [child for child, _ in part], "uplink": f"{uplink} GB/s"})
            above.append((name, uplink))
        below = above
    return build_topology(site_of({"switches": switches}, f"n[0-{first - 1}]"))


def trees(max_leaves: int = 5, max_nodes: int = 4) -> st.SearchStrategy[Tree]:
    """Return trees of several levels with uneven leaves and up-links."""
    leaf = st.tuples(st.integers(1, max_nodes), st.sampled_from([2.0, 5.0, 10.0, 40.0]))
    return st.builds(Tree, st.lists(leaf, min_size=1, max_size=max_leaves).map(tuple), st.integers(2, 3))
