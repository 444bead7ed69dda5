"""Sharing work over unequal nodes: the textbook case, and the optimum against every other way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InfeasibleError, InputError
from hpcplan.partition.allocate import POLICIES, Pool, compare_policies, share_work
from hpcplan.partition.pools_file import read_pools

GB = 1e9
TEXTBOOK = [Pool("n1", 8, 16 * GB, priority=3), Pool("n2", 8, 16 * GB, priority=2), Pool("n3", 4, 8 * GB, priority=1)]


def test_the_textbook_case() -> None:
    found = {shares.policy: shares for shares in compare_policies(TEXTBOOK, 1000, 100 * GB)}
    assert {policy: shares.makespan_h for policy, shares in found.items()} == pytest.approx(
        {"equal": 1000 / 3 / 4, "priority": 500 / 8, "proportional": 50.0, "optimal": 50.0}
    )
    assert {policy: shares.rounds for policy, shares in found.items()} == {
        "equal": 5, "priority": 4, "proportional": 3, "optimal": 3,
    }  # fmt: skip
    assert found["optimal"].work_h == pytest.approx((400, 400, 200))
    assert found["optimal"].data_bytes == pytest.approx((40 * GB, 40 * GB, 20 * GB))


def test_memory_that_is_short_moves_work_away_from_it() -> None:
    pools = [Pool("a", 8, 10 * GB), Pool("b", 8, 40 * GB)]
    shares = share_work(pools, 160, 100 * GB, max_rounds=2)
    assert shares.work_h == pytest.approx((32, 128))
    assert shares.rounds == 2
    assert shares.makespan_h == pytest.approx(16)


def test_a_node_that_reads_slowly_is_given_less() -> None:
    pools = [Pool("near", 10, GB), Pool("far", 10, GB, read_bytes_per_h=10 * GB)]
    shares = share_work(pools, 100, 100 * GB)  # everything: 10 h near, 10 h of work and 10 h of reading far
    assert shares.work_h == pytest.approx((200 / 3, 100 / 3))
    assert shares.finish_h == pytest.approx((20 / 3, 20 / 3))


POOLS = st.lists(
    st.builds(Pool, st.just("n"), st.floats(0.1, 1e4), st.floats(1e6, 1e12), st.floats(0.1, 10), st.floats(1e6, 1e15)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(POOLS, st.floats(1, 1e6), st.floats(0, 1e15))
def test_no_policy_ends_before_the_optimum_and_all_give_away_everything(pools, work_h, data) -> None:
    found = compare_policies(pools, work_h, data)
    assert [shares.policy for shares in found] == list(POLICIES)
    best = found[-1].makespan_h
    # Without limits the optimum is known: all end together, at the harmonic sum of their times.
    everything = [work_h / pool.cores + data / pool.read_bytes_per_h for pool in pools]
    assert best == pytest.approx(1 / sum(1 / hours for hours in everything), rel=1e-5)
    for shares in found:
        assert sum(shares.work_h) == pytest.approx(work_h, rel=1e-6)
        assert sum(shares.data_bytes) == pytest.approx(data, rel=1e-6)
        assert best <= shares.makespan_h * (1 + 1e-5)


def test_too_few_rounds_are_infeasible_and_say_how_many_it_takes() -> None:
    with pytest.raises(InfeasibleError, match="memory binds") as refused:
        share_work(TEXTBOOK, 1000, 100 * GB, max_rounds=2)
    assert refused.value.hint == "at least 3 rounds are needed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1, 1), "pools: at least one"),
        ((TEXTBOOK, -1, 1), "work_h: must be zero or more"),
        ((TEXTBOOK, 1, float("nan")), "data_bytes: must be zero or more"),
        ((TEXTBOOK, 1, 1, "fair"), "policy: 'fair' is unknown"),
        (([Pool("a", 0, 1)], 1, 1), r"pools\.a\.cores: must be more than zero"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        share_work(*arguments)


def test_the_file_of_the_how_to_is_the_textbook_case() -> None:
    case = read_pools(Path(__file__).resolve().parents[2] / "docs" / "howto" / "three-nodes.yaml")
    assert [entry.pool() for entry in case.pools] == [
        Pool(f"node{i}", pool.cores, pool.memory_bytes, pool.priority) for i, pool in enumerate(TEXTBOOK, start=1)
    ]
    assert (case.work_s, case.data_bytes) == (1000 * 3600, 100 * GB)


def test_a_file_with_two_pools_of_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text("work: 1 h\npools:\n  - {name: a, cores: 1, memory: 1 GB}\n  - {name: a, cores: 1, memory: 1 GB}\n")
    with pytest.raises(InputError, match="2 pools are called 'a'"):
        read_pools(path)
