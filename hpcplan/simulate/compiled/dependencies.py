"""Who waits for whom, compiled: :mod:`hpcplan.simulate.dependents` on arrays, and when jobs may begin.

What counts, and why, is explained there. A condition is in the chain of the job that has it, and, as long as that one
lives, in the chain of those that wait for the job (or the family: the jobs of one user and name) that it is on.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.heaps import pop, push
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import ID, NEVER, NOW, N_UNUSED, OF_CLOCK, UNUSED, Ints
from hpcplan.simulate.compiled.policy_layout import (
    AFTER, AFTERANY, AFTERNOTOK, ANY_OF, BEGIN_S, CLEANING, CONDITION_KIND, DELAY_S, EARLIER, FAILED, FAMILY,
    FAMILY_FIRST, FAMILY_LAST, FAMILY_SIZE, FIRST_CONDITION, FIRST_WAITER, GONE, HAS_FAILED, HAS_LEFT, HAS_STARTED,
    HAS_SUCCEEDED, IS_LINKED, KILLS, LAST_WAITER, MET, NEWS, NEXT_OF_JOB, NEXT_WAITER, N_NEWS, N_UNUSED_CONDITIONS,
    N_WAKES, OF_ID, OF_SLOT, ON_ID, ON_SLOT, RUNS, SINGLETON, STATE, STATUS, UNFULFILLED, UNUSED_CONDITIONS, WAITS,
    WAKES, WAKE_SLOTS, WAKE_TIMES, WOKEN_AT_BEGIN,
)  # fmt: skip

__all__ = [
    "apply_news", "first_concerned", "forget_waiters", "hangs_on_unseen", "has_ended", "has_news", "has_started",
    "is_held_up", "is_lost", "join", "leave_for_good", "next_concerned", "next_wake", "wake", "woken",
]  # fmt: skip

_CLOCK: Final = OF_CLOCK
_NEWS_KINDS: Final = 4
_TWICE: Final = 2


@compiled
def join(of: Ints, slot: int) -> None:
    """Let a new job wait: settle what is known of its conditions, and have it told of the rest."""
    one = of[FIRST_CONDITION, slot]
    while one >= 0:
        _settle_at_submission(of, slot, one)
        one = of[NEXT_OF_JOB, one]
    of[STATE, slot] = WAITS
    if of[FAMILY, slot] >= 0:
        of[FAMILY_SIZE, of[FAMILY, slot]] += 1
    one = of[FIRST_CONDITION, slot]
    while one >= 0:
        if of[STATUS, one] == UNFULFILLED:
            if of[CONDITION_KIND, one] == SINGLETON:
                _link(of, one, FAMILY_FIRST, FAMILY_LAST, of[FAMILY, slot])
            else:
                _link(of, one, FIRST_WAITER, LAST_WAITER, of[ON_SLOT, one])
        one = of[NEXT_OF_JOB, one]
    wake(of, slot)


@compiled
def _settle_at_submission(of: Ints, slot: int, one: int) -> None:
    kind, on = of[CONDITION_KIND, one], of[ON_SLOT, one]
    if kind == SINGLETON:
        of[EARLIER, one] = of[FAMILY_SIZE, of[FAMILY, slot]]
        of[STATUS, one] = UNFULFILLED if of[EARLIER, one] else MET
    elif on < 0 or of[ID, on] != of[ON_ID, one] or of[STATE, on] == GONE:
        of[STATUS, one] = MET  # a job that is gone holds up nobody
    elif kind == AFTER and of[STATE, on] == RUNS:
        _meet(of, slot, one)


@compiled
def _meet(of: Ints, slot: int, one: int) -> None:
    """Let a condition be met, ``after:ID+MINUTES`` so long after now."""
    of[STATUS, one] = MET
    begin = of[_CLOCK, NOW] + of[DELAY_S, one]
    if of[DELAY_S, one] and begin > of[BEGIN_S, slot]:
        of[BEGIN_S, slot], of[WOKEN_AT_BEGIN, slot] = begin, 0


@compiled
def _link(of: Ints, one: int, first: int, last: int, on: int) -> None:
    """Put a condition behind those on the same job, or family."""
    of[IS_LINKED, one], of[NEXT_WAITER, one] = 1, -1
    if of[first, on] < 0:
        of[first, on] = one
    else:
        of[NEXT_WAITER, of[last, on]] = one
    of[last, on] = one


@compiled
def wake(of: Ints, slot: int) -> None:
    """Have a job looked at when it may begin, if that is still to come."""
    if of[BEGIN_S, slot] > of[_CLOCK, NOW] and of[WOKEN_AT_BEGIN, slot] < _TWICE:
        push(of, WAKE_TIMES, of[_CLOCK, N_WAKES], of[BEGIN_S, slot], slot)
        of[_CLOCK, N_WAKES] += 1
        of[WAKES, slot] += 1
        of[WOKEN_AT_BEGIN, slot] += 1


@compiled
def next_wake(of: Ints) -> int:
    """Return when the next job is woken, ``NEVER`` if none is."""
    while of[_CLOCK, N_WAKES]:
        slot, at = of[WAKE_SLOTS, 0], of[WAKE_TIMES, 0]
        if of[STATE, slot] == WAITS and of[BEGIN_S, slot] == at:
            found: int = at
            return found
        woken(of)
    return NEVER


@compiled
def woken(of: Ints) -> int:
    """Take the job out of those to be woken that is first, and return it; -1 if it has gone."""
    slot = pop(of, WAKE_TIMES, of[_CLOCK, N_WAKES])
    of[_CLOCK, N_WAKES] -= 1
    of[WAKES, slot] -= 1
    if of[STATE, slot] == GONE:
        if not of[WAKES, slot]:
            _free(of, slot)
        return -1
    return slot


@compiled
def is_held_up(of: Ints, slot: int) -> bool:
    """Whether a job waits for others, or for its time."""
    if of[BEGIN_S, slot] > of[_CLOCK, NOW]:
        return True
    one = of[FIRST_CONDITION, slot]
    if one < 0:
        return False
    while one >= 0:
        if (of[STATUS, one] == MET) == (of[ANY_OF, slot] > 0):
            return not of[ANY_OF, slot]
        one = of[NEXT_OF_JOB, one]
    return of[ANY_OF, slot] > 0


@compiled
def is_lost(of: Ints, slot: int) -> bool:
    """Whether a job that is to go then has conditions that can never be met."""
    one = of[FIRST_CONDITION, slot]
    if not of[KILLS, slot] or one < 0:
        return False
    while one >= 0:
        if (of[STATUS, one] == FAILED) != (of[ANY_OF, slot] > 0):
            return not of[ANY_OF, slot]
        one = of[NEXT_OF_JOB, one]
    return of[ANY_OF, slot] > 0


@compiled
def hangs_on_unseen(of: Ints, slot: int) -> bool:
    """Whether a job would still wait if those had not ended whose nodes are not clean yet."""
    one = of[FIRST_CONDITION, slot]
    while one >= 0:
        on = of[ON_SLOT, one]
        hangs = of[STATUS, one] != MET
        if not hangs and of[CONDITION_KIND, one] != AFTER and on >= 0:
            hangs = of[ID, on] == of[ON_ID, one] and of[CLEANING, on] > 0
        if hangs != (of[ANY_OF, slot] > 0):
            return hangs
        one = of[NEXT_OF_JOB, one]
    return of[ANY_OF, slot] > 0 and of[FIRST_CONDITION, slot] >= 0


@compiled
def _note(of: Ints, on: int, what: int) -> None:
    of[NEWS, of[_CLOCK, N_NEWS]] = _NEWS_KINDS * on + what
    of[_CLOCK, N_NEWS] += 1


@compiled
def has_started(of: Ints, slot: int) -> None:
    """Take note that a job has started."""
    of[STATE, slot] = RUNS
    if of[FIRST_WAITER, slot] >= 0:
        _note(of, slot, HAS_STARTED)
    _drop_conditions(of, slot)


@compiled
def has_ended(of: Ints, slot: int, succeeded: bool) -> None:
    """Take note that a job has ended for good."""
    of[STATE, slot] = GONE
    if of[FIRST_WAITER, slot] >= 0:
        _note(of, slot, HAS_SUCCEEDED if succeeded else HAS_FAILED)
    family = of[FAMILY, slot]
    if family < 0:
        return
    of[FAMILY_SIZE, family] -= 1
    one = of[FAMILY_FIRST, family]
    if one >= 0:
        _note(of, family, HAS_LEFT)
    while one >= 0:
        if of[OF_ID, one] > of[ID, slot]:
            of[EARLIER, one] -= 1
        one = of[NEXT_WAITER, one]


@compiled
def leave_for_good(of: Ints, slot: int) -> None:
    """Take note that a job goes that waited."""
    _drop_conditions(of, slot)
    has_ended(of, slot, False)
    if not of[WAKES, slot]:
        _free(of, slot)


@compiled
def _free(of: Ints, slot: int) -> None:
    of[UNUSED, of[_CLOCK, N_UNUSED]] = slot
    of[_CLOCK, N_UNUSED] += 1


@compiled
def _drop_conditions(of: Ints, slot: int) -> None:
    """Forget what a job waited for; what others have in their chains is left to them."""
    one = of[FIRST_CONDITION, slot]
    while one >= 0:
        following = of[NEXT_OF_JOB, one]
        of[OF_SLOT, one] = -1
        if not of[IS_LINKED, one]:
            _free_condition(of, one)
        one = following
    of[FIRST_CONDITION, slot] = -1


@compiled
def _free_condition(of: Ints, one: int) -> None:
    of[UNUSED_CONDITIONS, of[_CLOCK, N_UNUSED_CONDITIONS]] = one
    of[_CLOCK, N_UNUSED_CONDITIONS] += 1


@compiled
def has_news(of: Ints, number: int) -> bool:
    """Whether so many news have not been all; if so, they are forgotten."""
    if number < of[_CLOCK, N_NEWS]:
        return True
    of[_CLOCK, N_NEWS] = 0
    return False


@compiled
def first_concerned(of: Ints, number: int) -> int:
    """Return the first condition that some news are about, -1 if there is none; those of jobs that are gone go."""
    on, what = of[NEWS, number] // _NEWS_KINDS, of[NEWS, number] % _NEWS_KINDS
    first, last = (FAMILY_FIRST, FAMILY_LAST) if what == HAS_LEFT else (FIRST_WAITER, LAST_WAITER)
    one, before = of[first, on], -1
    while one >= 0:
        following, slot = of[NEXT_WAITER, one], of[OF_SLOT, one]
        if slot >= 0:
            before = one
        else:
            if before < 0:
                of[first, on] = following
            else:
                of[NEXT_WAITER, before] = following
            _free_condition(of, one)
        one = following
    of[last, on] = before
    found: int = of[first, on]
    return found


@compiled
def next_concerned(of: Ints, one: int) -> int:
    """Return the condition after this one that is another job's, -1 if there is none."""
    ident, found = of[OF_ID, one], of[NEXT_WAITER, one]
    while found >= 0 and of[OF_ID, found] == ident:
        found = of[NEXT_WAITER, found]
    return found


