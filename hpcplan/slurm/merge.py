"""One record of a job out of two sources: the controller, which forgets, and accounting, which lags behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["left_to_ask", "merge"]


def left_to_ask(job_ids: Sequence[int], queue: Iterable[JobRecord]) -> list[int]:
    """Return the jobs that accounting has something to say about: those that the controller does not know, and those
    that have ended. Of a job that waits or runs the controller knows everything.
    """
    alive = {job_id for one in queue if not one.state.final for job_id in (one.job_id, one.array_job_id)}
    ended_tasks = {one.array_job_id for one in queue if one.state.final and one.array_job_id is not None}
    return [job_id for job_id in job_ids if job_id not in alive or job_id in ended_tasks]


def merge(
    queue: Iterable[JobRecord],
    history: Mapping[int, JobRecord],
    *,
    since: int,
    job_ids: Collection[int] | None,
) -> list[JobRecord]:
    """Return each job once, ordered by id, without those that ended before ``since``; an array's id means its tasks, a
    heterogeneous job's its components.

    ``history`` was asked after ``queue``. The newer attempt (by submit time) wins. Of one attempt that both know, the
    controller's record stands, and accounting adds what the controller does not know: how it ended, if it ended
    between the two questions, and what it used.
    """
    found = dict(history)
    for record in queue:
        other = found.get(record.job_id)
        found[record.job_id] = record if other is None else _merged(record, other)
    wanted = None if job_ids is None else frozenset(job_ids)
    return [
        found[job_id]
        for job_id in sorted(found)
        if (wanted is None or found[job_id].is_among(wanted)) and not _over(found[job_id], since)
    ]


def _over(record: JobRecord, since: int) -> bool:
    return record.state.final and record.end_time is not None and record.end_time < since


def _merged(queue: JobRecord, history: JobRecord) -> JobRecord:
    if queue.submit_time != history.submit_time:
        # Requeued since, or another job that was given the same id: the older record says nothing about this one.
        return queue if (queue.submit_time or 0) > (history.submit_time or 0) else history
    added = {
        field.name: getattr(history, field.name)
        for field in dataclasses.fields(JobRecord)
        if getattr(queue, field.name) in (None, "", {})
    }
    ended = history.state.final and not queue.state.final and queue.state is not JobState.COMPLETING
    for name in _OF_THE_END:
        if ended:
            added[name] = getattr(history, name)
        elif not queue.state.final:
            added.pop(name, None)
    return dataclasses.replace(queue, **added, restarts=max(queue.restarts, history.restarts))


_OF_THE_END = ("state", "end_time", "exit_code", "signal")
