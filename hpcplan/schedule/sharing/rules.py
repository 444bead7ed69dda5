"""The usual rules of sharing: every workload the same, by priority, or in proportion to its work.

A rule gives each workload a claim. It takes its share on one pool: of the claims there, its own over all of them, of
the pool's nodes. Shares are whole numbers of nodes that the workload can use; what rounding leaves goes to whom it took
most from (largest remainders).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from hpcplan.schedule.sharing.problem import Job, Option

__all__ = ["RULES", "Rule", "claims_of", "share_nodes"]

Rule = Literal["equal", "priority", "proportional"]
RULES: tuple[Rule, ...] = get_args(Rule)


def claims_of(rule: Rule, jobs: Sequence[Job], remaining: Sequence[float] | None = None) -> list[float]:
    """Return each workload's claim, all together 1.

    Args:
        rule: ``equal``, by ``priority``, or ``proportional`` to the node-seconds that are left.
        jobs: the workloads.
        remaining: the share of each that is left to do; all if absent.
    """
    left = remaining or [1.0] * len(jobs)
    if rule == "equal":
        found = [1.0 for _ in jobs]
    elif rule == "priority":
        found = [job.priority for job in jobs]
    else:
        found = [job.work_node_s * share for job, share in zip(jobs, left, strict=True)]
    total = sum(found) or 1.0
    return [claim / total for claim in found]


def share_nodes(
    rule: Rule, pools: Mapping[str, int], jobs: Sequence[Job], remaining: Sequence[float] | None = None
) -> list[Option]:
    """Return each workload's option under a rule.

    Workloads choose their pool in the order of their claims: the one on which their share, with those who chose
    before, ends soonest. A share below the fewest nodes on which a workload runs is rounded up to those: then not all
    run at the same time, and the last wait.
    """
    claims = claims_of(rule, jobs, remaining)
    load = dict.fromkeys(pools, 0.0)
    chosen: dict[int, str] = {}
    for index in sorted(range(len(jobs)), key=lambda i: (-claims[i], i)):
        claim, job = claims[index], jobs[index]
        usable = {option.pool for option in job.options}

        def ends(pool: str, job: Job = job, claim: float = claim) -> float:
            share = pools[pool] * claim / (load[pool] + claim)
            option = _at_most(job.at(pool), share)
            return option.run_s * max(1.0, option.nodes / share)  # below the smallest option, nodes take turns

        pool = min((name for name in pools if name in usable), key=ends)
        chosen[index] = pool
        load[pool] += claim
    result: dict[int, Option] = {}
    for pool, nodes in pools.items():
        members = [index for index in range(len(jobs)) if chosen[index] == pool]
        shares = {index: nodes * claims[index] / load[pool] for index in members if load[pool]}
        result |= _rounded(nodes, {index: (jobs[index].at(pool), share) for index, share in shares.items()})
    return [result[index] for index in range(len(jobs))]


def _at_most(options: Sequence[Option], share: float) -> Option:
    """Return the largest option within a share, or the smallest there is."""
    within = [option for option in options if option.nodes <= share * (1 + 1e-9)]
    return within[-1] if within else options[0]


def _rounded(nodes: int, shares: Mapping[int, tuple[Sequence[Option], float]]) -> dict[int, Option]:
    result = {index: _at_most(options, share) for index, (options, share) in shares.items()}
    spare = nodes - sum(option.nodes for option in result.values())
    for index in sorted(shares, key=lambda i: (result[i].nodes - shares[i][1], i)):
        options = shares[index][0]
        larger = [option for option in options if option.nodes > result[index].nodes]
        step = larger[0].nodes - result[index].nodes if larger else spare + 1
        if result[index].nodes < shares[index][1] and step <= spare:
            result[index] = larger[0]
            spare -= step
    return result
