"""Forecasts and their back-tests, on queues made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcplan.errors import InputError
from hpcplan.schedule.forecast.answer import answer, from_history_alone
from hpcplan.schedule.forecast.arrivals import Arrivals
from hpcplan.schedule.forecast.backtest import backtest, moments
from hpcplan.schedule.forecast.day_weights import check
from hpcplan.schedule.forecast.demand import demand_reasons, predict_demand
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot, read_snapshot, write_snapshot
from hpcplan.schedule.forecast.traces import past_of_trace, pool_of_trace, snapshot_of_trace
from hpcplan.schedule.forecast.wait import Forecaster
from hpcplan.schedule.forecast.whatif import parse_change, what_if
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.traces import Trace, TraceJob


def busy_trace(count: int = 400, procs: int = 16) -> Trace:
    """Users who each use a share of their limits of their own, on a machine that is short of processors."""
    random = np.random.default_rng(5)
    jobs, time = [], 0
    for number in range(count):
        user = int(random.integers(4))
        time += int(random.exponential(900))
        limit = int(random.choice([1800, 3600, 14400]))
        run = max(1, int(limit * (0.1, 0.35, 0.6, 1.0)[user] * random.uniform(0.9, 1.0)))
        jobs.append(TraceJob(number + 1, time, run, limit, int(random.choice([1, 2, 4, 8])), user=f"u{user}"))
    return Trace(tuple(jobs), procs, 0)


TRACE = busy_trace()
JOBS = past_of_trace(TRACE)
EMPTY = pool_of_trace(TRACE)


def test_a_moment_shows_what_was_known_and_nothing_else() -> None:
    for moment in moments(JOBS, EMPTY, lambda number: number % 40 == 7):
        now = moment.snapshot.now_s
        assert moment.target.start_s is None
        assert all(job.end_s is None and job.submit_s <= now for job in moment.snapshot.jobs)
        assert all(job.start_s is None or job.start_s < now for job in moment.snapshot.jobs)
        assert sum(job.width for job in moment.snapshot.running) <= 16


def test_forecasts_beat_limits_and_their_intervals_hold_as_often_as_they_say() -> None:
    found, _ = backtest(JOBS, EMPTY, lambda number: number % 2 == 0, samples=40)
    later = found[len(found) // 4 :]
    waited = [one for one in later if one.wait_s > 0]
    assert len(waited) > 40
    errors = [abs(one.quantiles_s[0.5] - one.wait_s) for one in later]
    held = [one.quantiles_s[0.05] <= one.wait_s <= one.quantiles_s[0.95] for one in waited]
    assert np.mean(errors) < 0.5 * np.mean([one.wait_s for one in later])
    assert 0.8 <= np.mean(held) <= 0.99


def test_the_same_seed_gives_the_same_forecast() -> None:
    snapshot = snapshot_of_trace(TRACE, JOBS[200].submit_s)
    target = QueueJob(label="x", width=8, limit_s=3600, submit_s=snapshot.now_s)
    first, second = (
        Forecaster(snapshot.history, seed=3).forecast(snapshot, [target], samples=50)[0].waits_s for _ in range(2)
    )
    assert (first == second).all()


def test_wider_jobs_wait_longer_and_a_free_machine_starts_them_at_once() -> None:
    snapshot = snapshot_of_trace(TRACE, JOBS[200].submit_s)
    sizes = [QueueJob(label=f"x{width}", width=width, limit_s=3600, submit_s=snapshot.now_s) for width in (1, 4, 16)]
    waits = [size.quantiles_s[0.5] for size in answer(snapshot, sizes, samples=60, backtests=0).sizes]
    assert waits[0] <= waits[1] < waits[2]
    free = snapshot.model_copy(update={"jobs": ()})
    assert all(size.forecast.waits_s.max() == 0 for size in answer(free, sizes, samples=60).sizes)


def test_an_answer_says_what_it_rests_on() -> None:
    snapshot = snapshot_of_trace(TRACE, JOBS[300].submit_s)
    target = QueueJob(label="x", width=16, limit_s=3600, submit_s=snapshot.now_s)
    assert answer(snapshot, [target], samples=40, backtests=60).backtests >= 20
    alone = snapshot.model_copy(update={"history": ()})
    assert any("no history" in note for note in answer(alone, [target], samples=40).notes)


def test_a_history_alone_gives_the_waits_of_ordinary_moments() -> None:
    snapshot = QueueSnapshot(now_s=JOBS[-1].submit_s, procs=16, history=tuple(JOBS))
    sizes = [QueueJob(label=f"x{width}", width=width, limit_s=3600, submit_s=0) for width in (1, 16)]
    narrow, wide = from_history_alone(snapshot, sizes, samples=60)
    assert narrow.waits_s.mean() < wide.waits_s.mean()


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    snapshot = snapshot_of_trace(TRACE, JOBS[200].submit_s)
    write_snapshot(tmp_path / "q.json", snapshot)
    assert read_snapshot(tmp_path / "q.json") == snapshot


def test_a_snapshot_that_contradicts_itself_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text('{"queue_snapshot": 1, "now_s": 5, "procs": 4,\n "jobs": [{"label": "a", "width": 9,\n'
                    '  "limit_s": 5, "submit_s": 1}]}')  # fmt: skip
    with pytest.raises(InputError, match=r"q\.json:2: jobs\[0\]\.width: 9 is more than the pool's 4"):
        read_snapshot(path)


def waiting(width: int, limit_s: int, user: str, label: str) -> QueueJob:
    return QueueJob(label=label, width=width, limit_s=limit_s, submit_s=990, user=user)


def cluster(*jobs: QueueJob, history: tuple[QueueJob, ...] = ()) -> QueueSnapshot:
    group = NodeGroupShape(mask=0b1111, cpus=8, memory_bytes=2**30)
    parts = {"a": PartitionShape("a", 0b0011, default=True), "b": PartitionShape("b", 0b1100)}
    machine = Machine(("n0", "n1", "n2", "n3"), (group,), parts)
    return QueueSnapshot(now_s=1000, machine=machine.as_dict(), jobs=jobs, history=history)


def test_more_nodes_and_merged_partitions_save_waits_fewer_nodes_cost() -> None:
    jobs = (
        QueueJob(label="r", width=2, limit_s=7200, submit_s=0, start_s=900, partition="a", nodes="n[0-1]"),
        waiting(2, 3600, "u", "w1"),
        waiting(2, 3600, "u", "w2"),
    )
    merged, more, fewer = what_if(
        cluster(*jobs), [parse_change("merge=a+b"), parse_change("nodes=+2"), parse_change("nodes=-1")], samples=20
    )
    assert np.median(merged.saved_hours) > 0
    assert np.median(more.saved_hours) > 0
    assert fewer.jobs == 0
    assert fewer.stopped >= 2, "with one node left, jobs of two never start"


def test_merged_partitions_have_one_queue_and_the_wider_limits() -> None:
    """Eight jobs of an hour on two nodes, which come free in an hour, and two idle ones beside: known by hand."""
    now_s = 1000
    running = [
        QueueJob(label=f"r{node}", width=1, limit_s=3600, submit_s=0, start_s=now_s, partition="a", nodes=f"n{node}")
        for node in (0, 1)
    ]
    others = [
        QueueJob(label=f"w{number}", width=1, limit_s=3600, submit_s=990, partition=part)
        for number, part in enumerate("aaaaaaab")
    ]
    past = tuple(
        QueueJob(label=f"h{number}", width=1, limit_s=3600, submit_s=-(10**6), start_s=-(10**6), end_s=3600 - 10**6)
        for number in range(40)
    )
    snapshot = cluster(*running, *others, history=past).model_copy(update={"policy": "easy"})
    saved = what_if(snapshot, [parse_change("merge=a+b"), parse_change("merge=b+a")], samples=20, ahead_s=1)
    for one in saved:
        # alone: two at 1, 2 and 3 h, the last at 4 h, that of b at once; together: b's nodes now, then all four
        assert (one.jobs, one.stopped) == (8, 0)
        assert np.median(one.base_hours) == pytest.approx(16, rel=0.1)
        assert np.median(one.saved_hours / one.base_hours) == pytest.approx((16 - 8) / 16, abs=0.02)


def test_right_sized_limits_let_jobs_into_holes() -> None:
    past = tuple(
        QueueJob(label=f"h{i}", width=1, limit_s=36000, submit_s=0, start_s=0, end_s=600, user="u") for i in range(30)
    )
    jobs = (
        QueueJob(label="r", width=1, limit_s=7200, submit_s=0, start_s=900, user="v"),
        QueueJob(label="big", width=2, limit_s=3600, submit_s=980, user="v"),
        waiting(1, 36000, "u", "w"),
    )
    snapshot = QueueSnapshot(now_s=1000, procs=2, jobs=jobs, history=past)
    saved = what_if(snapshot, [parse_change("limits")], samples=40, ahead_s=1)[0]
    assert np.quantile(saved.saved_hours, 0.9) > 0
    assert saved.cut_share <= 0.1


@pytest.mark.parametrize("text", ["node=+1", "nodes=8", "merge=a", "policy=best", "limits=1", "nodes=+0"])
def test_what_is_no_change_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--what-if"):
        parse_change(text)


def test_the_weighting_is_used_that_foretold_the_days_before() -> None:
    week = np.array([10.0, 10, 10, 10, 10, 1, 1])
    seasonal, drifting = np.tile(week, 8), np.linspace(1.0, 60.0, 56)
    assert check(seasonal[::-1], 1_700_438_400, dated=True).method == "days like it"
    assert check(drifting[::-1], 1_700_438_400, dated=True).method == "newest days"
    short = check(seasonal[:20], 1_700_438_400, dated=True)
    assert (short.method, short.days) == ("days like it", 13)
    assert short.reason is not None


def test_demand_is_told_by_partition_with_an_interval_that_holds_days_to_come() -> None:
    random = np.random.default_rng(2)
    jobs = [
        QueueJob(label=f"{part}{day}-{n}", width=2, limit_s=3600, submit_s=day * 86400 + n * 3600, start_s=day * 86400,
                 end_s=day * 86400 + int(random.uniform(600, 3600)), partition=part)
        for part, many in (("small", 2), ("large", 12))
        for day in range(60)
        for n in range(many)
    ]  # fmt: skip
    held = 0
    for day in range(40, 60):
        known = [job for job in jobs if job.submit_s < day * 86400]
        large, small = predict_demand(Arrivals(sorted(known, key=lambda job: job.submit_s)), day * 86400, 1)
        assert (large.partition, small.partition) == ("large", "small")
        told = large.days[0]
        assert told.p10 is not None
        assert told.p90 is not None
        assert 0 < told.p10 < told.expected < told.p90
        assert told.expected == pytest.approx(12 * 2 * 2100 / 3600, rel=0.2)
        came = [job for job in jobs if job.partition == "large" and job.submit_s // 86400 == day]
        held += told.p10 <= sum(2 * ((job.end_s or 0) - (job.start_s or 0)) for job in came) / 3600 <= told.p90
    assert 13 <= held <= 20


def test_what_is_not_forecast_of_the_demand_is_said_with_the_reason() -> None:
    nobody = Arrivals([])
    assert demand_reasons(nobody, ()) == ["nobody else submits: nothing is known of past submissions"]

    def spread(count: int, gap_s: int) -> Arrivals:
        times = [number * gap_s for number in range(count)]
        return Arrivals(
            [QueueJob(label=f"{t}", width=1, limit_s=3600, submit_s=t, start_s=t, end_s=t + 60) for t in times]
        )

    few = spread(20, 600)
    assert "two whole days" in demand_reasons(few, predict_demand(few, 20 * 600, 1))[0]
    some = spread(200, 6000)
    assert "21 are needed" in demand_reasons(some, predict_demand(some, 200 * 6000, 1))[0]
