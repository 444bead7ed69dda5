"""When the threads of a real slurmctld had their turns: what a recording of one is compared by.

How fast a busy machine lets a controller wake is no rule of Slurm's. With the moments that its log tells, what is
compared are its decisions alone: at each of them, which jobs start, and where.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.threads import BackfillThread, MainThread

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.machine import Machine
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["Moments", "RecordedBackfill", "RecordedMain", "read_moments"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Milliseconds on the trace's clock, which is ``clock_s`` (unix seconds) behind the controller's.

    ``main`` says of each turn too whether it was over the whole queue; ``submits``, ``starts``, ``ends`` and ``gone``,
    by the names of jobs, when the controller took a job in, when it started it, when it heard that it was over and, of
    some, by when it had heard that their nodes were clean: all of them, or each by its name.
    """

    clock_s: int
    started_ms: int
    main: tuple[tuple[int, bool], ...]
    backfill: tuple[int, ...]
    submits: Mapping[str, int] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    gone: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)

    def is_there(self, job: Job, at_ms: int) -> bool:
        """Whether a job that is submitted in this second has come by then."""
        return self.submits.get(job.spec.name, at_ms) <= at_ms

    def end_of(self, job: Job, now: int, expected_ms: int) -> tuple[int, int | None]:
        """Return when the controller heard that a job is over that ends now, and that its nodes are clean, if known.

        That is when it is ``expected_ms``, if the job ran at another time, or was stopped by the controller.
        """
        name = job.spec.name
        over = self.ends.get(name, expected_ms)
        if self.starts.get(name, -1) // 1000 != job.start_time or over < now * 1000:
            return expected_ms, None
        gone = self.gone.get(name)
        return over, max(gone.values()) if isinstance(gone, Mapping) else gone

    def nodes_of(self, job: Job, machine: Machine) -> tuple[tuple[int, int], ...]:
        """Return when the controller heard that which of a job's nodes is clean, if it is known of all that it has."""
        gone = self.gone.get(job.spec.name)
        if not isinstance(gone, Mapping):
            return ()
        found = tuple((at, machine.mask_of([name])) for name, at in gone.items())
        return found if sum(node for _, node in found) == job.nodes else ()


def read_moments(path: Path) -> Moments:
    """Read what ``tests/slurm/record_schedule.py`` writes.

    Raises:
        InputError: not readable, or not such a file.
    """
    try:
        data = json.loads(path.read_text())
        return Moments(
            data["clock_s"], data["started_ms"], tuple((at, bool(whole)) for at, whole in data["main"]),
            tuple(data["backfill"]), data["submits"], data["starts"], data["ends"],
            data.get("gone", {}),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"is no record of a controller's moments: {error!r}", file=str(path))) from None


class RecordedMain(MainThread):
    """A main loop that has its turns when another had them."""

    def __init__(self, settings: SlurmSettings, moments: Moments) -> None:
        self._turns = moments.main
        self._position = 0
        super().__init__(settings)
        self._arm()

    def _arm(self) -> None:
        self.due_ms, self.due_whole = (
            self._turns[self._position] if self._position < len(self._turns) else (None, False)
        )  # fmt: skip

    def turn(self, at_ms: int) -> int:
        """Return the first turn at ``at_ms`` or later in which it had a pass."""
        return next((at for at, _ in self._turns if at >= at_ms), at_ms)

    def changed(self, at_ms: int, *, batch: bool) -> list[int]:
        """Pass over the turns of earlier seconds, in which no job waited."""
        while self.due_ms is not None and self.due_ms // 1000 < at_ms // 1000:
            self.passed(truncated=True)
        return []

    def passed(self, *, truncated: bool) -> None:
        """Go on to the next turn."""
        self._position += 1
        self._arm()


class RecordedBackfill(BackfillThread):
    """A backfill thread that has its passes when another had them."""

    def __init__(self, settings: SlurmSettings, moments: Moments) -> None:
        super().__init__(settings)
        self._passes = iter(moments.backfill)
        self.due_ms = next(self._passes, None)

    def touched(self, at_ms: int) -> None:
        """Pass over the passes of earlier seconds, in which no job waited."""
        while self.due_ms is not None and self.due_ms // 1000 < at_ms // 1000:
            self.due_ms = next(self._passes, None)

    def changed(self, at_ms: int) -> None:
        """Do the same."""
        self.touched(at_ms)

    def passed(self, *, planned_idle: bool, competing: bool) -> None:
        """Go on to the next pass."""
        self.due_ms = next(self._passes, None)
