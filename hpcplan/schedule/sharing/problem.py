"""Several workloads that share the nodes of a site: what may be decided, and what a decision is worth.

Times are seconds from the moment of planning. A workload runs on nodes of one pool, all of them for its whole time
(moldable jobs; Feitelson et al. 1997, "Theory and Practice in Parallel Job Scheduling"); what it gains by more nodes
is in its options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hpcplan.errors import InputError

__all__ = [
    "OBJECTIVES",
    "Job",
    "Objective",
    "Option",
    "Placed",
    "Problem",
    "horizon_of",
    "lateness_s",
    "spent",
    "value_of",
]

Objective = Literal["makespan", "weighted-completion", "throughput", "cost", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Option:
    """One point of a scaling curve: so many nodes of a pool, how long the whole workload takes, and what that costs."""

    pool: str
    nodes: int
    run_s: float
    cost: float | None = None
    energy_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One workload. ``fixed`` says that it runs already: it starts at 0, whatever is decided.

    ``restart_s`` is what stopping at a checkpoint and going on elsewhere costs; checkpoints are ``checkpoint_s`` apart.
    """

    name: str
    options: tuple[Option, ...]
    priority: float = 1.0
    weight: float = 1.0
    arrival_s: float = 0.0
    deadline_s: float | None = None
    budget: float | None = None
    checkpoint_s: float = 3600.0
    restart_s: float = 300.0
    fixed: bool = False

    @property
    def work_node_s(self) -> float:
        """Node-seconds at the number of nodes that takes fewest."""
        return min(option.nodes * option.run_s for option in self.options)

    def at(self, pool: str) -> list[Option]:
        """Return the options on a pool, fewest nodes first."""
        return sorted((option for option in self.options if option.pool == pool), key=lambda option: option.nodes)


@dataclass(frozen=True, slots=True)
class Problem:
    """Pools by name with their nodes, the workloads, and limits on all together.

    ``horizon_s`` is when throughput is counted; ``budget`` is of all workloads.
    """

    pools: Mapping[str, int]
    jobs: tuple[Job, ...]
    budget: float | None = None
    horizon_s: float | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """One decision: workload ``job`` (its place in the problem) runs as ``option`` from ``start_s`` on."""

    job: int
    option: Option
    start_s: float

    @property
    def end_s(self) -> float:
        """When it is done."""
        return self.start_s + self.option.run_s


def spent(option: Option, objective: Objective) -> float:
    """Return what an option adds to the cost or to the energy.

    Raises:
        InputError: the site has no figure for its pool.
    """
    value = option.cost if objective == "cost" else option.energy_kwh
    if value is None:
        what = "price" if objective == "cost" else "power"
        raise InputError(f"the site has no {what} for node group {option.pool!r}", hint="choose another objective")
    return value


def lateness_s(problem: Problem, placed: Sequence[Placed]) -> float:
    """Return by how much all deadlines together are missed, in seconds."""
    late = 0.0
    for each in placed:
        deadline = problem.jobs[each.job].deadline_s
        if deadline is not None:
            late += max(0.0, each.end_s - deadline - 1e-6 * max(1.0, deadline))
    return late


def value_of(problem: Problem, placed: Sequence[Placed], objective: Objective) -> float:
    """Return what a decision is worth; less is better, except for ``throughput``.

    ``makespan``: when the last is done (s). ``weighted-completion``: the sum of weight times end (s). ``throughput``:
    the weight that is done by the horizon, a day. ``cost`` in the site's currency, ``energy`` in kWh.

    Raises:
        InputError: the site has no prices or no power, or there is no horizon to count throughput by.
    """
    if objective == "makespan":
        return max((each.end_s for each in placed), default=0.0)
    if objective == "weighted-completion":
        return math.fsum(problem.jobs[each.job].weight * each.end_s for each in placed)
    if objective == "throughput":
        horizon = horizon_of(problem)
        done = [each for each in placed if each.end_s <= horizon * (1 + 1e-9)]
        return math.fsum(problem.jobs[each.job].weight for each in done) / (horizon / _DAY_S)
    return math.fsum(spent(each.option, objective) for each in placed)


def horizon_of(problem: Problem) -> float:
    """Return when throughput is counted: the horizon, or the last deadline.

    Raises:
        InputError: there is neither.
    """
    deadlines = [job.deadline_s for job in problem.jobs if job.deadline_s is not None]
    if problem.horizon_s is None and not deadlines:
        raise InputError(
            "throughput is what is done by some time: say by when", hint="--horizon '7 d', or horizon: 7 d"
        )
    return problem.horizon_s if problem.horizon_s is not None else max(deadlines)
