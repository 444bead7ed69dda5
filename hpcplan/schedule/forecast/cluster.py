"""The future of a cluster of nodes under the scheduler of the mock cluster, one sample at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from hpcplan.errors import InputError, SlurmError
from hpcplan.hostlist import expand
from hpcplan.schedule.forecast.pool import NEVER_S, Coming
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot, Reservation
from hpcplan.simulate.admission import Admission
from hpcplan.simulate.begin import begin_time
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.fast_slurm import usual_cluster
from hpcplan.simulate.jobs import Arrival, Behaviour, Job, JobSpec, Request
from hpcplan.simulate.machine import Machine, lowest
from hpcplan.simulate.policies import POLICIES, Backfill
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings

if TYPE_CHECKING:
    from hpcplan.schedule.forecast.wait import Course

__all__ = ["ClusterCourse", "ClusterFuture", "compiles_first"]

_FIRST: Final = 2**30  # priority of the first in line; each later one has one less
_MANY: Final = 60  # jobs: with fewer, compiled code is not worth the time that it takes to load


def compiles_first(snapshot: QueueSnapshot) -> bool:
    """Whether following this queue begins with compiling the scheduler, which takes some twenty seconds."""
    if snapshot.machine is None or len(snapshot.jobs) < _MANY or not ClusterFuture(snapshot).compiled:
        return False
    from hpcplan.simulate.compiled.jit import is_cold

    return is_cold("submit")


class ClusterFuture:
    """What happens next on the nodes of a cluster, under Slurm's own scheduling or a policy of the theory.

    The queue keeps the order that it has: priorities that change while jobs wait (age, fair share) are not foretold.
    A job submitted now, and those that others submit later, go to its end. Jobs whose limits reach into a reservation
    keep off its nodes.
    """

    def __init__(self, snapshot: QueueSnapshot, cluster: SlurmCluster | None = None) -> None:
        """Take over a snapshot; ``cluster`` adds what it does not say: switches and the scheduler's parameters.

        Raises:
            InputError: it is not of a cluster.
        """
        if snapshot.machine is None:
            raise InputError("the snapshot is of a pool of processors, not of a cluster of nodes")
        self.now_s = snapshot.now_s
        self.policy = snapshot.policy
        self.effort = 20  # beside a pool's 1
        self.most_arrivals = 150
        self.machine = Machine.from_dict(snapshot.machine)
        settings = cluster.settings if cluster is not None else SlurmSettings()
        switches = cluster.switches if cluster is not None and cluster.machine.names == self.machine.names else ()
        self.cluster = SlurmCluster(self.machine, replace(settings, multifactor=False, builtin=False), switches)
        self._admission = Admission(self.machine)
        self.unusable = _mask(self.machine, snapshot.unusable)
        self._reservations = [(one, _mask(self.machine, one.nodes)) for one in snapshot.reservations]
        self._requests: dict[tuple[object, ...], Request | None] = {}
        self.templates: list[Job] = []
        live: list[QueueJob] = []
        for job in (*snapshot.running, *snapshot.pending):
            template = self._template(job, len(live) + 1)
            if template is not None:
                live.append(job)
                self.templates.append(template)
        self.live = tuple(live)
        self._waiting = [job.id for job in self.templates if not job.running]
        self.first_priority = _FIRST - 2 * len(self.live) - 3  # of those that come; each later one has one less
        self.compiled = (
            len(live) >= _MANY and self.policy in {"slurm", "backfill"} and not self._reservations
            and usual_cluster(self.cluster) and find_spec("numba") is not None
        )  # fmt: skip

    def certain(self, target: QueueJob) -> int | None:
        """Return ``None``: slurmctld looks at the queue when it does, also at an empty one."""
        return None

    def check(self, target: QueueJob) -> None:
        """Refuse a job that can never start.

        Raises:
            InputError: what sbatch would say, or which limit of the partition holds it back.
        """
        try:
            request = self._admission.resolve(self.spec_of(target))
        except SlurmError as error:
            raise InputError(error.message.splitlines()[-1], hint=error.hint) from None
        if request.limit_reason is not None:
            raise InputError(
                f"a job of {target.width} nodes for {target.limit_s} s would wait for ever ({request.limit_reason}) in "
                f"partition {request.partition!r}"
            )
        if (request.eligible & ~self.unusable).bit_count() < request.minimum:
            raise InputError(f"{target.width} nodes were asked for; fewer of {request.partition!r} can be used now")

    def start_of(self, target: QueueJob, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> int:
        """Return when the target, submitted now, starts (unix seconds); 400 days from now if it never does."""
        if self.compiled:
            from hpcplan.schedule.forecast.compiled_course import CompiledCourse

            return self.now_s + CompiledCourse(self, target, runs_s, arrivals).wait_now_s(target.limit_s)
        engine = self._engine(runs_s, arrivals)
        number = engine.next_id
        spec = replace(self.spec_of(target), priority=self.place_of(target))
        job_id = engine.submit(spec, Behaviour(target.limit_s), target.user or "user")
        assert job_id == number
        job = engine.jobs[job_id]
        while job.start_time is None:
            time = engine.next_event_time()
            if time is None or time > self.now_s + NEVER_S:
                return self.now_s + NEVER_S
            engine.step(time)
        return job.start_time

    def course(self, target: QueueJob, runs_s: Sequence[int], arrivals: Iterable[Coming]) -> Course:
        """Return a future in which jobs like the target are submitted one after another."""
        if self.compiled:
            from hpcplan.schedule.forecast.compiled_course import CompiledCourse

            return CompiledCourse(self, target, runs_s, arrivals)
        return ClusterCourse(self, target, self._engine(runs_s, arrivals))

    def starts(self, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> list[int | None]:
        """Return when each waiting job, and then each arrival, starts (unix seconds); ``None`` if it never does."""
        taken = [self.accepts(job) for _, job, _ in arrivals]
        engine = self._engine(runs_s, arrivals)
        numbers = [*self._waiting, *range(engine.next_id, engine.next_id + sum(taken))]
        watched = {number: engine.jobs[number] for number in self._waiting}
        found: dict[int, int] = {}
        time: int | None = self.now_s  # what is free now may be taken now
        while time is not None and time <= self.now_s + NEVER_S:
            first = engine.next_id
            engine.step(time)
            watched |= {number: engine.jobs[number] for number in range(first, engine.next_id) if number in engine.jobs}
            for number in [number for number, job in watched.items() if job.start_time is not None]:
                found[number] = watched.pop(number).start_time or 0
            time = engine.next_event_time() if len(found) < len(numbers) else None
        starts = iter([found.get(number) for number in numbers])
        waiting = [next(starts) for _ in self._waiting]
        return waiting + [next(starts) if one else None for one in taken]

    def place_of(self, target: QueueJob) -> int:
        """Return the engine's priority of the target: behind all, or ahead of those of lower priority."""
        pending = [job for job in self.live if job.pending]
        behind = sum(job.priority < target.priority for job in pending) if target.priority > 0 else 0
        return _FIRST - 2 * (len(self.live) + 1 - behind) + 1

    def _template(self, job: QueueJob, number: int) -> Job | None:
        """Return a live job as the engine has it; ``None`` for one that this machine would refuse."""
        spec = replace(self.spec_of(job), priority=_FIRST - 2 * number)
        try:
            request = self._admission.resolve(spec)
        except SlurmError:
            return None
        if request.limit_reason is not None and job.pending:
            return None
        begin = begin_time(spec.begin, self.now_s)
        return Job(
            id=number, spec=spec, request=request,
            behaviour=Behaviour(1), user=job.user or "user", submit_time=job.submit_s, priority=_FIRST - 2 * number,
            begin_time=begin, eligible_time=job.submit_s if begin is None else None, start_time=job.start_s,
            nodes=self._nodes(job, request) if job.running else 0,
        )  # fmt: skip

    def _nodes(self, job: QueueJob, request: Request) -> int:
        """Return where a running job runs; any free nodes of its partition where the snapshot does not say."""
        if job.nodes is not None:
            return _mask(self.machine, job.nodes)
        taken = 0
        for other in self.templates:
            taken |= other.nodes
        return lowest(request.eligible & ~taken, job.width)

    def spec_of(self, job: QueueJob, submit_s: int | None = None) -> JobSpec:
        """Return what a job asks for. One that a coming reservation would stop keeps off its nodes, and waits for its
        end where too few others are left.
        """
        partition = self.machine.partitions.get(job.partition or self.machine.default_partition())
        avoided, until_s = 0, 0
        now_s = self.now_s if submit_s is None else submit_s
        for reservation, nodes in self._reservations:
            if self.now_s < reservation.start_s < self.now_s + job.limit_s and job.start_s is None:
                avoided |= nodes
                until_s = max(until_s, reservation.end_s)
        if partition is not None and (partition.mask & ~avoided).bit_count() >= job.width:
            until_s = 0
        else:
            avoided = 0
        return JobSpec(
            partition=job.partition,
            nodes_min=job.width,
            nodes_max=job.width,
            time_limit_s=job.limit_s,
            exclude=self.machine.node_list(avoided) if avoided else None,
            begin=f"now+{until_s - now_s}" if until_s > now_s else None,
        )

    def _engine(self, runs_s: Sequence[int], arrivals: Iterable[Coming]) -> Engine:
        """Return the cluster in motion.

        It backfills as often as it really does: with fewer passes, nodes that come free one by one would add up for the
        jobs in front instead of going to the small ones behind, and wide jobs would seem to start sooner than they do.
        """
        coming = _Coming(self, arrivals)
        engine: Engine
        if self.policy in {"slurm", "backfill"}:
            engine = Controller(self.cluster, now=self.now_s, arrivals=coming)
        else:
            policy = Backfill() if self.policy == "conservative" else POLICIES[self.policy]
            engine = Engine(self.machine, policy, now=self.now_s, arrivals=coming)
        engine.names_nodes = False
        engine.on_end = _forget
        engine.down = self.unusable
        jobs = [_copy(job, Behaviour(run_s)) for job, run_s in zip(self.templates, runs_s, strict=True)]
        jobs += self._held(len(jobs))
        engine.next_id = len(self.live) + 1
        engine.restore(jobs)
        return engine

    def _held(self, count: int) -> list[Job]:
        """Return the reservations that have begun, as jobs that run on their nodes until they end."""
        held = []
        for index, (reservation, nodes) in enumerate(self._reservations):
            if not _active(reservation, self.now_s) or not nodes:
                continue
            left_s = reservation.end_s - self.now_s
            request = Request(self.machine.default_partition(), nodes.bit_count(), nodes.bit_count(), left_s, nodes)
            held.append(
                Job(
                    id=-1 - index, spec=JobSpec(), request=request, behaviour=Behaviour(left_s), user="root",
                    submit_time=self.now_s, priority=1, start_time=self.now_s, nodes=nodes,
                )
            )  # fmt: skip
        return held

    def accepts(self, job: QueueJob) -> bool:
        """Whether the machine would take a job like this one."""
        return self.request_of(job) is not None

    def request_of(self, job: QueueJob) -> Request | None:
        """Return what a job like this one asks of the machine; ``None`` where it would not be taken."""
        kind = (job.partition, job.width, job.limit_s, job.start_s is None)
        if kind not in self._requests:
            try:
                request = self._admission.resolve(self.spec_of(job))
            except SlurmError:
                self._requests[kind] = None
            else:
                self._requests[kind] = request if request.limit_reason is None else None
        return self._requests[kind]


