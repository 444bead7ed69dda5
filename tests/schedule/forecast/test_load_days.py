"""The load of days to come: drawn from days of the past, and as wide as days are."""

from __future__ import annotations

import numpy as np
import pytest

from hpcplan.schedule.forecast.arrivals import Arrivals
from hpcplan.schedule.forecast.day_weights import DAY_S
from hpcplan.schedule.forecast.demand import predict_demand
from hpcplan.schedule.forecast.load_days import Level, LoadDays
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


def days_of(per_day: list[float], known: int = 14) -> LoadDays:
    """Return the days of one user, the newest first, with these loads."""
    times = np.array([MONDAY - day * DAY_S - 1 for day in range(1, len(per_day) + 1)])
    users = np.zeros(len(per_day), dtype=np.int64)
    first_s = MONDAY - (known + 1) * DAY_S
    return LoadDays.of(MONDAY, first_s, times, users, np.array(per_day), np.zeros(1, dtype=np.int64))


def test_days_that_go_together_leave_more_open_than_days_that_do_not() -> None:
    lasting = [days_of(days).lasting[0] for days in ([40.0, 4.0] * 7, [40.0] * 7 + [4.0] * 7)]
    assert lasting[0] == 0 < lasting[1]


def test_the_longer_the_history_the_less_is_added() -> None:
    added = []
    for weeks in (2, 8):
        random = np.random.default_rng(3)
        days = days_of([float(random.integers(1, 30)) for _ in range(7 * weeks)], 7 * weeks)
        level = Level(np.ones(days.count), np.ones(1))
        added.append(float(np.var([days.day(0, level, random).times[0] for _ in range(2000)])))
    assert added[1] < added[0]


def test_each_partition_is_drawn_by_the_weighting_that_foretold_it_and_as_much_of_it_comes_as_is_told() -> None:
    random = np.random.default_rng(4)
    rising = [job for day in range(-60, 0) for job in submitted(day, "ann", max(1, 70 + day))]
    steady = [
        job.model_copy(update={"partition": "steady", "user": "bob"})
        for day in range(-60, 0)
        for job in submitted(day, "bob", 2 if day % 7 >= 5 else 30)
    ]
    arrivals = Arrivals(sorted([*rising, *steady], key=lambda job: job.submit_s))
    told = {one.partition: one for one in predict_demand(arrivals, MONDAY, 3)}
    assert (told[None].method, told["steady"].method) == ("newest days", "days like it")
    assert told["steady"].days[0].expected == pytest.approx(30, rel=0.15)
    assert told[None].days[0].expected > 60
    came = np.zeros((200, 2))
    for number in range(200):
        for _, job in arrivals.future(MONDAY, DAY_S, random, 10**6):
            came[number, int(job.partition == "steady")] += 1
    for column, name in enumerate((None, "steady")):
        day = told[name].days[0]
        assert came[:, column].mean() == pytest.approx(day.expected, rel=0.1)
        assert ((came[:, column] >= day.p10) & (came[:, column] <= day.p90)).mean() == pytest.approx(0.8, abs=0.12)
