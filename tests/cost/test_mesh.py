"""Rings over links that no switch joins: a hybrid cube mesh of eight, and small cases that one can draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.collectives import all_reduce, group
from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import Machine, machine_of
from hpcplan.cost.mesh import ring_shares, rings
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology

CONSTANTS = constants_for(accelerator="", framework="", precision="", site="").coefficients
DGX_1V = load_site("dgx-1v").site
MESH = DGX_1V.node_groups["v100"].intra_node.mesh  # type: ignore[union-attr]


def v100() -> Machine:
    return machine_of(DGX_1V, build_topology(DGX_1V), "v100", "fp16")


@pytest.mark.parametrize(("ranks", "expected"), [(2, 1), (3, 2), (4, 4), (5, 2), (6, 2), (7, 4), (8, 6)])
def test_a_hybrid_cube_mesh_holds_as_many_rings_as_nccl_finds(ranks: int, expected: int) -> None:
    """25 GB/s each: nccl-tests measure 23, 45, 85, 37, 46, 87 and 135 GB/s with 2 to 8 V100 of a DGX-1."""
    assert rings(MESH, range(ranks)) == pytest.approx(expected)


def test_all_to_all_links_hold_a_ring_for_every_link() -> None:
    four = [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    assert rings(four, range(4)) == pytest.approx(3)
    assert rings(four, [0, 3]) == 1


def test_a_chain_of_links_holds_no_ring_and_goes_over_the_host() -> None:
    chain = ((0, 1, 0), (1, 0, 1), (0, 1, 0))
    assert rings(chain, range(3)) == 0
    assert ring_shares(chain, 0.1)[-1] == 0.1


def test_two_that_share_one_link_of_six_get_a_sixth() -> None:
    machine, size = v100(), np.array([2, 4, 8])
    time = all_reduce(group(machine, CONSTANTS, size, np.ones_like(size)), 1e9)
    rate = 2 * (size - 1) / size * 1e9 / time
    assert rate[2] / rate[0] == pytest.approx(6, rel=0.02)
    assert rate[1] / rate[0] == pytest.approx(4, rel=0.02)


def test_nodes_with_a_switch_give_every_group_all_links() -> None:
    switched = dataclasses.replace(v100(), ring_shares=np.ones(1))
    assert np.all(switched.ring_share(np.arange(1, 17)) == 1)
    both = Machine.stack([v100(), switched])
    assert both.ring_share(np.array([2, 2])) == pytest.approx([1 / 6, 1])


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 6), st.data())
def test_more_links_never_hold_fewer_rings_and_no_rank_uses_more_than_it_has(count: int, data: st.DataObject) -> None:
    mesh = [[0] * count for _ in range(count)]
    for a in range(count):
        for b in range(a):
            mesh[a][b] = mesh[b][a] = data.draw(st.integers(0, 2))
    before = rings(mesh, range(count))
    assert before <= min(sum(row) for row in mesh) + 1e-9
    mesh[0][1] = mesh[1][0] = mesh[0][1] + 1
    assert rings(mesh, range(count)) >= before - 1e-9
