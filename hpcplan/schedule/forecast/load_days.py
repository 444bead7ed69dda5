"""The days of a history by partition: which of them stand for a day to come, and how much wider the load may spread.

Which weighting of the days a partition is forecast by says :mod:`.day_weights`: its mean is the load to be expected,
and days are drawn by it. Days drawn from a history spread less than the days to come, for three reasons; what is
lacking is added here.

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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.forecast.day_weights import DAY_S, Checked, Method, check, day_weights, weekend

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_DAYS", "DrawnDay", "Level", "LoadDays"]

MOST_DAYS: Final = 140  # of history; older ones hardly count
_NO_DATES_S: Final = 10**9 // 2  # clocks of traces begin at nought: they have no weekends
_BELIEF_CORRELATION: Final = 10.0  # days whose autocorrelation is believed half
_LACKING: Final = 3.3  # over the number of days: the share of a day's variance that drawn days lack


@dataclass(frozen=True, slots=True)
class Level:
    """What is drawn once for a future: how much each day of the past counts, and by partition the lasting load."""

    counts: NDArray[np.float64]
    factors: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DrawnDay:
    """A day to come: the past day that it is like (0 is the newest) by weighting, and what comes of it more or less.

    ``factors`` are by partition, ``times`` (0, 1 or 2) by user.
    """

    days: dict[Method, int]
    factors: NDArray[np.float64]
    times: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LoadDays:
    """The ``count`` whole days before ``now_s``, the newest first.

    ``load`` has, of each user (a row), the node-seconds of a day (a column); ``parts`` says whose partition a user is
    of: one who uses two is two. ``own`` is, of each user, the variance over the mean square of a day's load; by
    partition, ``common`` is the variance that days have beyond their users' over the squared mean load, ``lasting``
    that of a factor on all days to come, and ``checked`` the weighting.
    """

    now_s: int
    count: int
    dated: bool
    load: NDArray[np.float64]
    parts: NDArray[np.int64]
    own: NDArray[np.float64]
    common: NDArray[np.float64]
    lasting: NDArray[np.float64]
    checked: tuple[Checked, ...]

    @classmethod
    def of(
        cls, now_s: int, first_s: int, times: NDArray[np.int64], users: NDArray[np.int64], spent: NDArray[np.float64],
        parts: NDArray[np.int64], *, checked: Sequence[Checked] | None = None,
    ) -> LoadDays:  # fmt: skip
        """Return the days between ``first_s`` and ``now_s``.

        Args:
            now_s: the end of the newest day.
            first_s: when the history begins.
            times: when jobs were submitted.
            users: by whom (numbers from 0).
            spent: their node-seconds.
            parts: of each user, the partition (numbers from 0).
            checked: what was found of the weightings, where that is known; else past days are forecast again.
        """
        count, dated = min(MOST_DAYS, max(0, (now_s - first_s) // DAY_S)), first_s > _NO_DATES_S
        load = np.zeros((len(parts), max(1, count)))
        days = (now_s - 1 - times) // DAY_S
        known = days < count
        np.add.at(load, (users[known], days[known]), spent[known])
        off, free = _off_the_mean(load, now_s, dated), max(1, count - 1)
        own = (off**2).sum(axis=1) / free
        sums = [np.bincount(parts, weights=values) for values in (own, load.mean(axis=1))]
        total = _by_part(off, parts)
        variance = (total**2).sum(axis=1) / free
        scale = np.maximum(sums[1] ** 2, 1e-9)
        if checked is None:
            checked = [check(row[:count], now_s, dated=dated) for row in _by_part(load, parts)]
        return cls(
            now_s, count, dated, load, parts, own / np.maximum(own + load.mean(axis=1) ** 2, 1e-9),
            np.maximum(0.0, variance - sums[0]) / scale, np.array([_lasting(row) for row in total]) * variance / scale,
            tuple(checked),
        )  # fmt: skip

    def weights(self, method: Method, ahead: int) -> NDArray[np.float64]:
        """Return how likely each day stands for the one that begins ``ahead`` days from now."""
        return day_weights(method, self.now_s, self.count, ahead, dated=self.dated)

    def expected(self, part: int, ahead: int) -> float:
        """Return the node-seconds of a day to come in a partition."""
        return float(self.weights(self.checked[part].method, ahead) @ self.load[self.parts == part].sum(axis=0))

    def level(self, random: np.random.Generator) -> Level:
        """Draw what holds for all days of one future.

        How much will be submitted in the long run is known only as well as the days of the history tell: each counts
        exponentially (the Bayesian bootstrap: Rubin, Ann. Stat. 9(1), 1981).
        """
        return Level(random.exponential(size=self.count), _about_one(self.lasting, random))

    def day(self, ahead: int, level: Level, random: np.random.Generator) -> DrawnDay:
        """Draw a day to come. Partitions are drawn by one chance: those weighted alike are of the same day."""
        found: dict[Method, int] = {}
        lacking: dict[Method, float] = {}
        chance = random.random()
        for method in dict.fromkeys(one.method for one in self.checked):
            weights = self.weights(method, ahead) * level.counts
            summed = weights.cumsum()
            found[method] = min(self.count - 1, int(np.searchsorted(summed, chance * summed[-1], side="right")))
            lacking[method] = _LACKING * float((weights**2).sum()) / float(summed[-1]) ** 2
        share = np.array([lacking[one.method] for one in self.checked])
        factors = level.factors * _about_one(share * self.common, random)
        half = np.minimum(1.0, share[self.parts]) * self.own / 2
        luck = random.random(len(self.own))
        return DrawnDay(found, factors, 1 + (luck > 1 - half).astype(np.int64) - (luck < half))

    def drawn(self, ahead: int, draws: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Return the node-seconds of the next ``ahead`` days as futures have them: by draw, day and partition."""
        found = np.empty((draws, ahead, len(self.checked)))
        for draw in range(draws):
            level = self.level(random)
            for number in range(ahead):
                day = self.day(number, level, random)
                like = np.array([day.days[one.method] for one in self.checked])
                came = self.load[np.arange(len(self.parts)), like[self.parts]] * day.times
                found[draw, number] = np.bincount(self.parts, weights=came) * day.factors
        return found


def _by_part(values: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of rows by partition."""
    found = np.zeros((int(parts.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(found, parts, values)
    return found


def _off_the_mean(load: NDArray[np.float64], now_s: int, dated: bool) -> NDArray[np.float64]:
    """Return by how much each day (a column) is off the mean of its kind."""
    free = weekend(now_s, -np.arange(1, load.shape[1] + 1)) & dated
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


def _about_one(variances: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return log-normal factors of mean 1, all by one chance."""
    spread = np.log1p(variances)
    found: NDArray[np.float64] = np.exp(np.sqrt(spread) * random.standard_normal() - spread / 2)
    return found
