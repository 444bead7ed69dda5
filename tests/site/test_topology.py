"""The topology graph: what it says of bandwidth and neighbourhood."""

from __future__ import annotations

import math
from pathlib import Path

import networkx as nx
import pytest

from hpcplan.errors import HpcplanError
from hpcplan.site import load_site
from hpcplan.site.draw import draw_topology
from hpcplan.site.load import read_site
from hpcplan.site.topology import Topology, build_topology

OVERSUBSCRIBED = """\
name: tree
node_groups:
  cpu: {nodes: "n[0-11]", cpus: 4, memory: 8 GiB, nics: {bandwidth: 80 Gb/s, latency: 1 us}}
partitions: {p: {nodes: cpu}}
fabric:
  levels:
    - {name: leaf, size: 4, uplink: 20 GB/s, latency: 200 ns}
    - {name: mid, size: 2, uplink: 10 GB/s, latency: 200 ns}
    - {name: top, size: 2, latency: 200 ns}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Topology:
    path = tmp_path / "tree.yaml"
    path.write_text(OVERSUBSCRIBED)
    return build_topology(read_site(path))


def test_every_edge_carries_bandwidth_latency_and_links(tree: Topology) -> None:
    for _, _, data in tree.graph.edges(data=True):
        assert data["bandwidth_bytes_per_s"] > 0
        assert data["latency_s"] > 0
        assert data["links"] >= 1


def test_levels_are_built_as_asked(tree: Topology) -> None:
    assert [len(tree.switches(level)) for level in (1, 2, 3)] == [3, 2, 1]
    assert nx.is_tree(tree.graph)
    assert [level.oversubscription for level in tree.levels()] == [pytest.approx(2.0), pytest.approx(3.0), None]


def test_the_narrowest_link_on_the_way_bounds_a_pair(tree: Topology) -> None:
    assert tree.bandwidth("n0", "n1") == pytest.approx(10e9)
    assert tree.bandwidth("n0", "n4") == pytest.approx(10e9)
    assert tree.bandwidth("n0", "n0") == math.inf
    assert tree.latency("n0", "n8") > tree.latency("n0", "n4") > tree.latency("n0", "n1")


def test_paths_and_latencies_agree_with_networkx(tree: Topology) -> None:
    for a in tree.nodes():
        for b in tree.nodes():
            assert tree.path(a, b) == nx.shortest_path(tree.graph, a, b)
            expected = nx.shortest_path_length(tree.graph, a, b, weight="latency_s")
            assert tree.latency(a, b) == pytest.approx(expected)


def test_tiers_share_the_uplinks_among_those_below(tree: Topology) -> None:
    tiers = tree.tiers(tree.nodes())
    assert [tier.nodes for tier in tiers] == [4, 8, 12]
    # 20 GB/s shared by 4 nodes, then 10 GB/s shared by 8
    assert [tier.bandwidth_bytes_per_s for tier in tiers] == [pytest.approx(x) for x in (10e9, 5e9, 1.25e9)]
    assert tiers[0].latency_s < tiers[1].latency_s < tiers[2].latency_s


def test_the_closest_nodes_share_a_leaf(tree: Topology) -> None:
    free = ["n0", "n5", "n6", "n7", "n9"]
    assert tree.closest(3, free) == ["n5", "n6", "n7"]
    assert set(tree.closest(4, free)) == {"n0", "n5", "n6", "n7"}, "one middle switch holds four"
    with pytest.raises(HpcplanError, match="no switch joins 6"):
        tree.closest(6, free)


def test_an_unknown_node_is_told_the_nearest(tree: Topology) -> None:
    with pytest.raises(HpcplanError, match="'n11'"):
        tree.bandwidth("n0", "n111")


@pytest.mark.parametrize("kind", ["svg", "png"])
@pytest.mark.parametrize("name", ["mixed-lab", "superpod-h100"])
def test_the_picture_is_the_same_each_time(tmp_path: Path, name: str, kind: str) -> None:
    site = load_site(name).site
    first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    for path in (first, second):
        draw_topology(site, build_topology(site), path)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) > 5_000
