"""Preemption (https://slurm.schedmd.com/preempt.html): which running jobs make room for one that waits.

``preempt/partition_prio``: jobs of partitions of a lower ``PriorityTier``; ``preempt/qos``: jobs of the QOS that the
job's own may preempt. They are requeued or cancelled; other modes preempt nobody here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["Preemption", "victims"]

_FIRST: Final = 10**6


class Preemption:
    """Who may preempt whom on one cluster."""

    def __init__(self, machine: Machine, settings: SlurmSettings, policy: AccountPolicy) -> None:
        self._machine = machine
        self._settings = settings
        self.policy = policy
        self.possible = settings.preempt_type in {"partition_prio", "qos"}

    def mode(self, job: Job) -> str:
        """Return what preemption does to a job: ``requeue``, ``cancel``, or ``off`` and others that do nothing here."""
        own = None
        if self._settings.preempt_type == "qos":
            qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
            own = qos.preempt_mode if qos is not None else None
        own = own or self._machine.partitions[job.request.partition].preempt_mode
        mode = own or self._settings.preempt_mode
        return "cancel" if mode == "requeue" and not job.spec.requeue else mode

    def grace_s(self, job: Job) -> int:
        """Return how long a job may go on that is preempted: of its QOS, or of its partition."""
        if self._settings.preempt_type == "qos":
            qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
            return qos.grace_time_s if qos is not None else 0
        return self._machine.partitions[job.request.partition].grace_time_s

    def candidates(self, job: Job, running: Iterable[Job], now: int) -> list[Job]:
        """Return the running jobs that may be preempted for ``job``, least important and smallest first."""
        where = self._machine.partitions[job.request.partition].mask
        found = [
            one
            for one in running
            if one.held_nodes & where
            and self._may(job, one)
            and self.mode(one) in {"requeue", "cancel"}
            and now >= (one.start_time or 0) + self._exempt_s(one)
        ]
        return sorted(found, key=lambda one: (self._rank(one), one.held_nodes.bit_count(), one.id))

    def preemptors_first(self, queue: list[Job]) -> list[Job]:
        """Return a queue in which jobs go before those that they might preempt, else in the order given.

        Of partitions, their tiers see to it. Of QOS this is no order where one lies between two others, so that it
        counts how slurmctld sorts: by merging halves, from the order in which jobs were submitted.
        """
        if self._settings.preempt_type != "qos":
            return queue
        places = {id(job): place for place, job in enumerate(queue)}
        found = {id(job): self.policy.qos_of(job.user, job.spec.account, job.spec.qos) for job in queue}

        def before(one: Job, other: Job) -> bool:
            first, second = found[id(one)], found[id(other)]
            if first is not None and second is not None and first is not second:
                if second.name in first.preempts:
                    return True
                if first.name in second.preempts:
                    return False
            return places[id(one)] <= places[id(other)]

        return _merged(sorted(queue, key=lambda job: job.id), before)

    def _exempt_s(self, job: Job) -> int:
        """Return how long a job runs before it may be preempted (``PreemptExemptTime``)."""
        qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
        own = qos.preempt_exempt_s if qos is not None else None
        return self._settings.preempt_exempt_s if own is None else own

    def _may(self, job: Job, other: Job) -> bool:
        if self._settings.preempt_type == "partition_prio":
            return self._tier(other) < self._tier(job)
        qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
        theirs = self.policy.qos_of(other.user, other.spec.account, other.spec.qos)
        return qos is not None and theirs is not None and theirs.name in qos.preempts

    def _tier(self, job: Job) -> int:
        return self._machine.partitions[job.request.partition].priority_tier

    def _rank(self, job: Job) -> int:
        if self._settings.preempt_type == "partition_prio":
            return self._tier(job)
        qos = self.policy.qos_of(job.user, job.spec.account, job.spec.qos)
        return qos.priority if qos is not None else 0


def victims(
    candidates: Sequence[Job], fits: Callable[[list[Job]], int], open_to: Callable[[list[Job]], int] | None = None
) -> list[Job]:
    """Return the jobs to preempt, none if even all are not enough.

    ``fits`` returns the nodes that the waiting job would get if the jobs given were gone, 0 if it does not fit. They go
    one after another until it fits; then again in another order, so that few go. With select/linear, where ``open_to``
    returns all the nodes that would be open to it, the last one goes first, then those with the most open nodes; with
    select/cons_tres, and twice, those with the most of the nodes that it would get (``preempt_reorder_count``).
    """
    order = list(candidates)
    last_round = 1 if open_to is not None else 2
    for number in range(last_round + 1):
        gone: list[Job] = []
        worth: dict[int, int] = {}
        nodes = 0
        for one in order:
            gone.append(one)
            if open_to is not None:
                worth[one.id] = (open_to(gone) & one.held_nodes).bit_count()
            nodes = fits(gone)
            if nodes:
                break
        if not nodes:
            return []
        if number == last_round or len(order) <= (number + 1 if open_to is None else 1):
            break
        if open_to is None:
            worth = {one.id: (one.held_nodes & nodes).bit_count() for one in gone}
        worth[gone[-1].id] = _FIRST
        order.sort(key=lambda one: -worth.get(one.id, 0))
    return [one for one in gone if one.held_nodes & nodes and worth.get(one.id, 1)]


def _merged(jobs: list[Job], before: Callable[[Job, Job], bool]) -> list[Job]:
    if len(jobs) < 2:
        return jobs
    half = len(jobs) // 2
    left, right = (deque(_merged(part, before)) for part in (jobs[:half], jobs[half:]))
    result = []
    while left and right:
        result.append((left if before(left[0], right[0]) else right).popleft())
    return [*result, *left, *right]
