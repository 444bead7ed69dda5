"""Queueing theory on the window's own figures, to stand beside what was measured."""

from __future__ import annotations

from typing import Final

import polars as pl

from hpcplan.report.queueing import Wait, allen_cunneen, mg1, mm1, mmc
from hpcplan.report.rows import Capacity, Queueing, QueueModel
from hpcplan.report.window import picked

__all__ = ["beside_measured"]

_NOTE: Final = (
    "Bounds for intuition, not predictions: the formulas assume independent arrivals at a constant rate and no "
    "backfill, priorities or job widths. On real traces they are often off by a factor of ten."
)
_RESOURCES: Final = {"nodes": "nodes", "cpus": "CPUs", "gpus": "GPUs"}


def beside_measured(
    seen: pl.DataFrame, size: Capacity, window_s: int, measured_wait_s: float | None, *, nodes_shared: bool
) -> Queueing | None:
    """Return M/M/1, M/M/c, M/G/1 and Allen–Cunneen for the busiest resource.

    ``None`` where arrivals, run times or sizes are unknown.

    Arrivals λ: attempts submitted in the window, save those that were cancelled before they started. Service: those
    that ran and ended in it. M/M/1 and M/G/1 see the machine as one server that works a job of n of N units off in
    n/N of its run time; M/M/c sees as many servers as jobs of mean size fit. The load ρ = λ·E[n·run]/N is the same.
    Nodes are no unit of their own where jobs share them (``nodes_shared``).
    """
    came = pl.col("submitted_in") & (pl.col("unfinished") | pl.col("start_time").is_not_null())
    arrived = picked(seen, came, "submit_time")
    served = picked(seen, pl.col("ended_in") & (pl.col("elapsed_s") > 0), "elapsed_s", *_RESOURCES)
    best: tuple[float, str, int, pl.DataFrame] | None = None
    for column in _RESOURCES:
        units = getattr(size, column)
        known = served.filter(pl.col(column) > 0)
        if (column == "nodes" and nodes_shared) or not units or known.is_empty() or arrived.is_empty() or window_s <= 0:
            continue
        share = len(known) / len(served)  # the others do not use this resource
        load = (
            len(arrived)
            * share
            / window_s
            * _mean(known, pl.col("elapsed_s").cast(pl.Float64) * pl.col(column))
            / units
        )
        if best is None or load > best[0]:
            best = (load, column, units, known)
    if best is None:
        return None
    _, column, units, known = best
    rate = len(arrived) * len(known) / len(served) / window_s
    return _models(
        known, column, units, rate, _variation(arrived["submit_time"].sort().diff().drop_nulls()), measured_wait_s
    )


def _variation(values: pl.Series) -> float | None:
    """Return the squared coefficient of variation, ``None`` of fewer than two values or where their mean is zero."""
    numbers = values.cast(pl.Float64)
    mean = numbers.mean()
    if len(numbers) < 2 or not isinstance(mean, float) or mean <= 0:
        return None
    return float(((numbers - mean) ** 2).mean()) / mean**2  # type: ignore[arg-type]


def _mean(table: pl.DataFrame, value: pl.Expr) -> float:
    return float(table.select(value.cast(pl.Float64).mean()).item())


def _models(
    known: pl.DataFrame, column: str, units: int, rate: float, arrivals: float | None, measured_wait_s: float | None
) -> Queueing:  # fmt: skip
    run_s = _mean(known, pl.col("elapsed_s"))
    service = pl.col("elapsed_s").cast(pl.Float64) * pl.col(column) / units
    mean_service, second_moment = _mean(known, service), _mean(known, service * service)
    width = _mean(known, pl.col(column))
    servers = max(1, int(units / width))
    load = rate * mean_service
    each = f"{servers} servers of {width:.3g} {_RESOURCES[column]} each"
    rows = [
        ("M/M/1", 1, mm1(rate, 1 / mean_service), "the whole machine as one server, exponential run times"),
        ("M/M/c", servers, mmc(rate, rate / (servers * load), servers), each),
        ("M/G/1", 1, mg1(rate, mean_service, second_moment), "the whole machine as one server, run times as they were"),
    ]
    variation = _variation(known["elapsed_s"])
    if arrivals is not None and variation is not None:
        found = allen_cunneen(rate, rate / (servers * load), servers, arrivals, variation)
        rows.append(("Allen–Cunneen", servers, found, f"{each}, arrivals and run times as they were"))
    return Queueing(
        resource=_RESOURCES[column],
        arrivals_per_hour=rate * 3600,
        mean_run_s=run_s,
        load=load,
        measured_mean_wait_s=measured_wait_s,
        models=tuple(_row(name, count, found, note) for name, count, found, note in rows),
        note=_NOTE,
    )


def _row(name: str, servers: int, found: Wait, note: str) -> QueueModel:
    return QueueModel(name, servers, found.load, found.stable, found.mean_wait, found.wait_probability, note)
