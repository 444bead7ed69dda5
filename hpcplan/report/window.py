"""The job table seen through a window of time: what each job did inside it, and how efficient it was.

The window is half open, ``[start, end)``: a moment belongs to exactly one night. A job that had not ended by ``end`` is
waiting or running in this report, even where the data already know better.
"""

from __future__ import annotations

from typing import Final, TypeVar

import polars as pl

from hpcplan.slurm.records import JobState

__all__ = ["BOUND_S", "WAITING", "efficiencies", "picked", "see"]

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)
BOUND_S: Final = 10  # bounded slowdown's τ (Feitelson 2001)
WAITING: Final = tuple(state.value for state in JobState if state.waiting)


def efficiencies(table: Frame) -> Frame:
    """Add ``cpu_efficiency``, ``memory_efficiency``, ``gpu_efficiency``, ``time_efficiency``, ``wait_s`` and more.

    Fractions, ``null`` where not known, for attempts that have ended:

    - CPU: time used / (elapsed × CPUs allocated), seff's formula;
    - memory: peak of all tasks / memory allocated;
    - GPU: mean utilisation of the GPUs allocated;
    - time: elapsed / time limit; above 1 where Slurm was late to end a job (KillWait, OverTimeLimit in slurm.conf).

    ``wait_s`` is start − submit and ``eligible_wait_s`` start − eligible (without the time that a job was held, or
    waited for others that it depends on); ``slowdown`` is max(1, (wait + run) / max(run, 10 s)), Feitelson's bounded
    slowdown (Metrics for Parallel Job Scheduling and Their Convergence, JSSPP 2001).
    """
    run = pl.col("elapsed_s").cast(pl.Float64)  # products of hostile figures must not wrap around
    done = pl.col("ended") & pl.col("elapsed_s").is_not_null()
    ran = done & (run > 0)
    waited = (pl.col("start_time") - pl.col("submit_time")).clip(lower_bound=0)
    eligible = (pl.col("start_time") - pl.max_horizontal("eligible_time", "submit_time")).clip(lower_bound=0)
    return table.with_columns(
        _where(ran & (pl.col("cpus") > 0), pl.col("cpu_used_s") / (run * pl.col("cpus"))).alias("cpu_efficiency"),
        _where(
            pl.col("ended") & (pl.col("memory_bytes") > 0), pl.col("memory_used_bytes") / pl.col("memory_bytes")
        ).alias("memory_efficiency"),
        _where(ran & (pl.col("gpus") > 0), pl.col("gpu_used")).alias("gpu_efficiency"),
        _where(ran & (pl.col("time_limit_s") > 0), run / pl.col("time_limit_s")).alias("time_efficiency"),
        waited.alias("wait_s"),
        _where(pl.col("eligible_time").is_not_null(), eligible).alias("eligible_wait_s"),
    ).with_columns(
        _where(
            done & pl.col("wait_s").is_not_null(),
            ((pl.col("wait_s") + run) / run.clip(lower_bound=BOUND_S)).clip(lower_bound=1.0),
        ).alias("slowdown")
    )


def picked(table: pl.DataFrame, condition: pl.Expr | str, *columns: str) -> pl.DataFrame:
    """Return some columns of the rows for which a condition holds; the others are not touched."""
    kept = pl.col(condition) if isinstance(condition, str) else condition
    return table.lazy().filter(kept).select(columns).collect()


def _where(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(value).otherwise(None)


def see(table: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
    """Return the jobs that were waiting, running or ended in ``[start, end)``, with what they did in it.

    Adds the columns of :func:`efficiencies` and ``submitted_in``, ``started_in``, ``ended_in`` (whether it happened in
    the window), ``status`` (the state as of the window's end), ``ran_s`` (seconds on its resources inside the window,
    ``null`` where unknown), ``core_s``, ``gpu_s``, ``node_s``, ``gib_s`` (resource-seconds inside it),
    ``unfinished`` (waits or runs at the window's end) and ``pending`` (waits then).
    """

    def inside(name: str) -> pl.Expr:
        return pl.col(name).is_between(start, end, closed="left").fill_null(False)

    overlapping = table.filter(
        (pl.col("submit_time").is_null() | (pl.col("submit_time") < end))
        & (~pl.col("ended") | pl.col("end_time").is_null() | (pl.col("end_time") >= start))
    )
    over = pl.col("ended") & (pl.col("end_time").is_null() | (pl.col("end_time") < end))
    on = (pl.col("start_time") < end).fill_null(False)
    last = pl.when(pl.col("ended")).then(pl.col("end_time")).otherwise(pl.col("seen_until").fill_null(end))
    first = pl.col("start_time").clip(lower_bound=start)
    never = pl.col("ended") & pl.col("start_time").is_null() & (pl.col("elapsed_s").fill_null(0) == 0)
    waits = ~pl.col("ended") & pl.col("start_time").is_null() & (pl.col("state") != "RUNNING")
    idle = never | waits | (pl.col("start_time") >= end).fill_null(False)
    seen = (
        efficiencies(overlapping)
        .with_columns(
            inside("submit_time").alias("submitted_in"),
            inside("start_time").alias("started_in"),
            inside("end_time").alias("ended_in"),
            (~over).alias("unfinished"),
            pl.when(over).then(pl.col("state")).otherwise(_status_then(on)).alias("status"),
            pl.when(idle)
            .then(0.0)
            .otherwise((last.clip(upper_bound=end) - first).clip(lower_bound=0).cast(pl.Float64))
            .alias("ran_s"),
        )
        .with_columns((pl.col("unfinished") & pl.col("status").is_in(WAITING)).alias("pending"))
    )
    held = pl.col("ran_s")
    return (
        seen.with_columns((pl.col("memory_bytes") / 2**30).alias("_gib"))
        .with_columns(
            pl.when(held == 0).then(0.0).otherwise(held * pl.col(size)).alias(seconds)
            for size, seconds in (("cpus", "core_s"), ("gpus", "gpu_s"), ("nodes", "node_s"), ("_gib", "gib_s"))
        )
        .drop("_gib")
    )


def _status_then(on: pl.Expr) -> pl.Expr:
    """Return the state at the window's end of a job that had not ended by then."""
    keeps = ~pl.col("ended") & (on | pl.col("start_time").is_null())  # its own word: SUSPENDED, COMPLETING, PENDING…
    return pl.when(keeps).then(pl.col("state")).when(on).then(pl.lit("RUNNING")).otherwise(pl.lit("PENDING"))
