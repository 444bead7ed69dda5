"""Better schedules by small changes: another option, another place in the order; kept where they do not cost anything.

Pools do not touch each other once options are chosen, so a change is priced on the one or two pools that it touches.
The same seed gives the same schedule.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from hpcplan.schedule.sharing.order import place_pool
from hpcplan.schedule.sharing.problem import Objective, Option, Placed, Problem, horizon_of, lateness_s, value_of
from hpcplan.schedule.sharing.relax import usable_options

__all__ = ["Score", "improve", "price_of", "score"]

Score = tuple[float, float, float, float]
_EFFORT = 40_000_000  # of all changes: a pool's jobs are placed anew, each along the others
_CRITICAL = 0.7  # how often a change begins at what decides the makespan


def score(problem: Problem, placed: Sequence[Placed], objective: Objective) -> Score:
    """Return what is made least, one after another: deadlines and budget missed, the objective, the cost, the mean end.

    Where a pool has no price, node-seconds stand for the cost.
    """
    value = value_of(problem, placed, objective)
    over = 0.0
    if problem.budget is not None:
        total = sum(each.option.cost or 0.0 for each in placed)
        over = max(0.0, total / problem.budget - 1 - 1e-9) * 1e12  # worse than any lateness
    mean = sum(problem.jobs[each.job].weight * each.end_s for each in placed)
    late = lateness_s(problem, placed) + over
    return late, -value if objective == "throughput" else value, price_of(problem, placed), mean


def price_of(problem: Problem, placed: Sequence[Placed]) -> float:
    """Return what decides between schedules that are worth the same: their cost; node-seconds if a pool has none."""
    priced = all(option.cost is not None for job in problem.jobs for option in job.options)
    return sum(
        (each.option.cost or 0.0) if priced else each.option.nodes * each.option.run_s for each in placed
    )  # fmt: skip


class _Search:
    """The schedule at hand, pool by pool."""

    def __init__(self, problem: Problem, options: Mapping[int, Option], order: Sequence[int], objective: Objective):
        self.problem, self.objective = problem, objective
        self.members = {pool: [(j, options[j]) for j in order if options[j].pool == pool] for pool in problem.pools}
        self.placed = {pool: self.place(pool, members) for pool, members in self.members.items()}
        self.pool_of = {j: options[j].pool for j in order}
        self.choices = {j: usable_options(problem.jobs[j]) or list(problem.jobs[j].options) for j in order}
        self.free = [j for j in order if not problem.jobs[j].fixed]
        self.best = self.total(self.placed)
        self.kept = self.best, self.placed
        self.effort = 0

    def place(self, pool: str, members: Sequence[tuple[int, Option]]) -> list[Placed]:
        return place_pool(self.problem, self.problem.pools[pool], members)

    def total(self, placed: Mapping[str, list[Placed]]) -> Score:
        return score(self.problem, [each for some in placed.values() for each in some], self.objective)

    def step(self, chance: random.Random) -> None:
        """Try one change, and keep it unless it is worse."""
        j = self.pick(chance)
        old = self.pool_of[j]
        option = chance.choice(self.choices[j])
        members = {old: [entry for entry in self.members[old] if entry[0] != j]}
        target = list(members.get(option.pool, self.members[option.pool]))
        target.insert(chance.randint(0, len(target)), (j, option))
        members[option.pool] = target
        self.effort += sum(len(of) ** 2 for of in members.values())
        placed = {**self.placed, **{pool: self.place(pool, of) for pool, of in members.items()}}
        found = self.total(placed)
        # Most changes leave the makespan as it is, that of another pool: such are kept however the rest ends, else
        # there is no way from one of many like schedules to the next better one.
        if found[:2] <= self.best[:2] if self.objective == "makespan" else found <= self.best:
            self.members |= members
            self.placed, self.best = placed, found
            self.pool_of[j] = option.pool
            if found < self.kept[0]:
                self.kept = found, placed

    def pick(self, chance: random.Random) -> int:
        """Return a job to change: often one on the pool that is done last, or that is late."""
        if chance.random() < _CRITICAL:
            jobs = self.problem.jobs
            late = [
                each.job
                for some in self.placed.values()
                for each in some
                if (jobs[each.job].deadline_s or each.end_s) < each.end_s and not jobs[each.job].fixed
            ]
            if late:
                return chance.choice(late)
            if self.objective == "makespan":
                last = max(self.placed.values(), key=lambda some: max((each.end_s for each in some), default=0.0))
                movable = [each.job for each in last if not jobs[each.job].fixed]
                if movable:
                    return chance.choice(movable)
        return chance.choice(self.free)


def improve(
    problem: Problem,
    starts: Sequence[tuple[Mapping[int, Option], Sequence[int]]],
    objective: Objective,
    *,
    steps: int,
    seed: int = 0,
) -> list[Placed]:
    """Return the best schedule found from some choices of options and orders.

    Args:
        problem: the workloads and pools.
        starts: options and order to begin with; the best goes on.
        objective: what is made least; deadlines come first.
        steps: how many changes to try.
        seed: of the changes.
    """
    if objective == "throughput":
        horizon_of(problem)  # says at once what is missing
    search = min((_Search(problem, *start, objective) for start in starts), key=lambda each: each.best)
    chance = random.Random(seed)
    if search.free:
        for _ in range(steps):
            search.step(chance)
            if search.effort > _EFFORT:
                break
    return sorted((each for some in search.kept[1].values() for each in some), key=lambda each: each.job)
