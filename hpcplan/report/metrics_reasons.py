"""Why jobs waited, how the queue grew, and who started them."""

from __future__ import annotations

from typing import Final

import polars as pl

from hpcplan.report.figures import Distribution, Measure
from hpcplan.report.metrics_wait import distribution
from hpcplan.report.rows import QueueGrowth, WaitReason
from hpcplan.report.window import picked

__all__ = ["BEFORE_ELIGIBLE", "NOT_ON_RECORD", "backfill_share", "queue_growth", "turnaround", "wait_reasons"]

BEFORE_ELIGIBLE: Final = "not yet eligible (held, dependent, or begin time)"
NOT_ON_RECORD: Final = "not on record"


# squeue(1), JOB REASON CODES: why a job ended, which says nothing of why it had waited
_OF_THE_END: Final = [
    "nonzeroexitcode", "timelimit", "outofmemory", "joblaunchfailure", "nodedown", "systemfailure", "inactivelimit",
    "cleaning", "prolog", "nodefail",
]  # fmt: skip


def wait_reasons(seen: pl.DataFrame, start: int, end: int) -> tuple[WaitReason, ...]:
    """Return the hours waited inside the window by reason, most first; they add up to all hours waited.

    The time before a job was eligible is told by its eligible time. The rest goes to the reason that Slurm gave last
    (``Reason``: Resources, Priority, QOSMaxCpuPerUserLimit …, squeue(1), JOB REASON CODES), which for a job that has
    started is often no longer on record.
    """
    until = pl.coalesce("start_time", pl.when(pl.col("ended")).then(pl.col("end_time")).otherwise(end))
    wanted = ["submit_time", "eligible_time", "start_time", "end_time", "ended", "pending", "reason"]
    waits = picked(seen, pl.col("submit_time").is_not_null(), *wanted).with_columns(
        pl.col("submit_time").clip(start, end).alias("_a"),
        pl.max_horizontal(pl.min_horizontal("eligible_time", until).fill_null(pl.col("submit_time")), "submit_time")
        .clip(start, end).alias("_b"),
        until.clip(start, end).alias("_c"),
    )  # fmt: skip
    word = pl.col("reason").str.to_lowercase().str.strip_chars()
    known = ~(word.is_in(["none", "n/a", "", *_OF_THE_END]) | word.str.starts_with("raisedsignal")).fill_null(True)
    parts = [
        waits.select(pl.lit(BEFORE_ELIGIBLE).alias("reason"), (pl.col("_b") - pl.col("_a")).alias("s"),
                     (pl.col("pending") & (pl.col("eligible_time") >= end).fill_null(False)).alias("still")),
        waits.select(pl.when(known).then("reason").otherwise(pl.lit(NOT_ON_RECORD)).alias("reason"),
                     (pl.col("_c") - pl.col("_b")).alias("s"), "pending"),
    ]  # fmt: skip
    rows = (
        pl.concat([part.rename({part.columns[2]: "still"}) for part in parts])
        .filter(pl.col("s") > 0)
        .group_by("reason")
        .agg(
            pl.len().alias("jobs"),
            pl.col("still").sum().alias("pending"),
            (pl.col("s").sum() / 3600).alias("wait_hours"),
        )
        .sort(["wait_hours", "reason"], descending=[True, False])
    )
    return tuple(WaitReason(**row) for row in rows.iter_rows(named=True))


def queue_growth(seen: pl.DataFrame, start: int) -> QueueGrowth:
    """Return how many jobs waited at the window's start and at its end, and the core-hours that they asked for."""
    waited = (
        (pl.col("submit_time") < start)
        & (pl.col("start_time").is_null() | (pl.col("start_time") >= start))
        & (~pl.col("ended") | pl.col("start_time").is_not_null() | (pl.col("end_time") >= start))
    )
    at_start = picked(seen, waited, "time_limit_s", "cpus")
    at_end = picked(seen, "pending", "time_limit_s", "cpus")
    return QueueGrowth(len(at_start), len(at_end), _asked(at_start), _asked(at_end))


def _asked(jobs: pl.DataFrame) -> float | None:
    asked = jobs.select(pl.col("time_limit_s").cast(pl.Float64) * pl.col("cpus") / 3600).to_series().drop_nulls()
    return float(asked.sum()) if len(asked) or not len(jobs) else None


def backfill_share(seen: pl.DataFrame) -> Measure:
    """Share of the attempts started in the window that backfill started, of those where Slurm says (sacct's Flags)."""
    started = seen["backfilled"].filter(seen["started_in"])
    known = started.drop_nulls()
    note = None if len(known) else "which scheduler started jobs is not on record (sacct's Flags)"
    return Measure(float(known.sum()) / len(known) if len(known) else None, len(known), len(started), note)


def turnaround(seen: pl.DataFrame) -> Distribution:
    """Seconds from submission to end (latency), over attempts that ran and ended in the window."""
    ended = seen["ended_in"] & seen["start_time"].is_not_null()
    return distribution((seen["end_time"] - seen["submit_time"]).filter(ended))
