"""Limits of QOS and associations on how many jobs may be queued or run: a submission beyond them is refused.

sacctmgr(1): ``MaxSubmitJobsPerUser``, ``MaxSubmitJobsPerAccount`` and ``GrpSubmitJobs`` of a QOS, ``MaxSubmitJobs`` and
``GrpSubmitJobs`` of an association. Each task of an array counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.admission import refusal

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.jobs import Job, JobSpec

__all__ = ["has_submit_limits", "refuse_too_many"]

_VIOLATES: Final = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


def has_submit_limits(policy: AccountPolicy) -> bool:
    """Whether there is any such limit."""
    associations = (*policy.accounts.values(), *policy.users.values())
    return any(
        most is not None
        for limits in (*(qos.limits for qos in policy.qos.values()), *(one.limits for one in associations))
        for most in (limits.group_submit, limits.user_submit, limits.account_submit)
    )


def refuse_too_many(policy: AccountPolicy, spec: JobSpec, user: str, jobs: Collection[Job]) -> None:
    """Refuse a job that would be one too many beside the live ``jobs``.

    Raises:
        SlurmError: in sbatch's words, with the limit's name before.
    """
    more = max(1, len(spec.array))
    for reason, most, counts in _limits(policy, spec, user):
        if most is not None and sum(map(counts, jobs)) + more > most:
            raise refusal(_VIOLATES, reason)


def _limits(policy: AccountPolicy, spec: JobSpec, user: str) -> Iterator[tuple[str, int | None, Callable[[Job], bool]]]:
    """Yield the name of each limit, how many it allows, and which jobs count."""
    account = policy.account_of(user, spec.account)
    qos = policy.qos_of(user, spec.account, spec.qos)
    if qos is not None:

        def same(job: Job) -> bool:
            own = policy.qos_of(job.user, job.spec.account, job.spec.qos)
            return own is not None and own.name == qos.name

        limits = qos.limits
        yield "QOSGrpSubmitJobsLimit", limits.group_submit, same
        yield "QOSMaxSubmitJobPerUserLimit", limits.user_submit, lambda job: same(job) and job.user == user
        yield (
            "MaxSubmitJobsPerAccount", limits.account_submit,
            lambda job: same(job) and policy.account_of(job.user, job.spec.account) == account,
        )  # fmt: skip
    for position, one in enumerate(policy.chain(user, spec.account)):

        def under(job: Job, account: str = one.account, owner: str | None = one.user) -> bool:
            if owner is not None and job.user != owner:
                return False
            return any(above.account == account for above in policy.chain(job.user, job.spec.account))

        yield "AssocGrpSubmitJobsLimit", one.limits.group_submit, under
        if not position:
            yield "AssocMaxSubmitJobLimit", one.limits.user_submit, under
