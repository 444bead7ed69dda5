"""The inside of nodes as a graph, and graphs in other programs' formats."""

from __future__ import annotations

import json

import networkx as nx
import pytest

from hpcplan.errors import InputError
from hpcplan.site.export import GRAPHS, graph_as
from hpcplan.site.inside import with_insides
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.site.made_up import site_of
from tests.site.test_bisection import CLOS


def gpu_site(**inside: object) -> Site:
    links = {"kind": "nvswitch", "bandwidth": "450 GB/s", **inside}
    return site_of(CLOS, "n[0-7]", accelerators={"type": "H100-SXM5-80GB", "count": 4}, intra_node=links)


def test_gpus_interfaces_and_sockets_hang_on_their_node() -> None:
    site = gpu_site()
    graph = with_insides(build_topology(site), site, ["n0"])
    kinds = [data["kind"] for name, data in graph.nodes(data=True) if name.startswith("n0/")]
    assert sorted(kinds) == ["gpu"] * 4 + ["nic"] * 2 + ["nvswitch"] + ["socket"] * 2
    assert all({"bandwidth_bytes_per_s", "latency_s", "links"} <= data.keys() for _, _, data in graph.edges(data=True))
    assert graph.edges["n0/gpu0", "n0/nvswitch"]["bandwidth_bytes_per_s"] == pytest.approx(450e9)
    assert nx.has_path(graph, "n0/gpu3", "n7")
    assert not [name for name in graph if name.startswith("n1/")]


def test_a_mesh_joins_gpus_as_the_table_says() -> None:
    mesh = [[0, 2, 1, 0], [2, 0, 0, 1], [1, 0, 0, 2], [0, 1, 2, 0]]
    site = gpu_site(kind="nvlink", bandwidth="75 GB/s", links=3, mesh=mesh)
    graph = with_insides(build_topology(site), site, ["n0"])
    assert graph.edges["n0/gpu0", "n0/gpu1"]["links"] == 2
    assert graph.edges["n0/gpu0", "n0/gpu1"]["bandwidth_bytes_per_s"] == pytest.approx(50e9)
    assert not graph.has_edge("n0/gpu0", "n0/gpu3")


def test_what_is_near_to_which_socket_is_kept() -> None:
    site = gpu_site(numa=[{"accelerators": [3], "nics": [1]}, {"accelerators": [0, 1, 2], "nics": [0]}])
    graph = with_insides(build_topology(site), site, ["n0"])
    assert graph.has_edge("n0/socket0", "n0/gpu3")
    assert graph.has_edge("n0/socket1", "n0/nic0")
    assert not graph.has_edge("n0/socket0", "n0/gpu0")


@pytest.mark.parametrize("form", GRAPHS)
def test_a_graph_comes_back_whole_from_each_format(form: str) -> None:
    site = gpu_site()
    graph = with_insides(build_topology(site), site)
    text = graph_as(graph, form)
    if form == "dot":
        assert text.count(" -- ") == graph.number_of_edges()
        assert text.count("kind=") == graph.number_of_nodes()
        return
    again = nx.parse_graphml(text) if form == "graphml" else nx.node_link_graph(json.loads(text), edges="edges")
    assert set(again.nodes) == set(graph.nodes)
    assert {frozenset(edge) for edge in again.edges} == {frozenset(edge) for edge in graph.edges}
    a, b = next(iter(graph.edges))
    assert again.edges[a, b]["bandwidth_bytes_per_s"] == graph.edges[a, b]["bandwidth_bytes_per_s"]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError):
        graph_as(build_topology(gpu_site()).graph, "gexf")
