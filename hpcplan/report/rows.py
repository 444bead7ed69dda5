"""Rows of the report's tables: one user's use, one node's failures, one piece of advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "Advice",
    "Campaign",
    "Capacity",
    "Comparison",
    "Counterfactual",
    "JobCounts",
    "Lost",
    "NodeUse",
    "Part",
    "Problems",
    "QueueGrowth",
    "QueueModel",
    "Queueing",
    "Share",
    "TrendDay",
    "Usage",
    "WaitReason",
]


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Attempts of jobs seen in the window. ``by_status`` is as of its end, so that its counts add up to ``total``."""

    total: int
    submitted: int
    started: int
    ended: int
    running: int
    pending: int
    never_started: int
    by_status: dict[str, int]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the cluster has; ``usable_nodes`` are neither down nor drained right now. ``None`` where not known."""

    nodes: int | None
    usable_nodes: int | None
    cpus: int | None
    gpus: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one user, account or partition had inside the window (``name`` is ``None`` for jobs without one).

    ``idle_*_hours`` were held and not used, as far as measured; ``lost_core_hours`` went to attempts that did not
    complete. ``jobs`` counts attempts seen, ``cost`` is in the report's currency. ``*_coverage`` is the share of the
    core-hours, GiB-hours or GPU-hours held by attempts that ended whose use is known: what the efficiency is of.
    """

    name: str | None
    jobs: int
    core_hours: float | None
    gpu_hours: float | None
    node_hours: float | None
    idle_core_hours: float | None
    idle_gpu_hours: float | None
    idle_gib_hours: float | None
    lost_core_hours: float | None
    cpu_efficiency: float | None
    memory_efficiency: float | None
    gpu_efficiency: float | None
    median_wait_s: float | None
    cost: float | None = None
    cpu_coverage: float | None = None
    memory_coverage: float | None = None
    gpu_coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """How full a partition, node group or kind of GPU was (``kind`` says which); ``None`` where it is not known.

    ``*_in_use`` are means over the window, ``*_utilisation`` shares of what the part has; ``node_utilisation`` is the
    share of its nodes' time in which at least one job was on them. ``over_time`` is the share of its CPUs (GPUs, of a
    kind of GPU) in use in each bin of the series.
    """

    kind: str
    name: str
    nodes: int | None
    cpus: int | None
    gpus: int | None
    cpus_in_use: float | None
    gpus_in_use: float | None
    cpu_utilisation: float | None
    gpu_utilisation: float | None
    node_utilisation: float | None
    over_time: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class WaitReason:
    """Hours that jobs waited inside the window for one reason, as Slurm last gave it; ``pending`` still do."""

    reason: str
    jobs: int
    pending: int
    wait_hours: float


@dataclass(frozen=True, slots=True)
class QueueGrowth:
    """Jobs that waited at the window's start and end, and the core-hours that they asked for (time limit × CPUs)."""

    pending_at_start: int
    pending_at_end: int
    asked_core_hours_at_start: float | None
    asked_core_hours_at_end: float | None


@dataclass(frozen=True, slots=True)
class NodeUse:
    """One node: how busy it was in each of the window's bins (0 to 1), and how attempts on it ended.

    ``failed`` attempts ended as NODE_FAIL, FAILED, BOOT_FAIL or OUT_OF_MEMORY; ``expected_failed`` is what the
    cluster's own rate would give for as many; ``node_failures`` are its own.
    """

    name: str
    busy: tuple[float, ...]
    attempts: int
    failed: int
    expected_failed: float
    node_failures: int
    lost_core_hours: float


@dataclass(frozen=True, slots=True)
class Share:
    """An account's share of what was held in the window, beside the share that fairshare promises it (sshare(1))."""

    account: str
    target: float
    used: float


@dataclass(frozen=True, slots=True)
class Campaign:
    """A job of hpcplan's own that ended in the window: what the plan expected it to take, and what it took."""

    token: str
    job: str
    state: str
    predicted_s: float
    actual_s: float

    @property
    def ratio(self) -> float:
        """Actual over predicted."""
        return self.actual_s / self.predicted_s


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """The window replayed on the mock cluster, as its jobs asked and with right-sized requests.

    Hours that jobs waited in all: ``measured`` in the window, ``replayed`` as asked, ``right_sized`` with what they
    would have needed, ``sized`` with sizes as needed and time limits as asked (``None`` where jobs get whole nodes).
    ``changed`` of ``jobs`` asked for more than that. Saved is replayed − right-sized: both come from the same model of
    the scheduler, whose distance from what was measured stands beside them. ``*_core_hour_wait_s`` are the mean waits
    of a core-hour: of jobs weighed by CPUs asked for × time run.
    """

    jobs: int
    changed: int
    left_out: int
    measured_wait_hours: float
    replayed_wait_hours: float
    right_sized_wait_hours: float
    sized_wait_hours: float | None
    replayed_core_hour_wait_s: float
    right_sized_core_hour_wait_s: float
    note: str

    @property
    def saved_wait_hours(self) -> float:
        """Wait hours that right-sized requests would have saved."""
        return self.replayed_wait_hours - self.right_sized_wait_hours


@dataclass(frozen=True, slots=True)
class TrendDay:
    """One day (24 h from ``start``): attempts by what happened in it, hours held, jobs that waited on average."""

    start: int
    submitted: int
    started: int
    ended: int
    not_completed: int
    core_hours: float
    gpu_hours: float
    mean_pending: float
    median_wait_s: float | None
    mean_wait_s: float | None
    cpu_efficiency: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """This window beside an earlier one: each figure of a trend's day as (now, then)."""

    name: str
    start: int
    end: int
    figures: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Lost:
    """What went to attempts that ended in the window without completing, by how they ended."""

    state: str
    jobs: int
    core_hours: float | None
    gpu_hours: float | None
    node_hours: float | None


@dataclass(frozen=True, slots=True)
class QueueModel:
    """What a formula says: ``wait_s`` is ``None`` with ``stable`` false where the load is 1 or more."""

    model: str
    servers: int
    load: float
    stable: bool
    wait_s: float | None
    wait_probability: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Queueing:
    """Queueing theory beside what was measured. Bounds for intuition, not predictions: see ``note``."""

    resource: str
    arrivals_per_hour: float
    mean_run_s: float
    load: float
    measured_mean_wait_s: float | None
    models: tuple[QueueModel, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change. ``gain`` in ``unit`` per window like this one, ``gain_share`` of all that was held."""

    kind: str
    who: str
    finding: str
    action: str
    gain: float
    unit: str
    gain_share: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Problems:
    """What could not be read: how often each kind, and the first ones quoted."""

    rows_read: int
    counts: dict[str, int]
    quoted: tuple[dict[str, Any], ...]
