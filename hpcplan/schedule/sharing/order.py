"""From options and an order to a schedule: each job in turn starts as early as its pool has the nodes.

This is the serial schedule generation scheme; among its results over all orders is an optimum of every objective that
never gains by finishing later (Kolisch 1996, "Serial and parallel resource-constrained project scheduling methods
revisited", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcplan.schedule.sharing.problem import Option, Placed, Problem
from hpcplan.schedule.sharing.profile import Profile

__all__ = ["place_in_order", "place_pool"]


def place_pool(problem: Problem, nodes: int, members: Sequence[tuple[int, Option]]) -> list[Placed]:
    """Return the schedule of one pool: jobs that run already first, then the others in the order given."""
    profile = Profile(nodes)
    placed: list[Placed] = []
    for fixed in (True, False):
        for index, option in members:
            job = problem.jobs[index]
            if job.fixed is not fixed:
                continue
            start = 0.0 if fixed else profile.earliest(option.nodes, option.run_s, job.arrival_s)
            profile.take(option.nodes, start, start + option.run_s)
            placed.append(Placed(index, option, start))
    return placed


def place_in_order(problem: Problem, options: Mapping[int, Option], order: Sequence[int]) -> list[Placed]:
    """Return the schedule of all pools, by job."""
    placed: list[Placed] = []
    for pool, nodes in problem.pools.items():
        members = [(index, options[index]) for index in order if options[index].pool == pool]
        placed += place_pool(problem, nodes, members)
    return sorted(placed, key=lambda each: each.job)
