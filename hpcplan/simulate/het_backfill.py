"""Heterogeneous jobs in Slurm's backfill scheduler, which alone starts them (``_het_job_*`` of sched/backfill 22.05).

Each component is planned in its turn as any job is, not before those planned already, and promised its nodes, even if
it could start now. If at the end of a pass all of them can start now, they do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpcplan.simulate.het_jobs import groups_of

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.profile import Slot
    from hpcplan.simulate.slurm_backfill import BackfillPass

__all__ = ["run_with_components"]


def run_with_components(pass_: BackfillPass, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
    """Run a pass over a queue with components of heterogeneous jobs in it; whether a job was started."""
    pass_.to_the_end = True
    queue = queue[: pass_.settings.bf_max_job_test]
    groups = groups_of(queue)
    slots: dict[int, Slot] = {}
    between: list[Job] = []
    started = False
    for job in queue:
        if job.het_id is None:
            between.append(job)
            continue
        started |= pass_.run(between, start)
        between = []
        others = [slots[one.id].start for one in groups.get(job.het_id, ()) if one.id in slots]
        slot = pass_.plan(job, max(others, default=0)) if job.het_id in groups else None
        if slot is not None:
            slots[job.id] = slot
    started |= pass_.run(between, start)
    for members in groups.values():
        if all(_can_start(pass_, job, slots.get(job.id)) for job in members):
            for job in members:
                start(job, slots[job.id].nodes)
            started = True
    return started


def _can_start(pass_: BackfillPass, job: Job, slot: Slot | None) -> bool:
    return slot is not None and slot.start <= pass_.now and pass_.still_fits(job, slot)
