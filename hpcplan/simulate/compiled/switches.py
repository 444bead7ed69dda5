"""Which nodes a job gets under a tree of switches, compiled: :mod:`hpcplan.simulate.placement` (``_under_switches``)
and :mod:`hpcplan.simulate.switch_tree` on arrays; the names are the same.

The i-th of ``SWITCH_SETS`` has the nodes under the i-th switch.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.bits import has_all, is_empty, take_lowest
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    CHOSEN, CONSUMABLE, SWITCHES, SWITCH_ABOVE, SWITCH_COUNT, SWITCH_FAR, SWITCH_FIRST_WORD, SWITCH_LAST_WORD,
    SWITCH_LEVEL, SWITCH_ORDER, SWITCH_SETS, SWITCH_STEPS, UNDER_SWITCH, Ints, Sets,
)  # fmt: skip

__all__ = ["choose_under_switches"]

_NUMBER_BITS: Final = 20  # of a key to sort by: at most so many bits tell which switch it is
_COUNT_BITS: Final = 32


@compiled
def choose_under_switches(
    rules: Ints, of: Ints, sets: Sets, required: int, pool: int, need: int, most: int, few: int
) -> bool:  # fmt: skip
    """Put from ``need`` to ``most`` nodes of ``pool`` into ``CHOSEN``, under ``few`` leaves (0: any number) if given.

    All of the row ``required`` (-1: none) are among them. Whether it fits.
    """
    best = _lowest_that_holds(rules, of, sets, pool, need, required)
    if best < 0:
        return False
    row, there, given = rules[SWITCH_SETS] + best, 0, 0
    for word in range(sets.shape[1]):
        bits = sets[pool, word] & sets[row, word]
        there += ones(bits)
        sets[CHOSEN, word] = 0
        if required >= 0:
            sets[CHOSEN, word] = sets[required, word]
            given += ones(sets[required, word])
            bits &= ~sets[required, word]
        sets[UNDER_SWITCH, word] = bits
    wanted = min(there, most) - given
    if rules[CONSUMABLE]:
        _leaf_by_leaf(rules, of, sets, wanted, required)
    else:
        _smallest_leaves(rules, of, sets, wanted, required)
    if few and _leaf_count(rules, of, sets) > few:
        return False
    return not is_empty(sets, CHOSEN)


@compiled
def _under(rules: Ints, of: Ints, sets: Sets, switch: int, row: int) -> int:
    """Return how many nodes of a row are under a switch."""
    own, count = rules[SWITCH_SETS] + switch, 0
    for word in range(of[SWITCH_FIRST_WORD, switch], of[SWITCH_LAST_WORD, switch] + 1):
        count += ones(sets[own, word] & sets[row, word])
    return count


@compiled
def _lowest_that_holds(rules: Ints, of: Ints, sets: Sets, pool: int, need: int, required: int) -> int:
    """Return the lowest switch that has enough nodes, of equals the one with the fewest; -1 if none has."""
    best = fewest = -1
    for switch in range(rules[SWITCHES]):
        if best >= 0 and of[SWITCH_LEVEL, switch] > of[SWITCH_LEVEL, best]:
            continue
        count = _under(rules, of, sets, switch, pool)
        if count < need or (required >= 0 and not has_all(sets, rules[SWITCH_SETS] + switch, required)):
            continue
        if best < 0 or of[SWITCH_LEVEL, switch] < of[SWITCH_LEVEL, best] or count < fewest:
            best, fewest = switch, count
    return best


@compiled
def _take(rules: Ints, of: Ints, sets: Sets, leaf: int, wanted: int) -> int:
    """Add up to ``wanted`` nodes under a leaf to ``CHOSEN``, the lowest first; return how many."""
    first, last = of[SWITCH_FIRST_WORD, leaf], of[SWITCH_LAST_WORD, leaf]
    return take_lowest(sets, rules[SWITCH_SETS] + leaf, UNDER_SWITCH, first, last, wanted, CHOSEN)


@compiled
def _smallest_leaves(rules: Ints, of: Ints, sets: Sets, wanted: int, required: int) -> None:
    """Take nodes leaf by leaf, those first that hold a node already, then those with the fewest (select/linear)."""
    found = 0
    for leaf in range(rules[SWITCHES]):
        if of[SWITCH_LEVEL, leaf]:
            continue
        count = _under(rules, of, sets, leaf, UNDER_SWITCH)
        if count:
            key = (count << _NUMBER_BITS) + leaf
            if required < 0 or not _under(rules, of, sets, leaf, required):
                key += 1 << (_NUMBER_BITS + _COUNT_BITS)
            of[SWITCH_ORDER, found] = key
            found += 1
    gap = found // 2
    while gap:  # Shell's sort
        for place in range(gap, found):
            key, at = of[SWITCH_ORDER, place], place
            while at >= gap and of[SWITCH_ORDER, at - gap] > key:
                of[SWITCH_ORDER, at] = of[SWITCH_ORDER, at - gap]
                at -= gap
            of[SWITCH_ORDER, at] = key
        gap //= 2
    for place in range(found):
        if wanted <= 0:
            break
        leaf = of[SWITCH_ORDER, place] & ((1 << _NUMBER_BITS) - 1)
        wanted -= _take(rules, of, sets, leaf, wanted)
        for word in range(of[SWITCH_FIRST_WORD, leaf], of[SWITCH_LAST_WORD, leaf] + 1):
            sets[UNDER_SWITCH, word] &= ~sets[CHOSEN, word]


@compiled
def _leaf_by_leaf(rules: Ints, of: Ints, sets: Sets, wanted: int, required: int) -> None:
    """Take nodes leaf by leaf, the next nearest to those taken so far, of equals the one that fits best (cons_tres)."""
    for switch in range(rules[SWITCHES]):
        of[SWITCH_COUNT, switch] = _under(rules, of, sets, switch, UNDER_SWITCH)
        of[SWITCH_FAR, switch] = 0
    if required >= 0:
        for leaf in range(rules[SWITCHES]):
            if not of[SWITCH_LEVEL, leaf] and _under(rules, of, sets, leaf, required):
                _move_away(rules, of, leaf)
    while wanted > 0:
        best = -1
        for leaf in range(rules[SWITCHES]):
            if of[SWITCH_LEVEL, leaf] or not of[SWITCH_COUNT, leaf] or of[SWITCH_FAR, leaf] < 0:
                continue
            if best >= 0:
                further = of[SWITCH_FAR, leaf] - of[SWITCH_FAR, best]
                if further > 0 or _better(of, leaf, best, wanted) < (further == 0):
                    continue
            best = leaf
        if best < 0:
            return
        wanted -= _take(rules, of, sets, best, wanted)
        of[SWITCH_COUNT, best] = 0
        if wanted > 0:
            _move_away(rules, of, best)


@compiled
def _move_away(rules: Ints, of: Ints, leaf: int) -> None:
    """Note how many links further off the others are; those that cannot be reached are out (-1)."""
    for switch in range(rules[SWITCHES]):
        of[SWITCH_STEPS, switch] = -1
    at, steps = leaf, 0
    while at >= 0:
        of[SWITCH_STEPS, at] = steps
        at, steps = of[SWITCH_ABOVE, at], steps + 1
    for other in range(rules[SWITCHES]):
        if of[SWITCH_LEVEL, other] or of[SWITCH_FAR, other] < 0:
            continue
        at, steps = other, 0
        while at >= 0 and of[SWITCH_STEPS, at] < 0:
            at, steps = of[SWITCH_ABOVE, at], steps + 1
        of[SWITCH_FAR, other] = -1 if at < 0 else of[SWITCH_FAR, other] + steps + of[SWITCH_STEPS, at]


@compiled
def _better(of: Ints, one: int, other: int, wanted: int) -> int:
    """Return whether ``one`` (1) or ``other`` (-1) is the better leaf to begin with, 0 if they are alike."""
    while True:
        enough, others = of[SWITCH_COUNT, one] >= wanted, of[SWITCH_COUNT, other] >= wanted
        if enough != others:
            return 1 if enough else -1
        if enough:
            if of[SWITCH_COUNT, one] != of[SWITCH_COUNT, other]:
                return 1 if of[SWITCH_COUNT, one] < of[SWITCH_COUNT, other] else -1
            break
        above, over = of[SWITCH_ABOVE, one], of[SWITCH_ABOVE, other]
        if above < 0 or over < 0:
            break
        one, other = above, over
    if of[SWITCH_COUNT, one] != of[SWITCH_COUNT, other]:
        return 1 if of[SWITCH_COUNT, one] > of[SWITCH_COUNT, other] else -1
    lower: int = of[SWITCH_LEVEL, other] - of[SWITCH_LEVEL, one]
    return min(1, max(-1, lower))


@compiled
def _leaf_count(rules: Ints, of: Ints, sets: Sets) -> int:
    """Return how many leaves have nodes of ``CHOSEN``."""
    count = 0
    for leaf in range(rules[SWITCHES]):
        count += not of[SWITCH_LEVEL, leaf] and _under(rules, of, sets, leaf, CHOSEN) > 0
    return count
