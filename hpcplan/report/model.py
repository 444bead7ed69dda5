"""The report as values: what ``--format json`` prints, key by key, and what the pages are made of.

Every figure comes with its coverage, since accounting rarely knows everything: ``value`` is ``null`` where nothing is
known, and ``known`` of ``total`` says how much of what should have been measured was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "SCHEMA_NAME",
    "Advice",
    "Campaign",
    "Capacity",
    "Comparison",
    "Counterfactual",
    "Distribution",
    "Efficiency",
    "Histogram",
    "JobCounts",
    "Lost",
    "Measure",
    "NodeUse",
    "Part",
    "Problems",
    "QueueGrowth",
    "QueueModel",
    "Queueing",
    "Report",
    "Sampled",
    "Series",
    "Share",
    "SiteFacts",
    "Tracked",
    "TrendDay",
    "Usage",
    "WaitReason",
]

SCHEMA_NAME: Final = "hpcplan-report/1"


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a job of hpcplan's sampled of itself from ``first`` to ``last`` (unix seconds), on so many nodes and GPUs.

    ``gpu_used`` is the mean over its GPUs, 0 to 1, ``gpu_power_w`` their mean power together.
    """

    first: int
    last: int
    nodes: int
    gpus: int
    gpu_used: float | None
    gpu_power_w: float | None


@dataclass(frozen=True, slots=True)
class Tracked:
    """The steps of one finished campaign: when it ended (unix seconds), predicted with its 90 % interval, and measured.

    ``average`` and ``limit`` are of the control chart after it, in units of the spread that plans promise; ``drift`` is
    ``slower`` or ``faster`` where it, or the cumulative sum beside it, has left its limits.
    """

    time: int
    campaign: str
    nodes: int
    predicted_s: float
    low_s: float
    high_s: float
    actual_s: float
    average: float
    limit: float
    drift: str | None

    @property
    def ratio(self) -> float:
        """Actual over predicted."""
        return self.actual_s / self.predicted_s


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What accounting does not know; ``None`` where it is not given.

    ``power_w_per_node`` and ``group_of_node`` map host names; ``price_per_kwh`` includes the PUE; ``shares`` maps
    accounts to the share that fairshare promises them, ``predicted_s`` the tokens of hpcplan's own jobs to what the
    plan expected them to take, ``samples`` the campaign's id and Slurm's job id of such jobs to what they sampled;
    ``tracked`` are the finished campaigns whose steps were predicted and measured.
    """

    power_w_per_node: Mapping[str, float] | None = None
    price_per_kwh: float | None = None
    group_of_node: Mapping[str, str] | None = None
    shares: Mapping[str, float] | None = None
    predicted_s: Mapping[str, float] | None = None
    samples: Mapping[tuple[str, int], Sampled] | None = None
    tracked: tuple[Tracked, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: ``value`` in the unit that its key names, from ``known`` of ``total`` jobs or resource-hours.

    ``note`` says why there is no value, or what to keep in mind.
    """

    value: float | None
    known: float
    total: float
    note: str | None = None

    @property
    def coverage(self) -> float | None:
        """The known share, 0 to 1; ``None`` where there was nothing to know."""
        return min(1.0, self.known / self.total) if self.total > 0 else None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, median, 95th percentile (linear interpolation) and largest of ``known`` values out of ``total`` jobs."""

    mean: float | None
    median: float | None
    p95: float | None
    max: float | None
    known: int
    total: int

    @property
    def coverage(self) -> float | None:
        """The share of jobs whose value is known."""
        return self.known / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many jobs have a value at or above ``edges[i]`` and below ``edges[i + 1]`` (the last bin is open)."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]
    counts: tuple[int, ...]


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
class Efficiency:
    """How much of what jobs held they used, over attempts that ended in the window.

    ``value`` weighs every job by the resource-seconds it held; ``median`` counts each job once. ``known`` and ``total``
    are resource-hours (jobs, for the time limit).
    """

    value: float | None
    median: float | None
    known: float
    total: float
    jobs_known: int
    jobs_total: int
    note: str | None = None

    @property
    def coverage(self) -> float | None:
        """The share of resource-hours whose use is known."""
        return min(1.0, self.known / self.total) if self.total > 0 else None


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
    complete. ``jobs`` counts attempts seen, ``cost`` is in the report's currency.
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
class Series:
    """Mean over each bin of ``bin_s`` seconds, the first beginning at ``start[0]``; resources in use, jobs by count."""

    bin_s: int
    start: tuple[int, ...]
    nodes: tuple[float, ...]
    cpus: tuple[float, ...]
    gpus: tuple[float, ...]
    running: tuple[float, ...]
    pending: tuple[float, ...]


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


@dataclass(frozen=True)
class Report:
    """How a queue was used in ``[start, end)`` (unix seconds). ``jobs_table`` has one row an attempt."""

    cluster: str | None
    source: str
    start: int
    end: int
    timezone: str
    jobs: JobCounts
    wait: Distribution
    eligible_wait: Distribution
    pending_age: Distribution
    slowdown: Distribution
    wait_histogram: Histogram
    capacity: Capacity
    core_hours: Measure
    gpu_hours: Measure
    node_hours: Measure
    cpu_utilisation: Measure
    gpu_utilisation: Measure
    node_utilisation: Measure
    cpu_efficiency: Efficiency
    memory_efficiency: Efficiency
    gpu_efficiency: Efficiency
    time_efficiency: Efficiency
    idle_core_hours: Measure
    idle_gpu_hours: Measure
    jobs_ended_per_hour: float | None
    lost: tuple[Lost, ...]
    by_user: tuple[Usage, ...]
    by_account: tuple[Usage, ...]
    by_partition: tuple[Usage, ...]
    by_name: tuple[Usage, ...]
    by_gpu_type: tuple[Usage, ...]
    by_node_group: tuple[Usage, ...]
    parts: tuple[Part, ...]
    turnaround: Distribution
    wait_reasons: tuple[WaitReason, ...]
    backfill_share: Measure
    queue_growth: QueueGrowth
    fragmentation: Measure
    idle_gib_hours: Measure
    energy_kwh: Measure
    energy_cost: Measure | None
    nodes_used: tuple[NodeUse, ...]
    shares: tuple[Share, ...]
    campaigns: tuple[Campaign, ...]
    tracked: tuple[Tracked, ...]
    trend: tuple[TrendDay, ...]
    compared: tuple[Comparison, ...]
    counterfactual: Counterfactual | None
    series: Series
    queueing: Queueing | None
    advice: tuple[Advice, ...]
    cost: Measure | None
    currency: str | None
    problems: Problems
    jobs_table: pl.DataFrame

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the fields by name, ``schema`` first, every coverage written out."""
        plain = {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "jobs_table"
        }
        return {"schema": SCHEMA_NAME, **plain}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        plain.update(
            (name, getattr(value, name)) for name in ("coverage", "ratio", "saved_wait_hours") if hasattr(value, name)
        )
        return plain
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
