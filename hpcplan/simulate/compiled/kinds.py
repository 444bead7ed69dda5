"""What is known of the nodes for each kind of job, jobs of a kind wanting the same of a node, compiled.

Of each node: from when on it has room for such a job, if running jobs use up their limits (``FIT_ROWS``), and from when
on the GRES and the memory (``GRES_ROWS``); the nodes in the order of the former (``ORDER_ROWS``) but for those that
have changed since it was asked for (``STALE_SETS``); and as sets those with room now (``ROOM_SETS``), those with the
GRES and the memory now (``NEAR_SETS``) or once nobody uses them (``GRES_SETS``), and those with the GRES then
(``EVER_SETS``). Only nodes are looked at of which something has been given out or back since.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common, mark
from hpcplan.simulate.compiled.jit import compiled, ones, trailing_zeros
from hpcplan.simulate.compiled.layout import (
    ALTERED, EVER_SETS, FIT_ROWS, GRES_A_NODE, GRES_ROWS, GRES_SETS, IN_FULL, KIND, MOVING,
    NEAR_SETS, NEED, NEVER, NODES, NODE_CPUS, NODE_GRES, N_ALTERED, N_GRES, N_READY, OF_CLOCK, OF_GRES, ORDER_ROWS,
    POOL, READY, ROOM_KNOWN, ROOM_SETS, SEEN, STALE_SETS, USABLE, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.stock import FOREVER, cpus_from, fits_by, gres_from, has_cpus, has_gres

__all__ = ["begin_ready", "enough_by", "find_pool", "find_room", "ready_by"]

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
            _note(rules, of, sets, stock, held, slot, node)
            if not known:
                of[rules[FIT_ROWS] + kind, node] = FOREVER
                of[rules[ORDER_ROWS] + kind, node] = node
    else:
        for number in range(known, altered):
            node = of[ALTERED, number % nodes]
            if not of[SEEN, node]:
                of[SEEN, node] = 1
                _note(rules, of, sets, stock, held, slot, node)
        for number in range(known, altered):
            of[SEEN, of[ALTERED, number % nodes]] = 0
    of[ROOM_KNOWN, kind] = altered
    return row


@compiled
def _note(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, node: int) -> None:
    kind, word, bit = of[KIND, slot], node // 64, _ONE << np.uint64(node % 64)
    sets[rules[STALE_SETS] + kind, word] |= bit
    gres = not of[NODE_CPUS, slot] or has_gres(of, stock, held, slot, node, NEVER, 0)
    mark(sets, rules[ROOM_SETS] + kind, word, bit, gres and has_cpus(of, stock, held, slot, node, NEVER, 0))
    if of[GRES_A_NODE, slot]:
        if not of[NODE_CPUS, slot]:
            gres = has_gres(of, stock, held, slot, node, NEVER, 0)
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
def _put_in_order(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Find out from when on the nodes have room that are not known of, and put them where they belong in the order."""
    kind = of[KIND, slot]
    stale, fit, order, kept, count = rules[STALE_SETS] + kind, rules[FIT_ROWS] + kind, rules[ORDER_ROWS] + kind, 0, 0
    for word in range(sets.shape[1]):
        bits = sets[stale, word]
        while bits:
            node = word * 64 + trailing_zeros(bits)
            if _find_fit(rules, of, sets, stock, held, slot, node):
                of[MOVING, count] = node
                count += 1
            else:
                sets[stale, word] &= ~(bits & (~bits + _ONE))
            bits &= bits - _ONE
    if not count:
        return
    for place in range(rules[NODES]):
        node = of[order, place]
        of[order, kept] = node
        if not sets[stale, node // 64] >> np.uint64(node % 64) & _ONE:
            kept += 1
    gap = count // 2
    while gap:  # Shell's sort
        for place in range(gap, count):
            node, at = of[MOVING, place], place
            while at >= gap and of[fit, of[MOVING, at - gap]] > of[fit, node]:
                of[MOVING, at] = of[MOVING, at - gap]
                at -= gap
            of[MOVING, at] = node
        gap //= 2
    kept = rules[NODES] - count
    while count:
        node = of[MOVING, count - 1]
        if kept and of[fit, of[order, kept - 1]] > of[fit, node]:
            of[order, kept + count - 1] = of[order, kept - 1]
            kept -= 1
        else:
            of[order, kept + count - 1] = node
            count -= 1
    for word in range(sets.shape[1]):
        sets[stale, word] = 0


@compiled
def _find_fit(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, node: int) -> bool:
    """Find out from when on a node has room for a job; whether that has changed."""
    kind, gres_s = of[KIND, slot], NEVER
    if of[GRES_A_NODE, slot] or of[NODE_CPUS, slot]:
        gres_s = gres_from(of, stock, held, slot, node)
    if of[GRES_A_NODE, slot]:
        of[rules[GRES_ROWS] + kind, node] = gres_s
        mark(sets, rules[GRES_SETS] + kind, node // 64, _ONE << np.uint64(node % 64), gres_s != FOREVER)
    fits_s = cpus_from(of, stock, held, slot, node)
    if of[NODE_CPUS, slot]:
        fits_s = max(gres_s, fits_s)
    row = rules[FIT_ROWS] + kind
    changed: bool = of[row, node] != fits_s
    of[row, node] = fits_s
    return changed


@compiled
def begin_ready(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Put the nodes into ``READY`` that have room for a job now; :func:`find_room` has been asked before."""
    _put_in_order(rules, of, sets, stock, held, slot)
    room, count = rules[ROOM_SETS] + of[KIND, slot], 0
    for word in range(sets.shape[1]):
        sets[READY, word] = sets[room, word]
        count += ones(sets[room, word])
    of[OF_CLOCK, N_READY] = count


@compiled
def ready_by(rules: Ints, of: Ints, sets: Sets, slot: int, time: int) -> None:
    """Add those that have room by some time."""
    fit, order, place = rules[FIT_ROWS] + of[KIND, slot], rules[ORDER_ROWS] + of[KIND, slot], of[OF_CLOCK, N_READY]
    while place < rules[NODES] and of[fit, of[order, place]] <= time:
        node = of[order, place]
        sets[READY, node // 64] |= _ONE << np.uint64(node % 64)
        place += 1
    of[OF_CLOCK, N_READY] = place


@compiled
def enough_by(rules: Ints, of: Ints, sets: Sets, slot: int) -> int:
    """Return from when on enough nodes of ``USABLE`` have room for a job."""
    fit, order, place = rules[FIT_ROWS] + of[KIND, slot], rules[ORDER_ROWS] + of[KIND, slot], of[OF_CLOCK, N_READY]
    more = of[NEED, slot] - common(sets, READY, USABLE)
    step = 1 if more > 0 else -1
    if step < 0:
        place -= 1
        more -= 1
    while 0 <= place < rules[NODES]:
        node = of[order, place]
        if sets[USABLE, node // 64] >> np.uint64(node % 64) & _ONE:
            more -= step
            if not more:
                found: int = of[fit, node]
                return found
        place += step
    return FOREVER


@compiled
def find_pool(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, until_s: int, until_id: int, tied: bool
) -> int:  # fmt: skip
    """Put the nodes of ``USABLE`` into ``POOL`` that have room for a job by then; return how many.

    Without ``tied`` no other job ends at that time.
    """
    fit, order, place = rules[FIT_ROWS] + of[KIND, slot], rules[ORDER_ROWS] + of[KIND, slot], of[OF_CLOCK, N_READY]
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[READY, word]
    while place < rules[NODES] and of[fit, of[order, place]] <= until_s:
        node = of[order, place]
        sets[POOL, node // 64] |= _ONE << np.uint64(node % 64)
        place += 1
    while place > 0 and of[fit, of[order, place - 1]] >= until_s:
        place -= 1
        node = of[order, place]
        late = of[fit, node] > until_s or (tied and not fits_by(of, stock, held, slot, node, until_s, until_id))
        if late:
            sets[POOL, node // 64] &= ~(_ONE << np.uint64(node % 64))
    there = 0
    for word in range(sets.shape[1]):
        sets[POOL, word] &= sets[USABLE, word]
        there += ones(sets[POOL, word])
    return there
