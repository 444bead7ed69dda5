"""A slurmctld in motion: the engine with the main and the backfill scheduler running when Slurm's do.

When slurmctld 22.05 looks at the queue, as far as whole seconds show it:

- once jobs have been submitted or have ended, ``batch_sched_delay`` after the last pass: ``default_queue_depth`` jobs
  (the submission of a batch job starts nothing by itself);
- every ``sched_interval``: the whole queue. Both stop, partition by partition, at the first job that has to wait;
- every ``bf_interval`` while jobs wait: the backfill scheduler (:mod:`.slurm_backfill`).

- once jobs are gone that it has stopped itself, at their limits or for others: the head of the queue, at once (unless
  ``defer`` is among the parameters).

Each of the two threads has its turn at some moment within a second (:mod:`.threads`), and sees the ends of jobs before
that moment only: the nodes of a job can be given out, and jobs that depend on it start, at the second of its end or at
the next. Limits are looked at every 30 s. A job that is stopped at its limit obeys SIGTERM: KillWait is not waited for.

What is done here with whole nodes is done once more in :mod:`.compiled`, for long traces: change both.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hpcplan.simulate.backfilling import backfill
from hpcplan.simulate.dependents import History
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.limits import LimitKeeper
from hpcplan.simulate.main_pass import main_pass
from hpcplan.simulate.multifactor import Multifactor
from hpcplan.simulate.placement import Placement
from hpcplan.simulate.policies import Fcfs
from hpcplan.simulate.preemption import Preemption
from hpcplan.simulate.reservations import Reservation, Reservations, licenses_of, refuse_unknown
from hpcplan.simulate.several_partitions import alone, without_switches
from hpcplan.simulate.submit_limits import has_submit_limits, refuse_too_many
from hpcplan.simulate.threads import BackfillThread, MainThread
from hpcplan.slurm.records import JobState
from hpcplan.units import parse_slurm_time

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.engine import ArrivalSource
    from hpcplan.simulate.jobs import Job, JobSpec, Request
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["Controller"]

_KILLED_MS: Final = 25  # from SIGKILL to the nodes' word that the job is gone (measured on 22.05.8: 28 and more)
_SUBMITTED_MS: Final = 20  # how far into its second a submission is taken to arrive


class Controller(Engine):
    """A cluster that schedules like the slurmctld whose slurm.conf was read, second by second."""

    def __init__(
        self,
        cluster: SlurmCluster,
        *,
        now: int = 0,
        name: str | None = None,
        arrivals: ArrivalSource | None = None,
        history: History = lambda job_id: (),
    ) -> None:
        self.settings = cluster.settings
        by_line = self.settings.preempt_type == "none"
        self.placement = Placement(cluster.machine, cluster.switches, cluster.block_sizes, by_line=by_line)
        self._resources: Resources | None = None
        if cluster.machine.shares_nodes:
            from hpcplan.simulate.resources import Capacity, Resources

            self._resources = Resources(Capacity(cluster.machine))
        self._holdings: dict[int, Holding] = {}
        policy = cluster.policy
        self._submit_limits = policy if has_submit_limits(policy) else None
        self._limits = LimitKeeper(policy, cluster.machine, self.settings) if policy.qos or policy.accounts else None
        self._licensed: dict[int, Job] = {}  # jobs with licences whose end is not yet seen
        self._stopped: set[int] = set()  # jobs that the controller has stopped and that are not yet gone
        self._at_once = False  # the main scheduler looks as soon as they are
        self._preempting: dict[int, int] = {}  # when a waiting job had others stopped
        self._preemption = Preemption(cluster.machine, self.settings, policy)
        self.reservations = Reservations(cluster.reservations)
        self._next_reservation = self.reservations.next_change(now - 1)
        self._licenses = dict(self.settings.licenses)
        super().__init__(cluster.machine, Fcfs(), now=now, cluster=name, arrivals=arrivals, history=history)
        self._tiers = {name: part.priority_tier for name, part in cluster.machine.partitions.items()}
        self._one_tier = len(set(self._tiers.values())) == 1
        self._by_id = self.settings.builtin and not self.settings.multifactor
        self._multifactor = Multifactor(cluster.machine, self.settings, policy) if self.settings.multifactor else None
        self._began_ms: dict[int, int] = {}  # how far into its second each running job was started
        self._turn_ms = 0  # how far into the present second it is
        self._promised: list[tuple[int, int, int]] = []  # (end by limit, job, nodes) of what runs or completes, sorted
        self._completing: list[tuple[int, tuple[int, int, int]]] = []  # ends not yet seen: when, in ms, and of what
        self._switch_waits: list[tuple[int, int]] = []  # (until when a job waits for few switches, its id)
        self._triggered = False
        self._moments = cluster.moments
        self._main, self._backfill = MainThread(self.settings), BackfillThread(self.settings)
        if self._moments is not None:
            from hpcplan.simulate.moments import RecordedBackfill, RecordedMain

            self._main = RecordedMain(self.settings, self._moments)
            self._backfill = RecordedBackfill(self.settings, self._moments)
        self._limits_end_jobs = self._limits is not None and self._limits.end_jobs
        self._looked_at_limits = now  # when the minutes of groups were last held against jobs that run
        self._unseen = 0  # of ``changes``, ends when they happen and not when they are seen
        self._visible_changes = -1  # whatever is there at the beginning is a change
        self._first_turn = self.settings.first_second(self.settings.loop_phase_ms)

    def saved(self) -> dict[str, Any]:
        """Return what has to be saved beside the jobs so that the future stays the same, as data for JSON."""
        from hpcplan.simulate.controller_state import saved

        return saved(self)

    def restore_saved(self, data: Mapping[str, Any]) -> None:
        """Go on from what :meth:`saved` gave, the jobs having been restored."""
        from hpcplan.simulate.controller_state import restore_saved

        restore_saved(self, data)

    @property
    def account_policy(self) -> AccountPolicy:
        """QOS and associations, as far as they are known."""
        return self._preemption.policy

    @property
    def multifactor(self) -> Multifactor | None:
        """What makes the priorities of jobs; ``None`` with ``priority/basic``."""
        return self._multifactor

    # time -----------------------------------------------------------------------------------------------------------

    def next_event_time(self) -> int | None:
        """Return when something happens next: in the cluster, or in the controller's loop."""
        times = [time for time in (super().next_event_time(), *self._due()) if time is not None]
        return min(times, default=None)

    def end_of(self, job: Job) -> tuple[int, tuple[JobState, int, int]]:
        """Return when a running job ends: its own end, or the first look at limits that finds it over its own."""
        assert job.start_time is not None
        settings = self.settings
        behaviour = job.behaviour
        done = job.start_time + behaviour.runtime_s
        over = job.limit_end + (settings.over_time_limit_s if job.grace_end is None else 0)
        if done <= over:
            return done, (JobState(behaviour.state), behaviour.exit_code, behaviour.signal)
        stopped = over + (self._first_turn - over) % settings.time_limit_check_s
        preempted = job.grace_end is not None and stopped < done
        # over its limit it has timed out, though it ends by itself
        return min(done, stopped), (JobState.PREEMPTED if preempted else JobState.TIMEOUT, 0, 0)

    def _due(self) -> list[int]:
        """Return when passes, and nodes coming free, are due."""
        times = [self._switch_waits[0][0]] if self._switch_waits else []
        if self._limits_end_jobs and self.running:
            times.append(self._next_look_at_limits())
        if self._completing:
            times.append(max(self.now, self._completing[0][0] // 1000))
        if self._next_reservation is not None:
            times.append(max(self.now, self._next_reservation))
        if self.queue and (due_ms := self._priorities_due_ms(self.now * 1000)) is not None:
            times.append(due_ms // 1000)
        if self.queue:
            for thread in (self._main, self._backfill):
                if thread.due_ms is not None:
                    times.append(max(thread.due_ms // 1000, self.now))
        return times

    def _next_look_at_limits(self) -> int:
        soonest = max(self.now, self._looked_at_limits + 1)
        return soonest + (self._first_turn - soonest) % self.settings.time_limit_check_s

    # scheduling -----------------------------------------------------------------------------------------------------

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

    def _classify(self, job: Job) -> None:
        was_queued = job.eligible_time is not None
        if self._multifactor is not None and not was_queued:
            self._multifactor.update((job,), self.now)
        super()._classify(job)
        if self._resources is not None and not was_queued:
            self._resources.level(job.request, self.available)
            self._resources.weigh(job.request, self.available, ever=True)
        if not was_queued and job.eligible_time == job.submit_time == self.now:
            self._triggered = True
            if job.request.switches:
                heapq.heappush(self._switch_waits, (self.now + self._switch_wait_s(job), job.id))

    def _switch_wait_s(self, job: Job) -> int:
        """Return how long a job insists on its number of switches: ``--switches=N@TIME``, capped by the controller."""
        longest = self.settings.max_switch_wait_s
        _, _, wait = (job.spec.switches or "").partition("@")
        return min(longest, parse_slurm_time(wait) or longest) if wait else longest

    def _whole_nodes(self) -> bool:
        return self._resources is None

    def _hold(self, job: Job) -> None:
        resources = self._resources
        if resources is None:
            super()._hold(job)
        else:
            holding = self._holdings[job.id] = resources.holding(job.request, job.nodes, job.node_cpus)
            if job.request.spread:
                job.node_cpus = holding.cpus
            resources.take(holding)
            self.busy = resources.full()
        insort(self._promised, (job.limit_end, job.id, job.nodes))
        self._began_ms[job.id] = self._turn_ms
        if self._limits is not None:
            self._limits.started(job)
        if job.spec.licenses:
            self._count_licenses(job, -1)

    def _end(self, job: Job, state: JobState, exit_code: int = 0, signal: int = 0) -> None:
        """Take a job out of the cluster for good, or put one back into the queue that is preempted and requeued."""
        if state is JobState.PREEMPTED and self._preemption.mode(job) == "requeue":
            self._requeue(job, state)
        else:
            super()._end(job, state, exit_code, signal)

    def _give_back(self, job: Job, state: JobState) -> None:
        """Let the nodes of a job be cleaned up; what the controller ends itself it sees ending."""
        assert job.start_time is not None
        began_ms = self._began_ms.pop(job.id, 0)
        self._unseen += 1
        if state is JobState.REQUEUED:
            lag_ms = 1000
        elif state in (JobState.PREEMPTED, JobState.TIMEOUT):
            by_check = state is JobState.TIMEOUT or (job.grace_end is not None and self.end_of(job)[0] == self.now)
            at_ms = self._main.turn(self.now * 1000) % 1000 if by_check else self._turn_ms
            # a recording does not tell of the look itself, but of the pass that follows when they are gone
            lag_ms = at_ms + (0 if by_check and self._moments is not None else _KILLED_MS)
            self._stopped.add(job.id)
        else:
            lag_ms = began_ms + self.settings.end_overhead_ms
        seen_ms = self.now * 1000 + lag_ms
        if self._moments is not None:
            seen_ms = self._moments.seen_ms(job, self.now) or seen_ms
        heapq.heappush(self._completing, (seen_ms, (job.limit_end, job.id, job.nodes)))
        if job.spec.licenses:
            self._licensed[job.id] = job
        if self._multifactor is not None and self._multifactor.fair_share is not None:
            self._multifactor.fair_share.ended(job, self.now)

    def _clean_up(self, ended: tuple[int, int, int]) -> None:
        """Let nodes be given out again."""
        _, job_id, nodes = ended
        if self._limits is not None:
            self._limits.ended(job_id, self.now)
        if job_id in self._stopped:
            self._stopped.remove(job_id)
            self._at_once = self._moments is None and not self.settings.defer
        if job_id in self._licensed:
            self._count_licenses(self._licensed.pop(job_id), 1)
        if self._resources is None:
            self.busy &= ~nodes
        else:
            self._resources.give_back(self._holdings.pop(job_id))
            self.busy = self._resources.full()
        del self._promised[bisect_left(self._promised, ended)]

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
        submitted = now_ms + _SUBMITTED_MS if self._take_changes() else None
        batch, self._triggered = self._triggered, False
        priorities = self._priorities_due_ms(now_ms)
        while True:
            end = self._completing[0][0] if self._completing else None
            due = (end, submitted, priorities, main.due_ms, backfill.due_ms)
            moments = [time for time in due if time is not None]
            at = min(moments, default=now_ms + 1000)
            if at >= now_ms + 1000:
                break
            self._turn_ms = max(0, at - now_ms)
            if at == end:
                self._see_ends(at)
                self._look_at_once()
            elif at == submitted:
                self._tell(at, batch=batch)
                submitted = None
            elif at == priorities:
                self._reprioritise(at)
                priorities = None
            elif at == main.due_ms:
                self._main_turn()
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
        if not self.settings.builtin:
            self._backfill.changed(at_ms)
        self._main.changed(at_ms, batch=batch)

    def _see_ends(self, until_ms: int) -> None:
        """Let the nodes of jobs be given out again whose ends the controller has seen by then."""
        while self._completing and self._completing[0][0] <= until_ms:
            self._clean_up(heapq.heappop(self._completing)[1])
            self.changes += 1
            self._triggered = True

    def _look_at_once(self) -> None:
        """Have a pass of the main scheduler as soon as jobs are gone that it has stopped."""
        if self._at_once and self.queue:
            self._main_pass(whole=False)
        self._at_once = False

    def _main_turn(self) -> None:
        """Have the pass of the main loop that is due."""
        truncated = not self._main.due_whole and self.settings.default_queue_depth + 1 < len(self.queue)
        passed_over = self._main_pass(whole=self._main.due_whole) if self.queue else False
        at_ms = self._main.due_ms
        self._main.passed(truncated=truncated)
        if passed_over and at_ms is not None:
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

    # what else than nodes a job needs ---------------------------------------------------------------------------------

    def waits_for(self, job: Job) -> str | None:
        """Return squeue's word for what keeps a job of the queue from starting that is no lack of nodes."""
        if job.spec.licenses and any(
            self._licenses.get(name, 0) < count for name, count in licenses_of(job.spec.licenses)
        ):
            return "Licenses"
        if job.spec.reservation is not None and not self.reservations.usable(job, self.now, job.request.eligible):
            return "Reservation"
        return self._limits.broken(job, self.now) if self._limits is not None else None

    def reserve(self, reservation: Reservation) -> None:
        """Make a reservation, or change the one of that name; a pass follows."""
        self.reservations.by_name[reservation.name] = reservation
        self._disturbed()

    def unreserve(self, name: str) -> None:
        """Delete a reservation.

        Raises:
            KeyError: there is none of that name.
        """
        del self.reservations.by_name[name]
        self._disturbed()

    def _disturbed(self) -> None:
        self._next_reservation = self.reservations.next_change(self.now)
        self.changes += 1
        self._triggered = True
        self._schedule()

    def _check(self, spec: JobSpec, user: str) -> None:
        refuse_unknown(spec, user, self.licenses, self.reservations)
        self.placement.refuse(spec)
        if self._submit_limits is not None:
            refuse_too_many(self._submit_limits, spec, user, self.jobs.values())

    @property
    def licenses(self) -> dict[str, int]:
        """The licences that there are, by name."""
        return dict(self.settings.licenses)

    def _count_licenses(self, job: Job, sign: int) -> None:
        for name, count in licenses_of(job.spec.licenses):
            self._licenses[name] += sign * count

    def _ordered(self) -> list[Job]:
        queue = self.candidates()
        if self._moments is not None:
            queue = [job for job in queue if self._moments.is_there(job, self.now * 1000 + self._turn_ms)]
        elif self._turn_ms < _SUBMITTED_MS:
            queue = [job for job in queue if job.submit_time < self.now]
        if self._completing:
            unseen = {job_id for _, (_, job_id, _) in self._completing}
            queue = [job for job in queue if job.dependency is None or not job.dependency.hangs_on(unseen)]
        if self._several_partitions:
            queue = [one for job in queue for one in alone(job)]
            if self._multifactor is not None:
                own = {id(job) for job in self.queue}
                self._multifactor.update((one for one in queue if id(one) not in own), self.now)
            queue.sort(key=lambda job: job.order)
        if self._by_id:
            queue.sort(key=lambda job: job.id)
        elif self.reservations or not self._one_tier:  # jobs of reservations go first
            tiers = self._tiers
            queue.sort(key=lambda job: (job.spec.reservation is None, -tiers[job.request.partition], *job.order))
        return self._preemption.preemptors_first(queue)

    def _main_pass(self, *, whole: bool) -> bool:
        """Have a pass of the main scheduler; whether jobs were passed over because their partition was held up."""
        return main_pass(self, whole=whole)

    def _choose(self, request: Request, usable: int) -> int:
        """Return the nodes that a job would be given now, 0 if it does not fit."""
        if self._resources is None:
            return self.placement.choose(request, usable)
        self._resources.level(request, self.available)
        nodes = self._resources.choose(request, self.placement, usable)
        if not nodes:
            self._resources.weigh(request, self.available, ever=True)
        return nodes

    @property
    def _constrained(self) -> bool:
        return self._limits is not None or bool(self._licenses) or bool(self.reservations)

    def _backfill_pass(self) -> tuple[bool, bool]:
        """Have a pass of the backfill scheduler: see :func:`.backfilling.backfill`."""
        return backfill(self)

    def _may_backfill(self, job: Job) -> bool:
        return job.id not in self.running and self.waits_for(job) is None

    def _drop_started(self) -> None:
        """Take the jobs out of the queue that a pass has started."""
        self.queue = [job for job in self.queue if job.start_time is None]
        if not self.queue:
            self._backfill.queue_is_empty()
