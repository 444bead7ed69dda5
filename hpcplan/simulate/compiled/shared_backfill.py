"""One pass of the backfill scheduler where jobs share nodes, compiled: :mod:`hpcplan.simulate.exact_backfill` and
:mod:`hpcplan.simulate.shared_backfill` on arrays; the names are the same.

What changes nothing is left out: of jobs without which leave no trace on the nodes that they are looked at on,
no end is looked at that comes too late to matter.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.backfill import (
    begin_plan, count_running, down, may_reserve, overlaps, right, test_counts,
)  # fmt: skip
from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    BEGINS, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER, BF_WINDOW_LINEAR_S, BF_WINDOW_S,
    CHOSEN, CLOCK_S, COMPETING, ELIGIBLE, ELIGIBLE_SETS, FIRST_HELD, FITTING, GRES_A_NODE, HELD_CPUS, HELD_NEXT,
    HELD_NODE, IDLE, KILL_WAIT_S, LIMIT_ENDS, LIMIT_END_S, LIMIT_S, LIMIT_SLOTS, NEED, NEVER, NODE_CPUS, NOW, N_LIMITS,
    N_SPANS, OF_CLOCK, OVER_TIME_LIMIT_S, PARTITION, PLANNED, POOL, RESERVED, SPAN_ROWS, TESTED, TESTED_USERS, TRIAL,
    TRIED, UNTIL_SETS, USABLE, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.shared_choice import choose_nodes, choose_now
from hpcplan.simulate.compiled.spans import begin_spans, during, take_span
from hpcplan.simulate.compiled.starting import drop_started, queue_in_sight, start_job
from hpcplan.simulate.compiled.stock import add_held, find_room, fits, level, weigh

__all__ = ["shared_backfill_pass"]

_SHORT: Final = 50
_WINDOW_S: Final = 30
_ONE: Final = np.uint64(1)
_CLOCK: Final = OF_CLOCK


@compiled
def shared_backfill_pass(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints) -> bool:
    """Have a pass; whether idle nodes have been promised in it."""
    now = of[_CLOCK, NOW]
    queue, count = queue_in_sight(of)
    begin_plan(rules, of, sets)
    begin_spans(rules, of, sets)
    counted = rules[BF_MAX_JOB_PART] > 0 or rules[BF_MAX_JOB_USER] > 0
    if counted:
        of[TESTED, :] = 0
        of[TESTED_USERS, :] = 0
    to_the_end = count <= _SHORT and _differ(of, queue, count)
    last = count - 1 if to_the_end else _last_that_can_start(rules, of, sets, stock, queue, count - 1)
    tries = started = place = 0
    while place < count:
        if (place > last and _comes_again(of, sets)) or tries >= rules[BF_MAX_JOB_TEST]:
            break
        slot = of[queue, place]
        place += 1
        if counted and not test_counts(rules, of, slot):
            continue
        of[_CLOCK, TRIED] = 0
        start = _plan(rules, of, sets, stock, held, slot, not may_reserve(rules, of, slot))
        tries += of[_CLOCK, TRIED]
        if start < 0:
            continue
        if start > now:
            _promise(rules, of, sets, slot, start)
        else:
            _start(rules, of, sets, stock, held, slot)
            started += 1
            if started == rules[BF_MAX_JOB_START]:
                break
        if not to_the_end:
            last = _last_that_can_start(rules, of, sets, stock, queue, last)
    if tries < rules[BF_MAX_JOB_TEST]:
        for left in range(place, count):
            slot = of[queue, left]
            if of[GRES_A_NODE, slot]:
                _room_for(rules, of, sets, slot)
                weigh(rules, of, sets, stock, slot, USABLE, True, 0)
    if started:
        drop_started(of)
    return common(sets, PLANNED, IDLE) > 0


@compiled
def _differ(of: Ints, queue: int, count: int) -> bool:
    """Whether some jobs want and others none."""
    with_gres = 0
    for place in range(count):
        with_gres += of[GRES_A_NODE, of[queue, place]] > 0
    return 0 < with_gres < count


@compiled
def _comes_again(of: Ints, sets: Sets) -> bool:
    return of[_CLOCK, COMPETING] > 0 or common(sets, PLANNED, IDLE) > 0


@compiled
def _until(rules: Ints, of: Ints, slot: int) -> int:
    """Return the row of the nodes that nobody has been promised for as long as a job might run from now on."""
    end = of[_CLOCK, NOW] + of[LIMIT_S, slot]
    span = max(0, right(of, BEGINS, of[_CLOCK, N_SPANS], end) - 1)
    row: int = rules[UNTIL_SETS] + of[SPAN_ROWS, span]
    return row


@compiled
def _room_for(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Put the eligible ones among those into ``USABLE``."""
    until, eligible = _until(rules, of, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    for word in range(sets.shape[1]):
        sets[USABLE, word] = sets[until, word] & sets[eligible, word]


@compiled
def _last_that_can_start(rules: Ints, of: Ints, sets: Sets, stock: Ints, queue: int, last: int) -> int:
    """Return the last job of a row, from ``last`` downwards, that enough nodes are free and unpromised for."""
    while last >= 0:
        slot = of[queue, last]
        until, eligible = _until(rules, of, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        room, need, there = find_room(rules, of, sets, stock, slot), of[NEED, slot], 0
        for word in range(sets.shape[1]):
            there += ones(sets[until, word] & sets[eligible, word] & sets[room, word])
            if there >= need:
                return last
        last -= 1
    return last


@compiled
def _start(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int) -> None:
    """Start a job on nodes that are chosen anew, by the nodes' own weights, else on ``CHOSEN``."""
    for word in range(sets.shape[1]):
        sets[FITTING, word] = sets[CHOSEN, word]
    _room_for(rules, of, sets, slot)
    level(rules, of, sets, stock, slot, USABLE)
    if not choose_now(rules, of, sets, stock, slot, USABLE):
        for word in range(sets.shape[1]):
            sets[CHOSEN, word] = sets[FITTING, word]
    start_job(rules, of, sets, stock, held, slot, 1)
    count_running(of, slot)
    if not of[NODE_CPUS, slot]:
        take_span(rules, of, sets, of[_CLOCK, NOW], down(rules, of[LIMIT_END_S, slot]))


@compiled
def _promise(rules: Ints, of: Ints, sets: Sets, slot: int, start: int) -> None:
    """Promise a job ``CHOSEN`` from ``start`` on."""
    of[RESERVED, of[PARTITION, slot]] += 1
    for word in range(sets.shape[1]):
        sets[PLANNED, word] |= sets[CHOSEN, word]
    take_span(rules, of, sets, down(rules, start), down(rules, start + of[LIMIT_S, slot]))


@compiled
def _plan(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, now_only: bool) -> int:
    """Return when a job can start, and put its nodes into ``CHOSEN``; -1 if it is not planned for."""
    now, need = of[_CLOCK, NOW], of[NEED, slot]
    limit_s, eligible = of[LIMIT_S, slot], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    asked = now
    while asked != NEVER:
        earliest = asked
        later = during(rules, of, sets, eligible, earliest, earliest + limit_s)
        asked = NEVER if now_only else later
        if common(sets, USABLE, USABLE) < need:
            continue
        of[_CLOCK, TRIED] = 1
        latest = now + rules[BF_WINDOW_S]
        if now_only:
            latest = now
        elif later != NEVER:
            latest = min(latest, later)
        start = _will_run(rules, of, sets, stock, held, slot, latest)
        if start == NEVER:
            continue
        of[_CLOCK, COMPETING] |= start < earliest
        start = max(start, earliest)
        if start <= now:
            return start
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
def _will_run(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, latest: int) -> int:
    """Return when a job would fit on ``USABLE``, with its nodes in ``CHOSEN``; ``NEVER`` if not, or after ``latest``
    where nothing hangs on when.
    """
    room = find_room(rules, of, sets, stock, slot)
    if common(sets, room, USABLE) >= of[NEED, slot] and choose_now(rules, of, sets, stock, slot, USABLE):
        now: int = of[_CLOCK, NOW]
        return now
    if not of[GRES_A_NODE, slot] and latest <= of[_CLOCK, NOW]:
        return NEVER
    return _once_jobs_end(rules, of, sets, stock, held, slot, latest)


@compiled
def _once_jobs_end(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, latest: int) -> int:
    """Do that, if running jobs use up their limits; they go in groups (:mod:`hpcplan.simulate.job_ends`)."""
    words, ends, gres = sets.shape[1], of[_CLOCK, N_LIMITS], of[GRES_A_NODE, slot]
    of[_CLOCK, TRIAL] += 1
    trial, room, there = of[_CLOCK, TRIAL], find_room(rules, of, sets, stock, slot), 0
    for word in range(words):
        sets[FITTING, word] = sets[room, word] & sets[USABLE, word]
        there += ones(sets[FITTING, word])
    window_s, start, last = _WINDOW_S, NEVER, NEVER  # ``last``: the end of the last job of a group, if there is one
    for number in range(ends):
        end = of[LIMIT_ENDS, number]
        if end > latest and last == NEVER and not gres:
            return NEVER
        gained = _let_end(of, sets, stock, held, slot, of[LIMIT_SLOTS, number], trial)
        if gained < 0:
            continue
        there += gained
        if start == NEVER:
            start = end + _WINDOW_S - (end + rules[CLOCK_S]) % _WINDOW_S
        last = end
        if number + 1 == ends or of[LIMIT_ENDS, number + 1] <= start + window_s:
            continue
        if _fits_then(rules, of, sets, stock, slot, there, trial):
            return _expected_end(rules, of, last)
        last = NEVER
        window_s = _wider(rules, window_s)
        while of[LIMIT_ENDS, number + 1] > start + window_s:
            window_s = _wider(rules, window_s)
    if last != NEVER and _fits_then(rules, of, sets, stock, slot, there, trial):
        return _expected_end(rules, of, last)
    if start != NEVER:
        weigh(rules, of, sets, stock, slot, USABLE, False, trial)
    return NEVER


@compiled
def _wider(rules: Ints, window_s: int) -> int:
    return window_s + rules[BF_WINDOW_LINEAR_S] if rules[BF_WINDOW_LINEAR_S] else window_s * 2


@compiled
def _let_end(of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, running: int, trial: int) -> int:
    """Let a running job have ended, in a trial; return how many more nodes have room, -1 if it had no usable one."""
    gained, place = -1, of[FIRST_HELD, running]
    while place >= 0:
        node = held[place, HELD_NODE]
        word, bit = node // 64, _ONE << np.uint64(node % 64)
        if sets[USABLE, word] & bit:
            gained = max(gained, 0)
            add_held(of, stock, running, node, held[place, HELD_CPUS], trial)
            if not sets[FITTING, word] & bit and fits(of, stock, slot, node, trial):
                sets[FITTING, word] |= bit
                gained += 1
        place = held[place, HELD_NEXT]
    return gained


@compiled
def _fits_then(rules: Ints, of: Ints, sets: Sets, stock: Ints, slot: int, there: int, trial: int) -> bool:
    if there < of[NEED, slot]:
        return False  # what it is weighed for now, it is again later, when more nodes are free
    weigh(rules, of, sets, stock, slot, USABLE, False, trial)
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[FITTING, word]
    return choose_nodes(of, sets, stock, slot, trial)


@compiled
def _expected_end(rules: Ints, of: Ints, end: int) -> int:
    """Return when a job with this time limit is taken to end, which may have passed."""
    now = of[_CLOCK, NOW]
    if end > now:
        return end
    return max(now + 1, end + rules[KILL_WAIT_S] + rules[OVER_TIME_LIMIT_S])
