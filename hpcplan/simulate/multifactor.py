"""Slurm's multifactor priority (priority_multifactor: https://slurm.schedmd.com/priority_multifactor.html).

The factors of age, job size and partition, each from 0 to 1, times their weights of slurm.conf, less ``--nice``. Ages
grow every ``PriorityCalcPeriod``. Fair share and QOS live in the accounting database, which slurm.conf does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["Multifactor"]


class Multifactor:
    """Priorities of the jobs of one machine."""

    def __init__(self, machine: Machine, settings: SlurmSettings) -> None:
        self.settings = settings
        self._nodes = len(machine.names)
        self._cpus = machine.total(machine.all_nodes, "cpus")
        highest = max((part.priority_job_factor for part in machine.partitions.values()), default=1) or 1
        self._partitions = {name: part.priority_job_factor / highest for name, part in machine.partitions.items()}
        self._period = -1

    def update(self, queue: list[Job], now: int) -> None:
        """Give every job in ``queue`` its priority, and put them in order."""
        period = now // self.settings.priority_calc_period_s
        new = [job for job in queue if job.spec.priority is None] if period != self._period else _unset(queue)
        if not new:
            return
        self._period = period
        for job in new:
            job.priority = self.priority(job, now)
        queue.sort(key=lambda job: job.order)

    def priority(self, job: Job, now: int) -> int:
        """Return the job's priority at ``now``, 1 at least."""
        settings = self.settings
        eligible = job.eligible_time if job.eligible_time is not None else now
        age = min(1.0, max(0, now - eligible) / settings.priority_max_age_s)
        size = (job.request.minimum / self._nodes + job.request.cpus / self._cpus) / 2
        if settings.priority_favor_small:
            size = 1 - size
        total = (
            settings.priority_weight_age * age
            + settings.priority_weight_job_size * size
            + settings.priority_weight_partition * self._partitions[job.request.partition]
        )
        return max(1, int(total) - job.spec.nice)


def _unset(queue: Sequence[Job]) -> list[Job]:
    """Return the jobs whose priority is still the one that every job is born with under priority/basic."""
    return [job for job in queue if job.spec.priority is None and job.priority > 2**31]
