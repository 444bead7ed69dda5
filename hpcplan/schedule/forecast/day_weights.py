"""Which days of a history tell of a day to come: weightings of them, of which forecasts of past days choose.

A weighting says how much each known day counts for a day to come. Its weighted mean of their loads is the forecast, and
days are drawn by it. There are three: the seasonal baseline, in which newer weeks count more, working days stand for
working days, weekends for weekends, and the same day of the week for itself, the more of those are known (as histories
of run times, *n* of them are believed with n / (n + k)); the newest days, each counting less than the one after it
(simple exponential smoothing: Brown 1959); and the last four weeks, all alike. The one is used that was best where each
past day was forecast with what was known then (a rolling origin: Tashman, Int. J. Forecasting 16(4), 2000).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DAY_S", "METHODS", "NEEDED_DAYS", "Checked", "Method", "check", "day_weights", "weekend"]

Method = Literal["days like it", "newest days", "last four weeks"]
METHODS: Final[tuple[Method, ...]] = ("days like it", "newest days", "last four weeks")
DAY_S: Final = 86400
_HALF_LIFE_WEEKS: Final = 4.0  # of the seasonal baseline,
_HALF_LIFE_DAYS: Final = 4.0  # and of the newest days
_RECENT_DAYS: Final = 28
_THURSDAY, _SATURDAY = 3, 5  # the first of January 1970, and the first day of a weekend, from Monday
_BELIEF_KIND: Final = 2.0  # like days that are believed as much as all days: working days or weekends,
_BELIEF_WEEKDAY: Final = 8.0  # and the same day of the week
_FIRST_DAYS: Final = 7  # of history before the first day that is forecast again
_FEWEST: Final = 14  # days forecast again, below which the seasonal baseline stands
NEEDED_DAYS: Final = _FIRST_DAYS + _FEWEST


def day_weights(method: Method, now_s: int, count: int, ahead: int, *, dated: bool) -> NDArray[np.float64]:
    """Return how much each of the ``count`` days before ``now_s``, newest first, counts; together 1.

    Args:
        method: which weighting.
        now_s: when the newest of them ends.
        count: how many there are.
        ahead: days between ``now_s`` and the beginning of the day to come.
        dated: whether the clock knows weekends.
    """
    ages = np.arange(1, count + 1)
    if method == "last four weeks":
        weights = (ages <= _RECENT_DAYS).astype(float)
    elif method == "newest days":
        weights = 0.5 ** (ages / _HALF_LIFE_DAYS)
    else:
        weights = 0.5 ** (ages / 7 / _HALF_LIFE_WEEKS)
        if dated:
            weights = _drawn_to(weights, weekend(now_s, -ages) == weekend(now_s, ahead), _BELIEF_KIND)
        weights = _drawn_to(weights, (ages + ahead) % 7 == 0, _BELIEF_WEEKDAY)
    found: NDArray[np.float64] = weights / weights.sum()
    return found


@dataclass(frozen=True, slots=True)
class Checked:
    """Which weighting is used, the mean absolute error of each on past days over their mean load, and how many days.

    ``reason`` says why the baseline stands where that is not for its error.
    """

    method: Method
    errors: Mapping[Method, float]
    days: int
    reason: str | None = None


def check(load: NDArray[np.float64], now_s: int, *, dated: bool) -> Checked:
    """Return which weighting foretold the days of ``load`` (newest first, up to ``now_s``) best, a day ahead."""
    tests = range(len(load) - 1 - _FIRST_DAYS, -1, -1)
    mean = float(load.mean()) if len(load) else 0.0
    errors: dict[Method, float] = {}
    if len(tests) and mean > 0:
        for method in METHODS:
            off = [
                load[day] - day_weights(method, now_s - (day + 1) * DAY_S, len(load) - day - 1, 0, dated=dated)
                @ load[day + 1 :]
                for day in tests
            ]  # fmt: skip
            errors[method] = float(np.abs(off).mean()) / mean
    if len(tests) < _FEWEST or not errors:
        reason = f"{len(load)} whole days are known, and {NEEDED_DAYS} are needed to choose by"
        return Checked(METHODS[0], errors, len(tests), reason)
    return Checked(min(METHODS, key=lambda method: errors[method]), errors, len(tests))


def weekend(now_s: int, days: NDArray[np.int64] | int) -> NDArray[np.bool_]:
    """Whether the middles of the days that begin so many days from now are at a weekend."""
    found: NDArray[np.bool_] = ((now_s + DAY_S // 2) // DAY_S + np.asarray(days) + _THURSDAY) % 7 >= _SATURDAY
    return found


def _drawn_to(weights: NDArray[np.float64], like: NDArray[np.bool_], belief: float) -> NDArray[np.float64]:
    """Return weights that are drawn to those alike; so many of them as count, n, are believed with n / (n + k)."""
    drawn: NDArray[np.float64] = weights / weights.sum()
    own = np.where(like, drawn, 0.0)
    total = float(own.sum())
    if total > 0:
        count = total**2 / float((own**2).sum())
        believed = count / (count + belief)
        drawn = believed * own / total + (1 - believed) * drawn
    return drawn
