"""How much lighter nodes count for the sake of jobs with GRES, compiled: ``weigh`` and ``level`` of
:class:`hpcplan.simulate.resources.Resources`.

It stands there in binary: the bit of value 2 ** i of each node is in the set ``NEAR_BITS`` + i.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.kinds import find_room
from hpcplan.simulate.compiled.layout import (
    ELIGIBLE, ELIGIBLE_SETS, EVER_SETS, GRES_A_NODE, KIND, NEARED, NEAR_BITS, NEVER, NEXT_GRES_S, NODES, N_NEAR_BITS,
    OF_CLOCK, ORDER_ROWS, POOL, ROOM_KNOWN, TIME_ROWS, USABLE, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.orders import enough_at, place_by, put_first
from hpcplan.simulate.compiled.stock import FOREVER, has_gres

__all__ = ["begin_weighing", "level", "nearness", "next_to_weigh", "weigh", "weigh_by", "weigh_ever"]

_ONE: Final = np.uint64(1)


@compiled
def nearness(of: Ints, sets: Sets, node: int) -> int:
    """Return how much lighter a node counts."""
    found = 0
    for bit in range(of[OF_CLOCK, N_NEAR_BITS]):
        if sets[NEAR_BITS + bit, node // 64] >> np.uint64(node % 64) & _ONE:
            found += 1 << bit
    return found


@compiled
def weigh_ever(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, mask: int) -> None:
    """Note that a job is looked at where it could run ever."""
    if of[GRES_A_NODE, slot]:
        if not of[ROOM_KNOWN, of[KIND, slot]]:
            find_room(rules, of, sets, stock, held, slot)
        weigh(rules, of, sets, slot, mask, rules[EVER_SETS])


@compiled
def weigh(rules: Ints, of: Ints, sets: Sets, slot: int, mask: int, first: int) -> None:
    """Note that a job is looked at on the nodes of a set that are in that of its kind, from ``first`` on."""
    count = of[GRES_A_NODE, slot]
    if count:
        eligible, known = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot], first + of[KIND, slot]
        for word in range(sets.shape[1]):
            _set_near(of, sets, word, sets[mask, word] & sets[eligible, word] & sets[known, word], count)


@compiled
def level(rules: Ints, of: Ints, sets: Sets, slot: int, mask: int) -> None:
    """Give the nodes of a set that a job may have their own weights again."""
    eligible = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    for word in range(sets.shape[1]):
        _set_near(of, sets, word, sets[mask, word] & sets[eligible, word], 0)


@compiled
def _set_near(of: Ints, sets: Sets, word: int, bits: np.uint64, count: int) -> None:
    for bit in range(of[OF_CLOCK, N_NEAR_BITS]):
        if count >> bit & 1:
            sets[NEAR_BITS + bit, word] |= bits
        else:
            sets[NEAR_BITS + bit, word] &= ~bits


@compiled
def begin_weighing(of: Ints, sets: Sets, slot: int) -> None:
    """Put the nodes into ``NEARED`` that a job need not be weighed on, as they count as much lighter already."""
    count = of[GRES_A_NODE, slot]
    if not count:
        return
    of[OF_CLOCK, NEXT_GRES_S] = NEVER
    for word in range(sets.shape[1]):
        sets[NEARED, word] = ~np.uint64(0)
    for bit in range(of[OF_CLOCK, N_NEAR_BITS]):
        for word in range(sets.shape[1]):
            near = sets[NEAR_BITS + bit, word]
            sets[NEARED, word] &= near if count >> bit & 1 else ~near


@compiled
def next_to_weigh(rules: Ints, of: Ints, sets: Sets, slot: int, mask: int) -> int:
    """Return when the first of the nodes of a set has the GRES that a job has not been weighed on.

    ``FOREVER`` if there is none.
    """
    ever, some = rules[EVER_SETS] + of[KIND, slot], np.uint64(0)
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[mask, word] & sets[ever, word] & ~sets[NEARED, word]
        some |= sets[POOL, word]
    return enough_at(rules, of, sets, 2 * of[KIND, slot] + 1, POOL, 1) if some else FOREVER


@compiled
def weigh_by(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, until_s: int, until_id: int
) -> None:  # fmt: skip
    """Note that a job is looked at on those of ``USABLE`` that have the GRES then, but for those in ``NEARED``."""
    count, table = of[GRES_A_NODE, slot], 2 * of[KIND, slot] + 1
    if not count:
        return
    place = place_by(rules, of, table, until_s - 1)
    put_first(rules, of, sets, table, place, POOL)
    while until_s < FOREVER and place < rules[NODES] and of[rules[TIME_ROWS] + table, place] == until_s:
        node = of[rules[ORDER_ROWS] + table, place]
        word, bit = node // 64, _ONE << np.uint64(node % 64)
        if bit & sets[USABLE, word] & ~sets[NEARED, word] and has_gres(
            of, stock, held, slot, node, until_s, until_id
        ):  # fmt: skip
            sets[POOL, word] |= bit
        place += 1
    for word in range(sets.shape[1]):
        weighed = sets[POOL, word] & sets[USABLE, word] & ~sets[NEARED, word]
        if weighed:
            of[OF_CLOCK, NEXT_GRES_S] = NEVER
            sets[NEARED, word] |= weighed
            _set_near(of, sets, word, weighed, count)
