"""The optimum against trying everything, and the bounds of what is too large for that."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings

from hpcplan.errors import InputError
from hpcplan.schedule.sharing.optimum import solve
from hpcplan.schedule.sharing.problem import OBJECTIVES, Job, Objective, Option, Problem, lateness_s
from tests.schedule.sharing.problems import brute_force, capacity_kept, problems, spans

EVERY_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES)


@EVERY_OBJECTIVE
@settings(max_examples=12)
@given(problem=problems(most_jobs=3))
def test_the_optimum_is_that_of_trying_everything_and_is_proved(objective: Objective, problem: Problem) -> None:
    best = brute_force(problem, objective)
    found = solve(problem, objective, time_limit_s=60)
    if best is None:
        assert found.infeasible
        return
    value, cost = best
    assert found.value == pytest.approx(value, rel=1e-6)
    assert sum(each.option.cost or 0.0 for each in found.placed) <= cost * (1 + 1e-6)  # of those worth it the cheapest
    assert found.proved
    assert not lateness_s(problem, found.placed)
    assert capacity_kept(problem, spans(found.placed))


@pytest.mark.parametrize("seed", [2, 5])
def test_four_workloads_with_arrivals_are_solved_to_a_proof(seed: int) -> None:
    chance = random.Random(seed)
    jobs = tuple(
        Job(f"j{k}", tuple(Option("p", n, chance.uniform(5, 30) / n**0.7) for n in (1, 2, 4)), arrival_s=k * 2.0)
        for k in range(4)
    )
    problem = Problem({"p": 4}, jobs)
    found = solve(problem, "makespan", time_limit_s=60)
    best = brute_force(problem, "makespan")
    assert best is not None
    assert found.value == pytest.approx(best[0], rel=1e-6)
    assert found.proved


def _many(count: int) -> Problem:
    chance = random.Random(7)
    pools = {"a": 16, "b": 8, "c": 8}
    jobs = []
    for k in range(count):
        work = chance.uniform(20, 400)
        options = [Option(p, n, work / n**0.9, work, work) for p, size in pools.items() for n in (1, 2, 4, 8, 16)
                   if n <= size]  # fmt: skip
        jobs.append(Job(f"j{k}", tuple(options), weight=chance.choice([1.0, 4.0]), arrival_s=chance.choice([0, 30.0])))
    return Problem(pools, tuple(jobs), horizon_s=60.0)


@EVERY_OBJECTIVE
def test_of_many_workloads_the_bound_is_told_and_holds(objective: Objective) -> None:
    problem = _many(30)
    found = solve(problem, objective, time_limit_s=8, steps=400)
    assert capacity_kept(problem, spans(found.placed))
    if objective == "throughput":
        assert found.value <= found.bound * (1 + 1e-9)
    else:
        assert found.value >= found.bound * (1 - 1e-6)
    assert 0 <= found.gap < 0.35
    assert found.gap == pytest.approx(1 - min(found.value, found.bound) / max(found.value, found.bound), abs=1e-9)


def test_the_same_seed_gives_the_same_schedule() -> None:
    problem = _many(12)
    first, second = (solve(problem, "weighted-completion", time_limit_s=8, steps=200, seed=3) for _ in range(2))
    assert first.placed == second.placed


def test_throughput_needs_a_time_to_count_by() -> None:
    problem = Problem({"p": 1}, (Job("a", (Option("p", 1, 5.0),)),))
    with pytest.raises(InputError, match="by when"):
        solve(problem, "throughput")


def test_the_cheapest_needs_prices() -> None:
    with pytest.raises(InputError, match="no price for node group 'p'"):
        solve(Problem({"p": 1}, (Job("a", (Option("p", 1, 5.0),)),)), "cost")


@pytest.mark.parametrize("objective", ["weighted-completion", "makespan", "cost"])
def test_a_budget_that_no_schedule_keeps_is_infeasible(objective: Objective) -> None:
    costs = (39.0, 1.0, 21.0)
    jobs = tuple(Job(f"job{n}", (Option("p0", 1, 1.0, cost, 1.0),)) for n, cost in enumerate(costs))
    assert solve(Problem({"p0": 1}, jobs, budget=60.0, horizon_s=25.0), objective).infeasible
    assert not solve(Problem({"p0": 1}, jobs, budget=62.0, horizon_s=25.0), objective).infeasible
