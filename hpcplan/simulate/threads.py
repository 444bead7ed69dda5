"""When slurmctld's two scheduling threads have their passes (Slurm 22.05), to the millisecond.

The main loop has a turn a second, and falls back a little each time. At a turn it looks at the whole queue if
``sched_interval`` has gone by since it last did so, else at its head if there is reason to and ``batch_sched_delay``
has gone by since the last pass; in whole seconds both.

The backfill thread sleeps ``bf_interval`` after a pass. If on waking nothing has changed since that pass (in whole
seconds), or ``bf_interval`` is not over in whole seconds, it sleeps a second and asks again. What counts as a change:
jobs submitted, started, ended; a main pass that passed jobs over because their partition was held up; idle nodes
promised to a job, or such promises taken back at the next pass. It has its passes too when no job waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["BackfillThread", "MainThread"]

_SHORT_SLEEP_MS: Final = 1001
_BEGINS_MS: Final = 45  # how long after its start slurmctld counts ``sched_interval`` from (measured on 22.05.8)


class BackfillThread:
    """The backfill thread's clock; all times are on the trace's clock."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._interval_s = settings.bf_interval_s
        self._sleep_ms = settings.bf_interval_s * 1000 + settings.backfill_pass_drift_us // 1000
        started_ms = settings.started_s * 1000 + settings.started_ms + settings.backfill_phase_ms
        self._last_s = started_ms // 1000
        self._wake_ms = started_ms + settings.bf_interval_s * 1000
        self._changed_s = self._last_s  # nodes register when the controller starts
        self._planned_idle = False
        self.due_ms: int | None = None
        self._arm(started_ms)

    def _arm(self, at_ms: int) -> None:
        """Work out the next pass, if there is reason for one since ``at_ms``."""
        if self._changed_s < self._last_s:
            self.due_ms = None
            return
        if at_ms > self._wake_ms:
            self._wake_ms += -(-(at_ms - self._wake_ms) // _SHORT_SLEEP_MS) * _SHORT_SLEEP_MS
        while self._wake_ms // 1000 - self._last_s < self._interval_s:
            self._wake_ms += _SHORT_SLEEP_MS
        self.due_ms = self._wake_ms

    def changed(self, at_ms: int) -> None:
        """Note that something has changed; passes with nothing to do that were due before have been had."""
        while self.due_ms is not None and self.due_ms < at_ms:
            self.passed(planned_idle=False)
        self._changed_s = max(self._changed_s, at_ms // 1000)
        if self.due_ms is None:
            self._arm(at_ms)

    def passed(self, *, planned_idle: bool) -> None:
        """Note that the pass that was due is over; ``planned_idle``: whether idle nodes have been promised in it."""
        assert self.due_ms is not None
        self._last_s = self.due_ms // 1000
        if planned_idle or self._planned_idle:
            self._changed_s = max(self._changed_s, self._last_s)
        self._planned_idle = planned_idle
        self._wake_ms = self.due_ms + self._sleep_ms
        self._arm(self.due_ms)

    def saved(self) -> list[Any]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return [self._last_s, self._wake_ms, self._changed_s, self._planned_idle, self.due_ms]

    def restore(self, data: Sequence[Any]) -> None:
        """Go on from what :meth:`saved` gave."""
        self._last_s, self._wake_ms, self._changed_s, self._planned_idle, self.due_ms = data


class MainThread:
    """The main loop's clock; all times are on the trace's clock.

    ``whole_wanted`` is whether a pass over the whole queue can find anything new. Those that cannot are not waited for,
    but had all the same.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self._interval_s = settings.sched_interval_s
        self._delay_s = settings.batch_sched_delay_s
        self._turn_us = 1_000_000 + settings.loop_drift_us
        self._first_us = (settings.started_s * 1000 + settings.started_ms + settings.loop_phase_ms) * 1000
        began_ms = settings.started_s * 1000 + settings.started_ms + min(_BEGINS_MS, settings.loop_phase_ms)
        self._last_whole_s = self._last_s = began_ms // 1000
        self._batch_ms: int | None = None
        self.whole_wanted = False

    def _turn(self, at_ms: int) -> int:
        """Return the first turn at ``at_ms`` or later."""
        turns = max(1, -(-(at_ms * 1000 - self._first_us) // self._turn_us))
        return (self._first_us + turns * self._turn_us) // 1000

    def _whole_ms(self) -> int:
        return self._turn((self._last_whole_s + self._interval_s) * 1000)

    def _next(self, *, wanted: bool) -> tuple[int, bool] | None:
        batch = None
        if self._batch_ms is not None:
            batch = self._turn(max(self._batch_ms, (self._last_s + self._delay_s) * 1000))
        if wanted or batch is not None:
            whole = self._whole_ms()
            return (whole, True) if batch is None or whole <= batch else (batch, False)
        return None

    @property
    def due_ms(self) -> int | None:
        """When the next pass is that is worth having; ``None`` if there is none in sight."""
        found = self._next(wanted=self.whole_wanted)
        return None if found is None else found[0]

    def changed(self, at_ms: int, *, batch: bool) -> None:
        """Note a change; ``batch``, if it is one that the loop is told of: a submission, or an end."""
        idle_s = at_ms // 1000 - self._last_whole_s
        if idle_s > 1000 * self._interval_s:  # where in a second it was by then is nobody's to know
            self._last_whole_s += (idle_s // self._interval_s - 1) * self._interval_s
            self._last_s = max(self._last_s, self._last_whole_s)
        while (due := self._next(wanted=True)) is not None and due[0] < at_ms:
            self.passed(*due)
        self.whole_wanted = True
        if batch and self._batch_ms is None:
            self._batch_ms = at_ms

    def is_whole(self) -> bool:
        """Whether the pass that is due next is over the whole queue."""
        found = self._next(wanted=self.whole_wanted)
        return found is not None and found[1]

    def passed(self, at_ms: int, whole: bool) -> None:
        """Note a pass."""
        self._last_s = at_ms // 1000
        self._batch_ms = None
        if whole:
            self._last_whole_s = self._last_s

    def saved(self) -> list[Any]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return [self._last_whole_s, self._last_s, self._batch_ms, self.whole_wanted]

    def restore(self, data: Sequence[Any]) -> None:
        """Go on from what :meth:`saved` gave."""
        self._last_whole_s, self._last_s, self._batch_ms, self.whole_wanted = data
