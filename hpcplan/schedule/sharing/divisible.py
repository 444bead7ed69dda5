"""The textbook's case: one piece of work that can be cut anywhere, over a few unequal nodes.

The policies then share the work instead of the nodes: :func:`hpcplan.partition.allocate.share_work` says how; here each
part runs on the simulator, beside the same figures as of whole workloads.
"""

from __future__ import annotations

from dataclasses import replace

from hpcplan.partition.allocate import Pool, Shares, compare_policies
from hpcplan.schedule.sharing.compare import Outcome, Policy, outcome_of
from hpcplan.schedule.sharing.fairness import Fairness, jain
from hpcplan.schedule.sharing.problem import Job, Option, Placed, Problem
from hpcplan.schedule.sharing.simulate import carry_out

__all__ = ["share_divisible"]


def _balanced_s(pools: list[Pool], work_h: float) -> float:
    """Return when all would be done if every core computed all the time and data were there."""
    return work_h / sum(pool.cores for pool in pools) * 3600


def share_divisible(
    pools: list[Pool], work_h: float, data_bytes: float, max_rounds: int | None = None
) -> list[tuple[Problem, Outcome, Shares]]:
    """Return each policy's shares, as a problem of one part a node, and what becomes of the parts.

    ``rho`` is how long a node is busy over how long it would be if all were busy to the end.

    Raises:
        InputError, InfeasibleError: as :func:`hpcplan.partition.allocate.share_work`.
    """
    found: list[tuple[Problem, Outcome, Shares]] = []
    names: dict[str, Policy] = {
        "equal": "equal", "priority": "priority", "proportional": "proportional", "optimal": "optimal"
    }  # fmt: skip
    for shares in compare_policies(pools, work_h, data_bytes, max_rounds=max_rounds):
        parts = [(p.name, hours * 3600) for p, hours in zip(pools, shares.finish_h, strict=True) if hours > 0]
        jobs = tuple(Job(name, (Option(name, 1, run_s),)) for name, run_s in parts)
        problem = Problem({pool.name: 1 for pool in pools}, jobs)
        plan = [Placed(j, job.options[0], 0.0) for j, job in enumerate(jobs)]
        runs = carry_out(problem, plan, [1.0] * len(jobs))
        outcome = outcome_of(problem, names[shares.policy], "static", runs, "makespan")
        rho = tuple(run.end_s / _balanced_s(pools, work_h) for run in runs)
        fairness = Fairness(rho, jain(rho))
        found.append((problem, replace(outcome, fairness=fairness), shares))
    return found
