"""The checker: every rule broken in a split by hand is found."""

from __future__ import annotations

import pytest

from hpcplan.partition.graph import check_split, device_loads
from tests.partition.graph.layer_graphs import graph_of, node


def four():
    nodes = [node(0, transfer=0.5, color=1), node(1, 2.0, transfer=0.25), node(2, 4.0, size=3.0), node(3, 8.0, color=1)]
    return graph_of(nodes, [(0, 1), (0, 2)], accelerators=2, cpus=1, memory=5.0)


GOOD = {0: "acc0", 1: "acc1", 2: "acc1", 3: "acc0"}


def test_a_good_split_has_nothing_wrong_and_its_loads_follow_the_definition() -> None:
    assert check_split(four(), GOOD) == []
    assert device_loads(four(), GOOD) == {"acc0": 9.5, "acc1": 6.5}
    assert device_loads(four(), GOOD | {1: "cpu0", 2: "cpu0"}) == {"acc0": 9.5, "cpu0": 60.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "acc1"}, "colour 1 is on acc0 and on acc1"),
        ({1: "acc2"}, "no device acc2"),
        ({1: "cpu1"}, "no device cpu1"),
        ({1: "gpu0"}, "no device gpu0"),
        ({0: "acc1", 3: "acc1"}, "acc1 holds 6 bytes of 5"),
        ({9: "acc0"}, "does not"),
    ],
)
def test_a_broken_rule_is_found(change: dict[int, str], message: str) -> None:
    assert any(message in wrong for wrong in check_split(four(), GOOD | change))


def test_a_node_without_a_device_is_found() -> None:
    assert check_split(four(), {0: "acc0"}) == ["node 1 is on no device"]


def test_a_node_that_must_be_on_a_cpu_is_found_elsewhere() -> None:
    graph = graph_of([node(0, on_accelerator=False)], [], cpus=1)
    assert check_split(graph, {0: "acc0"}) == ["node 0 cannot run on acc0"]
    assert check_split(graph, {0: "cpu0"}) == []


def test_a_gap_in_the_forward_part_is_found() -> None:
    graph = graph_of([node(i) for i in range(4)], [(0, 1), (1, 2), (2, 3)])
    wrong = check_split(graph, {0: "acc0", 1: "acc1", 2: "acc1", 3: "acc0"})
    assert "the forward part of acc0 has a gap: 2 lies outside, before 3" in wrong


def test_a_gap_in_the_backward_part_is_found() -> None:
    nodes = [node(i, color=i) for i in range(3)] + [node(3 + i, backward=True, color=i) for i in range(3)]
    graph = graph_of(nodes, [(5, 4), (4, 3)])
    wrong = check_split(graph, {0: "acc0", 1: "acc1", 2: "acc0", 3: "acc0", 4: "acc1", 5: "acc0"})
    assert wrong == ["the backward part of acc0 has a gap: 4 lies outside, before 3"]


def test_devices_that_wait_for_each_other_are_found() -> None:
    graph = graph_of([node(i) for i in range(4)], [(0, 2), (3, 1)])
    wrong = check_split(graph, {0: "acc0", 1: "acc0", 2: "acc1", 3: "acc1"})
    assert wrong == ["acc0, acc1 wait for each other in a circle"]
