"""Which nodes a job that shares them gets, compiled: :mod:`hpcplan.simulate.shared_choice` on arrays.

What counts, and why, is explained there; the names are the same. Runs are in the rows ``RUN_BEGINS`` and after; one
that has been taken from has no size any more.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.jit import compiled, trailing_zeros
from hpcplan.simulate.compiled.kinds import find_room
from hpcplan.simulate.compiled.layout import (
    CHOSEN, CPUS, ELIGIBLE, ELIGIBLE_SETS, FEW_SWITCHES, GRES_A_NODE, LEAST_LOADED, LIGHT, MAXIMUM, NEAR_SETS, NEED,
    NEVER, NODE_CPUS, OFFER, OF_GRES, POOL, RUN_BEGINS, RUN_CPUS, RUN_ORDER, RUN_SIZES, RUN_WEIGHTS, SPREAD, STEADY,
    STILL_WANTED, SWITCHES, THREADS, WEIGHTS, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.stock import amount_by, offer
from hpcplan.simulate.compiled.switches import choose_under_switches
from hpcplan.simulate.compiled.weighing import nearness, weigh

__all__ = ["choose_nodes", "choose_now"]

_ONE: Final = np.uint64(1)
_NODES, _CPUS, _CPUS_LEFT, _TO_COME, _MOST = range(5)  # what is still wanted, in the row of that name


@compiled
def choose_now(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, mask: int) -> bool:
    """Put the nodes of a set that a job would be given now into ``CHOSEN``; whether it fits."""
    room, eligible = find_room(rules, of, sets, stock, held, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    weigh(rules, of, sets, slot, mask, rules[NEAR_SETS])
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[room, word] & sets[mask, word] & sets[eligible, word]
    if common(sets, POOL, POOL) < of[NEED, slot]:
        return False
    return choose_nodes(rules, of, sets, stock, held, slot, NEVER, 0)


@compiled
def choose_nodes(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, until_s: int, until_id: int
) -> bool:  # fmt: skip
    """Put the nodes of ``POOL`` that a job would be given then into ``CHOSEN``, and use it up; whether it fits."""
    if rules[SWITCHES]:
        return _under_switches(rules, of, sets, stock, held, slot, until_s, until_id)
    there = 0
    for word in range(sets.shape[1]):
        bits = sets[POOL, word]
        while bits:
            bit = bits & (~bits + _ONE)
            node = word * 64 + trailing_zeros(bits)
            bits ^= bit
            cpus = of[NODE_CPUS, slot] if of[STEADY, slot] else offer(of, stock, held, slot, node, until_s, until_id)
            of[OFFER, node] = cpus
            if cpus > 0:
                there += 1
            else:
                sets[POOL, word] &= ~bit
    if there < of[NEED, slot]:
        return False
    runs = _runs(of, sets, slot)
    if of[MAXIMUM, slot] == 1 and not (of[SPREAD, slot] or of[LEAST_LOADED, slot]):
        return _one_node(of, sets, slot, runs)
    if _evaluate(of, sets, stock, slot, runs):
        return True
    if there <= of[NEED, slot]:
        return False
    return _with_fewer(of, sets, stock, held, slot, there, until_s, until_id)


@compiled
def _under_switches(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, until_s: int, until_id: int
) -> bool:  # fmt: skip
    """Do that in a tree: a job that spreads out has as few nodes as have enough CPUs."""
    need, most, few = of[NEED, slot], of[MAXIMUM, slot], of[FEW_SWITCHES, slot]
    if not of[SPREAD, slot]:
        return choose_under_switches(rules, of, sets, -1, POOL, need, most, few)
    for count in range(need, most + 1):
        if not choose_under_switches(rules, of, sets, -1, POOL, count, count, few):
            continue
        cpus = 0
        for word in range(sets.shape[1]):
            bits = sets[CHOSEN, word]
            while bits:
                cpus += offer(of, stock, held, slot, word * 64 + trailing_zeros(bits), until_s, until_id)
                bits &= bits - _ONE
        if cpus >= of[CPUS, slot]:
            return True
    return False


@compiled
def _with_fewer(
    of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, there: int, until_s: int, until_id: int
) -> bool:  # fmt: skip
    """Try again without the nodes that offer least, as far as there are more than needed."""
    words = sets.shape[1]
    for word in range(words):
        sets[LIGHT, word] = sets[POOL, word]
    before = -1
    while True:
        size, larger = -1, False  # the next size, and whether there is a larger one
        for word in range(words):
            bits = sets[LIGHT, word]
            while bits:
                one = _size(of, stock, held, word * 64 + trailing_zeros(bits), until_s, until_id)
                bits &= bits - _ONE
                if one > before and (size < 0 or one < size):
                    larger = larger or size >= 0
                    size = one
                elif one > size >= 0:
                    larger = True
        if not larger:
            return False
        before = size
        for word in range(words):
            bits = sets[POOL, word]
            while bits and there > of[NEED, slot]:
                bit = bits & (~bits + _ONE)
                if _size(of, stock, held, word * 64 + trailing_zeros(bits), until_s, until_id) == size:
                    sets[POOL, word] &= ~bit
                    there -= 1
                bits ^= bit
        if _evaluate(of, sets, stock, slot, _runs(of, sets, slot)):
            return True
        if there <= of[NEED, slot]:
            return False


@compiled
def _size(of: Ints, stock: Ints, held: Ints, node: int, until_s: int, until_id: int) -> int:
    return of[OFFER, node] + amount_by(of, stock, held, node, OF_GRES, until_s, until_id)


@compiled
def _runs(of: Ints, sets: Sets, slot: int) -> int:
    """Find the runs of consecutive nodes of one weight in ``POOL``, lowest first, and return how many there are."""
    found, follows = 0, -1
    alike = of[GRES_A_NODE, slot] > 0 and of[NODE_CPUS, slot] > 0  # it has been weighed on all of them just now
    for word in range(sets.shape[1]):
        bits = sets[POOL, word]
        while bits:
            node = word * 64 + trailing_zeros(bits)
            bits &= bits - _ONE
            weight = of[WEIGHTS, node]
            if not alike:
                weight -= nearness(of, sets, node)
            if node != follows or weight != of[RUN_WEIGHTS, found - 1]:
                of[RUN_BEGINS, found], of[RUN_SIZES, found] = node, 0
                of[RUN_CPUS, found], of[RUN_WEIGHTS, found] = 0, weight
                found += 1
            of[RUN_SIZES, found - 1] += 1
            of[RUN_CPUS, found - 1] += of[OFFER, node]
            follows = node + 1
    return found


@compiled
def _one_node(of: Ints, sets: Sets, slot: int, runs: int) -> bool:
    """Do what :func:`_evaluate` does for a job of one node."""
    wanted, best, chosen = of[CPUS, slot], -1, -1
    for run in range(runs):
        if best >= 0 and (
            of[RUN_WEIGHTS, run] > of[RUN_WEIGHTS, best]
            or (of[RUN_WEIGHTS, run] == of[RUN_WEIGHTS, best] and of[RUN_CPUS, run] >= of[RUN_CPUS, best])
        ):
            continue
        tightest = _tightest(of, run, wanted)
        if tightest >= 0:
            best, chosen = run, tightest
    if best < 0:
        return False
    for word in range(sets.shape[1]):
        sets[CHOSEN, word] = 0
    sets[CHOSEN, chosen // 64] = _ONE << np.uint64(chosen % 64)
    return True


@compiled
def _tightest(of: Ints, run: int, cpus: int) -> int:
    """Return the node of a run with the fewest CPUs that has so many, -1 if there is none."""
    found = -1
    for node in range(of[RUN_BEGINS, run], of[RUN_BEGINS, run] + of[RUN_SIZES, run]):
        if of[OFFER, node] >= cpus and (found < 0 or of[OFFER, node] < of[OFFER, found]):
            found = node
    return found


@compiled
def _evaluate(of: Ints, sets: Sets, stock: Ints, slot: int, runs: int) -> bool:
    for word in range(sets.shape[1]):
        sets[CHOSEN, word] = 0
    still, least, most = STILL_WANTED, of[NEED, slot], of[MAXIMUM, slot]
    of[still, _NODES] = least if of[SPREAD, slot] else most
    asked = of[still, _NODES]
    if of[SPREAD, slot]:
        most = min(most, max(of[CPUS, slot] // of[NODE_CPUS, slot], least))
    of[still, _MOST] = most
    of[still, _CPUS] = of[still, _CPUS_LEFT] = of[CPUS, slot]
    of[still, _TO_COME] = least
    if of[LEAST_LOADED, slot]:
        return _take_least_loaded(of, sets, stock, slot, least - asked)
    _sort_runs(of, runs)
    while of[still, _MOST] > 0:
        run = _best(of, runs, least - asked)
        if run < 0:
            break
        _fill(of, sets, stock, slot, run)
        of[RUN_SIZES, run] = 0
        if of[still, _NODES] <= 0 and of[still, _CPUS] <= 0:
            return True
    return of[still, _CPUS] <= 0 and of[still, _NODES] + least - asked <= 0


@compiled
def _sort_runs(of: Ints, runs: int) -> None:
    """Put the runs into the order of ``RUN_ORDER``: by weight, then those with most CPUs first."""
    for run in range(runs):
        of[RUN_ORDER, run] = run
    gap = runs // 2
    while gap:  # Shell's sort
        for place in range(gap, runs):
            run, at = of[RUN_ORDER, place], place
            while at >= gap and _goes_before(of, run, of[RUN_ORDER, at - gap]):
                of[RUN_ORDER, at] = of[RUN_ORDER, at - gap]
                at -= gap
            of[RUN_ORDER, at] = run
        gap //= 2


@compiled
def _goes_before(of: Ints, one: int, other: int) -> bool:
    if of[RUN_WEIGHTS, one] != of[RUN_WEIGHTS, other]:
        return of[RUN_WEIGHTS, one] < of[RUN_WEIGHTS, other]
    if of[RUN_CPUS, one] != of[RUN_CPUS, other]:
        return of[RUN_CPUS, one] > of[RUN_CPUS, other]
    return one < other


@compiled
def _best(of: Ints, runs: int, spare: int) -> int:
    """Return the run to take nodes from next: of the least weight, that fits tightest; -1 if none is left."""
    place = 0
    while place < runs and not of[RUN_SIZES, of[RUN_ORDER, place]]:
        place += 1
    if place == runs:
        return -1
    best = of[RUN_ORDER, place]
    if of[RUN_CPUS, best] < of[STILL_WANTED, _CPUS]:
        return best  # none has enough
    best, fits, weight = -1, False, of[RUN_WEIGHTS, best]
    for run in range(runs):
        size, cpus = of[RUN_SIZES, run], of[RUN_CPUS, run]
        if not size or of[RUN_WEIGHTS, run] != weight:
            continue
        enough = cpus >= of[STILL_WANTED, _CPUS] and size >= of[STILL_WANTED, _NODES] + spare
        if best >= 0:
            better = (not fits or cpus < of[RUN_CPUS, best]) if enough else cpus > of[RUN_CPUS, best]
            if not better:
                continue
        best, fits = run, enough
    return best


@compiled
def _fill(of: Ints, sets: Sets, stock: Ints, slot: int, run: int) -> None:
    """Take nodes of a run as far as they are wanted."""
    still = STILL_WANTED
    first, beyond = of[RUN_BEGINS, run], of[RUN_BEGINS, run] + of[RUN_SIZES, run]
    if of[still, _NODES] <= 1:
        single = _tightest(of, run, of[still, _CPUS])
        if single >= 0:
            first, beyond = single, single + 1
    for node in range(first, beyond):
        if of[still, _MOST] <= 0 or (of[still, _NODES] <= 0 and of[still, _CPUS] <= 0):
            break
        cpus = of[OFFER, node]
        if of[still, _MOST] == 1 and cpus < of[still, _CPUS]:
            continue
        _take(of, sets, stock, slot, node)


@compiled
def _take(of: Ints, sets: Sets, stock: Ints, slot: int, node: int) -> None:
    still, cpus = STILL_WANTED, of[OFFER, node]
    if of[NODE_CPUS, slot]:
        left = of[still, _CPUS_LEFT] - max(0, of[still, _TO_COME] - 1) * stock[node, THREADS]
        if cpus > left:
            cpus = max(left, of[NODE_CPUS, slot])
    of[still, _CPUS] -= cpus
    of[still, _CPUS_LEFT] -= cpus
    of[still, _NODES] -= 1
    of[still, _TO_COME] -= 1
    of[still, _MOST] -= 1
    sets[CHOSEN, node // 64] |= _ONE << np.uint64(node % 64)


@compiled
def _take_least_loaded(of: Ints, sets: Sets, stock: Ints, slot: int, spare: int) -> bool:
    """Take nodes with the most CPUs, of those of the least weight, whatever stands between them."""
    still = STILL_WANTED
    while of[still, _MOST] > 0 and not (of[still, _NODES] <= 0 and of[still, _CPUS] <= 0):
        best = -1
        for word in range(sets.shape[1]):
            bits = sets[POOL, word] & ~sets[CHOSEN, word]
            while bits:
                node = word * 64 + trailing_zeros(bits)
                bits &= bits - _ONE
                if best < 0:
                    best = node
                    continue
                heavier = of[WEIGHTS, node] - of[WEIGHTS, best] + nearness(of, sets, best) - nearness(of, sets, node)
                if heavier < 0 or (not heavier and of[OFFER, node] > of[OFFER, best]):
                    best = node
        if best < 0:
            break
        _take(of, sets, stock, slot, best)
    return of[still, _CPUS] <= 0 and of[still, _NODES] + spare <= 0
