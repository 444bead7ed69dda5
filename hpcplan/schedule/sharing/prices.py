"""Bounds and schedules by prices of node-seconds, for more workloads than a proof can be had of.

Where the nodes of each pool have a price at each time, workloads need not know of each other: each takes the option and
the start that are best for itself. What that comes to, less the worth of all nodes, is a bound on every schedule
(Lagrangian relaxation; Fisher, Management Science 27(1), 1981), as tight as the linear program over starts in time
(Dyer & Wolsey, Discrete Applied Mathematics 26, 1990), which has too many columns to be solved; time stays continuous
here, as prices change at few times only. Prices rise where more nodes are taken than there are (the subgradient method
with Polyak's step; Held, Wolfe & Crowder, Mathematical Programming 6, 1974). They also tell what to do: workloads are
placed one after another as the prices like it best.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.sharing.problem import Job, Option, Placed, Problem
from hpcplan.schedule.sharing.profile import Profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Priced", "bound_by_prices"]

_TIMES: Final = 60  # at which prices change
_GROWTH: Final = 1.6  # of the time between them
_ROUNDS: Final = 240
_PATIENCE: Final = 6  # rounds without a better bound before steps become smaller
_SMALLER: Final = 0.6
_MEMORY: Final = 0.7  # of the direction of a step
_SCALES: Final = tuple(2.0**power for power in range(-5, 3))  # of the first prices
_PLACED_EVERY: Final = 40  # rounds
_BEYOND: Final = 1.1  # times the end of a schedule that is known: until then nodes have prices
_LOOKS: Final = 2


@dataclass(frozen=True, slots=True)
class Priced:
    """The bound on weighted completion (weight times seconds), and schedules that the prices suggest."""

    bound: float
    schedules: tuple[list[Placed], ...]


class _Pool:
    """The options on one pool, and the starts at which each may be best: it begins or ends where a price changes."""

    def __init__(self, problem: Problem, name: str, choices: Sequence[tuple[int, Option]], times: Floats) -> None:
        self.nodes = problem.pools[name]
        mine = [(j, option) for j, option in choices if option.pool == name]
        jobs = [problem.jobs[j] for j, _ in mine]
        self.options = [option for _, option in mine]
        self.job = np.array([j for j, _ in mine], dtype=np.int64)
        self.need = np.array([float(option.nodes) for option in self.options])
        self.run_s = np.array([option.run_s for option in self.options])
        self.cost = np.array([option.cost or 0.0 for option in self.options])
        first = np.array([0.0 if job.fixed else job.arrival_s for job in jobs])
        last = np.array([_latest(job) for job in jobs]) - self.run_s
        starts = np.concatenate(
            [np.broadcast_to(times, (len(mine), len(times))), times[None, :] - self.run_s[:, None], first[:, None]], 1
        )
        self.starts = np.minimum(np.maximum(starts, first[:, None]), np.maximum(last, first)[:, None])
        self.ends = self.starts + self.run_s[:, None]
        self.worth = np.array([job.weight for job in jobs])[:, None] * self.ends
        self.places = [_places(times, at) for at in (self.starts, self.ends)]

    def best(self, prices: Floats, times: Floats, spend: float) -> tuple[Floats, NDArray[np.int64]]:
        """Return what each option comes to at its best start, and which that is."""
        summed, steps = np.append(0.0, (prices * np.diff(times)).cumsum()), np.append(prices, 0.0)
        (first, past_first), (last, past_last) = self.places
        total = summed[last] + steps[last] * past_last - summed[first] - steps[first] * past_first
        total *= self.need[:, None]
        total += self.worth
        chosen = total.argmin(axis=1)
        return total[np.arange(len(chosen)), chosen] + spend * self.cost, chosen


def _latest(job: Job) -> float:
    if job.fixed:
        return job.options[0].run_s
    return math.inf if job.deadline_s is None else job.deadline_s


def _places(times: Floats, at: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Return after which of the times moments are, and by how much; none is after the last."""
    capped = np.minimum(at, times[-1])
    found = np.clip(np.searchsorted(times, capped, side="right") - 1, 0, len(times) - 2).astype(np.int32)
    return found, capped - times[found]


@dataclass(slots=True)
class _Choice:
    """What every workload takes at some prices, what that comes to, and what it uses beyond what there is."""

    value: float
    starts: list[float]
    options: list[Option]
    excess: Floats
    overspent: float


