"""Jobs that others will submit while one waits: drawn from what they submitted at such times before."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np

from hpcplan.schedule.forecast.demand import HALF_LIFE_WEEKS
from hpcplan.schedule.forecast.snapshot import QueueJob

__all__ = ["MOST", "Arrivals"]

_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_WEEK_S: Final = 7 * _DAY_S
_WEEKS: Final = 3  # of history that it takes to tell weekdays apart
MOST: Final = 400  # jobs of one sample; those further off hardly matter for a job that is first in line
_JITTER_S: Final = 2 * _HOUR_S


class Arrivals:
    """Past submissions, in order. A future is a stretch of the past, moved to the present as it stands.

    Copying stretches keeps bursts together (a block bootstrap: Künsch, Ann. Stat. 17(3), 1989). A stretch begins at the
    same hour, give or take two: of the same weekday where there are three weeks of history, of any day otherwise, and
    anywhere in a history of less than two days. Newer stretches are drawn more often, as the baseline of the demand
    (:mod:`.demand`) counts newer weeks more.
    """

    def __init__(self, past: Sequence[QueueJob]) -> None:
        self._past = [*past]
        self._times = [job.submit_s for job in self._past]

    def add(self, job: QueueJob) -> None:
        """Take note of a submission, later than all before."""
        self._past.append(job)
        self._times.append(job.submit_s)

    def future(
        self, now_s: int, horizon_s: int, random: np.random.Generator, most: int = MOST
    ) -> list[tuple[int, QueueJob]]:
        """Return one future: when each job comes, and the past job that it is like. Empty without a past.

        Futures of more than a day are put together from stretches of a day.
        """
        moved: list[tuple[int, QueueJob]] = []
        time, end = now_s, now_s + horizon_s
        while self._past and time < end and len(moved) < most:
            length_s = min(_DAY_S, end - time)
            start = self._stretch(now_s, time, length_s, random)
            if start is None:
                break
            length_s = max(1, min(length_s, now_s - start))
            first, last = bisect_left(self._times, start), bisect_left(self._times, start + length_s)
            moved += [(time + job.submit_s - start, job) for job in self._past[first : min(last, first + most)]]
            time += length_s
        return moved[:most]

    def _stretch(self, now_s: int, time: int, length_s: int, random: np.random.Generator) -> int | None:
        """Return where a stretch of the past begins that may stand for the one from ``time``; ``None`` without one."""
        first = self._times[0]
        last = now_s - min(length_s, (now_s - first) // 2)
        period_s = _WEEK_S if now_s - first >= _WEEKS * _WEEK_S else _DAY_S
        count = int((last - first) // period_s)
        if count < 2:
            return None if last <= first else int(random.integers(first, last))
        newest = -(-(time - last) // period_s)
        ages = np.arange(newest, max(newest, (time - first) // period_s) + 1)
        weights = 0.5 ** (ages * (period_s / _WEEK_S) / HALF_LIFE_WEEKS)
        periods = random.choice(ages, p=weights / weights.sum())
        start = time - int(periods) * period_s + int(random.integers(-_JITTER_S, _JITTER_S + 1))
        return int(min(max(start, first), last))
