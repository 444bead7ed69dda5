"""Where running jobs end that a plan counts on, compiled: :mod:`hpcplan.simulate.job_ends` on arrays.

The i-th of ``LEVEL_SETS`` has the nodes of the first ``of[LEVEL_COUNTS, i]`` of them; levels are worked out as far as
they are asked for.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.backfill import right
from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    CHOSEN, EARLIER, FIRST_USABLE, FIRST_WORD, JOB_SETS, LAST_WORD, LEVEL_COUNTS, LEVEL_SETS, LIMIT_ENDS, LIMIT_SLOTS,
    NODES, N_LEVELS, N_LIMITS, OF_CLOCK, USABLE, Ints, Sets,
)  # fmt: skip

__all__ = ["begin_ends", "count_in_levels", "first_on_usable", "last_of_group"]

_STEP: Final = 16  # jobs from one level to the next
_NONE: Final = np.uint64(0)  # not 0, with which words would become floating-point numbers
_CLOCK: Final = OF_CLOCK


@compiled
def begin_ends(of: Ints) -> None:
    """Begin a pass: no level is worked out, and which job was the first on usable nodes is not known."""
    of[_CLOCK, N_LEVELS], of[_CLOCK, FIRST_USABLE] = 0, -1


@compiled
def count_in_levels(rules: Ints, of: Ints, sets: Sets, place: int) -> None:
    """Count a job that has started on ``CHOSEN``, and has come to this place among those that run."""
    of[_CLOCK, FIRST_USABLE] = -1
    for number in range(of[_CLOCK, N_LEVELS]):
        if of[LEVEL_COUNTS, number] > place:
            of[LEVEL_COUNTS, number] += 1
            for word in range(sets.shape[1]):
                sets[rules[LEVEL_SETS] + number, word] |= sets[CHOSEN, word]


@compiled
def _next_level(rules: Ints, of: Ints, sets: Sets) -> bool:
    """Work out one more level; whether there was one."""
    number, jobs, words = of[_CLOCK, N_LEVELS], of[_CLOCK, N_LIMITS], sets.shape[1]
    row, first = rules[LEVEL_SETS] + number, of[LEVEL_COUNTS, number - 1] if number else 0
    if first == jobs or number == rules[NODES]:
        return False
    for word in range(words):
        sets[row, word] = sets[row - 1, word] if number else _NONE
    beyond = min(first + _STEP, jobs)
    for place in range(first, beyond):
        slot = of[LIMIT_SLOTS, place]
        for word in range(of[FIRST_WORD, slot], of[LAST_WORD, slot] + 1):
            sets[row, word] |= sets[rules[JOB_SETS] + slot, word]
    of[LEVEL_COUNTS, number], of[_CLOCK, N_LEVELS] = beyond, number + 1
    return True


@compiled
def first_on_usable(rules: Ints, of: Ints, sets: Sets) -> int:
    """Return the first running job that has nodes that are usable, the number of them all if none has."""
    first, low, high = rules[LEVEL_SETS], 0, of[_CLOCK, N_LEVELS]
    last = of[_CLOCK, FIRST_USABLE]
    if last >= 0 and not common(sets, EARLIER, USABLE) and _is_on_usable(rules, of, sets, last):
        return last
    if high and common(sets, first + high - 1, USABLE):
        while low < high:
            middle = (low + high) // 2
            if common(sets, first + middle, USABLE):
                high = middle
            else:
                low = middle + 1
    else:
        low = high
        while _next_level(rules, of, sets) and not common(sets, first + low, USABLE):
            low += 1
    found = before = of[LEVEL_COUNTS, low - 1] if low else 0
    while found < of[_CLOCK, N_LIMITS] and not _is_on_usable(rules, of, sets, found):
        found += 1
    for word in range(sets.shape[1]):
        sets[EARLIER, word] = sets[first + low - 1, word] if low else _NONE
    for number in range(before, found):
        slot = of[LIMIT_SLOTS, number]
        for word in range(of[FIRST_WORD, slot], of[LAST_WORD, slot] + 1):
            sets[EARLIER, word] |= sets[rules[JOB_SETS] + slot, word]
    of[_CLOCK, FIRST_USABLE] = found if found < of[_CLOCK, N_LIMITS] else -1
    return found


@compiled
def _is_on_usable(rules: Ints, of: Ints, sets: Sets, number: int) -> bool:
    """Whether a running job has nodes that are usable."""
    slot = of[LIMIT_SLOTS, number]
    held = rules[JOB_SETS] + slot
    for word in range(of[FIRST_WORD, slot], of[LAST_WORD, slot] + 1):  # noqa: SIM110  (numba knows no generators)
        if sets[held, word] & sets[USABLE, word]:
            return True
    return False


@compiled
def _next_on_usable(rules: Ints, of: Ints, sets: Sets, number: int) -> int:
    """Return the first job from this one on that has nodes that are usable, the number of them all if none has."""
    while number < of[_CLOCK, N_LIMITS] and not _is_on_usable(rules, of, sets, number):
        number += 1
    return number


@compiled
def last_of_group(rules: Ints, of: Ints, sets: Sets, first: int, until_s: int) -> int:
    """Return the last job of the group that begins with ``first`` and goes up to ``until_s``; their number, if empty.

    If the last one of all that end by then is on other nodes, the group goes on to the next that is on usable ones.
    """
    ends = of[_CLOCK, N_LIMITS]
    last = right(of, LIMIT_ENDS, ends, until_s) - 1
    found = _next_on_usable(rules, of, sets, last)
    if found < ends:
        return found
    while last >= first and not _is_on_usable(rules, of, sets, last):
        last -= 1
    return last if last >= first else ends
