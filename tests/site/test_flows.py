"""Bandwidth between sets of nodes agrees with a maximum flow through the graph."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError
from hpcplan.site.flows import bandwidth_between
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import Tree, site_of, topology_of, trees
from tests.site.test_bisection import CLOS, GROUPS, RAILS, torus


def maximum_flow(topology: Topology, sources: list[str], targets: list[str], *, through_hosts: bool = False) -> float:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for a, b, data in topology.graph.edges(data=True):
        for one, other in ((a, b), (b, a)):
            leaves = topology.graph.nodes[one]["kind"] == "node"
            enters = topology.graph.nodes[other]["kind"] == "node"
            if through_hosts or not ((leaves and one not in sources) or (enters and other not in targets)):
                graph.add_edge(one, other, capacity=data["bandwidth_bytes_per_s"])
    graph.add_edges_from([("from", host) for host in sources] + [(host, "to") for host in targets])
    return float(nx.maximum_flow_value(graph, "from", "to"))


@st.composite
def sets(draw: st.DrawFn) -> tuple[Topology, list[str], list[str]]:
    topology = topology_of(draw(trees(max_leaves=5, max_nodes=3).filter(lambda t: sum(n for n, _ in t.leaves) > 1)))
    hosts = draw(st.permutations(topology.nodes()))
    first = draw(st.integers(1, len(hosts) - 1))
    second = draw(st.integers(first + 1, len(hosts)))
    return topology, list(hosts[:first]), list(hosts[first:second])


@settings(max_examples=60, deadline=None)
@given(sets())
def test_trees_agree_with_a_maximum_flow(case: tuple[Topology, list[str], list[str]]) -> None:
    topology, sources, targets = case
    assert bandwidth_between(topology, sources, targets) == pytest.approx(maximum_flow(topology, sources, targets))


@pytest.mark.parametrize("fabric", [CLOS, RAILS, GROUPS], ids=["clos", "rails", "dragonfly"])
@pytest.mark.parametrize("targets", [["n7"], ["n2", "n3", "n6"], ["n4", "n5", "n6", "n7"]])
def test_other_fabrics_agree_with_a_maximum_flow(fabric: dict[str, object], targets: list[str]) -> None:
    topology = build_topology(site_of(fabric, "n[0-7]"))
    sources = ["n0", "n1"]
    assert bandwidth_between(topology, sources, targets) == pytest.approx(maximum_flow(topology, sources, targets))


def test_on_a_torus_nodes_forward_for_others() -> None:
    topology = torus(4, 3)
    through = maximum_flow(topology, ["n0"], ["n7", "n8"], through_hosts=True)
    assert bandwidth_between(topology, ["n0"], ["n7", "n8"]) == pytest.approx(through, rel=1e-6)
    assert through == pytest.approx(4e9)


def test_a_common_accelerator_domain_adds_its_own_links() -> None:
    inside = {"kind": "nvswitch", "bandwidth": "900 GB/s", "domain_nodes": 4}
    accelerators = {"type": "GB200-186GB", "count": 4}
    site = site_of(CLOS, "n[0-7]", accelerators=accelerators, intra_node=inside)
    plain = bandwidth_between(build_topology(site_of(CLOS, "n[0-7]")), ["n0"], ["n1", "n5"])
    assert bandwidth_between(build_topology(site), ["n0"], ["n1", "n5"]) == pytest.approx(plain + 4 * 900e9)
    assert bandwidth_between(build_topology(site), ["n0"], ["n5"]) == pytest.approx(8e9)


@pytest.mark.parametrize(("a", "b"), [([], ["n1"]), (["n0"], ["n0"]), (["n0"], ["nowhere"])])
def test_sets_that_are_none_are_refused(a: list[str], b: list[str]) -> None:
    with pytest.raises(HpcplanError):
        bandwidth_between(topology_of(Tree(((2, 10.0),))), a, b)
