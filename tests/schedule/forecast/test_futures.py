"""The future of a pool and of a cluster, with run times that are known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.schedule.forecast.cluster import ClusterFuture
from hpcplan.schedule.forecast.pool import PoolFuture
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot, Reservation
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape

NOW = 1_000_000


def machine(nodes: int = 4, **limits: int) -> dict[str, object]:
    mask = (1 << nodes) - 1
    group = NodeGroupShape(mask=mask, cpus=8, memory_bytes=2**30)
    part = PartitionShape("batch", mask, default=True, **limits)
    return Machine(tuple(f"n{number}" for number in range(nodes)), (group,), {"batch": part}).as_dict()


def job(label: str, width: int, limit_s: int, start_s: int | None = None, **more: object) -> QueueJob:
    return QueueJob(label=label, width=width, limit_s=limit_s, submit_s=NOW - 100, start_s=start_s, **more)


def both(*jobs: QueueJob, **more: object) -> list[QueueSnapshot]:
    """The same queue on four processors and on four nodes."""
    return [
        QueueSnapshot(now_s=NOW, procs=4, jobs=jobs, **more),
        QueueSnapshot(now_s=NOW, machine=machine(), jobs=jobs, **more),
    ]


def start(snapshot: QueueSnapshot, target: QueueJob, runs: list[int], arrivals: tuple[object, ...] = ()) -> int:
    future = PoolFuture(snapshot) if snapshot.procs else ClusterFuture(snapshot)
    return future.start_of(target, runs, arrivals) - NOW  # type: ignore[arg-type]


def test_a_job_starts_when_enough_of_what_runs_has_ended() -> None:
    running = [job("a", 2, 1000, NOW - 50), job("b", 2, 1000, NOW - 10)]
    for snapshot in both(*running):
        assert start(snapshot, job("x", 2, 500), [150, 800]) == 100
        assert start(snapshot, job("x", 4, 500), [150, 800]) == 790


def test_those_in_front_go_first_and_holes_are_backfilled() -> None:
    jobs = [job("a", 3, 1000, NOW), job("big", 4, 500)]
    for snapshot in both(*jobs):
        assert start(snapshot, job("short", 1, 900), [1000, 500]) == 0
        assert start(snapshot, job("long", 1, 2000), [1000, 500]) == 1500


def test_a_job_of_higher_priority_goes_ahead_of_those_of_lower() -> None:
    jobs = [job("a", 4, 1000, NOW), job("big", 4, 500, priority=10)]
    for snapshot in both(*jobs):
        assert start(snapshot, job("x", 4, 300), [1000, 500]) == 1500
        assert start(snapshot, job("x", 4, 300, priority=11), [1000, 500]) == 1000


def test_arrivals_take_what_is_free_before_a_job_that_needs_more() -> None:
    for snapshot in both(job("a", 2, 1000, NOW)):
        alone = start(snapshot, job("x", 4, 100), [400])
        beside = start(snapshot, job("x", 4, 100), [400], ((NOW + 10, job("late", 2, 900), 900),))
        assert alone == 400
        assert beside == 910


def test_slurms_own_scheduling_is_a_few_seconds_behind() -> None:
    snapshot = QueueSnapshot(now_s=NOW, machine=machine(), policy="slurm", jobs=(job("a", 4, 1000, NOW),))
    assert 400 <= start(snapshot, job("x", 4, 100), [400]) <= 460


def test_a_reservation_keeps_nodes_until_it_ends() -> None:
    pool = QueueSnapshot(now_s=NOW, procs=4, reservations=(Reservation(start_s=NOW - 10, end_s=NOW + 600, width=3),))
    nodes = QueueSnapshot(
        now_s=NOW, machine=machine(), reservations=(Reservation(start_s=NOW - 10, end_s=NOW + 600, nodes="n[0-2]"),)
    )
    for snapshot in (pool, nodes):
        assert start(snapshot, job("x", 1, 100), []) == 0
        assert start(snapshot, job("x", 2, 100), []) == 600


def test_jobs_keep_off_nodes_that_a_coming_reservation_will_take_before_they_end() -> None:
    coming = Reservation(start_s=NOW + 500, end_s=NOW + 900, nodes="n[0-2]")
    snapshot = QueueSnapshot(
        now_s=NOW, machine=machine(), reservations=(coming,), jobs=(job("a", 1, 1000, NOW, nodes="n3"),)
    )
    assert start(snapshot, job("x", 1, 400), [300]) == 0
    assert start(snapshot, job("x", 1, 600), [300]) == 300


def test_a_job_that_needs_the_nodes_of_a_coming_reservation_waits_for_its_end() -> None:
    coming = Reservation(start_s=NOW + 500, end_s=NOW + 900, nodes="n[0-3]")
    waiting = job("w", 4, 700)
    snapshot = QueueSnapshot(now_s=NOW, machine=machine(), reservations=(coming,), jobs=(waiting,))
    assert start(snapshot, job("x", 2, 600), [100]) == 1000
    assert start(snapshot, job("x", 2, 400), [100]) == 0


def test_nodes_that_are_down_are_not_counted_on() -> None:
    snapshot = QueueSnapshot(now_s=NOW, machine=machine(), unusable="n3")
    with pytest.raises(InputError, match="fewer of 'batch' can be used"):
        ClusterFuture(snapshot).check(job("x", 4, 100))


@pytest.mark.parametrize(
    ("target", "words"), [(job("x", 5, 100), "PartitionNodeLimit"), (job("x", 1, 9000), "PartitionTimeLimit")]
)
def test_what_can_never_start_is_refused_in_words(target: QueueJob, words: str) -> None:
    snapshot = QueueSnapshot(now_s=NOW, machine=machine(max_time_s=3600))
    with pytest.raises(InputError, match=words):
        ClusterFuture(snapshot).check(target)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=8))
def test_a_pool_and_a_cluster_of_like_nodes_agree_under_fcfs(rows: list[tuple[int, int, int]]) -> None:
    jobs = [job(f"w{index}", width, limit) for index, (width, limit, _) in enumerate(rows)]
    runs = [min(run, limit) for _, limit, run in rows]
    pool, nodes = both(*jobs, policy="fcfs")
    target = job("x", 3, 100)
    assert start(pool, target, runs) == start(nodes, target, runs)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 900), st.integers(1, 5), st.integers(1, 300)), max_size=6),
)
def test_everybody_who_fits_starts_and_nobody_before_they_come(
    rows: list[tuple[int, int, int]], later: list[tuple[int, int, int]]
) -> None:
    jobs = [job(f"w{index}", width, limit) for index, (width, limit, _) in enumerate(rows)]
    runs = [min(run, limit) for _, limit, run in rows]
    coming = [(NOW + time, job("c", width, run), run) for time, width, run in sorted(later)]
    for snapshot in both(*jobs):
        future = PoolFuture(snapshot) if snapshot.procs else ClusterFuture(snapshot)
        found = future.starts(runs, coming)
        assert len(found) == len(rows) + len(coming)
        assert all(one is not None and one >= NOW for one in found[: len(rows)])
        for one, (time, asked, _) in zip(found[len(rows) :], coming, strict=True):
            assert (one is None) if asked.width > 4 else (one is not None and one >= time)