class _Dual:
    """Prices by pool and time, of money where there is a budget, and what workloads make of them."""

    def __init__(self, problem: Problem, choices: Sequence[tuple[int, Option]], end_s: float) -> None:
        self.problem = problem
        self.options: dict[int, list[Option]] = {}
        for j, option in choices:
            self.options.setdefault(j, []).append(option)
        self.times = np.linspace(0.0, 1.0, _TIMES) ** _GROWTH * end_s
        self.names = [name for name in problem.pools if any(option.pool == name for _, option in choices)]
        self.pools = [_Pool(problem, name, choices, self.times) for name in self.names]
        self.room = np.array([pool.nodes for pool in self.pools])[:, None] * np.diff(self.times)

    def choice(self, prices: Floats, spend: float) -> _Choice:
        """Return what every workload takes."""
        count = len(self.problem.jobs)
        least, taken = np.full(count, np.inf), [(0, 0, 0)] * count
        for number, pool in enumerate(self.pools):
            value, at = pool.best(prices[number], self.times, spend)
            for place in np.lexsort((value, pool.job)):  # the best of each workload comes first of its own
                j = pool.job[place]
                if value[place] < least[j]:
                    least[j], taken[j] = value[place], (number, int(place), int(at[place]))
        excess, cost = -self.room, 0.0
        starts, options = [], []
        for number, place, at_ in taken:
            pool = self.pools[number]
            start, end = pool.starts[place, at_], pool.ends[place, at_]
            excess[number] += pool.need[place] * np.maximum(
                0.0, np.minimum(end, self.times[1:]) - np.maximum(start, self.times[:-1])
            )
            cost += float(pool.cost[place])
            starts.append(float(start))
            options.append(pool.options[place])
        budget = self.problem.budget
        value_ = float(least.sum()) - float((prices * self.room).sum()) - spend * (budget or 0.0)
        return _Choice(value_, starts, options, excess, 0.0 if budget is None else cost - budget)

    def begin(self) -> Floats:
        """Return prices that fall with time, of the scale that gives the best bound."""
        weight = sum(job.weight for job in self.problem.jobs) / sum(pool.nodes for pool in self.pools)
        shape = np.broadcast_to((1 - self.times[1:] / self.times[-1]) ** 2, self.room.shape) * weight
        return max((shape * scale for scale in _SCALES), key=lambda prices: self.choice(prices, 0.0).value)

    def place(self, prices: Floats, choice: _Choice) -> list[Placed]:
        """Return a schedule in the order of the starts that were chosen, each workload where it is best by prices."""
        times, jobs = self.times.tolist(), self.problem.jobs
        steps = {name: [*row, 0.0] for name, row in zip(self.names, prices.tolist(), strict=True)}
        sums = {
            name: np.append(0.0, (row * np.diff(self.times)).cumsum()).tolist()
            for name, row in zip(self.names, prices, strict=True)
        }

        def until(pool: str, time_s: float) -> float:
            time_s = min(time_s, times[-1])
            place = min(len(times) - 2, bisect_right(times, time_s) - 1)
            return float(sums[pool][place] + steps[pool][place] * (time_s - times[place]))

        def cost(j: int, option: Option, start_s: float) -> float:
            end_s = start_s + option.run_s
            late = 0.0 if end_s <= _latest(jobs[j]) * (1 + 1e-9) else 1e12
            paid = option.nodes * (until(option.pool, end_s) - until(option.pool, start_s))
            return late + jobs[j].weight * end_s + paid

        order = sorted(range(len(jobs)), key=lambda j: (not jobs[j].fixed, choice.starts[j], j))
        return _place_by_cost(self.problem, self.options, order, cost)


def _place_by_cost(
    problem: Problem, options: Mapping[int, Sequence[Option]], order: Sequence[int],
    cost: Callable[[int, Option, float], float],
) -> list[Placed]:  # fmt: skip
    """Return a schedule: each job in turn with the option that costs least at the earliest start that it can have."""
    profiles = {pool: Profile(nodes) for pool, nodes in problem.pools.items()}
    placed = []
    for j in order:
        job = problem.jobs[j]
        ways: list[tuple[float, int, Option, float]] = []
        for option in options[j]:
            start = 0.0 if job.fixed else profiles[option.pool].earliest(option.nodes, option.run_s, job.arrival_s)
            ways.append((cost(j, option, start), len(ways), option, start))
        _, _, option, start = min(ways)
        profiles[option.pool].take(option.nodes, start, start + option.run_s)
        placed.append(Placed(j, option, start))
    return placed


def bound_by_prices(
    problem: Problem, choices: Sequence[tuple[int, Option]], known: Sequence[Placed], rounds: int = _ROUNDS
) -> Priced:
    """Return a bound on weighted completion.

    Args:
        problem: the workloads and pools.
        choices: workloads with the options that each may take, at least one each.
        known: some schedule; how long it lasts is how far prices are looked for.
        rounds: how often prices are changed.
    """
    dual = _Dual(problem, choices, _BEYOND * max(each.end_s for each in known))
    for _ in range(_LOOKS):  # better schedules are over sooner, so that prices can be told apart more finely
        prices = dual.begin()
        best = dual.choice(prices, 0.0)
        known = min(known, dual.place(prices, best), key=lambda placed: _worth(problem, placed))
        dual = _Dual(problem, choices, _BEYOND * max(each.end_s for each in known))
    worth, prices, spend, step, stalled = _worth(problem, known), dual.begin(), 0.0, 1.0, 0
    best = dual.choice(prices, spend)
    best_prices, best_spend, direction, schedules = prices, spend, None, []
    lengths = dual.room * np.array([pool.nodes for pool in dual.pools])[:, None]
    for number in range(rounds):
        found = dual.choice(prices, spend)
        if found.value > best.value or not number:
            best, best_prices, best_spend, stalled = found, prices, spend, 0
        else:
            stalled += 1
        if number % _PLACED_EVERY == _PLACED_EVERY - 1 or number == rounds - 1:
            schedules.append(dual.place(best_prices, best))
            worth = min(worth, _worth(problem, schedules[-1]))
        if stalled >= _PATIENCE:
            step, stalled, direction, prices, spend, found = step * _SMALLER, 0, None, best_prices, best_spend, best
        direction = found.excess if direction is None else (1 - _MEMORY) * found.excess + _MEMORY * direction
        scale = problem.budget or 1.0
        size = float((direction**2 / lengths).sum()) + (found.overspent / scale) ** 2
        if size <= 0:
            break
        by = step * max(worth - found.value, 1e-6 * worth) / size
        prices = np.maximum(0.0, prices + by * direction / lengths)
        spend = max(0.0, spend + by * found.overspent / scale**2)
    return Priced(best.value, tuple(schedules))


def _worth(problem: Problem, placed: Sequence[Placed]) -> float:
    return math.fsum(problem.jobs[each.job].weight * each.end_s for each in placed)
