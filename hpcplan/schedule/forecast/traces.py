"""A trace as a site's past: scheduled by the engine, so that every job has a start and an end."""

from __future__ import annotations

from hpcplan.errors import InputError
from hpcplan.schedule.forecast.backtest import moments
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.simulate.replay import replay
from hpcplan.simulate.traces import Trace, TraceJob

__all__ = ["past_of_trace", "pool_of_trace", "snapshot_of_trace"]


def pool_of_trace(trace: Trace, procs: int | None = None) -> QueueSnapshot:
    """Return the empty pool that a trace ran on.

    Raises:
        InputError: its size is not known.
    """
    size = procs or trace.procs
    if size is None:
        raise InputError("the trace does not say how large the machine is", hint="give --procs")
    return QueueSnapshot(now_s=0, procs=size)


def past_of_trace(trace: Trace, procs: int | None = None) -> list[QueueJob]:
    """Return the jobs of a trace with the starts and ends that EASY backfill gives them."""
    size = pool_of_trace(trace, procs).procs
    assert size is not None
    starts = replay(trace.jobs, size)
    return [_past(number, job, start) for number, (job, start) in enumerate(zip(trace.jobs, starts, strict=True))]


def _past(number: int, job: TraceJob, start: int) -> QueueJob:
    name = None if job.ask is None or job.ask.name == job.label else job.ask.name
    return QueueJob.model_construct(
        label=f"{job.name}@{number}", width=job.procs, limit_s=job.limit_s, submit_s=job.submit_s, start_s=start,
        end_s=start + min(job.run_s, job.limit_s), user=job.user, name=name,
        partition=None if job.ask is None else job.ask.partition, priority=0, nodes=None, qos=None, state=None,
    )  # fmt: skip


def snapshot_of_trace(trace: Trace, at_s: int, procs: int | None = None) -> QueueSnapshot:
    """Return the queue as it stood at ``at_s`` on the trace's clock, and what had ended by then.

    Raises:
        InputError: the machine's size is not known, or nothing had been submitted by then.
    """
    jobs, empty = past_of_trace(trace, procs), pool_of_trace(trace, procs)
    past = [job for job in jobs if job.submit_s <= at_s]
    if not past:
        raise InputError(f"nothing had been submitted by {at_s} s; the trace begins at {min(j.submit_s for j in jobs)}")
    ended = tuple(job for job in past if job.end_s is not None and job.end_s <= at_s)
    probe = QueueJob(label="probe", width=1, limit_s=1, submit_s=at_s, start_s=at_s, end_s=at_s + 1)
    moment = next(moments([*past, probe], empty, lambda number: number == len(past)))
    return moment.snapshot.model_copy(update={"history": ended, "source": "trace"})
