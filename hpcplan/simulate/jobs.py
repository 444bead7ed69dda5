"""Jobs as the mock cluster keeps them: what was asked for, how the pretended run behaves, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, Protocol, Self

from hpcplan.simulate.dependencies import Dependency
from hpcplan.slurm.records import JobState

__all__ = [
    "UNLIMITED_S", "Arrival", "ArrivalSource", "Behaviour", "Compact", "Job", "JobSpec", "Request", "waiting_id",
]  # fmt: skip

UNLIMITED_S: Final = 365 * 86400  # slurm.conf(5), MaxTime: a job without limit is planned for as if it ran a year
_FIRST_WAITING: Final = 1 << 32  # above every job id


def waiting_id(array_job_id: int, task_id: int) -> int:
    """Return what a task is known by that waits with the others of its array and has no job id of its own yet."""
    return _FIRST_WAITING + (array_job_id << 22) + task_id  # slurm.conf(5), MaxArraySize: tasks are below 2^22


class Compact:
    """A dataclass of plain values that leaves its defaults out of its JSON, so that a saved cluster stays small."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        result = {}
        for info in fields(self):  # type: ignore[arg-type]
            value = getattr(self, info.name)
            if info.default is MISSING or value != info.default:
                result[info.name] = value
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the value of :meth:`as_dict`; JSON's lists become tuples again."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


@dataclass(frozen=True, slots=True)
class JobSpec(Compact):
    """What ``#SBATCH`` lines ask for, before a machine is known; ``None`` is *not given* (sbatch(1), OPTIONS).

    ``time_limit_s`` of 0 asks for no limit, as sbatch's ``--time=0`` does. ``expected_runtime_s`` and ``pretend_exit``
    are not sbatch's: see :mod:`hpcplan.simulate.script`.
    """

    name: str = "sbatch"
    partition: str | None = None
    nodes_min: int | None = None
    nodes_max: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int = 1
    time_limit_s: int | None = None
    gpus: int | None = None
    gpus_per_node: int | None = None
    gpus_per_task: int | None = None
    gpu_type: str | None = None
    memory_per_node_bytes: int | None = None
    memory_per_cpu_bytes: int | None = None
    memory_per_gpu_bytes: int | None = None
    account: str | None = None
    qos: str | None = None
    dependency: str | None = None
    kill_on_invalid_dep: bool = False
    output: str | None = None
    error: str | None = None
    signal: str | None = None
    requeue: bool = True
    comment: str | None = None
    exclusive: bool = False
    switches: str | None = None
    segment: int | None = None
    consolidate_segments: bool = False
    spread_segments: bool = False
    exclusive_topo: bool = False
    exclude: str | None = None
    nodelist: str | None = None
    constraint: str | None = None
    array: tuple[int, ...] = ()
    array_limit: int | None = None
    hold: bool = False
    begin: str | None = None
    open_mode: str | None = None
    work_dir: str | None = None
    nice: int = 0
    priority: int | None = None
    expected_runtime_s: int | None = None
    pretend_exit: int | None = None
    reservation: str | None = None
    licenses: str | None = None
    other_gres: tuple[tuple[str, int], ...] = ()
    het_group: str | None = None  # in a trace: what the components of a heterogeneous job have in common


@dataclass(frozen=True, slots=True)
class Request:
    """What a specification comes to on one machine: how many of which whole nodes, for how long at most.

    ``eligible`` is the mask of the nodes that may serve, ``required`` of those that must. ``limit_reason`` is Slurm's
    word for the partition limit that keeps the job from ever starting, as squeue shows it. ``switches`` is the most
    leaf switches that its nodes may be under, 0 for any number; ``segment`` how many nodes at a time are to be in one
    block, 0 for all; ``together``: where one segment of all of them would be, ``apart``: no two segments in
    one block, ``alone``: in blocks of which nobody else has any node.

    A job that shares nodes takes ``node_cpus`` CPUs of each at least (0 for all), until it has ``cpus``; ``node_gpus``
    and ``node_memory_bytes`` (``None`` for all) of each, or so much memory for each CPU that it is given;
    ``node_gres`` (name, count) of other GRES. With ``spread`` any number of nodes up to ``maximum`` will do, few rather
    than many.

    ``alternatives`` is the same for the other partitions that a job names (:mod:`.several_partitions`).
    """

    partition: str
    minimum: int
    maximum: int
    limit_s: int
    eligible: int
    required: int = 0
    cpus: int = 1
    gpus: int = 0
    memory_per_node_bytes: int | None = None
    limit_reason: str | None = None
    switches: int = 0
    segment: int = 0
    together: bool = False
    apart: bool = False
    alone: bool = False
    node_cpus: int = 0
    node_gpus: int = 0
    node_memory_bytes: int | None = 0
    memory_per_cpu_bytes: int = 0
    spread: bool = False
    jobs_per_resource: int = 1
    node_gres: tuple[tuple[str, int], ...] = ()
    least_loaded: bool = False
    alternatives: tuple[Request, ...] = ()

    @property
    def gres_a_node(self) -> int:
        """How many GPUs and other GRES it takes of each node."""
        return self.node_gpus + sum(count for _, count in self.node_gres)

    @property
    def whole(self) -> bool:
        """Whether it gets whole nodes."""
        return not self.node_cpus


