"""The whole space, every sharding priced by itself, and which rule drops which: what the search is held against."""

from __future__ import annotations

import dataclasses

import numpy as np

from hpcplan.cost.memory import held_parameters, host_bytes
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import FULL, NONE, Floats, Ints, Shardings
from hpcplan.cost.step import Costs, gradient_exchange
from hpcplan.partition.families import Family
from hpcplan.partition.kinds import Kind
from hpcplan.partition.prune import Mask
from hpcplan.workload import Workload

__all__ = ["fitting", "larger_groups", "rules", "smaller_groups"]


def fitting(workload: Workload, kind: Kind, s: Shardings, costs: Costs) -> tuple[Mask, Mask]:
    """Return which shardings fit the accelerators, and which the nodes' main memory."""
    headroom = workload.request.memory_headroom
    on_host = host_bytes(Shape.of(workload.model), kind.machine, s, kind.recipe)
    return costs.memory_bytes <= kind.free_bytes(headroom), on_host <= kind.free_host_bytes(headroom)


def larger_groups(s: Shardings, values: Floats) -> Floats:
    """Return the least value of those that are the same but for a larger group, infinite where there are none."""
    code = np.zeros(len(s), dtype=np.int64)
    for field in dataclasses.fields(Shardings):
        if field.name != "shard_group":
            _, place = np.unique(getattr(s, field.name), return_inverse=True)
            code = code * (int(place.max()) + 1) + place.ravel()
    order = np.lexsort((-s.shards, code))
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    counts = np.diff(np.append(starts, len(s)))
    line, column = np.repeat(np.arange(len(starts)), counts), np.arange(len(s)) - np.repeat(starts, counts)
    table = np.full((len(starts), int(counts.max()) + 1), np.inf)
    table[line, column + 1] = values[order]
    least = np.empty(len(s))
    least[order] = np.minimum.accumulate(table, axis=1)[line, column]
    return least


def smaller_groups(workload: Workload, kind: Kind, s: Shardings) -> Mask:
    """Return which shardings are the same as another with a larger group, which exchanges data no longer."""
    once = dataclasses.replace(s, micro_batches=np.ones_like(s.tp))
    held = held_parameters(Shape.of(workload.model), once, kind.recipe)
    beside, after = gradient_exchange(kind.machine, kind.coefficients, once, held, kind.recipe)
    return np.asarray(beside + after >= larger_groups(s, beside + after))


def rules(workload: Workload, kind: Kind, family: Family, costs: Costs) -> dict[str, int]:
    """Return how many shardings of the enumerated space each rule drops, in the order in which they are asked."""
    s = family.shardings
    fits, fits_host = fitting(workload, kind, s, costs)
    alive = np.ones(len(s), dtype=np.bool_)
    dropped: dict[str, int] = {"levers": 0}

    def drop(name: str, which: Mask) -> None:
        nonlocal alive
        dropped[name] = dropped.get(name, 0) + int((alive & which).sum())
        alive = alive & ~which

    drop("groups", smaller_groups(workload, kind, s))
    plain = (s.recompute == NONE) & (s.offload == 0)
    alone = np.zeros(int(family.base[-1]) + 1, dtype=np.bool_)
    alone[family.base[plain & fits]] = True
    drop("levers", alone[family.base] & ~plain)
    drop("memory", ~fits)
    drop("host_memory", ~fits_host)
    drop("levers", _beaten(family.base, s, alive))
    return dropped


def _beaten(base: Ints, s: Shardings, alive: Mask) -> Mask:
    """Return which rows have more of a lever than another of their base that is alive, one pair at a time."""
    beaten = np.zeros(len(s), dtype=np.bool_)
    rows = np.flatnonzero(alive)
    for start, end in zip(*_runs(base[rows]), strict=True):
        levers = [(int(s.recompute[i]), int(s.spared_layers[i]), int(s.offload[i])) for i in rows[start:end]]
        for i, mine in zip(rows[start:end].tolist(), levers, strict=True):
            beaten[i] = any(_less(other, mine) for other in levers)
    return beaten


def _less(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    """Whether a recomputes and offloads no more than b, as far as that can be said, and not the same."""
    (again, layers, where), (more, others, there) = a, b
    if a == b or where > there:
        return False
    if again == NONE or (more == FULL and others == 0):
        return True
    if again == more == FULL and layers and others:
        return layers < others and where == there
    return again == more and layers == others == 0


def _runs(values: Ints) -> tuple[list[int], list[int]]:
    starts = np.flatnonzero(np.diff(values, prepend=-1)).tolist()
    return starts, [*starts[1:], len(values)]
