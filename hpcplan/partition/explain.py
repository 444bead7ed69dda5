"""Saying in words why one sharding beats another: the terms that differ most."""

from __future__ import annotations

import dataclasses

from hpcplan.cost.memory import Memory
from hpcplan.cost.shardings import DEVICE
from hpcplan.cost.step import Costs, StepTime
from hpcplan.partition.found import describe, node_count
from hpcplan.partition.search import Outcome
from hpcplan.units import format_duration

__all__ = ["TERMS", "why_it_lost", "why_it_won"]

_WITHIN_ERROR = 0.02  # of the step time; well inside the interval of any prediction

TERMS = {
    "compute": "arithmetic",
    "recompute": "recomputation",
    "tensor_parallel": "tensor-parallel traffic",
    "context_parallel": "context-parallel traffic",
    "expert_parallel": "expert-parallel traffic",
    "pipeline_bubble": "pipeline bubble",
    "pipeline_transfer": "stage-to-stage transfers",
    "data_parallel": "gradient traffic",
    "optimizer": "optimizer step",
    "overhead": "fixed overhead",
    "data_loading": "reading data",
}
assert set(TERMS) == {field.name for field in dataclasses.fields(StepTime)}
MEMORY_TERMS = tuple(field.name for field in dataclasses.fields(Memory))


def _terms(costs: Costs, i: int) -> dict[str, float]:
    return {name: float(getattr(costs.time, name)[i]) for name in TERMS}


def why_it_lost(outcome: Outcome, i: int) -> str:
    """Return how much slower candidate ``i`` is than the winner, and the one or two terms that make it so."""
    best, other = _terms(outcome.costs, 0), _terms(outcome.costs, i)
    more = sorted(((other[name] - best[name], name) for name in TERMS), reverse=True)[:2]
    reasons = [f"+{format_duration(extra)} {TERMS[name]}" for extra, name in more if extra > 0.002 * sum(best.values())]
    difference = sum(other.values()) / sum(best.values()) - 1
    if outcome.kind[i] != outcome.kind[0]:
        kind = outcome.kinds[int(outcome.kind[i])]
        return f"{difference:+.1%} step, on {kind.group} in {kind.precision}"
    if outcome.nodes[i] != outcome.nodes[0]:
        per_node = sum(other.values()) * float(outcome.nodes[i]) / (sum(best.values()) * float(outcome.nodes[0])) - 1
        return f"{difference:+.1%} step, {per_node:+.1%} node-hours" + (": " + ", ".join(reasons) if reasons else "")
    return f"{difference:+.1%}" + (": " + ", ".join(reasons) if reasons else "")


def why_it_won(outcome: Outcome) -> str:
    """Return, in a sentence, what the winner is best at and what the runner-up pays that it does not."""
    aim = {"step": "the shortest step", "train": "the shortest training", "cost": "the lowest cost"}
    first = f"{aim.get(outcome.objective, 'the least energy')} of {outcome.feasible:,} shardings that fit"
    if len(outcome.best) == 1:
        return first + "; no other kind fits"
    best, other = _terms(outcome.costs, 0), _terms(outcome.costs, 1)
    saved, name = max((other[term] - best[term], term) for term in TERMS)
    paid, price = max((best[term] - other[term], term) for term in TERMS)
    second = f"the runner-up ({describe(outcome.best, 1)}, on {node_count(outcome.nodes[1])})"
    sentence = f"{first}; {second} spends {format_duration(max(saved, 0.0))} more a step on {TERMS[name]}"
    if paid > 0:
        sentence += f" and {format_duration(paid)} less on {TERMS[price]}"
    return sentence + _simpler(outcome)


def _simpler(outcome: Outcome) -> str:
    """Return which of those shown does without the winner's offload and is as fast, as far as the model can tell."""
    s, step_s = outcome.best, outcome.costs.step_s
    near = [
        i
        for i in range(1, len(s))
        if s.offload[0] != DEVICE == s.offload[i]
        and outcome.nodes[i] == outcome.nodes[0]
        and outcome.kind[i] == outcome.kind[0]
        and step_s[i] <= step_s[0] * (1 + _WITHIN_ERROR)
    ]
    if not near:
        return ""
    more = step_s[near[0]] / step_s[0] - 1
    which = "it" if near[0] == 1 else describe(s, near[0])
    return (
        f"; {which} does without offload and takes {more:.1%} more, which the model cannot tell apart: "
        "the simpler run, with --fix offload=none"
    )
