"""Ranks in blocks of one node each, and what an exchange sends from block to block.

Ranks form a grid whose axes have an order, the fastest-varying first. Which block a rank is in follows from the order
alone; which node a block is put on is another question (:mod:`hpcplan.partition.placement.place`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Literal, TypeAlias, cast

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.plan import Exchange, Sharding

__all__ = ["Axis", "Flows", "Grid", "Order", "default_order", "flows", "orders_of", "with_experts"]

Axis: TypeAlias = Literal["tp", "cp", "ep", "dp", "pp"]
Order: TypeAlias = tuple[Axis, ...]

_DEFAULT: Order = ("tp", "cp", "dp", "pp")
# Megatron-LM's default, and the one of --use-tp-pp-dp-mapping (megatron/core/parallel_state.py, RankGenerator).
_MEGATRON: tuple[Order, ...] = (_DEFAULT, ("tp", "cp", "pp", "dp"))
_MEGATRON_LIKE = frozenset({"megatron-lm", "nemo"})
_ANY_ORDER = frozenset({"srun", "mpi"})  # trainers of one's own follow HPCPLAN_RANK_ORDER


@dataclass(frozen=True, slots=True)
class Grid:
    """tp x cp x dp x pp ranks in an order of their axes; experts are spread over ``ep`` of the dp x cp ranks.

    With hybrid sharding these are in ``copies`` groups of neighbours, each of which holds all.
    """

    order: Order  # without ep, fastest first
    sizes: tuple[int, ...]  # in that order
    ep: int
    gpus_per_node: int
    copies: int = 1

    @classmethod
    def of(cls, sharding: Sharding, order: Order) -> Grid:
        """Return the grid of a sharding."""
        axes = tuple(axis for axis in order if axis != "ep")
        return cls(
            axes, tuple(getattr(sharding, axis) for axis in axes), sharding.ep, sharding.gpus_per_node, sharding.copies
        )

    @property
    def blocks(self) -> int:
        """How many nodes the ranks fill."""
        return -(-prod(self.sizes) // self.gpus_per_node)

    def groups(self, axis: str) -> Ints:
        """Return the ranks that communicate over an axis, shape (groups, members), members ascending.

        Gradients (``dp``) are reduced over the data- and context-parallel ranks together; experts are spread over
        ``ep`` consecutive ones of those, and gradients of experts (``edp``) are reduced over the rest. Groups that are
        copies of each other do so on their own, and sum up what they have (``rdp``, ``redp``).
        """
        over = (axis,) if axis in self.order and axis != "dp" else ("dp", "cp")
        ranks = np.arange(prod(self.sizes)).reshape(self.sizes[::-1])
        names = self.order[::-1]
        inner = [i for i, name in enumerate(names) if name in over]
        outer = [i for i, name in enumerate(names) if name not in over]
        members = prod(ranks.shape[i] for i in inner)
        groups: Ints = np.sort(ranks.transpose(outer + inner).reshape(-1, members), axis=1)
        if axis == "ep":
            return groups.reshape(-1, self.ep)
        if axis in ("edp", "redp"):
            groups = groups.reshape(len(groups), -1, self.ep).transpose(0, 2, 1).reshape(-1, members // self.ep)
        if axis in ("dp", "edp"):
            return groups.reshape(-1, groups.shape[1] // self.copies)
        if axis in ("rdp", "redp"):
            return groups.reshape(len(groups), self.copies, -1).transpose(0, 2, 1).reshape(-1, self.copies)
        return groups


@dataclass(frozen=True, slots=True)
class Flows:
    """What goes from block to block in a step: arrays of shape (flows,), bytes one way.

    ``inside`` is the share of a rank's bytes that stays in its block, of the rank that keeps most; ``blocks`` the most
    blocks that a group has members in.
    """

    source: Ints
    target: Ints
    bytes: Floats
    inside: float
    blocks: int


def default_order(framework: str) -> Order:
    """Return the order that a framework uses when nothing is said."""
    return _MEGATRON[0] if framework in _MEGATRON_LIKE else _DEFAULT


def orders_of(framework: str, sharding: Sharding) -> list[Order]:
    """Return the orders of axes that a framework can run and that differ for this sharding; its default is first.

    Megatron-LM's expert-parallel groups need the pipeline to come last.
    """
    choices: Sequence[tuple[str, ...]] = [_DEFAULT]
    if framework in _MEGATRON_LIKE:
        choices = _MEGATRON if sharding.ep == 1 else _MEGATRON[:1]
    elif framework in _ANY_ORDER:
        choices = [_DEFAULT, *permutations(_DEFAULT)]
    kept: dict[tuple[str, ...], Order] = {}
    for order in choices:
        moving = tuple(axis for axis in order if getattr(sharding, axis) > 1)
        kept.setdefault(moving, cast(Order, order))
    return list(kept.values())


def with_experts(order: Order, sharding: Sharding) -> Order:
    """Return the order as a plan writes it: ``ep`` before ``dp`` where there are expert groups."""
    if sharding.ep == 1:
        return order
    at = order.index("dp")
    return (*order[:at], "ep", *order[at:])


def flows(grid: Grid, exchange: Exchange) -> Flows:
    """Return what an exchange sends from block to block in a step."""
    blocks = grid.groups(exchange.axis) // grid.gpus_per_node
    most = int((np.diff(blocks, axis=1) != 0).sum(axis=1).max(initial=0)) + 1
    most = min(most, int(grid.blocks))
    rows, copies = np.unique(blocks, axis=0, return_counts=True)
    if exchange.pattern == "all-to-all":
        pairs, weights, inside = _all_pairs(rows, copies, grid.blocks)
    else:
        pairs, weights, inside = _neighbours(rows, copies, grid.blocks, exchange.pattern)
    keys, place = np.unique(pairs, return_inverse=True)
    total = np.bincount(place.ravel(), weights=weights, minlength=len(keys)) * exchange.sent_bytes
    return Flows(keys // grid.blocks, keys % grid.blocks, total.astype(np.float64), inside, most)


def _neighbours(rows: Ints, copies: Ints, blocks: int, pattern: str) -> tuple[Ints, Floats, float]:
    source, target = np.roll(rows, 1, axis=1), rows
    if pattern == "chain":
        source, target = source[:, 1:], target[:, 1:]
    weights = np.broadcast_to(copies[:, None], source.shape).astype(np.float64)
    inside = float((source == target).any())
    leaves = source != target
    source, target, weights = source[leaves], target[leaves], weights[leaves]
    if pattern != "ring":
        source, target = np.concatenate([source, target]), np.concatenate([target, source])
        weights = np.concatenate([weights, weights])
    return source * blocks + target, weights, inside


def _all_pairs(rows: Ints, copies: Ints, blocks: int) -> tuple[Ints, Floats, float]:
    size = rows.shape[1]
    runs = next(k for k in range(size, 0, -1) if size % k == 0 and _constant(rows, k))
    heads = rows[:, ::runs]
    pairs = (heads[:, :, None] * blocks + heads[:, None, :]).reshape(len(rows), -1)
    weights = np.broadcast_to((copies * runs**2 / size)[:, None], pairs.shape)
    leaves = pairs // blocks != pairs % blocks
    most = max(int(np.unique(row, return_counts=True)[1].max()) for row in rows)
    return pairs[leaves], weights[leaves], (most - 1) / size


def _constant(rows: Ints, k: int) -> bool:
    parts = rows.reshape(len(rows), -1, k)
    return bool((parts == parts[:, :, :1]).all())
