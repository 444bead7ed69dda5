"""Which nodes a job gets, compiled: :mod:`hpcplan.simulate.placement` on arrays, for select/linear without switches."""

from __future__ import annotations

from hpcplan.simulate.compiled.bits import add_best_fit, common
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import CHOSEN, LIGHT, LINE_SETS, LINES, Ints, Sets

__all__ = ["choose", "plan"]


@compiled
def choose(rules: Ints, of: Ints, sets: Sets, usable: int, need: int) -> bool:
    """Put ``need`` of the usable nodes, as Slurm would choose them, into ``CHOSEN``; whether there are so many.

    Lines of slurm.conf (``LINE_SETS``), those of less weight first, until they have enough.
    """
    if rules[LINES] == 1:
        return plan(of, sets, usable, need)
    for word in range(sets.shape[1]):
        sets[LIGHT, word] = 0
    for line in range(rules[LINES]):
        there = 0
        for word in range(sets.shape[1]):
            sets[LIGHT, word] |= sets[usable, word] & sets[rules[LINE_SETS] + line, word]
            there += ones(sets[LIGHT, word])
        if there >= need:
            return plan(of, sets, LIGHT, need)
    return False


@compiled
def plan(of: Ints, sets: Sets, usable: int, need: int) -> bool:
    """Do the same as backfill does for later, weights aside."""
    there = common(sets, usable, usable)
    if there < need:
        return False
    for word in range(sets.shape[1]):
        sets[CHOSEN, word] = 0
    if there > need:
        add_best_fit(of, sets, usable, need, CHOSEN)
        return True
    for word in range(sets.shape[1]):
        sets[CHOSEN, word] = sets[usable, word]
    return True
