"""Which nodes a job gets, compiled: :mod:`hpcplan.simulate.placement` on arrays, for whole nodes."""

# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.bits import add_best_fit, common, has_all, take_lowest
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    CHOSEN, CONSUMABLE, COVERED, FEW_SWITCHES, LIGHT, LINES, LINE_SETS, NEED, REQUIRED, REQUIRED_SETS, SWITCHES, TIER,
    UNDER_SWITCH, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.switches import choose_under_switches

__all__ = ["by_number", "choose", "plan", "required_of"]

_NONE: Final = -1


@compiled
def by_number(of: Ints, slot: int) -> bool:
    """Whether it is a matter of numbers if a job fits into nodes that are eligible."""
    return of[COVERED, slot] > 0 and not of[FEW_SWITCHES, slot] and not of[REQUIRED, slot]


@compiled
def required_of(rules: Ints, of: Ints, slot: int) -> int:
    """Return the row of the nodes that a job must have, -1 if there are none."""
    return rules[REQUIRED_SETS] + slot if of[REQUIRED, slot] else -1


@compiled
def choose(rules: Ints, of: Ints, sets: Sets, slot: int, usable: int, few: int) -> bool:
    """Put those of the usable nodes, which are eligible, that a job would be given into ``CHOSEN``; whether it fits.

    Without switches: lines of slurm.conf (``LINE_SETS``), those of less weight first, until they have enough. Else of
    less weight first, and under ``few`` leaf switches (0: any number).
    """
    need, required = of[NEED, slot], required_of(rules, of, slot)
    if required >= 0 and not has_all(sets, usable, required):
        return False
    whole = not (rules[CONSUMABLE] or rules[SWITCHES])
    if whole and rules[LINES] == 1:
        return _in_blocks(of, sets, need, required, usable, _NONE)
    for word in range(sets.shape[1]):
        sets[LIGHT, word] = sets[TIER, word] = 0
    for line in range(rules[LINES]):
        there = 0
        for word in range(sets.shape[1]):
            sets[LIGHT, word] |= sets[usable, word] & sets[rules[LINE_SETS] + line, word]
            there += ones(sets[LIGHT, word])
        if there >= need and (required < 0 or has_all(sets, LIGHT, required)):
            if whole:
                return _in_blocks(of, sets, need, required, LIGHT, _NONE)
            if not rules[SWITCHES]:
                return _in_blocks(of, sets, need, required, LIGHT, TIER)
            if choose_under_switches(rules, of, sets, required, LIGHT, need, need, few):
                return True
        for word in range(sets.shape[1]):
            sets[TIER, word] = sets[LIGHT, word]
    return False


@compiled
def plan(rules: Ints, of: Ints, sets: Sets, slot: int, usable: int) -> bool:
    """Do the same as backfill does for later; select/linear without switches has no weights there."""
    if rules[CONSUMABLE] or rules[SWITCHES]:
        return choose(rules, of, sets, slot, usable, of[FEW_SWITCHES, slot])
    need, required = of[NEED, slot], required_of(rules, of, slot)
    if required >= 0 and not has_all(sets, usable, required):
        return False
    return _in_blocks(of, sets, need, required, usable, _NONE)


@compiled
def _in_blocks(of: Ints, sets: Sets, need: int, required: int, pool: int, lighter: int) -> bool:
    """Take the lighter nodes (a row, if not negative), and the rest from the runs of the others; whether it fits."""
    there = common(sets, pool, pool)
    if there < need:
        return False
    if there == need:
        for word in range(sets.shape[1]):
            sets[CHOSEN, word] = sets[pool, word]
        return True
    for word in range(sets.shape[1]):
        sets[CHOSEN, word] = 0
    if required < 0 and lighter < 0:
        add_best_fit(of, sets, pool, need, CHOSEN)
        return True
    if required >= 0:
        for word in range(sets.shape[1]):
            sets[CHOSEN, word] = sets[required, word]
        need -= common(sets, required, required)
    for word in range(sets.shape[1]):
        sets[UNDER_SWITCH, word] = sets[pool, word] & ~sets[CHOSEN, word]
    if lighter >= 0:
        need -= take_lowest(sets, lighter, UNDER_SWITCH, 0, sets.shape[1] - 1, need, CHOSEN)
        for word in range(sets.shape[1]):
            sets[UNDER_SWITCH, word] &= ~sets[lighter, word]
    if need > 0:
        add_best_fit(of, sets, UNDER_SWITCH, need, CHOSEN)
    return True
