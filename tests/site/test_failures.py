"""What a failed switch, node or cable costs."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError
from hpcplan.site.failures import cost_of_failure, without
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import site_of, topology_of, trees
from tests.site.test_bisection import CLOS, least_cut, torus


@st.composite
def failures(draw: st.DrawFn) -> tuple[Topology, str]:
    topology = topology_of(draw(trees(max_leaves=4, max_nodes=2).filter(lambda tree: len(tree.leaves) > 1)))
    return topology, draw(st.sampled_from([*topology.switches(), *topology.nodes()]))


@settings(max_examples=40, deadline=None)
@given(failures())
def test_on_a_tree_what_is_cut_off_and_what_is_left_agree_with_the_graph(case: tuple[Topology, str]) -> None:
    topology, failed = case
    cost = cost_of_failure(topology, failed)
    graph = topology.graph.copy()
    graph.remove_edges_from(list(graph.edges(failed)))
    parts = [set(part) & set(topology.nodes()) for part in nx.connected_components(graph)]
    left = [host for host in topology.nodes() if host not in cost.lost]
    assert len(left) == max(len(part) for part in parts)
    assert set(left) in parts
    if len(left) > 1:
        assert cost.bisection_after_bytes_per_s == pytest.approx(
            min(cost.bisection_before_bytes_per_s, least_cut(topology, left))
        )


def test_a_failed_root_of_a_clos_network_halves_what_leaves_each_pod() -> None:
    topology = build_topology(site_of(CLOS, "n[0-7]"))
    root = topology.switches(3)[0]
    cost = cost_of_failure(topology, root)
    assert (cost.lost, len(cost.slowed)) == ((), 8)
    assert cost.share_after_bytes_per_s == pytest.approx(cost.share_before_bytes_per_s / 2)
    assert cost.bisection_after_bytes_per_s == pytest.approx(cost.bisection_before_bytes_per_s / 2)
    assert root not in without(topology, root).graph


def test_one_of_several_cables_takes_its_part() -> None:
    fabric: dict[str, object] = {"switches": [
        {"name": "a", "nodes": "n[0-3]", "uplink": "8 GB/s", "links": 4},
        {"name": "b", "nodes": "n[4-7]", "uplink": "8 GB/s", "links": 4}, {"name": "top", "switches": ["a", "b"]},
    ]}  # fmt: skip
    topology = build_topology(site_of(fabric, "n[0-7]"))
    cost = cost_of_failure(topology, ("a", "top"), links=1)
    assert cost.lost == ()
    assert cost.slowed == ("n0", "n1", "n2", "n3")
    assert cost.share_after_bytes_per_s == pytest.approx(6e9 / 4)
    assert cost.bisection_after_bytes_per_s == pytest.approx(6e9)
    assert cost_of_failure(topology, ("top", "a")).lost == ("n4", "n5", "n6", "n7")  # of equal parts the first stays
    assert topology.graph.edges["a", "top"]["links"] == 4  # the topology itself is as before


def test_a_failed_node_of_a_ring_leaves_a_line() -> None:
    cost = cost_of_failure(torus(6), "n2")
    assert cost.lost == ("n2",)
    assert cost.bisection_after_bytes_per_s <= cost.bisection_before_bytes_per_s


@pytest.mark.parametrize(("failed", "links"), [("nosuch", None), (("n0", "n1"), None), (("n0", "leaf1"), 9)])
def test_what_is_not_there_cannot_fail(failed: str | tuple[str, str], links: int | None) -> None:
    with pytest.raises(HpcplanError):
        cost_of_failure(build_topology(site_of(CLOS, "n[0-7]")), failed, links=links)
