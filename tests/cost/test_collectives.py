"""Communication: what a ring over the topology costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.cost import collectives
from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import Machine, make_machine
from hpcplan.site.catalogue import accelerators
from hpcplan.site.topology import Tier

CONSTANTS = constants_for(accelerator="", framework="", precision="", site="").coefficients


def machine(node_bytes_per_s: float = 200e9, far: float = 50e9) -> Machine:
    tiers = (Tier("leaf", 4, node_bytes_per_s, 4e-6), Tier("spine", 64, far, 6e-6))
    return make_machine(
        accelerators()["A100-SXM4-80GB"],
        "bf16",
        gpus_per_node=8,
        link_bytes_per_s=300e9,
        link_latency_s=2e-6,
        tiers=tiers,
    )


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values)


def test_a_group_of_one_says_nothing_to_nobody() -> None:
    one = collectives.group(machine(), CONSTANTS, ints(1), ints(1))
    assert collectives.all_reduce(one, floats(1e9))[0] == 0
    assert collectives.all_to_all(one, floats(1e9))[0] == 0


def test_a_large_ring_inside_a_node_moves_twice_the_data_at_the_link_rate() -> None:
    eight = collectives.group(machine(), CONSTANTS, ints(8), ints(1))
    expected = 2 * 7 / 8 * 16e9 / (300e9 * CONSTANTS.link_efficiency)
    assert collectives.all_reduce(eight, floats(16e9))[0] == pytest.approx(expected, rel=0.01)


def test_a_tree_between_two_nodes_sends_each_message_once_where_rings_send_it_nearly_twice() -> None:
    """NCCL's double binary tree: of two nodes each sends a half up and one down; inner ones send twice that."""
    slow = machine(node_bytes_per_s=100e9)
    two, four = (collectives.group(slow, CONSTANTS, ints(size), ints(1)) for size in (16, 32))
    rate = 100e9 * CONSTANTS.network_efficiency
    assert collectives.all_reduce(two, floats(64e9))[0] == pytest.approx(64e9 / rate, rel=0.01)
    assert collectives.all_reduce(four, floats(64e9))[0] == pytest.approx(2 * 31 / 32 * 64e9 / rate, rel=0.01)
    gathered = collectives.all_gather(two, floats(64e9))[0]
    assert gathered == pytest.approx(15 / 16 * 64e9 / rate, rel=0.01), "a gather has no tree"


def test_groups_that_share_a_nodes_interfaces_share_their_bandwidth() -> None:
    whole = collectives.group(machine(), CONSTANTS, ints(32), ints(1))  # one group of eight a node
    eighth = collectives.group(machine(), CONSTANTS, ints(4), ints(8))  # eight groups of one a node
    rate = 200e9 * CONSTANTS.network_efficiency
    assert whole.bus_bytes_per_s[0] == pytest.approx(rate)
    assert eighth.bus_bytes_per_s[0] == pytest.approx(rate / 8)


def test_a_ring_over_neighbours_crosses_an_uplink_once_and_an_all_to_all_from_every_node_below_it() -> None:
    """Four nodes share the up-link of a leaf, which carries as much as one of them sends."""
    near, far = (collectives.group(machine(), CONSTANTS, ints(size), ints(1)) for size in (32, 64))
    assert near.bus_bytes_per_s[0] == pytest.approx(far.bus_bytes_per_s[0])
    near, far = (collectives.group(machine(), CONSTANTS, ints(size), ints(1), all_at_once=True) for size in (32, 64))
    assert near.outside_bytes_per_s[0] == pytest.approx(4 * far.outside_bytes_per_s[0])


def test_rings_side_by_side_share_the_uplink_that_all_of_them_cross() -> None:
    """Members one, two and four nodes apart: the rings of so many nodes go over each up-link at once."""
    stride = ints(8, 16, 32)
    over = collectives.group(machine(), CONSTANTS, ints(8, 8, 8), stride)
    rate = CONSTANTS.network_efficiency / 8
    assert over.bus_bytes_per_s == pytest.approx([200e9 * rate, 100e9 * rate, 50e9 * rate])


def test_stages_share_an_uplink_with_those_that_send_over_it_alone() -> None:
    """Below each up-link are four nodes; where a stage has one or two of them, the last stage alone sends upwards."""
    stages, span = ints(8, 16, 32), ints(64, 64, 64)
    seconds = collectives.point_to_point(machine(), CONSTANTS, floats(1e9, 1e9, 1e9), span, stages)
    rate = CONSTANTS.network_efficiency / 8
    assert seconds == pytest.approx([1e9 / (200e9 * rate), 1e9 / (100e9 * rate), 1e9 / (50e9 * rate)], rel=1e-3)
    near = collectives.point_to_point(machine(), CONSTANTS, floats(1e9), ints(32), ints(8))
    assert near[0] == pytest.approx(seconds[0], rel=1e-3)


@given(st.integers(1, 6), st.integers(0, 3), st.floats(1e3, 1e10), st.floats(1.01, 10))
def test_more_bandwidth_is_never_slower(log_size: int, log_stride: int, message: float, factor: float) -> None:
    size, stride = ints(2**log_size), ints(2**log_stride)
    times = []
    for scale in (1.0, factor):
        m = machine(200e9 * scale, 50e9 * scale)
        over = collectives.group(m, CONSTANTS, size, stride)
        times.append(
            [
                collectives.all_reduce(over, floats(message))[0],
                collectives.all_to_all(over, floats(message))[0],
                collectives.point_to_point(m, CONSTANTS, floats(message), size * stride, stride)[0],
            ]
        )
    assert all(fast <= slow * (1 + 1e-12) for slow, fast in zip(*times, strict=True))


@given(st.integers(1, 6), st.floats(1e3, 1e10))
def test_an_all_reduce_takes_longer_for_more_data(log_size: int, message: float) -> None:
    over = collectives.group(machine(), CONSTANTS, ints(2**log_size), ints(1))
    small, large = (
        collectives.all_reduce(over, floats(message))[0],
        collectives.all_reduce(over, floats(2 * message))[0],
    )
    assert 0 < small < large


def test_owners_that_send_in_turn_take_longer_the_more_they_are() -> None:
    """The volume is that of gathering at once; what is added grows with the ranks times the domains they pass."""
    size = ints(8, 64, 512)
    over = collectives.group(machine(), CONSTANTS, size, np.ones_like(size))
    once, in_turn = collectives.all_gather(over, 14e9), collectives.broadcasts(over, 14e9)
    assert in_turn[0] == pytest.approx(once[0], rel=0.2)
    more = in_turn - once
    assert more[2] > 8 * more[1] > 8 * more[0]
    alone = collectives.group(machine(), CONSTANTS, ints(1), ints(1))
    assert collectives.broadcasts(alone, 14e9)[0] == 0
