"""Bounds by prices and by makespans that are given, against trying everything; schedules that come of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from hpcplan.schedule.sharing.order import place_in_order
from hpcplan.schedule.sharing.prices import bound_by_prices
from hpcplan.schedule.sharing.problem import Job, Option, Placed, Problem, lateness_s, value_of
from hpcplan.schedule.sharing.relax import usable_options
from hpcplan.schedule.sharing.shortest import shortest
from tests.schedule.sharing.problems import brute_force, capacity_kept, problems, spans


def choices(problem: Problem) -> list[tuple[int, Option]]:
    return [(j, option) for j, job in enumerate(problem.jobs) for option in usable_options(job)]


def first_options(problem: Problem) -> list[Placed]:
    return place_in_order(problem, {j: job.options[0] for j, job in enumerate(problem.jobs)}, range(len(problem.jobs)))


@settings(max_examples=20, deadline=None)
@given(problem=problems(most_jobs=3))
def test_no_schedule_is_worth_less_than_prices_say(problem: Problem) -> None:
    best = brute_force(problem, "weighted-completion")
    if best is None:
        return
    found = bound_by_prices(problem, choices(problem), first_options(problem), rounds=60)
    assert found.bound <= best[0] * (1 + 1e-9)
    assert all(capacity_kept(problem, spans(placed)) for placed in found.schedules)


@settings(max_examples=20, deadline=None)
@given(problem=problems(most_jobs=3))
def test_no_schedule_is_done_before_the_least_makespan_that_is_allowed(problem: Problem) -> None:
    best = brute_force(problem, "makespan")
    if best is None:
        return
    found = shortest(problem, choices(problem))
    assert found.bound <= best[0] * (1 + 1e-9)
    for placed in found.schedules:
        assert capacity_kept(problem, spans(placed))
        assert not lateness_s(problem, placed)
        assert all(each.start_s >= problem.jobs[each.job].arrival_s for each in placed)


def test_of_many_workloads_both_come_near_to_their_bounds() -> None:
    chance = random.Random(3)
    pools = {"a": 16, "b": 8, "c": 8}
    jobs = tuple(
        Job(
            f"j{k}",
            tuple(
                Option(pool, nodes, work / nodes**power)
                for pool, size in pools.items()
                for nodes in (1, 2, 4, 8, 16)
                if nodes <= size
            ),
            weight=chance.choice([1.0, 4.0]),
            arrival_s=chance.choice([0.0, 0.0, chance.uniform(0, 200)]),
        )
        for k in range(40)
        for work, power in [(chance.uniform(20, 400), chance.uniform(0.6, 0.95))]
    )
    problem = Problem(pools, jobs)
    done = shortest(problem, choices(problem))
    assert min(value_of(problem, placed, "makespan") for placed in done.schedules) < 1.1 * done.bound
    ends = bound_by_prices(problem, choices(problem), first_options(problem))
    assert min(value_of(problem, placed, "weighted-completion") for placed in ends.schedules) < 1.1 * ends.bound


def test_a_workload_alone_is_done_as_soon_as_it_can() -> None:
    problem = Problem({"p": 4}, (Job("j", (Option("p", 1, 40.0), Option("p", 4, 12.0)), arrival_s=5.0),))
    assert shortest(problem, choices(problem)).bound == pytest.approx(17.0)
    found = bound_by_prices(problem, choices(problem), first_options(problem))
    assert found.bound == pytest.approx(17.0)
    assert found.schedules[-1][0].end_s == pytest.approx(17.0)
