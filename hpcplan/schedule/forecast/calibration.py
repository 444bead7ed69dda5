"""Making intervals honest: how far off past forecasts were widens, narrows and moves the next ones.

Conformalised quantile regression (Romano, Patterson & Candès, NeurIPS 2019), each end for itself: of past forecasts it
is known by how much the start lay beyond each predicted quantile, as a share of the forecast's spread; the quantile of
those shares is added to the next forecast's. If the next job is like the past ones in this respect (exchangeable), an
end holds as often as it says. Only jobs that waited count, for whom it matters; so the intervals are as often right for
jobs that wait as they say, and for all jobs more often.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from hpcplan.schedule.forecast.wait import WaitForecast

__all__ = ["LEVELS", "Calibration"]

LEVELS: Final = (0.05, 0.1, 0.5, 0.9, 0.95)
_ENDS: Final = (0.05, 0.1, 0.9, 0.95)  # the median stays as it is drawn
_NEWEST: Final = 300  # past forecasts that count
_FEWEST: Final = 20  # below, nothing is corrected
_SHARE_OF_MEDIAN: Final = 0.1  # forecasts without a spread of their own have this much, and a minute
_LEAST_S: Final = 60.0


@dataclass(slots=True)
class Calibration:
    """By how much past forecasts of jobs that waited were off, newest last."""

    misses: deque[tuple[float, ...]] = field(default_factory=lambda: deque(maxlen=_NEWEST))

    @property
    def used(self) -> bool:
        """Whether there are enough past forecasts to correct by."""
        return len(self.misses) >= _FEWEST

    def learn(self, forecast: WaitForecast, wait_s: float) -> None:
        """Take note of how long the job really waited; one that did not wait teaches nothing."""
        if wait_s > 0:
            spread = _spread_s(forecast)
            self.misses.append(tuple((wait_s - forecast.quantile_s(level)) / spread for level in _ENDS))

    def quantiles_s(self, forecast: WaitForecast) -> dict[float, float]:
        """Return the waits (seconds, never negative) at :data:`LEVELS`, corrected where enough is known."""
        found = {level: forecast.quantile_s(level) for level in LEVELS}
        if self.used and forecast.waits_s[-1] > 0:
            spread = _spread_s(forecast)
            for position, level in enumerate(_ENDS):
                found[level] += _conformal([miss[position] for miss in self.misses], level) * spread
        median = found[0.5]
        for level in _ENDS:
            found[level] = max(0.0, min(found[level], median) if level < 0.5 else max(found[level], median))
        found[0.1], found[0.9] = max(found[0.1], found[0.05]), min(found[0.9], found[0.95])
        return found


def _spread_s(forecast: WaitForecast) -> float:
    width = forecast.quantile_s(0.95) - forecast.quantile_s(0.05)
    return width + _SHARE_OF_MEDIAN * forecast.quantile_s(0.5) + _LEAST_S


def _conformal(values: list[float], level: float) -> float:
    """Return the quantile with the correction for a finite sample, outwards."""
    ordered = np.sort(values)
    rank = (len(ordered) + 1) * level
    position = math.ceil(rank) if level > 0.5 else math.floor(rank)
    return float(ordered[min(max(position, 1), len(ordered)) - 1])
