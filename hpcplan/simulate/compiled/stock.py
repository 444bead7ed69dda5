"""What is left of nodes that jobs share, compiled: :mod:`hpcplan.simulate.resources` on arrays; the names are the same.

What running jobs have of a node is chained, those first whose limits end first: so what will be free at some time, if
they use up their limits, is known from the node alone. Such a time is given as the end (``until_s``) and the ID of the
last job that has ended, as several may end together; :data:`NEVER` is now.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common, mark
from hpcplan.simulate.compiled.jit import compiled, trailing_zeros
from hpcplan.simulate.compiled.layout import (
    ALTERED, BUSY, CHOSEN, CPUS, CPU_MEMORY, FIRST_ENDING, FIRST_HELD, GRES_A_NODE, HELD_CPUS, HELD_LATER, HELD_MEMORY,
    HELD_NEXT, HELD_NODE, HELD_SLOT, ID, IDLE, IN_FULL, IS_FREE, LIMIT_END_S, NEVER, NODES, NODE_CPUS, NODE_GRES,
    NODE_MEMORY, N_ALTERED, N_GRES, OF_CLOCK, OF_CPUS, OF_GRES, OF_JOBS, OF_MEMORY, OF_WHOLE, SPREAD, THREADS, UNITS,
    UNUSED_HELD, WHOLE_SOCKETS, Ints, Sets,
)  # fmt: skip

__all__ = [
    "FOREVER", "amount_by", "cpus_from", "fits_by", "give_back", "gres_from", "has_cpus_now", "has_gres",
    "has_gres_now", "offer", "take",
]  # fmt: skip

FOREVER: Final = 2**62  # of a node that will never have enough
_ONE: Final = np.uint64(1)
_MIB: Final = 1024**2
_CLOCK: Final = OF_CLOCK


@compiled
def _needed_cpus(of: Ints, stock: Ints, slot: int, node: int) -> int:
    needed: int = of[NODE_CPUS, slot]
    units = stock[node, UNITS]
    if units > 1:
        needed = -(-needed // units) * units
    return needed


@compiled
def _needed_memory(of: Ints, stock: Ints, slot: int, node: int) -> int:
    if of[CPU_MEMORY, slot]:
        return -(-_needed_cpus(of, stock, slot, node) * of[CPU_MEMORY, slot] // _MIB)
    memory: int = of[NODE_MEMORY, slot]
    if memory < 0:
        memory = stock[node, IN_FULL + OF_MEMORY]
    return memory


@compiled
def _held_amount(of: Ints, stock: Ints, held: Ints, place: int, amount: int) -> int:
    """Return how much of an amount a job has of a node."""
    found, slot = 1, held[place, HELD_SLOT]
    if not of[NODE_CPUS, slot]:
        if amount != OF_JOBS and amount != OF_WHOLE:
            found = stock[held[place, HELD_NODE], IN_FULL + amount]
    elif amount == OF_CPUS:
        found = held[place, HELD_CPUS]
    elif amount == OF_MEMORY:
        found = held[place, HELD_MEMORY]
    elif amount == OF_WHOLE:
        found = 0
    elif amount >= OF_GRES:
        found = of[NODE_GRES + amount - OF_GRES, slot]
    return found


@compiled
def amount_by(of: Ints, stock: Ints, held: Ints, node: int, amount: int, until_s: int, until_id: int) -> int:
    """Return how much of an amount a node will have left."""
    left: int = stock[node, IS_FREE + amount]
    if until_s == NEVER:
        return left
    place = stock[node, FIRST_ENDING]
    while place >= 0:
        slot = held[place, HELD_SLOT]
        end = of[LIMIT_END_S, slot]
        if end > until_s or (end == until_s and of[ID, slot] > until_id):
            break
        left += _held_amount(of, stock, held, place, amount)
        place = held[place, HELD_LATER]
    return left


@compiled
def _enough_from(of: Ints, stock: Ints, held: Ints, node: int, amount: int, least: int) -> int:
    """Return the end of the limit after which a node has so much left: ``NEVER``, if it has now."""
    left = stock[node, IS_FREE + amount]
    if left >= least:
        return NEVER
    place = stock[node, FIRST_ENDING]
    while place >= 0:
        left += _held_amount(of, stock, held, place, amount)
        if left >= least:
            end: int = of[LIMIT_END_S, held[place, HELD_SLOT]]
            return end
        place = held[place, HELD_LATER]
    return FOREVER


@compiled
def gres_from(of: Ints, stock: Ints, held: Ints, slot: int, node: int) -> int:
    """Return from when on a node has the GRES and the memory that a job takes of one."""
    found = _enough_from(of, stock, held, node, OF_MEMORY, _needed_memory(of, stock, slot, node))
    for kind in range(of[_CLOCK, N_GRES]):
        wanted = of[NODE_GRES + kind, slot]
        if wanted:
            found = max(found, _enough_from(of, stock, held, node, OF_GRES + kind, wanted))
    return found


@compiled
def cpus_from(of: Ints, stock: Ints, held: Ints, slot: int, node: int) -> int:
    """Return from when on a node has the CPUs that a job takes of one: of one that nobody has whole, or all."""
    if not of[NODE_CPUS, slot]:
        return _enough_from(of, stock, held, node, OF_JOBS, 0)
    alone = _enough_from(of, stock, held, node, OF_WHOLE, 0)
    return max(alone, _enough_from(of, stock, held, node, OF_CPUS, _needed_cpus(of, stock, slot, node)))


@compiled
def has_cpus_now(of: Ints, stock: Ints, slot: int, node: int) -> bool:
    """Whether a node has the CPUs that a job takes of one."""
    if not of[NODE_CPUS, slot]:
        idle: bool = stock[node, IS_FREE + OF_JOBS] >= 0
        return idle
    alone: bool = stock[node, IS_FREE + OF_WHOLE] >= 0
    return alone and stock[node, IS_FREE + OF_CPUS] >= _needed_cpus(of, stock, slot, node)


@compiled
def has_gres_now(of: Ints, stock: Ints, slot: int, node: int) -> bool:
    """Whether a node has the GRES and the memory that a job takes of one."""
    for kind in range(of[_CLOCK, N_GRES]):
        if stock[node, IS_FREE + OF_GRES + kind] < of[NODE_GRES + kind, slot]:
            return False
    enough: bool = stock[node, IS_FREE + OF_MEMORY] >= _needed_memory(of, stock, slot, node)
    return enough


@compiled
def _has_cpus(of: Ints, stock: Ints, held: Ints, slot: int, node: int, until_s: int, until_id: int) -> bool:
    """Whether a node will have the CPUs that a job takes of one."""
    if not of[NODE_CPUS, slot]:
        return amount_by(of, stock, held, node, OF_JOBS, until_s, until_id) >= 0
    alone = amount_by(of, stock, held, node, OF_WHOLE, until_s, until_id) >= 0
    needed = _needed_cpus(of, stock, slot, node)
    return alone and amount_by(of, stock, held, node, OF_CPUS, until_s, until_id) >= needed


@compiled
def fits_by(of: Ints, stock: Ints, held: Ints, slot: int, node: int, until_s: int, until_id: int) -> bool:
    """Whether a node will have what a job takes of one."""
    if not _has_cpus(of, stock, held, slot, node, until_s, until_id):
        return False
    return not of[NODE_CPUS, slot] or has_gres(of, stock, held, slot, node, until_s, until_id)


@compiled
def has_gres(of: Ints, stock: Ints, held: Ints, slot: int, node: int, until_s: int, until_id: int) -> bool:
    """Whether a node will have the GRES and the memory that a job takes of one."""
    needed = _needed_memory(of, stock, slot, node)
    if amount_by(of, stock, held, node, OF_MEMORY, until_s, until_id) < needed:
        return False
    for kind in range(of[_CLOCK, N_GRES]):
        wanted = of[NODE_GRES + kind, slot]
        if wanted and amount_by(of, stock, held, node, OF_GRES + kind, until_s, until_id) < wanted:
            return False
    return True


@compiled
def offer(of: Ints, stock: Ints, held: Ints, slot: int, node: int, until_s: int, until_id: int) -> int:
    """Return how many CPUs of a node a job could use; of one with GRES only those that a node has to give."""
    cpus = _usable_cpus(of, stock, held, slot, node, until_s, until_id)
    if of[NODE_CPUS, slot] and of[GRES_A_NODE, slot] and not of[SPREAD, slot]:
        cpus = min(cpus, _needed_cpus(of, stock, slot, node))
    return cpus


@compiled
def _usable_cpus(of: Ints, stock: Ints, held: Ints, slot: int, node: int, until_s: int, until_id: int) -> int:
    if not of[NODE_CPUS, slot]:
        full: int = stock[node, IN_FULL + OF_CPUS]
        return full
    cpus = amount_by(of, stock, held, node, OF_CPUS, until_s, until_id)
    if of[CPU_MEMORY, slot]:
        memory, each = amount_by(of, stock, held, node, OF_MEMORY, until_s, until_id), of[CPU_MEMORY, slot] // _MIB
        if memory < cpus * max(1, each):
            units = -(-(cpus - memory // max(1, each)) // stock[node, UNITS])
            cpus = max(0, cpus - units * stock[node, UNITS])
        if cpus != of[NODE_CPUS, slot]:
            cpus = cpus // of[NODE_CPUS, slot] * of[NODE_CPUS, slot]
    return cpus


@compiled
def take(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Give out what a job gets of ``CHOSEN``."""
    left = of[CPUS, slot] - of[NODE_CPUS, slot] * common(sets, CHOSEN, CHOSEN)
    of[FIRST_HELD, slot] = -1
    for word in range(sets.shape[1]):
        bits = sets[CHOSEN, word]
        while bits:
            node = word * 64 + trailing_zeros(bits)
            bits &= bits - _ONE
            cpus = _first_cpus(rules, of, stock, slot, node)
            if left > 0 and of[NODE_CPUS, slot]:
                extra = max(0, min(left, _usable_cpus(of, stock, held, slot, node, NEVER, 0) - of[NODE_CPUS, slot]))
                units = stock[node, UNITS]
                cpus = -(-(of[NODE_CPUS, slot] + extra) // units) * units
                left -= extra
            place = of[_CLOCK, UNUSED_HELD]
            of[_CLOCK, UNUSED_HELD] = held[place, HELD_NEXT]
            held[place, HELD_NODE], held[place, HELD_SLOT], held[place, HELD_CPUS] = node, slot, cpus
            held[place, HELD_MEMORY] = _needed_memory(of, stock, slot, node)
            held[place, HELD_NEXT] = of[FIRST_HELD, slot]
            of[FIRST_HELD, slot] = place
            _chain(of, stock, held, place)
            _add(of, stock, held, place, -1)
            _alter(rules, of, sets, stock, node)


@compiled
def _chain(of: Ints, stock: Ints, held: Ints, place: int) -> None:
    """Put what a job has of a node where it belongs by the end of its limit."""
    node, slot = held[place, HELD_NODE], held[place, HELD_SLOT]
    end, before, later = of[LIMIT_END_S, slot], -1, stock[node, FIRST_ENDING]
    while later >= 0:
        other = held[later, HELD_SLOT]
        if of[LIMIT_END_S, other] > end or (of[LIMIT_END_S, other] == end and of[ID, other] > of[ID, slot]):
            break
        before, later = later, held[later, HELD_LATER]
    held[place, HELD_LATER] = later
    if before < 0:
        stock[node, FIRST_ENDING] = place
    else:
        held[before, HELD_LATER] = place


@compiled
def _unchain(stock: Ints, held: Ints, place: int) -> None:
    node, later = held[place, HELD_NODE], held[place, HELD_LATER]
    before = stock[node, FIRST_ENDING]
    if before == place:
        stock[node, FIRST_ENDING] = later
        return
    while held[before, HELD_LATER] != place:
        before = held[before, HELD_LATER]
    held[before, HELD_LATER] = later


@compiled
def _first_cpus(rules: Ints, of: Ints, stock: Ints, slot: int, node: int) -> int:
    """Return the CPUs that a job gets of a node before those that it wants beyond its least are divided."""
    wanted = of[NODE_CPUS, slot]
    if not wanted:
        full: int = stock[node, IN_FULL + OF_CPUS]
        return full
    cpus = _needed_cpus(of, stock, slot, node)
    units = stock[node, UNITS]
    if rules[WHOLE_SOCKETS] and cpus > units:
        sockets = min(-(-wanted // stock[node, THREADS]), stock[node, IS_FREE + OF_CPUS] // units)
        cpus = max(cpus, sockets * units)
    return cpus


@compiled
def _add(of: Ints, stock: Ints, held: Ints, place: int, sign: int) -> None:
    """Add, or take off, what a job has of a node."""
    node = held[place, HELD_NODE]
    for amount in range(OF_GRES + of[_CLOCK, N_GRES]):
        stock[node, IS_FREE + amount] += sign * _held_amount(of, stock, held, place, amount)


@compiled
def _alter(rules: Ints, of: Ints, sets: Sets, stock: Ints, node: int) -> None:
    """Note that what is free of a node has changed."""
    of[ALTERED, of[_CLOCK, N_ALTERED] % rules[NODES]] = node
    of[_CLOCK, N_ALTERED] += 1
    word, bit = node // 64, _ONE << np.uint64(node % 64)
    mark(sets, BUSY, word, bit, stock[node, IS_FREE + OF_CPUS] <= 0 or stock[node, IS_FREE + OF_WHOLE] < 0)
    mark(sets, IDLE, word, bit, stock[node, IS_FREE + OF_JOBS] == 0)


@compiled
def give_back(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Take back what a job had."""
    place = of[FIRST_HELD, slot]
    while place >= 0:
        following = held[place, HELD_NEXT]
        _unchain(stock, held, place)
        _add(of, stock, held, place, 1)
        _alter(rules, of, sets, stock, held[place, HELD_NODE])
        held[place, HELD_NEXT] = of[_CLOCK, UNUSED_HELD]
        of[_CLOCK, UNUSED_HELD] = place
        place = following
    of[FIRST_HELD, slot] = -1
