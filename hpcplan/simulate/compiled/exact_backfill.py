"""One pass of the backfill scheduler where select/cons_tres gives out whole nodes, compiled: ``WholeNodesPass`` of
:mod:`hpcplan.simulate.exact_backfill` on arrays; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.backfill import (
    begin_plan, comes_again, count_running, down, may_reserve, overlaps, right, test_counts,
)  # fmt: skip
from hpcplan.simulate.compiled.bits import common, has_all
from hpcplan.simulate.compiled.choice import choose, required_of
from hpcplan.simulate.compiled.ends import last_of_group
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    ALL, BEGINS, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER, BF_WINDOW_S, BUSY, CHOSEN,
    CLOCK_S, COMPETING, COMPLETING, ELIGIBLE, ELIGIBLE_SETS, FEW_SWITCHES, FITTING, FREE, JOB_SETS, LIMIT_ENDS,
    LIMIT_END_S, LIMIT_S, LIMIT_SLOTS, NEED, NEVER, NOW, N_LIMITS, N_SPANS, N_SPANS_MADE, OF_CLOCK, PARTITION,
    PLANNED, POOL, RESERVED, SPANS_AT_MOST, TESTED, TESTED_USERS, TRIED, USABLE, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.shared_backfill import expected_end, until_row, wider
from hpcplan.simulate.compiled.spans import begin_spans, begin_window, find_usable, next_gain, take_span
from hpcplan.simulate.compiled.starting import drop_started, queue_in_sight, start_job

__all__ = ["exact_backfill_pass"]

_WINDOW_S: Final = 30
_CLOCK: Final = OF_CLOCK


@compiled
def exact_backfill_pass(rules: Ints, of: Ints, sets: Sets) -> bool:
    """Have a pass; whether idle nodes have been promised in it."""
    now = of[_CLOCK, NOW]
    queue, count = queue_in_sight(rules, of)
    begin_plan(rules, of, sets)
    begin_spans(rules, of, sets)
    for word in range(sets.shape[1]):
        sets[FREE, word] = sets[ALL, word] & ~sets[BUSY, word]
    counted = rules[BF_MAX_JOB_PART] > 0 or rules[BF_MAX_JOB_USER] > 0
    if counted:
        of[TESTED, :] = 0
        of[TESTED_USERS, :] = 0
    last = _last_that_can_start(rules, of, sets, queue, count - 1)
    tries = started = place = 0
    while place < count and tries < rules[BF_MAX_JOB_TEST] and (place <= last or not comes_again(of, sets)):
        slot = of[queue, place]
        place += 1
        if counted and not test_counts(rules, of, slot):
            continue
        of[_CLOCK, TRIED] = 0
        start = _plan(rules, of, sets, slot, not may_reserve(rules, of, slot))
        tries += of[_CLOCK, TRIED]
        if start < 0:
            continue
        if start > now:
            if of[_CLOCK, N_SPANS_MADE] >= rules[SPANS_AT_MOST]:
                break
            of[RESERVED, of[PARTITION, slot]] += 1
            for word in range(sets.shape[1]):
                sets[PLANNED, word] |= sets[CHOSEN, word]
            take_span(rules, of, sets, down(rules, start), down(rules, start + of[LIMIT_S, slot]))
        else:
            _start(rules, of, sets, slot)
            started += 1
            if started == rules[BF_MAX_JOB_START]:
                break
        last = _last_that_can_start(rules, of, sets, queue, last)
    if started:
        drop_started(of)
    return common(sets, PLANNED, FREE) > 0


@compiled
def _find_room(rules: Ints, of: Ints, sets: Sets, slot: int) -> int:
    """Put the free nodes into ``POOL`` that nobody has been promised while a job might run; return how many."""
    until, eligible, there = until_row(rules, of, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot], 0
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[until, word] & sets[eligible, word] & sets[FREE, word]
        there += ones(sets[POOL, word])
    return there


@compiled
def _last_that_can_start(rules: Ints, of: Ints, sets: Sets, queue: int, last: int) -> int:
    """Return the last job of a row, from ``last`` downwards, that enough nodes are free and unpromised for."""
    while last >= 0 and _find_room(rules, of, sets, of[queue, last]) < of[NEED, of[queue, last]]:
        last -= 1
    return last


@compiled
def _start(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Start a job on nodes that are chosen anew, else on ``CHOSEN``."""
    _find_room(rules, of, sets, slot)
    for word in range(sets.shape[1]):
        sets[FITTING, word] = sets[CHOSEN, word]
        sets[POOL, word] &= ~sets[COMPLETING, word]
    if not choose(rules, of, sets, slot, POOL, of[FEW_SWITCHES, slot]):
        for word in range(sets.shape[1]):
            sets[CHOSEN, word] = sets[FITTING, word]
    start_job(rules, of, sets, None, None, slot, 1)
    for word in range(sets.shape[1]):
        sets[FREE, word] &= ~sets[CHOSEN, word]
    count_running(of, slot)
    take_span(rules, of, sets, of[_CLOCK, NOW], down(rules, of[LIMIT_END_S, slot]))


