"""Equal shares, shares by priority, shares by work: the textbook's numbers."""

from __future__ import annotations

import pytest
from hypothesis import given

from hpcplan.partition.allocate import Pool
from hpcplan.schedule.sharing.divisible import share_divisible
from hpcplan.schedule.sharing.problem import Job, Option, Problem
from hpcplan.schedule.sharing.rules import RULES, claims_of, share_nodes
from tests.schedule.sharing.problems import problems

THREE_NODES = [Pool("node1", 8, 16e9, 3), Pool("node2", 8, 16e9, 2), Pool("node3", 4, 8e9, 1)]


def _job(name: str, priority: float, work: float, most: int) -> Job:
    options = tuple(Option("p", n, work / n) for n in range(1, most + 1))
    return Job(name, options, priority=priority)


def test_three_workloads_share_twenty_nodes_as_three_textbook_nodes_share_work() -> None:
    """The same claims as there: equal thirds, 3 : 2 : 1, and 8 : 8 : 4."""
    jobs = [_job("a", 3, 800, 20), _job("b", 2, 800, 20), _job("c", 1, 400, 20)]
    assert claims_of("equal", jobs) == pytest.approx([1 / 3] * 3)
    assert claims_of("priority", jobs) == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert claims_of("proportional", jobs) == pytest.approx([0.4, 0.4, 0.2])
    nodes = {rule: [option.nodes for option in share_nodes(rule, {"p": 20}, jobs)] for rule in RULES}
    assert nodes == {"equal": [7, 7, 6], "priority": [10, 7, 3], "proportional": [8, 8, 4]}


def test_the_textbook_case_is_reproduced_by_the_simulator() -> None:
    found = {outcome.policy: outcome for _, outcome, _ in share_divisible(THREE_NODES, 1000.0, 100e9)}
    hours = {policy: round(outcome.makespan_s / 3600, 2) for policy, outcome in found.items()}
    assert hours == {"equal": 83.33, "priority": 62.5, "proportional": 50.0, "optimal": 50.0}
    assert found["equal"].fairness.jain < found["proportional"].fairness.jain == pytest.approx(1.0)
    assert found["optimal"].used == pytest.approx(1.0)


def test_what_is_left_to_do_counts_for_proportional_shares() -> None:
    jobs = [_job("a", 1, 800, 20), _job("b", 1, 800, 20)]
    assert claims_of("proportional", jobs, [1.0, 0.25]) == pytest.approx([0.8, 0.2])


@given(problems(most_jobs=4, limits=False))
def test_shares_fit_their_pool_wherever_everybody_has_more_than_the_least(problem: Problem) -> None:
    for rule in RULES:
        options = share_nodes(rule, problem.pools, problem.jobs)
        for pool, nodes in problem.pools.items():
            mine = [(job, option) for job, option in zip(problem.jobs, options, strict=True) if option.pool == pool]
            at_least = any(option is job.at(pool)[0] for job, option in mine)
            assert sum(option.nodes for _, option in mine) <= nodes or at_least
            assert all(option in job.options for job, option in mine)