@compiled
def apply_news(of: Ints, number: int, one: int) -> int:
    """Apply some news to the conditions of the job that one of them is of, and return it; -1 if it waits no longer."""
    slot = of[OF_SLOT, one]
    if slot < 0 or of[STATE, slot] != WAITS:
        return -1
    on, what = of[NEWS, number] // _NEWS_KINDS, of[NEWS, number] % _NEWS_KINDS
    each = of[FIRST_CONDITION, slot]
    while each >= 0:
        kind = of[CONDITION_KIND, each]
        if of[STATUS, each] != UNFULFILLED:
            pass
        elif kind == SINGLETON:
            if what == HAS_LEFT and not of[EARLIER, each]:
                of[STATUS, each] = MET
        elif what == HAS_LEFT or of[ON_SLOT, each] != on:
            pass
        elif what == HAS_STARTED:
            if kind == AFTER:
                _meet(of, slot, each)
        elif kind in (AFTER, AFTERANY) or (what == HAS_SUCCEEDED) == (kind != AFTERNOTOK):
            _meet(of, slot, each)
        else:
            of[STATUS, each] = FAILED
        each = of[NEXT_OF_JOB, each]
    found: int = slot
    return found


@compiled
def forget_waiters(of: Ints, number: int) -> None:
    """Let go of those that have waited for a job that has ended."""
    on, what = of[NEWS, number] // _NEWS_KINDS, of[NEWS, number] % _NEWS_KINDS
    if what not in (HAS_SUCCEEDED, HAS_FAILED):
        return
    one = of[FIRST_WAITER, on]
    while one >= 0:
        following = of[NEXT_WAITER, one]
        of[IS_LINKED, one] = 0
        if of[OF_SLOT, one] < 0:
            _free_condition(of, one)
        one = following
    of[FIRST_WAITER, on] = -1
