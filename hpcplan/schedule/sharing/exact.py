"""The optimum of a few workloads, proved: a mixed integer program in continuous time.

Nodes flow from workload to workload (Artigues, Michelon & Reusser 2003, "Insertion techniques for static and dynamic
resource-constrained project scheduling"): ``before[i, j]`` says that j starts after i has ended, and only then nodes
of i may pass to j. Options are chosen in the same program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from hpcplan.schedule.sharing.order import place_in_order
from hpcplan.schedule.sharing.problem import Objective, Option, Placed, Problem, horizon_of, spent
from hpcplan.schedule.sharing.relax import Rows, usable_options

__all__ = ["MOST_JOBS", "Exact", "solve_exactly"]

MOST_JOBS = 8


@dataclass(frozen=True, slots=True)
class Exact:
    """The schedule found, ``None`` if none was; the bound; and whether there is none at all."""

    placed: list[Placed] | None
    bound: float
    infeasible: bool


class _Program:
    """Variables by name, and rows."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.low: list[float] = []
        self.high: list[float] = []
        self.integer: list[int] = []

    def variable(self, high: float = math.inf, *, integer: bool = False, low: float = 0.0) -> int:
        self.low.append(low)
        self.high.append(high)
        self.integer.append(int(integer))
        return len(self.low) - 1


def solve_exactly(
    problem: Problem, objective: Objective, cutoff: float | None, time_limit_s: float, *, least: float | None = None
) -> Exact:
    """Return the best schedule that is not worse than ``cutoff``, as far as it is found in time.

    Args:
        problem: with at most some ``MOST_JOBS`` workloads.
        objective: what is made least (throughput: most).
        cutoff: the value of a schedule that is known.
        time_limit_s: when to stop looking.
        least: the best value, where that is known: then the cheapest of the schedules worth it is looked for, and the
            bound is of its cost (of its node-seconds, where a pool has no price).
    """
    from scipy.optimize import Bounds, milp

    jobs = problem.jobs
    options = [usable_options(job) for job in jobs]
    if not all(options):
        return Exact(None, math.inf, infeasible=True)
    big = max(job.arrival_s for job in jobs) + math.fsum(max(o.run_s for o in each) for each in options)
    if objective == "makespan" and cutoff is not None:
        big = cutoff * (1 + 1e-9)
    scale = big or 1.0
    program = _Program()
    x = [[program.variable(1, integer=True) for _ in each] for each in options]
    start = [
        program.variable(0.0 if job.fixed else math.inf, low=0.0 if job.fixed else job.arrival_s / scale)
        for job in jobs
    ]
    runs = [[option.run_s / scale for option in each] for each in options]
    for j, job in enumerate(jobs):
        program.rows.add(x[j], [1.0] * len(x[j]), 1.0, 1.0)
        latest = big if job.deadline_s is None or job.fixed else min(big, job.deadline_s)
        program.rows.add([start[j], *x[j]], [1.0, *runs[j]], -np.inf, latest / scale * (1 + 1e-9))
    _order(program, problem, options, x, start, runs)
    if problem.budget is not None:
        flat = [i for each in x for i in each]
        values = [spent(option, "cost") / problem.budget for each in options for option in each]
        program.rows.add(flat, values, -np.inf, 1.0)
    costs, back = _objective(program, problem, objective, options, x, start, runs, scale)
    if least is not None:
        at_most = least / back
        columns = [int(i) for i in np.flatnonzero(costs)]
        program.rows.add(columns, [float(costs[i]) for i in columns], -np.inf, at_most + 1e-7 * abs(at_most))
        costs, back = _prices(program, options, x)
    found = milp(
        costs,
        constraints=program.rows.constraint(len(program.low)),
        bounds=Bounds(np.array(program.low), np.array(program.high)),
        integrality=np.array(program.integer),
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-7},
    )
    if found.status == 2:
        return Exact(None, math.inf, infeasible=True)
    dual = found.mip_dual_bound
    bound = (math.inf if objective == "throughput" else 0.0) if dual is None else float(dual) * back
    if found.x is None:
        return Exact(None, bound, infeasible=False)
    chosen = {j: options[j][int(np.argmax(found.x[x[j]]))] for j in range(len(jobs))}
    order = sorted(range(len(jobs)), key=lambda j: (float(found.x[start[j]]), j))
    return Exact(place_in_order(problem, chosen, order), bound, infeasible=False)


