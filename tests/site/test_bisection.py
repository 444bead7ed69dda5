"""Bisection bandwidth agrees with trying every way of halving the nodes, each with a minimum cut of the graph."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import pytest
from hypothesis import given, settings

from hpcplan.errors import HpcplanError
from hpcplan.site.bisection import bisection_bytes_per_s
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import Tree, site_of, topology_of, trees


def least_cut(topology: Topology, hosts: list[str]) -> float:
    """Return the least cut over all halvings; switches may be on either side."""
    first, *others = hosts
    smaller = len(hosts) // 2
    halves = [{first, *rest} for size in {smaller, len(hosts) - smaller} for rest in combinations(others, size - 1)]
    return min(_cut(topology.graph, half, set(hosts) - half) for half in halves)


def _cut(graph: nx.Graph[str], one: set[str], other: set[str]) -> float:
    flow: nx.Graph[str] = nx.Graph()
    flow.add_edges_from((a, b, {"capacity": data["bandwidth_bytes_per_s"]}) for a, b, data in graph.edges(data=True))
    flow.add_edges_from([("one", host) for host in one] + [("other", host) for host in other])  # without a limit
    return float(nx.minimum_cut_value(flow, "one", "other"))


@settings(max_examples=40, deadline=None)
@given(trees(max_leaves=4, max_nodes=2))
def test_trees_agree_with_all_halvings(tree: Tree) -> None:
    topology = topology_of(tree)
    if len(topology.nodes()) > 1:
        assert bisection_bytes_per_s(topology) == pytest.approx(least_cut(topology, topology.nodes()))


CLOS: dict[str, object] = {"kind": "clos", "levels": [
    {"name": "leaf", "size": 2, "uplink": "12 GB/s"}, {"name": "pod", "size": 2, "parallel": 2, "uplink": "8 GB/s"},
    {"name": "core", "size": 2, "parallel": 2},
]}  # fmt: skip
RAILS: dict[str, object] = {"kind": "rails", "levels": [
    {"name": "unit", "size": 4, "parallel": 2, "uplink": "6 GB/s"}, {"name": "spine", "size": 2, "parallel": 2},
]}  # fmt: skip
FOREST: dict[str, object] = {"switches": [{"name": "x", "nodes": "n[0-2]"}, {"name": "y", "nodes": "n[3-7]"}]}
GROUPS: dict[str, object] = {"kind": "dragonfly", "levels": [
    {"name": "router", "size": 1, "uplink": "30 GB/s"}, {"name": "group", "size": 2, "uplink": "4 GB/s"},
    {"name": "system", "size": 4},
]}  # fmt: skip


@pytest.mark.parametrize("fabric", [CLOS, RAILS, FOREST, GROUPS], ids=["clos", "rails", "forest", "dragonfly"])
def test_other_fabrics_agree_with_all_halvings(fabric: dict[str, object]) -> None:
    topology = build_topology(site_of(fabric, "n[0-7]"))
    assert bisection_bytes_per_s(topology) == pytest.approx(least_cut(topology, topology.nodes()))


def torus(*dims: int) -> Topology:
    nodes = 1
    for size in dims:
        nodes *= size
    names = f"n[0-{nodes - 1}]"
    fabric: dict[str, object] = {
        "kind": "torus",
        "toruses": [{"name": "t", "dims": list(dims), "nodes": names, "link": "1 GB/s"}],
    }
    return build_topology(site_of(fabric, names))


@pytest.mark.parametrize("dims", [(6,), (8,), (4, 2), (2, 2, 2), (4, 3), (2, 5)])
def test_toruses_with_an_even_side_agree_with_all_halvings(dims: tuple[int, ...]) -> None:
    topology = torus(*dims)
    assert bisection_bytes_per_s(topology) == pytest.approx(least_cut(topology, topology.nodes()))


def test_a_ring_of_odd_length_is_cut_twice() -> None:
    assert bisection_bytes_per_s(torus(5)) == pytest.approx(2e9)


def test_some_nodes_alone_have_a_bisection_of_their_own() -> None:
    topology = build_topology(site_of(CLOS, "n[0-7]"))
    some = ["n0", "n1", "n2", "n6"]
    assert bisection_bytes_per_s(topology, some) == pytest.approx(least_cut(topology, some))


@pytest.mark.parametrize("hosts", [["n0"], ["n0", "n0"], ["n0", "elsewhere"]])
def test_what_has_no_halves_is_refused(hosts: list[str]) -> None:
    with pytest.raises(HpcplanError):
        bisection_bytes_per_s(build_topology(site_of(CLOS, "n[0-7]")), hosts)
