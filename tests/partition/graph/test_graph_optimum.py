"""The best split: equal to what trying all assignments finds, checked, deterministic, with an honest bound."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcplan.errors import InfeasibleError
from hpcplan.partition.graph import LayerGraph, check_split, device_loads, parse_graph, partition_graph, search
from hpcplan.partition.graph.groups import contract
from hpcplan.partition.graph.relax import relaxed
from hpcplan.partition.graph.sweep import Sweep
from tests.partition.graph.layer_graphs import (
    best_by_trying_all,
    chain,
    graph_of,
    node,
    small_graphs,
    training_of,
    transformer,
)

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


@settings(max_examples=150, **SLOW)
@given(small_graphs())
def test_the_optimum_equals_the_best_of_all_assignments(graph: LayerGraph) -> None:
    best = best_by_trying_all(graph)
    if best is None:
        with pytest.raises(InfeasibleError):
            partition_graph(graph)
        return
    split = partition_graph(graph)
    assert split.objective == pytest.approx(best, abs=1e-9)
    assert split.gap == 0
    assert split.bound == split.objective
    assert check_split(graph, split.assignment) == []
    assert split.loads == device_loads(graph, split.assignment)


@settings(max_examples=60, **SLOW)
@given(small_graphs())
def test_without_a_list_of_all_ideals_the_bound_and_the_split_enclose_the_optimum(graph: LayerGraph) -> None:
    best = best_by_trying_all(graph)
    if best is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MAX_IDEALS", 1)
        split = partition_graph(graph)
    assert split.bound <= best + 1e-9
    assert split.objective >= best - 1e-9
    assert check_split(graph, split.assignment) == []


@settings(max_examples=60, **SLOW)
@given(small_graphs())
def test_raising_the_bound_in_steps_finds_the_same_optimum(graph: LayerGraph) -> None:
    best = best_by_trying_all(graph)
    if best is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MANY_IDEALS", 0)
        split = partition_graph(graph)
    assert split.objective == pytest.approx(best, abs=1e-9)
    assert split.gap == 0


def test_a_chain_is_cut_where_its_halves_balance() -> None:
    split = partition_graph(chain([1, 2, 3, 4, 5, 5], accelerators=2))
    assert split.loads == {"acc0": 10.0, "acc1": 10.0}
    assert split.assignment == {0: "acc0", 1: "acc0", 2: "acc0", 3: "acc0", 4: "acc1", 5: "acc1"}


def test_transfers_are_paid_on_both_sides_of_a_cut_and_once_for_one_output() -> None:
    nodes = [node(0, 4.0, transfer=1.0), node(1, 2.0), node(2, 2.0)]
    split = partition_graph(graph_of(nodes, [(0, 1), (0, 2)], accelerators=2))
    assert split.loads == {"acc0": 5.0, "acc1": 5.0}


def test_a_cpu_takes_what_accelerators_cannot_run_and_pays_no_transfers() -> None:
    nodes = [node(0, 1.0, transfer=3.0), node(1, 1.0, cpu=4.0, transfer=3.0, on_accelerator=False), node(2, 1.0)]
    split = partition_graph(graph_of(nodes, [(0, 1), (1, 2)], accelerators=2, cpus=1))
    assert split.assignment[1] == "cpu0"
    assert split.loads["cpu0"] == 4.0
    assert split.objective == 4.0


def test_more_devices_never_make_the_busiest_busier() -> None:
    loads = [partition_graph(transformer(4, accelerators=k)).objective for k in range(1, 9)]
    assert loads == sorted(loads, reverse=True)
    assert loads[0] == pytest.approx(sum(v.accelerator_time for v in transformer(4).nodes))


def test_a_transformer_of_equal_blocks_is_cut_between_blocks() -> None:
    split = partition_graph(transformer(8, accelerators=4))
    # 1 + 8 blocks of 6.7; a cut between blocks pays for one output on each side
    assert split.gap == 0
    assert split.objective <= 2 * 6.7 + 1 + 0.1 + 1e-9


def test_training_keeps_each_pair_together_and_takes_three_times_the_time() -> None:
    graph = transformer(4, accelerators=3)
    training = training_of(graph)
    split = partition_graph(training)
    n = len(graph.nodes)
    assert all(split.assignment[i] == split.assignment[n + i] for i in range(n))
    assert split.objective == pytest.approx(
        max(
            3 * sum(v.accelerator_time for v in graph.nodes if split.assignment[v.id] == device)
            + split.loads[device]
            - sum(v.accelerator_time for v in training.nodes if split.assignment[v.id] == device)
            for device in split.loads
        )
    )
    assert split.gap == 0


def test_a_gap_in_a_backward_part_is_never_given() -> None:
    # Forward order allows {0, 2} together, apart from 1; backward 3 -> 4 -> 5 does not.
    nodes = [node(i, time, color=i) for i, time in enumerate((4.0, 8.0, 4.0))]
    nodes += [node(3 + i, 0.0, backward=True, color=color) for i, color in enumerate((0, 1, 2))]
    graph = graph_of(nodes, [(3, 4), (4, 5)], accelerators=2)
    split = partition_graph(graph)
    assert check_split(graph, split.assignment) == []
    assert split.objective == 12.0
    assert split.gap == 0


def test_a_skip_connection_does_not_let_a_piece_leave_and_come_back() -> None:
    graph = graph_of([node(0, 5.0), node(1, 10.0), node(2, 5.0)], [(0, 1), (1, 2), (0, 2)], accelerators=2)
    assert partition_graph(graph).objective == 15.0


def test_idle_leaves_follow_their_neighbour() -> None:
    nodes = [node(0, 3.0), node(1, 3.0), *(node(i, 0.0, transfer=9.0) for i in range(2, 30))]
    graph = graph_of(nodes, [(0, 1), *((i, i % 2) for i in range(2, 30))], accelerators=2)
    split = partition_graph(graph)
    assert split.objective == 3.0
    assert all(split.assignment[i] == split.assignment[i % 2] for i in range(2, 30))


def test_the_same_graph_gives_the_same_split() -> None:
    graph = training_of(transformer(3, accelerators=3, cpus=1))
    assert partition_graph(graph) == partition_graph(graph)


def wide(n: int, **devices) -> LayerGraph:
    return graph_of([node(i, 1.0 + i % 7) for i in range(n)], [], **devices)


def test_a_graph_with_too_many_ideals_gets_a_split_and_a_bound() -> None:
    graph = wide(70, accelerators=4)
    split = partition_graph(graph, time_limit_s=5)
    total = sum(v.accelerator_time for v in graph.nodes)
    assert split.bound == pytest.approx(total / 4)
    assert split.objective <= total / 4 * 1.05
    assert check_split(graph, split.assignment) == []


def test_a_time_limit_that_has_passed_still_gives_a_checked_split() -> None:
    graph = training_of(transformer(6, accelerators=4))
    split = partition_graph(graph, time_limit_s=1e-9)
    assert check_split(graph, split.assignment) == []
    assert split.bound <= partition_graph(graph).objective <= split.objective


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (chain([1, 1, 1], accelerators=0), "no devices"),
        (chain([1, 1, 1, 1], accelerators=2, memory=1.5), "needs 4 bytes"),
        (graph_of([node(0), node(1, size=9.0)], [(0, 1)], memory=8.0), "node 1 need"),
        (graph_of([node(0, color=1, size=5.0), node(1, color=1, size=5.0)], [], memory=8.0), "nodes 0, 1, which must"),
        (graph_of([node(7, on_accelerator=False)], []), "node 7 cannot run on an accelerator"),
        (graph_of([node(i, size=2.0) for i in range(3)], [], memory=3.0), "no split into 2 pieces.*\\n.*--memory 4,"),
    ],
)
def test_what_cannot_be_is_refused_with_the_constraint_that_binds(graph: LayerGraph, message: str) -> None:
    with pytest.raises(InfeasibleError, match=message) as refused:
        partition_graph(graph)
    assert refused.value.hint is not None


@settings(max_examples=60, **SLOW)
@given(small_graphs())
def test_a_smaller_problem_never_has_a_larger_optimum(graph: LayerGraph) -> None:
    best = best_by_trying_all(graph)
    if best is None:
        return
    part, table, kept = relaxed(contract(graph), 2 + len(graph.nodes) // 2)
    assert len(part) == len(kept) >= 1
    chain = Sweep(part, table, limit=1e9).best()
    assert chain is not None
    assert chain.load <= best + 1e-9


def test_memory_that_matters_only_to_idle_nodes_does_not_cost_the_proof() -> None:
    spine = [node(i, 3.0, transfer=0.1) for i in range(12)]
    leaves = [node(12 + i, 0.0, size=0.01) for i in range(30)]
    edges = [(i, i + 1) for i in range(11)] + [(i % 12, 12 + i) for i in range(30)]
    split = partition_graph(graph_of([*spine, *leaves], edges, accelerators=3, memory=6.0))
    assert split.gap == 0
    assert split.objective == pytest.approx(12.2)


@settings(max_examples=60, **SLOW)
@given(small_graphs(), st.randoms(use_true_random=False))
def test_ids_the_order_of_nodes_and_edges_and_repeated_edges_do_not_matter(graph: LayerGraph, chance: Random) -> None:
    names = chance.sample(range(-1000, 1000), len(graph.nodes))
    nodes = [
        {
            "id": names[i], "name": v.name, "supportedOnFpga": int(v.on_accelerator), "cpuLatency": v.cpu_time,
            "fpgaLatency": v.accelerator_time, "isBackwardNode": int(v.backward), "size": v.size_bytes,
            **({} if v.color is None else {"colorClass": 7 * v.color - 3}),
        }
        for i, v in enumerate(graph.nodes)
    ]  # fmt: skip
    edges = [{"sourceId": names[a], "destId": names[b], "cost": graph.nodes[a].transfer} for a, b in graph.edges]
    edges += edges[:2]
    chance.shuffle(nodes)
    chance.shuffle(edges)
    data = {"maxSizePerFPGA": graph.memory_bytes, "maxFPGAs": graph.accelerators, "maxCPUs": graph.cpus,
            "nodes": nodes, "edges": edges}  # fmt: skip
    told = parse_graph(json.dumps(data), "graph.json")
    try:
        split = partition_graph(graph)
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            partition_graph(told)
        return
    again = partition_graph(told)
    assert again.objective == pytest.approx(split.objective, abs=1e-9)
    assert again.gap == 0
    assert set(again.assignment) == set(names)
