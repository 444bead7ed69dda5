"""What is left of nodes that jobs share, compiled: :mod:`hpcplan.simulate.resources` on arrays; the names are the same.

A trial is a look at how things would be if running jobs had ended: amounts of the nodes that it has not touched are
those of now. The number of the trial is given as ``trial``; :data:`NOW_IT_IS` is none.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.jit import compiled, trailing_zeros
from hpcplan.simulate.compiled.layout import (
    ALTERED, AMOUNTS, BUSY, CHOSEN, CPUS, CPU_MEMORY, ELIGIBLE, ELIGIBLE_SETS, FIRST_HELD, GRES_A_NODE, GRES_KINDS,
    HELD_CPUS, HELD_NEXT, HELD_NODE, IDLE, IN_FULL, IN_TRIAL, IS_FREE, KIND, NEAR, NODES, NODE_CPUS, NODE_GRES,
    NODE_MEMORY, N_ALTERED, OF_CLOCK, OF_CPUS, OF_GRES, OF_JOBS, OF_MEMORY, OF_WHOLE, ROOM_KNOWN, ROOM_SETS,
    SPREAD, THREADS, TRIED_IN, UNITS, UNUSED_HELD, WHOLE_SOCKETS, Ints, Sets,
)  # fmt: skip

__all__ = ["NOW_IT_IS", "add_held", "find_room", "fits", "give_back", "level", "offer", "take", "weigh"]

NOW_IT_IS: Final = -1
_ONE: Final = np.uint64(1)
_MIB: Final = 1024**2
_AMOUNTS: Final = len(AMOUNTS)
_CLOCK: Final = OF_CLOCK


@compiled
def _needed_cpus(of: Ints, stock: Ints, slot: int, node: int) -> int:
    units = stock[node, UNITS]
    needed: int = -(-of[NODE_CPUS, slot] // units) * units
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
def _amounts_in(stock: Ints, node: int, trial: int) -> int:
    """Return the first of the columns that hold what is free of a node."""
    return IN_TRIAL if stock[node, TRIED_IN] == trial else IS_FREE


@compiled
def fits(of: Ints, stock: Ints, slot: int, node: int, trial: int) -> bool:
    """Whether a node has what a job takes of one."""
    first = _amounts_in(stock, node, trial)
    if stock[node, first + OF_WHOLE]:
        return False
    if not of[NODE_CPUS, slot]:
        idle: bool = stock[node, first + OF_JOBS] == 0
        return idle
    if stock[node, first + OF_CPUS] < _needed_cpus(of, stock, slot, node):
        return False
    return _has_gres(of, stock, slot, node, first) and (
        stock[node, first + OF_MEMORY] >= _needed_memory(of, stock, slot, node)
    )


@compiled
def _has_gres(of: Ints, stock: Ints, slot: int, node: int, first: int) -> bool:
    for kind in range(GRES_KINDS):  # noqa: SIM110  (numba knows no generators)
        if stock[node, first + OF_GRES + kind] < of[NODE_GRES + kind, slot]:
            return False
    return True


@compiled
def offer(of: Ints, stock: Ints, slot: int, node: int, trial: int) -> int:
    """Return how many CPUs of a node a job could use."""
    if not of[NODE_CPUS, slot]:
        full: int = stock[node, IN_FULL + OF_CPUS]
        return full
    first = _amounts_in(stock, node, trial)
    cpus: int = stock[node, first + OF_CPUS]
    if of[CPU_MEMORY, slot]:
        with_memory = stock[node, first + OF_MEMORY] // max(1, of[CPU_MEMORY, slot] // _MIB)
        units = max(0, -(-(cpus - with_memory) // stock[node, UNITS]))
        cpus = max(0, cpus - units * stock[node, UNITS])
        cpus = cpus // of[NODE_CPUS, slot] * of[NODE_CPUS, slot]
    if of[GRES_A_NODE, slot] and not of[SPREAD, slot]:
        cpus = min(cpus, _needed_cpus(of, stock, slot, node))
    return cpus


@compiled
def find_room(rules: Ints, of: Ints, sets: Sets, stock: Ints, slot: int) -> int:
    """Return the row of the nodes that have room for a job of this kind, after bringing it up to date."""
    kind = of[KIND, slot]
    row: int = rules[ROOM_SETS] + kind
    known, altered, nodes = of[ROOM_KNOWN, kind], of[_CLOCK, N_ALTERED], rules[NODES]
    if known == altered:
        return row
    if altered - known >= nodes or not known:
        for node in range(nodes):
            _note_room(of, sets, stock, slot, node, row)
    else:
        for number in range(known, altered):
            _note_room(of, sets, stock, slot, of[ALTERED, number % nodes], row)
    of[ROOM_KNOWN, kind] = altered
    return row


@compiled
def _note_room(of: Ints, sets: Sets, stock: Ints, slot: int, node: int, row: int) -> None:
    bit = _ONE << np.uint64(node % 64)
    if fits(of, stock, slot, node, NOW_IT_IS):
        sets[row, node // 64] |= bit
    else:
        sets[row, node // 64] &= ~bit


@compiled
def weigh(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, slot: int, mask: int, ever: bool, trial: int
) -> None:  # fmt: skip
    """Note that a job is looked at on these nodes, or where it could run ``ever``."""
    count = of[GRES_A_NODE, slot]
    if not count:
        return
    eligible = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    for word in range(sets.shape[1]):
        bits = sets[mask, word] & sets[eligible, word]
        while bits:
            node = word * 64 + trailing_zeros(bits)
            bits &= bits - _ONE
            first = IN_FULL if ever else _amounts_in(stock, node, trial)
            if _has_gres(of, stock, slot, node, first) and (
                ever or stock[node, first + OF_MEMORY] >= _needed_memory(of, stock, slot, node)
            ):
                stock[node, NEAR] = count


@compiled
def level(rules: Ints, of: Ints, sets: Sets, stock: Ints, slot: int, mask: int) -> None:
    """Give these nodes of a job their own weights again."""
    eligible = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    for word in range(sets.shape[1]):
        bits = sets[mask, word] & sets[eligible, word]
        while bits:
            stock[word * 64 + trailing_zeros(bits), NEAR] = 0
            bits &= bits - _ONE


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
                extra = max(0, min(left, offer(of, stock, slot, node, NOW_IT_IS) - of[NODE_CPUS, slot]))
                units = stock[node, UNITS]
                cpus = -(-(of[NODE_CPUS, slot] + extra) // units) * units
                left -= extra
            place = of[_CLOCK, UNUSED_HELD]
            of[_CLOCK, UNUSED_HELD] = held[place, HELD_NEXT]
            held[place, HELD_NODE], held[place, HELD_CPUS] = node, cpus
            held[place, HELD_NEXT] = of[FIRST_HELD, slot]
            of[FIRST_HELD, slot] = place
            _add(of, stock, slot, node, cpus, IS_FREE, -1)
            _alter(rules, of, sets, stock, node)


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
def _add(of: Ints, stock: Ints, slot: int, node: int, cpus: int, first: int, sign: int) -> None:
    """Add, or take off, what a job has of a node."""
    stock[node, first + OF_JOBS] += sign
    if not of[NODE_CPUS, slot]:
        stock[node, first + OF_WHOLE] += sign
        stock[node, first + OF_CPUS] += sign * stock[node, IN_FULL + OF_CPUS]
        stock[node, first + OF_MEMORY] += sign * stock[node, IN_FULL + OF_MEMORY]
        for kind in range(OF_GRES, OF_GRES + GRES_KINDS):
            stock[node, first + kind] += sign * stock[node, IN_FULL + kind]
        return
    stock[node, first + OF_CPUS] += sign * cpus
    stock[node, first + OF_MEMORY] += sign * _needed_memory(of, stock, slot, node)
    if of[GRES_A_NODE, slot]:
        for kind in range(GRES_KINDS):
            stock[node, first + OF_GRES + kind] += sign * of[NODE_GRES + kind, slot]


@compiled
def _alter(rules: Ints, of: Ints, sets: Sets, stock: Ints, node: int) -> None:
    """Note that what is free of a node has changed."""
    of[ALTERED, of[_CLOCK, N_ALTERED] % rules[NODES]] = node
    of[_CLOCK, N_ALTERED] += 1
    word, bit = node // 64, _ONE << np.uint64(node % 64)
    if stock[node, IS_FREE + OF_CPUS] <= 0 or stock[node, IS_FREE + OF_WHOLE] < 0:
        sets[BUSY, word] |= bit
    else:
        sets[BUSY, word] &= ~bit
    if stock[node, IS_FREE + OF_JOBS] == 0:
        sets[IDLE, word] |= bit
    else:
        sets[IDLE, word] &= ~bit


@compiled
def give_back(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Take back what a job had."""
    place = of[FIRST_HELD, slot]
    while place >= 0:
        node, following = held[place, HELD_NODE], held[place, HELD_NEXT]
        _add(of, stock, slot, node, held[place, HELD_CPUS], IS_FREE, 1)
        _alter(rules, of, sets, stock, node)
        held[place, HELD_NEXT] = of[_CLOCK, UNUSED_HELD]
        of[_CLOCK, UNUSED_HELD] = place
        place = following
    of[FIRST_HELD, slot] = -1


@compiled
def add_held(of: Ints, stock: Ints, slot: int, node: int, cpus: int, trial: int) -> None:
    """Let a job have given a node back, in a trial."""
    if stock[node, TRIED_IN] != trial:
        stock[node, TRIED_IN] = trial
        for amount in range(_AMOUNTS):
            stock[node, IN_TRIAL + amount] = stock[node, IS_FREE + amount]
    _add(of, stock, slot, node, cpus, IN_TRIAL, 1)