class ClusterCourse:
    """One future of a cluster, moved on from one job of one's own to the next."""

    def __init__(self, future: ClusterFuture, target: QueueJob, engine: Engine) -> None:
        self._future = future
        self._target = target
        self._engine = engine

    def wait_s(self, submit_s: int, held_s: int, until_s: int | None = None) -> int:
        """Return how long a job waits that is submitted at ``submit_s``; 400 days if it never starts."""
        engine = self._engine
        submit_s = max(submit_s, engine.now)
        last_s = submit_s + NEVER_S if until_s is None else until_s
        engine.advance(submit_s)
        # Behind all that wait, as those others do that come later: each submission has a lower priority.
        least = min((job.priority for job in engine.queue), default=self._future.place_of(self._target))
        first = self._future.place_of(self._target) if submit_s <= self._future.now_s else least - 1
        spec = replace(self._future.spec_of(self._target, submit_s), priority=first)
        number = engine.submit(spec, Behaviour(max(1, held_s)), self._target.user or "user")
        job = engine.jobs[number]
        while job.start_time is None:
            time = engine.next_event_time()
            if time is None or time > last_s:
                return NEVER_S
            engine.step(time)
        return job.start_time - submit_s


class _Coming:
    """Arrivals as the engine takes them; those that would be refused are left out."""

    def __init__(self, future: ClusterFuture, arrivals: Iterable[Coming]) -> None:
        self._left = self._taken(future, arrivals)
        self._next = next(self._left, None)

    @staticmethod
    def _taken(future: ClusterFuture, arrivals: Iterable[Coming]) -> Iterator[Arrival]:
        first = future.first_priority
        for number, (at_s, job, run_s) in enumerate(arrivals):
            time = max(future.now_s, at_s)
            if future.accepts(job):
                spec = replace(future.spec_of(job, time), priority=first - number)
                yield Arrival(time, job.user or "user", spec, Behaviour(run_s))

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return None if self._next is None else self._next.time

    def pop(self) -> Arrival:
        """Return the next job."""
        found = self._next
        assert found is not None
        self._next = next(self._left, None)
        return found


def _mask(machine: Machine, nodes: str | None) -> int:
    known = set(machine.names)
    return machine.mask_of(name for name in expand(nodes) if name in known) if nodes else 0


def _active(reservation: Reservation, now_s: int) -> bool:
    return reservation.start_s <= now_s < reservation.end_s


def _copy(job: Job, behaviour: Behaviour) -> Job:
    return Job(
        id=job.id, spec=job.spec, request=job.request, behaviour=behaviour, user=job.user,
        submit_time=job.submit_time, priority=job.priority, begin_time=job.begin_time,
        eligible_time=job.eligible_time,
        start_time=job.start_time, nodes=job.nodes,
    )  # fmt: skip


def _forget(job: Job, state: object) -> None:
    """Nobody asks for the records of a job that ended in a forecast."""
