"""Sharing divisible work and its data over unequal nodes: the global optimum beside the usual rules of thumb.

The work can be cut anywhere, each core does an hour of it in an hour, and data goes where its work is done, passing
through memory in rounds. The optimum is a linear program (the divisible load problem without start-up costs; Bharadwaj
et al., "Scheduling Divisible Loads in Parallel and Distributed Systems", 1996), solved by HiGHS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcplan.errors import HpcplanError, InfeasibleError, InputError

__all__ = ["POLICIES", "Pool", "Shares", "compare_policies", "share_work"]

POLICIES = ("equal", "priority", "proportional", "optimal")


@dataclass(frozen=True, slots=True)
class Pool:
    """A node, or a pool of equal ones: how many cores (or GPUs), memory, priority, and how fast it reads data."""

    name: str
    cores: float
    memory_bytes: float
    priority: float = 1.0
    read_bytes_per_h: float = math.inf


@dataclass(frozen=True, slots=True)
class Shares:
    """What each pool is given. ``makespan_h`` is the objective: when the last pool is done, in hours.

    ``rounds`` is how often the memory of the pool that needs most has to be filled to pass its data through.
    """

    policy: str
    work_h: tuple[float, ...]
    data_bytes: tuple[float, ...]
    finish_h: tuple[float, ...]
    rounds: int

    @property
    def makespan_h(self) -> float:
        """When the last pool is done, in hours."""
        return max(self.finish_h)


def share_work(
    pools: Sequence[Pool], work_h: float, data_bytes: float, policy: str = "optimal", *, max_rounds: int | None = None
) -> Shares:
    """Share ``work_h`` core-hours and the data they read over ``pools``.

    Args:
        pools: at least one, with cores.
        work_h: core-hours (GPU-hours, where cores are GPUs).
        data_bytes: read once in all, each pool in proportion to its work.
        policy: ``equal`` parts, parts by ``priority``, parts ``proportional`` to cores, or ``optimal``: the shares
            that end soonest.
        max_rounds: how often memory may be filled; only ``optimal`` can keep to it, the others take what they take.

    Raises:
        InputError: no pools, no such policy, or a quantity that cannot be.
        InfeasibleError: all memory together does not pass the data through in ``max_rounds``.
    """
    _check(pools, work_h, data_bytes, policy)
    if policy == "optimal":
        parts = _optimal(pools, work_h, data_bytes, max_rounds)
    else:
        by_rule = {
            "equal": [1.0 for _ in pools],
            "priority": [pool.priority for pool in pools],
            "proportional": [pool.cores for pool in pools],
        }
        weights = by_rule[policy]
        parts = [weight / math.fsum(weights) for weight in weights]
    data = tuple(part * data_bytes for part in parts)
    fills = [math.ceil(d / p.memory_bytes * (1 - 1e-9)) if d else 0 for d, p in zip(data, pools, strict=True)]
    return Shares(
        policy=policy,
        work_h=tuple(part * work_h for part in parts),
        data_bytes=data,
        finish_h=tuple(part * _hours(pool, work_h, data_bytes) for part, pool in zip(parts, pools, strict=True)),
        rounds=max(fills),
    )


def compare_policies(
    pools: Sequence[Pool], work_h: float, data_bytes: float, *, max_rounds: int | None = None
) -> list[Shares]:
    """Return the shares of every policy, in the order of ``POLICIES``; errors as :func:`share_work`."""
    return [share_work(pools, work_h, data_bytes, policy, max_rounds=max_rounds) for policy in POLICIES]


def _check(pools: Sequence[Pool], work_h: float, data_bytes: float, policy: str) -> None:
    if policy not in POLICIES:
        raise InputError(f"policy: {policy!r} is unknown; known: {', '.join(POLICIES)}")
    if not pools:
        raise InputError("pools: at least one is needed")
    for name, value in (("work_h", work_h), ("data_bytes", data_bytes)):
        if not 0 <= value < math.inf:
            raise InputError(f"{name}: must be zero or more, not {value}")
    for pool in pools:
        for name in ("cores", "memory_bytes", "priority", "read_bytes_per_h"):
            if not getattr(pool, name) > 0:
                raise InputError(f"pools.{pool.name}.{name}: must be more than zero")


def _hours(pool: Pool, work_h: float, data_bytes: float) -> float:
    """Return how long a pool would take for everything: reading and computing, one after the other."""
    return work_h / pool.cores + data_bytes / pool.read_bytes_per_h


def _optimal(pools: Sequence[Pool], work_h: float, data_bytes: float, max_rounds: int | None) -> list[float]:
    """Minimize the makespan T over parts x: x_i h_i <= T, x_i D <= rounds m_i, sum x = 1."""
    from scipy.optimize import linprog

    most = [1.0] * len(pools)
    if max_rounds is not None and data_bytes > 0:
        most = [min(1.0, max_rounds * pool.memory_bytes / data_bytes) for pool in pools]
        if math.fsum(most) < 1 - 1e-12:
            memory = math.fsum(pool.memory_bytes for pool in pools)
            raise InfeasibleError(
                f"memory binds: {memory:.0f} bytes filled {max_rounds} times pass {max_rounds * memory:.0f} bytes "
                f"of {data_bytes:.0f}",
                hint=f"at least {math.ceil(data_bytes / memory)} rounds are needed",
            )
    hours = [_hours(pool, work_h, data_bytes) for pool in pools]
    scale = max(hours) or 1.0  # keeps the coefficients near 1, whatever the units
    count = len(pools)
    solved = linprog(
        c=[0.0] * count + [1.0],
        A_ub=[[hours[i] / scale if j == i else 0.0 for j in range(count)] + [-1.0] for i in range(count)],
        b_ub=[0.0] * count,
        A_eq=[[1.0] * count + [0.0]],
        b_eq=[1.0],
        bounds=[*((0.0, limit) for limit in most), (0.0, None)],
        method="highs",
    )
    if solved.status != 0:
        raise HpcplanError(f"the linear program was not solved: {solved.message}")
    return [float(part) for part in solved.x[:count]]
