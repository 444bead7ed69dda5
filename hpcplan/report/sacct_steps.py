"""Steps go to their jobs: what each step used is added up, and jobs are completed (see sacct_usage for the rules).

The sums are kept per job until the file ends, since a step may stand far from its job.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from hpcplan.report.sacct_cells import MAX_BYTES
from hpcplan.report.table import SCHEMA

__all__ = ["USED", "added_up", "attached", "completed"]

# what the steps of one job used; ``work`` is without extern
USED: Final[dict[str, Any]] = {
    "_row": pl.Int64,
    "cpu_sum": pl.Float64,
    "any_work": pl.Boolean,
    "sampled_work": pl.Boolean,
    "sampled": pl.Boolean,
    "memory_max": pl.Int64,
    "busy_work": pl.Float64,
    "busy": pl.Float64,
    "gpu_work": pl.Boolean,
    "gpu": pl.Boolean,
    "first_told": pl.Int64,
    "s_cpu": pl.Float64,
    "s_memory": pl.Int64,
    "s_gpu": pl.Float64,
}


def attached(jobs: pl.DataFrame, steps: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return steps with ``job``, the row of the last job before them that has their name, and those without one."""
    where = jobs.select("_row", pl.col("cluster").fill_null(""), "label", pl.col("_row").alias("job")).sort("_row")
    named = steps.sort("_row").with_columns(pl.col("cluster").fill_null("").alias("_cluster"))
    near = named.join_asof(
        where.rename({"label": "near_label", "cluster": "near_cluster"}), on="_row", strategy="backward"
    )
    same = ((pl.col("near_label") == pl.col("label")) & (pl.col("near_cluster") == pl.col("_cluster"))).fill_null(False)
    beside = near.filter(same)
    apart = near.filter(~same).select(named.columns)
    if len(apart):
        apart = apart.join_asof(
            where.rename({"cluster": "_cluster"}), on="_row", by=["_cluster", "label"], strategy="backward",
            check_sortedness=False,
        )  # fmt: skip
        beside = pl.concat(
            [
                beside.select([*steps.columns, "job"]),
                apart.filter(pl.col("job").is_not_null()).select([*steps.columns, "job"]),
            ]
        )
        return beside, apart.filter(pl.col("job").is_null()).select(steps.columns)
    return beside.select([*steps.columns, "job"]), steps.clear()


def added_up(jobs: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """Return :data:`USED` of each job that ``steps`` (with ``job``) belong to; ``jobs`` tells how long each ran."""
    if steps["percent"].null_count() < len(steps):
        ran = jobs.select(pl.col("_row").alias("job"), pl.col("elapsed_s").cast(pl.Float64).alias("ran"))
        steps = steps.join(ran, on="job", how="left", maintain_order="left")
    else:
        steps = steps.with_columns(pl.lit(None, dtype=pl.Float64).alias("ran"))
    work = ~pl.col("extern")
    some = pl.col("memory").fill_null(0) > 0
    lasted = pl.min_horizontal(pl.when(pl.col("step_s") > 0).then(pl.col("step_s")).otherwise(pl.col("ran")), "ran")
    steps = steps.with_columns(
        some.alias("some"),
        (some & pl.col("percent").is_not_null()).alias("gpu_seen"),
        (pl.col("percent") * lasted).alias("busy"),
    )
    told = pl.col("m_told").fill_null(False)
    return (
        steps.group_by("job", maintain_order=False)
        .agg(
            pl.col("cpu_s").sum().alias("cpu_sum"),
            work.any().alias("any_work"),
            (work & pl.col("some")).any().alias("sampled_work"),
            pl.col("some").any().alias("sampled"),
            pl.col("memory").max().alias("memory_max"),
            pl.col("busy").filter(work & pl.col("gpu_seen")).sum().alias("busy_work"),
            pl.col("busy").filter(pl.col("gpu_seen")).sum().alias("busy"),
            (work & pl.col("gpu_seen")).any().alias("gpu_work"),
            pl.col("gpu_seen").any().alias("gpu"),
            pl.col("_row").filter(told).min().alias("first_told"),
            pl.col("m_cpu").filter(told).first().alias("s_cpu"),
            pl.col("m_memory").filter(told).first().alias("s_memory"),
            pl.col("m_gpu").filter(told).first().alias("s_gpu"),
        )
        .rename({"job": "_row"})
        .select(pl.col(key).cast(kind) for key, kind in USED.items())
    )


def _together(used: pl.DataFrame) -> pl.DataFrame:
    """Return one row a job, where steps of a job were added up in several pieces too; in the order of jobs."""
    used = used.sort("_row")
    if not (used["_row"].diff() == 0).any():
        return used
    sums, flags = ["cpu_sum", "busy_work", "busy"], ["any_work", "sampled_work", "sampled", "gpu_work", "gpu"]
    return (
        used.sort("first_told", nulls_last=True)
        .group_by("_row")
        .agg(
            pl.col(sums).sum(), pl.col(flags).any(), pl.col("memory_max").max(),
            pl.col("first_told", "s_cpu", "s_memory", "s_gpu").first(),
        )
        .select(list(USED))
        .sort("_row")
    )  # fmt: skip


def completed(jobs: pl.DataFrame, used: pl.DataFrame) -> pl.DataFrame:
    """Return the job table of a whole file (as sacct_usage.complete does for one job)."""
    tracked = bool((jobs["gpus_told"] > 0).any())
    used = _together(used)
    if used["_row"].equals(jobs["_row"]):  # each has steps, as nearly always
        wide = jobs.hstack(used.drop("_row"))
    else:
        wide = jobs.join(used, on="_row", how="left", maintain_order="left")
    untold = pl.col("gpus_told").is_null() & pl.col("tres_listed")
    gpus = pl.when(untold & tracked).then(0).otherwise(pl.col("gpus_told"))
    job_told, step_told = pl.col("m_told").fill_null(False), pl.col("first_told").is_not_null()

    def measured(name: str) -> pl.Expr:
        return pl.when(job_told).then(pl.col(f"m_{name}")).when(step_told).then(pl.col(f"s_{name}"))

    any_work = pl.col("any_work").fill_null(False)
    cpu = pl.when(pl.col("total_cpu_s") > 0).then(pl.col("total_cpu_s")).otherwise(pl.col("cpu_sum"))
    sampled = pl.when(any_work).then(pl.col("sampled_work")).otherwise(pl.col("sampled"))
    peak = pl.when(sampled).then(pl.col("memory_max").clip(upper_bound=MAX_BYTES))
    busy = pl.when(any_work).then(pl.col("busy_work")).otherwise(pl.col("busy"))
    seen = pl.when(any_work).then(pl.col("gpu_work")).otherwise(pl.col("gpu")) & (pl.col("elapsed_s") > 0)
    share = busy / (100.0 * pl.col("gpus") * pl.col("elapsed_s"))
    memory = measured("memory")
    use = {
        "cpu_used_s": pl.coalesce(measured("cpu"), pl.when(cpu > 0).then(cpu)),
        "memory_used_bytes": pl.when(memory > 0).then(memory).otherwise(peak),
        "gpu_used": pl.coalesce(
            measured("gpu"), pl.when(seen & (pl.col("gpus") > 0)).then(share.clip(upper_bound=1.0))
        ),
    }
    # what its finished steps used is not what a running job used
    known = [pl.when(pl.col("ended")).then(value).alias(name) for name, value in use.items()]
    return (
        wide.with_columns(gpus.alias("gpus"))
        .with_columns(known)
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )
