"""What the compiled controller has to know of a site's policy, made of what the one in Python goes by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.account_policy import Limits
from hpcplan.simulate.begin import begin_time
from hpcplan.simulate.dependencies import parse_dependency

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.compiled.site_policy import Associations, Ties
    from hpcplan.simulate.fairshare import FairShare
    from hpcplan.simulate.jobs import JobSpec
    from hpcplan.simulate.trace_submissions import Submission, Submissions
    from hpcplan.simulate.traces import TraceJob

__all__ = ["JobTies", "associations_of", "bonds_among", "has_limits", "has_ties", "is_singleton", "is_tree"]

_SINGLETON: Final = "singleton"


def has_ties(spec: JobSpec | None) -> bool:
    """Whether a job waits for others, or for its time."""
    return spec is not None and (spec.dependency is not None or spec.begin is not None)


def is_singleton(spec: JobSpec | None) -> bool:
    """Whether a job waits for those of its name."""
    return spec is not None and _SINGLETON in (spec.dependency or "")


def has_limits(policy: AccountPolicy) -> bool:
    """Whether a QOS or an association has any."""
    held = [one.limits for one in policy.qos.values()]
    held += [one.limits for of in (policy.accounts, policy.users) for one in of.values()]
    return any(one != Limits() for one in held)


def is_tree(policy: AccountPolicy) -> bool:
    """Whether each account is below others only, and none below itself."""
    for name in policy.accounts:
        seen = {name}
        above = policy.accounts[name].parent
        while above is not None and above in policy.accounts:
            if above in seen:
                return False
            seen.add(above)
            above = policy.accounts[above].parent
    return True


def associations_of(fair_share: FairShare, policy: AccountPolicy) -> Associations:
    """Return the tree that fair share goes by, as it is before anything has been used."""
    from hpcplan.simulate.compiled.site_policy import Associations

    users = [(account, user) for account, user in policy.users if user is not None]
    numbers = {name: len(users) + place for place, name in enumerate(policy.accounts)}
    root = numbers.setdefault("root", len(users) + len(numbers))
    found = [policy.users[key] for key in users] + [policy.accounts[name] for name in policy.accounts]
    above = [numbers[one.account] if one.account in policy.accounts else -1 for one in found[: len(users)]]
    above += [numbers[one.parent] if one.parent in policy.accounts else -1 for one in found[len(users) :]]
    below: list[list[int]] = [[] for _ in range(max(len(found), root + 1))]
    for number, one in enumerate(found):
        over = one.parent if one.user is None else one.account
        if over is not None and over in numbers:
            below[numbers[over]].append(number)
    missing = len(below) - len(found)  # the root, where nobody has it
    return Associations(
        users=len(users),
        root=root,
        above=[*above, *[-1] * missing],
        shares=[*(one.shares for one in found), *[1] * missing],
        below=below,
        factors=[fair_share.factor(*key) for key in users],
        kept=fair_share.kept_per_s,
    )


class JobTies:
    """Works out what jobs of a trace wait for; with ``families``, some wait for those of their user and name."""

    def __init__(self, plan: Submissions, *, families: bool) -> None:
        self._plan = plan
        self._families = families
        self._numbers: dict[tuple[str, str], int] = {}  # of families that have jobs, with how many those are
        self._members: list[int] = []
        self._unused: list[int] = []

    def of(self, one: Submission) -> Ties | None:
        """Return the ties of a job that is submitted next; ``None`` if it has none."""
        from hpcplan.simulate.compiled.site_policy import Ties

        spec, awaited = one.spec, self._plan.is_awaited(one.job)
        if not (self._families or awaited or has_ties(spec)):
            return None
        parsed = parse_dependency(spec.dependency) if spec.dependency else None
        return Ties(
            begin_time(spec.begin, one.job.submit_s),
            tuple((_kind(each.kind), each.job_id or 0, each.delay_s) for each in parsed.conditions) if parsed else (),
            parsed is not None and parsed.any_of,
            spec.kill_on_invalid_dep,
            awaited,
            self._family(one.job, spec) if self._families else -1,
        )

    def _family(self, job: TraceJob, spec: JobSpec) -> int:
        key = (job.user or "user", spec.name)
        number = self._numbers.get(key)
        if number is None:
            if self._unused:
                number = self._unused.pop()
            else:
                number = len(self._members)
                self._members.append(0)
            self._numbers[key] = number
        self._members[number] += 1
        return number

    def gone(self, one: Submission) -> None:
        """Forget a job that has ended."""
        if not self._families:
            return
        key = (one.job.user or "user", one.spec.name)
        number = self._numbers[key]
        self._members[number] -= 1
        if not self._members[number]:
            self._unused.append(self._numbers.pop(key))


def _kind(word: str) -> int:
    from hpcplan.simulate.compiled.policy_layout import AFTER, AFTERANY, AFTERNOTOK, AFTEROK, SINGLETON

    kinds = {"after": AFTER, "afterany": AFTERANY, "afternotok": AFTERNOTOK, _SINGLETON: SINGLETON}
    return kinds.get(word, AFTEROK)  # aftercorr is afterok where there are no arrays


def bonds_among(jobs: Iterable[TraceJob], names: object) -> tuple[bool, bool]:
    """Return whether jobs are tied to others or to times, and whether some to those of their user and name."""
    tied, families = bool(names), False
    for job in jobs:
        tied = tied or has_ties(job.ask)
        if is_singleton(job.ask):
            return True, True
    return tied, families
