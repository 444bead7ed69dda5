"""Dividing pieces over lanes so that the longest lane is as short as can be.

Longest processing time first: every piece, the longest first, goes to the lane that is shortest so far. The longest
lane is then at most 4/3 - 1/(3 lanes) of the optimum (Graham 1969, Bounds on multiprocessing timing anomalies, theorem
2); how far it really is from the least possible is known afterwards, from a bound. A few pieces are divided exactly.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Division", "Method", "divide", "division_of", "least_longest"]

Method = Literal["exact", "longest-first", "cut"]

_EXACT_PIECES = 14
_EXACT_LANES = 6


@dataclass(frozen=True, slots=True)
class Division:
    """Which lane each piece is in, what each lane comes to, and what the longest cannot be shorter than."""

    lane: tuple[int, ...]
    load: tuple[int, ...]
    bound: int
    method: Method

    @property
    def gap(self) -> float:
        """How much longer the longest lane is than the bound, as a share; 0 proves that no division is better."""
        return max(self.load) / self.bound - 1 if self.bound else 0.0

    @property
    def imbalance(self) -> float:
        """The longest lane over the mean, less 1."""
        total = sum(self.load)
        return max(self.load) * len(self.load) / total - 1 if total else 0.0


def division_of(lanes: Sequence[Sequence[int]], bound: int, method: Method) -> Division:
    """Return the division that these lanes of piece sizes are; pieces count lane by lane."""
    of_lane = tuple(number for number, lane in enumerate(lanes) for _ in lane)
    return Division(of_lane, tuple(sum(lane) for lane in lanes), bound, method)


def least_longest(sizes: Sequence[int], lanes: int) -> int:
    """Return a length that the longest lane has in every division, at least.

    The mean, rounded up; the longest piece; and, of more pieces than lanes, the sum of the two that have to share when
    the lanes + 1 longest are divided.
    """
    descending = sorted(sizes, reverse=True)
    least = max(-(-sum(sizes) // lanes), descending[0] if descending else 0)
    return max(least, descending[lanes - 1] + descending[lanes]) if len(descending) > lanes else least


def divide(sizes: Sequence[int], lanes: int) -> Division:
    """Return a division of pieces of these sizes over ``lanes``; of equal ones always the same.

    Exact for at most 14 pieces and 6 lanes, by branch and bound; longest first beyond.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    first = _longest_first(sizes, lanes, order)
    bound = least_longest(sizes, lanes)
    if len(sizes) > _EXACT_PIECES or lanes > _EXACT_LANES:
        return Division(tuple(first), _loads(sizes, lanes, first), bound, "longest-first")
    best = _Exact(sizes, lanes, order, bound, first).solve()
    loads = _loads(sizes, lanes, best)
    return Division(tuple(best), loads, max(loads, default=0), "exact")


def _longest_first(sizes: Sequence[int], lanes: int, order: Sequence[int]) -> list[int]:
    heap = [(0, lane) for lane in range(lanes)]
    chosen = [0] * len(sizes)
    for i in order:
        load, lane = heap[0]
        chosen[i] = lane
        heapq.heapreplace(heap, (load + sizes[i], lane))
    return chosen


def _loads(sizes: Sequence[int], lanes: int, lane: Sequence[int]) -> tuple[int, ...]:
    loads = [0] * lanes
    for size, at in zip(sizes, lane, strict=True):
        loads[at] += size
    return tuple(loads)


class _Exact:
    """Branch and bound over the pieces, the longest first; of lanes that are as short, only one is tried."""

    def __init__(
        self, sizes: Sequence[int], lanes: int, order: Sequence[int], bound: int, first: Sequence[int]
    ) -> None:
        self.sizes, self.order, self.bound = sizes, order, bound
        self.best = list(first)
        self.longest = max(_loads(sizes, lanes, first), default=0)
        self.loads = [0] * lanes
        self.lane = [0] * len(sizes)

    def solve(self) -> list[int]:
        self._place(0)
        return self.best

    def _place(self, at: int) -> None:
        if self.longest == self.bound:
            return
        if at == len(self.order):
            self.best, self.longest = list(self.lane), max(self.loads)
            return
        piece = self.order[at]
        tried: set[int] = set()
        for lane, load in sorted(enumerate(self.loads), key=lambda item: (item[1], item[0])):
            if load in tried or load + self.sizes[piece] >= self.longest:
                continue
            tried.add(load)
            self.loads[lane] += self.sizes[piece]
            self.lane[piece] = lane
            self._place(at + 1)
            self.loads[lane] -= self.sizes[piece]
