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
from hpcplan.site.topology import Topology
from tests.site.made_up import Tree, topology_of, trees


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