def _prices(program: _Program, options: list[list[Option]], x: list[list[int]]) -> tuple[Any, float]:
    """Return the coefficients of the cost, or of node-seconds, and what turns the program's value into it."""
    priced = all(option.cost is not None for each in options for option in each)
    values = [[(o.cost or 0.0) if priced else o.nodes * o.run_s for o in each] for each in options]
    size = max((value for each in values for value in each), default=1.0) or 1.0
    costs = np.zeros(len(program.low))
    for columns, each in zip(x, values, strict=True):
        costs[columns] = [value / size for value in each]
    return costs, size


def _order(
    program: _Program, problem: Problem, options: list[list[Option]], x: list[list[int]], start: list[int],
    runs: list[list[float]],
) -> None:  # fmt: skip
    """Add the flow of nodes: from the pool, from workload to workload, as many as each option needs."""
    count, rows = len(problem.jobs), program.rows
    before = {pair: program.variable(1, integer=True) for pair in permutations(range(count), 2)}
    for (i, j), b in before.items():
        if i < j:
            rows.add([b, before[j, i]], [1.0, 1.0], -np.inf, 1.0)
        rows.add([start[j], start[i], *x[i], b], [1.0, -1.0, *(-run for run in runs[i]), -1.0], -1.0, np.inf)
    for pool, nodes in problem.pools.items():
        uses = [[(v, o.nodes / nodes) for v, o in zip(x[j], options[j], strict=True) if o.pool == pool]
                for j in range(count)]  # fmt: skip
        mine = [j for j in range(count) if uses[j]]
        flow = {(i, j): program.variable(1.0) for i, j in permutations(mine, 2)}
        first = {j: program.variable(1.0) for j in mine}
        for (i, j), f in flow.items():
            rows.add([f, before[i, j]], [1.0, -1.0], -np.inf, 0.0)
        for j in mine:
            columns, sizes = [v for v, _ in uses[j]], [-size for _, size in uses[j]]
            into = [flow[i, j] for i in mine if i != j]
            out = [flow[j, i] for i in mine if i != j]
            rows.add([first[j], *into, *columns], [1.0] * (1 + len(into)) + sizes, 0.0, 0.0)
            rows.add([*out, *columns], [1.0] * len(out) + sizes, -np.inf, 0.0)
        rows.add([first[j] for j in mine], [1.0] * len(mine), -np.inf, 1.0)


def _objective(
    program: _Program, problem: Problem, objective: Objective, options: list[list[Option]], x: list[list[int]],
    start: list[int], runs: list[list[float]], scale: float,
) -> tuple[Any, float]:  # fmt: skip
    """Return the coefficients, and what turns the program's value into the objective's."""
    jobs, rows = problem.jobs, program.rows
    if objective == "makespan":
        last = program.variable()
        for j in range(len(jobs)):
            rows.add([last, start[j], *x[j]], [1.0, -1.0, *(-run for run in runs[j])], 0.0, np.inf)
        for pool, nodes in problem.pools.items():
            mine = [(v, o.nodes * o.run_s / (nodes * scale)) for j in range(len(jobs))
                    for v, o in zip(x[j], options[j], strict=True) if o.pool == pool]  # fmt: skip
            rows.add([last, *(v for v, _ in mine)], [1.0, *(-area for _, area in mine)], 0.0, np.inf)
        costs = np.zeros(len(program.low))
        costs[last] = 1.0
        return costs, scale
    if objective == "throughput":
        horizon = horizon_of(problem)
        done = [program.variable(1, integer=True) for _ in jobs]
        for j in range(len(jobs)):
            rows.add([done[j], start[j], *x[j]], [1.0, 1.0, *runs[j]], -np.inf, horizon / scale * (1 + 1e-9) + 1.0)
        costs = np.zeros(len(program.low))
        costs[done] = [-job.weight for job in jobs]
        return costs, -86400.0 / horizon
    costs = np.zeros(len(program.low))
    if objective == "weighted-completion":
        size = max(job.weight for job in jobs)
        for j, job in enumerate(jobs):
            costs[start[j]] = job.weight / size
            costs[x[j]] = [job.weight / size * run for run in runs[j]]
        return costs, scale * size
    size = max((spent(o, objective) for each in options for o in each), default=1.0) or 1.0
    for j, each in enumerate(options):
        costs[x[j]] = [spent(option, objective) / size for option in each]
    return costs, size
