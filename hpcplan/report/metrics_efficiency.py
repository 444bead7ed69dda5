"""Efficiency of the attempts that ended in the window: the whole cluster's, and the typical job's."""

from __future__ import annotations

import polars as pl

from hpcplan.report.figures import Efficiency
from hpcplan.report.window import picked

__all__ = ["by_resource", "time_limit"]


def by_resource(seen: pl.DataFrame, efficiency: str, size: str) -> Efficiency:
    """Return used over held: Σ efficiency × elapsed × size / Σ elapsed × size, over attempts where both are known.

    ``efficiency`` is a column of window.efficiencies, ``size`` the column of what was held (``cpus``, ``memory_bytes``,
    ``gpus``). Memory in GiB-hours, the others in core-hours and GPU-hours.
    """
    unit = 3600 * (2.0**30 if size == "memory_bytes" else 1.0)
    wanted = [efficiency, size, "elapsed_s", *({"sampled_gpu_used"} & set(seen.columns))]
    did = pl.col("ended_in") & (pl.col("elapsed_s") > 0) & ~(pl.col(size) == 0).fill_null(False)
    ran = picked(seen, did, *wanted)
    held = ran.with_columns((pl.col("elapsed_s").cast(pl.Float64) * pl.col(size) / unit).alias("held"))
    known = held.filter(pl.col(efficiency).is_not_null() & pl.col("held").is_not_null())
    weight = float(known["held"].sum())
    used = known.select((pl.col(efficiency) * pl.col("held")).sum()).item()
    return Efficiency(
        value=float(used) / weight if weight > 0 else None,
        median=_median(known[efficiency]),
        known=weight,
        total=float(held["held"].sum()),
        jobs_known=len(known),
        jobs_total=len(held),
        note=_sampled(known) if efficiency == "gpu_efficiency" else None,
    )


def _sampled(known: pl.DataFrame) -> str | None:
    """Say how much is known from samples of hpcplan's own jobs alone (see sampled.filled)."""
    if "sampled_gpu_used" not in known.columns:
        return None
    jobs = len(known) - known["sampled_gpu_used"].null_count()
    return f"of {jobs:,} attempts from the samples of hpcplan's own jobs" if jobs else None


def time_limit(seen: pl.DataFrame) -> Efficiency:
    """Return how much of their time limits jobs needed: Σ elapsed / Σ limit over those that completed or timed out.

    Cancelled and failed attempts say nothing about how well the limit was chosen. ``known`` and ``total`` are jobs.
    """
    told = pl.col("ended_in") & pl.col("state").is_in(["COMPLETED", "TIMEOUT"]) & (pl.col("elapsed_s") > 0)
    judged = picked(seen, told, "time_efficiency", "time_limit_s", "elapsed_s")
    known = judged.filter(pl.col("time_efficiency").is_not_null())
    limits = float(known["time_limit_s"].sum())
    return Efficiency(
        value=float(known["elapsed_s"].sum()) / limits if limits > 0 else None,
        median=_median(known["time_efficiency"]),
        known=len(known),
        total=len(judged),
        jobs_known=len(known),
        jobs_total=len(judged),
    )


def _median(values: pl.Series) -> float | None:
    middle = values.median()
    return float(middle) if isinstance(middle, int | float) else None
