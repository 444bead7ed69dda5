"""Which nodes Slurm gives a job."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hpcplan.simulate.jobs import Request
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape, Sharing
from hpcplan.simulate.placement import Placement, SwitchShape, best_fit, blocks

EIGHT = 0xFF


def machine(*weights: int) -> Machine:
    """Return eight nodes; with weights, as many groups of equal size."""
    parts = weights or (1,)
    size = 8 // len(parts)
    groups = [
        NodeGroupShape(((1 << size) - 1) << (size * position), cpus=4, memory_bytes=1, weight=weight)
        for position, weight in enumerate(parts)
    ]
    return Machine(tuple(f"n{n}" for n in range(1, 9)), tuple(groups), {"batch": PartitionShape("batch", EIGHT)})


def request(nodes: int, most: int | None = None, required: int = 0) -> Request:
    return Request("batch", nodes, most or nodes, 60, EIGHT, required=required)


def test_the_tightest_run_of_consecutive_nodes_is_taken() -> None:
    assert Placement(machine()).choose(request(2), 0b11011111) == 0b11000000
    assert Placement(machine()).choose(request(3), 0b11011111) == 0b00000111


def test_where_no_run_holds_the_job_the_largest_is_filled_first() -> None:
    assert Placement(machine()).choose(request(6), 0b11111011) == 0b11111001


def test_lighter_nodes_are_taken_first_and_heavier_ones_only_where_needed() -> None:
    shared = replace(machine(10, 1), sharing=Sharing())
    assert Placement(shared).choose(request(3), EIGHT) == 0b01110000
    assert Placement(shared).choose(request(6), EIGHT) == 0b11110011


def test_select_linear_takes_the_lighter_lines_of_slurm_conf_while_they_are_enough_and_then_has_no_weights() -> None:
    placement = Placement(machine(10, 1))
    assert placement.choose(request(3), EIGHT) == 0b01110000
    assert placement.choose(request(6), EIGHT) == 0b00111111
    assert placement.plan(request(3), EIGHT) == 0b00000111
    assert Placement(machine(1, 1)).choose(request(3), 0b11111100) == 0b00011100


def test_a_job_goes_under_the_lowest_switch_that_holds_it_and_to_the_tightest_leaf() -> None:
    switches = (SwitchShape("s0", 0b111, 0), SwitchShape("s1", 0b11111000, 0), SwitchShape("top", EIGHT, 1))
    placement = Placement(machine(), switches)
    assert placement.choose(request(2), EIGHT) == 0b011
    assert placement.choose(request(4), EIGHT) == 0b01111000
    assert placement.choose(request(6), EIGHT) == 0b00111111  # of several, the small leaves first


def test_a_job_that_no_switch_holds_gets_nothing() -> None:
    switches = (SwitchShape("s0", 0b1111, 0), SwitchShape("s1", 0b11110000, 0))
    assert Placement(machine(), switches).choose(request(5), EIGHT) == 0


def test_required_nodes_are_in_the_allocation() -> None:
    chosen = Placement(machine()).choose(request(3, required=0b10000000), EIGHT)
    assert chosen.bit_count() == 3
    assert chosen & 0b10000000


@given(st.integers(0, 2**40))
def test_blocks_are_consecutive_and_make_up_the_mask(mask: int) -> None:
    found = blocks(mask)
    assert sum(found) == mask
    for block in found:
        lifted = block >> ((block & -block).bit_length() - 1)
        assert lifted & (lifted + 1) == 0


@given(st.integers(0, 255), st.integers(1, 8), st.integers(0, 3))
def test_the_allocation_is_of_free_nodes_and_of_the_size_asked_for(mask: int, least: int, more: int) -> None:
    chosen = Placement(machine()).choose(request(least, least + more), mask)
    if mask.bit_count() < least:
        assert chosen == 0
    else:
        assert chosen & ~mask == 0
        assert chosen.bit_count() == min(mask.bit_count(), least + more)


@given(st.lists(st.integers(1, 255), max_size=4), st.integers(1, 8))
def test_the_best_fit_takes_no_more_than_wanted(sets: list[int], wanted: int) -> None:
    taken: list[int] = []  # made disjoint
    for one in sets:
        taken.append(one & ~sum(taken))
    assert best_fit(taken, wanted).bit_count() == min(wanted, sum(one.bit_count() for one in taken))
