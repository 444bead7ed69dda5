"""What no schedule can beat: programs over the options alone, without the order of jobs.

In any schedule the node-seconds that are worked on a pool between two times fit between them (Ludwig & Tiwari 1994,
"Scheduling malleable and nonmalleable parallel tasks"). For makespan, throughput, cost and energy that gives a mixed
integer program, whose dual bound holds for every schedule, and which also says which options to take. For weighted
completion, and for the makespan of many workloads, see :mod:`.prices` and :mod:`.shortest`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpcplan.schedule.sharing.order import place_in_order
from hpcplan.schedule.sharing.prices import bound_by_prices
from hpcplan.schedule.sharing.problem import Job, Objective, Option, Placed, Problem, horizon_of, spent
from hpcplan.schedule.sharing.shortest import shortest

__all__ = ["Relaxed", "Rows", "relax", "usable_options"]

_MANY = 400  # options of all workloads: beyond, the integer program of the makespan takes long
_ROUNDS, _FEWEST_ROUNDS, _USUAL = 240, 40, 10_000  # of prices; for so many options, fewer for more
_ROUGHLY = 0.5  # gap of a program that is only asked whether there is a solution
_THRESHOLDS = 12  # times of arrival, and deadlines, at which node-seconds are counted


@dataclass(frozen=True, slots=True)
class Relaxed:
    """A bound on the objective, the options it would take, and an order; ``None`` where it does not choose options.

    ``bound`` bounds from below (throughput: from above); it is infinite where no choice of options will do.
    ``schedules`` come of the same.
    """

    bound: float
    options: dict[int, Option] | None
    order: tuple[int, ...]
    schedules: tuple[list[Placed], ...] = ()


class Rows:
    """Sparse rows of a linear program, collected one by one."""

    def __init__(self) -> None:
        self.row: list[int] = []
        self.column: list[int] = []
        self.value: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, columns: Sequence[int], values: Sequence[float], low: float, high: float) -> None:
        """Add ``low <= values . x[columns] <= high``."""
        self.row += [len(self.low)] * len(columns)
        self.column += columns
        self.value += values
        self.low.append(low)
        self.high.append(high)

    def constraint(self, columns: int) -> Any:
        """Return what scipy's solver takes."""
        from scipy.optimize import LinearConstraint
        from scipy.sparse import csr_matrix

        matrix = csr_matrix((self.value, (self.row, self.column)), shape=(len(self.low), columns))
        return LinearConstraint(matrix, np.array(self.low), np.array(self.high))


def usable_options(job: Job) -> list[Option]:
    """Return the options that keep the deadline and the budget of a workload when it runs at once."""
    latest = math.inf if job.deadline_s is None else job.deadline_s
    most = math.inf if job.budget is None else job.budget
    return [
        option
        for option in job.options
        if job.fixed or (job.arrival_s + option.run_s <= latest * (1 + 1e-9) and (option.cost or 0.0) <= most)
    ]


