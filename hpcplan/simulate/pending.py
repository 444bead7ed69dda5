"""Why jobs wait, in squeue's words, when they would start, and which of them time alone will bring to an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hpcplan.simulate.dependencies import Condition, Status
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.policies import Backfill
from hpcplan.simulate.profile import Slot, choose
from hpcplan.simulate.several_partitions import requests_of

__all__ = ["earliest_start", "progressing", "reasons"]


def reasons(engine: Engine) -> dict[int, str]:
    """Return the reason of each waiting job (squeue(1), JOB REASON CODES).

    The first of each partition's queue waits for ``Resources``, those behind it for ``Priority``.
    """
    result = {job.id: engine.blocked(job) or "Priority" for job in engine.jobs.values() if not job.running}
    candidates = {job.id for job in engine.candidates()}
    heads: set[str] = set()
    for job in engine.queue:
        partition = job.request.partition
        if not any(engine.machine.partitions[one.partition].up for one in requests_of(job.request)):
            accepts = engine.machine.partitions[partition].accepts
            result[job.id] = "PartitionDown" if accepts else "PartitionInactive"
        elif job.id not in candidates:
            result[job.id] = "JobArrayTaskLimit"
        elif (reason := engine.waits_for(job)) is not None:
            result[job.id] = reason
        elif not any(choose(one, engine.available) for one in requests_of(job.request)):
            lost = job.request.eligible & ~engine.available
            result[job.id] = f"ReqNodeNotAvail, UnavailableNodes:{engine.machine.node_list(lost)}"
        elif _reserved(engine, job):
            result[job.id] = "ReqNodeNotAvail, Reserved for maintenance"
        elif partition not in heads:
            heads.add(partition)
            result[job.id] = "Resources"
    return result


def _reserved(engine: Engine, job: Job) -> bool:
    """Whether there are enough nodes for a job only where reservations keep them from it."""
    reservations = getattr(engine, "reservations", None)
    if not reservations or job.spec.reservation is not None:
        return False
    nodes = reservations.usable(job, engine.now, engine.available)
    return not any(choose(one, nodes) for one in requests_of(job.request))


def earliest_start(engine: Engine, job: Job, others: Sequence[Job] = ()) -> Slot | None:
    """Return when ``job`` would start, and where, if every job used up its limit and none came before its turn.

    ``job`` need not be in the queue, nor need the ``others`` of a heterogeneous one; ``None`` if it would never start
    as things stand.
    """
    if engine.blocked(job) not in (None, "BeginTime"):
        return None
    waiting = {one.id: one for one in (*engine.candidates(), *others, job)}
    queue = sorted(waiting.values(), key=lambda one: one.order)
    view = replace(engine.view(), het_jobs=any(one.het_id is not None for one in queue))
    planned = Backfill().plan(queue, view)
    slot = planned.reservations.get(job.id)
    for start in planned.starts:
        if start.job is job:
            slot = Slot(view.now, view.now + job.request.limit_s, start.nodes)
    if slot is None or job.begin_time is None or job.begin_time <= slot.start:
        return slot
    return Slot(job.begin_time, job.begin_time + job.request.limit_s, slot.nodes)


def progressing(engine: Engine) -> set[int]:
    """Return the jobs that time alone will start and end: nobody has to release, resume or resubmit anything.

    A job waits only for jobs that were submitted before it, so one pass in that order settles all.
    """
    result: set[int] = set()
    families: set[tuple[str, str]] = set()
    for job in sorted(engine.jobs.values(), key=lambda one: one.submitted):
        if _progresses(engine, job, result, families):
            result.add(job.id)
            families.add(job.family)
    return result


def _progresses(engine: Engine, job: Job, moving: set[int], families: set[tuple[str, str]]) -> bool:
    if job.running:
        return True
    open_to = [one for one in requests_of(job.request) if engine.machine.partitions[one.partition].up]
    if job.request.limit_reason or not any(choose(one, engine.available) for one in open_to):
        return False
    reason = engine.blocked(job)
    if reason != "Dependency":
        return reason in (None, "BeginTime")
    assert job.dependency is not None

    def moves(condition: Condition) -> bool:
        return condition.job_id in moving if condition.job_id is not None else job.family in families

    combine = any if job.dependency.any_of else all
    return combine(moves(one) for one in job.dependency.conditions if one.status is Status.UNFULFILLED)
