"""Each policy's outcome, simulated, beside the others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from hpcplan.schedule.sharing.fairness import Fairness, fairness_of
from hpcplan.schedule.sharing.improve import improve
from hpcplan.schedule.sharing.optimum import Solution, solve
from hpcplan.schedule.sharing.order import place_in_order
from hpcplan.schedule.sharing.problem import Objective, Option, Placed, Problem, horizon_of, value_of
from hpcplan.schedule.sharing.relax import usable_options
from hpcplan.schedule.sharing.rules import RULES, Rule, share_nodes
from hpcplan.schedule.sharing.simulate import Decide, Mode, Run, carry_out, simulate, used_node_s

__all__ = ["POLICIES", "Outcome", "Policy", "compare", "factors_of", "outcome_of"]

Policy = Literal["equal", "priority", "proportional", "optimal"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
_FEW = 6  # so many workloads are solved to a proof again at each event
_QUICK_STEPS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy comes to.

    ``value`` is the objective's, of what was simulated; ``missed`` are the workloads that end after their deadline or
    cost more than their budget. ``solution`` is the optimum's, with its bound. ``used`` is the share of all nodes' time
    until the last end that was worked.
    """

    policy: Policy
    mode: Mode
    runs: tuple[Run, ...]
    value: float
    makespan_s: float
    weighted_completion_s: float
    cost: float | None
    energy_kwh: float | None
    missed: tuple[str, ...]
    fairness: Fairness
    used: float
    resizes: int
    solution: Solution | None = None


def factors_of(problem: Problem, spread: float, seed: int) -> list[float]:
    """Return how much longer than predicted each workload takes: log-normal around 1, ``spread`` of the logarithm."""
    chance = random.Random(seed)
    return [math.exp(chance.gauss(0.0, spread)) if spread else 1.0 for _ in problem.jobs]


