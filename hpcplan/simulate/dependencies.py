"""Job dependencies as sbatch(1) has them: ``afterok:12:13,afterany:14``, ``afterok:12?afterok:13``, ``singleton``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hpcplan.errors import SlurmError
from hpcplan.slurm.records import JobState

__all__ = ["Condition", "Dependency", "Status", "parse_dependency"]

_KINDS: Final = ("after", "afterany", "afterok", "afternotok", "aftercorr")
_TARGET: Final = re.compile(r"(\d+)(?:_(\d+))?(?:\+(\d+))?")


class Status(StrEnum):
    """How one condition stands; the values are squeue's words for it."""

    UNFULFILLED = "unfulfilled"
    MET = "met"
    FAILED = "failed"


@dataclass(slots=True)
class Condition:
    """One condition on one job, which was named as ``target``. ``delay_s`` belongs to ``after:ID+MINUTES`` alone."""

    kind: str
    job_id: int | None = None
    task_id: int | None = None
    delay_s: int = 0
    status: Status = Status.UNFULFILLED
    target: str = ""

    def ended(self, state: JobState) -> None:
        """Take note that the job ended in ``state`` (sbatch(1), --dependency: when each kind is satisfied)."""
        succeeded = state is JobState.COMPLETED
        if self.kind in {"after", "afterany"} or succeeded == (self.kind in {"afterok", "aftercorr"}):
            self.status = Status.MET
        else:
            self.status = Status.FAILED

    def __str__(self) -> str:
        target = f":{self.target}" if self.target else ""
        if self.delay_s:
            target += f"+{self.delay_s // 60}"
        return f"{self.kind}{target}({self.status})"


@dataclass(slots=True)
class Dependency:
    """Conditions that must all hold (``,``) or of which one must (``any_of``, ``?``)."""

    conditions: list[Condition]
    any_of: bool = False

    @property
    def met(self) -> bool:
        """Whether nothing is left to wait for."""
        combine: Callable[[Iterable[bool]], bool] = any if self.any_of else all
        return combine(condition.status is Status.MET for condition in self.conditions)

    @property
    def failed(self) -> bool:
        """Whether it can never be met."""
        combine: Callable[[Iterable[bool]], bool] = all if self.any_of else any
        return combine(condition.status is Status.FAILED for condition in self.conditions)

    @property
    def corresponding(self) -> bool:
        """Whether something is known of what each task of an array waits for by itself (``aftercorr``)."""
        return any(one.kind == "aftercorr" and one.status is not Status.UNFULFILLED for one in self.conditions)

    def hangs_on(self, ended: Collection[int]) -> bool:
        """Whether it would not be met if these jobs had not ended yet."""
        combine: Callable[[Iterable[bool]], bool] = all if self.any_of else any
        return combine(
            one.status is not Status.MET or (one.kind != "after" and one.job_id in ended) for one in self.conditions
        )

    def __str__(self) -> str:
        """What squeue's ``%E`` shows: the conditions that are not met yet."""
        open_ = dict.fromkeys(str(condition) for condition in self.conditions if condition.status is not Status.MET)
        return ("?" if self.any_of else ",").join(open_)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` is its inverse."""
        rows = [
            [one.kind, one.job_id, one.task_id, one.delay_s, one.status.value, one.target] for one in self.conditions
        ]
        return {"any_of": self.any_of, "conditions": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Dependency:
        """Return the dependency of :meth:`as_dict`."""
        conditions = [
            Condition(kind, job_id, task_id, delay_s, Status(status), target)
            for kind, job_id, task_id, delay_s, status, target in data["conditions"]
        ]
        return cls(conditions, data["any_of"])


def parse_dependency(text: str) -> Dependency:
    """Return the dependency that ``--dependency`` was given.

    Raises:
        SlurmError: not one, in sbatch's words.
    """
    any_of = "?" in text
    conditions: list[Condition] = []
    for part in re.split(r"[,?]", text.strip()):
        kind, *targets = part.strip().split(":")
        if kind == "singleton" and not targets:
            conditions.append(Condition("singleton"))
            continue
        matches = [_TARGET.fullmatch(target) for target in targets]
        if kind not in _KINDS or not targets or None in matches or (any_of and "," in text):
            raise SlurmError(
                "sbatch: error: Batch job submission failed: Job dependency problem",
                hint=f"{text!r} is not a dependency; write it like 'afterok:123' (sbatch(1), --dependency)",
            )
        for match in matches:
            assert match is not None
            task = int(match[2]) if match[2] else None
            target = match[0].partition("+")[0]
            conditions.append(Condition(kind, int(match[1]), task, 60 * int(match[3] or 0), target=target))
    return Dependency(conditions, any_of)
