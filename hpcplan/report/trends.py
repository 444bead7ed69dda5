"""Figures of many days from one job table: the trend over weeks, hourly series by partition, run time over limit."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from hpcplan.report.rows import Comparison, TrendDay
from hpcplan.report.series import area_between
from hpcplan.report.window import efficiencies, picked

__all__ = ["compared", "limit_ratios", "over_days", "partition_hours"]

_DAY_S: Final = 86400
_HOUR_S: Final = 3600


def over_days(table: pl.DataFrame, end: int, days: int) -> tuple[TrendDay, ...]:
    """Return one entry a day of 24 h, the last one ending at ``end``, from the first day that is on record as a whole.

    The last day is there in any case.
    """
    ends = table["end_time"].filter(table["end_time"] < end)
    first = end if ends.is_empty() else int(ends.min())  # type: ignore[arg-type]
    days = max(1, min(days, -(-(end - first) // _DAY_S)))
    while days > 1 and not _on_record(table, end - days * _DAY_S, end - (days - 1) * _DAY_S):
        days -= 1
    return tuple(TrendDay(**row) for row in _binned(table, end - days * _DAY_S, end, _DAY_S).iter_rows(named=True))


def _on_record(table: pl.DataFrame, start: int, end: int) -> bool:
    """Whether a table holds what happened in ``[start, end)``, not only what still ran or waited at its end.

    Accounting asked for a window gives the jobs that were there in it, of which some are older. So some job must have
    ended in the window, and the first end on record must not lie far inside it.
    """
    ends = table["end_time"].drop_nulls()
    if ends.is_empty() or int(ends.min()) > start + (end - start) / 4:  # type: ignore[arg-type]
        return False
    return bool(((ends >= start) & (ends < end)).any())


def _binned(table: pl.DataFrame, start: int, end: int, width: int) -> pl.DataFrame:
    """Return for each bin what was submitted, started, ended, held and used in it."""
    import numpy as np

    moments = ("submit_time", "start_time", "end_time", "seen_until", "ended", "state", "elapsed_s", "cpus", "gpus")
    known = efficiencies(table.lazy()).select(*moments, "wait_s", "cpu_efficiency").collect()
    edges = np.arange(start, end + 1, width, dtype=np.float64)
    bins = pl.DataFrame({"start": edges[:-1].astype(np.int64)})

    def at(moment: str) -> pl.Expr:
        return ((pl.col(moment) - start) // width * width + start).alias("start")

    def within(moment: str, *columns: str) -> pl.DataFrame:
        return picked(known, (pl.col(moment) >= start) & (pl.col(moment) < end), *columns)

    submitted = within("submit_time", "submit_time").group_by(at("submit_time")).agg(pl.len().alias("submitted"))
    started = (
        within("start_time", "start_time", "wait_s")
        .with_columns(at("start_time").alias("_bin"))
        .group_by(pl.col("_bin").alias("start"))
        .agg(pl.len().alias("started"), pl.col("wait_s").median().alias("median_wait_s"),
             pl.col("wait_s").mean().alias("mean_wait_s"))
    )  # fmt: skip
    held = pl.col("elapsed_s").cast(pl.Float64) * pl.col("cpus")
    judged = pl.col("cpu_efficiency").is_not_null() & held.is_not_null()
    weight = held.filter(judged).sum()
    figures = ("end_time", "ended", "state", "elapsed_s", "cpus", "cpu_efficiency")
    ended = within("end_time", *figures).filter("ended").group_by(at("end_time")).agg(
        pl.len().alias("ended"),
        (pl.col("state") != "COMPLETED").sum().alias("not_completed"),
        pl.when(weight > 0).then((pl.col("cpu_efficiency") * held).filter(judged).sum() / weight)
        .alias("cpu_efficiency"),
    )  # fmt: skip
    until = pl.when(pl.col("ended")).then(pl.col("end_time")).otherwise(pl.col("seen_until").fill_null(end))
    ran = known.select(pl.col("start_time").alias("_from"), until.alias("_to"), "cpus", "gpus").drop_nulls(
        ["_from", "_to"]
    )
    ran = ran.with_columns(pl.col("_from", "_to").cast(pl.Float64)).filter(pl.col("_to") > pl.col("_from"))
    hours = {}
    for size in ("cpus", "gpus"):
        sized = ran.filter(pl.col(size) > 0)
        area = area_between(
            sized["_from"].to_numpy(), sized["_to"].to_numpy(), sized[size].cast(pl.Float64).to_numpy(), edges
        )
        hours["core_hours" if size == "cpus" else "gpu_hours"] = np.diff(area) / _HOUR_S
    waits = known.lazy().filter(pl.col("submit_time").is_not_null()).select(
        pl.col("submit_time").cast(pl.Float64).alias("_from"),
        pl.coalesce("start_time", pl.when(pl.col("ended")).then(pl.col("end_time")).otherwise(end))
        .cast(pl.Float64).alias("_to"),
    ).filter(pl.col("_to") > pl.col("_from")).collect()  # fmt: skip
    area = area_between(waits["_from"].to_numpy(), waits["_to"].to_numpy(), np.ones(len(waits)), edges)
    bins = bins.with_columns(
        pl.Series("core_hours", hours["core_hours"]), pl.Series("gpu_hours", hours["gpu_hours"]),
        pl.Series("mean_pending", np.diff(area) / width),
    )  # fmt: skip
    for part in (submitted, started, ended):
        bins = bins.join(part, on="start", how="left", maintain_order="left")
    counts = pl.col("submitted", "started", "ended", "not_completed").fill_null(0).cast(pl.Int64)
    return bins.with_columns(counts).select(
        "start", "submitted", "started", "ended", "not_completed", "core_hours", "gpu_hours", "mean_pending",
        "median_wait_s", "mean_wait_s", "cpu_efficiency",
    )  # fmt: skip


def partition_hours(table: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """Return one row an hour and partition: ``partition, start`` (unix seconds) and the columns of a trend's day.

    ``submitted, started, ended, not_completed`` count attempts, ``core_hours, gpu_hours`` are what was held in that
    hour, ``mean_pending`` the mean number of jobs that waited, ``median_wait_s, mean_wait_s`` of those that started in
    it (null if none did), ``cpu_efficiency`` of those that ended. Hours count from ``start``.
    """
    end = start + -(-(end - start) // _HOUR_S) * _HOUR_S
    hours = (end - start) // _HOUR_S
    found = table.filter(pl.col("partition").is_not_null()).partition_by("partition", as_dict=True)
    parts = []
    for (name,), part in sorted(found.items()):
        label = pl.repeat(name, hours, eager=True, dtype=pl.String).alias("partition")
        parts.append(_binned(part, start, end, _HOUR_S).insert_column(0, label))
    return pl.concat(parts) if parts else pl.DataFrame()


def limit_ratios(table: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """Return how much of their time limits each user's jobs needed: one row a user and partition.

    Over attempts that completed or timed out in ``[start, end)``, as cancelled and failed ones say nothing about how
    the limit was chosen: ``user, partition, jobs, timed_out, mean``, quantiles ``p10 p25 p50 p75 p90 p95`` and ``max``
    of run time / time limit (a job that timed out counts as 1).
    """
    judged = efficiencies(table).filter(
        pl.col("state").is_in(["COMPLETED", "TIMEOUT"]) & pl.col("time_efficiency").is_not_null()
        & (pl.col("end_time") >= start) & (pl.col("end_time") < end)
    )  # fmt: skip
    ratio = pl.col("time_efficiency").clip(upper_bound=1.0)
    quantiles = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95}
    return (
        judged.group_by("user", "partition")
        .agg(
            pl.len().alias("jobs"), (pl.col("state") == "TIMEOUT").sum().alias("timed_out"), ratio.mean().alias("mean"),
            *(ratio.quantile(share, interpolation="linear").alias(name) for name, share in quantiles.items()),
            ratio.max().alias("max"),
        )
        .sort("user", "partition")
    )  # fmt: skip


def compared(table: pl.DataFrame, start: int, end: int) -> tuple[Comparison, ...]:
    """Return the window beside the one before it and the same one a week before, where those are on record."""
    width = end - start
    before = {"the window before": start - width, "a week before": start - 7 * _DAY_S}
    found = []
    before = {name: moment for name, moment in before.items() if _on_record(table, moment, moment + width)}
    if before:
        now = _figures(table, start, end)
        for name, moment in before.items():
            then = _figures(table, moment, moment + width)
            found.append(Comparison(name, moment, moment + width, {key: (now[key], then[key]) for key in now}))
    return tuple(found)


def _figures(table: pl.DataFrame, start: int, end: int) -> dict[str, Any]:
    return {
        key: value
        for key, value in _binned(table, start, end, end - start).row(0, named=True).items()
        if key != "start"
    }
