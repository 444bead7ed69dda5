"""Limits of QOS and associations while jobs run: which waiting job breaks which (``acct_policy`` of slurmctld).

A job that breaks one waits, under the reason that squeue shows, and holds up nobody behind it (slurm.conf(5),
``assoc_limit_stop`` is off).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

from hpcplan.simulate.machine import lowest
from hpcplan.simulate.minute_limits import WALL, UsedMinutes

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy, Limits, QosPolicy
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["LimitKeeper", "tres_of"]

_WORDS: Final = {"cpu": "Cpu", "node": "Node", "billing": "Billing", "energy": "Energy"}


def _reason(scope: str, form: str, tres: str) -> str:
    """Return squeue's word for a limit on a TRES, which is irregular (22.05; squeue(1), JOB REASON CODES)."""
    word = _WORDS.get(tres, "GRES")
    if tres == "mem":
        word = "Mem" if scope == "Assoc" or form == "Grp{}" else "Memory"
    if tres == "cpu" and form.startswith("Grp") and form != "Grp{}":
        word = "CPU"
    limit = tres == "cpu" or (tres == "node" and "Minutes" not in form) or (tres == "mem" and form == "Grp{}")
    if form == "Max{}PerAccount":
        return form.format(word)
    return f"{scope}{form.format(word)}{'Limit' if limit else ''}"


def tres_of(job: Job, machine: Machine) -> dict[str, int]:
    """Return what a job asks for, or has, by Slurm's names (``mem`` in bytes)."""
    request = job.request
    nodes = job.nodes.bit_count() if job.running else request.minimum
    cpus, gpus, memory = request.cpus, request.gpus, (request.memory_per_node_bytes or 0) * nodes
    if request.whole:
        mask = job.nodes or lowest(request.eligible, request.minimum)
        cpus, gpus = machine.total(mask, "cpus"), machine.total(mask, "gpus")
        memory = memory or machine.total(mask, "memory_bytes")
    elif not request.whole:
        gpus = max(gpus, request.node_gpus * nodes)
        memory = (request.node_memory_bytes or 0) * nodes
    found = {"cpu": cpus, "node": nodes, "mem": memory, "gres/gpu": gpus, "billing": cpus}
    return found | {f"gres/{name}": count * nodes for name, count in request.node_gres}


