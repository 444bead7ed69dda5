"""Jobs that others will submit while one waits: drawn from what they submitted at such times before."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.forecast.demand import HALF_LIFE_WEEKS
from hpcplan.schedule.forecast.snapshot import QueueJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST", "Arrivals", "submissions"]

_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_WEEK_S: Final = 7 * _DAY_S
_WEEKS: Final = 3  # of history that it takes to tell weekdays apart
MOST: Final = 400  # jobs of one sample; those further off hardly matter for a job that is first in line
_JITTER_S: Final = 2 * _HOUR_S
_NO_DATES_S: Final = 10**9 // 2  # clocks of traces begin at nought: they have no weekdays
_THURSDAY, _SATURDAY = 3, 5  # the first of January 1970, and the first day of a weekend, from Monday
_BELIEF_DAYS: Final = 2.0  # like days that are believed as much as all days


class Arrivals:
    """Past submissions, in order. A future is a stretch of the past, moved to the present as it stands.

    Copying stretches keeps bursts together (a block bootstrap: Künsch, Ann. Stat. 17(3), 1989). A stretch begins at the
    same hour, give or take two: of the same weekday where there are three weeks of history; otherwise of any day, but
    working days stand for working days and weekends for weekends the more, the more of them are known; and anywhere in
    a history of less than two days. Newer stretches are drawn more often, as the baseline of the demand
    (:mod:`.demand`) counts newer weeks more.

    How much will be submitted in the long run is known only as well as the days of the history tell. So each future
    first draws for each of those days how much it counts, exponentially, and then its stretches by that (the Bayesian
    bootstrap: Rubin, Ann. Stat. 9(1), 1981): futures of many days are not all like the mean of the history.
    """

    def __init__(self, past: Sequence[QueueJob]) -> None:
        self._past = [*past]
        self._times = [job.submit_s for job in self._past]

    @property
    def known(self) -> bool:
        """Whether there are past submissions to go by."""
        return bool(self._past)

    def add(self, job: QueueJob) -> None:
        """Take note of a submission, later than all before."""
        self._past.append(job)
        self._times.append(job.submit_s)

    def future(
        self, now_s: int, horizon_s: int, random: np.random.Generator, most: int = MOST
    ) -> list[tuple[int, QueueJob]]:
        """Return one future: when each job comes, and the past job that it is like. Empty without a past."""
        moved: list[tuple[int, QueueJob]] = []
        for stretch in self.stretches(now_s, random, horizon_s=horizon_s, most=most):
            moved += stretch
            if len(moved) >= most:
                break
        return moved[:most]

    def stretches(
        self, now_s: int, random: np.random.Generator, *, horizon_s: int | None = None, most: int | None = None
    ) -> Iterator[list[tuple[int, QueueJob]]]:
        """Yield one future stretch by stretch, of a day or less each, for ever or until ``horizon_s`` from now."""
        counts = self._counts(now_s, random)
        time, end = now_s, None if horizon_s is None else now_s + horizon_s
        while self._past and (end is None or time < end):
            length_s = _DAY_S if end is None else min(_DAY_S, end - time)
            start = self._stretch(now_s, time, length_s, counts, random)
            if start is None:
                return
            length_s = max(1, min(length_s, now_s - start))
            first, last = bisect_left(self._times, start), bisect_left(self._times, start + length_s)
            last = last if most is None else min(last, first + most)
            yield [(time + job.submit_s - start, job) for job in self._past[first:last]]
            time += length_s

    def _counts(self, now_s: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Return how much each day of the past, the newest first, counts in one future."""
        days = max(0, now_s - self._times[0]) // _DAY_S + 2 if self._times else 0
        return random.exponential(size=days)

    def _stretch(
        self, now_s: int, time: int, length_s: int, counts: NDArray[np.float64], random: np.random.Generator
    ) -> int | None:
        """Return where a stretch of the past begins that may stand for the one from ``time``; ``None`` without one."""
        first = self._times[0]
        last = now_s - min(length_s, (now_s - first) // 2)
        period_s = _WEEK_S if now_s - first >= _WEEKS * _WEEK_S else _DAY_S
        count = int((last - first) // period_s)
        if count < 2:
            return None if last <= first else int(random.integers(first, last))
        newest = -(-(time - last) // period_s)
        ages = np.arange(newest, max(newest, (time - first) // period_s) + 1)
        days = np.clip((now_s - (time - ages * period_s)) // _DAY_S, 0, len(counts) - 1)
        weights = 0.5 ** (ages * (period_s / _WEEK_S) / HALF_LIFE_WEEKS) * counts[days]
        shares = weights / weights.sum()
        if period_s == _DAY_S and first > _NO_DATES_S:
            shares = _of_like_days(shares, time + length_s // 2, ages)
        periods = random.choice(ages, p=shares)
        start = time - int(periods) * period_s + int(random.integers(-_JITTER_S, _JITTER_S + 1))
        return int(min(max(start, first), last))


def _of_like_days(shares: NDArray[np.float64], time: int, ages: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return shares that are drawn to those days, ``ages`` before ``time``, that are working days or not as it is.

    So many like days *n* are believed with n / (n + k), as histories of run times are.
    """
    days = time // _DAY_S - ages
    like = (days + _THURSDAY) % 7 < _SATURDAY
    like = like == ((time // _DAY_S + _THURSDAY) % 7 < _SATURDAY)
    own = float(shares[like].sum())
    if own <= 0:
        return shares
    belief = like.sum() / (like.sum() + _BELIEF_DAYS)
    drawn: NDArray[np.float64] = belief * np.where(like, shares / own, 0.0) + (1 - belief) * shares
    return drawn


def submissions(history: Sequence[QueueJob], live: Sequence[QueueJob]) -> list[QueueJob]:
    """Return what was submitted, in order, from when on all of it is known.

    Accounting of the last two weeks has of those submitted before only the jobs that had not ended by then: the long
    ones, and those that waited long. And of the last days, the jobs that still run and wait are not in the history, but
    were submitted too: without them the longest and widest jobs would be missing.
    """
    known = sorted([*history, *live], key=lambda job: job.submit_s)
    since = min((job.end_s for job in history if job.end_s is not None), default=0)
    complete = [job for job in known if job.submit_s >= since]
    return complete if 2 * len(complete) >= len(known) else known
