"""The days of a history: which of them may stand for a day to come, and how much wider the load to come may spread.

A day to come is like a working day or a weekend of the past, and like the same day of the week, the more of those are
known (as histories of run times, *n* days are believed with n / (n + k)); newer weeks count more, as in the baseline of
the demand (:mod:`.demand`).

Days drawn from a history spread less than the days to come, for three reasons; what is lacking is added here.

- A few days hold neither the best nor the worst that can come, and tell their own variance but roughly. What a normal
  predictive interval takes from Student's *t* (Geisser, *Predictive Inference*, 1993), in terms of the variance of one
  day: 1/n for the days that a bootstrap cannot draw, 1/n for the mean, and for the tails (z² + 1) / (2 n), which at the
  ninetieth percentile is 1.3/n: altogether 3.3/n.
- Users come and go each on their own, so most of that is each user's: what a user submits in a day is left out or comes
  twice, as often as gives the variance that is lacking (a smoothed bootstrap: Silverman & Young, Biometrika 74(3),
  1987). What days have in common beyond their users' own variances makes all of a day's load more or less.
- A crowded week is followed by a crowded week: where the days of the history go together (by their first
  autocorrelation), the mean of the days to come lies further from theirs. That makes the load more or less for good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.forecast.demand import HALF_LIFE_WEEKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DAY_S", "MOST_DAYS", "LoadDays"]

DAY_S: Final = 86400
MOST_DAYS: Final = 140  # of history; older ones hardly count
_NO_DATES_S: Final = 10**9 // 2  # clocks of traces begin at nought: they have no weekends
_THURSDAY, _SATURDAY = 3, 5  # the first of January 1970, and the first day of a weekend, from Monday
_BELIEF_KIND: Final = 2.0  # like days that are believed as much as all days: working days or weekends,
_BELIEF_WEEKDAY: Final = 8.0  # and the same day of the week
_BELIEF_CORRELATION: Final = 10.0  # days whose autocorrelation is believed half
_LACKING: Final = 3.3  # over the number of days: the share of a day's variance that drawn days lack


@dataclass(frozen=True, slots=True)
class LoadDays:
    """The ``count`` whole days before ``now_s``, the newest first.

    ``own`` is, of each user, the variance over the mean square of what was asked for in a day; ``common`` the variance
    that days have beyond their users' over the squared mean load, and ``lasting`` that of a factor on all days to come.
    """

    now_s: int
    count: int
    dated: bool
    own: NDArray[np.float64]
    common: float
    lasting: float

    @classmethod
    def of(
        cls, now_s: int, first_s: int, times: NDArray[np.int64], users: NDArray[np.int64], asked: NDArray[np.float64]
    ) -> LoadDays:
        """Return the days between ``first_s`` and ``now_s``.

        ``times`` are when jobs were submitted, ``users`` by whom (numbers from 0), ``asked`` for how many node-seconds.
        """
        count, dated = min(MOST_DAYS, max(0, (now_s - first_s) // DAY_S)), first_s > _NO_DATES_S
        load = np.zeros((int(users.max(initial=-1)) + 1, max(1, count)))
        days = (now_s - 1 - times) // DAY_S
        known = days < count
        np.add.at(load, (users[known], days[known]), asked[known])
        off = _off_the_mean(load, now_s, dated)
        mean, free = load.sum(axis=0).mean(), max(1, count - 1)
        own = (off**2).sum(axis=1) / free
        total = off.sum(axis=0)
        variance = float((total**2).sum()) / free
        squares = np.maximum(own + load.mean(axis=1) ** 2, 1e-9)
        scale = max(float(mean) ** 2, 1e-9)
        return cls(
            now_s, count, dated, own / squares, max(0.0, variance - float(own.sum())) / scale,
            _lasting(total) * variance / scale,
        )  # fmt: skip

    def level(self, random: np.random.Generator) -> float:
        """Return how many times the load of the past the load of one future is, for as long as it lasts."""
        return _about_one(self.lasting, random)

    def shares(self, ahead: int) -> NDArray[np.float64]:
        """Return how likely each day stands for the one that begins ``ahead`` days from now."""
        ages = np.arange(1, self.count + 1)
        shares = 0.5 ** (ages / 7 / HALF_LIFE_WEEKS)
        if self.dated:
            shares = _drawn_to(shares, _free(self.now_s, -ages) == _free(self.now_s, ahead), _BELIEF_KIND)
        return _drawn_to(shares, (ages + ahead) % 7 == 0, _BELIEF_WEEKDAY)

    def copies(
        self, shares: NDArray[np.float64], users: NDArray[np.int64], level: float, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return how often each of a past day's submissions, in order, comes in a day to come."""
        lacking = _LACKING * float((shares**2).sum()) / float(shares.sum()) ** 2
        level *= _about_one(lacking * self.common, random)
        steps = np.floor(level * np.arange(len(users) + 1) + random.random()).astype(np.int64)
        half = np.minimum(1.0, lacking) * self.own / 2
        luck = random.random(len(self.own))
        times = 1 + (luck > 1 - half).astype(np.int64) - (luck < half)
        found: NDArray[np.int64] = np.diff(steps) * times[users]
        return found


def _free(now_s: int, days: NDArray[np.int64] | int) -> NDArray[np.bool_]:
    """Whether the middles of the days that begin so many days from now are at a weekend."""
    found: NDArray[np.bool_] = ((now_s + DAY_S // 2) // DAY_S + np.asarray(days) + _THURSDAY) % 7 >= _SATURDAY
    return found


def _off_the_mean(load: NDArray[np.float64], now_s: int, dated: bool) -> NDArray[np.float64]:
    """Return by how much each day (a column) is off the mean of its kind."""
    free = _free(now_s, -np.arange(1, load.shape[1] + 1)) & dated
    off = np.empty_like(load)
    for kind in (free, ~free):
        if kind.any():
            off[:, kind] = load[:, kind] - load[:, kind].mean(axis=1, keepdims=True)
    return off


def _lasting(off: NDArray[np.float64]) -> float:
    """Return the variance of the lasting level, beside that of one day, by how days follow each other.

    With a first autocorrelation *r*, a mean of *n* days has (1 + r) / (1 - r) times the variance; the mean of the days
    drawn lacks as much as that of those to come.
    """
    count, squares = len(off), float((off**2).sum())
    if count < 4 or squares <= 0:
        return 0.0
    found = float((off[1:] * off[:-1]).sum()) / squares + 1 / count  # it is too low by about that
    found = min(0.9, max(0.0, found)) * count / (count + _BELIEF_CORRELATION)
    return ((1 + found) / (1 - found) - 1) * 2 / count


def _drawn_to(shares: NDArray[np.float64], like: NDArray[np.bool_], belief: float) -> NDArray[np.float64]:
    """Return shares that are drawn to those alike; so many of them as count, n, are believed with n / (n + k)."""
    drawn: NDArray[np.float64] = shares / shares.sum()
    own = np.where(like, drawn, 0.0)
    total = float(own.sum())
    if total > 0:
        count = total**2 / float((own**2).sum())
        believed = count / (count + belief)
        drawn = believed * own / total + (1 - believed) * drawn
    return drawn


def _about_one(variance: float, random: np.random.Generator) -> float:
    """Return a log-normal factor of mean 1."""
    spread = math.log1p(variance)
    return math.exp(math.sqrt(spread) * random.standard_normal() - spread / 2)