class LimitKeeper:
    """Counts what runs by QOS, user and account, and holds waiting jobs against the limits."""

    def __init__(self, policy: AccountPolicy, machine: Machine, settings: SlurmSettings) -> None:
        self.policy = policy
        self._safe = settings.limits_safe
        self._minutes = UsedMinutes(settings) if _has_minutes(policy) else None
        self._machine = machine
        self._jobs: Counter[Hashable] = Counter()
        self._tres: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
        self._counted: dict[int, tuple[tuple[Hashable, ...], dict[str, int]]] = {}

    def started(self, job: Job) -> None:
        """Count a job that starts."""
        used = tres_of(job, self._machine)
        keys = tuple(self._keys(job))
        self._counted[job.id] = keys, used
        for key in keys:
            self._jobs[key] += 1
            self._tres[key].update(used)
        if self._minutes is not None and job.start_time is not None:
            qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
            factor = qos.usage_factor if qos is not None else 1.0
            self._minutes.started(job.id, keys, used, factor, job.start_time, job.request.limit_s)

    def ended(self, job_id: int, now: int) -> None:
        """Count a job no longer, if it is counted."""
        if self._minutes is not None:
            self._minutes.ended(job_id, now)
        keys, used = self._counted.pop(job_id, ((), {}))
        for key in keys:
            self._jobs[key] -= 1
            self._tres[key].subtract(used)

    def broken(self, job: Job, now: int) -> str | None:
        """Return squeue's word for the first limit that would be broken if the job started now."""
        asked = tres_of(job, self._machine)
        account = self.policy.account_of(job.user, job.spec.account)
        set_before: list[Limits] = []  # a partition's QOS goes before the job's own, and both before associations
        for qos in self._qos(job):
            reason = self._qos_limit(qos.name, _less(qos.limits, set_before), asked, job, account, now)
            if reason is not None:
                return reason
            set_before.append(qos.limits)
        by_qos = any(limits.user_jobs is not None or limits.account_jobs is not None for limits in set_before)
        for position, one in enumerate(self.policy.chain(job.user, job.spec.account)):
            key: Hashable = ("assoc", one.account, one.user)
            limits = _less(one.limits, set_before)
            reason = (
                self._minutes_over("Assoc", limits, asked, job, key, now)
                or self._over("Assoc", "Grp{}", limits.group_tres, asked, key)
                or self._jobs_over("AssocGrpJobsLimit", limits.group_jobs, key)
                or self._too_large("Assoc", limits, asked, job)
            )
            if reason is None and not position and not by_qos:
                reason = self._jobs_over("AssocMaxJobsLimit", limits.user_jobs, key)
            if reason is not None:
                return reason
        return None

    @property
    def end_jobs(self) -> bool:
        """Whether there are limits that end jobs which run (``GrpTRESMins``, ``GrpWall``)."""
        policy = self.policy
        held = [one.limits for one in policy.qos.values()]
        held += [one.limits for of in (policy.accounts, policy.users) for one in of.values()]
        return any(one.group_minutes or one.group_wall_s is not None for one in held)

    def used_up(self, job: Job, now: int) -> bool:
        """Whether others and a running job have used up what a QOS or an association of it may use in time."""
        before: list[Limits] = []
        for qos in self._qos(job):
            if self._spent(_less(qos.limits, before), ("qos", qos.name), now):
                return True
            before.append(qos.limits)
        above = self.policy.chain(job.user, job.spec.account)
        return any(self._spent(_less(one.limits, before), ("assoc", one.account, one.user), now) for one in above)

    def _spent(self, limits: Limits, key: Hashable, now: int) -> bool:
        count = self._minutes
        if count is None:
            return False
        if limits.group_wall_s is not None and count.used(key, WALL, now) * 60 >= limits.group_wall_s:
            return True
        return any(count.used(key, name, now) >= most for name, most in limits.group_minutes.items())

    def _qos(self, job: Job) -> list[QosPolicy]:
        part = self._machine.partitions[job.request.partition].limits_qos
        found = [self.policy.qos.get(part or ""), self.policy.qos_of(job.user, job.spec.account, job.spec.qos)]
        return [qos for qos in found if qos is not None]

    def _qos_limit(
        self, name: str, limits: Limits, asked: Mapping[str, int], job: Job, account: str | None, now: int
    ) -> str | None:
        group, user, team = ("qos", name), ("qos", name, "user", job.user), ("qos", name, "account", account)
        return (
            self._too_large("QOS", limits, asked, job)
            or self._minutes_over("QOS", limits, asked, job, group, now)
            or self._jobs_over("QOSGrpJobsLimit", limits.group_jobs, group)
            or self._over("QOS", "Grp{}", limits.group_tres, asked, group)
            or self._jobs_over("QOSMaxJobsPerUserLimit", limits.user_jobs, user)
            or self._over("QOS", "Max{}PerUser", limits.user_tres, asked, user)
            or self._jobs_over("MaxJobsPerAccount", limits.account_jobs, team)
            or self._over("QOS", "Max{}PerAccount", limits.account_tres, asked, team)
        )

    def _too_large(self, scope: str, limits: Limits, asked: Mapping[str, int], job: Job) -> str | None:
        limit_s = job.request.limit_s
        if limits.job_wall_s is not None and limit_s > limits.job_wall_s:
            return f"{scope}MaxWallDurationPerJobLimit"
        for name, most in limits.job_tres.items():
            if asked.get(name, 0) > most:
                return _reason(scope, "Max{}PerJob", name)
        for name, most in limits.job_minutes.items():
            if asked.get(name, 0) * (limit_s // 60) > most:
                return _reason(scope, "Max{}MinutesPerJob", name)
        return None

    def _minutes_over(
        self, scope: str, limits: Limits, asked: Mapping[str, int], job: Job, key: Hashable, now: int
    ) -> str | None:
        """Hold a job against the limits on what a group uses in time."""
        count = self._minutes
        if count is None:
            return None
        minutes = job.request.limit_s // 60
        for name, most in limits.group_minutes.items():
            left = most - count.used(key, name, now)
            if self._safe:
                left -= count.to_come(key, name, now) + asked.get(name, 0) * minutes
            if left < 0 or (left <= 0 and not self._safe):
                return _reason(scope, "Grp{}Minutes", name)
        for name, most in limits.group_run_minutes.items():
            if count.to_come(key, name, now) + asked.get(name, 0) * minutes > most:
                return _reason(scope, "Grp{}RunMinutes", name)
        if limits.group_wall_s is not None:  # what running jobs may use still does not count, though it does for TRES
            left = limits.group_wall_s // 60 - int(count.used(key, WALL, now))
            if left < minutes if self._safe else left <= 0:
                return f"{scope}GrpWallLimit"
        return None

    def _jobs_over(self, reason: str, most: int | None, key: Hashable) -> str | None:
        return reason if most is not None and self._jobs[key] >= most else None

    def _over(
        self, scope: str, form: str, most: Mapping[str, int], asked: Mapping[str, int], key: Hashable
    ) -> str | None:
        for name, limit in most.items():
            if asked.get(name, 0) and self._tres[key][name] + asked[name] > limit:
                return _reason(scope, form, name)
        return None

    def _keys(self, job: Job) -> Iterator[Hashable]:
        account = self.policy.account_of(job.user, job.spec.account)
        for name in {qos.name for qos in self._qos(job)}:
            yield from (("qos", name), ("qos", name, "user", job.user), ("qos", name, "account", account))
        for one in self.policy.chain(job.user, job.spec.account):
            yield ("assoc", one.account, one.user)


def _less(limits: Limits, others: Sequence[Limits]) -> Limits:
    """Return the limits without those that ``others`` set: of TRES, one by one."""
    changed: dict[str, Any] = {}
    for info in fields(limits) if others else ():
        value = getattr(limits, info.name)
        if value in (None, {}):
            continue
        if isinstance(value, Mapping):
            taken = {name for other in others for name in getattr(other, info.name)}
            changed[info.name] = {name: most for name, most in value.items() if name not in taken}
        elif any(getattr(other, info.name) is not None for other in others):
            changed[info.name] = None
    return replace(limits, **changed) if changed else limits


def _has_minutes(policy: AccountPolicy) -> bool:
    limits = [one.limits for one in policy.qos.values()]
    limits += [one.limits for one in (*policy.accounts.values(), *policy.users.values())]
    return any(one.group_minutes or one.group_run_minutes or one.group_wall_s is not None for one in limits)
