"""How fair a schedule is.

Finish-time fairness (Mahajan et al. 2020, "Themis: Fair and Efficient GPU Cluster Scheduling", NSDI, section 3.1):
rho is the time from arrival to end over what it would have been on an n-th of every pool alone; above 1, a workload
would have been better off without sharing. Jain's index (Jain, Chiu & Hawe 1984, DEC-TR-301) of 1 / rho is 1 where all
gain alike and 1 / n where one has everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcplan.schedule.sharing.problem import Job, Problem
from hpcplan.schedule.sharing.simulate import Run

__all__ = ["Fairness", "alone_s", "fairness_of", "jain"]


@dataclass(frozen=True, slots=True)
class Fairness:
    """``rho`` by workload, and Jain's index of 1 / rho."""

    rho: tuple[float, ...]
    jain: float

    @property
    def worst_rho(self) -> float:
        """That of the workload that sharing costs most."""
        return max(self.rho)


def jain(values: Sequence[float]) -> float:
    """Return Jain's index: the square of the sum over n times the sum of squares; 1 for none."""
    squares = math.fsum(value * value for value in values)
    return 1.0 if not squares else math.fsum(values) ** 2 / (len(values) * squares)


def alone_s(job: Job, pools: Mapping[str, int], count: int) -> float:
    """Return how long a workload would take on an n-th of the nodes of its best pool.

    Where a share is below the fewest nodes on which it runs, it has those for part of the time.
    """
    return min(
        option.run_s * max(1.0, option.nodes / (pools[option.pool] / count))
        for option in job.options
        if option.nodes <= pools[option.pool] / count or option is job.at(option.pool)[0]
    )


def fairness_of(problem: Problem, runs: Sequence[Run]) -> Fairness:
    """Return the fairness of what became of the workloads."""
    count = len(problem.jobs)
    rho = tuple(
        (run.end_s - problem.jobs[run.job].arrival_s) / alone_s(problem.jobs[run.job], problem.pools, count)
        for run in runs
    )
    return Fairness(rho, jain([1 / value for value in rho]))
