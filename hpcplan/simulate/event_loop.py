"""The discrete-event loop: integer time, whole nodes, deterministic.

At each instant first all ends, then all jobs that become eligible, then all submissions, then one scheduling pass.
Nothing happens between events, so that advancing in two steps is the same as advancing in one.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

from hpcplan.simulate.admission import Admission, refusal
from hpcplan.simulate.array_tasks import ArrayTasks
from hpcplan.simulate.begin import begin_time
from hpcplan.simulate.dependents import Dependents, History
from hpcplan.simulate.het_jobs import as_components, whole
from hpcplan.simulate.job_records import ended_record, natural_end
from hpcplan.simulate.jobs import Arrival, ArrivalSource, Behaviour, Job, JobSpec, Request, waiting_id
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.policies import ClusterView, Policy
from hpcplan.simulate.several_partitions import chosen, narrowed
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["REQUEUE_DELAY_S", "TOP_PRIORITY", "EventLoop", "in_order"]

REQUEUE_DELAY_S: Final = 121  # measured on Slurm 22.05: the credential's life time and a second
TOP_PRIORITY: Final = 4294901759  # priority/basic gives the first job this, and each later one less by one
in_order: Final = attrgetter("order")  # of a job: what the queue is sorted by


class EventLoop:
    """A cluster in motion: ``jobs`` are those that have not ended, ``queue`` those that could start, in order.

    ``ended`` collects the records of finished attempts until somebody takes them; ``changes`` counts what happened.
    """

    def __init__(
        self,
        machine: Machine,
        policy: Policy,
        *,
        now: int = 0,
        cluster: str | None = None,
        arrivals: ArrivalSource | None = None,
        history: History = lambda job_id: (),
    ) -> None:
        self.machine = machine
        self.policy = policy
        self.now = now
        self.cluster = cluster
        self.arrivals = arrivals
        self.jobs: dict[int, Job] = {}
        self.running: dict[int, Job] = {}
        self.queue: list[Job] = []
        self.ended: list[JobRecord] = []
        self.names_nodes = True  # whether running jobs are given their hostlist; simulations can do without
        self.on_end: Callable[[Job, JobState], None] | None = None  # told of ends in the place of ``ended``
        self.next_id = 1
        self.submissions = 0
        self.down = 0
        self.drained = 0
        self.node_reasons: dict[str, str] = {}
        self.busy = 0
        self.changes = 0
        self._ends: list[tuple[int, int]] = []
        self._planned_ends: dict[int, int] = {}
        self._wakes: list[tuple[int, int]] = []
        self.array_tasks = ArrayTasks(self.jobs, self.running)
        self._dependents = Dependents(self.jobs, history)
        self._admission = Admission(machine, whole_nodes=self._whole_nodes())
        self._het_jobs = self._several_partitions = False
        self._know_partitions()

    def _know_partitions(self) -> None:
        """Work out what follows from the partitions."""
        self._all_up = all(part.up for part in self.machine.partitions.values())
        self._partition_masks = {name: part.mask for name, part in self.machine.partitions.items()}

    # time -----------------------------------------------------------------------------------------------------------

    def next_event_time(self) -> int | None:
        """Return when something happens next, ``None`` if nothing will."""
        while self._ends and not self._is_current_end(*self._ends[0]):
            heapq.heappop(self._ends)
        while self._wakes and not self._is_current_wake(*self._wakes[0]):
            heapq.heappop(self._wakes)
        times = [heap[0][0] for heap in (self._ends, self._wakes) if heap]
        if self.arrivals is not None and self.arrivals.next_time is not None:
            times.append(self.arrivals.next_time)
        return min(times, default=None)

    def advance(self, to: int) -> None:
        """Let everything happen up to and including the time ``to``."""
        while (time := self.next_event_time()) is not None and time <= to:
            self.step(time)
        self.now = max(self.now, to)

    def step(self, time: int) -> None:
        """Let happen what happens at ``time``, the next event's."""
        self.now = max(self.now, time)
        while self._ends and self._ends[0][0] <= self.now:
            end = heapq.heappop(self._ends)
            if self._is_current_end(*end):
                self._end(self.running[end[1]], *self.end_of(self.running[end[1]])[1])
        while self._wakes and self._wakes[0][0] <= self.now:
            if (job := self.jobs.get(heapq.heappop(self._wakes)[1])) is not None:
                self._classify(job)
        while self.arrivals is not None and (time_ := self.arrivals.next_time) is not None and time_ <= self.now:
            self._enqueue(self.arrivals.pop(), background=True)
        self._schedule()

    # what can be seen -----------------------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """The mask of the nodes that are neither down nor drained."""
        return self.machine.all_nodes & ~(self.down | self.drained)

    @property
    def free(self) -> int:
        """The mask of the nodes on which jobs can start now."""
        return self.available & ~self.busy

    def view(self) -> ClusterView:
        """Return what a policy may see."""
        ends = [(job.limit_end, job.held_nodes) for job in self.running.values()]
        return ClusterView(self.now, self.free, self.available, ends, self._partition_masks, self._het_jobs)

    def candidates(self) -> list[Job]:
        """Return the queue without the jobs that wait for their partition or for other tasks of their array."""
        if self._all_up and not self.array_tasks.limited:
            return self.queue.copy()
        up = (narrowed(job, lambda name: self.machine.partitions[name].up) for job in self.queue)
        return list(self.array_tasks.within_limits(job for job in up if job is not None))

    def blocked(self, job: Job) -> str | None:
        """Return squeue's word for what keeps a waiting job out of the queue, ``None`` if it is eligible."""
        if job.held:
            return "JobHeldUser"
        if job.dependency is not None and not job.dependency.met:
            return "DependencyNeverSatisfied" if job.dependency.failed else "Dependency"
        if job.begin_time is not None and job.begin_time > self.now:
            return "BeginTime"
        return job.request.limit_reason

    def end_of(self, job: Job) -> tuple[int, tuple[JobState, int, int]]:
        """Return when a running job ends if nothing happens to it, and its state, exit code and signal then."""
        return job.end, natural_end(job)

    # inside ---------------------------------------------------------------------------------------------------------

    def resolve(self, spec: JobSpec, *, anew: bool = False) -> Request:
        """Return what ``spec`` asks of this cluster; ``anew``, if its job has been taken before.

        Raises:
            SlurmError: refused, in sbatch's words.
        """
        return self._admission.resolve(spec, anew=anew)

    def waits_for(self, job: Job) -> str | None:
        """Return squeue's word for what keeps a job of the queue from starting that is no lack of nodes."""
        return None

    def _check(self, spec: JobSpec, user: str) -> None:
        """Refuse what names things that this cluster does not have.

        Raises:
            SlurmError: in sbatch's words.
        """
        if spec.licenses:
            raise refusal("Invalid license specification")
        if spec.reservation:
            raise refusal("Requested reservation is invalid")

    def _whole_nodes(self) -> bool:
        """Whether every job gets whole nodes, whatever the machine says."""
        return True

    def _hold(self, job: Job) -> None:
        """Take a starting job's nodes."""
        self.busy |= job.held_nodes

    def _give_back(self, job: Job, state: JobState) -> None:
        """Give back the nodes of a running job that ends in ``state``, or is requeued."""
        self.busy &= ~job.held_nodes

    def saved(self) -> dict[str, Any] | None:
        """Return what has to be saved beside the jobs and the nodes, as data for JSON."""
        return None

    def restore_saved(self, data: Mapping[str, Any]) -> None:
        """Go on from what :meth:`saved` gave, the jobs having been restored."""

    def restore(self, jobs: Iterable[Job]) -> None:
        """Take over the jobs of a saved engine and rebuild everything that follows from them."""
        for job in jobs:
            self.jobs[job.id] = job
            self._het_jobs |= job.het_id is not None
            self._several_partitions |= "," in (job.spec.partition or "")
            self.array_tasks.add(job)
        for job in self.jobs.values():
            if job.running:
                self.running[job.id] = job
                self._hold(job)
                self._plan_end(job)
                continue
            self._dependents.watch(job)
            self._wake(job)
            if self.blocked(job) is None:
                self.queue.append(job)
        self.queue.sort(key=in_order)

    def _enqueue(self, arrival: Arrival, *, background: bool) -> int:
        parts = ((arrival.spec, arrival.behaviour), *arrival.components)
        jobs = [self._new_jobs(spec, run, arrival.user, background=background) for spec, run in parts]
        if len(parts) == 1:
            return self._queue_new(jobs[0])
        return self._queue_new(as_components([one[0] for one in jobs]), submissions=len(jobs))

    def _queue_new(self, jobs: list[Job], submissions: int = 1) -> int:
        self.next_id += 1 if jobs[0].pooled else len(jobs)
        if jobs[0].spec.priority is None and not jobs[0].held:  # others have their own, or get one when released
            self.submissions += submissions
        for job in jobs:
            self.jobs[job.id] = job
            self._het_jobs |= job.het_id is not None
            self._several_partitions |= bool(job.request.alternatives)
            self.array_tasks.add(job)
        for job in jobs:
            self._dependents.watch(job)
            self._wake(job)
            self._classify(job)
        self.split(*self.array_tasks.corresponding(jobs[0]))
        return jobs[0].submitted[0]

    def _new_jobs(self, spec: JobSpec, behaviour: Behaviour, user: str, *, background: bool) -> list[Job]:
        self._check(spec, user)
        request = self._admission.resolve(spec)
        begin = begin_time(spec.begin, self.now)
        first = self.next_id
        jobs = [
            Job(
                id=first if task is None else waiting_id(first, task),
                spec=spec,
                request=request,
                behaviour=behaviour,
                user=user,
                submit_time=self.now,
                priority=self._following_priority(spec) if spec.priority is None else max(1, spec.priority),
                background=background,
                array_job_id=first if spec.array else None,
                array_task_id=task,
                held=spec.hold,
                begin_time=begin,
            )
            for task in spec.array or (None,)
        ]
        for job in jobs if spec.dependency else ():
            self._dependents.resolve(job, self.now)
        return jobs

    def _following_priority(self, spec: JobSpec) -> int:
        """Return what priority/basic gives the next job."""
        return max(1, TOP_PRIORITY - self.submissions - spec.nice)

    def _schedule(self) -> None:
        """Settle what depends on what has just happened, then run a pass, and more if one lets jobs into the queue."""
        self._settle()
        while self.queue and self.free:
            starts = self.policy.decide(self.candidates(), self.view()).starts
            if not starts:
                return
            for start in starts:
                self._start(start.job, start.nodes, start.backfilled)
            self.queue = [job for job in self.queue if not job.running]
            before = self.changes
            self._settle()
            if self.changes == before:
                return

    def _settle(self) -> None:
        for job in self._dependents.settle(self.now):
            self.split(*self.array_tasks.corresponding(job))
            self._wake(job)
            self._classify(job)

    def split(self, *jobs: Job) -> None:
        """Give tasks that share their job id with others of their array one of their own."""
        for job in jobs:
            if job.pooled:
                before, self.next_id = job.id, self.array_tasks.split(job, self.next_id)
                self._dependents.renamed(before, job)
                self._wake(job)

    def _start(self, job: Job, nodes: int, backfilled: bool) -> None:
        if self._several_partitions:
            partition, job = job.request.partition, self.jobs[job.id]
            job.request = chosen(job.request, partition)
        self.split(job)
        job.start_time = self.now
        job.nodes = nodes
        job.node_list = self.machine.node_list(nodes) if self.names_nodes else None
        job.backfilled = backfilled
        self._hold(job)
        self.running[job.id] = job
        self._plan_end(job)
        self._dependents.started(job)
        self.changes += 1

    def _end(self, job: Job, state: JobState, exit_code: int = 0, signal: int = 0) -> None:
        """Take a job out of the cluster for good."""
        self._record(job, state, exit_code, signal)
        if job.running:
            self._give_back(job, state)
            del self.running[job.id], self._planned_ends[job.id]
        else:
            self._leave_queue(job)
        self.array_tasks.gone(job)
        del self.jobs[job.id]
        self._dependents.ended(job, state)
        self.changes += 1
        if job.het_id == job.id:
            for other in whole(self.jobs, job):
                self._end(other, state, exit_code, signal)

    def _record(self, job: Job, state: JobState, exit_code: int = 0, signal: int = 0) -> None:
        if self.on_end is not None:
            self.on_end(job, state)
        else:
            self.ended.append(ended_record(job, self, state, exit_code, signal))

    def _fail_node(self, job: Job) -> None:
        job = self.jobs.get(job.het_id or job.id, job)
        if job.spec.requeue:
            self._requeue(job, JobState.NODE_FAIL)
        else:
            self._end(job, JobState.NODE_FAIL, exit_code=1)

    def _requeue(self, job: Job, state: JobState) -> None:
        """Stop a running job, all components of a heterogeneous one, and let it wait again."""
        members = [one for one in whole(self.jobs, job) if one.running]
        for one in members:
            one.het_size = len(members) if one.het_id is not None else 0
            self._requeue_one(one, state)

    def _requeue_one(self, job: Job, state: JobState) -> None:
        self._record(job, state)
        self._give_back(job, state)
        del self.running[job.id], self._planned_ends[job.id]
        job.restarts += 1
        job.submit_time = self.now + 1  # as slurmctld does, so that accounting can tell the attempts apart
        job.begin_time = self.now + REQUEUE_DELAY_S
        job.start_time = job.node_list = job.backfilled = job.eligible_time = job.node_cpus = job.grace_end = None
        job.nodes = job.vacated = 0
        if self._several_partitions:
            job.request = self.resolve(job.spec, anew=True)
        self.changes += 1
        self._wake(job)
        self._classify(job)

    def _wake(self, job: Job) -> None:
        if job.begin_time is not None and job.begin_time > self.now:
            heapq.heappush(self._wakes, (job.begin_time, job.id))

    def _classify(self, job: Job) -> None:
        """Put a waiting job into the queue or keep it out, as its holds, times and dependencies have it now."""
        if job.running or job.id not in self.jobs:
            return
        self.changes += 1
        if job.eligible_time is not None:
            self._leave_queue(job)
        reason = self.blocked(job)
        if reason is None:
            if self.queue and in_order(self.queue[-1]) > in_order(job):
                insort(self.queue, job, key=in_order)
            else:
                self.queue.append(job)
            if job.eligible_time is None:
                job.eligible_time = max(self.now, job.submit_time)
        elif reason == "DependencyNeverSatisfied" and job.spec.kill_on_invalid_dep:
            self._end(job, JobState.CANCELLED)

    def _leave_queue(self, job: Job) -> None:
        position = bisect_left(self.queue, job.order, key=in_order)
        if position < len(self.queue) and self.queue[position] is job:
            del self.queue[position]

    def _plan_end(self, job: Job) -> None:
        end = self._planned_ends[job.id] = self.end_of(job)[0]
        heapq.heappush(self._ends, (end, job.id))

    def _is_current_end(self, time: int, job_id: int) -> bool:
        return self._planned_ends.get(job_id) == time

    def _is_current_wake(self, time: int, job_id: int) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and not job.running and job.begin_time == time
