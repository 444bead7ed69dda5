"""Shared links: the load of flows, and the max-min fair share of simultaneous collectives."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError
from hpcplan.site.topology import Topology, build_topology
from hpcplan.site.traffic import Collective, effective_bandwidths, link_loads
from tests.site.made_up import site_of, topology_of, trees
from tests.site.test_bisection import CLOS


@st.composite
def several(draw: st.DrawFn) -> tuple[Topology, list[Collective]]:
    topology = topology_of(draw(trees(max_leaves=5, max_nodes=3)))
    hosts = draw(st.permutations(topology.nodes()))
    cuts = sorted(draw(st.lists(st.integers(0, len(hosts)), max_size=3)))
    parts = [hosts[a:b] for a, b in zip([0, *cuts], [*cuts, len(hosts)], strict=True)]
    patterns = st.sampled_from(["ring", "all-to-all"])
    return topology, [Collective(tuple(part), draw(patterns)) for part in parts if part]  # type: ignore[arg-type]


def load_at_rate_one(topology: Topology, collective: Collective, edge: tuple[str, str]) -> float:
    """Return what a collective sends over an edge of a tree, counted by its members on either side."""
    graph = topology.graph.copy()
    graph.remove_edge(*edge)
    side = nx.node_connected_component(graph, edge[0])
    below, count = len(side & set(collective.hosts)), len(collective.hosts)
    if below in (0, count):
        return 0.0
    return 1.0 if collective.pattern == "ring" else below * (count - below) / (count - 1)


@settings(max_examples=60, deadline=None)
@given(several())
def test_no_link_carries_too_much_and_every_collective_has_one_that_is_full(
    case: tuple[Topology, list[Collective]],
) -> None:
    topology, collectives = case
    rates = effective_bandwidths(topology, collectives)
    full: dict[tuple[str, str], list[float]] = {}
    for a, b, data in topology.graph.edges(data=True):
        loads = [load_at_rate_one(topology, collective, (a, b)) for collective in collectives]
        used = [(rate, load) for rate, load in zip(rates, loads, strict=True) if load]
        total = sum(rate * load for rate, load in used)
        assert total <= data["bandwidth_bytes_per_s"] * (1 + 1e-6)
        if total >= data["bandwidth_bytes_per_s"] * (1 - 1e-6):
            full[a, b] = [rate for rate, _ in used]
    for collective, rate in zip(collectives, rates, strict=True):
        if len(collective.hosts) == 1:
            assert rate == math.inf
            continue
        crossed = [edge for edge in full if load_at_rate_one(topology, collective, edge)]
        assert any(rate >= max(full[edge]) * (1 - 1e-6) for edge in crossed)  # none on it could get less for it


def test_two_jobs_across_one_up_link_get_half_each() -> None:
    fabric: dict[str, object] = {"switches": [
        {"name": "a", "nodes": "n[0-3]", "uplink": "8 GB/s"}, {"name": "b", "nodes": "n[4-7]", "uplink": "8 GB/s"},
        {"name": "top", "switches": ["a", "b"]},
    ]}  # fmt: skip
    topology = build_topology(site_of(fabric, "n[0-7]"))
    apart = [Collective(("n0", "n4")), Collective(("n1", "n5"))]
    assert effective_bandwidths(topology, apart[:1]) == pytest.approx([8e9])
    assert effective_bandwidths(topology, apart) == pytest.approx([4e9, 4e9])
    inside = [*apart, Collective(("n2", "n3"))]
    assert effective_bandwidths(topology, inside) == pytest.approx([4e9, 4e9, 10e9])


def test_loads_follow_the_way_over_the_lowest_common_switch() -> None:
    topology = build_topology(site_of(CLOS, "n[0-7]"))
    numbers = topology.hierarchy.numbers(["n0", "n0", "n7"])
    targets = topology.hierarchy.numbers(["n1", "n7", "n7"])
    loads = link_loads(topology, numbers, targets, [1.0, 10.0, 100.0])
    index = topology.hierarchy.index
    first, last = int(topology.hierarchy.parent[index["n0"]]), int(topology.hierarchy.parent[index["n7"]])
    assert (loads.up[index["n0"]], loads.down[index["n1"]], loads.down[index["n7"]]) == (11, 1, 10)
    assert (loads.up[first], loads.down[last], loads.down[first]) == (10, 10, 0)
    assert float(np.sum(loads.up[index["n7"]])) == 0
    assert loads.busiest_s == pytest.approx(10 / 8e9)  # of the pods' up-links


def test_a_node_twice_and_nodes_that_nothing_joins_are_refused() -> None:
    forest: dict[str, object] = {"switches": [{"name": "x", "nodes": "n0"}, {"name": "y", "nodes": "n1"}]}
    topology = build_topology(site_of(forest, "n[0-1]"))
    for hosts in (("n0", "n0"), ("n0", "n1")):
        with pytest.raises(HpcplanError):
            effective_bandwidths(topology, [Collective(hosts)])
    with pytest.raises(HpcplanError):
        link_loads(topology, [0], [1], 1.0)
