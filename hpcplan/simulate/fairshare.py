"""Fair share: what users have used, decayed, held against their shares (https://slurm.schedmd.com/fair_tree.html).

Fair Tree by default; with ``NO_FAIR_TREE`` the classic formula 2^(-U/S)
(https://slurm.schedmd.com/classic_fair_share.html). Usage is in CPU seconds times the QOS's ``UsageFactor``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from hpcplan.simulate.limits import tres_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hpcplan.simulate.account_policy import AccountPolicy, Association
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["FairShare"]

_LN2: Final = 0.693  # as slurmctld has it
User = tuple[str, str]


class FairShare:
    """The usage of every (account, user) and the factors that follow from it."""

    def __init__(self, policy: AccountPolicy, settings: SlurmSettings, machine: Machine) -> None:
        self._machine = machine
        self._tree = "no_fair_tree" not in settings.priority_flags
        half_life_s = settings.priority_decay_half_life_s
        self.kept_per_s = 1.0 - _LN2 / half_life_s if half_life_s else 1.0
        self._policy = policy
        self._below: defaultdict[str, list[Association]] = defaultdict(list)
        for one in policy.accounts.values():
            if one.parent is not None:
                self._below[one.parent].append(one)
        for one in policy.users.values():
            self._below[one.account].append(one)
        self.usage: dict[User, float] = {(one.account, one.user or ""): 0.0 for one in policy.users.values()}
        self._since: dict[int, int] = {}
        self._last: int | None = None
        self._factors: dict[User, float] = {}
        self._rank()

    def factor(self, account: str | None, user: str) -> float:
        """Return a user's factor in an account, 0 where there is no such association."""
        return self._factors.get((account or "", user), 0.0)

    def update(self, now: int, running: Iterable[Job]) -> None:
        """Let usage decay up to ``now``, add what runs, and work the factors out again."""
        if not self.usage:
            return
        if self._last is not None and now > self._last:
            kept = self.kept_per_s ** (now - self._last)
            for key in self.usage:
                self.usage[key] *= kept
        self._last = now
        for job in running:
            self._count(job, now)
        self._rank()

    def ended(self, job: Job, now: int) -> None:
        """Add what a job used since the last update."""
        if not self.usage:
            return
        self._count(job, now)
        self._since.pop(job.id, None)

    def _count(self, job: Job, now: int) -> None:
        assert job.start_time is not None
        begin = self._since.get(job.id, job.start_time)
        account = self._policy.account_of(job.user, job.spec.account)
        key = (account or "", job.user)
        if key in self.usage:
            qos = self._policy.qos_of(job.user, job.spec.account, job.spec.qos)
            seconds = max(0, now - begin)
            decayed_s = seconds * self.kept_per_s**seconds
            self.usage[key] += self._cpus(job) * decayed_s * (qos.usage_factor if qos is not None else 1.0)
        self._since[job.id] = max(begin, now)

    def _cpus(self, job: Job) -> int:
        """Return how many CPUs a job has, which is what is billed for it."""
        if job.node_cpus:
            return sum(job.node_cpus)
        return tres_of(job, self._machine)["cpu"]

    def _rank(self) -> None:
        self._factors = self._fair_tree() if self._tree else self._classic()

    def _used(self) -> dict[tuple[str, str | None], float]:
        """Return the usage of every association, that of an account being that of all below it."""
        used: defaultdict[tuple[str, str | None], float] = defaultdict(float)
        for (account, user), amount in self.usage.items():
            used[account, user] += amount
            name: str | None = account
            seen = set()
            while name is not None and name not in seen and name in self._policy.accounts:
                seen.add(name)
                used[name, None] += amount
                name = self._policy.accounts[name].parent
        return used

    def _fair_tree(self) -> dict[User, float]:
        """Return the factors of Fair Tree: ranks, users that are tied having the same.

        At each account its users and accounts go by their shares over their usage, users first among equals. Accounts
        that are tied are not merged, as the page says; the second's best user is tied with the one before it (22.05).
        """
        used = self._used()
        count = len(self.usage)
        rank = left = count
        factors: dict[User, float] = {}

        def visit(account: str, account_tied: bool) -> None:
            nonlocal rank, left
            siblings = self._below[account]
            shares = sum(one.shares for one in siblings)
            total = used[account, None]

            def level(one: Association) -> float:
                if not one.shares:
                    return 0.0
                part = used[one.account, one.user] / total if total else 0.0
                return one.shares / shares / part if part else math.inf

            before: float | None = None
            ranked = sorted(siblings, key=lambda one: (-level(one), one.user is None))
            for position, one in enumerate(ranked):
                tied = account_tied if not position and account_tied else before == level(one)
                if one.user is None:
                    visit(one.account, tied)
                else:
                    rank = rank if tied else left
                    factors[one.account, one.user] = rank / count
                    left -= 1
                before = level(one)

        visit("root", False)
        return factors

    def _classic(self) -> dict[User, float]:
        used = self._used()
        everything = 0.0
        for amount in self.usage.values():  # one after the other, as compiled code does; sum() rounds otherwise
            everything += amount
        factors: dict[User, float] = {}

        def visit(account: str, share: float, effective: float) -> None:
            children = self._below[account]
            shares = sum(one.shares for one in children)
            for one in children:
                own = share * (one.shares / shares if shares else 0.0)
                actual = used[one.account, one.user] / everything if everything else 0.0
                part = one.shares / shares if shares and account != "root" else 0.0
                usage = actual + (effective - actual) * part
                if one.user is None:
                    visit(one.account, own, usage)
                else:
                    factors[one.account, one.user] = 2.0 ** -(usage / own) if own else 0.0

        visit("root", 1.0, 1.0 if everything else 0.0)
        return factors

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return {
            "last": self._last,
            "usage": [[account, user, amount] for (account, user), amount in self.usage.items()],
            "since": [[job_id, since] for job_id, since in self._since.items()],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on from what :meth:`as_dict` gave."""
        self._last = data["last"]
        self.usage |= {(account, user): amount for account, user, amount in data["usage"]}
        self._since = dict(data["since"])
        self._rank()
