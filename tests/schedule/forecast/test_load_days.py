"""The load of days to come: drawn from days of the past, and as wide as days are."""

from __future__ import annotations

import numpy as np
import pytest

from hpcplan.schedule.forecast.arrivals import Arrivals
from hpcplan.schedule.forecast.load_days import DAY_S, LoadDays
from hpcplan.schedule.forecast.snapshot import QueueJob

MONDAY = 1_700_438_400 // DAY_S * DAY_S  # 20 November 2023


def submitted(day: int, user: str, count: int, width: int = 1) -> list[QueueJob]:
    """Return jobs of a user, spread over a day that begins so many days from now."""
    return [
        QueueJob(
            label=f"{user}{day}.{n}", width=width, limit_s=3600, submit_s=MONDAY + day * DAY_S + n * (DAY_S // count),
            start_s=0, end_s=3600, user=user,
        )
        for n in range(count)
    ]  # fmt: skip


def loads(jobs: list[QueueJob], draws: int = 400) -> np.ndarray:
    """Return the jobs of the next day in drawn futures, times their nodes."""
    arrivals = Arrivals(sorted(jobs, key=lambda job: job.submit_s))
    random = np.random.default_rng(1)
    return np.array([sum(job.width for _, job in arrivals.future(MONDAY, DAY_S, random, 10**6)) for _ in range(draws)])


def test_where_every_day_is_alike_so_are_those_to_come() -> None:
    found = loads([job for day in range(-14, 0) for job in submitted(day, "ann", 24)])
    assert found.mean() == pytest.approx(24, rel=0.05)
    assert found.std() < 3  # a day begins two hours sooner or later


def test_days_to_come_are_better_and_worse_than_any_that_was() -> None:
    random = np.random.default_rng(5)
    days = random.poisson(3, size=(14, 6))
    jobs = [
        job
        for day in range(14)
        for user in range(6)
        for job in submitted(day - 14, f"u{user}", max(1, int(days[day, user])), width=1)
    ]
    found, known = loads(jobs, 1000), np.maximum(days, 1).sum(axis=1)
    assert found.mean() == pytest.approx(known.mean(), rel=0.1)
    assert found.var() > known.var()
    assert found.max() > known.max() + 1
    assert found.min() < known.min() - 1


def test_weekends_stand_for_weekends() -> None:
    jobs = [job for day in range(-21, 0) for job in submitted(day, "ann", 4 if day % 7 >= 5 else 40)]
    arrivals, random = Arrivals(jobs), np.random.default_rng(2)
    week = np.zeros(7)
    for _ in range(200):
        for time, _job in arrivals.future(MONDAY, 7 * DAY_S, random, 10**6):
            week[(time - MONDAY) // DAY_S] += 1
    assert week[5:].mean() < 0.5 * week[:5].mean()


def test_days_that_go_together_leave_more_open_than_days_that_do_not() -> None:
    apart = [40.0, 4.0] * 7
    together = [40.0] * 7 + [4.0] * 7
    lasting = []
    for days in (apart, together):
        times = np.array([MONDAY - day * DAY_S - 1 for day in range(1, 15)])
        found = LoadDays.of(MONDAY, MONDAY - 15 * DAY_S, times, np.zeros(14, dtype=np.int64), np.array(days))
        lasting.append(found.lasting)
    assert lasting[0] == 0 < lasting[1]


def test_the_longer_the_history_the_less_is_added() -> None:
    own = []
    for weeks in (2, 8):
        random = np.random.default_rng(3)
        jobs = [
            job for day in range(-7 * weeks, 0) for job in submitted(day, "ann", int(random.integers(1, 30)))
        ]  # fmt: skip
        times = np.array([job.submit_s for job in jobs])
        days = LoadDays.of(MONDAY, MONDAY - 7 * weeks * DAY_S, times, np.zeros(len(jobs), dtype=np.int64),
                           np.ones(len(jobs)))  # fmt: skip
        shares = days.shares(0)
        copies = [days.copies(shares, np.zeros(1, dtype=np.int64), 1.0, random)[0] for _ in range(2000)]
        own.append(float(np.var(copies)))
    assert own[1] < own[0]
