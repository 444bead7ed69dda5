"""When a portfolio cannot be had: what binds, and what would do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpcplan.errors import InfeasibleError
from hpcplan.schedule.sharing.optimum import Solution
from hpcplan.schedule.sharing.problem import Option, Placed, Problem
from hpcplan.schedule.sharing.relax import usable_options
from hpcplan.units import format_duration

__all__ = ["refuse_impossible", "refuse_unmet"]


def refuse_impossible(problem: Problem, currency: str) -> None:
    """Refuse what no schedule can give a single workload, or all of them: a deadline or a budget.

    Raises:
        InfeasibleError: with every such workload, and what would do.
    """
    wrong: list[str] = []
    hints: list[str] = []
    for job in problem.jobs:
        if usable_options(job):
            continue
        affordable = [o for o in job.options if job.budget is None or (o.cost or 0.0) <= job.budget]
        if not affordable:
            cheapest = min(job.options, key=lambda o: o.cost or 0.0)
            wrong.append(
                f"{job.name}: the budget binds: the cheapest way ({_nodes(cheapest)}) costs "
                f"{cheapest.cost or 0:,.0f} {currency}, but the budget is {job.budget:,.0f}"
            )
            hints.append(f"{job.name}: a budget of {cheapest.cost or 0:.0f}, or fewer tokens")
            continue
        fastest = min(affordable, key=lambda o: o.run_s)
        ends = job.arrival_s + fastest.run_s
        within = "" if len(affordable) == len(job.options) else " within its budget"
        wrong.append(
            f"{job.name}: the deadline binds: alone on the site, the fastest way{within} ({_nodes(fastest)}) ends "
            f"after {format_duration(ends)}, but the deadline is {format_duration(job.deadline_s or 0)}"
        )
        hints.append(f"{job.name}: a deadline of {_up(ends)}, or fewer tokens")
    if problem.budget is not None and not wrong:
        least = sum(min(o.cost or 0.0 for o in usable_options(job)) for job in problem.jobs)
        if least > problem.budget:
            enough = math.ceil(least)
            wrong.append(
                f"the portfolio's budget binds: the cheapest way for all costs {enough:,} {currency}, but the budget "
                f"is {problem.budget:,.0f}"
            )
            hints.append(f"a budget of {enough}")
    if wrong:
        raise InfeasibleError("\n".join(wrong), hint="what would do: " + "; ".join(hints))


def refuse_unmet(problem: Problem, solution: Solution) -> None:
    """Refuse a schedule that misses deadlines or the budget: each could be met, but not all together.

    Raises:
        InfeasibleError: with the workloads that would be late, and the deadlines that would do.
    """
    late = _late(problem, solution.placed)
    cost = sum(each.option.cost or 0.0 for each in solution.placed)
    over = problem.budget is not None and cost > problem.budget * (1 + 1e-9)
    if not late and not over:
        return
    sure = "no schedule keeps" if solution.infeasible else "no schedule was found that keeps"
    names = ", ".join(problem.jobs[each.job].name for each in late)
    what = f"all deadlines together; {names} would be late" if late else "the budget and all deadlines together"
    hints = [f"a deadline of {_up(each.end_s)} for {problem.jobs[each.job].name}" for each in late[:5]]
    hints += [f"a budget of {cost:.0f}"] if over else []
    raise InfeasibleError(f"the pools' nodes bind: {sure} {what}", hint="what would do: " + ", ".join(hints))


def _late(problem: Problem, placed: Sequence[Placed]) -> list[Placed]:
    def is_late(each: Placed) -> bool:
        deadline = problem.jobs[each.job].deadline_s
        return deadline is not None and each.end_s > deadline * (1 + 1e-6)

    return [each for each in placed if is_late(each)]


def _nodes(option: Option) -> str:
    return f"{option.nodes} node{'s' if option.nodes > 1 else ''} of {option.pool}"


def _up(seconds: float) -> str:
    """Return a time rounded up to whole hours, as a file would have it."""
    return f"{int(-(-seconds // 3600))} h"
