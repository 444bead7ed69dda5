"""What a site's accounting database says about scheduling: QOS, associations, and the limits of both (sacctmgr(1)).

slurm.conf does not tell any of it. :mod:`.sacctmgr_files` reads it from what sacctmgr prints, a site file has part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["AccountPolicy", "Association", "Limits", "QosPolicy"]

Tres = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a QOS or an association; ``None`` and what is missing in a mapping are no limit.

    TRES are by Slurm's names: ``cpu``, ``node``, ``mem`` (bytes), ``gres/gpu``. ``group`` holds for all jobs together,
    ``job`` for each, ``user`` and ``account`` for those of one; ``submit`` counts waiting jobs too. ``minutes`` are of
    TRES times time: of a job until its limit, of a group what has been used; ``run_minutes`` what its running jobs may
    use still.
    """

    group_tres: Tres = field(default_factory=dict)
    group_jobs: int | None = None
    job_tres: Tres = field(default_factory=dict)
    job_wall_s: int | None = None
    user_tres: Tres = field(default_factory=dict)
    user_jobs: int | None = None
    account_tres: Tres = field(default_factory=dict)
    account_jobs: int | None = None
    group_minutes: Tres = field(default_factory=dict)
    group_run_minutes: Tres = field(default_factory=dict)
    group_wall_s: int | None = None
    job_minutes: Tres = field(default_factory=dict)
    group_submit: int | None = None
    user_submit: int | None = None
    account_submit: int | None = None


@dataclass(frozen=True, slots=True)
class QosPolicy:
    """A quality of service. ``usage_factor`` scales what its jobs count in fair share."""

    name: str
    priority: int = 0
    limits: Limits = Limits()
    preempts: tuple[str, ...] = ()
    preempt_mode: str | None = None
    grace_time_s: int = 0
    preempt_exempt_s: int | None = None  # ``None``: as slurm.conf has it
    usage_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Association:
    """An account (``user`` is ``None``), or a user in one; ``parent`` is the account above an account."""

    account: str
    user: str | None = None
    parent: str | None = None
    shares: int = 1
    limits: Limits = Limits()
    default_qos: str | None = None
    default_account: bool = False


class AccountPolicy:
    """The QOS and the tree of associations of one cluster."""

    def __init__(self, qos: Mapping[str, QosPolicy] | None = None, associations: tuple[Association, ...] = ()) -> None:
        self.qos = dict(qos or {})
        self.accounts = {one.account: one for one in associations if one.user is None}
        self.users = {(one.account, one.user): one for one in associations if one.user is not None}
        self._home: dict[str, str] = {}
        for one in associations:
            if one.user is not None and (one.user not in self._home or one.default_account):
                self._home[one.user] = one.account
        self.highest_qos = max((one.priority for one in self.qos.values()), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` is its inverse."""
        associations = [*self.accounts.values(), *self.users.values()]
        return {
            "qos": [asdict(one) for one in self.qos.values()],
            "associations": [asdict(one) for one in associations],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AccountPolicy:
        """Return the policy of :meth:`as_dict`."""
        qos = {
            one["name"]: QosPolicy(**{**one, "limits": Limits(**one["limits"]), "preempts": tuple(one["preempts"])})
            for one in data["qos"]
        }
        found = (Association(**{**one, "limits": Limits(**one["limits"])}) for one in data["associations"])
        return cls(qos, tuple(found))

    def account_of(self, user: str, account: str | None) -> str | None:
        """Return the account that a job counts for: the one it names, or its user's default."""
        return account if account is not None else self._home.get(user)

    def chain(self, user: str, account: str | None) -> list[Association]:
        """Return the associations that a job is under, from the user's to the root's; none where they are unknown."""
        name = self.account_of(user, account)
        found = []
        if (own := self.users.get((name or "", user))) is not None:
            found.append(own)
        while name is not None and (one := self.accounts.get(name)) is not None and one not in found:
            found.append(one)
            name = one.parent
        return found

    def qos_of(self, user: str, account: str | None, asked: str | None) -> QosPolicy | None:
        """Return the QOS of a job: the one it names, its association's default, or ``normal``."""
        name = asked
        if name is None:
            name = next((one.default_qos for one in self.chain(user, account) if one.default_qos), "normal")
        return self.qos.get(name)
