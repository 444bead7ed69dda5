"""Waiting: how long jobs that started in the window had waited, how long those still pending have, and slowdown."""

from __future__ import annotations

from typing import Final

import polars as pl

from hpcplan.report.figures import Distribution, Histogram

__all__ = ["WAIT_BINS", "distribution", "eligible_wait", "pending_age", "slowdown", "wait", "wait_histogram"]

WAIT_BINS: Final = (
    (0, "< 1 min"), (60, "1–5 min"), (300, "5–15 min"), (900, "15–60 min"), (3600, "1–4 h"), (4 * 3600, "4–12 h"),
    (12 * 3600, "12–24 h"), (86400, "1–3 d"), (3 * 86400, "≥ 3 d"),
)  # fmt: skip


def distribution(values: pl.Series) -> Distribution:
    """Return mean, median, 95th percentile and maximum of the values that are known (not null)."""
    known = values.drop_nulls().cast(pl.Float64).sort()
    if known.is_empty():
        return Distribution(None, None, None, None, 0, len(values))
    p95 = known.quantile(0.95, interpolation="linear")
    mean, median, largest = known.mean(), known.median(), known.max()
    return Distribution(_number(mean), _number(median), _number(p95), _number(largest), len(known), len(values))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def wait(seen: pl.DataFrame) -> Distribution:
    """Seconds from submission to start, over attempts that started in the window."""
    return distribution(seen["wait_s"].filter(seen["started_in"]))


def eligible_wait(seen: pl.DataFrame) -> Distribution:
    """Seconds from being eligible to start: without the time a job was held or waited for its dependencies."""
    return distribution(seen["eligible_wait_s"].filter(seen["started_in"]))


def pending_age(seen: pl.DataFrame, end: int) -> Distribution:
    """Seconds since submission of the jobs that were still pending at the window's end (``end``)."""
    return distribution(end - seen["submit_time"].filter(seen["pending"]))


def slowdown(seen: pl.DataFrame) -> Distribution:
    """Bounded slowdown (window.efficiencies) of the attempts that ran and ended in the window."""
    return distribution(seen["slowdown"].filter(seen["ended_in"] & seen["start_time"].is_not_null()))


def wait_histogram(seen: pl.DataFrame) -> Histogram:
    """Return how many of the attempts that started in the window had waited how long, in bins people speak of."""
    import numpy as np

    waits = seen["wait_s"].filter(seen["started_in"]).drop_nulls().to_numpy()
    edges, labels = zip(*WAIT_BINS, strict=True)
    counts, _ = np.histogram(waits, bins=[*edges, np.inf])
    return Histogram(tuple(float(edge) for edge in edges), tuple(labels), tuple(int(number) for number in counts))
