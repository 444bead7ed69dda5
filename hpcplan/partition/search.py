"""The search: price every sharding on every number of nodes that is allowed, drop what cannot be had, take the best.

Exhaustive over :mod:`hpcplan.partition.candidates`; deterministic: ties go to fewer nodes, then to the sharding that is
enumerated first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine, machine_of
from hpcplan.cost.money import energy_kwh, money
from hpcplan.cost.recipe import Recipe, recipe_of
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import RECOMPUTE, Floats, Ints, Shardings
from hpcplan.cost.step import Costs, price
from hpcplan.errors import InfeasibleError, InputError
from hpcplan.partition.candidates import Space, enumerate_shardings
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.units import format_bytes, format_duration
from hpcplan.workload.model import Workload

__all__ = ["Candidates", "Objective", "Outcome", "describe", "search"]

Objective = Literal["step", "train", "cost", "energy"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Priced shardings on different numbers of nodes; arrays of shape (candidates,)."""

    shardings: Shardings
    nodes: Ints
    step_s: Floats
    memory_bytes: Floats
    node_hours: Floats  # of the whole training


@dataclass(frozen=True, slots=True)
class Outcome:
    """The search's answer: the best first, then the best of each other kind, and what was dropped by which rule."""

    machine: Machine
    best: Shardings
    nodes: Ints
    costs: Costs
    candidates: int
    feasible: int
    pruned: dict[str, int]
    objective: Objective
    seconds: float


def search(
    workload: Workload,
    site: Site,
    topology: Topology,
    group: str,
    coefficients: Coefficients,
    *,
    nodes: tuple[int, int],
    objective: Objective = "step",
    fixed: Mapping[str, int] | None = None,
    keep: int = 8,
) -> Outcome:
    """Return the best shardings of a workload on ``nodes`` (least, most) nodes of a group.

    Raises:
        InputError: more nodes than the group has, or an objective that the site has no figures for.
        InfeasibleError: nothing runs, fits or meets the deadline and budget; the message names the rule that binds.
    """
    began = time.perf_counter()
    machine = machine_of(site, topology, group, workload.training.precision)
    recipe = recipe_of(workload.training, accelerator_of(site, group), site.storage)
    most = min(nodes[1], machine.nodes)
    if nodes[0] > machine.nodes:
        raise InputError(f"{nodes[0]} nodes were asked for; group {group!r} of site {site.name!r} has {machine.nodes}")
    priced = _price_all(workload, machine, coefficients, range(nodes[0], most + 1), fixed or {}, recipe)
    if len(priced.shardings) == 0:
        raise InfeasibleError(_nothing_divides(workload, machine, nodes[0], most, fixed or {}))
    alive, pruned = _prune(workload, site, group, machine, priced)
    if not alive.any():
        raise InfeasibleError(_binding(workload, site, group, machine, priced, pruned))
    value = _objective(objective, site, group, machine, priced)
    chosen = _leaders(priced, value, alive, keep)
    best = priced.shardings.take(chosen)
    run = workload.training
    costs = price(
        Shape.of(workload.model), run.sequence_length, run.global_batch, machine, coefficients, best, recipe
    )  # once more, with every term, for the few that are shown
    return Outcome(
        machine=machine,
        best=best,
        nodes=priced.nodes[chosen],
        costs=costs,
        candidates=len(priced.shardings),
        feasible=int(alive.sum()),
        pruned=pruned,
        objective=objective,
        seconds=time.perf_counter() - began,
    )


def _price_all(
    workload: Workload,
    machine: Machine,
    coefficients: Coefficients,
    node_counts: range,
    fixed: Mapping[str, int],
    recipe: Recipe,
) -> Candidates:
    run = workload.training
    parts: list[Shardings] = []
    for count in node_counts:
        space = Space(
            shape=workload.model,
            sequence=run.sequence_length,
            global_batch=run.global_batch,
            gpus=count * int(machine.gpus_per_node),
            gpus_per_domain=int(machine.gpus_per_domain),
            framework=workload.request.framework,
            fixed=fixed,
        )
        parts.append(enumerate_shardings(space))
    shardings = Shardings.concatenate(parts)
    shape = Shape.of(workload.model)
    costs = price(shape, run.sequence_length, run.global_batch, machine, coefficients, shardings, recipe)
    nodes = shardings.gpus // int(machine.gpus_per_node)
    hours = costs.step_s * run.steps / 3600 * nodes
    return Candidates(shardings, nodes, costs.step_s, costs.memory_bytes, hours)


def _limit_bytes(workload: Workload, machine: Machine) -> float:
    return float(machine.memory_bytes) * (1 - workload.request.memory_headroom)


