"""When slurmctld's threads have their turns, and what each turn sees.

When slurmctld 22.05 looks at the queue, as far as whole seconds show it:

- once jobs have been submitted or have ended, ``batch_sched_delay`` after the last pass: ``default_queue_depth`` jobs
  (the submission of a batch job starts nothing by itself);
- every ``sched_interval``: the whole queue. Both stop, partition by partition, at the first job that has to wait;
- every ``bf_interval`` while jobs wait: the backfill scheduler (:mod:`.slurm_backfill`);
- none of them looks while a job is completing, where there is a ``CompleteWait``: a pass of the main scheduler is left
  out, one of backfill comes a second later;
- once the last node of a job tells by itself that the job is gone: the head of the queue, at once (unless ``defer`` is
  among the parameters). The loop is then not asked for another pass. Nodes tell where there is something to do when a
  job has ended: the job was stopped, at its limit or for another one; or there is an ``Epilog`` to run, or a step of
  the allocation's to end (``PrologFlags=Contain``). Else they answer to the controller's word that the job is over, and
  it is the loop that is asked for a pass. (On a real one some ends of the second kind come to be of the first, where a
  job's last process lives for a moment longer than its script: 12 % of 2,294 recorded ones.)

Each of the two threads has its turn at some moment within a second (:mod:`.threads`), and sees the ends of jobs before
that moment only: the nodes of a job can be given out, and jobs that depend on it start, at the second of its end or at
the next. Limits are looked at every 30 s. A job that is stopped at its limit obeys SIGTERM: KillWait is not waited for.
"""

from __future__ import annotations

import heapq
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.compiled.pace import SUBMITTED_MS
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.several_partitions import without_switches
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.completing import Completing, EndedJob
    from hpcplan.simulate.limits import LimitKeeper
    from hpcplan.simulate.moments import Moments
    from hpcplan.simulate.multifactor import Multifactor
    from hpcplan.simulate.reservations import Reservations
    from hpcplan.simulate.slurm_settings import SlurmSettings
    from hpcplan.simulate.threads import BackfillThread, MainThread

__all__ = ["Turns"]

_LONG_DECAYED: Final = 20  # half-lives, after which a millionth is left


