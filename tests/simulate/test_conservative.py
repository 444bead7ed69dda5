"""Conservative backfilling: a reservation for every job, which never moves back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.simulate.replay import Order, replay
from hpcplan.simulate.traces import TraceJob

PROCS = 8

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


def test_a_job_that_easy_lets_overtake_waits_if_it_would_delay_the_second_of_the_queue() -> None:
    jobs = [
        TraceJob(1, 0, 100, 100, 6),
        TraceJob(2, 1, 100, 100, 7),
        TraceJob(3, 2, 100, 100, 8),
        TraceJob(4, 3, 250, 250, 1),
    ]
    assert replay(jobs, PROCS, policy="easy") == [0, 100, 253, 3]
    assert replay(jobs, PROCS, policy="conservative") == [0, 100, 200, 300]


def test_reservations_move_up_in_the_order_of_the_queue_when_a_job_ends_early() -> None:
    jobs = [TraceJob(1, 0, 10, 100, 8), TraceJob(2, 1, 50, 50, 8), TraceJob(3, 2, 5, 5, 8)]
    assert replay(jobs, PROCS, policy="conservative") == [0, 10, 60]


def test_a_job_fills_a_hole_before_a_reservation() -> None:
    jobs = [
        TraceJob(1, 0, 100, 100, 6),
        TraceJob(2, 1, 50, 50, 8),
        TraceJob(3, 2, 98, 98, 2),
        TraceJob(4, 2, 99, 99, 2),
    ]
    assert replay(jobs, PROCS, policy="conservative") == [0, 100, 2, 150]


@pytest.mark.parametrize("pattern", ["basic_*", "bf_*", "cons_bf_*"])
def test_hand_made_schedules_come_out_as_written(shared_data: Path, pattern: str) -> None:
    """Columns: submit, id, estimate, processors, run time; the whole part of the id is when the job ends."""
    paths = sorted((shared_data / "conformance").glob(pattern))
    assert paths
    for path in paths:
        rows = [line.split("#")[0].split() for line in path.read_text().splitlines()]
        jobs = [TraceJob(int(float(row[1])), int(row[0]), int(row[4]), int(row[2]), int(row[3])) for row in rows if row]
        starts = replay(jobs, 100, policy="conservative")
        ends = [start + min(job.run_s, job.limit_s) for job, start in zip(jobs, starts, strict=True)]
        assert ends == [job.id for job in jobs], path.name


@settings(max_examples=200)
@given(jobs=trace_jobs, order=st.sampled_from(["submit", "sjf"]))
def test_processors_are_never_over_allocated_and_nobody_starts_before_submission(
    jobs: list[TraceJob], order: Order
) -> None:
    starts = replay(jobs, PROCS, policy="conservative", order=order)
    for job, start in zip(jobs, starts, strict=True):
        assert start >= job.submit_s
        used = sum(
            other.procs
            for other, begin in zip(jobs, starts, strict=True)
            if begin <= start < begin + min(other.run_s, other.limit_s)
        )
        assert used <= PROCS


@settings(max_examples=200)
@given(jobs=trace_jobs)
def test_a_later_job_never_delays_an_earlier_one_where_limits_are_exact(jobs: list[TraceJob]) -> None:
    """With a reservation for everybody, what is submitted last changes nothing for the others."""
    if not jobs:
        return
    ordered = [job._replace(run_s=job.limit_s) for job in sorted(jobs, key=lambda job: job.submit_s)]
    assert replay(ordered, PROCS, policy="conservative")[:-1] == replay(ordered[:-1], PROCS, policy="conservative")