def compare(
    problem: Problem,
    policies: Sequence[Policy],
    objective: Objective,
    mode: Mode = "static",
    *,
    spread: float = 0.0,
    seed: int = 0,
    time_limit_s: float = 30.0,
    on_policy: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Return each policy's outcome.

    Args:
        problem: workloads and pools.
        policies: which.
        objective: what the optimum makes least, and what is compared.
        mode: static, dynamic or elastic.
        spread: of the logarithm of real over predicted run times.
        seed: of those, and of the search.
        time_limit_s: of the optimum's integer programs.
        on_policy: called after each.
    """
    if objective == "throughput":  # the same for all decisions on the way, however few deadlines are left by then
        problem = replace(problem, horizon_s=horizon_of(problem))
    factors = factors_of(problem, spread, seed)
    found: list[Outcome] = []
    for policy in policies:
        solution: Solution | None = None
        if policy == "optimal" and mode != "elastic":  # what changes its nodes under way may beat the bound
            solution = solve(problem, objective, time_limit_s=time_limit_s, seed=seed)
        if mode == "static":
            plan = solution.placed if solution is not None else _plan_by_rule(problem, policy)
            runs = carry_out(problem, plan, factors)
        else:
            runs = simulate(problem, _decider(policy, objective, mode, time_limit_s, seed), mode, factors)
        found.append(replace(outcome_of(problem, policy, mode, runs, objective), solution=solution))
        on_policy()
    return found


def _plan_by_rule(problem: Problem, policy: Policy) -> list[Placed]:
    """Return the plan of a rule that is applied once: everybody's share, in the order of arrival and of priority."""
    options = share_nodes(_rule(policy), problem.pools, problem.jobs)
    jobs = problem.jobs
    order = sorted(range(len(jobs)), key=lambda j: (jobs[j].arrival_s, -jobs[j].priority, j))
    return place_in_order(problem, dict(enumerate(options)), order)


def _rule(policy: Policy) -> Rule:
    assert policy != "optimal"
    assert policy in RULES
    return policy


def _decider(policy: Policy, objective: Objective, mode: Mode, time_limit_s: float, seed: int) -> Decide:
    if policy == "optimal":
        return _Optimal(objective, time_limit_s, seed, elastic=mode == "elastic")
    return _ByRule(_rule(policy))


class _ByRule:
    """A rule, applied to whoever is there."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __call__(self, problem: Problem, remaining: Sequence[float], now_s: float) -> list[tuple[int, Option | None]]:
        jobs = problem.jobs
        options = share_nodes(self.rule, problem.pools, jobs, remaining)
        return [(j, options[j]) for j in sorted(range(len(jobs)), key=lambda j: (-jobs[j].priority, j))]


class _Optimal:
    """The optimum, solved again for whoever is there: to a proof for a few, by quick search for more."""

    def __init__(self, objective: Objective, time_limit_s: float, seed: int, *, elastic: bool) -> None:
        self.objective, self.time_limit_s, self.seed, self.elastic = objective, time_limit_s, seed, elastic

    def __call__(self, problem: Problem, remaining: Sequence[float], now_s: float) -> list[tuple[int, Option | None]]:
        running = [j for j, job in enumerate(problem.jobs) if job.fixed]
        if self.elastic:  # those may be changed; that they go on at once is seen to by their places in the order
            problem = replace(problem, jobs=tuple(replace(job, fixed=False) for job in problem.jobs))
        placed = self._placed(problem, running)
        order = sorted(placed, key=lambda each: (each.start_s, each.job))
        soon = {each.job for each in placed if each.start_s <= 1e-6} | set(running)
        return [(each.job, each.option if each.job in soon else None) for each in order]

    def _placed(self, problem: Problem, running: Sequence[int]) -> list[Placed]:
        if len(problem.jobs) <= _FEW:
            return solve(problem, self.objective, time_limit_s=min(10.0, self.time_limit_s), steps=_QUICK_STEPS).placed
        choices = [usable_options(job) or list(job.options) for job in problem.jobs]
        cheap = {j: min(each, key=lambda o: (o.nodes * o.run_s, o.run_s)) for j, each in enumerate(choices)}
        fast = {j: min(each, key=lambda o: (o.run_s, o.nodes)) for j, each in enumerate(choices)}
        jobs = problem.jobs
        starts: list[tuple[dict[int, Option], list[int]]] = []
        for options in (cheap, fast):
            for key in (
                lambda j, o=options: -o[j].run_s,
                lambda j, o=options: o[j].run_s * o[j].nodes / jobs[j].weight,
            ):
                rest = [j for j in range(len(jobs)) if j not in set(running)]
                starts.append((options, [*running, *sorted(rest, key=key)]))
        return improve(problem, starts, self.objective, steps=_QUICK_STEPS, seed=self.seed)


def outcome_of(problem: Problem, policy: Policy, mode: Mode, runs: Sequence[Run], objective: Objective) -> Outcome:
    """Return the figures of what became of the workloads."""
    ended = [Placed(run.job, run.pieces[-1].option, run.end_s - run.pieces[-1].option.run_s) for run in runs]
    makespan = max(run.end_s for run in runs)
    costs, energies = [run.cost() for run in runs], [run.energy_kwh() for run in runs]
    cost = None if None in costs else math.fsum(c for c in costs if c is not None)
    energy = None if None in energies else math.fsum(e for e in energies if e is not None)
    spent = {"cost": cost, "energy": energy}.get(objective)
    missed = []
    for run in runs:
        job, paid = problem.jobs[run.job], run.cost()
        late = job.deadline_s is not None and run.end_s > job.deadline_s * (1 + 1e-6)
        over = job.budget is not None and paid is not None and paid > job.budget * (1 + 1e-6)
        missed += [job.name] if late or over else []
    work = math.fsum(used_node_s(runs).values())
    return Outcome(
        policy=policy,
        mode=mode,
        runs=tuple(sorted(runs, key=lambda run: run.job)),
        value=value_of(problem, ended, objective) if spent is None else spent,
        makespan_s=makespan,
        weighted_completion_s=math.fsum(problem.jobs[run.job].weight * run.end_s for run in runs),
        cost=cost,
        energy_kwh=energy,
        missed=tuple(missed),
        fairness=fairness_of(problem, sorted(runs, key=lambda run: run.job)),
        used=work / (makespan * sum(problem.pools.values())),
        resizes=sum(run.resizes for run in runs),
    )