def _prune(
    workload: Workload, site: Site, group: str, machine: Machine, priced: Candidates
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Return which candidates are left, and how many each rule dropped, in this order."""
    request = workload.request
    rules = {"memory": priced.memory_bytes <= _limit_bytes(workload, machine)}
    if request.deadline_s is not None:
        rules["deadline"] = priced.step_s * workload.training.steps <= request.deadline_s
    if request.budget is not None:
        a_node_hour = money(site, group, 1.0)
        if a_node_hour is None:
            raise InputError(f"a budget is given, but site {site.name!r} has no price for node group {group!r}")
        rules["budget"] = priced.node_hours * a_node_hour <= request.budget
    alive = np.ones(len(priced.shardings), dtype=np.bool_)
    pruned: dict[str, int] = {}
    for name, passes in rules.items():
        pruned[name] = int((alive & ~passes).sum())
        alive &= passes
    return alive, pruned


def _objective(objective: Objective, site: Site, group: str, machine: Machine, priced: Candidates) -> Floats:
    """Return what is minimised. With one global batch, time to train is the step time times a constant."""
    if objective in ("step", "train"):
        return priced.step_s
    each = money(site, group, 1.0) if objective == "cost" else energy_kwh(site, group, 1.0)
    if each is None:
        what = "price" if objective == "cost" else "power"
        raise InputError(f"site {site.name!r} has no {what} for node group {group!r}; choose another objective")
    return priced.node_hours * each


def _leaders(priced: Candidates, value: Floats, alive: NDArray[np.bool_], keep: int) -> Ints:
    """Return the best candidate, then the best of every other (nodes, tp, pp, cp, ep)."""
    index = np.flatnonzero(alive)
    order = index[np.lexsort((priced.nodes[index], value[index]))]
    seen: set[tuple[int, ...]] = set()
    chosen: list[int] = []
    s = priced.shardings
    for i in order[:20_000]:
        kind = (int(priced.nodes[i]), int(s.tp[i]), int(s.pp[i]), int(s.cp[i]), int(s.ep[i]))
        if kind not in seen:
            seen.add(kind)
            chosen.append(int(i))
            if len(chosen) == keep:
                break
    return np.array(chosen, dtype=np.int64)


def describe(s: Shardings, i: int) -> str:
    """Return ``tp 8, pp 4, dp 2, micro-batch 1, recompute full`` for one sharding."""
    words = [f"tp {s.tp[i]}", f"pp {s.pp[i]}"]
    words += [f"vpp {s.vpp[i]}"] if s.vpp[i] > 1 else []
    words += [f"cp {s.cp[i]}"] if s.cp[i] > 1 else []
    words += [f"ep {s.ep[i]}"] if s.ep[i] > 1 else []
    words += [f"dp {s.dp[i]}", f"micro-batch {s.micro_batch[i]}", f"ZeRO {s.zero[i]}"]
    return ", ".join([*words, f"recompute {RECOMPUTE[s.recompute[i]]}"])


def _nothing_divides(workload: Workload, machine: Machine, least: int, most: int, fixed: Mapping[str, int]) -> str:
    run, shape = workload.training, workload.model
    span = f"{least} nodes" if least == most else f"{least} to {most} nodes"
    what = f" with {', '.join(f'{k}={v}' for k, v in fixed.items())}" if fixed else ""
    return (
        f"no sharding of {workload.name!r} divides evenly on {span} of {machine.gpus_per_node} accelerators{what}: "
        f"the batch is {run.global_batch} sequences, the model has {shape.layers} layers and {shape.heads} heads"
    )


def _binding(
    workload: Workload, site: Site, group: str, machine: Machine, priced: Candidates, pruned: Mapping[str, int]
) -> str:
    """Return the message for when rules leave nothing: the first rule that no candidate passes, and by how much."""
    limit = _limit_bytes(workload, machine)
    fits = priced.memory_bytes <= limit
    if not fits.any():
        i = int(np.argmin(priced.memory_bytes))
        short = priced.memory_bytes[i] - limit
        return (
            f"memory binds: of {len(priced.shardings):,} shardings none fits. The smallest "
            f"({describe(priced.shardings, i)}, on {priced.nodes[i]} nodes) needs "
            f"{format_bytes(priced.memory_bytes[i])} on its fullest accelerator, {format_bytes(short)} more than the "
            f"{format_bytes(limit)} that are free; allow more nodes, or a smaller memory_headroom"
        )
    times = np.where(fits, priced.step_s, np.inf) * workload.training.steps
    deadline = workload.request.deadline_s
    if deadline is not None and not (times <= deadline).any():
        i = int(np.argmin(times))
        return (
            f"the deadline binds: the fastest sharding that fits ({describe(priced.shardings, i)}, on "
            f"{priced.nodes[i]} nodes) trains for {format_duration(times[i])}, but the deadline is "
            f"{format_duration(deadline)}; allow more nodes, fewer tokens, or more time"
        )
    each = money(site, group, 1.0) or 0.0
    allowed = fits & (times <= (deadline if deadline is not None else np.inf))
    prices = np.where(allowed, priced.node_hours * each, np.inf)
    i = int(np.argmin(prices))
    return (
        f"the budget binds: the cheapest sharding that fits ({describe(priced.shardings, i)}, on "
        f"{priced.nodes[i]} nodes) costs {prices[i]:,.0f} {site.prices.currency}, "
        f"but the budget is {workload.request.budget:,.0f}"
    )
