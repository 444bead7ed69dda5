"""The load of the next days, by partition: what will be submitted, in node-hours, with intervals.

Each partition is forecast by the weighting of its past days that foretold them best (:mod:`.day_weights`). The interval
is that of days drawn by it, made as wide as days to come are (:mod:`.load_days`). The same draws say how much others
submit in the futures that waits are forecast by (:mod:`.arrivals`): what is told here is what is reckoned with there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from hpcplan.schedule.forecast.arrivals import Arrivals
from hpcplan.schedule.forecast.day_weights import DAY_S, NEEDED_DAYS, Method

__all__ = ["DayLoad", "PartitionDemand", "demand_reasons", "demand_words", "interval_words", "predict_demand"]

_DRAWS: Final = 400
_HOUR_S: Final = 3600
_NAMED: Final = 3  # partitions that are told of one by one


@dataclass(frozen=True, slots=True)
class DayLoad:
    """The load submitted in the 24 hours that begin at ``start_s``, in node-hours: the mean, and quantiles if known."""

    start_s: int
    expected: float
    p10: float | None = None
    p90: float | None = None


@dataclass(frozen=True, slots=True)
class PartitionDemand:
    """The next days of one partition (``None``: jobs that name none), how they were forecast, and how well that does.

    ``errors`` are mean absolute errors of one-day forecasts of ``checked_days`` past days over their mean load, by
    method; empty where there are none. ``reason`` says why the seasonal baseline stands where nothing was chosen.
    """

    partition: str | None
    method: Method | Literal["all hours alike"]
    days: tuple[DayLoad, ...]
    known_days: int
    checked_days: int
    errors: Mapping[Method, float]
    reason: str | None = None

    @property
    def error(self) -> float | None:
        """The error of the method that was used, where it is known."""
        return next((error for method, error in self.errors.items() if method == self.method), None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        days = [
            {"start": day.start_s, "node_hours": round(day.expected, 1), "p10": _round(day.p10), "p90": _round(day.p90)}
            for day in self.days
        ]  # fmt: skip
        errors = {name: round(value, 3) for name, value in self.errors.items()}
        return {
            "partition": self.partition, "method": self.method, "days": days, "known_days": self.known_days,
            "back_tests": self.checked_days, "relative_errors": errors, "reason": self.reason,
        }  # fmt: skip


def predict_demand(arrivals: Arrivals, now_s: int, days: int, *, seed: int = 0) -> tuple[PartitionDemand, ...]:
    """Return the load of the next ``days`` days of each partition, the busiest first.

    Of less than two whole days it is that of all times of the history alike, and there are no quantiles.
    """
    known = arrivals.days(now_s)
    if known is None:
        return ()
    found = []
    if known.count < 2:
        reason = f"less than two whole days are known, and {NEEDED_DAYS} are needed to choose by"
        for name, usual in zip(arrivals.partitions, arrivals.usual(now_s), strict=True):
            flat = tuple(DayLoad(now_s + day * DAY_S, usual / _HOUR_S) for day in range(days))
            found.append(PartitionDemand(name, "all hours alike", flat, known.count, 0, {}, reason))
    elif known.checked:
        drawn = known.drawn(days, _DRAWS, np.random.default_rng((seed, now_s % 2**32))) / _HOUR_S
        low, high = np.quantile(drawn, (0.1, 0.9), axis=0).tolist()
        for part, (name, checked) in enumerate(zip(arrivals.partitions, known.checked, strict=False)):
            made = tuple(
                DayLoad(now_s + day * DAY_S, known.expected(part, day) / _HOUR_S, low[day][part], high[day][part])
                for day in range(days)
            )
            found.append(
                PartitionDemand(
                    name, checked.method, made, known.count, checked.days, checked.errors, checked.reason
                )
            )  # fmt: skip
    busy = [one for one in found if any(day.expected > 0 for day in one.days)]
    return tuple(sorted(busy, key=lambda one: -one.days[0].expected))


def interval_words(day: DayLoad, words: str = "{} to {}") -> str:
    """Return the interval in words with two gaps; nothing where it is not known."""
    return "" if day.p10 is None or day.p90 is None else words.format(f"{day.p10:,.0f}", f"{day.p90:,.0f}")


def demand_words(demand: Sequence[PartitionDemand], unit: str) -> str | None:
    """Return how much others submit in the next day, of the busiest partitions; ``None`` where that is not forecast."""
    told = [
        (f"{one.partition}: " if one.partition else "")
        + f"{one.days[0].expected:,.0f} {unit}-hours"
        + interval_words(one.days[0], " (80 %: {} to {})")
        + f", by {one.method}"
        + ("" if one.reason else f", best of {len(one.errors)} on {one.checked_days} past days")
        for one in demand[:_NAMED]
    ]  # fmt: skip
    told += [f"{len(demand) - _NAMED} partitions more"] if len(demand) > _NAMED else []
    return "; ".join(told) or None


def demand_reasons(arrivals: Arrivals, demand: Sequence[PartitionDemand]) -> list[str]:
    """Return, a sentence each, why others are not (wholly) drawn by a forecast of the demand."""
    if not arrivals.known:
        return ["nobody else submits: nothing is known of past submissions"]
    reasons: dict[str, list[str]] = {}
    for one in demand:
        if one.reason:
            reasons.setdefault(f"{one.method}: {one.reason}", []).append(one.partition or "")
    return [
        f"the demand{' of ' + ', '.join(names[:_NAMED]) if any(names) else ''}"
        f"{' and others' if len(names) > _NAMED else ''} is forecast by {why}"
        for why, names in reasons.items()
    ]  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
