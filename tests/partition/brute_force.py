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
    """Return the least value of those that are the same but for a larger group, infinite where there are none.

    Groups of weights that are kept once more, hpZ's, count as larger the larger they are, and none as largest.
    """
    if s.secondary_group.any():
        size = np.where(s.secondary_group > 0, s.secondary_group, s.dp * s.cp)
        return np.where(s.secondary_group > 0, _larger(s, values, "secondary_group", size), _first(s, values))
    return _larger(s, values, "shard_group", s.shards)


def _first(s: Shardings, values: Floats) -> Floats:
    """Return the same among those without weights that are kept once more."""
    rows = np.flatnonzero(s.secondary_group == 0)
    found = np.full(len(s), np.inf)
    found[rows] = _larger(s.take(rows), values[rows], "shard_group", s.take(rows).shards)
    return found


def _larger(s: Shardings, values: Floats, name: str, size: Ints) -> Floats:
    code = np.zeros(len(s), dtype=np.int64)
    for field in dataclasses.fields(Shardings):
        if field.name != name:
            _, place = np.unique(getattr(s, field.name), return_inverse=True)
            code = code * (int(place.max()) + 1) + place.ravel()
    order = np.lexsort((-size, code))
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
    plain = (s.recompute == NONE) & (s.offload == 0) & (s.recompute_mlp == 0)
    alone = np.zeros(int(family.base[-1]) + 1, dtype=np.bool_)
    alone[family.base[plain & fits]] = True
    drop("levers", alone[family.base] & ~plain)
    fits, other = _in_blocks(family.base, s, costs.memory_bytes, fits)
    drop("memory", ~fits)
    drop("host_memory", ~fits_host)
    drop("levers", _beaten(family.base, s, alive, other))
    return dropped


def _in_blocks(base: Ints, s: Shardings, needed: Floats, fits: Mask) -> tuple[Mask, Mask]:
    """Return which rows fit with some size of blocks, and which have a better size beside them.

    Layers that are all recomputed have one checkpoint each where that fits, else blocks of the size that needs least.
    """
    fits, other = fits.copy(), np.zeros(len(s), dtype=np.bool_)
    rows = np.flatnonzero((s.recompute == FULL) & (s.spared_layers == 0))
    line = base[rows] * 4 + s.offload[rows]
    order = rows[np.argsort(line, kind="stable")]
    for start, end in zip(*_runs(np.sort(line)), strict=True):
        group = order[start:end]
        best = group[np.argmin(s.recompute_block[group])]
        if not fits[best]:
            best = group[np.lexsort((s.recompute_block[group], needed[group]))[0]]
        other[group] = group != best
        fits[group] = fits[best]
    return fits, other


def _beaten(base: Ints, s: Shardings, alive: Mask, other: Mask) -> Mask:
    """Return which rows have more of a lever than another of their base that is alive, one pair at a time."""
    beaten = other.copy()
    rows = np.flatnonzero(alive & ~other)
    columns = (s.recompute, s.spared_layers, s.offload, s.recompute_mlp)
    for start, end in zip(*_runs(base[rows]), strict=True):
        levers = [tuple(int(column[i]) for column in columns) for i in rows[start:end]]
        for i, mine in zip(rows[start:end].tolist(), levers, strict=True):
            beaten[i] = any(_less(another, mine) for another in levers)
    return beaten


def _less(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a recomputes and offloads no more than b, as far as that can be said, and not the same."""
    (again, layers, where, mlp), (more, others, there, also) = a, b
    if a == b or where > there:
        return False
    if (again == NONE and mlp == 0) or (more == FULL and others == 0):
        return True
    if again == more == FULL:
        return layers > 0 and layers < others and where == there
    return more != FULL and again <= more and mlp <= also


def _runs(values: Ints) -> tuple[list[int], list[int]]:
    starts = np.flatnonzero(np.diff(values, prepend=-1)).tolist()
    return starts, [*starts[1:], len(values)]
