"""Flows and the predicted step: arrays against the plain program that jobs carry, and against paths in the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.partition.placement.grid import Grid, flows, orders_of, with_experts
from hpcplan.partition.placement.predict import busiest
from hpcplan.plan import Sharding, Traffic
from hpcplan.rank_map import Fabric, block_flows, step_seconds
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from tests.partition.placement.made_up import exchange, machinery, sharding, site, small_cases, spec_of, traffic


@given(
    st.permutations(["tp", "cp", "dp", "pp"]), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(1, 4),
    st.integers(1, 3), st.sampled_from(["tp", "cp", "dp", "pp", "ep", "edp", "rdp", "redp"]),
    st.sampled_from(["ring", "all-to-all", "chain", "loop"]), st.integers(1, 4),
)  # fmt: skip
def test_flows_are_those_of_the_plain_program(
    order: list[str], tp: int, cp: int, dp: int, pp: int, axis: str, pattern: str, most_copies: int
) -> None:
    ep = max(d for d in range(1, dp * cp + 1) if dp * cp % d == 0 and d <= 4)
    copies = max(d for d in range(1, most_copies + 1) if dp * cp // ep % d == 0)
    grid = Grid(tuple(order), tuple({"tp": tp, "cp": cp, "dp": dp, "pp": pp}[a] for a in order), ep, 2, copies)  # type: ignore[arg-type]
    one = exchange(axis, pattern, 3.0)
    spec = {"axes": list(zip(order, grid.sizes, strict=True)), "ep": ep, "gpus_per_node": 2, "copies": copies}
    plain = block_flows(spec, one.model_dump())
    fast = flows(grid, one)
    found = {(int(a), int(b)): size for a, b, size in zip(fast.source, fast.target, fast.bytes, strict=True)}
    assert found.keys() == plain.between.keys()
    assert all(found[pair] == pytest.approx(plain.between[pair]) for pair in found)
    assert (fast.inside, fast.blocks) == (pytest.approx(plain.inside), plain.blocks)


def test_rings_go_around_the_ranks_of_a_group_and_cross_each_node_once() -> None:
    grid = Grid(("tp", "cp", "dp", "pp"), (2, 1, 4, 1), 1, 4)  # blocks: dp 0-1, dp 2-3
    between = flows(grid, exchange("dp", "ring", 5.0))
    assert [*zip(between.source.tolist(), between.target.tolist(), between.bytes.tolist(), strict=True)] == [
        (0, 1, 10.0), (1, 0, 10.0),  # two rings, one for each tensor-parallel rank
    ]  # fmt: skip
    assert flows(grid, exchange("tp")).bytes.sum() == 0, "tensor-parallel groups stay in their node"


def test_experts_are_spread_over_neighbouring_data_parallel_ranks() -> None:
    grid = Grid(("tp", "cp", "dp", "pp"), (1, 1, 8, 1), 4, 1)
    assert grid.groups("ep").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert grid.groups("edp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    twice = Grid(("tp", "cp", "dp", "pp"), (1, 1, 8, 1), 2, 1, copies=2)
    assert twice.groups("dp").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert twice.groups("rdp").tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert twice.groups("edp").tolist() == [[0, 2], [4, 6], [1, 3], [5, 7]]
    assert twice.groups("redp").tolist() == [[0, 4], [2, 6], [1, 5], [3, 7]]
    between = flows(grid, exchange("ep", "all-to-all", 8.0))
    assert set(between.bytes.tolist()) == {2.0}, "a quarter to each member"


@given(small_cases())
@settings(max_examples=60)
def test_the_step_is_that_of_the_program_that_jobs_carry(case: tuple[Site, Sharding, Traffic, Sequence[str]]) -> None:
    of, ranks, sends, free = case
    made = machinery(of, ranks, sends)
    hosts = list(free[: ranks.nodes])
    for order in orders_of("srun", ranks):
        spec = spec_of(made, with_experts(order, ranks))
        of_exchanges = [[block_flows(spec, one) for one in term["exchanges"]] for term in spec["terms"]]
        expected = step_seconds(spec, Fabric(spec["switches"], hosts), hosts, of_exchanges)
        numbers = made.hierarchy.numbers(hosts)[None]
        predictor = made.predictor(order)
        assert predictor.quality(numbers).step_s[0] == pytest.approx(expected)
        assert predictor.bound_s(made.largest_domain, made.network.nearest_s(numbers[0])) <= expected * (1 + 1e-9)


def test_loads_are_those_of_the_paths_in_the_graph() -> None:
    levels = [{"name": "leaf", "size": 3, "uplink": "5 GB/s"}, {"name": "mid", "size": 2, "uplink": "4 GB/s"}]
    of = site({"levels": [*levels, {"name": "top", "size": 2}]}, 12)
    ranks = sharding(tp=2, dp=3, pp=3)
    made = machinery(of, ranks, traffic(exchange("dp"), exchange("pp", "chain")))
    graph = build_topology(of).graph
    hosts = [f"n{number}" for number in (0, 5, 9, 2, 11, 3, 7, 8, 1)]
    between = flows(Grid.of(ranks, ("tp", "cp", "dp", "pp")), exchange("dp"))
    expected: Counter[tuple[str, str]] = Counter()
    for a, b, size in zip(between.source, between.target, between.bytes, strict=True):
        for ends in pairwise(nx.shortest_path(graph, hosts[a], hosts[b])):
            expected[ends] += size
    numbers = made.hierarchy.numbers(hosts)[None]
    loads = made.network.loads(numbers[:, between.source], numbers[:, between.target], between.bytes)[0]
    found = {made.network.link(int(i)): loads[i] for i in np.flatnonzero(loads)}
    assert found == pytest.approx(dict(expected))
    named = made.predictor(("tp", "cp", "dp", "pp")).links(numbers[0])
    assert [link.busy_s for link in named] == sorted((link.busy_s for link in named), reverse=True)
    assert sum(one.alike for one in busiest(named, 1000)) == len(named)
    assert {(link.source, link.target) for link in named} <= {ends for a, b in graph.edges for ends in ((a, b), (b, a))}


def test_only_orders_that_the_framework_can_run_and_that_differ_are_tried() -> None:
    both = sharding(tp=2, dp=2, pp=2)
    assert orders_of("megatron-lm", both) == [("tp", "cp", "dp", "pp"), ("tp", "cp", "pp", "dp")]
    assert orders_of("megatron-lm", sharding(tp=2, dp=4, pp=2, ep=2)) == [("tp", "cp", "dp", "pp")]
    assert orders_of("torchtitan", both) == [("tp", "cp", "dp", "pp")]
    assert len(orders_of("srun", both)) == 6
    assert len(orders_of("srun", sharding(tp=2, dp=2, pp=2, cp=2))) == 24
    assert orders_of("srun", sharding(dp=8)) == [("tp", "cp", "dp", "pp")]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3))
@settings(max_examples=30)
def test_loads_on_a_torus_are_those_of_its_closed_form(dims: list[int]) -> None:
    nodes = int(np.prod(dims))
    if nodes < 2:
        return
    toruses = [{"name": "t", "dims": dims, "nodes": f"n[0-{nodes - 1}]", "link": "10 GB/s"}]
    of = site({"kind": "torus", "toruses": toruses}, nodes)
    made = machinery(of, sharding(tp=2, dp=nodes), traffic(exchange("dp")))
    generator = np.random.default_rng(nodes)
    source, target = generator.integers(0, nodes, (3, 8)), generator.integers(0, nodes, (3, 8))
    amount = generator.random(8) + 0.1
    grid = build_topology(of).grids[0]
    found = made.network.loads(source, target, amount)
    for row in range(3):
        expected = grid.loads(source[row], target[row], amount).ravel()
        assert found[row, -expected.size :] == pytest.approx(expected)
        assert not found[row, : -expected.size].any()