def relax(problem: Problem, objective: Objective, *, time_limit_s: float = 20.0, gap: float = 1e-3) -> Relaxed:
    """Return what the relaxation says of a problem; the search for better integers ends after ``time_limit_s``."""
    columns = [(j, option) for j, job in enumerate(problem.jobs) for option in usable_options(job)]
    if len({j for j, _ in columns}) < len(problem.jobs):
        return Relaxed(math.inf, None, ())
    limited = problem.budget is not None or any(job.deadline_s is not None for job in problem.jobs)
    found = Relaxed(0.0, None, ())
    if objective == "weighted-completion":
        if limited:
            found = _allotment(problem, columns, "makespan", time_limit_s, _ROUGHLY)
        if not math.isinf(found.bound):
            rounds = max(_FEWEST_ROUNDS, min(_ROUNDS, _ROUNDS * _USUAL // len(columns)))
            priced = bound_by_prices(problem, columns, _some_schedule(problem, columns), rounds)
            found = replace(found, bound=priced.bound, schedules=priced.schedules)
        return found
    if objective == "makespan" and len(columns) > _MANY:
        if limited:
            found = _allotment(problem, columns, objective, time_limit_s, gap)
        if not math.isinf(found.bound):
            best = shortest(problem, columns)
            found = replace(found, bound=max(found.bound, best.bound), schedules=best.schedules)
        return found
    return _allotment(problem, columns, objective, time_limit_s, gap)


def _some_schedule(problem: Problem, columns: list[tuple[int, Option]]) -> list[Placed]:
    """Return a schedule, each workload as it takes fewest node-seconds, those first that are worth most for theirs."""
    least: dict[int, Option] = {}
    for j, option in columns:
        if j not in least or option.nodes * option.run_s < least[j].nodes * least[j].run_s:
            least[j] = option
    order = sorted(least, key=lambda j: (least[j].nodes * least[j].run_s / problem.jobs[j].weight, j))
    return place_in_order(problem, least, order)


def _allotment(
    problem: Problem, columns: list[tuple[int, Option]], objective: Objective, time_limit_s: float, gap: float
) -> Relaxed:
    from scipy.optimize import Bounds, milp

    count, jobs = len(columns), problem.jobs
    scale = max(option.run_s + jobs[j].arrival_s for j, option in columns) or 1.0
    horizon = horizon_of(problem) if objective == "throughput" else math.inf
    rows = Rows()
    _choose_one(rows, problem, columns)
    _within_deadlines(rows, problem, columns, scale)
    _within_budget(rows, problem, columns)
    costs = np.zeros(count + 1)
    if objective == "makespan":
        costs[count] = 1.0
        for j in range(len(jobs)):
            mine = _of(columns, j)
            ends = [-(jobs[j].arrival_s + columns[i][1].run_s) / scale for i in mine]
            rows.add([*mine, count], [*ends, 1.0], 0.0, np.inf)
        for since in _some(sorted({job.arrival_s for job in jobs})):
            later = {j for j, job in enumerate(jobs) if job.arrival_s >= since}
            for pool, nodes in problem.pools.items():
                mine = [i for i, (j, option) in enumerate(columns) if j in later and option.pool == pool]
                areas = [-columns[i][1].nodes * columns[i][1].run_s / (nodes * scale) for i in mine]
                rows.add([*mine, count], [*areas, 1.0], since / scale, np.inf)
    elif objective == "throughput":
        in_time = [i for i, (j, option) in enumerate(columns) if jobs[j].arrival_s + option.run_s <= horizon]
        done, index = in_time, {i: n for n, i in enumerate(in_time)}
        return _throughput(problem, columns, rows, done, index, horizon, time_limit_s, gap)
    else:
        for i, (_, option) in enumerate(columns):
            costs[i] = spent(option, objective)
    size = float(np.abs(costs[:count]).max()) if objective != "makespan" else 1.0
    upper = np.append(np.ones(count), np.inf)
    found = milp(
        costs / (size or 1.0),
        constraints=rows.constraint(count + 1),
        bounds=Bounds(np.zeros(count + 1), upper),
        integrality=np.append(np.ones(count), 0),
        options={"time_limit": time_limit_s, "mip_rel_gap": gap},
    )
    if found.status == 2:
        return Relaxed(math.inf, None, ())
    back = scale if objective == "makespan" else size
    bound = found.mip_dual_bound if found.mip_dual_bound is not None else 0.0
    return Relaxed(float(bound) * back, _chosen(problem, columns, found.x), _by_length(problem, columns, found.x))


def _throughput(
    problem: Problem, columns: list[tuple[int, Option]], rows: Rows, done: list[int], index: dict[int, int],
    horizon: float, time_limit_s: float, gap: float,
) -> Relaxed:  # fmt: skip
    """Maximise the weight of workloads that are done by the horizon: a second variable says which options count."""
    from scipy.optimize import Bounds, milp

    count = len(columns)
    for i in done:
        rows.add([count + index[i], i], [1.0, -1.0], -np.inf, 0.0)
    for pool, nodes in problem.pools.items():
        mine = [i for i in done if columns[i][1].pool == pool]
        areas = [columns[i][1].nodes * columns[i][1].run_s / (nodes * horizon) for i in mine]
        rows.add([count + index[i] for i in mine], areas, -np.inf, 1.0)
    weights = np.array([problem.jobs[columns[i][0]].weight for i in done])
    size = float(weights.max()) if len(weights) else 1.0
    total = count + len(done)
    found = milp(
        np.append(np.zeros(count), -weights / size),
        constraints=rows.constraint(total),
        bounds=Bounds(np.zeros(total), np.ones(total)),
        integrality=np.ones(total),
        options={"time_limit": time_limit_s, "mip_rel_gap": gap},
    )
    if found.status == 2:
        return Relaxed(-math.inf, None, ())
    bound = -float(found.mip_dual_bound if found.mip_dual_bound is not None else -weights.sum() / size) * size
    options = _chosen(problem, columns, found.x)
    early = set() if found.x is None else {columns[i][0] for i in done if found.x[count + index[i]] > 0.5}
    order = _by_length(problem, columns, found.x)
    ranked = tuple(sorted(order, key=lambda j: j not in early))
    return Relaxed(bound / (horizon / 86400.0), options, ranked)


def _of(columns: list[tuple[int, Option]], job: int) -> list[int]:
    return [i for i, (j, _) in enumerate(columns) if j == job]


def _some(times: list[float]) -> list[float]:
    """Return at most ``_THRESHOLDS`` of sorted times, the first and the last among them."""
    if len(times) <= _THRESHOLDS:
        return times
    return [times[round(k * (len(times) - 1) / (_THRESHOLDS - 1))] for k in range(_THRESHOLDS)]


def _choose_one(rows: Rows, problem: Problem, columns: list[tuple[int, Option]]) -> None:
    mine: list[list[int]] = [[] for _ in problem.jobs]
    for i, (j, _) in enumerate(columns):
        mine[j].append(i)
    for each in mine:
        rows.add(each, [1.0] * len(each), 1.0, 1.0)


def _within_deadlines(rows: Rows, problem: Problem, columns: list[tuple[int, Option]], scale: float) -> None:
    deadlines = sorted({job.deadline_s for job in problem.jobs if job.deadline_s is not None})
    for deadline in _some(deadlines):
        due = {j for j, job in enumerate(problem.jobs) if job.deadline_s is not None and job.deadline_s <= deadline}
        due |= {j for j, job in enumerate(problem.jobs) if job.fixed and job.options[0].run_s <= deadline}
        for pool, nodes in problem.pools.items():
            mine = [i for i, (j, option) in enumerate(columns) if j in due and option.pool == pool]
            areas = [columns[i][1].nodes * columns[i][1].run_s / (nodes * scale) for i in mine]
            rows.add(mine, areas, -np.inf, deadline / scale)


def _within_budget(rows: Rows, problem: Problem, columns: list[tuple[int, Option]]) -> None:
    if problem.budget is not None:
        values = [spent(option, "cost") / (problem.budget or 1.0) for _, option in columns]
        rows.add([*range(len(columns))], values, -np.inf, 1.0)


def _chosen(problem: Problem, columns: list[tuple[int, Option]], x: Any) -> dict[int, Option] | None:
    if x is None:
        return None
    best: dict[int, tuple[float, Option]] = {}
    for i, (j, option) in enumerate(columns):
        if j not in best or x[i] > best[j][0] + 1e-9:
            best[j] = (float(x[i]), option)
    return {j: option for j, (_, option) in best.items()}


def _by_length(problem: Problem, columns: list[tuple[int, Option]], x: Any) -> tuple[int, ...]:
    chosen = _chosen(problem, columns, x)
    indices = range(len(problem.jobs))
    if chosen is None:
        return tuple(indices)
    return tuple(sorted(indices, key=lambda j: (-chosen[j].run_s, j)))
