"""Small problems of sharing, drawn at random, and their optimum by trying everything."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

from hpcplan.schedule.sharing.order import place_in_order
from hpcplan.schedule.sharing.problem import Job, Objective, Option, Placed, Problem, lateness_s, value_of

__all__ = ["brute_force", "capacity_kept", "problems"]


@st.composite
def problems(draw: st.DrawFn, most_jobs: int = 4, limits: bool = True) -> Problem:
    """Draw up to four workloads on one or two small pools; more nodes are never slower."""
    pools = {f"p{i}": draw(st.integers(1, 4)) for i in range(draw(st.integers(1, 2)))}
    number = st.floats(1.0, 40.0).map(lambda x: round(x, 3))
    jobs = []
    for index in range(draw(st.integers(1, most_jobs))):
        options: list[Option] = []
        for pool, nodes in pools.items():
            whole, power = draw(number), draw(st.floats(0.2, 1.0))
            for count in sorted({1, draw(st.integers(1, nodes))}):
                options.append(Option(pool, count, round(whole / count**power, 4), draw(number), draw(number)))
        jobs.append(
            Job(
                f"job{index}", tuple(options), priority=draw(st.sampled_from([1.0, 2.0, 5.0])),
                weight=draw(st.sampled_from([1.0, 3.0])), arrival_s=draw(st.sampled_from([0.0, 0.0, 7.5])),
                deadline_s=draw(st.sampled_from([None, None, 20.0, 45.0])) if limits else None,
                checkpoint_s=3.0, restart_s=0.5,
            )
        )  # fmt: skip
    budget = draw(st.sampled_from([None, None, 60.0])) if limits else None
    return Problem(pools, tuple(jobs), budget=budget, horizon_s=25.0)


def brute_force(problem: Problem, objective: Objective) -> tuple[float, float] | None:
    """Return the best value over all choices of options and all orders, and what it costs at least.

    ``None`` where no schedule keeps the limits.
    """
    found: list[tuple[float, float]] = []
    sign = -1 if objective == "throughput" else 1
    indices = range(len(problem.jobs))
    for options in itertools.product(*(job.options for job in problem.jobs)):
        for order in itertools.permutations(indices):
            placed = place_in_order(problem, dict(enumerate(options)), order)
            cost = sum(each.option.cost or 0.0 for each in placed)
            if lateness_s(problem, placed) or (problem.budget is not None and cost > problem.budget):
                continue
            value = value_of(problem, placed, objective)
            found.append((sign * value, cost))
    if not found:
        return None
    best = min(value for value, _ in found)
    return sign * best, min(cost for value, cost in found if value <= best + 1e-9 * abs(best))


def capacity_kept(problem: Problem, taken: list[tuple[str, int, float, float]]) -> bool:
    """Whether (pool, nodes, start, end) never take more nodes of a pool than it has."""
    for pool, nodes in problem.pools.items():
        mine = [each for each in taken if each[0] == pool]
        for _, _, start, _ in mine:
            at = start + 1e-7
            if sum(count for _, count, s, e in mine if s <= at < e - 1e-7) > nodes:
                return False
    return True


def spans(placed: list[Placed]) -> list[tuple[str, int, float, float]]:
    """Return what a schedule takes."""
    return [(each.option.pool, each.option.nodes, each.start_s, each.end_s) for each in placed]
