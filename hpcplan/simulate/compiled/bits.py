"""Sets of nodes as rows of 64-bit words: the lowest node is the lowest bit of the first word."""

from __future__ import annotations

import numpy as np

from hpcplan.simulate.compiled.jit import compiled, ones, trailing_zeros
from hpcplan.simulate.compiled.layout import RUN_BEGINS, RUN_SIZES, Ints, Sets

__all__ = ["add_best_fit", "common", "has_all", "is_empty", "mark", "take_lowest"]

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled
def common(sets: Sets, first: int, second: int) -> int:
    """Return how many nodes are in both rows."""
    count = 0
    for word in range(sets.shape[1]):
        count += ones(sets[first, word] & sets[second, word])
    return count


@compiled
def is_empty(sets: Sets, row: int) -> bool:
    """Whether there is no node in a row."""
    for word in range(sets.shape[1]):  # noqa: SIM110  (numba knows no generators)
        if sets[row, word]:
            return False
    return True


@compiled
def has_all(sets: Sets, row: int, nodes: int) -> bool:
    """Whether all nodes of the row ``nodes`` are in a row."""
    for word in range(sets.shape[1]):  # noqa: SIM110  (numba knows no generators)
        if sets[nodes, word] & ~sets[row, word]:
            return False
    return True


@compiled
def take_lowest(sets: Sets, one: int, other: int, first_word: int, last_word: int, wanted: int, into: int) -> int:
    """Add up to ``wanted`` nodes that are in both rows, the lowest first; return how many."""
    left = wanted
    for word in range(first_word, last_word + 1):
        bits = sets[one, word] & sets[other, word]
        count = ones(bits)
        if count > left:
            rest = bits
            for _ in range(left):
                rest &= rest - _ONE
            bits ^= rest
            count = left
        sets[into, word] |= bits
        left -= count
        if not left:
            break
    return wanted - left


@compiled
def mark(sets: Sets, row: int, word: int, bit: np.uint64, there: bool) -> None:
    """Put a node into a row, or take it out."""
    if there:
        sets[row, word] |= bit
    else:
        sets[row, word] &= ~bit


@compiled
def _runs(of: Ints, sets: Sets, row: int) -> int:
    """Find the runs of consecutive nodes, lowest first, and return how many there are."""
    found = 0
    for word in range(sets.shape[1]):
        bits = sets[row, word]
        while bits:
            skip = trailing_zeros(bits)
            begin = word * 64 + skip
            size = trailing_zeros(~(bits >> np.uint64(skip)))
            if found and of[RUN_BEGINS, found - 1] + of[RUN_SIZES, found - 1] == begin:
                of[RUN_SIZES, found - 1] += size
            else:
                of[RUN_BEGINS, found], of[RUN_SIZES, found] = begin, size
                found += 1
            if skip + size >= 64:
                break
            bits = bits >> np.uint64(skip + size) << np.uint64(skip + size)
    return found


@compiled
def _add_range(sets: Sets, first: int, size: int, into: int) -> None:
    while size > 0:
        word, bit = first // 64, first % 64
        part = min(size, 64 - bit)
        bits = _ALL if part == 64 else (_ONE << np.uint64(part)) - _ONE
        sets[into, word] |= bits << np.uint64(bit)
        first += part
        size -= part


@compiled
def add_best_fit(of: Ints, sets: Sets, row: int, wanted: int, into: int) -> None:
    """Add ``wanted`` nodes of the smallest run in ``row`` that has so many, else of the largest one after another.

    The first of equals counts.
    """
    found = _runs(of, sets, row)
    while wanted > 0:
        best, largest = -1, -1
        for number in range(found):
            size = of[RUN_SIZES, number]
            if size >= wanted and (best < 0 or size < of[RUN_SIZES, best]):
                best = number
            if size > 0 and (largest < 0 or size > of[RUN_SIZES, largest]):
                largest = number
        if best < 0:
            best = largest
        if best < 0:
            return
        size = of[RUN_SIZES, best]
        _add_range(sets, of[RUN_BEGINS, best], min(size, wanted), into)
        wanted -= size
        of[RUN_SIZES, best] = 0
