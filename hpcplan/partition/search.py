"""The search: price every sharding on every number and kind of nodes, drop what cannot be had, take the best.

Exhaustive over :mod:`hpcplan.partition.candidates`; deterministic: ties go to fewer nodes, then to the sharding that is
enumerated first. Shardings pass through in blocks, and of each block only what may still be shown is kept, so that
memory does not grow with the space.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hpcplan.cost.machine import Machine
from hpcplan.cost.shardings import Ints, Shardings
from hpcplan.cost.step import Costs
from hpcplan.errors import InputError
from hpcplan.partition.found import Found
from hpcplan.partition.infeasible import nothing_divides, nothing_is_left
from hpcplan.partition.kinds import Kind
from hpcplan.partition.pricing import Block, blocks, memory_of, price_block, price_found
from hpcplan.partition.prune import needless_levers, tally, within
from hpcplan.workload.model import Workload

__all__ = ["Objective", "Outcome", "search"]

Objective = Literal["step", "train", "cost", "energy"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The search's answer: the best first, then the best of each other combination of degrees; and what was dropped.

    ``kind`` indexes ``kinds``; arrays are of shape (kept,). ``value`` is what the winner has of the objective.
    ``front`` are the shardings that no other beats in step time, cost, energy and nodes at once, by step time; ``None``
    unless asked for.
    """

    kinds: tuple[Kind, ...]
    best: Shardings
    kind: Ints
    nodes: Ints
    costs: Costs
    candidates: int
    feasible: int
    pruned: dict[str, int]
    objective: Objective
    seconds: float
    value: float
    front: Found | None = None

    @property
    def machine(self) -> Machine:
        """The winner's machine."""
        return self.winner.machine

    @property
    def winner(self) -> Kind:
        """The winner's kind of node."""
        return self.kinds[int(self.kind[0])]


@dataclass(slots=True)
class _Tally:
    """What is kept while blocks pass by."""

    candidates: int = 0
    feasible: int = 0
    pruned: dict[str, int] = field(default_factory=dict)
    leaders: list[Found] = field(default_factory=list)
    fronts: list[Found] = field(default_factory=list)


def search(
    workload: Workload,
    kinds: Sequence[Kind],
    *,
    nodes: tuple[int, int],
    objective: Objective = "step",
    fixed: Mapping[str, int] | None = None,
    keep: int = 8,
    pareto: bool = False,
) -> Outcome:
    """Return the best shardings of a workload on ``nodes`` (least, most) nodes of one kind or another.

    Args:
        workload: what is trained, and the limits: deadline, budget, memory headroom, framework.
        kinds: the kinds of node to choose from; a job runs on one.
        nodes: the least and the most.
        objective: what is made least.
        fixed: parts of the sharding that are given.
        keep: how many to return, the best of each combination of kind, nodes and degrees.
        pareto: whether to find what no other beats in every objective, too.

    Raises:
        InputError: more nodes than there are of any kind, or an objective that the site has no figures for.
        InfeasibleError: nothing runs, fits or meets the deadline and budget; the message names the rule that binds.
    """
    began = time.perf_counter()
    _check(workload, kinds, nodes, objective)
    seen = _Tally()
    for block in blocks(workload, kinds, nodes, fixed or {}, skim=True):
        _sift(workload, kinds, block, objective, keep, pareto, seen)
    if not seen.candidates:
        raise nothing_divides(workload, kinds, nodes, fixed or {})
    if not seen.feasible:
        raise nothing_is_left(workload, kinds, nodes, fixed or {})
    best = Found.concatenate(seen.leaders).leaders(objective, keep)
    front = Found.concatenate(seen.fronts).front() if pareto else None
    return Outcome(
        kinds=tuple(kinds),
        best=best.shardings,
        kind=best.kind,
        nodes=best.nodes,
        costs=price_found(workload, kinds, best),
        candidates=seen.candidates,
        feasible=seen.feasible,
        pruned=seen.pruned,
        objective=objective,
        seconds=time.perf_counter() - began,
        value=float(best.value(objective)[0]),
        front=front,
    )


def _check(workload: Workload, kinds: Sequence[Kind], nodes: tuple[int, int], objective: Objective) -> None:
    most = max(kind.machine.nodes for kind in kinds)
    if nodes[0] > most:
        where = " or ".join(repr(kind.group) for kind in kinds)
        raise InputError(f"{nodes[0]} nodes were asked for; group {where} of site {kinds[0].site!r} has {most}")
    for kind in kinds:
        lacking = {
            "price": (objective == "cost" or workload.request.budget is not None) and kind.node_hour_price is None,
            "power": objective == "energy" and kind.node_hour_kwh is None,
        }
        for what, lacks in lacking.items():
            if lacks:
                why = "a budget is given, but " if objective != "cost" and what == "price" else ""
                hint = "" if why else "; choose another objective"
                raise InputError(f"{why}site {kind.site!r} has no {what} for node group {kind.group!r}{hint}")


def _add(pruned: dict[str, int], name: str, count: int) -> None:
    pruned[name] = pruned.get(name, 0) + count


def _sift(
    workload: Workload, kinds: Sequence[Kind], block: Block, objective: Objective, keep: int, pareto: bool, seen: _Tally
) -> None:
    """Drop what breaks a rule, price the rest, and keep the best."""
    kind, request = kinds[block.kind], workload.request
    family = block.family
    needed, fits, fits_host = memory_of(workload, kind, family.shardings)
    seen.candidates += family.candidates
    _add(seen.pruned, "groups", family.grouped)
    _add(seen.pruned, "memory", family.skipped + int(family.fewer.sum()))
    alive = tally(np.ones(len(block), dtype=np.bool_), seen.pruned, "memory", fits, family.more)
    alive = tally(alive, seen.pruned, "host_memory", fits_host, family.more)
    index = np.flatnonzero(alive)
    _add(seen.pruned, "levers", int(family.more[index].sum()))
    correction = kind.correction(workload, block.family.shardings.take(index))
    alive = tally(alive, seen.pruned, "levers", ~needless_levers(block.family, alive, correction))
    index = np.flatnonzero(alive)
    found = price_block(workload, kind, block.kind, block.family.shardings.take(index), needed[index])
    alive = np.ones(len(index), dtype=np.bool_)
    if request.deadline_s is not None:
        alive = tally(alive, seen.pruned, "deadline", within(found.train_s, request.deadline_s))
    if request.budget is not None:
        alive = tally(alive, seen.pruned, "budget", within(found.cost, request.budget))
    found = found.take(np.flatnonzero(alive))
    seen.feasible += len(found)
    if len(found):
        seen.leaders.append(found.leaders(objective, keep))
        if pareto:
            seen.fronts.append(found.front())
