"""One row a job: what seff and reportseff users look for, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from hpcplan.report.job_ids import chosen, parse_job_ids
from hpcplan.report.window import efficiencies

__all__ = ["COLUMNS", "job_rows", "select"]

# column of the row: column of the table, see table.SCHEMA and window.efficiencies
COLUMNS: Final = {
    "job_id": "label", "job_id_raw": "job_id", "cluster": "cluster", "name": "name", "user": "user",
    "account": "account", "partition": "partition", "qos": "qos", "state": "state", "reason": "reason",
    "submit_time": "submit_time", "eligible_time": "eligible_time", "start_time": "start_time",
    "end_time": "end_time", "wait_s": "wait_s", "eligible_wait_s": "eligible_wait_s", "elapsed_s": "elapsed_s",
    "time_limit_s": "time_limit_s", "nodes": "nodes", "cpus": "cpus", "gpus": "gpus",
    "memory_bytes": "memory_bytes", "node_list": "node_list", "cpu_used_s": "cpu_used_s",
    "memory_used_bytes": "memory_used_bytes", "cpu_efficiency": "cpu_efficiency",
    "memory_efficiency": "memory_efficiency", "gpu_efficiency": "gpu_efficiency",
    "time_efficiency": "time_efficiency", "slowdown": "slowdown", "exit_code": "exit_code", "restarts": "restarts",
    "backfilled": "backfilled", "gpu_sampled": "gpu_sampled", "gpus_asked": "gpus_asked",
}  # fmt: skip


def job_rows(table: pl.DataFrame, *, now: int | None = None) -> list[dict[str, Any]]:
    """Return a dictionary for each attempt, oldest submission first.

    Efficiencies are fractions, ``None`` where they are not known: while a job runs, where Slurm recorded no use, or
    where nothing was asked for to measure it against. ``elapsed_s`` of a running job is up to when it was last seen,
    or ``now``. ``gpu_sampled`` is true where the GPUs' use is from the samples of hpcplan's own jobs, ``gpus_asked``
    where their number is that of the submit line.
    """
    running = ~pl.col("ended") & pl.col("start_time").is_not_null()
    until = pl.coalesce("seen_until", pl.lit(now, dtype=pl.Int64))
    so_far = (until - pl.col("start_time")).clip(lower_bound=0)
    shown = table if "cpu_efficiency" in table.columns else efficiencies(table)
    if "sampled_gpu_used" not in shown.columns:
        shown = shown.with_columns(pl.lit(None, dtype=pl.Float64).alias("sampled_gpu_used"))
    shown = shown.with_columns(
        (pl.col("gpu_efficiency").is_not_null() & pl.col("sampled_gpu_used").is_not_null()).alias("gpu_sampled"),
        pl.col("gpus_asked").fill_null(False),
    )
    shown = shown.with_columns(pl.when(running).then(so_far).otherwise(pl.col("elapsed_s")).alias("elapsed_s"))
    return shown.select(pl.col(source).alias(name) for name, source in COLUMNS.items()).to_dicts()


def select(table: pl.DataFrame, job_ids: Iterable[str], user: str | None = None) -> pl.DataFrame:
    """Return the rows of these jobs (all if none are named) and of this user.

    An id names a job as Slurm shows it (``7``, ``7_3``, ``7+1``) or by its raw number; ``7`` alone also means every
    task of array 7 and every part of heterogeneous job 7, ``7_[1-3]`` some of its tasks, ``7-12`` a row of jobs.

    Raises:
        InputError: a text that is no job id.
    """
    wanted = parse_job_ids(job_ids)
    found = table if user is None else table.filter(pl.col("user") == user)
    return chosen(found, wanted)[0] if wanted else found
