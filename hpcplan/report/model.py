"""The report as a value: what ``--format json`` prints, key by key, and what the pages are made of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpcplan.report.figures import Distribution, Efficiency, Histogram, Measure, Series
from hpcplan.report.rows import (
    Advice,
    Campaign,
    Capacity,
    Comparison,
    Counterfactual,
    JobCounts,
    Lost,
    NodeUse,
    Part,
    Problems,
    QueueGrowth,
    Queueing,
    Share,
    TrendDay,
    Usage,
    WaitReason,
)
from hpcplan.report.site_facts import Tracked

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SCHEMA_NAME", "Report"]

SCHEMA_NAME: Final = "hpcplan-report/1"


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
