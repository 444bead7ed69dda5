"""What is known of the nodes for each kind of job, jobs of a kind wanting the same of a node, compiled.

Of each node: from when on it has room for such a job, if running jobs use up their limits, and from when on the GRES
and the memory, in order (:mod:`.orders`) but for those that have changed since it was asked for (``STALE_SETS``); and
as sets those with room now (``ROOM_SETS``), those with the GRES and the memory now (``NEAR_SETS``), and those with the
GRES once nobody uses them (``EVER_SETS``). Only nodes are looked at of which something has been given out or back
since.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common, is_empty, mark
from hpcplan.simulate.compiled.jit import compiled, ones, trailing_zeros
from hpcplan.simulate.compiled.layout import (
    ALTERED, BEFORE, BEFORE_S, EVER_SETS, GRES_A_NODE, IN_FULL, KIND, MOVED, MOVING, NEAR_SETS, NEED, NEVER, NODES,
    NODE_CPUS, NODE_GRES, N_ALTERED, N_GRES, N_READY, OF_CLOCK, OF_GRES, ORDER_ROWS, POOL, READY, ROOM_KNOWN, ROOM_SETS,
    SEEN, STALE_SETS, TIME_ROWS, USABLE, VALUE_ROWS, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.orders import add_by, begin_order, enough_at, place_by, put_first, put_in_order
from hpcplan.simulate.compiled.stock import cpus_from, fits_by, gres_from, has_cpus_now, has_gres_now

__all__ = ["enough_before", "enough_by", "find_pool", "find_room", "ready_by"]

_ONE: Final = np.uint64(1)


@compiled
def find_room(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> int:
    """Return the row of the nodes that have room for a job now, after bringing what is known of its kind up to date."""
    kind = of[KIND, slot]
    row: int = rules[ROOM_SETS] + kind
    known, altered, nodes = of[ROOM_KNOWN, kind], of[OF_CLOCK, N_ALTERED], rules[NODES]
    if known == altered:
        return row
    if altered - known >= nodes or not known:
        for node in range(nodes):
            _note(rules, of, sets, stock, slot, node)
        if not known:
            begin_order(rules, of, sets, 2 * kind)
            begin_order(rules, of, sets, 2 * kind + 1)
    else:
        for number in range(known, altered):
            node = of[ALTERED, number % nodes]
            if not of[SEEN, node]:
                of[SEEN, node] = 1
                _note(rules, of, sets, stock, slot, node)
        for number in range(known, altered):
            of[SEEN, of[ALTERED, number % nodes]] = 0
    of[ROOM_KNOWN, kind] = altered
    return row


@compiled
def _note(rules: Ints, of: Ints, sets: Sets, stock: Ints, slot: int, node: int) -> None:
    kind, word, bit = of[KIND, slot], node // 64, _ONE << np.uint64(node % 64)
    sets[rules[STALE_SETS] + kind, word] |= bit
    gres = (of[NODE_CPUS, slot] == 0 and not of[GRES_A_NODE, slot]) or has_gres_now(of, stock, slot, node)
    room = (of[NODE_CPUS, slot] == 0 or gres) and has_cpus_now(of, stock, slot, node)
    mark(sets, rules[ROOM_SETS] + kind, word, bit, room)
    if of[GRES_A_NODE, slot]:
        mark(sets, rules[NEAR_SETS] + kind, word, bit, gres)
        if not of[ROOM_KNOWN, kind]:
            mark(sets, rules[EVER_SETS] + kind, word, bit, _has_gres_ever(of, stock, slot, node))


@compiled
def _has_gres_ever(of: Ints, stock: Ints, slot: int, node: int) -> bool:
    for kind in range(of[OF_CLOCK, N_GRES]):
        if stock[node, IN_FULL + OF_GRES + kind] < of[NODE_GRES + kind, slot]:
            return False
    return True


@compiled
def _bring_up_to_date(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Find out from when on the nodes have room that are not known of."""
    table, stale, words = 2 * of[KIND, slot], rules[STALE_SETS] + of[KIND, slot], sets.shape[1]
    if is_empty(sets, stale):
        return
    for table_of in range(table + 1, table - 1, -1):  # GRES, then room
        if table_of > table and not of[GRES_A_NODE, slot]:
            continue
        count, value = 0, rules[VALUE_ROWS] + table_of
        for word in range(words):
            bits, moved = sets[stale, word], np.uint64(0)
            while bits:
                node = word * 64 + trailing_zeros(bits)
                found = _time(rules, of, stock, held, slot, node, table_of > table)
                if found != of[value, node]:
                    of[value, node], of[MOVING, count] = found, node
                    moved |= bits & (~bits + _ONE)
                    count += 1
                bits &= bits - _ONE
            sets[MOVED, word] = moved
        if count:
            put_in_order(rules, of, sets, table_of, count)
    for word in range(words):
        sets[stale, word] = 0


