"""A smaller problem whose optimum bounds the whole one's from below: forget the groups that weigh least.

Every split of the whole is a split of what remains, with loads that are no larger: work is left out, an output that
crossed a border may no longer meet two pieces, and the order among the rest is kept, through what was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcplan.partition.graph.groups import Groups
from hpcplan.partition.graph.ideals import MAX_TABLE, Family, TooManyIdealsError, all_ideals

__all__ = ["lifted", "relaxed"]

WORD: Final = 64


def relaxed(groups: Groups, limit: int) -> tuple[Groups, Family, list[int]]:
    """Return the largest problem of the weightiest groups with at most ``limit`` ideals, those, and what it kept."""
    weight = np.where(groups.on_accelerator, groups.accelerator_time, groups.cpu_time)
    for pins, time in zip(groups.borders, groups.border_time, strict=True):
        weight = weight + time * np.isin(np.arange(len(groups)), pins)
    limit = min(limit, MAX_TABLE // len(groups))
    order = np.argsort(-weight, kind="stable")
    low, high = 1, len(groups)  # one group always can be kept; all of them could not
    best = _keep(groups, order[:1], limit)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, low = _keep(groups, order[:middle], limit), middle
        except TooManyIdealsError:
            high = middle
    return best


def _keep(groups: Groups, chosen: NDArray[np.intp], limit: int) -> tuple[Groups, Family, list[int]]:
    kept = sorted(int(g) for g in chosen)
    number = {g: i for i, g in enumerate(kept)}
    closest: list[set[int]] = []  # for each group, the kept ones before it with none between
    for others in groups.before:
        closest.append(set().union(*({other} if other in number else closest[other] for other in others)))
    before = [tuple(sorted(number[other] for other in closest[g])) for g in kept]
    after: list[list[int]] = [[] for _ in kept]
    for i, row in enumerate(before):
        for other in row:
            after[other].append(i)
    borders: dict[tuple[int, ...], float] = {}
    for pins, time in zip(groups.borders, groups.border_time, strict=True):
        key = tuple(number[g] for g in pins if g in number)
        if len(key) > 1:
            borders[key] = borders.get(key, 0.0) + float(time)
    small = Groups(
        graph=groups.graph,
        members=tuple(groups.members[g] for g in kept),
        accelerator_time=groups.accelerator_time[kept],
        cpu_time=groups.cpu_time[kept],
        size_bytes=groups.size_bytes[kept],
        on_accelerator=groups.on_accelerator[kept],
        before=tuple(before),
        after=tuple(map(tuple, after)),
        borders=tuple(borders),
        border_time=np.array(list(borders.values()), dtype=np.float64),
    )
    return small, all_ideals(small, limit), kept


def lifted(groups: Groups, kept: Sequence[int], cuts: Sequence[int]) -> list[int]:
    """Return ideals of the whole for those of the part: each with as little as it can have, and with as much."""
    masks = []
    for cut in cuts:
        inside = {g for i, g in enumerate(kept) if cut >> i & 1}
        outside = set(kept) - inside
        least, barred = set(inside), set(outside)
        for g in reversed(range(len(groups))):
            if any(other in least for other in groups.after[g]):
                least.add(g)
        for g in range(len(groups)):
            if any(other in barred for other in groups.before[g]):
                barred.add(g)
        masks.append(sum(1 << g for g in least))
        masks.append(sum(1 << g for g in range(len(groups)) if g not in barred))
    return masks
