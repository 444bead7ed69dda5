"""The best schedule of several workloads, with a bound that no schedule beats.

A few workloads are solved to a proof (:mod:`exact`). Of more, the relaxation chooses options and gives the bound
(:mod:`relax`), small changes do the rest (:mod:`improve`), and the gap between the two is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpcplan.schedule.sharing.exact import MOST_JOBS, solve_exactly
from hpcplan.schedule.sharing.improve import improve, price_of, score
from hpcplan.schedule.sharing.problem import Objective, Option, Placed, Problem, value_of
from hpcplan.schedule.sharing.relax import Relaxed, relax, usable_options

__all__ = ["Solution", "solve"]

_STEPS = 40  # changes tried, a workload and option
_SAME = 1e-9  # values that differ by less are the same: sums in another order
_NEAR, _NEARER = 5e-3, 1e-3  # how near to its bound the relaxation's integers must be


@dataclass(frozen=True, slots=True)
class Solution:
    """A schedule, what it is worth, the bound, and their distance as a share of the larger; ``proved`` if it is none.

    ``infeasible`` says that no schedule keeps all deadlines and the budget: ``placed`` then misses as little as was
    found. ``method`` names how it was found.
    """

    placed: list[Placed]
    value: float
    bound: float
    gap: float
    proved: bool
    infeasible: bool
    method: str


def solve(
    problem: Problem, objective: Objective, *, time_limit_s: float = 20.0, steps: int | None = None, seed: int = 0
) -> Solution:
    """Return the best schedule found, and the bound.

    Args:
        problem: at least one workload, each with an option.
        objective: what is made least (throughput: most).
        time_limit_s: of the mixed integer programs together; what they have by then counts.
        steps: how many changes to try; chosen by size if absent.
        seed: of the changes.
    """
    near = _NEAR if objective == "makespan" else _NEARER  # elsewhere the program's choice is the schedule itself
    relaxed = relax(problem, objective, time_limit_s=time_limit_s / 2, gap=near)
    width = sum(len(job.options) for job in problem.jobs)
    tries = steps if steps is not None else min(24_000, 200 + _STEPS * width)
    placed = improve(problem, _starts(problem, relaxed), objective, steps=tries, seed=seed)
    bound, proved_none, method = relaxed.bound, relaxed.options is None and math.isinf(relaxed.bound), "search"
    movable = [job for job in problem.jobs if not job.fixed]
    if 0 < len(movable) <= MOST_JOBS and not proved_none:
        keeps_all = not score(problem, placed, objective)[0]  # deadlines and the budget
        cutoff = value_of(problem, placed, objective) if keeps_all else None
        exact = solve_exactly(problem, objective, cutoff, time_limit_s / 2)
        proved_none = exact.infeasible and cutoff is None
        if exact.placed is not None and score(problem, exact.placed, objective) < score(problem, placed, objective):
            placed, method = exact.placed, "milp"
        if not exact.infeasible:
            bound = min(bound, exact.bound) if objective == "throughput" else max(bound, exact.bound)
        if keeps_all or exact.placed is not None:
            placed = _cheapest(problem, placed, objective, time_limit_s / 2)
    value = value_of(problem, placed, objective)
    gap = 0.0 if proved_none else _gap(value, bound, objective)
    proved = gap <= 1e-6 and not proved_none
    return Solution(placed, value, bound, gap, proved, proved_none, method)


def _cheapest(problem: Problem, placed: list[Placed], objective: Objective, time_limit_s: float) -> list[Placed]:
    """Return the cheapest of the schedules worth as much as this one: of those alike in ends, some may cost more."""
    if objective == "cost":
        return placed
    value = value_of(problem, placed, objective)
    found = solve_exactly(problem, objective, value, time_limit_s, least=value).placed
    if found is None or score(problem, found, objective)[0] > score(problem, placed, objective)[0]:
        return placed
    as_good = abs(value_of(problem, found, objective) - value) <= _SAME * abs(value)
    return found if as_good and price_of(problem, found) < price_of(problem, placed) else placed


def _gap(value: float, bound: float, objective: Objective) -> float:
    better, worse = (value, bound) if objective == "throughput" else (bound, value)
    if math.isinf(worse) or worse <= 0:
        return 0.0 if worse <= 0 else 1.0
    return max(0.0, 1 - better / worse)


def _start(placed: Placed) -> tuple[float, int]:
    return placed.start_s, placed.job


def _starts(problem: Problem, relaxed: Relaxed) -> list[tuple[dict[int, Option], list[int]]]:
    """Return choices to begin with: the relaxation's, and each workload's most efficient and fastest option."""
    jobs = problem.jobs
    open_ = [usable_options(job) or list(job.options) for job in jobs]
    choices = [
        {j: min(each, key=lambda o: (o.nodes * o.run_s, o.run_s)) for j, each in enumerate(open_)},
        {j: min(each, key=lambda o: (o.run_s, o.nodes)) for j, each in enumerate(open_)},
    ]
    if relaxed.options is not None:
        choices.insert(0, relaxed.options)
    result = [
        ({each.job: each.option for each in placed}, [each.job for each in sorted(placed, key=_start)])
        for placed in relaxed.schedules
    ]
    for options in choices:

        def due(j: int) -> float:
            return math.inf if jobs[j].deadline_s is None else jobs[j].deadline_s or 0.0

        def smith(j: int, options: dict[int, Option] = options) -> float:
            return options[j].run_s * options[j].nodes / jobs[j].weight

        indices = range(len(jobs))
        orders = [
            list(relaxed.order) if len(relaxed.order) == len(jobs) else list(indices),
            sorted(indices, key=lambda j: (due(j), -options[j].run_s, j)),
            sorted(indices, key=lambda j: (due(j), smith(j), j)),
            sorted(indices, key=lambda j: (smith(j), j)),
        ]
        result += [(options, order) for order in orders]
    return result
