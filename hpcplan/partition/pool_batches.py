"""Sharing the batch over unequal pools: every accelerator (or tensor-parallel group) is a replica of the whole model.

All replicas run as many micro-batches, so that collectives meet, but those of faster pools are larger. With m
micro-batches, sizes b_g and r_g replicas in pool g: m sum r_g b_g = batch. The step is that of the slowest pool; the
gradient exchange runs over the slowest link. Every m and all sizes are tried, so the result is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shardings import NONE, Floats, Ints, Shardings
from hpcplan.cost.step import Costs
from hpcplan.errors import InfeasibleError
from hpcplan.partition.candidates import divides_heads, divisors
from hpcplan.partition.explain import TERMS
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.pools import Member, PooledPlan
from hpcplan.workload.model import Workload

__all__ = ["fixed_shares", "share_batch"]


@dataclass(frozen=True, slots=True)
class _Way:
    """What all pools have in common."""

    tp: int
    ep: int
    zero: int
    recompute: int
    sequence_parallel: int
    micro_batches: int


@dataclass(frozen=True, slots=True)
class _Prices:
    """Of one pool: the step and the memory for micro-batches of 1, 2, ... sequences."""

    step_s: Floats
    fits: NDArray[np.bool_]
    costs: Costs


def _ways(workload: Workload, members: Sequence[Member]) -> Iterator[_Way]:
    can, shape, batch = capabilities(workload.request.framework), workload.model, workload.training.global_batch
    domain = gcd(*(int(member.kind.machine.gpus_per_domain) for member in members))
    for tp in divisors(domain) if "tp" in can.axes else [1]:
        replicas = sum(member.gpus // tp for member in members)
        sizes = [m for m in (divisors(batch) if can.accumulates else [1]) if batch // m >= replicas]
        zero = [z for z in can.zero if z or tp == 1 or not can.replicated_alone]
        split = can.sequence_parallel if tp > 1 else (0,)
        experts = divisors(gcd(replicas, shape.experts.count)) if shape.experts and "ep" in can.axes else [1]
        if not divides_heads(shape, tp):
            continue
        for m, z, again, sp, ep in product(sizes, zero, can.recompute, split, experts):
            if again == NONE or z >= can.recompute_from:
                yield _Way(tp, ep, z, again, sp, m)


def _prices(workload: Workload, members: Sequence[Member], way: _Way) -> list[_Prices]:
    replicas = [member.gpus // way.tp for member in members]
    round_size = workload.training.global_batch // way.micro_batches
    found: list[_Prices] = []
    for index, member in enumerate(members):
        most = (round_size - (sum(replicas) - replicas[index])) // replicas[index]
        s = Shardings.of(
            tp=way.tp, pp=1, ep=way.ep, dp=sum(replicas), micro_batch=[*range(1, max(1, most) + 1)],
            micro_batches=way.micro_batches, zero=way.zero, recompute=way.recompute,
            sequence_parallel=way.sequence_parallel,
        )  # fmt: skip
        costs = member.kind.price(workload, s)
        fits = costs.memory_bytes <= member.kind.free_bytes(workload.request.memory_headroom)
        found.append(_Prices(np.where(fits, costs.step_s, np.inf), fits, costs))
    return found


def share_batch(workload: Workload, members: Sequence[Member]) -> PooledPlan:
    """Return the shares of the batch with the shortest step.

    Raises:
        InfeasibleError: the whole model fits no way on every pool, or the batch cannot be shared.
    """
    best: tuple[float, _Way, Ints, list[_Prices]] | None = None
    bound = np.inf
    for way in _ways(workload, members):
        replicas = np.array([member.gpus // way.tp for member in members], dtype=np.int64)
        prices = _prices(workload, members, way)
        bound = min(bound, _bound(workload, way, replicas, prices))
        sizes = _best_sizes(workload.training.global_batch // way.micro_batches, replicas, prices)
        if sizes is not None:
            step = max(float(p.step_s[size - 1]) for p, size in zip(prices, sizes, strict=True))
            if best is None or step < best[0]:
                best = (step, way, sizes, prices)
    if best is None:
        raise InfeasibleError(
            "no way to share the batch over the pools: the model does not fit the smallest of them in "
            f"any sharding that {workload.request.framework} has, or {workload.training.global_batch} sequences a step "
            "are too few"
        )
    return _plan(members, best[1], [int(size) for size in best[2]], best[3], bound)


def fixed_shares(workload: Workload, plan: PooledPlan, weights: Sequence[float]) -> float | None:
    """Return the step (s) when sizes follow ``weights`` as nearly as can be, ``None`` if that does not fit."""
    members = plan.members
    way = _Way(plan.tp, plan.ep, plan.zero, plan.recompute, plan.sequence_parallel, plan.micro_batches)
    replicas = np.array([member.gpus // way.tp for member in members], dtype=np.int64)
    prices = _prices(workload, members, way)
    round_size = workload.training.global_batch // way.micro_batches
    ideal = np.array(weights) / np.dot(weights, replicas) * round_size
    nearest: tuple[float, float] | None = None
    for sizes in _all_sizes(round_size, replicas, [len(p.step_s) for p in prices]):
        step = max(float(p.step_s[size - 1]) for p, size in zip(prices, sizes, strict=True))
        off = float(np.abs(np.array(sizes) - ideal).max())
        if nearest is None or off < nearest[0]:
            nearest = (off, step)
    return None if nearest is None or not np.isfinite(nearest[1]) else nearest[1]


def _all_sizes(round_size: int, replicas: Ints, most: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield every (b_1, b_2, ...) of at least 1 with sum r_g b_g = round_size."""
    if len(replicas) == 1:
        if round_size % replicas[0] == 0 and 1 <= round_size // replicas[0] <= most[0]:
            yield (int(round_size // replicas[0]),)
        return
    for size in range(1, most[0] + 1):
        left = round_size - size * int(replicas[0])
        if left > 0:
            yield from ((size, *rest) for rest in _all_sizes(left, replicas[1:], most[1:]))


def _best_sizes(round_size: int, replicas: Ints, prices: Sequence[_Prices]) -> Ints | None:
    """Return the sizes whose slowest pool is fastest, of equals the first; ``None`` where nothing fits."""
    # a pool never takes what does not fit, and a step grows with the size: what fits comes first
    most = [int(np.flatnonzero(p.fits)[-1]) + 1 if p.fits.any() else 0 for p in prices]
    best: tuple[float, tuple[int, ...]] | None = None
    for sizes in _all_sizes(round_size, replicas, most):
        step = max(float(p.step_s[size - 1]) for p, size in zip(prices, sizes, strict=True))
        if np.isfinite(step) and (best is None or step < best[0]):
            best = (step, sizes)
    return None if best is None else np.array(best[1], dtype=np.int64)


def _bound(workload: Workload, way: _Way, replicas: Ints, prices: Sequence[_Prices]) -> float:
    """Return what no shares beat: each pool at its best rate of sequences, without waiting for the others."""
    rate = 0.0
    for count, p in zip(replicas, prices, strict=True):
        if p.fits.any():
            rate += float(count) * way.micro_batches * float(np.max(np.arange(1, len(p.step_s) + 1) / p.step_s))
    return float(workload.training.global_batch / rate) if rate else np.inf


def _plan(members: Sequence[Member], way: _Way, sizes: list[int], prices: list[_Prices], bound: float) -> PooledPlan:
    steps = [float(p.step_s[size - 1]) for p, size in zip(prices, sizes, strict=True)]
    slowest = int(np.argmax(steps))
    time = prices[slowest].costs.time
    return PooledPlan(
        along="batch",
        members=tuple(members),
        tp=way.tp,
        pp=1,
        dp=sum(member.gpus // way.tp for member in members),
        ep=way.ep,
        micro_batch=tuple(sizes),
        micro_batches=way.micro_batches,
        zero=way.zero,
        recompute=way.recompute,
        sequence_parallel=way.sequence_parallel,
        stages=(1,) * len(members),
        stage_layers=(),
        stage_s=tuple(step / way.micro_batches for step in steps),
        memory_bytes=tuple(float(p.costs.memory_bytes[size - 1]) for p, size in zip(prices, sizes, strict=True)),
        step_s=steps[slowest],
        bound_s=bound,
        terms={name: float(getattr(time, name)[sizes[slowest] - 1]) for name in TERMS},
    )
