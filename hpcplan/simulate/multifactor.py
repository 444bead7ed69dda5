"""Slurm's multifactor priority (priority_multifactor: https://slurm.schedmd.com/priority_multifactor.html).

The factors of age, job size, partition, QOS, TRES and fair share, each from 0 to 1, times their weights of slurm.conf,
less ``--nice``. They are worked out when a job becomes eligible, and, where there is slurmdbd, for all every
``PriorityCalcPeriod``, counted from when the controller has begun, to the millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcplan.simulate.fairshare import FairShare
from hpcplan.simulate.limits import tres_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["Multifactor"]


class Multifactor:
    """Priorities of the jobs of one machine."""

    def __init__(self, machine: Machine, settings: SlurmSettings, policy: AccountPolicy) -> None:
        self.settings = settings
        self.policy = policy
        self.fair_share = FairShare(policy, settings, machine) if settings.priority_weight_fair_share else None
        self._machine = machine
        self._nodes = len(machine.names)
        self._cpus = machine.total(machine.all_nodes, "cpus")
        highest = max((part.priority_job_factor for part in machine.partitions.values()), default=1) or 1
        scale = 1 if "no_normal_part" in settings.priority_flags else highest
        self._partitions = {name: part.priority_job_factor / scale for name, part in machine.partitions.items()}
        self._totals = {
            name: {
                "cpu": machine.total(part.mask, "cpus"),
                "node": part.mask.bit_count(),
                "mem": machine.total(part.mask, "memory_bytes"),
                "gres/gpu": machine.total(part.mask, "gpus"),
            }
            for name, part in machine.partitions.items()
        }
        self.period: int | None = None

    def due(self, at_ms: int) -> int | None:
        """Return when the ``PriorityCalcPeriod`` began that ``at_ms`` is in, ``None`` if that was asked before."""
        if not self.settings.priority_recalculated:
            return None
        every = self.settings.priority_calc_period_s
        period = (at_ms - self.settings.priorities_begin_ms) // (1000 * every)
        if self.period is not None and period <= self.period:
            return None
        self.period = period
        return (self.settings.priorities_begin_ms + 1000 * every * period) // 1000

    def next_due_ms(self, at_ms: int) -> int | None:
        """Return when the next ``PriorityCalcPeriod`` begins, ``None`` if that changes nothing."""
        if not self.settings.priority_recalculated or self.fair_share is None:
            return None
        begin_ms, every_ms = self.settings.priorities_begin_ms, 1000 * self.settings.priority_calc_period_s
        period = (at_ms - begin_ms) // every_ms
        return begin_ms + (max(period, period if self.period is None else self.period) + 1) * every_ms

    def update(self, jobs: Iterable[Job], now: int) -> None:
        """Give jobs their priorities anew, but for those whose priority was given."""
        for job in jobs:
            if job.spec.priority is None:
                job.priority = self.priority(job, now)

    def priority(self, job: Job, now: int) -> int:
        """Return the job's priority at ``now``, 1 at least."""
        total = 0.0
        for part in self.parts(job, now).values():  # one after the other, as compiled code does; sum() rounds otherwise
            total += part
        return max(1, int(total) - job.spec.nice)

    def parts(self, job: Job, now: int) -> dict[str, float]:
        """Return what each factor, times its weight, adds to the job's priority at ``now``."""
        settings = self.settings
        since = job.submit_time if "accrue_always" in settings.priority_flags else job.eligible_time
        age = min(1.0, max(0, now - since) / settings.priority_max_age_s) if since is not None else 0.0
        found = {
            "age": settings.priority_weight_age * age,
            "job_size": settings.priority_weight_job_size * self._size(job),
            "partition": settings.priority_weight_partition * self._partitions[job.request.partition],
        }
        if settings.priority_weight_qos:
            found["qos"] = settings.priority_weight_qos * self._qos(job)
        if self.fair_share is not None:
            account = self.policy.account_of(job.user, job.spec.account)
            found["fair_share"] = settings.priority_weight_fair_share * self.fair_share.factor(account, job.user)
        if settings.priority_weight_tres:
            found["tres"] = self._tres(job)
        return found

    def _size(self, job: Job) -> float:
        settings, request = self.settings, job.request
        cpus = request.cpus
        if request.whole and job.eligible_time is not None:  # once it has been looked at, all of its nodes' CPUs count
            cpus = max(cpus, request.minimum * self._cpus // self._nodes)
        if "small_relative_to_time" in settings.priority_flags:
            cpus_of_nodes = request.minimum * self._cpus / self._nodes
            size = max(cpus, cpus_of_nodes) / max(1, request.limit_s // 60) / self._cpus
        else:
            size = (request.minimum / self._nodes + cpus / self._cpus) / 2
        return min(1.0, max(0.0, 1 - size if settings.priority_favor_small else size))

    def _qos(self, job: Job) -> float:
        qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
        if qos is None or not self.policy.highest_qos:
            return 0.0
        return qos.priority / (1 if "no_normal_qos" in self.settings.priority_flags else self.policy.highest_qos)

    def _tres(self, job: Job) -> float:
        asked, there = tres_of(job, self._machine), self._totals[job.request.partition]
        return sum(
            weight * min(1.0, asked.get(name, 0) / there[name])
            for name, weight in self.settings.priority_weight_tres
            if there.get(name)
        )
