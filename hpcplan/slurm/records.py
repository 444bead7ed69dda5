"""What Slurm knows, in one form: the same record whichever backend or Slurm version it came from.

Units are fixed: times are whole unix seconds, durations seconds, memory bytes. ``None`` always means *unknown*, never
zero. Job states and their meaning: squeue(1), section "JOB STATE CODES"; sacct(1) for the database's spelling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

__all__ = [
    "ClusterInfo",
    "JobRecord",
    "JobState",
    "NodeRecord",
    "PartitionRecord",
    "StartEstimate",
    "Submission",
]


class JobState(StrEnum):
    """Base states and the flags that Slurm shows in their place (squeue(1), JOB STATE CODES)."""

    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    DEADLINE = "DEADLINE"
    EXPEDITING = "EXPEDITING"
    FAILED = "FAILED"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PENDING = "PENDING"
    POWER_UP_NODE = "POWER_UP_NODE"
    PREEMPTED = "PREEMPTED"
    RECONFIG_FAIL = "RECONFIG_FAIL"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"
    RUNNING = "RUNNING"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    SUSPENDED = "SUSPENDED"
    TIMEOUT = "TIMEOUT"
    UPDATE_DB = "UPDATE_DB"
    UNKNOWN = "UNKNOWN"

    @property
    def final(self) -> bool:
        """Whether a job in this state has ended for good and holds no resources."""
        return self in _FINAL

    @property
    def waiting(self) -> bool:
        """Whether a job in this state still has to start."""
        return self in _WAITING

    @property
    def active(self) -> bool:
        """Whether a job in this state holds resources."""
        return not self.final and not self.waiting and self is not JobState.UNKNOWN

    @classmethod
    def parse(cls, text: str) -> JobState:
        """Return the state for ``'CANCELLED by 1000'``, ``'completed'``, ``'OUT_OF_ME+'`` or a two-letter code.

        What no release of Slurm documents becomes ``UNKNOWN``: a new state must not stop a tracker.
        """
        return _parse_state(text)


@lru_cache(maxsize=256)  # of thousands of jobs most are in one of a few
def _parse_state(text: str) -> JobState:
    words = text.split()
    word = words[0].rstrip("+").upper() if words else ""
    found = JobState.__members__.get(_COMPACT.get(word, word))
    if found is None and len(word) > 2 and words[0].endswith("+"):  # sacct cuts it to the width of its column
        begin_so = [state for name, state in JobState.__members__.items() if name.startswith(word)]
        found = begin_so[0] if len(begin_so) == 1 else None
    return found or JobState.UNKNOWN


_FINAL = frozenset(
    {
        JobState.BOOT_FAIL, JobState.CANCELLED, JobState.COMPLETED, JobState.DEADLINE, JobState.FAILED,
        JobState.LAUNCH_FAILED, JobState.NODE_FAIL, JobState.OUT_OF_MEMORY, JobState.PREEMPTED,
        JobState.RECONFIG_FAIL, JobState.REVOKED, JobState.TIMEOUT,
    }
)  # fmt: skip
_WAITING = frozenset(
    {
        JobState.PENDING, JobState.REQUEUED, JobState.REQUEUE_FED, JobState.REQUEUE_HOLD, JobState.RESV_DEL_HOLD,
        JobState.SPECIAL_EXIT,
    }
)  # fmt: skip
_COMPACT = {
    "BF": "BOOT_FAIL", "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING", "CG": "COMPLETING",
    "DL": "DEADLINE", "F": "FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY", "PD": "PENDING", "PR": "PREEMPTED",
    "R": "RUNNING", "RD": "RESV_DEL_HOLD", "RF": "REQUEUE_FED", "RH": "REQUEUE_HOLD", "RQ": "REQUEUED",
    "RS": "RESIZING", "RV": "REVOKED", "SI": "SIGNALING", "SE": "SPECIAL_EXIT", "SO": "STAGE_OUT",
    "ST": "STOPPED", "S": "SUSPENDED", "TO": "TIMEOUT",
}  # fmt: skip


def _tasks(part: str) -> int:
    """Return how many tasks ``3``, ``2-5`` or ``0-8:2`` is; none for what Slurm cut off (``...``)."""
    span, _, step = part.partition(":")
    first, _, last = span.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return 0
    return len(range(int(first), int(last or first) + 1, int(step) if step.isdecimal() and int(step) else 1))


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job (one attempt of it, where it was requeued) as the controller or accounting knows it.

    ``job_id`` is unique only together with ``cluster`` and ``submit_time``: Slurm reuses ids, and a requeued job gets a
    new submission time. A component of a heterogeneous job is a record of its own: ``het_job_id`` is the id of the
    whole, which its first component has, ``het_offset`` its place from 0. Tasks of an array that wait together are one
    record: ``array_tasks_waiting`` names them in Slurm's notation (``2-5,8%2``). ``max_rss_bytes`` is the peak of all
    tasks together, as well as it is known; ``gpu_utilisation`` a fraction from 0 to 1.
    """

    job_id: int
    state: JobState
    name: str = ""
    cluster: str | None = None
    user: str | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    reason: str | None = None
    comment: str | None = None
    array_job_id: int | None = None
    array_task_id: int | None = None
    array_tasks_waiting: str | None = None
    het_job_id: int | None = None
    het_offset: int | None = None
    dependency: str | None = None
    submit_time: int | None = None
    eligible_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    time_limit_s: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    priority: int | None = None
    nodes: int | None = None
    node_list: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    memory_bytes: int | None = None
    tres: Mapping[str, int] = field(default_factory=dict)
    work_dir: str | None = None
    total_cpu_s: float | None = None
    max_rss_bytes: int | None = None
    gpu_utilisation: float | None = None
    backfilled: bool | None = None

    @property
    def submitted_id(self) -> int:
        """The id that the submission was answered with: a job's own, its array's, or its heterogeneous job's."""
        return self.array_job_id or self.het_job_id or self.job_id

    @property
    def jobs_waiting(self) -> int:
        """How many jobs the record stands for while it waits: of an array's tasks as many as may run at once."""
        tasks, _, at_once = (self.array_tasks_waiting or "").partition("%")
        count = sum(_tasks(part) for part in tasks.split(","))
        return max(1, min(count, int(at_once)) if at_once.isdecimal() and int(at_once) else count)

    def is_among(self, job_ids: Collection[int]) -> bool:
        """Whether one of these ids means it: its own, or that of the array or heterogeneous job that it is part of."""
        return self.job_id in job_ids or self.array_job_id in job_ids or self.het_job_id in job_ids

    @property
    def identity(self) -> tuple[str | None, int, int | None]:
        """What tells this job from a later one that was given the same id."""
        return (self.cluster, self.job_id, self.submit_time)

    def elapsed_s(self, now: int | None = None) -> int | None:
        """Return seconds from start to end (to ``now`` while it runs), ``None`` if it has not started.

        An attempt that ended as requeued has an end too, although its state is not final. Slurm shows the expected end
        of a running job in the same field, which is not looked at.
        """
        if self.start_time is None:
            return None
        end = now if self.state.active or self.end_time is None else self.end_time
        return None if end is None else max(0, end - self.start_time)

    def wait_s(self, now: int | None = None) -> int | None:
        """Return seconds from submission to start (to ``now`` while it waits)."""
        if self.submit_time is None:
            return None
        start = self.start_time if self.start_time is not None else (now if self.state.waiting else None)
        return None if start is None else max(0, start - self.submit_time)

    def eligible_wait_s(self, now: int | None = None) -> int | None:
        """Return seconds from when nothing but resources was missing (dependencies met, begin reached) to start."""
        if self.eligible_time is None:
            return None
        start = self.start_time if self.start_time is not None else (now if self.state.waiting else None)
        return None if start is None else max(0, start - self.eligible_time)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` is its inverse."""
        return {**dataclasses.asdict(self), "state": self.state.value, "tres": dict(self.tres)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobRecord:
        """Return the record of :meth:`as_dict`."""
        return cls(**{**data, "state": JobState.parse(str(data["state"]))})


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node as the controller knows it; ``state`` is Slurm's word without its flag suffix (``idle``, ``mixed``…)."""

    name: str
    state: str
    flags: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    cpus: int | None = None
    cpus_allocated: int | None = None
    memory_bytes: int | None = None
    gres: str | None = None
    gpus: int | None = None
    features: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def usable(self) -> bool:
        """Whether jobs can be placed on it: up, and neither drained nor reserved for maintenance."""
        bad = {
            "down", "drain", "drained", "draining", "fail", "error", "maint", "unknown", "not_responding", "future",
            "inval", "blocked",
        }  # fmt: skip
        return self.state not in bad and not bad & {flag.lower() for flag in self.flags}


@dataclass(frozen=True, slots=True)
class PartitionRecord:
    """One partition as the controller knows it; ``max_time_s`` and ``max_nodes`` are ``None`` where unlimited."""

    name: str
    state: str
    nodes: str = ""
    total_nodes: int | None = None
    default: bool = False
    max_time_s: int | None = None
    default_time_s: int | None = None
    max_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Who answered: which backend, which cluster, which Slurm; ``accounting`` says whether history can be asked for."""

    backend: str
    cluster: str | None
    version: str | None
    accounting: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """A rendered script (its path) to submit as it stands; options given here override its ``#SBATCH`` lines.

    ``comment`` carries the campaign's token, by which a submission whose answer was lost is found again; ``exclude`` is
    a list of nodes that must not be used. ``token`` is what the script is told: its first argument, or the variable
    ``HPCPLAN_TOKEN`` where a backend can pass no arguments.
    """

    script: str
    work_dir: str
    dependency: str | None = None
    comment: str | None = None
    hold: bool = False
    exclude: str | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """When the controller thinks that a job would start, and where; an estimate that Slurm itself calls rough."""

    start_time: int
    nodes: str | None = None
