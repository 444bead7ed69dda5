"""The load of the next days, by partition: what will be submitted, in node-hours, with intervals.

The baseline is seasonal: the mean of the same hour of the week, newer weeks counting more, drawn towards the mean of
the same hour of the day as long as few weeks are known, and that towards the mean of all hours. It is used where,
forecast again from each past day with what was known then, it beats the plain mean of the last four weeks; else that
mean is. Submissions that a forecast of waits expects (:mod:`.arrivals`) have the same season and the same ageing.
The interval comes from the same back-tests: quantiles of actual over forecast load, with the conformal correction for a
finite sample (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from hpcplan.schedule.forecast.snapshot import QueueJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "HALF_LIFE_WEEKS",
    "DayLoad",
    "Method",
    "PartitionDemand",
    "backtest_days",
    "flat",
    "hourly_load",
    "predict_demand",
    "seasonal",
]

Method = Literal["hour of week", "last four weeks"]
_HOUR_S: Final = 3600
_DAY: Final = 24
_WEEK: Final = 7 * _DAY
HALF_LIFE_WEEKS: Final = 4.0
_BELIEF_WEEKS: Final = 3.0  # weeks of an hour of the week that count as much as its hour of the day
_BELIEF_DAYS: Final = 5.0  # days of an hour of the day that count as much as the mean of all
_RECENT_DAYS: Final = 28
_FIRST_DAYS: Final = 7  # of history before the first back-test
_FEWEST: Final = 10  # back-tests that it takes to give an interval


@dataclass(frozen=True, slots=True)
class DayLoad:
    """The load submitted in the 24 hours that begin at ``start_s``, in node-hours; quantiles where they are known."""

    start_s: int
    expected: float
    p10: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class PartitionDemand:
    """The next days of one partition (``None``: jobs that name none), how they were forecast, and how well it does.

    ``errors`` are mean absolute errors of past one-day forecasts over the mean load, by method; empty where the history
    is too short to tell.
    """

    partition: str | None
    method: Method
    days: tuple[DayLoad, ...]
    backtests: int
    errors: Mapping[Method, float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        days = [
            {"start": day.start_s, "node_hours": _round(day.expected), "p10": _round(day.p10), "p90": _round(day.p90)}
            for day in self.days
        ]
        errors = {name: round(value, 3) for name, value in self.errors.items()}
        return {
            "partition": self.partition, "method": self.method, "days": days, "back_tests": self.backtests,
            "relative_errors": errors,
        }  # fmt: skip


def hourly_load(jobs: Sequence[QueueJob], now_s: int) -> tuple[NDArray[np.float64], int]:
    """Return the node-hours submitted in each whole hour before ``now_s``, oldest first, and when the first begins.

    A job counts where it was submitted, with all that it ran; ``now_s`` ends the last hour.
    """
    ended = [job for job in jobs if job.start_s is not None and job.end_s is not None and job.submit_s < now_s]
    if not ended:
        return np.zeros(0), now_s
    hours = 1 + (now_s - 1 - min(job.submit_s for job in ended)) // _HOUR_S
    load = np.zeros(hours)
    for job in ended:
        load[hours - 1 - (now_s - 1 - job.submit_s) // _HOUR_S] += (
            job.width * ((job.end_s or 0) - (job.start_s or 0)) / 3600
        )
    return load, now_s - hours * _HOUR_S


def seasonal(load: NDArray[np.float64], ahead: int) -> NDArray[np.float64]:
    """Return the baseline for the next ``ahead`` hours after the hours of ``load``."""
    count = len(load)
    overall = float(load.mean()) if count else 0.0
    found = np.empty(ahead)
    for hour in range(ahead):
        days = load[(count + hour) % _DAY :: _DAY]
        weeks = load[(count + hour) % _WEEK :: _WEEK]
        daily = (float(days.sum()) + _BELIEF_DAYS * overall) / (len(days) + _BELIEF_DAYS)
        weights = 0.5 ** (np.arange(len(weeks))[::-1] / HALF_LIFE_WEEKS)
        found[hour] = (float((weights * weeks).sum()) + _BELIEF_WEEKS * daily) / (float(weights.sum()) + _BELIEF_WEEKS)
    return found


def flat(load: NDArray[np.float64], ahead: int) -> NDArray[np.float64]:
    """Return the mean of the last four weeks for each of the next ``ahead`` hours."""
    recent = load[-_RECENT_DAYS * _DAY :]
    return np.full(ahead, float(recent.mean()) if len(recent) else 0.0)


_METHODS: Final[dict[Method, Callable[[NDArray[np.float64], int], NDArray[np.float64]]]] = {
    "hour of week": seasonal,
    "last four weeks": flat,
}


def backtest_days(
    load: NDArray[np.float64], method: Callable[[NDArray[np.float64], int], NDArray[np.float64]], day: int = 0
) -> NDArray[np.float64]:
    """Return (forecast, actual) load of past days, one row each: the ``day``-th day after each past midnight of now."""
    rows = []
    for end in range(_FIRST_DAYS * _DAY, len(load) - (day + 1) * _DAY + 1, _DAY):
        actual = float(load[end + day * _DAY : end + (day + 1) * _DAY].sum())
        rows.append((float(method(load[:end], (day + 1) * _DAY)[-_DAY:].sum()), actual))
    return np.array(rows).reshape(-1, 2)


def predict_demand(jobs: Sequence[QueueJob], now_s: int, days: int) -> list[PartitionDemand]:
    """Return the load of the next ``days`` days of each partition that the jobs name, the busiest first."""
    parts: dict[str | None, list[QueueJob]] = {}
    for job in jobs:
        parts.setdefault(job.partition, []).append(job)
    found = []
    for name, mine in parts.items():
        load, _ = hourly_load(mine, now_s)
        if len(load):
            found.append((float(load.sum()), _partition(name, load[len(load) % _DAY :], now_s, days)))
    return [demand for _, demand in sorted(found, key=lambda one: -one[0])]


def _partition(name: str | None, load: NDArray[np.float64], now_s: int, days: int) -> PartitionDemand:
    tests = {method: backtest_days(load, forecast) for method, forecast in _METHODS.items()}
    count = len(tests["hour of week"])
    mean = max(float(load.sum()) / max(1, len(load)) * _DAY, 1e-9)
    errors = {m: float(np.abs(rows[:, 0] - rows[:, 1]).mean()) / mean for m, rows in tests.items()} if count else {}
    chosen: Method = "hour of week"
    if errors and errors["last four weeks"] < errors["hour of week"]:
        chosen = "last four weeks"
    expected = _METHODS[chosen](load, days * _DAY)
    made = []
    for day in range(days):
        amount = float(expected[day * _DAY : (day + 1) * _DAY].sum())
        low, high = _ends(backtest_days(load, _METHODS[chosen], min(day, 6)), amount)
        made.append(DayLoad(now_s + day * _DAY * _HOUR_S, amount, low, high))
    return PartitionDemand(name, chosen, tuple(made), count, errors)


def _ends(rows: NDArray[np.float64], amount: float) -> tuple[float | None, float | None]:
    """Return P10 and P90 of a day's load: the forecast times quantiles of actual over forecast in the past."""
    if len(rows) < _FEWEST:
        return None, None
    ratios = np.sort(rows[:, 1] / np.maximum(rows[:, 0], 1e-9))
    low = max(1, math.floor(0.1 * (len(ratios) + 1)))
    high = min(len(ratios), math.ceil(0.9 * (len(ratios) + 1)))
    return amount * float(ratios[low - 1]), amount * float(ratios[high - 1])


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
