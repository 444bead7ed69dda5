"""What each job of a window asked for and would have needed, for a replay of the night with better requests."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from hpcplan.report.advice import MARGIN

__all__ = ["MOST_JOBS", "requests"]

MOST_JOBS: Final = 20_000  # beyond which a replay takes longer than a night's report may
_LIMIT_STEP_S: Final = 300


def requests(seen: pl.DataFrame, start: int) -> list[dict[str, Any]]:
    """Return the jobs that ran, and were submitted or still running in the window, as keyword arguments.

    ``label, submit_s, run_s, nodes, partition, user, account, counted`` and, of what was asked for and needed each,
    ``limit_s, cpus, memory_bytes, gpus``. Needed is a quarter more than the largest use of any job of the same user,
    partition and kind (its name without digits) and never more than was asked for; what was not measured, or asked for
    without a limit, is left as it was. A job that was submitted before the window counts from its beginning, and not
    among the waits; one that ran then already is submitted a second earlier, so that no other takes its place.
    """
    ran = seen.filter(
        pl.col("start_time").is_not_null() & (pl.col("ran_s") > 0) & (pl.col("cpus") > 0) & (pl.col("nodes") > 0)
    ).with_columns(
        pl.col("name").fill_null("").str.replace_all(r"[0-9]+", "#").alias("_kind"),
        pl.coalesce("elapsed_s", pl.col("ran_s").cast(pl.Int64)).clip(lower_bound=1).alias("_run"),
    )
    of_kind = ["user", "partition", "_kind", "time_limit_s", "cpus", "memory_bytes"]
    limit = (pl.col("_run").max().over(of_kind) * MARGIN / _LIMIT_STEP_S).ceil() * _LIMIT_STEP_S
    cpus = ((pl.col("cpu_efficiency") * pl.col("cpus")).max().over(of_kind) * MARGIN).ceil()
    memory = ((pl.col("memory_used_bytes").max().over(of_kind)) * MARGIN).ceil()
    sized = ran.with_columns(
        pl.coalesce("time_limit_s", pl.col("_run")).alias("_limit"),
        pl.when(pl.col("time_limit_s").is_not_null())
        .then(pl.min_horizontal(limit.cast(pl.Int64), "time_limit_s"))
        .alias("_limit_needed"),
        pl.min_horizontal(pl.max_horizontal(cpus.cast(pl.Int64), "nodes"), "cpus").alias("_cpus_needed"),
        pl.when(pl.col("memory_bytes").is_not_null())
        .then(pl.min_horizontal(memory.cast(pl.Int64), "memory_bytes"))
        .alias("_memory_needed"),
        (pl.col("submit_time").is_null() | (pl.col("submit_time") < start)).alias("_before"),
    )
    rows = []
    for row in sized.sort("submit_time", "job_id").iter_rows(named=True):
        earlier = row["_before"]
        begun = max(0, start - row["start_time"]) if earlier else 0
        rows.append(
            {
                "label": f"{row['label']}@{row['start_time']}",
                "submit_s": start - (begun > 0) if earlier else row["submit_time"],
                "run_s": max(1, row["_run"] - begun), "nodes": row["nodes"], "partition": row["partition"],
                "user": row["user"], "account": row["account"], "counted": not earlier,
                "asked": {"limit_s": max(1, row["_limit"] - begun), "cpus": row["cpus"],
                          "memory_bytes": row["memory_bytes"], "gpus": row["gpus"]},
                "needed": {"limit_s": max(1, (row["_limit_needed"] or row["_limit"]) - begun),
                           "cpus": row["_cpus_needed"] or row["cpus"],
                           "memory_bytes": row["_memory_needed"] or row["memory_bytes"], "gpus": row["gpus"]},
            }
        )  # fmt: skip
    return rows
