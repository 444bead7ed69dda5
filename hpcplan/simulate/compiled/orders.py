"""Nodes in the order of a time of each, compiled, and as sets the first of them, every 32nd more.

There is one for each kind of job (:mod:`.kinds`) and one of two times of nodes. The time of a node is in the row
``VALUE_ROWS`` of it, the nodes in their order in that of ``ORDER_ROWS``, their times in that of ``TIME_ROWS``; the
i-th of its sets, of ``FIRST_SETS``, has the first 32 i nodes.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.backfill import right
from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    FIRST_SETS, MOVED, MOVING, NODES, ORDERED, ORDER_ROWS, STEPS, TIME_ROWS, VALUE_ROWS, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.stock import FOREVER

__all__ = ["STEP", "add_by", "begin_order", "enough_at", "place_by", "put_first", "put_in_order"]

STEP: Final = 32  # nodes from one set to the next
_ONE: Final = np.uint64(1)


@compiled
def begin_order(rules: Ints, of: Ints, sets: Sets, table: int) -> None:
    """Begin with nodes of which none has a time."""
    row = rules[FIRST_SETS] + table * rules[STEPS]
    for node in range(rules[NODES]):
        if node % STEP == 0:
            row += 1
            for word in range(sets.shape[1]):
                sets[row, word] = sets[row - 1, word]
        sets[row, node // 64] |= _ONE << np.uint64(node % 64)
        of[rules[ORDER_ROWS] + table, node] = node
        of[rules[VALUE_ROWS] + table, node] = of[rules[TIME_ROWS] + table, node] = FOREVER


@compiled
def put_in_order(rules: Ints, of: Ints, sets: Sets, table: int, count: int) -> None:
    """Put the nodes whose times have changed where they belong: those in ``MOVED``, so many in ``MOVING``."""
    value, order, times = rules[VALUE_ROWS] + table, rules[ORDER_ROWS] + table, rules[TIME_ROWS] + table
    gap = count // 2
    while gap:  # Shell's sort
        for place in range(gap, count):
            node, at = of[MOVING, place], place
            while at >= gap and of[value, of[MOVING, at - gap]] > of[value, node]:
                of[MOVING, at] = of[MOVING, at - gap]
                at -= gap
            of[MOVING, at] = node
        gap //= 2
    nodes, words, new = rules[NODES], sets.shape[1], 0
    old = first = _first_that_changes(rules, of, sets, table, place_by(rules, of, table, of[value, of[MOVING, 0]] - 1))
    row, beyond = rules[FIRST_SETS] + table * rules[STEPS] + first // STEP, nodes
    for place in range(first, nodes):
        if place % STEP == 0:
            if new == count and old == place:
                beyond = place  # the others stay where they are
                break
            row += 1
            for word in range(words):
                sets[row, word] = sets[row - 1, word]
        while old < nodes and sets[MOVED, of[order, old] // 64] >> np.uint64(of[order, old] % 64) & _ONE:
            old += 1
        if new < count and (old == nodes or of[value, of[MOVING, new]] < of[times, old]):
            node = of[MOVING, new]
            new += 1
        else:
            node = of[order, old]
            old += 1
        of[ORDERED, place] = node
        sets[row, node // 64] |= _ONE << np.uint64(node % 64)
    for place in range(first, beyond):
        of[order, place] = of[ORDERED, place]
        of[times, place] = of[value, of[ORDERED, place]]


@compiled
def _first_that_changes(rules: Ints, of: Ints, sets: Sets, table: int, place: int) -> int:
    """Return the first place of a set, up to this one, from which on there are nodes that are in ``MOVED``."""
    first = rules[FIRST_SETS] + table * rules[STEPS]
    step = 0
    while (step + 1) * STEP <= place and not common(sets, first + step + 1, MOVED):
        step += 1
    return step * STEP


@compiled
def place_by(rules: Ints, of: Ints, table: int, time: int) -> int:
    """Return how many nodes have a time up to this one."""
    return right(of, rules[TIME_ROWS] + table, rules[NODES], time)


@compiled
def put_first(rules: Ints, of: Ints, sets: Sets, table: int, beyond: int, into: int) -> None:
    """Put so many of the first nodes into a set."""
    row = rules[FIRST_SETS] + table * rules[STEPS] + beyond // STEP
    for word in range(sets.shape[1]):
        sets[into, word] = sets[row, word]
    _add(rules, of, sets, table, beyond // STEP * STEP, beyond, into)


@compiled
def _add(rules: Ints, of: Ints, sets: Sets, table: int, first: int, beyond: int, into: int) -> None:
    for place in range(first, beyond):
        node = of[rules[ORDER_ROWS] + table, place]
        sets[into, node // 64] |= _ONE << np.uint64(node % 64)


@compiled
def add_by(rules: Ints, of: Ints, sets: Sets, table: int, place: int, time: int, into: int) -> int:
    """Add the nodes from a place in the order on that have a time up to this one to a set; return their end."""
    times, beyond = rules[TIME_ROWS] + table, place
    while beyond < rules[NODES] and of[times, beyond] <= time:
        beyond += 1
    _add(rules, of, sets, table, place, beyond, into)
    return beyond


@compiled
def enough_at(rules: Ints, of: Ints, sets: Sets, table: int, usable: int, need: int) -> int:
    """Return the time by which so many nodes of a set have come."""
    first, nodes = rules[FIRST_SETS] + table * rules[STEPS], rules[NODES]
    low, high = 0, -(-nodes // STEP)  # the first so many have too few; the set at ``high`` may have enough
    if common(sets, first + high, usable) < need:
        return FOREVER
    while high - low > 1:
        middle = (low + high) // 2
        if common(sets, first + middle, usable) >= need:
            high = middle
        else:
            low = middle
    place, left = low * STEP, need - common(sets, first + low, usable)
    while True:
        node = of[rules[ORDER_ROWS] + table, place]
        if sets[usable, node // 64] >> np.uint64(node % 64) & _ONE:
            left -= 1
            if left <= 0:
                found: int = of[rules[TIME_ROWS] + table, place]
                return found
        place += 1
