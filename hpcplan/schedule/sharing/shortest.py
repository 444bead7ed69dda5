"""When many workloads can all be done: a bound, and schedules that come near to it.

For a makespan that is given (dual approximation; Hochbaum & Shmoys, J. ACM 34(1), 1987), options that end later are out
from the start, and what is left of each pool's node-seconds after each time of arrival has to hold what arrives then:
a linear program says whether that can be, and its dual prices what a node-second of each pool is worth. The least
makespan that it allows is the bound. Workloads are then placed one after another, those that arrive last first, each
with the option that takes least of what is worth most and ends in time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hpcplan.schedule.sharing.problem import Option, Placed, Problem
from hpcplan.schedule.sharing.profile import Profile

__all__ = ["Shortest", "shortest"]

_NEAR: Final = 5e-4  # how near to each other the least makespan that is allowed and the most that is not
_THRESHOLDS: Final = 12  # times of arrival at which node-seconds are counted
_TRIES: Final = 9  # makespans for each order
_MOST: Final = 1.6  # times the bound: where they are looked for

Choices = Sequence[tuple[int, Option]]


@dataclass(frozen=True, slots=True)
class Shortest:
    """The bound (s) and the schedules found, one an order in which any was."""

    bound: float
    schedules: tuple[list[Placed], ...]


@dataclass(frozen=True, slots=True)
class _Worth:
    """What a node-second of each pool (a column) is worth to those that arrive at ``times`` or later (a row)."""

    times: list[float]
    pools: list[str]
    worth: list[list[float]]

    def of(self, option: Option, arrival_s: float) -> float:
        """Return what an option takes."""
        row = self.worth[bisect_right(self.times, arrival_s) - 1]
        return row[self.pools.index(option.pool)] * option.nodes * option.run_s


def shortest(problem: Problem, choices: Choices) -> Shortest:
    """Return a bound on the makespan, and schedules; ``choices`` are the options that each workload may take."""
    low = max(
        problem.jobs[j].arrival_s + min(option.run_s for i, option in choices if i == j)
        for j in range(len(problem.jobs))
    )
    load, worth = _load(problem, choices, low)
    if load > 1:
        high = low * load
        while (found := _load(problem, choices, high))[0] > 1:
            low, high = high, high * max(1.01, found[0])
        worth = found[1]
        while high - low > _NEAR * high:
            middle = (low + high) / 2
            load, mine = _load(problem, choices, middle)
            low, high, worth = (middle, high, worth) if load > 1 else (low, middle, mine)
    schedules = (_least(problem, choices, worth, order, low) for order in _orders(problem, choices, worth))
    return Shortest(low, tuple(placed for placed in schedules if placed is not None))


def _load(problem: Problem, choices: Choices, makespan_s: float) -> tuple[float, _Worth]:
    """Return how full the fullest pool must be for all to be done by then (above 1: they cannot be), and prices."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    jobs, pools = problem.jobs, list(problem.pools)
    mine = [(j, option) for j, option in choices if jobs[j].arrival_s + option.run_s <= makespan_s * (1 + 1e-9)]
    times = sorted({job.arrival_s for job in jobs if job.arrival_s < makespan_s})
    if len(times) > _THRESHOLDS:
        times = [times[round(k * (len(times) - 1) / (_THRESHOLDS - 1))] for k in range(_THRESHOLDS)]
    count, rows = len(mine), len(times) * len(pools)
    row, column, value = [], [], []
    for i, (j, option) in enumerate(mine):
        pool, area = pools.index(option.pool), option.nodes * option.run_s / problem.pools[option.pool]
        for k in range(bisect_right(times, jobs[j].arrival_s)):
            row.append(k * len(pools) + pool)
            column.append(i)
            value.append(area / (makespan_s - times[k]))
    row, column, value = [*row, *range(rows)], [*column, *[count] * rows], [*value, *[-1.0] * rows]
    one = csr_matrix((np.ones(count), ([j for j, _ in mine], range(count))), shape=(len(jobs), count + 1))
    found = linprog(
        np.append(np.zeros(count), 1.0), A_ub=csr_matrix((value, (row, column)), shape=(rows, count + 1)),
        b_ub=np.zeros(rows), A_eq=one, b_eq=np.ones(len(jobs)), method="highs-ipm",
    )  # fmt: skip
    dual = -np.asarray(found.ineqlin.marginals).reshape(len(times), len(pools))
    left = np.array([[problem.pools[pool] * (makespan_s - time) for pool in pools] for time in times])
    return float(found.fun), _Worth(times, pools, (dual / left).cumsum(axis=0).tolist())


def _orders(problem: Problem, choices: Choices, worth: _Worth) -> list[list[int]]:
    """Return orders of placing: what arrives last first, or what takes most, or what runs longest."""
    jobs = problem.jobs
    least: dict[int, tuple[float, float]] = {}
    for j, option in choices:
        taken = worth.of(option, jobs[j].arrival_s), option.run_s
        least[j] = min(least.get(j, taken), taken)
    indices = range(len(jobs))
    return [
        sorted(indices, key=lambda j: (not jobs[j].fixed, *key(j), j))
        for key in (
            lambda j: (-jobs[j].arrival_s, -least[j][0]),
            lambda j: (-least[j][0],),
            lambda j: (-least[j][1],),
            lambda j: (-jobs[j].arrival_s - least[j][1],),
        )
    ]


def _least(
    problem: Problem, choices: Choices, worth: _Worth, order: Sequence[int], bound_s: float
) -> list[Placed] | None:
    """Return the schedule of the least makespan at which an order goes well, ``None`` if at none that was tried."""
    options: dict[int, list[Option]] = {j: [] for j in order}
    for j, option in sorted(choices, key=lambda one: worth.of(one[1], problem.jobs[one[0]].arrival_s)):
        options[j].append(option)
    low, high, best = bound_s, _MOST * bound_s, None
    for attempt in range(_TRIES):
        makespan_s = high if not attempt else (low + high) / 2
        placed = _placed_by(problem, options, order, makespan_s)
        if placed is not None:
            best, high = placed, max(each.end_s for each in placed)
        elif not attempt:
            return None
        else:
            low = makespan_s
    return best


def _placed_by(
    problem: Problem, options: dict[int, list[Option]], order: Sequence[int], makespan_s: float
) -> list[Placed] | None:
    """Return a schedule that is done by then, each job with the first of its options that is."""
    profiles = {pool: Profile(nodes) for pool, nodes in problem.pools.items()}
    placed = []
    for j in order:
        job = problem.jobs[j]
        due = math.inf if job.deadline_s is None or job.fixed else job.deadline_s
        for option in options[j]:
            if job.arrival_s + option.run_s > makespan_s:
                continue
            start = 0.0 if job.fixed else profiles[option.pool].earliest(option.nodes, option.run_s, job.arrival_s)
            if start + option.run_s <= min(makespan_s, due):
                profiles[option.pool].take(option.nodes, start, start + option.run_s)
                placed.append(Placed(j, option, start))
                break
        else:
            return None
    return placed
