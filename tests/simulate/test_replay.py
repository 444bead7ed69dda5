"""Whole traces on equal processors: FCFS and EASY, against recorded schedules and against the engine."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.policies import policy_named
from hpcplan.simulate.replay import Order, TracePolicy, replay
from hpcplan.simulate.traces import TraceJob, read_swf
from tests.simulate.clusters import arrivals

PROCS = 8
POLICIES: list[tuple[str, TracePolicy, Order]] = [
    ("fcfs", "fcfs", "submit"),
    ("easy", "easy", "submit"),
    ("easy-sjf", "easy", "sjf"),
]

trace_jobs = st.lists(
    st.builds(
        TraceJob,
        id=st.integers(1, 999),
        submit_s=st.integers(0, 40),
        run_s=st.integers(1, 30),
        limit_s=st.integers(1, 30),
        procs=st.integers(1, PROCS),
    ),
    max_size=25,
)


def through_the_engine(jobs: list[TraceJob], procs: int, policy: str, order: str) -> dict[int, int | None]:
    """Return the start of each job by its position in the order of submission."""
    source = arrivals(jobs, shortest_first=order == "sjf")
    engine = Engine(Machine.of_processors(procs), policy_named(policy), arrivals=source)
    while (time := engine.next_event_time()) is not None:
        engine.step(time)
    assert not engine.jobs
    return {record.job_id - 1: record.start_time for record in engine.ended}


def by_submission(jobs: list[TraceJob], starts: list[int]) -> dict[int, int]:
    order = sorted(range(len(jobs)), key=lambda index: jobs[index].submit_s)
    return {rank: starts[index] for rank, index in enumerate(order)}


@pytest.mark.parametrize(("name", "policy", "order"), POLICIES)
@pytest.mark.parametrize("trace", ["sdsc-sp2-first5k", "lublin-256", "nasa-ipsc-1993"])
def test_every_start_is_that_of_the_recorded_schedule(
    shared_data: Path, trace: str, name: str, policy: TracePolicy, order: Order
) -> None:
    read = read_swf(shared_data / "swf" / f"{trace}.swf.gz")
    assert read.procs is not None
    with gzip.open(shared_data / "expected_schedules" / f"{trace}.{name}.csv.gz", "rt") as stream:
        expected = [(int(row["job_id"]), int(row["start_s"])) for row in csv.DictReader(stream)]
    starts = replay(read.jobs, read.procs, policy=policy, order=order)
    assert [(job.id, start) for job, start in zip(read.jobs, starts, strict=True)] == expected


@pytest.mark.parametrize(("name", "policy", "order"), POLICIES)
def test_the_engine_gives_the_recorded_schedule_too(
    shared_data: Path, name: str, policy: TracePolicy, order: Order
) -> None:
    read = read_swf(shared_data / "swf" / "sdsc-sp2-first5k.swf.gz")
    assert read.procs is not None
    with gzip.open(shared_data / "expected_schedules" / f"sdsc-sp2-first5k.{name}.csv.gz", "rt") as stream:
        expected = {rank: int(row["start_s"]) for rank, row in enumerate(csv.DictReader(stream))}
    assert through_the_engine(list(read.jobs), read.procs, policy, order) == expected


@pytest.mark.parametrize(
    ("pattern", "policy"),
    [("basic_*", "fcfs"), ("fcfs_*", "fcfs"), ("basic_*", "easy"), ("bf_*", "easy"), ("easy_bf_*", "easy")],
)
def test_hand_made_schedules_come_out_as_written(shared_data: Path, pattern: str, policy: TracePolicy) -> None:
    """Columns: submit, id, estimate, processors, run time; the whole part of the id is when the job ends."""
    paths = sorted((shared_data / "conformance").glob(pattern))
    assert paths
    for path in paths:
        rows = [line.split("#")[0].split() for line in path.read_text().splitlines()]
        rows = [row for row in rows if row]
        jobs = [TraceJob(int(float(row[1])), int(row[0]), int(row[4]), int(row[2]), int(row[3])) for row in rows]
        starts = replay(jobs, 100, policy=policy)
        ends = [start + min(job.run_s, job.limit_s) for job, start in zip(jobs, starts, strict=True)]
        assert ends == [job.id for job in jobs], path.name


def test_fcfs_lets_nobody_overtake_a_job_that_does_not_fit() -> None:
    jobs = [TraceJob(1, 0, 100, 100, 6), TraceJob(2, 1, 50, 50, 8), TraceJob(3, 2, 10, 10, 2)]
    assert replay(jobs, PROCS, policy="fcfs") == [0, 100, 150]


def test_easy_lets_a_job_overtake_that_ends_by_the_shadow_time() -> None:
    jobs = [
        TraceJob(1, 0, 100, 100, 6),
        TraceJob(2, 1, 50, 50, 8),
        TraceJob(3, 2, 98, 98, 2),
        TraceJob(4, 2, 99, 99, 2),
    ]
    assert replay(jobs, PROCS, policy="easy") == [0, 100, 2, 150]


def test_easy_lets_a_long_job_overtake_on_processors_that_the_head_leaves_over() -> None:
    jobs = [
        TraceJob(1, 0, 100, 100, 6),
        TraceJob(2, 1, 50, 50, 7),
        TraceJob(3, 2, 900, 900, 1),
        TraceJob(4, 2, 900, 900, 1),
    ]
    assert replay(jobs, PROCS, policy="easy") == [0, 100, 2, 150]


def test_easy_starts_the_head_early_when_a_job_ends_before_its_limit() -> None:
    jobs = [TraceJob(1, 0, 20, 100, 6), TraceJob(2, 1, 50, 50, 8), TraceJob(3, 2, 98, 98, 2)]
    assert replay(jobs, PROCS, policy="easy") == [0, 100, 2]
    assert replay(jobs[:2], PROCS, policy="easy") == [0, 20]


def test_the_shortest_limit_goes_first_and_takes_over_the_reservation() -> None:
    jobs = [TraceJob(1, 0, 10, 10, 8), TraceJob(2, 1, 50, 50, 8), TraceJob(3, 2, 5, 5, 8)]
    assert replay(jobs, PROCS, policy="easy", order="sjf") == [0, 15, 10]


def test_at_one_instant_ends_come_before_submissions_and_those_in_the_order_of_the_trace() -> None:
    jobs = [TraceJob(1, 0, 10, 10, 8), TraceJob(2, 10, 5, 5, 8), TraceJob(3, 10, 5, 5, 8)]
    assert replay(jobs, PROCS, policy="fcfs") == [0, 10, 15]


def test_a_job_is_killed_at_its_limit() -> None:
    jobs = [TraceJob(1, 0, 100, 30, 8), TraceJob(2, 0, 5, 5, 8)]
    assert replay(jobs, PROCS, policy="fcfs") == [0, 30]


def test_a_job_wider_than_the_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"job 7 .* 9 processors; the machine has 8"):
        replay([TraceJob(7, 0, 1, 1, 9)], PROCS)


@settings(max_examples=300, deadline=None)
@given(jobs=trace_jobs, case=st.sampled_from(POLICIES))
def test_counting_processors_and_choosing_nodes_give_the_same_starts(
    jobs: list[TraceJob], case: tuple[str, TracePolicy, Order]
) -> None:
    _, policy, order = case
    counted = replay(jobs, PROCS, policy=policy, order=order)
    assert by_submission(jobs, counted) == through_the_engine(jobs, PROCS, policy, order)


@settings(max_examples=200, deadline=None)
@given(jobs=trace_jobs, case=st.sampled_from(POLICIES))
def test_processors_are_never_over_allocated_and_nobody_starts_before_submission(
    jobs: list[TraceJob], case: tuple[str, TracePolicy, Order]
) -> None:
    _, policy, order = case
    starts = replay(jobs, PROCS, policy=policy, order=order)
    for job, start in zip(jobs, starts, strict=True):
        assert start >= job.submit_s
        used = sum(
            other.procs
            for other, begin in zip(jobs, starts, strict=True)
            if begin <= start < begin + min(other.run_s, other.limit_s)
        )
        assert used <= PROCS


@settings(max_examples=200, deadline=None)
@given(jobs=trace_jobs)
def test_fcfs_starts_jobs_in_the_order_of_submission(jobs: list[TraceJob]) -> None:
    starts = by_submission(jobs, replay(jobs, PROCS, policy="fcfs"))
    ordered = [starts[rank] for rank in range(len(jobs))]
    assert ordered == sorted(ordered)
