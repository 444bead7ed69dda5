"""When slurmctld's two scheduling threads have their passes (Slurm 22.05), to the millisecond.

The main loop has a turn a second, and falls back a little each time. At a turn it looks at the whole queue if
``sched_interval`` has gone by since it last did so, else at its head if there is reason to and ``batch_sched_delay``
has gone by since the last pass; in whole seconds both.

The backfill thread sleeps ``bf_interval`` after a pass. If on waking nothing has changed since that pass (in whole
seconds), or ``bf_interval`` is not over in whole seconds, it sleeps a second and asks again. What counts as a change:
jobs submitted, started, ended; a main pass that passed jobs over because their partition was held up; and what a pass
of backfill itself leaves behind: idle nodes promised to a job, such promises taken back at the next pass, and a job
that is promised nodes for later than running jobs leave them, because others have been promised them before. Where jobs
compete for nodes it therefore has a pass every ``bf_interval``, else soon after something happens.

Passes that can find nothing new are had here without anybody being asked for them: they count for the clock alone, and
those of the main loop that pass jobs over as a reason for backfill to look again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["BackfillThread", "MainThread"]

_SHORT_SLEEP_MS: Final = 1001
_WORKS_MS: Final = 65  # how long after waking the loop comes to its turn (measured on 22.05.8)
_LONG: Final = 1000  # intervals; where in a second a loop was after so long is nobody's to know


class BackfillThread:
    """The backfill thread's clock; all times are on the trace's clock.

    ``due_ms`` is the next pass that can find something new, ``None`` if there is none in sight.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self._interval_ms = settings.bf_interval_s * 1000
        self._drift_us = settings.backfill_pass_drift_us
        started_ms = settings.started_s * 1000 + settings.started_ms + settings.backfill_phase_ms
        self._last_s = started_ms // 1000
        self._wake_ms = started_ms + settings.bf_interval_s * 1000
        self._changed_s = self._last_s  # nodes register when the controller starts
        self._planned_idle = False
        self._repeats = False  # whether a pass like the last one is reason enough for another
        self.due_ms: int | None = None

    def touched(self, at_ms: int) -> None:
        """Note something that counts as a change, but that no pass can make anything of."""
        self._catch_up(at_ms)
        self._changed_s = max(self._changed_s, at_ms // 1000)

    def changed(self, at_ms: int) -> None:
        """Note a change; a pass follows."""
        self.touched(at_ms)
        if self.due_ms is None or self.due_ms < at_ms:
            self.due_ms = self._wake_ms

    def _after(self, pass_ms: int, passes: int = 1) -> int:
        """Return when it wakes so many passes after one; whole milliseconds, which keep pace with its drift."""
        before = pass_ms // self._interval_ms
        drift_ms = (before + passes) * self._drift_us // 1000 - before * self._drift_us // 1000
        return pass_ms + passes * self._interval_ms + drift_ms

    def _catch_up(self, at_ms: int) -> None:
        """Have the passes before ``at_ms``, and ask every second where nothing has changed since the last one."""
        if self._wake_ms < at_ms and not self._repeats and self._changed_s >= self._last_s:
            self._last_s = self._wake_ms // 1000
            self._wake_ms = self._after(self._wake_ms)
        late_ms = at_ms - self._wake_ms
        if late_ms <= 0:
            return
        if self._repeats:
            passes = -(-late_ms * 1000 // (self._interval_ms * 1000 + self._drift_us))
            passes += self._after(self._wake_ms, passes) < at_ms
            self._last_s = self._changed_s = self._after(self._wake_ms, passes - 1) // 1000
            self._wake_ms = self._after(self._wake_ms, passes)
        else:
            self._wake_ms += -(-late_ms // _SHORT_SLEEP_MS) * _SHORT_SLEEP_MS

    def passed(self, *, planned_idle: bool, competing: bool) -> None:
        """Note that the pass that was due is over.

        ``planned_idle`` is whether idle nodes have been promised in it, ``competing`` whether a job was promised nodes
        for when others would have had them.
        """
        assert self.due_ms is not None
        self._last_s = self.due_ms // 1000
        self._repeats = planned_idle or competing
        if self._planned_idle or self._repeats:
            self._changed_s = self._last_s
        self._planned_idle = planned_idle
        self._wake_ms = self._after(self.due_ms)
        self.due_ms = None

    def postponed(self) -> None:
        """Note that the pass that was due was not had: it asks again in a second."""
        assert self.due_ms is not None
        self.due_ms = self._wake_ms = self.due_ms + _SHORT_SLEEP_MS

    def queue_is_empty(self) -> None:
        """Note that no job waits any more: the next pass promises nothing."""
        self._repeats = False

    def saved(self) -> list[Any]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return [self._last_s, self._wake_ms, self._changed_s, self._planned_idle, self._repeats, self.due_ms]

    def restore(self, data: Sequence[Any]) -> None:
        """Go on from what :meth:`saved` gave."""
        self._last_s, self._wake_ms, self._changed_s, self._planned_idle, self._repeats, self.due_ms = data


class MainThread:
    """The main loop's clock; all times are on the trace's clock.

    ``due_ms`` is when the next pass is that is worth having, ``None`` if there is none in sight, and ``due_whole``
    whether that one is over the whole queue.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        self._interval_s = settings.sched_interval_s
        self._delay_s = settings.batch_sched_delay_s
        self._turn_us = 1_000_000 + settings.loop_drift_us
        self._first_us = (settings.started_s * 1000 + settings.started_ms + settings.loop_phase_ms) * 1000
        began_ms = self._first_us // 1000 - min(_WORKS_MS, settings.loop_phase_ms)
        self._last_whole_s = self._last_s = began_ms // 1000
        self._batch_ms: int | None = None
        self._wanted = False  # whether a pass over the whole queue can find anything new
        self.due_ms: int | None = None
        self.due_whole = False

    def has_turns_at_once(self) -> None:
        """Let the loop have a turn whenever there is something to do."""
        self._turn_us = 1000

    def turn(self, at_ms: int) -> int:
        """Return the first turn at ``at_ms`` or later, whether or not there is anything to do."""
        turns = max(1, -(-(at_ms * 1000 - self._first_us) // self._turn_us))
        return (self._first_us + turns * self._turn_us) // 1000

    def _arm(self) -> None:
        """Work out the next pass."""
        self.due_ms, self.due_whole = None, False
        if self._batch_ms is not None:
            self.due_ms = self.turn(max(self._batch_ms, (self._last_s + self._delay_s) * 1000))
        if self._wanted or self._batch_ms is not None:
            whole_ms = self.turn((self._last_whole_s + self._interval_s) * 1000)
            if self.due_ms is None or whole_ms <= self.due_ms:
                self.due_ms, self.due_whole = whole_ms, True

    def changed(self, at_ms: int, *, batch: bool) -> list[int]:
        """Note a change; ``batch``, if it is one that the loop is told of: a submission, or an end.

        Returns the moments before it at which the loop passed over a queue in which nothing had changed.
        """
        repeated: list[int] = []
        idle_s = at_ms // 1000 - self._last_whole_s
        if idle_s > _LONG * self._interval_s:
            self._last_whole_s += (idle_s // self._interval_s - 1) * self._interval_s
            self._last_s = max(self._last_s, self._last_whole_s)
        self._wanted = True
        self._arm()
        while self.due_ms is not None and self.due_ms < at_ms:
            repeated.append(self.due_ms)
            self.passed(truncated=True)
        if batch and self._batch_ms is None:
            self._batch_ms = at_ms
            self._arm()
        return repeated

    def passed(self, *, truncated: bool) -> None:
        """Note the pass that was due; ``truncated``: whether it left jobs out that one over the whole queue tries."""
        assert self.due_ms is not None
        self._last_s = self.due_ms // 1000
        self._batch_ms = None
        self._wanted = truncated
        if self.due_whole:
            self._last_whole_s = self._last_s
        self._arm()

    def saved(self) -> list[Any]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return [self._last_whole_s, self._last_s, self._batch_ms, self._wanted]

    def restore(self, data: Sequence[Any]) -> None:
        """Go on from what :meth:`saved` gave."""
        self._last_whole_s, self._last_s, self._batch_ms, self._wanted = data
        self._arm()
