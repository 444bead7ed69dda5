"""The nodes closest together, compared with trying all choices."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import HpcplanError, InfeasibleError
from hpcplan.site.distances import distances
from hpcplan.site.nearest import best_nodes
from hpcplan.site.topology import Topology, build_topology
from tests.site.made_up import site_of, topology_of, trees
from tests.site.test_bisection import CLOS, torus


def span(topology: Topology, hosts: list[str]) -> int:
    """Return the level of the lowest switch above all of them; on a torus the most hops between two."""
    return int(distances(topology, hosts).level.max())


@st.composite
def choices(draw: st.DrawFn) -> tuple[Topology, int, list[str]]:
    topology = topology_of(draw(trees(max_leaves=4, max_nodes=3)))
    busy = draw(st.lists(st.sampled_from(topology.nodes()), unique=True, max_size=len(topology.nodes()) - 1))
    return topology, draw(st.integers(1, len(topology.nodes()) - len(busy))), busy


@settings(max_examples=60, deadline=None)
@given(choices())
def test_no_other_choice_is_closer(case: tuple[Topology, int, list[str]]) -> None:
    topology, count, busy = case
    chosen = best_nodes(topology, count, busy=busy)
    free = [host for host in topology.nodes() if host not in busy]
    assert len(set(chosen)) == count
    assert set(chosen) <= set(free)
    best = min(span(topology, list(several)) for several in combinations(free, count))
    assert span(topology, chosen) == best


@settings(max_examples=40, deadline=None)
@given(choices())
def test_few_leaves_are_used(case: tuple[Topology, int, list[str]]) -> None:
    topology, count, busy = case
    chosen = best_nodes(topology, count, busy=busy)
    reach = span(topology, chosen)
    free = [host for host in topology.nodes() if host not in busy]
    leaf = {host: topology.ancestors(host)[0] for host in free}
    near = [list(several) for several in combinations(free, count) if span(topology, list(several)) == reach]
    fewest = min(len({leaf[host] for host in several}) for several in near)
    assert len({leaf[host] for host in chosen}) <= fewest + 1  # a smaller gap may be worth one leaf more


def test_of_several_gaps_the_smallest_is_filled() -> None:
    topology = build_topology(site_of(CLOS, "n[0-7]"))
    assert best_nodes(topology, 2, busy=["n0", "n2"]) == ["n4", "n5"]
    assert best_nodes(topology, 1, busy=["n0"]) == ["n1"]
    assert best_nodes(topology, 3, busy=["n0"]) == ["n1", "n2", "n3"]


def test_drained_nodes_are_left_out() -> None:
    topology = Topology(
        build_topology(site_of(CLOS, "n[0-7]")).graph,
        build_topology(site_of(CLOS, "n[0-7]")).hierarchy,
        kind="clos",
        drained=frozenset(["n4"]),
    )
    assert best_nodes(topology, 4) == ["n0", "n1", "n2", "n3"]
    assert "n4" not in best_nodes(topology, 7)
    with pytest.raises(InfeasibleError):
        best_nodes(topology, 8)
    assert len(best_nodes(topology, 8, drained=())) == 8


def test_an_accelerator_domain_is_closer_than_a_leaf() -> None:
    inside = {"kind": "nvswitch", "bandwidth": "900 GB/s", "domain_nodes": 4}
    accelerators = {"type": "GB200-186GB", "count": 4}
    flat: dict[str, object] = {"switches": [{"name": "s", "nodes": "n[0-7]"}]}
    topology = build_topology(site_of(flat, "n[0-7]", accelerators=accelerators, intra_node=inside))
    assert best_nodes(topology, 4, busy=["n1"]) == ["n4", "n5", "n6", "n7"]


@pytest.mark.parametrize(("dims", "count"), [((4, 4), 4), ((8,), 3), ((2, 2, 2), 4), ((4, 3), 6)])
def test_on_a_torus_they_are_a_compact_box(dims: tuple[int, ...], count: int) -> None:
    topology = torus(*dims)
    chosen = best_nodes(topology, count)
    best = min(span(topology, list(several)) for several in combinations(topology.nodes(), count))
    assert span(topology, chosen) == best


def test_what_cannot_be_is_refused() -> None:
    topology = build_topology(site_of(CLOS, "n[0-7]"))
    with pytest.raises(HpcplanError):
        best_nodes(topology, 0)
    forest: dict[str, object] = {"switches": [{"name": "x", "nodes": "n[0-3]"}, {"name": "y", "nodes": "n[4-7]"}]}
    with pytest.raises(InfeasibleError, match="nothing joins"):
        best_nodes(build_topology(site_of(forest, "n[0-7]")), 5)