@compiled
def _plan(rules: Ints, of: Ints, sets: Sets, slot: int, now_only: bool) -> int:
    """Return when a job can start, and put its nodes into ``CHOSEN``; -1 if it is not planned for."""
    now, spans, limit_s = of[_CLOCK, NOW], of[_CLOCK, N_SPANS], of[LIMIT_S, slot]
    eligible, required = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot], required_of(rules, of, slot)
    begin_window(of)
    asked = now
    while asked != NEVER:
        earliest = asked
        first = max(0, right(of, BEGINS, spans, earliest) - 1)
        beyond = right(of, BEGINS, spans, earliest + limit_s)
        gain = next_gain(rules, of, sets, eligible, first, beyond)
        later = of[BEGINS, gain] if gain >= 0 else NEVER
        asked = NEVER if now_only else later
        find_usable(rules, of, sets, eligible, earliest, first, beyond)
        if common(sets, USABLE, USABLE) < of[NEED, slot] or (required >= 0 and not has_all(sets, USABLE, required)):
            continue
        of[_CLOCK, TRIED] = 1
        start = _will_run(rules, of, sets, slot)
        if start == NEVER:
            continue
        of[_CLOCK, COMPETING] |= start < earliest
        start = max(start, earliest)
        if start <= now:
            if not common(sets, CHOSEN, COMPLETING):
                return start
            start, later = now + 1, NEVER
        if now_only:
            return -1
        if later != NEVER and start > later:
            continue
        if start > now + rules[BF_WINDOW_S]:
            return -1
        if not overlaps(rules, of, sets, start, start + limit_s):
            return start
        asked = max(start, earliest + 1)
    return -1


@compiled
def _will_run(rules: Ints, of: Ints, sets: Sets, slot: int) -> int:
    """Return when a job would fit on ``USABLE`` if running jobs use up their limits, with its nodes in ``CHOSEN``.

    ``NEVER`` if it would not. Jobs go in groups (:mod:`hpcplan.simulate.job_ends`).
    """
    few, ends = of[FEW_SWITCHES, slot], of[_CLOCK, N_LIMITS]
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[USABLE, word] & sets[FREE, word]
    if choose(rules, of, sets, slot, POOL, few):
        found: int = of[_CLOCK, NOW]
        return found
    number = 0
    while number < ends and not common(sets, rules[JOB_SETS] + of[LIMIT_SLOTS, number], USABLE):
        number += 1
    if number == ends:
        return NEVER
    ended, window_s = number, _WINDOW_S
    start = of[LIMIT_ENDS, number] + window_s - (of[LIMIT_ENDS, number] + rules[CLOCK_S]) % window_s
    while number < ends:
        while of[LIMIT_ENDS, number] > start + window_s:
            window_s = wider(rules, window_s)
        number = last_of_group(rules, of, sets, number, start + window_s)
        if number == ends:
            break
        while ended <= number:
            held = rules[JOB_SETS] + of[LIMIT_SLOTS, ended]
            for word in range(sets.shape[1]):
                sets[POOL, word] |= sets[held, word] & sets[USABLE, word]
            ended += 1
        if choose(rules, of, sets, slot, POOL, few):
            return expected_end(rules, of, of[LIMIT_ENDS, number])
        number += 1
    return NEVER