@dataclass(frozen=True, slots=True)
class Behaviour(Compact):
    """How a pretended run goes: it would end after ``runtime_s`` in ``state``, unless its time limit comes first.

    ``cpu_fraction`` (of the allocated CPU time), ``max_rss_bytes`` and ``gpu_utilisation`` (0 to 1) are what accounting
    will say of its use; ``None`` is unknown.
    """

    runtime_s: int
    state: str = JobState.COMPLETED.value
    exit_code: int = 0
    signal: int = 0
    cpu_fraction: float | None = None
    max_rss_bytes: int | None = None
    gpu_utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job on its way to the queue: who submits it, when, and how it will behave.

    ``components`` are the others of a heterogeneous job.
    """

    time: int
    user: str
    spec: JobSpec
    behaviour: Behaviour
    components: tuple[tuple[JobSpec, Behaviour], ...] = ()


class ArrivalSource(Protocol):
    """Jobs that come by themselves, in order of time: a trace, or the other users of a cluster."""

    @property
    def next_time(self) -> int | None:
        """When the next job comes; ``None`` if none will."""
        ...

    def pop(self) -> Arrival:
        """Return the next job and go on to the one after."""
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One job that has not ended. Times are unix seconds; ``nodes`` is the mask of those it was given to run on.

    ``vacated`` are those of them that it has given back: it was stopped, and nothing is left of it there.

    The tasks of an array that wait together have one job id between them (``pooled``); one that starts, or is changed
    by itself, gets its own. ``left_over`` is the last of them after that.

    A component of a heterogeneous job is a job of its own: ``het_id`` is the id of the first of ``het_size`` of them.
    """

    id: int
    spec: JobSpec
    request: Request
    behaviour: Behaviour
    user: str
    submit_time: int
    priority: int
    background: bool = False
    array_job_id: int | None = None
    array_task_id: int | None = None
    left_over: bool = False
    het_id: int | None = None
    het_offset: int = 0
    het_size: int = 0
    held: bool = False
    begin_time: int | None = None
    dependency: Dependency | None = None
    eligible_time: int | None = None
    start_time: int | None = None
    nodes: int = 0
    vacated: int = 0
    node_list: str | None = None
    node_cpus: tuple[int, ...] | None = None  # of each of its nodes, where they are not all alike
    restarts: int = 0
    backfilled: bool | None = None
    grace_end: int | None = None  # when it is stopped that is preempted with GraceTime

    @property
    def family(self) -> tuple[str, str]:
        """What ``--dependency=singleton`` tells jobs by: user and name."""
        return (self.user, self.spec.name)

    @property
    def running(self) -> bool:
        """Whether it holds nodes."""
        return self.start_time is not None

    @property
    def held_nodes(self) -> int:
        """The mask of the nodes that it holds."""
        return self.nodes & ~self.vacated

    @property
    def pooled(self) -> bool:
        """Whether it is a task of an array without a job id of its own."""
        return self.id >= _FIRST_WAITING

    @property
    def number(self) -> int:
        """Its job id as Slurm shows it: that of the array, for a task that waits with others."""
        return self.array_job_id if self.pooled and self.array_job_id is not None else self.id

    @property
    def submitted(self) -> tuple[int, int]:
        """What jobs are in the order of their submission by: the id that was answered with, and the task."""
        return (self.array_job_id or self.id, self.array_task_id or 0)

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The key that the queue is sorted by: priority (highest first), submission, id, task."""
        return (-self.priority, self.submit_time, self.array_job_id or self.id, self.array_task_id or 0)

    @property
    def limit_end(self) -> int:
        """When a running job will have been stopped at the latest; what a scheduler may count on."""
        assert self.start_time is not None
        return self.start_time + self.request.limit_s if self.grace_end is None else self.grace_end

    @property
    def end(self) -> int:
        """When a running job will really end, if nothing happens to it."""
        assert self.start_time is not None
        return self.start_time + min(self.behaviour.runtime_s, self.request.limit_s)
