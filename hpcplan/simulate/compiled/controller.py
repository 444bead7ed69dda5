"""The controller's loop, compiled: :mod:`hpcplan.simulate.controller` on arrays, from one event to the next.

When what looks at the queue, and why, is explained there; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.bits import common, is_empty
from hpcplan.simulate.compiled.dependencies import has_ended, join, next_wake, woken
from hpcplan.simulate.compiled.fairshare import count_ended
from hpcplan.simulate.compiled.heaps import pop, push
from hpcplan.simulate.compiled.jit import compiled, entry
from hpcplan.simulate.compiled.layout import (
    AT_ONCE, BACKFILL_DUE_MS, BEGAN_MS, BLOCKED, BUILTIN, BUSY, CHANGED, CLEANUP_MS, COMING, COMPETING,
    COMPLETE_WAIT_S, COMPLETING, DEFAULT_QUEUE_DEPTH, DEFER, END_OVERHEAD_MS, END_TIMES, EPILOG_MS, EPILOG_MSG_US,
    FEW_SWITCHES, FIRST_COMING, INSISTS_UNTIL_S, INSIST_TIMES, IS_OVER, JOB_SETS, MAIN_DUE_MS, MAIN_DUE_WHOLE, MORE,
    MULTIFACTOR, NEVER, NODES_TELL, NOW, N_CLEANING, N_COMING, N_INSISTING, N_PROMISED, N_RUNNING, N_UNUSED,
    N_WAITING, OF_CLOCK, PASSED_OVER, PROMISED, RECALCULATED, SEEN_SLOTS, SEEN_TIMES, START_S, SUBMIT_S, TIMED_OUT,
    TRIGGERED, TURN_MS, UNUSED, Ints, Sets, Stock,
)  # fmt: skip
from hpcplan.simulate.compiled.passes import backfill_pass, main_pass
from hpcplan.simulate.compiled.pace import KILLED_MS, SUBMITTED_MS, UNSURE_MS
from hpcplan.simulate.compiled.policy_layout import (
    CLEANING, DEPENDS, ELIGIBLE_S, FAIR_PLACE, KEPT_IN_MIND, N_WAKES, WAKE_TIMES, Shares,
)  # fmt: skip
from hpcplan.simulate.compiled.queue import (
    classify, grows_older, insert, note_end, priorities_due_ms, reprioritise, settle,
)  # fmt: skip
from hpcplan.simulate.compiled.starting import hold, place_of
from hpcplan.simulate.compiled.stock import give_back
from hpcplan.simulate.compiled.threads import (
    backfill_changed, backfill_passed, backfill_postponed, backfill_touched, main_changed, main_passed, turn,
)  # fmt: skip

__all__ = ["DONE", "FEED", "LATE", "STARTED", "advance", "advance_shared", "resume", "submit"]

DONE: Final = 0  # nothing will happen any more
FEED: Final = 1  # more jobs have to be given before it can go on
LATE: Final = 2  # what happens next happens too late
STARTED: Final = 3  # the job that is watched has started
_CLOCK: Final = OF_CLOCK
_ONE: Final = np.uint64(1)


@entry
def advance(rules: Ints, of: Ints, sets: Sets, shares: Shares, until_s: int, watched: int) -> int:
    """Do what :func:`_advance` does, for whole nodes."""
    return _advance(rules, of, sets, None, None, shares, until_s, watched)


@entry
def advance_shared(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, shares: Shares, until_s: int, watched: int
) -> int:  # fmt: skip
    """Do what :func:`_advance` does, where jobs share nodes."""
    return _advance(rules, of, sets, stock, held, shares, until_s, watched)


@compiled
def _advance(
    rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, shares: Shares, until_s: int, watched: int
) -> int:  # fmt: skip
    """Go on until nothing happens any more (up to ``until_s``), or something is needed; return which.

    The slots in the row ``COMING`` are submitted as their times come; with ``MORE``, others will follow them, later.
    When the job in the slot ``watched`` starts, it stops; there is none below 0.
    """
    while True:
        if of[_CLOCK, FIRST_COMING] == of[_CLOCK, N_COMING] and of[_CLOCK, MORE]:
            return FEED
        time = _next_event(rules, of)
        if time == NEVER:
            return DONE
        if time > until_s:
            return LATE
        of[_CLOCK, NOW] = now = max(of[_CLOCK, NOW], time)
        while of[_CLOCK, N_RUNNING] and of[END_TIMES, 0] <= now:
            _end(rules, of, shares)
        while of[_CLOCK, N_WAKES] and of[WAKE_TIMES, 0] <= now:
            slot = woken(of)
            if slot >= 0:
                classify(rules, of, sets, stock, held, shares, slot)
        while of[_CLOCK, FIRST_COMING] < of[_CLOCK, N_COMING]:
            slot = of[COMING, of[_CLOCK, FIRST_COMING]]
            if of[SUBMIT_S, slot] > now:
                break
            of[_CLOCK, FIRST_COMING] += 1
            _enqueue(rules, of, sets, stock, held, shares, slot)
        _schedule(rules, of, sets, stock, held, shares)
        if watched >= 0 and of[START_S, watched] != NEVER:
            return STARTED


@entry
def submit(rules: Ints, of: Ints, sets: Sets, shares: Shares, slot: int) -> None:
    """Submit a job at the present time, where nodes are given out whole."""
    _enqueue(rules, of, sets, None, None, shares, slot)
    _schedule(rules, of, sets, None, None, shares)


@entry
def resume(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Take over a job from before: one that runs, on ``CHOSEN``, or one that waits."""
    if of[START_S, slot] == NEVER:
        of[ELIGIBLE_S, slot] = of[SUBMIT_S, slot]
        insert(rules, of, slot, of[_CLOCK, N_WAITING])
        of[_CLOCK, N_WAITING] += 1
    else:
        hold(rules, of, sets, None, None, slot)