class Turns(Engine):
    """A cluster whose main and backfill schedulers have their turns; what they do then is :class:`.Controller`'s."""

    settings: SlurmSettings
    reservations: Reservations
    _main: MainThread
    _backfill: BackfillThread
    _multifactor: Multifactor | None
    _limits: LimitKeeper | None
    _next_reservation: int | None
    _completing: Completing
    _switch_waits: list[tuple[int, int]]  # (until when a job waits for few switches, its id)
    _turn_ms: int  # how far into the present second it is
    _triggered: bool
    _passed_over: bool  # whether the last pass passed jobs over because their partition was held up
    _at_once: bool  # whether the main scheduler looks now, a node having told that a job is gone
    _moments: Moments | None
    _unseen: int  # of ``changes``, ends when they happen and not when they are seen
    _visible_changes: int
    _first_turn: int
    _limits_end_jobs: bool
    _looked_at_limits: int  # when the minutes of groups were last held against jobs that run

    @abstractmethod
    def _over(self, ended: EndedJob) -> None:
        """Let others count on what a job held; its nodes stay closed until they are clean."""

    @abstractmethod
    def _is_told(self, ended: EndedJob) -> bool:
        """Whether it was a node that told that a job is gone, which has the main scheduler look at once."""

    @abstractmethod
    def _main_pass(self, *, whole: bool) -> bool:
        """Have a pass of the main scheduler; whether jobs were passed over because their partition was held up."""

    @abstractmethod
    def _backfill_pass(self) -> tuple[bool, bool]:
        """Have a pass of the backfill scheduler: whether planned nodes are idle, and whether jobs compete."""

    def next_event_time(self) -> int | None:
        """Return when something happens next: in the cluster, or in the controller's loop."""
        times = [time for time in (super().next_event_time(), *self._due()) if time is not None]
        if self.queue and (times or self._grows_older()):
            due_ms = self._priorities_due_ms(self.now * 1000)
            times += [] if due_ms is None else [due_ms // 1000]
        return min(times, default=None)

    def _grows_older(self) -> bool:
        """Whether the priorities of the queue may change though nothing else happens, where they go by fair share.

        Age comes to its end; shares of what has been used are what they are, and what limits on minutes count decays.
        """
        ends_s = self.settings.priority_max_age_s
        if self._limits_end_jobs:
            ends_s += _LONG_DECAYED * self.settings.priority_decay_half_life_s
        return self.now < max(job.eligible_time or 0 for job in self.queue) + ends_s

    def _due(self) -> list[int]:
        """Return when passes, and nodes coming free, are due."""
        times = [self._switch_waits[0][0]] if self._switch_waits else []
        if self._limits_end_jobs and self.running:
            times.append(self._next_look_at_limits())
        if (heard_ms := self._completing.next_ms) is not None:
            times.append(max(self.now, heard_ms // 1000))
        if self._next_reservation is not None:
            times.append(max(self.now, self._next_reservation))
        if self.queue:
            for thread in (self._main, self._backfill):
                if thread.due_ms is not None:
                    times.append(max(thread.due_ms // 1000, self.now))
        return times

    def _next_look_at_limits(self) -> int:
        soonest = max(self.now, self._looked_at_limits + 1)
        return soonest + (self._first_turn - soonest) % self.settings.time_limit_check_s

    def _look_at_limits(self) -> None:
        """End the running jobs whose QOS or association has used up its minutes, as slurmctld does every half minute.

        What is counted in this very second is seen if the loop comes to its turn after that.
        """
        assert self._limits is not None
        seen = self.now if self._main.turn(self.now * 1000) % 1000 >= self.settings.count_ms % 1000 else self.now - 1
        for job in sorted(self.running.values(), key=lambda one: one.id):
            if job.id in self.running and self._limits.used_up(job, seen):
                self._end(job, JobState.TIMEOUT)
        self._looked_at_limits = self.now

    def _schedule(self) -> None:
        """Do what the controller's threads do at this second, each in its turn."""
        while self._switch_waits and self._switch_waits[0][0] <= self.now:
            job = self.jobs.get(heapq.heappop(self._switch_waits)[1])
            if job is not None and not job.running:
                job.request = without_switches(job.request)
                self.changes += 1
        if self._next_reservation is not None and self._next_reservation <= self.now:
            self._next_reservation = self.reservations.next_change(self.now)
            self.changes += 1
            self._triggered = True
        if self._limits_end_jobs and self._next_look_at_limits() == self.now:
            self._look_at_limits()
        self._settle()
        self._reprioritise(self.now * 1000)
        self._take_turns()

    def _take_turns(self) -> None:
        """Let ends be seen, and both threads have their turns, in the order in which they come in this second."""
        now_ms, main, backfill = self.now * 1000, self._main, self._backfill
        submitted = now_ms + SUBMITTED_MS if self._take_changes() else None
        batch, self._triggered = self._triggered, False
        priorities = self._priorities_due_ms(now_ms)
        while True:
            end = self._completing.next_ms
            due = (end, submitted, priorities, main.due_ms, backfill.due_ms)
            moments = [time for time in due if time is not None]
            at = min(moments, default=now_ms + 1000)
            if at >= now_ms + 1000:
                break
            self._turn_ms = max(0, at - now_ms)
            if at == end:
                self._see_ends(at)
            if end is not None:
                self._completing.look(at)
            if at == end:
                self._look_at_once()
            elif at == submitted:
                self._tell(at, batch=batch)
                submitted = None
            elif at == priorities:
                self._reprioritise(at)
                priorities = None
            elif at == main.due_ms:
                self._main_turn()
            elif self._held_back:
                backfill.postponed()
            else:
                planned_idle, competing = self._backfill_pass() if self.queue else (False, False)
                backfill.passed(planned_idle=planned_idle, competing=competing)
            if self._take_changes():
                self._tell(now_ms + self._turn_ms, batch=self._triggered)
                self._triggered = False

    def _take_changes(self) -> bool:
        """Whether something has changed since this was last asked; the end of a job is a change once it is seen."""
        before, self._visible_changes = self._visible_changes, self.changes - self._unseen
        return before != self._visible_changes

    def _tell(self, at_ms: int, *, batch: bool) -> None:
        """Tell both threads of a change; ``batch``, if it is a submission or an end."""
        repeated = self._main.changed(at_ms, batch=batch)
        if self.settings.builtin:
            return
        for again_ms in repeated if self._passed_over else ():
            self._backfill.touched(again_ms)
        self._backfill.changed(at_ms)

    def _see_ends(self, until_ms: int) -> None:
        """Take note of the jobs that the controller hears of by then: that they are over, or their nodes clean."""
        while (heard := self._completing.hear(until_ms)) is not None:
            ended, clean = heard
            self.changes += 1
            if not clean:
                self._over(ended)
                continue
            at_once = self._is_told(ended)
            self._at_once |= at_once
            self._triggered |= not at_once

    def _look_at_once(self) -> None:
        """Have a pass of the main scheduler as soon as nodes tell that jobs are gone."""
        if self._at_once and self.queue and self._moments is None and not self._held_back:
            self._passed_over = self._main_pass(whole=False)
            if self._passed_over:
                self._backfill.touched(self.now * 1000 + self._turn_ms)
        self._at_once = False

    @property
    def _held_back(self) -> bool:
        """Whether no pass is had because of ``CompleteWait``; nodes are clean long before it is over."""
        return bool(self.settings.complete_wait_s and self._completing.nodes and self._moments is None)

    def _main_turn(self) -> None:
        """Have the pass of the main loop that is due."""
        if self._held_back:
            self._main.passed(truncated=True)
            return
        truncated = not self._main.due_whole and self.settings.default_queue_depth + 1 < len(self.queue)
        self._passed_over = self._main_pass(whole=self._main.due_whole) if self.queue else False
        at_ms = self._main.due_ms
        self._main.passed(truncated=truncated)
        if self._passed_over and at_ms is not None:
            self._backfill.touched(at_ms)

    def _priorities_due_ms(self, at_ms: int) -> int | None:
        return self._multifactor.next_due_ms(at_ms) if self._multifactor is not None else None

    def _reprioritise(self, at_ms: int) -> None:
        """Work priorities out anew if a ``PriorityCalcPeriod`` has begun: as of then."""
        factors = self._multifactor
        if factors is None or (began := factors.due(at_ms)) is None:
            return
        if factors.fair_share is not None:
            factors.fair_share.update(began, self.running.values())
            self.changes += 1
        factors.update((job for job in self.queue if (job.eligible_time or 0) <= began), began)
        self.queue.sort(key=lambda job: job.order)
