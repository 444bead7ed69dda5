"""What becomes of the workloads under each policy: nodes are never given twice, all work is done, restarts count."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.schedule.sharing.compare import POLICIES, Policy, compare, factors_of
from hpcplan.schedule.sharing.fairness import fairness_of, jain
from hpcplan.schedule.sharing.nodes import node_numbers
from hpcplan.schedule.sharing.problem import Job, Option, Problem
from hpcplan.schedule.sharing.simulate import MODES, Mode, Piece, Run
from tests.schedule.sharing.problems import capacity_kept, problems


@settings(max_examples=40)
@given(
    problem=problems(limits=False), policy=st.sampled_from(POLICIES[:3]), mode=st.sampled_from(MODES),
    spread=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 5),
)  # fmt: skip
def test_nodes_are_given_once_and_all_work_is_done(
    problem: Problem, policy: Policy, mode: Mode, spread: float, seed: int
) -> None:
    (outcome,) = compare(problem, [policy], "makespan", mode, spread=spread, seed=seed)
    factors = factors_of(problem, spread, seed)
    taken = []
    for run in outcome.runs:
        job = problem.jobs[run.job]
        assert run.start_s >= job.arrival_s
        restarts = (len(run.pieces) - 1) * job.restart_s
        assert restarts == 0 or mode == "elastic"
        rates = [(piece.end_s - piece.start_s - (job.restart_s if i else 0.0)) / piece.option.run_s
                 for i, piece in enumerate(run.pieces)]  # fmt: skip
        assert sum(rates) == pytest.approx(factors[run.job], rel=1e-4)
        assert all(a.end_s == pytest.approx(b.start_s) for a, b in zip(run.pieces, run.pieces[1:], strict=False))
        taken += [(p.option.pool, p.option.nodes, p.start_s, p.end_s) for p in run.pieces]
    assert len(outcome.runs) == len(problem.jobs)
    assert capacity_kept(problem, taken)
    for (job_index, place), numbers in node_numbers(problem, outcome.runs).items():
        run = next(run for run in outcome.runs if run.job == job_index)
        assert len(set(numbers)) == run.pieces[place].option.nodes


@settings(max_examples=15)
@given(problem=problems(most_jobs=3, limits=False), mode=st.sampled_from(MODES))
def test_the_optimum_simulates_in_every_mode(problem: Problem, mode: Mode) -> None:
    (outcome,) = compare(problem, ["optimal"], "makespan", mode, time_limit_s=20)
    taken = [(p.option.pool, p.option.nodes, p.start_s, p.end_s) for run in outcome.runs for p in run.pieces]
    assert capacity_kept(problem, taken)
    assert len(outcome.runs) == len(problem.jobs)
    if mode == "static":
        assert outcome.solution is not None
        assert outcome.value == pytest.approx(outcome.solution.value)
        others = compare(problem, POLICIES[:3], "makespan")
        assert all(outcome.value <= other.value * (1 + 1e-9) for other in others)


def _line(name: str, work: float, most: int, **more: float) -> Job:
    return Job(name, tuple(Option("p", n, work / n) for n in range(1, most + 1)), restart_s=10.0,
               checkpoint_s=100.0, **more)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_budgets_and_the_horizon_hold_at_every_decision(mode: Mode) -> None:
    cheap, fast = Option("p", 1, 100.0, 10.0), Option("p", 2, 60.0, 30.0)
    jobs = tuple(Job(f"j{k}", (cheap, fast), budget=20.0 if k else None, deadline_s=500.0)
                 for k in range(3))  # fmt: skip
    (outcome,) = compare(Problem({"p": 4}, jobs, budget=40.0), ["optimal"], "throughput", mode, time_limit_s=10)
    assert outcome.cost is not None
    assert outcome.cost <= 40.0 + 1e-6
    assert outcome.missed == ()
    assert outcome.value == pytest.approx(3 / (500 / 86400))


def test_what_runs_grows_at_its_next_checkpoint_and_pays_the_restart() -> None:
    problem = Problem({"p": 4}, (_line("long", 4000, 4), _line("short", 500, 4)))
    (dynamic,) = compare(problem, ["equal"], "makespan", "dynamic")
    (elastic,) = compare(problem, ["equal"], "makespan", "elastic")
    assert dynamic.makespan_s == pytest.approx(2000)
    long = elastic.runs[0]
    assert [piece.option.nodes for piece in long.pieces] == [2, 4]
    assert long.pieces[0].end_s == pytest.approx(300)  # short ends at 250, the next checkpoint is at 300
    assert long.end_s == pytest.approx(300 + 10 + (4000 - 2 * 300) / 4)


def test_what_runs_shrinks_for_what_arrives() -> None:
    problem = Problem({"p": 4}, (_line("first", 4000, 4), _line("second", 800, 4, arrival_s=150)))
    (elastic,) = compare(problem, ["equal"], "makespan", "elastic")
    first, second = elastic.runs
    assert [piece.option.nodes for piece in first.pieces][:2] == [4, 2]
    assert first.pieces[0].end_s == pytest.approx(200)
    assert second.start_s == pytest.approx(200)
    (dynamic,) = compare(problem, ["equal"], "makespan", "dynamic")
    assert dynamic.runs[1].start_s == pytest.approx(1000)


def test_finish_time_fairness_is_one_where_sharing_changes_nothing() -> None:
    """Two equal workloads on half of the nodes each, as if each had half of the site alone."""
    problem = Problem({"p": 4}, (_line("a", 400, 4), _line("b", 400, 4)))
    (outcome,) = compare(problem, ["equal"], "makespan")
    assert outcome.fairness.rho == pytest.approx((1.0, 1.0))
    assert outcome.fairness.jain == pytest.approx(1.0)
    runs = [Run(0, [Piece(Option("p", 4, 100), 0, 100)]), Run(1, [Piece(Option("p", 4, 100), 100, 200)])]
    assert fairness_of(problem, runs).rho == pytest.approx((0.5, 1.0))


def test_jains_index_runs_from_one_to_an_nth() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