@compiled
def _next_event(rules: Ints, of: Ints) -> int:
    now, found = of[_CLOCK, NOW], NEVER
    if of[_CLOCK, N_RUNNING]:
        found = of[END_TIMES, 0]
    if of[_CLOCK, FIRST_COMING] < of[_CLOCK, N_COMING]:
        found = _earlier(found, of[SUBMIT_S, of[COMING, of[_CLOCK, FIRST_COMING]]])
    if of[_CLOCK, N_CLEANING]:
        found = _earlier(found, max(now, of[SEEN_TIMES, 0] // 1000))
    if of[_CLOCK, N_WAITING]:
        if of[_CLOCK, MAIN_DUE_MS] != NEVER:
            found = _earlier(found, max(of[_CLOCK, MAIN_DUE_MS] // 1000, now))
        if of[_CLOCK, BACKFILL_DUE_MS] != NEVER:
            found = _earlier(found, max(of[_CLOCK, BACKFILL_DUE_MS] // 1000, now))
    if of[_CLOCK, N_WAKES]:
        found = _earlier(found, next_wake(of))
    if of[_CLOCK, N_INSISTING]:
        found = _earlier(found, of[INSIST_TIMES, 0])
    if of[_CLOCK, N_WAITING]:
        due_ms = priorities_due_ms(rules, of)
        if due_ms != NEVER and (found != NEVER or grows_older(rules, of)):
            found = _earlier(found, due_ms // 1000)
    return found


@compiled
def _earlier(first: int, second: int) -> int:
    return second if first == NEVER or (second < first and second != NEVER) else first


@compiled
def _end(rules: Ints, of: Ints, shares: Shares) -> None:
    """Take the job that ends first out of what runs; the controller hears of it a bit later."""
    slot, now = pop(of, END_TIMES, of[_CLOCK, N_RUNNING]), of[_CLOCK, NOW]
    of[_CLOCK, N_RUNNING] -= 1
    note_end(of, slot)
    if rules[FAIR_PLACE] >= 0:
        count_ended(of, shares, slot, now)
    if rules[DEPENDS]:
        of[CLEANING, slot] = 1
        has_ended(of, slot, not of[TIMED_OUT, slot])
    over_ms = of[BEGAN_MS, slot] + rules[END_OVERHEAD_MS]
    if of[TIMED_OUT, slot]:
        over_ms = turn(rules, now * 1000) % 1000
    of[IS_OVER, slot] = 0
    push(of, SEEN_TIMES, of[_CLOCK, N_CLEANING], now * 1000 + over_ms, slot)
    of[_CLOCK, N_CLEANING] += 1


@compiled
def _enqueue(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, shares: Shares, slot: int) -> None:
    of[_CLOCK, TRIGGERED] = 1  # whether or not it may start yet
    if rules[DEPENDS]:
        join(of, slot)
    classify(rules, of, sets, stock, held, shares, slot)
    if of[BLOCKED, slot] and not of[KEPT_IN_MIND, slot]:
        of[UNUSED, of[_CLOCK, N_UNUSED]] = slot  # by a limit of its partition: it waits for ever, outside the queue
        of[_CLOCK, N_UNUSED] += 1


@compiled
def _stop_insisting(of: Ints) -> None:
    """Let jobs have any number of switches that have waited for few for long enough; a slot may be another's by now."""
    now = of[_CLOCK, NOW]
    while of[_CLOCK, N_INSISTING] and of[INSIST_TIMES, 0] <= now:
        slot = pop(of, INSIST_TIMES, of[_CLOCK, N_INSISTING])
        of[_CLOCK, N_INSISTING] -= 1
        if of[INSISTS_UNTIL_S, slot] <= now and of[START_S, slot] == NEVER:
            of[FEW_SWITCHES, slot] = 0
            of[_CLOCK, CHANGED] = 1


@compiled
def _schedule(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, shares: Shares) -> None:
    """Let ends be seen, and both threads have their turns, in the order in which they come in this second."""
    _stop_insisting(of)
    now_ms = of[_CLOCK, NOW] * 1000
    if rules[DEPENDS]:
        settle(rules, of, sets, stock, held, shares)
    if rules[MULTIFACTOR] and rules[RECALCULATED]:
        reprioritise(rules, of, shares, now_ms)
    submitted, batch = NEVER, of[_CLOCK, TRIGGERED]
    if of[_CLOCK, CHANGED]:
        submitted = now_ms + SUBMITTED_MS
    of[_CLOCK, CHANGED] = of[_CLOCK, TRIGGERED] = 0
    priorities = priorities_due_ms(rules, of)
    while True:
        end = of[SEEN_TIMES, 0] if of[_CLOCK, N_CLEANING] else NEVER
        main_due = of[_CLOCK, MAIN_DUE_MS]
        at = _earlier(_earlier(_earlier(end, submitted), main_due), of[_CLOCK, BACKFILL_DUE_MS])
        at = _earlier(at, priorities)
        if at == NEVER or at >= now_ms + 1000:
            break
        of[_CLOCK, TURN_MS] = max(0, at - now_ms)
        if at == end:
            _see_ends(rules, of, sets, stock, held, at)
        if end != NEVER:
            _find_completing(rules, of, sets, at)
        if at == end:
            if of[_CLOCK, AT_ONCE] and of[_CLOCK, N_WAITING] and not _held_back(rules, sets):
                of[_CLOCK, PASSED_OVER] = main_pass(rules, of, sets, stock, held, 0)
                if of[_CLOCK, PASSED_OVER]:
                    backfill_touched(rules, of, now_ms + of[_CLOCK, TURN_MS])
            of[_CLOCK, AT_ONCE] = 0
        elif at == submitted:
            _tell(rules, of, at, batch)
            submitted = NEVER
        elif at == priorities:
            reprioritise(rules, of, shares, at)
            priorities = NEVER
        elif at == main_due:
            _main_turn(rules, of, sets, stock, held)
        elif _held_back(rules, sets):
            backfill_postponed(of)
        else:
            planned_idle = False
            of[_CLOCK, COMPETING] = 0
            if of[_CLOCK, N_WAITING]:
                planned_idle = backfill_pass(rules, of, sets, stock, held)
            backfill_passed(rules, of, planned_idle)
        if of[_CLOCK, CHANGED]:
            _tell(rules, of, now_ms + of[_CLOCK, TURN_MS], of[_CLOCK, TRIGGERED])
            of[_CLOCK, CHANGED] = of[_CLOCK, TRIGGERED] = 0


@compiled
def _held_back(rules: Ints, sets: Sets) -> bool:
    """Whether no pass is had because of ``CompleteWait``."""
    return rules[COMPLETE_WAIT_S] > 0 and not is_empty(sets, COMPLETING)


@compiled
def _tell(rules: Ints, of: Ints, at_ms: int, batch: int) -> None:
    """Tell both threads of a change; ``batch``, if it is a submission or an end."""
    main_changed(rules, of, at_ms, batch)
    if not rules[BUILTIN]:
        backfill_changed(rules, of, at_ms)


@compiled
def _see_ends(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, until_ms: int) -> None:
    """Take note of the jobs that the controller hears of by then: that they are over, or their nodes clean."""
    while of[_CLOCK, N_CLEANING] and of[SEEN_TIMES, 0] <= until_ms:
        at_ms = of[SEEN_TIMES, 0]
        slot = pop(of, SEEN_TIMES, of[_CLOCK, N_CLEANING])
        of[_CLOCK, N_CLEANING] -= 1
        of[_CLOCK, CHANGED] = 1
        if not of[IS_OVER, slot]:
            _over(rules, of, sets, stock, held, slot)
            push(of, SEEN_TIMES, of[_CLOCK, N_CLEANING], at_ms + _cleanup_ms(rules, of, sets, slot), slot)
            of[_CLOCK, N_CLEANING] += 1
            continue
        of[UNUSED, of[_CLOCK, N_UNUSED]] = slot
        of[_CLOCK, N_UNUSED] += 1
        of[CLEANING, slot] = 0
        at_once = (of[TIMED_OUT, slot] or rules[NODES_TELL]) and not rules[DEFER]
        of[_CLOCK, AT_ONCE] |= at_once
        of[_CLOCK, TRIGGERED] |= not at_once


@compiled
def _over(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, slot: int) -> None:
    """Let others count on what a job held; its nodes stay closed until they are clean."""
    of[IS_OVER, slot] = 1
    if stock is None or held is None:
        for word in range(sets.shape[1]):
            sets[BUSY, word] &= ~sets[rules[JOB_SETS] + slot, word]
    else:
        give_back(rules, of, sets, stock, held, slot)
    last = of[_CLOCK, N_PROMISED] - 1
    for place in range(place_of(of, slot) - 1, last):
        of[PROMISED, place] = of[PROMISED, place + 1]
    of[_CLOCK, N_PROMISED] = last


@compiled
def _find_completing(rules: Ints, of: Ints, sets: Sets, at_ms: int) -> None:
    """Put the nodes that are not clean at a moment into ``COMPLETING``."""
    for word in range(sets.shape[1]):
        sets[COMPLETING, word] = 0
    for place in range(of[_CLOCK, N_CLEANING]):
        slot = of[SEEN_SLOTS, place]
        if not of[IS_OVER, slot]:
            continue
        nodes, clean = rules[JOB_SETS] + slot, 0
        if rules[NODES_TELL] and rules[EPILOG_MSG_US]:
            waiting = -(-(of[SEEN_TIMES, place] - at_ms + UNSURE_MS) * 1000 // rules[EPILOG_MSG_US])
            clean = common(sets, nodes, nodes) - waiting
        for word in range(sets.shape[1]):
            bits = sets[nodes, word]
            while bits and clean > 0:
                bits &= bits - _ONE
                clean -= 1
            sets[COMPLETING, word] |= bits


@compiled
def _cleanup_ms(rules: Ints, of: Ints, sets: Sets, slot: int) -> int:
    """Return how long it takes from the end of a job until the controller has heard from all its nodes."""
    cleanup_ms: int = rules[CLEANUP_MS]
    if rules[NODES_TELL]:
        nodes = common(sets, rules[JOB_SETS] + slot, rules[JOB_SETS] + slot)
        cleanup_ms = rules[EPILOG_MS] + nodes * rules[EPILOG_MSG_US] // 1000
    if of[TIMED_OUT, slot]:
        cleanup_ms = KILLED_MS + cleanup_ms * rules[NODES_TELL]
    return cleanup_ms


@compiled
def _main_turn(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock) -> None:
    """Have the pass of the main loop that is due."""
    if _held_back(rules, sets):
        main_passed(rules, of, True)
        return
    truncated = not of[_CLOCK, MAIN_DUE_WHOLE] and rules[DEFAULT_QUEUE_DEPTH] + 1 < of[_CLOCK, N_WAITING]
    of[_CLOCK, PASSED_OVER] = 0
    if of[_CLOCK, N_WAITING]:
        of[_CLOCK, PASSED_OVER] = main_pass(rules, of, sets, stock, held, of[_CLOCK, MAIN_DUE_WHOLE])
    at_ms = of[_CLOCK, MAIN_DUE_MS]
    main_passed(rules, of, truncated)
    if of[_CLOCK, PASSED_OVER]:
        backfill_touched(rules, of, at_ms)
