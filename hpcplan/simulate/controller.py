"""A slurmctld in motion: the engine with the main and the backfill scheduler running when Slurm's do.

When slurmctld 22.05 looks at the queue, as far as whole seconds show it:

- once jobs have been submitted or have ended, ``batch_sched_delay`` after the last pass: ``default_queue_depth`` jobs
  (the submission of a batch job starts nothing by itself);
- every ``sched_interval``: the whole queue. Both stop, partition by partition, at the first job that has to wait;
- every ``bf_interval`` while jobs wait: the backfill scheduler (:mod:`.slurm_backfill`).

Each of the two threads has its turn at some moment within a second, and sees the ends of jobs before that moment only:
the nodes of a job can be given out at the second of its end or at the next. Limits are looked at every 30 s. A job that
is stopped at its limit obeys SIGTERM: KillWait is not waited for.

What is done here with whole nodes is done once more in :mod:`.compiled`, for long traces: change both.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hpcplan.simulate.backfilling import backfill, preempt_for
from hpcplan.simulate.dependents import History
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.job_records import natural_end
from hpcplan.simulate.limits import LimitKeeper
from hpcplan.simulate.multifactor import Multifactor
from hpcplan.simulate.placement import Placement
from hpcplan.simulate.policies import Fcfs
from hpcplan.simulate.preemption import Preemption
from hpcplan.simulate.reservations import Reservation, Reservations, licenses_of, refuse_unknown
from hpcplan.simulate.several_partitions import alone, without_switches
from hpcplan.simulate.submit_limits import has_submit_limits, refuse_too_many
from hpcplan.slurm.records import JobState
from hpcplan.units import parse_slurm_time

if TYPE_CHECKING:
    from hpcplan.simulate.engine import ArrivalSource
    from hpcplan.simulate.jobs import Job, JobSpec, Request
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.simulate.threads import BackfillThread, MainThread

__all__ = ["Controller"]

_KILLED_MS: Final = 40  # from SIGKILL to the nodes' word that the job is gone (measured on 22.05.8: 42 and more)
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
        self._stopped: set[int] = set()  # jobs that were preempted and are not yet gone
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
        self._seen_changes = -1
        self._triggered = False
        self._batch_due: int | None = None  # something has happened since the last pass
        self._whole_due: int | None = None  # and since the last pass over the whole queue
        self._backfill_due: int | None = None
        self._threads: tuple[MainThread, BackfillThread] | None = None  # where jobs share nodes or are preempted
        shared = self._resources is not None and self.settings.consumable
        if (shared or self._preemption.possible) and not self.settings.builtin:
            from hpcplan.simulate.threads import BackfillThread, MainThread

            self._threads = MainThread(self.settings), BackfillThread(self.settings)
        self._moments = cluster.moments
        if self._moments is not None:
            from hpcplan.simulate.moments import RecordedBackfill, RecordedMain

            self._threads = (
                RecordedMain(self.settings, self._moments), RecordedBackfill(self.settings, self._moments)
            )  # fmt: skip
        self._unseen = 0  # of ``changes``, ends when they happen and not when they are seen
        self._visible_changes = 0
        self._was_empty = True
        self._last_change = now - 1
        self._last_pass = now - 86400
        self._last_backfill = self.settings.first_second(self.settings.backfill_phase_ms)
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
        over = job.limit_end + settings.over_time_limit_s
        if done <= over:
            return done, (JobState(behaviour.state), behaviour.exit_code, behaviour.signal)
        stopped = over + (self._first_turn - over) % settings.time_limit_check_s
        return min(done, stopped), natural_end(job)  # over its limit it has timed out, though it ends by itself

    def _due(self) -> list[int]:
        """Return when passes, and nodes coming free, are due."""
        times = [self._switch_waits[0][0]] if self._switch_waits else []
        if self._completing:
            times.append(max(self.now, self._completing[0][0] // 1000))
        if self._next_reservation is not None:
            times.append(max(self.now, self._next_reservation))
        if self.queue and self._multifactor is not None and (due := self._multifactor.next_due(self.now)) is not None:
            times.append(due)
        if self.queue and self._threads is not None:
            times += [max(thread.due_ms // 1000, self.now) for thread in self._threads if thread.due_ms is not None]
        elif self.queue:
            for time in (self._next_pass(), self._whole_due, self._backfill_due):
                if time is not None:
                    times.append(max(time, self.now))
        return times

    def _grid(self, time: int) -> int:
        """Return the last periodic pass at or before ``time``."""
        return time - (time - self._first_turn) % self.settings.sched_interval_s

    def _next_pass(self) -> int | None:
        """Return when the batch of what has happened is due; a periodic pass delays it as any other pass does."""
        if self._batch_due is None:
            return None
        grid = self._grid(self._batch_due)
        if grid == self._batch_due > self._last_pass:
            return grid
        last = max(self._last_pass, grid)
        return min(
            grid + self.settings.sched_interval_s, max(self._batch_due, last + self.settings.batch_sched_delay_s)
        )

    # scheduling -----------------------------------------------------------------------------------------------------

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

    def _give_back(self, job: Job, state: JobState) -> None:
        """Let the nodes of a job be cleaned up; what the controller ends itself it sees ending."""
        assert job.start_time is not None
        began_ms = self._began_ms.pop(job.id, 0)
        self._unseen += 1
        if state is JobState.REQUEUED:
            lag_ms = 1000
        elif state is JobState.PREEMPTED:
            lag_ms = self._turn_ms + _KILLED_MS
            self._stopped.add(job.id)
        else:
            lag_ms = 0 if state is JobState.TIMEOUT else began_ms + self.settings.end_overhead_ms
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
            self._at_once = self._moments is None
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
        self._settle()
        self._reprioritise()
        settings, now = self.settings, self.now
        main_ms, backfill_ms = settings.main_turn_ms(now), settings.backfill_turn_ms(now)
        if self._threads is not None:
            self._follow(*self._threads)
            return
        turns = [(main_ms, self._main_turn)]
        if not settings.builtin:
            turns.insert(int(main_ms <= backfill_ms), (backfill_ms, self._backfill_turn))
        for self._turn_ms, turn in turns:
            self._see_ends(now * 1000 + self._turn_ms)
            self._look_at_once()
            self._note_changes(now)
            if self.queue:
                turn()
        self._see_ends(now * 1000 + 999)
        self._look_at_once()
        self._note_changes(now + 1)
        self._was_empty |= not self.queue

    def _follow(self, main: MainThread, backfill: BackfillThread) -> None:
        """Let ends be seen and both threads have their turns, in the order in which they come in this second."""
        now_ms = self.now * 1000
        self._tell(now_ms + _SUBMITTED_MS)
        while True:
            end = self._completing[0][0] if self._completing else None
            at = min((time for time in (end, backfill.due_ms, main.due_ms) if time is not None), default=now_ms + 1000)
            if at >= now_ms + 1000:
                break
            self._turn_ms = max(0, at - now_ms)
            if at == end:
                self._see_ends(at)
                self._look_at_once()
            elif at == main.due_ms:
                whole = main.is_whole()
                main.passed(at, whole)
                main.whole_wanted = False
                if self.queue:
                    self._main_pass(whole=whole)
            else:
                backfill.passed(planned_idle=self._backfill_pass() if self.queue else False)
            self._tell(now_ms + self._turn_ms)

    def _tell(self, at_ms: int) -> None:
        """Tell both threads of changes."""
        assert self._threads is not None
        main, backfill = self._threads
        visible = self.changes - self._unseen
        if visible != self._visible_changes:
            backfill.changed(at_ms)
            main.changed(at_ms, batch=self._triggered)
        self._visible_changes, self._seen_changes, self._triggered = visible, self.changes, False

    def _see_ends(self, until_ms: int) -> None:
        """Let the nodes of jobs be given out again whose ends the controller has seen by then."""
        while self._completing and self._completing[0][0] <= until_ms:
            self._clean_up(heapq.heappop(self._completing)[1])
            self.changes += 1
            self._triggered = True

    def _look_at_once(self) -> None:
        """Have a pass of the main scheduler as soon as jobs are gone that it has stopped."""
        if self._at_once and self.queue:
            whole_due, batch_due = self._whole_due, self._batch_due
            self._main_pass(whole=False)
            self._whole_due, self._batch_due = whole_due, batch_due
        self._at_once = False

    def _main_turn(self) -> None:
        whole = self._whole_due is not None and self._whole_due <= self.now
        due = self._next_pass()
        if whole or (due is not None and due <= self.now):
            self._main_pass(whole=whole or self._grid(self.now) == self.now)

    def _backfill_turn(self) -> None:
        if self._backfill_due is not None and self._backfill_due <= self.now:
            self._backfill_pass()

    def _note_changes(self, now: int) -> None:
        """Arm what is due after a change; a batch is due only after submissions and ends, not after starts."""
        if self._triggered and self._batch_due is None:
            self._batch_due = now
        self._triggered = False
        if self.changes == self._seen_changes:
            return
        self._seen_changes = self.changes
        settings = self.settings
        if self._whole_due is None:
            self._whole_due = self._grid(now + settings.sched_interval_s)
        if not settings.builtin:
            if self._backfill_due is not None and self._backfill_due < now:  # a turn with nothing to do
                self._last_backfill, self._backfill_due = self._backfill_due, None
            if self._backfill_due is None:
                self._backfill_due = self._next_backfill(now)
        self._last_change = now

    def _next_backfill(self, now: int) -> int:
        """Return when the backfill thread next looks, something having changed now.

        It looks every ``bf_interval`` as long as something has changed since it last did, as it always has while jobs
        wait. If nothing has, it asks again every second.
        """
        every, last = self.settings.bf_interval_s, self._last_backfill
        if not self._was_empty:
            return last + max(1, -(-(now - last) // every)) * every
        self._was_empty = not self.queue
        if self._last_change >= last:
            last += ((self._last_change - last) // every + 1) * every
            if last >= now:
                return last
            self._last_backfill = last
        return max(now, last + every)

    def _reprioritise(self) -> None:
        factors = self._multifactor
        if factors is None or not factors.due(self.now):
            return
        if factors.fair_share is not None:
            factors.fair_share.update(self.now, self.running.values())
        factors.update(self.queue, self.now)
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
        elif self._threads is not None and self._turn_ms < _SUBMITTED_MS:
            queue = [job for job in queue if job.submit_time < self.now]
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
        return queue

    def _main_pass(self, *, whole: bool) -> None:
        """Start jobs in order; the first of a partition that has to wait holds up the partition's nodes."""
        self._last_pass, self._batch_due = self.now, None
        queue = self._ordered()
        depth = self.settings.default_queue_depth
        if whole or not depth or len(queue) <= depth:
            self._whole_due = None
        else:
            queue = queue[:depth]
        usable = self.free
        looked_at: Counter[str] = Counter()
        usable_in: dict[str, int] = {}  # reservations whose first waiting job holds up the others
        not_held_up = self.available
        passed_over = False
        for job in queue:
            passed_over |= (
                not_held_up & self._partition_masks[job.request.partition]
            ).bit_count() < job.request.minimum
            if not usable and not (self._preemption.possible or self.reservations):
                break
            looked_at[job.request.partition] += 1
            if 0 < self.settings.partition_job_depth < looked_at[job.request.partition]:
                continue
            if self._several_partitions and job.id in self.running:
                continue  # in another partition
            if job.het_id is not None:  # only the backfill scheduler starts them; they hold up their partition
                usable &= ~self._partition_masks[job.request.partition]
                continue
            if self._constrained and self.waits_for(job) is not None:
                continue
            there = usable
            if job.spec.reservation is not None:
                there = usable_in.get(job.spec.reservation, self.free)
            nodes = self._choose(job.request, self.reservations.usable(job, self.now, there))
            if nodes:
                self._start(job, nodes, backfilled=False)
                usable &= self.free
                continue
            if self._preemption.possible:
                usable &= ~preempt_for(self, job, self.reservations.usable(job, self.now, not_held_up))
            unreserved = self.reservations.usable(job, self.now, self.available)
            if job.spec.reservation is not None:
                usable_in[job.spec.reservation] = 0
                continue
            if unreserved != self.available and not self.placement.fits(job.request, unreserved):
                continue  # it would run into a reservation wherever it went, and holds up nobody
            if job.request.required and job.request.required.bit_count() >= job.request.minimum:
                usable &= ~job.request.required  # no more jobs on the nodes that it insists on; the rest go on
            elif self.placement.fits(job.request, self.available):
                usable &= ~self._partition_masks[job.request.partition]
                not_held_up &= ~self._partition_masks[job.request.partition]
        self._drop_started()
        if self._threads is not None:
            main, backfill = self._threads
            if passed_over:
                backfill.changed(self.now * 1000 + self._turn_ms)
            main.whole_wanted |= not whole or (passed_over and bool(self.running))

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

    def _backfill_pass(self) -> bool:
        """Have a pass; whether idle nodes have been promised in it."""
        self._last_backfill, self._backfill_due = self.now, None
        return backfill(self)

    def _may_backfill(self, job: Job) -> bool:
        return job.id not in self.running and self.waits_for(job) is None

    def _drop_started(self) -> None:
        """Take the jobs out of the queue that a pass has started."""
        self.queue = [job for job in self.queue if job.start_time is None]
