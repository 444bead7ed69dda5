"""Jobs that others will submit while one waits: drawn from what they submitted at such times before."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

import numpy as np

from hpcplan.schedule.forecast.load_days import DAY_S, MOST_DAYS, LoadDays
from hpcplan.schedule.forecast.snapshot import QueueJob

__all__ = ["MOST", "Arrivals", "submissions"]

MOST: Final = 400  # jobs of one sample; those further off hardly matter for a job that is first in line
_JITTER_S: Final = 2 * 3600
_LONGEST_S: Final = 7 * DAY_S  # of limits: without one, a job says little of how long it runs


class Arrivals:
    """Past submissions, in order. A future is made of days of the past, moved to the present.

    Copying whole days keeps bursts, hours and what users submit together (a block bootstrap: Künsch, Ann. Stat. 17(3),
    1989). A day begins at the same hour, give or take two; in a history of less than two days, anywhere.

    How much will be submitted in the long run is known only as well as the days of the history tell. So each future
    first draws for each of those days how much it counts, exponentially, and then its days by that (the Bayesian
    bootstrap: Rubin, Ann. Stat. 9(1), 1981): futures of many days are not all like the mean of the history. Which days
    are alike, and what drawn days still lack of the spread of days to come, says :class:`~.load_days.LoadDays`.
    """

    def __init__(self, past: Sequence[QueueJob]) -> None:
        self._past: list[QueueJob] = []
        self._times: list[int] = []
        self._asked: list[float] = []  # node-seconds, by the limit
        self._users: list[int] = []
        self._numbers: dict[Hashable, int] = {}
        self._known: tuple[LoadDays, int, np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None
        for job in past:
            self.add(job)

    @property
    def known(self) -> bool:
        """Whether there are past submissions to go by."""
        return bool(self._past)

    def add(self, job: QueueJob) -> None:
        """Take note of a submission, later than all before."""
        self._past.append(job)
        self._times.append(job.submit_s)
        self._asked.append(float(job.width) * min(job.limit_s, _LONGEST_S))
        self._known = None
        who = job.width.bit_length() if job.user is None else job.user
        self._users.append(self._numbers.setdefault(who, len(self._numbers)))

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
        """Yield one future day by day, for ever or until ``horizon_s`` from now."""
        if not self._past or now_s <= self._times[0]:
            return
        days, offset, users = self._days(now_s)
        counts, level = random.exponential(size=days.count), days.level(random)
        time, ahead, end = now_s, 0, None if horizon_s is None else now_s + horizon_s
        while end is None or time < end:
            length_s = DAY_S if end is None else min(DAY_S, end - time)
            if days.count < 2:
                length_s = max(1, min(length_s, (now_s - self._times[0]) // 2))
                start = int(random.integers(self._times[0], now_s - length_s + 1))
                shares = None
            else:
                shares = days.shares(ahead)
                start = self._day(now_s, length_s, shares * counts, random)
            first, last = bisect_left(self._times, start), bisect_left(self._times, start + length_s)
            last = last if most is None else min(last, first + most)
            if shares is None:
                yield [(time + job.submit_s - start, job) for job in self._past[first:last]]
            else:
                copies = days.copies(shares, users[first - offset : last - offset], level, random).tolist()
                yield [
                    (time + job.submit_s - start, job)
                    for job, count in zip(self._past[first:last], copies, strict=True)
                    for _ in range(count)
                ]
            time, ahead = time + length_s, ahead + 1

    def _day(
        self, now_s: int, length_s: int, weights: np.ndarray[tuple[int], np.dtype[np.float64]],
        random: np.random.Generator,
    ) -> int:  # fmt: skip
        """Return where a day of the past begins that is drawn by weight."""
        summed = weights.cumsum()
        age = 1 + int(np.searchsorted(summed, random.random() * summed[-1], side="right"))
        start = now_s - min(age, len(weights)) * DAY_S + int(random.integers(-_JITTER_S, _JITTER_S + 1))
        oldest = max(self._times[0], now_s - len(weights) * DAY_S - _JITTER_S)
        return min(max(start, oldest), now_s - length_s)

    def _days(self, now_s: int) -> tuple[LoadDays, int, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Return the days before ``now_s``, where the submissions of these begin, and by whom those are."""
        if self._known is None or self._known[0].now_s != now_s:
            offset = bisect_left(self._times, now_s - (MOST_DAYS + 1) * DAY_S)
            _, users = np.unique(np.array(self._users[offset:], dtype=np.int64), return_inverse=True)
            times, asked = np.array(self._times[offset:], dtype=np.int64), np.array(self._asked[offset:])
            self._known = LoadDays.of(now_s, self._times[0], times, users, asked), offset, users
        return self._known


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
