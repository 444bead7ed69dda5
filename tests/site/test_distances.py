"""Distances of all pairs agree with the graph's own paths."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from hpcplan.errors import HpcplanError
from hpcplan.site.distances import distances
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import Tree, site_of, topology_of, trees
from tests.site.test_bisection import CLOS, GROUPS, RAILS, torus
from tests.site.test_flows import maximum_flow


def by_path(topology: Topology, a: str, b: str) -> tuple[float, float]:
    """Bandwidth and latency along the only path of a tree, with networkx."""
    edges = [topology.graph.edges[pair] for pair in pairwise(nx.shortest_path(topology.graph, a, b))]
    return min(edge["bandwidth_bytes_per_s"] for edge in edges), sum(edge["latency_s"] for edge in edges)


@given(trees())
def test_the_matrix_agrees_with_the_paths_of_the_graph(tree: Tree) -> None:
    topology = topology_of(tree)
    found = distances(topology)
    assert found.hosts == tuple(topology.nodes())
    for i, a in enumerate(found.hosts):
        for j, b in enumerate(found.hosts):
            if a == b:
                assert (found.level[i, j], found.bandwidth_bytes_per_s[i, j], found.latency_s[i, j]) == (0, np.inf, 0)
                continue
            bandwidth, latency = by_path(topology, a, b)
            assert found.bandwidth_bytes_per_s[i, j] == pytest.approx(bandwidth, rel=1e-5)
            assert found.latency_s[i, j] == pytest.approx(latency, rel=1e-5)
            common = next(above for above in topology.ancestors(a) if above in topology.ancestors(b))
            assert found.level[i, j] == topology.graph.nodes[common]["level"]


def test_hosts_may_be_chosen_and_stand_in_their_order(tmp_path: Path) -> None:
    topology = topology_of(Tree(((2, 10.0), (2, 20.0))))
    whole = distances(topology)
    some = distances(topology, ["n3", "n0"])
    assert some.hosts == ("n3", "n0")
    assert some.level.tolist() == [[0, whole.level[3, 0]], [whole.level[0, 3], 0]]


def test_an_unknown_host_is_told_the_nearest() -> None:
    with pytest.raises(HpcplanError, match="n1"):
        distances(topology_of(Tree(((2, 10.0),))), ["n11"])


@pytest.mark.parametrize("fabric", [CLOS, RAILS, GROUPS], ids=["clos", "rails", "dragonfly"])
def test_on_other_fabrics_the_matrix_agrees_with_flows_and_paths_of_the_graph(fabric: dict[str, object]) -> None:
    topology = build_topology(site_of(fabric, "n[0-7]"))
    found = distances(topology)
    for i, a in enumerate(found.hosts):
        for j, b in enumerate(found.hosts[:i]):
            assert found.bandwidth_bytes_per_s[i, j] == pytest.approx(maximum_flow(topology, [a], [b]), rel=1e-5)
            assert found.latency_s[i, j] == pytest.approx(
                nx.shortest_path_length(topology.graph, a, b, weight="latency_s"), rel=1e-5
            )
            assert topology.bandwidth(a, b) == pytest.approx(float(found.bandwidth_bytes_per_s[i, j]), rel=1e-5)
            assert topology.latency(a, b) == pytest.approx(float(found.latency_s[i, j]), rel=1e-5)


@pytest.mark.parametrize("dims", [(5,), (4, 3), (2, 2, 3)])
def test_on_a_torus_the_matrix_counts_hops_and_the_links_of_shortest_paths(dims: tuple[int, ...]) -> None:
    topology = torus(*dims)
    found = distances(topology)
    hops = dict(nx.all_pairs_shortest_path_length(topology.graph))
    for i, a in enumerate(found.hosts):
        for j, b in enumerate(found.hosts[:i]):
            assert found.level[i, j] == hops[a][b]
            assert found.latency_s[i, j] == pytest.approx(hops[a][b] * 5e-7, rel=1e-5)
            first = sum(hops[near][b] == hops[a][b] - 1 for near in topology.graph[a])
            assert found.bandwidth_bytes_per_s[i, j] == pytest.approx(first * 1e9, rel=1e-5)


def test_routers_of_a_dragonfly_use_their_own_global_links() -> None:
    fabric: dict[str, object] = {"kind": "dragonfly", "levels": [
        {"name": "router", "size": 2, "uplink": "30 GB/s"}, {"name": "group", "size": 4, "uplink": "20 GB/s"},
        {"name": "system", "size": 4},
    ]}  # fmt: skip
    topology = build_topology(site_of(fabric, "n[0-31]"))
    found = distances(topology)
    lengths = dict(nx.all_pairs_dijkstra_path_length(topology.graph, weight="latency_s"))
    expected = [[lengths[a][b] for b in found.hosts] for a in found.hosts]
    assert found.latency_s == pytest.approx(np.array(expected), rel=1e-5)
