"""The queue, compiled: who is in it and since when, in which order, and how that changes.

:class:`hpcplan.simulate.event_loop.EventLoop` and :class:`hpcplan.simulate.turns.Turns` on arrays; the names are the
same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.dependencies import (
    apply_news, first_concerned, forget_waiters, has_news, is_held_up, is_lost, leave_for_good, next_concerned, wake,
)  # fmt: skip
from hpcplan.simulate.compiled.fairshare import priority, update_shares
from hpcplan.simulate.compiled.heaps import push
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    ALL, BACKFILLED, BLOCKED, BY_ID, CHANGED, ENDED_BACKFILLED, ENDED_END_S, ENDED_ID, ENDED_SET, ENDED_START_S,
    ENDED_TIMED_OUT, FEW_SWITCHES, GIVEN, ID, IN_SIGHT, INSISTS_UNTIL_S, INSIST_TIMES, MULTIFACTOR, NEVER, NOW, N_ENDED,
    N_INSISTING, N_WAITING, OF_CLOCK, PARTITION, PARTITION_TIER, PASSED_OVER, PERIOD, PRIORITIES_BEGIN_MS, PRIORITY,
    PRIORITY_CALC_PERIOD_S, PRIORITY_MAX_AGE_S, RECALCULATED, START_S, SUBMIT_S, TIMED_OUT, WAITING, Ints, Sets, Stock,
)  # fmt: skip
from hpcplan.simulate.compiled.policy_layout import (
    BEGIN_S, DEPENDS, ELIGIBLE_S, FAIR_PLACE, RUNS, STATE, Shares,
)  # fmt: skip
from hpcplan.simulate.compiled.threads import main_changed
from hpcplan.simulate.compiled.weighing import level, weigh_ever

__all__ = ["classify", "grows_older", "insert", "note_end", "priorities_due_ms", "reprioritise", "settle"]

_CLOCK: Final = OF_CLOCK
_LATEST_S: Final = 2**62


@compiled
def note_end(of: Ints, slot: int) -> None:
    """Note a job that ends, to be taken away."""
    place, now = of[_CLOCK, N_ENDED], of[_CLOCK, NOW]
    of[ENDED_ID, place], of[ENDED_START_S, place], of[ENDED_END_S, place] = of[ID, slot], of[START_S, slot], now
    of[ENDED_TIMED_OUT, place], of[ENDED_BACKFILLED, place] = of[TIMED_OUT, slot], of[BACKFILLED, slot]
    of[ENDED_SET, place] = slot
    of[_CLOCK, N_ENDED] = place + 1


@compiled
def classify(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, shares: Shares, slot: int) -> None:
    """Put a waiting job into the queue or keep it out, as its times and what it waits for have it now."""
    now = of[_CLOCK, NOW]
    if of[STATE, slot] == RUNS or of[ELIGIBLE_S, slot] != NEVER:
        of[_CLOCK, CHANGED] |= of[START_S, slot] == NEVER
        return
    if rules[MULTIFACTOR] and not of[GIVEN, slot]:
        of[PRIORITY, slot] = priority(rules, of, shares, slot, False, now)
    changed = 1
    if rules[DEPENDS] and is_held_up(of, slot):
        if is_lost(of, slot):
            note_end(of, slot)
            leave_for_good(of, slot)
        of[INSISTS_UNTIL_S, slot] = _LATEST_S  # only those that could start at once insist on few switches for a while
    elif not of[BLOCKED, slot]:
        of[ELIGIBLE_S, slot] = now
        insert(rules, of, slot, of[_CLOCK, N_WAITING])
        of[_CLOCK, N_WAITING] += 1
        if of[FEW_SWITCHES, slot] and of[SUBMIT_S, slot] == now:
            push(of, INSIST_TIMES, of[_CLOCK, N_INSISTING], of[INSISTS_UNTIL_S, slot], slot)
            of[_CLOCK, N_INSISTING] += 1
        if of[BEGIN_S, slot] == now:  # of that no thread is told: the next pass over the whole queue finds it
            changed = 0
    if stock is not None and held is not None:
        level(rules, of, sets, slot, ALL)
        weigh_ever(rules, of, sets, stock, held, slot, ALL)
    if not changed:
        passed_over, of[_CLOCK, PASSED_OVER] = of[_CLOCK, PASSED_OVER], 0
        main_changed(rules, of, now * 1000, 0)
        of[_CLOCK, PASSED_OVER] = passed_over
    of[_CLOCK, CHANGED] |= changed


@compiled
def settle(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, shares: Shares) -> None:
    """Let those know that wait for what has happened; what becomes of them may be news for others."""
    number = 0
    while has_news(of, number):
        one = first_concerned(of, number)
        while one >= 0:
            slot = apply_news(of, number, one)
            if slot >= 0:
                wake(of, slot)
                classify(rules, of, sets, stock, held, shares, slot)
            one = next_concerned(of, one)
        forget_waiters(of, number)
        number += 1


@compiled
def insert(rules: Ints, of: Ints, slot: int, place: int) -> None:
    """Put a job among the first ``place`` of the queue, which are in order."""
    while place > 0 and _before(rules, of, slot, of[WAITING, place - 1]):
        of[WAITING, place] = of[WAITING, place - 1]
        place -= 1
    of[WAITING, place] = slot


@compiled
def _before(rules: Ints, of: Ints, one: int, other: int) -> bool:
    """Whether the queue has ``one`` before ``other``."""
    if not rules[BY_ID]:
        tier = of[PARTITION_TIER, of[PARTITION, one]] - of[PARTITION_TIER, of[PARTITION, other]]
        if tier:
            return tier > 0
        if of[PRIORITY, one] != of[PRIORITY, other]:
            return of[PRIORITY, one] > of[PRIORITY, other]
        if of[SUBMIT_S, one] != of[SUBMIT_S, other]:
            return of[SUBMIT_S, one] < of[SUBMIT_S, other]
    return of[ID, one] < of[ID, other]


@compiled
def priorities_due_ms(rules: Ints, of: Ints) -> int:
    """Return when the next ``PriorityCalcPeriod`` begins, ``NEVER`` if that changes nothing."""
    if not (rules[MULTIFACTOR] and rules[RECALCULATED] and rules[FAIR_PLACE] >= 0):
        return NEVER
    every_ms = 1000 * rules[PRIORITY_CALC_PERIOD_S]
    period = (of[_CLOCK, NOW] * 1000 - rules[PRIORITIES_BEGIN_MS]) // every_ms
    due_ms: int = rules[PRIORITIES_BEGIN_MS] + (max(period, of[_CLOCK, PERIOD]) + 1) * every_ms
    return due_ms


@compiled
def grows_older(rules: Ints, of: Ints) -> bool:
    """Whether priorities may change though nothing else happens."""
    latest = of[_CLOCK, NOW] - rules[PRIORITY_MAX_AGE_S]
    for place in range(of[_CLOCK, N_WAITING]):  # noqa: SIM110  (numba knows no generators)
        if of[ELIGIBLE_S, of[WAITING, place]] > latest:
            return True
    return False


@compiled
def reprioritise(rules: Ints, of: Ints, shares: Shares, at_ms: int) -> None:
    """Work priorities out anew if a ``PriorityCalcPeriod`` has begun: as of then."""
    every_ms = 1000 * rules[PRIORITY_CALC_PERIOD_S]
    period = (at_ms - rules[PRIORITIES_BEGIN_MS]) // every_ms
    if of[_CLOCK, PERIOD] != NEVER and period <= of[_CLOCK, PERIOD]:
        return
    of[_CLOCK, PERIOD] = period
    began = (rules[PRIORITIES_BEGIN_MS] + every_ms * period) // 1000
    if rules[FAIR_PLACE] >= 0:
        update_shares(rules, of, shares, began)
        of[_CLOCK, CHANGED] = 1
    for place in range(of[_CLOCK, N_WAITING]):
        slot = of[WAITING, place]
        if not of[GIVEN, slot] and of[ELIGIBLE_S, slot] <= began:
            of[PRIORITY, slot] = priority(rules, of, shares, slot, True, began)
    _sort(rules, of)


@compiled
def _sort(rules: Ints, of: Ints) -> None:
    """Put the queue into order: merge rows of 1, 2, 4 … jobs."""
    count, size, source, target = of[_CLOCK, N_WAITING], 1, WAITING, IN_SIGHT
    while size < count:
        for low in range(0, count, 2 * size):
            middle, high = min(low + size, count), min(low + 2 * size, count)
            one, other = low, middle
            if middle < high and not _before(rules, of, of[source, middle], of[source, middle - 1]):
                for place in range(middle, high):  # they are in order
                    of[target, place] = of[source, place]
                high = other = middle
            for place in range(low, high):
                if one < middle and (other == high or not _before(rules, of, of[source, other], of[source, one])):
                    of[target, place] = of[source, one]
                    one += 1
                else:
                    of[target, place] = of[source, other]
                    other += 1
        source, target, size = target, source, 2 * size
    for place in range(count if source != WAITING else 0):
        of[WAITING, place] = of[source, place]
