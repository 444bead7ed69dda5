"""Jobs that others will submit while one waits: as many as the demand foretells, like those of the past."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.forecast.day_weights import DAY_S, Checked, Method
from hpcplan.schedule.forecast.load_days import MOST_DAYS, Level, LoadDays
from hpcplan.schedule.forecast.snapshot import QueueJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST", "Arrivals", "submissions"]

MOST: Final = 400  # jobs of one sample; those further off hardly matter for a job that is first in line
_JITTER_S: Final = 2 * 3600
_LONGEST_S: Final = 7 * DAY_S  # of limits: without one, a job says little of how long it runs
_USUAL_SHARE: Final = 0.55  # of the limit, where nothing has ended


@dataclass(frozen=True, slots=True)
class _Known:
    """What there is at one moment: the days, where their submissions begin, by whom those are, and their node-seconds.

    ``users`` are numbered as the days number them.
    """

    days: LoadDays
    offset: int
    users: NDArray[np.int64]
    spent: NDArray[np.float64]


class Arrivals:
    """Past submissions, in order. A future is made of days of the past, moved to the present.

    Copying whole days keeps bursts, hours and what users submit together (a block bootstrap: Künsch, Ann. Stat. 17(3),
    1989). A day begins at the same hour, give or take two; in a history of less than two days, anywhere. What was
    submitted in a few hours is expected for as long again, and from then on once a day.

    How much comes of them is the demand's to say (:mod:`.demand`): :class:`~.load_days.LoadDays` draws, by partition,
    which day it is like and how much more or less of it comes, and what it draws is what the demand's interval shows.
    """

    def __init__(self, past: Sequence[QueueJob]) -> None:
        self._past: list[QueueJob] = []
        self._times: list[int] = []
        self._asked: list[float] = []  # node-seconds, by the limit,
        self._ends: list[float] = []  # and when they were spent, which is not known before,
        self._spent: list[float] = []  # and how many
        self._users: list[int] = []
        self._parts: list[int] = []  # of each user
        self._numbers: dict[Hashable, int] = {}
        self._names: dict[str | None, int] = {}  # of partitions, and their numbers
        self._known: _Known | None = None
        self._checked: tuple[int, tuple[Checked, ...]] = (0, ())  # on which day of the clock, and what was found
        for job in past:
            self.add(job)

    @property
    def known(self) -> bool:
        """Whether there are past submissions to go by."""
        return bool(self._past)

    @property
    def partitions(self) -> tuple[str | None, ...]:
        """Where jobs were submitted to, as :class:`~.load_days.LoadDays` numbers partitions; ``None``: not said."""
        return (*self._names,)

    def add(self, job: QueueJob) -> None:
        """Take note of a submission, later than all before."""
        self._past.append(job)
        self._times.append(job.submit_s)
        self._asked.append(float(job.width) * min(job.limit_s, _LONGEST_S))
        ended = job.start_s is not None and job.end_s is not None
        self._ends.append(float(job.end_s or 0) if ended else np.inf)
        self._spent.append(float(job.width) * ((job.end_s or 0) - (job.start_s or 0)) if ended else 0.0)
        self._known = None
        part = self._names.setdefault(job.partition, len(self._names))
        who = (part, job.width.bit_length() if job.user is None else job.user)
        if who not in self._numbers:
            self._numbers[who] = len(self._numbers)
            self._parts.append(part)
        self._users.append(self._numbers[who])

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
        known = self._at(now_s)
        level = known.days.level(random)
        time, ahead, end = now_s, 0, None if horizon_s is None else now_s + horizon_s
        while end is None or time < end:
            length_s = DAY_S if end is None else min(DAY_S, end - time)
            if known.days.count < 2:
                span_s = now_s - self._times[0]
                if time - now_s >= span_s:
                    span_s = max(span_s, DAY_S)
                length_s = max(1, min(length_s, span_s // 2))
                start = now_s - int(random.integers(length_s, span_s + 1))
                first, last = bisect_left(self._times, start), bisect_left(self._times, start + length_s)
                last = last if most is None else min(last, first + most)
                yield [(time + job.submit_s - start, job) for job in self._past[first:last]]
            else:
                yield self._day(known, ahead, time, length_s, level, random, most)
            time, ahead = time + length_s, ahead + 1

    def days(self, now_s: int) -> LoadDays | None:
        """Return the whole days before ``now_s``, which the next ones are drawn from; ``None`` without a past."""
        return self._at(now_s).days if self._past and now_s > self._times[0] else None

    def usual(self, now_s: int) -> list[float]:
        """Return the node-seconds of the next day by partition, of a history of less than two days."""
        known = self._at(now_s)
        spent = np.bincount(known.days.parts[known.users], weights=known.spent, minlength=len(self._names))
        span_s = now_s - self._times[0]
        day: list[float] = (spent * (2 - span_s / DAY_S if span_s < DAY_S else DAY_S / span_s)).tolist()
        return day

    def _day(
        self, known: _Known, ahead: int, time: int, length_s: int, level: Level, random: np.random.Generator,
        most: int | None,
    ) -> list[tuple[int, QueueJob]]:  # fmt: skip
        """Return what is submitted from ``time`` on, of the day that begins so many days from now."""
        days = known.days
        drawn = days.day(ahead, level, random)
        jitter_s, chance = int(random.integers(-_JITTER_S, _JITTER_S + 1)), random.random()
        oldest = max(self._times[0], days.now_s - days.count * DAY_S - _JITTER_S)
        methods: list[Method] = [one.method for one in days.checked]
        coming: list[tuple[int, QueueJob]] = []
        for method, day in drawn.days.items():
            start = min(max(days.now_s - (day + 1) * DAY_S + jitter_s, oldest), days.now_s - length_s)
            first, last = bisect_left(self._times, start), bisect_left(self._times, start + length_s)
            last = last if most is None else min(last, first + most)
            users = known.users[first - known.offset : last - known.offset]
            parts = days.parts[users]
            mine = np.array([one == method for one in methods])[parts]
            steps = np.floor(np.cumsum(drawn.factors[parts] * mine) + chance).astype(np.int64)
            copies = np.diff(steps, prepend=0) * drawn.times[users]
            coming += [
                (time + job.submit_s - start, job)
                for job, count in zip(self._past[first:last], copies.tolist(), strict=True)
                for _ in range(count)
            ]
        return coming if len(drawn.days) < 2 else sorted(coming, key=lambda one: one[0])

    def _at(self, now_s: int) -> _Known:
        """Return what is known at a moment. How well days can be foretold is found out once a day."""
        if self._known is None or self._known.days.now_s != now_s:
            offset = bisect_left(self._times, now_s - (MOST_DAYS + 1) * DAY_S)
            numbers, users = np.unique(np.array(self._users[offset:], dtype=np.int64), return_inverse=True)
            parts = np.array(self._parts, dtype=np.int64)[numbers]
            times, asked = np.array(self._times[offset:], dtype=np.int64), np.array(self._asked[offset:])
            spent, ended = np.array(self._spent[offset:]), np.array(self._ends[offset:]) <= now_s
            share = spent[ended].sum() / asked[ended].sum() if ended.any() else _USUAL_SHARE
            spent = np.where(ended, spent, np.minimum(1.0, share) * asked)
            day, checked = self._checked
            checked_parts = len(checked) == int(parts.max(initial=-1)) + 1
            days = LoadDays.of(
                now_s, self._times[0], times, users, spent, parts,
                checked=checked if checked_parts and day == now_s // DAY_S else None,
            )  # fmt: skip
            self._known = _Known(days, offset, users, spent)
            self._checked = now_s // DAY_S, days.checked
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
