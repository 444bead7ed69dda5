"""A slurmctld in motion: the engine with Slurm's main and backfill schedulers, which run when Slurm's do
(:mod:`.turns`).

What is done here with whole nodes is done once more in :mod:`.compiled`, for long traces: change both.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcplan.simulate.backfilling import backfill
from hpcplan.simulate.compiled.pace import KILLED_MS, SUBMITTED_MS
from hpcplan.simulate.completing import Completing
from hpcplan.simulate.dependents import History
from hpcplan.simulate.limits import LimitKeeper
from hpcplan.simulate.main_pass import main_pass
from hpcplan.simulate.multifactor import Multifactor
from hpcplan.simulate.placement import Placement
from hpcplan.simulate.policies import Fcfs
from hpcplan.simulate.preemption import Preemption
from hpcplan.simulate.reservations import Reservation, Reservations, licenses_of, refuse_unknown
from hpcplan.simulate.several_partitions import alone
from hpcplan.simulate.submit_limits import has_submit_limits, refuse_too_many
from hpcplan.simulate.threads import BackfillThread, MainThread
from hpcplan.simulate.turns import Turns
from hpcplan.slurm.records import JobState

if TYPE_CHECKING:
    from hpcplan.simulate.account_policy import AccountPolicy
    from hpcplan.simulate.completing import EndedJob
    from hpcplan.simulate.engine import ArrivalSource
    from hpcplan.simulate.jobs import Job, JobSpec, Request
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["Controller"]


class Controller(Turns):
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
        self._told: set[int] = set()  # jobs that have ended, of which nodes will tell when they are gone
        self._at_once = False
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
        self._turn_ms = 0
        self._promised: list[tuple[int, int, int]] = []  # (end by limit, job, nodes) of what runs or completes, sorted
        self._completing = Completing(self.settings.epilog_msg_us if self.settings.nodes_tell else 0)
        self._switch_waits = []
        self._triggered = self._passed_over = False
        self._moments = cluster.moments
        self._main, self._backfill = MainThread(self.settings), BackfillThread(self.settings)
        if self._moments is not None:
            from hpcplan.simulate.moments import RecordedBackfill, RecordedMain

            self._main = RecordedMain(self.settings, self._moments)
            self._backfill = RecordedBackfill(self.settings, self._moments)
        self._limits_end_jobs = self._limits is not None and self._limits.end_jobs
        self._looked_at_limits = now
        self._unseen = 0
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

    # scheduling -----------------------------------------------------------------------------------------------------

    def _classify(self, job: Job) -> None:
        was_queued = job.eligible_time is not None
        if self._multifactor is not None and not was_queued:
            self._multifactor.update((job,), self.now)
        super()._classify(job)
        if self._resources is not None and not was_queued:
            self._resources.level(job.request, self.available)
            self._resources.weigh(job.request, self.available, ever=True)
        if not was_queued and job.eligible_time == job.submit_time == self.now and job.request.switches:
            heapq.heappush(self._switch_waits, (self.now + self.settings.switch_wait_s(job.spec.switches), job.id))
        if not was_queued and job.eligible_time is not None and job.begin_time == self.now:
            self._time_has_come()

    def _time_has_come(self) -> None:
        """Let a job wait whose begin has come, or that was requeued: of that no thread is told (measured on 22.05.8).

        The next pass of the main loop over the whole queue finds it.
        """
        self._unseen += 1
        self._main.changed(self.now * 1000, batch=False)
        if self._moments is not None:  # passes of earlier seconds, in which no job waited
            self._backfill.touched(self.now * 1000)

    def _queue_new(self, jobs: list[Job], submissions: int = 1) -> int:
        self._triggered = True  # whether or not it may start yet
        return super()._queue_new(jobs, submissions)

    def _whole_nodes(self) -> bool:
        return self._resources is None

    def _hold(self, job: Job) -> None:
        resources = self._resources
        if resources is None:
            super()._hold(job)
        else:
            holding = self._holdings[job.id] = resources.holding(job.request, job.nodes, job.node_cpus)
            if job.request.spread or job.request.cpus > job.request.node_cpus * job.nodes.bit_count():
                job.node_cpus = holding.cpus  # more than the least of some node
            if job.vacated:
                holding = self._holdings[job.id] = holding.split(job.vacated)[0]
            resources.take(holding)
            self.busy = resources.full()
        if job.request.alone:
            self.placement.keep(job.id, job.nodes)
        insort(self._promised, (job.limit_end, job.id, job.held_nodes))
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
        self.placement.leave(job.id)
        began_ms = self._began_ms.pop(job.id, 0)
        self._unseen += 1
        settings = self.settings
        cleanup_ms = settings.cleanup_ms
        if settings.nodes_tell:
            cleanup_ms = settings.epilog_ms + job.nodes.bit_count() * settings.epilog_msg_us // 1000
        told = settings.nodes_tell
        if state is JobState.REQUEUED:
            over_ms, cleanup_ms = self._turn_ms, 1000 - self._turn_ms
        elif state in (JobState.PREEMPTED, JobState.TIMEOUT):
            by_check = state is JobState.TIMEOUT or (job.grace_end is not None and self.end_of(job)[0] == self.now)
            over_ms = self._main.turn(self.now * 1000) % 1000 if by_check else self._turn_ms
            cleanup_ms = KILLED_MS + cleanup_ms * told
            if self._moments is not None:  # it does not tell of the look itself, but of the pass when they are gone
                cleanup_ms = 0 if by_check else KILLED_MS
            told = True
        else:
            over_ms = began_ms + settings.end_overhead_ms
        if told and not settings.defer:
            self._told.add(job.id)
        over_ms += self.now * 1000
        recorded: tuple[tuple[int, int], ...] = ()
        if self._moments is not None:
            over_ms, gone_ms = self._moments.end_of(job, self.now, over_ms)
            if gone_ms is not None:
                cleanup_ms, recorded = max(0, gone_ms - over_ms), self._moments.nodes_of(job, self.machine)
        self._completing.add(over_ms, cleanup_ms, (job.limit_end, job.id, job.held_nodes), recorded)
        if job.spec.licenses:
            self._licensed[job.id] = job
        if self._multifactor is not None and self._multifactor.fair_share is not None:
            self._multifactor.fair_share.ended(job, self.now)

    def _over(self, ended: EndedJob) -> None:
        """Let others count on what a job held; its nodes stay closed until they are clean."""
        _, job_id, nodes = ended
        if self._limits is not None:
            self._limits.ended(job_id, self.now)
        if job_id in self._licensed:
            self._count_licenses(self._licensed.pop(job_id), 1)
        if self._resources is None:
            self.busy &= ~nodes
        else:
            self._resources.give_back(self._holdings.pop(job_id))
            self.busy = self._resources.full()
        del self._promised[bisect_left(self._promised, ended)]

    def _is_told(self, ended: EndedJob) -> bool:
        """Whether it was a node that told that a job is gone, which has the main scheduler look at once."""
        told = ended[1] in self._told
        self._told.discard(ended[1])
        return told

    @property
    def free(self) -> int:
        """The mask of the nodes on which jobs can start now."""
        return super().free & ~self._completing.nodes

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
        elif self._turn_ms < SUBMITTED_MS:
            queue = [job for job in queue if job.submit_time < self.now]
        if self._completing:
            unseen = self._completing.job_ids
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
        return self.waits(job) and self.waits_for(job) is None

    def waits(self, job: Job) -> bool:
        """Whether a job of the queue, or what stands for it in one partition, still waits."""
        return job.id in self.jobs and job.id not in self.running

    def _drop_started(self) -> None:
        """Take the jobs out of the queue that a pass has started."""
        self.queue = [job for job in self.queue if job.start_time is None]
        if not self.queue:
            self._backfill.queue_is_empty()
