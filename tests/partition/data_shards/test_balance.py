"""Dividing pieces over lanes: every piece once, near the bound, exact where few."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.partition.data_shards.balance import divide, least_longest


def longest(sizes: list[int], lanes: int, lane: tuple[int, ...]) -> int:
    return max(sum(s for s, at in zip(sizes, lane, strict=True) if at == number) for number in range(lanes))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 4))
def test_few_pieces_are_divided_as_well_as_can_be(sizes: list[int], lanes: int) -> None:
    division = divide(sizes, lanes)
    best = min(longest(sizes, lanes, lane) for lane in product(range(lanes), repeat=len(sizes)))
    assert division.method == "exact"
    assert max(division.load) == best == longest(sizes, lanes, division.lane)
    assert division.gap == 0


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300), st.integers(1, 40))
def test_many_pieces_stay_within_grahams_bound(sizes: list[int], lanes: int) -> None:
    division = divide(sizes, lanes)
    assert sum(division.load) == sum(sizes)
    assert max(division.load) == longest(sizes, lanes, division.lane)
    assert division.bound <= max(division.load)
    assert least_longest(sizes, lanes) <= max(division.load)
    assert max(division.load) <= (4 / 3 - 1 / (3 * lanes)) * division.bound * (1 + 1e-9) or len(sizes) <= 2 * lanes


def test_longest_first_is_at_its_worst_where_graham_says() -> None:
    """Two each of 2m-1 ... m+1 and three of m: longest first needs 4m-1, the optimum is 3m (Graham 1969)."""
    lanes = 7
    sizes = sorted([*range(lanes + 1, 2 * lanes)] * 2 + [lanes] * 3, reverse=True)
    division = divide(sizes, lanes)
    assert (max(division.load), division.bound) == (4 * lanes - 1, 3 * lanes)
    assert division.gap == pytest.approx(1 / 3 - 1 / (3 * lanes))


def test_a_real_size_is_even_to_a_hundredth_of_a_percent() -> None:
    sizes = [1_000_000 + (i * 7919) % 30_000_000 for i in range(100_000)]
    division = divide(sizes, 1024)
    assert division.imbalance < 1e-3
    assert division.gap < 1e-3


def test_equal_pieces_of_which_there_are_too_few_share_the_longest_lane() -> None:
    assert least_longest([5, 5, 5], 2) == 10
    assert least_longest([9, 1, 1], 3) == 9
    assert least_longest([], 3) == 0
