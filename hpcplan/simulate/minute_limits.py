"""What QOS and associations have used in minutes, for limits on minutes (``GrpTRESMins``, ``GrpWall``, ...).

As slurmctld 22.05 counts it: by priority/multifactor, as jobs end and every ``PriorityCalcPeriod``, decayed by
``PriorityDecayHalfLife`` (slurm.conf(5)); with priority/basic nothing is ever used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["WALL", "UsedMinutes"]

WALL: Final = "wall"  # the time that jobs ran, whatever they had: counted like TRES
_LN2: Final = 0.693  # as slurmctld has it


@dataclass(slots=True)
class _Run:
    """A job that runs; ``counted_s`` is up to when it has been counted."""

    keys: tuple[Hashable, ...]
    tres: Mapping[str, float]
    limit_end_s: int
    counted_s: int


class UsedMinutes:
    """Counts by the keys of QOS and associations."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._counts = settings.multifactor and settings.priority_recalculated
        self._every_s = settings.priority_calc_period_s
        half_life_s = settings.priority_decay_half_life_s
        self._keep_per_s = 1.0 - _LN2 / half_life_s if half_life_s else 1.0
        self._first_s = settings.count_ms // 1000
        self._last_s: int | None = None
        self._runs: dict[int, _Run] = {}
        self._used: defaultdict[Hashable, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def started(
        self, job_id: int, keys: tuple[Hashable, ...], tres: Mapping[str, int], factor: float, now: int, limit_s: int
    ) -> None:
        """Count a job from now on; ``factor`` is the ``UsageFactor`` of its QOS."""
        self._advance(now)
        amounts = {name: amount * factor for name, amount in tres.items()}
        self._runs[job_id] = _Run(keys, amounts | {WALL: 1.0}, now + limit_s, now)

    def ended(self, job_id: int, now: int) -> None:
        """Count a job until now."""
        self._advance(now)
        run = self._runs.pop(job_id, None)
        if run is not None and self._counts:
            self._count(run, now)

    def used(self, key: Hashable, name: str, now: int) -> float:
        """Return the minutes of a TRES, or of wall time, that have been used."""
        self._advance(now)
        return self._used[key][name] / 60 if key in self._used else 0.0

    def to_come(self, key: Hashable, name: str, now: int) -> float:
        """Return the minutes of a TRES that running jobs may use still."""
        self._advance(now)
        seconds = sum(
            run.tres.get(name, 0) * (run.limit_end_s - run.counted_s) for run in self._runs.values() if key in run.keys
        )
        return seconds / 60

    def _advance(self, now: int) -> None:
        """Count at each moment up to now at which slurmctld does."""
        if not self._counts:
            return
        last = now - (now - self._first_s) % self._every_s
        if self._last_s is None:
            self._last_s = last
        if not self._runs and last > self._last_s:
            self._decay(last)
        while self._last_s < last:
            self._decay(self._last_s + self._every_s)
            for run in self._runs.values():
                self._count(run, self._last_s)

    def _count(self, run: _Run, until_s: int) -> None:
        seconds = max(0, until_s - run.counted_s)
        for key in run.keys:
            used = self._used[key]
            for name, amount in run.tres.items():
                used[name] += amount * seconds * self._keep_per_s**seconds
        run.counted_s += seconds

    def _decay(self, to_s: int) -> None:
        assert self._last_s is not None
        kept = self._keep_per_s ** (to_s - self._last_s)
        if kept < 1:
            for used in self._used.values():
                for name in used:
                    used[name] *= kept
        self._last_s = to_s