@compiled
def _time(rules: Ints, of: Ints, stock: Ints, held: Ints, slot: int, node: int, gres: bool) -> int:
    """Return from when on a node has room for a job, or the GRES and the memory alone, which are asked for before."""
    gres_s = NEVER
    if of[GRES_A_NODE, slot] and not gres:
        gres_s = of[rules[VALUE_ROWS] + 2 * of[KIND, slot] + 1, node]
    elif of[GRES_A_NODE, slot] or of[NODE_CPUS, slot]:
        gres_s = gres_from(of, stock, held, slot, node)
    if gres:
        return gres_s
    fits_s = cpus_from(of, stock, held, slot, node)
    return max(gres_s, fits_s) if of[NODE_CPUS, slot] else fits_s


@compiled
def ready_by(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, time: int) -> None:
    """Put the nodes into ``READY`` that have room for a job by some time, no earlier than that of the call before.

    ``N_READY`` is how many they are, -1 before the first call; :func:`find_room` has been asked before that.
    """
    table, place = 2 * of[KIND, slot], of[OF_CLOCK, N_READY]
    if place >= 0:
        of[OF_CLOCK, N_READY] = add_by(rules, of, sets, table, place, time, READY)
        return
    _bring_up_to_date(rules, of, sets, stock, held, slot)
    of[OF_CLOCK, BEFORE_S] = NEVER
    of[OF_CLOCK, N_READY] = place = place_by(rules, of, table, time)
    put_first(rules, of, sets, table, place, READY)


@compiled
def enough_by(rules: Ints, of: Ints, sets: Sets, slot: int) -> int:
    """Return from when on enough nodes of ``USABLE`` have room for a job."""
    return enough_at(rules, of, sets, 2 * of[KIND, slot], USABLE, of[NEED, slot])


@compiled
def enough_before(rules: Ints, of: Ints, sets: Sets, slot: int, time: int) -> bool:
    """Whether enough nodes of ``USABLE`` have room for a job before a time; it is most often the same one."""
    if of[OF_CLOCK, BEFORE_S] != time:
        table = 2 * of[KIND, slot]
        put_first(rules, of, sets, table, place_by(rules, of, table, time - 1), BEFORE)
        of[OF_CLOCK, BEFORE_S] = time
    return common(sets, BEFORE, USABLE) >= of[NEED, slot]


@compiled
def find_pool(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, until_s: int, until_id: int, tied: bool
) -> int:  # fmt: skip
    """Put the nodes of ``USABLE`` into ``POOL`` that have room for a job by then; return how many.

    Without ``tied`` no other job ends at that time.
    """
    table = 2 * of[KIND, slot]
    place = place_by(rules, of, table, until_s)
    put_first(rules, of, sets, table, place, POOL)
    while tied and place > 0 and of[rules[TIME_ROWS] + table, place - 1] == until_s:
        place -= 1
        node = of[rules[ORDER_ROWS] + table, place]
        if not fits_by(of, stock, held, slot, node, until_s, until_id):
            sets[POOL, node // 64] &= ~(_ONE << np.uint64(node % 64))
    there = 0
    for word in range(sets.shape[1]):
        sets[POOL, word] &= sets[USABLE, word]
        there += ones(sets[POOL, word])
    return there
