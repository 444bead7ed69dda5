"""How a job goes that is preempted: at once, or after its GraceTime (slurm.conf(5), sacctmgr(1); recorded on 22.05.8).

Its end is put where the grace runs out, which plans go by. From then on whichever comes first stops it: the look at
time limits every half minute, or a job that would preempt it. While its grace lasts, who would preempt it waits.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from hpcplan.simulate.het_jobs import whole
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.controller import Controller
    from hpcplan.simulate.jobs import Job

__all__ = ["preempt"]


def preempt(controller: Controller, job: Job) -> None:
    """Stop a running job, all of a heterogeneous one, as preemption does, or tell it that it will be."""
    grace_s = controller._preemption.grace_s(job)
    if grace_s and job.grace_end is None:
        for one in whole(controller.jobs, job):
            if one.running:
                _shorten(controller, one, controller.now + grace_s)
    elif job.grace_end is None or controller.now >= job.grace_end:
        controller._end(job, JobState.PREEMPTED)


def _shorten(controller: Controller, job: Job, end: int) -> None:
    """Let a running job end earlier than at its limit, in the plans as well."""
    promised = controller._promised
    del promised[bisect_left(promised, (job.limit_end, job.id, job.held_nodes))]
    job.grace_end = min(job.limit_end, end)
    insort(promised, (job.limit_end, job.id, job.held_nodes))
    controller._plan_end(job)
    controller.changes += 1
