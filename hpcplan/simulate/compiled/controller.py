"""The controller's loop, compiled: :mod:`hpcplan.simulate.controller` on arrays, from one event to the next.

When what looks at the queue, and why, is explained there; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.backfill import begin_pass, find, last_that_can_start, promise, started_now
from hpcplan.simulate.compiled.bits import common, is_empty
from hpcplan.simulate.compiled.choice import choose
from hpcplan.simulate.compiled.heaps import pop, push
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    ALL, BACKFILL_DUE, BACKFILL_PASS_DRIFT_US, BACKFILL_PHASE_MS, BACKFILLED, BATCH_DUE, BATCH_SCHED_DELAY_S, BEGAN_MS,
    BF_INTERVAL_S, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER, BLOCKED, BUILTIN, BUSY, BY_ID,
    CHANGES, CHOSEN, COMING, DEFAULT_QUEUE_DEPTH, ELIGIBLE, ELIGIBLE_SETS, END_OVERHEAD_MS, END_TIMES, ENDED_BACKFILLED,
    ENDED_END_S, ENDED_ID, ENDED_SET, ENDED_START_S, ENDED_TIMED_OUT, FIRST_COMING, FIRST_TURN_S, FREE, GIVEN, ID,
    JOB_SETS, LAST_BACKFILL, LAST_CHANGE, LAST_PASS, LIMIT_END_S, LIMIT_S, LOOKED_AT, LOOP_DRIFT_US, LOOP_PHASE_MS,
    MORE, MULTIFACTOR, N_CLEANING, N_COMING, N_ENDED, N_PROMISED, N_RUNNING, N_UNUSED, N_WAITING, NEED, NEVER, NOW,
    OF_CLOCK, OVER_TIME_LIMIT_S, PARTITION, PARTITION_JOB_DEPTH, PARTITION_SETS, PARTITION_TIER, PARTITIONS, PERIOD,
    POOL, PRIORITY, PRIORITY_CALC_PERIOD_S, PRIORITY_MAX_AGE_S, PRIORITY_WEIGHT_AGE, PROMISED, RECALCULATED, RUN_S,
    SCHED_INTERVAL_S, SEEN_CHANGES, SEEN_TIMES, START_S, STARTED_MS, STARTED_S, SUBMIT_S, TESTED, TESTED_USERS,
    TIME_LIMIT_CHECK_S, TIMED_OUT, TRIGGERED, TURN_MS, UNUSED, USER, WAITING, WAS_EMPTY, WHOLE_DUE, Floats, Ints, Sets,
)  # fmt: skip

__all__ = ["DONE", "FEED", "LATE", "STARTED", "advance", "resume", "submit"]

DONE: Final = 0  # nothing will happen any more
FEED: Final = 1  # more jobs have to be given before it can go on
LATE: Final = 2  # what happens next happens too late
STARTED: Final = 3  # the job that is watched has started
_CLOCK: Final = OF_CLOCK


@compiled
def advance(rules: Ints, of: Ints, sets: Sets, factors: Floats, until_s: int, watched: int) -> int:
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
            _end(rules, of)
        while of[_CLOCK, FIRST_COMING] < of[_CLOCK, N_COMING]:
            slot = of[COMING, of[_CLOCK, FIRST_COMING]]
            if of[SUBMIT_S, slot] > now:
                break
            of[_CLOCK, FIRST_COMING] += 1
            _enqueue(rules, of, factors, slot)
        _schedule(rules, of, sets, factors)
        if watched >= 0 and of[START_S, watched] != NEVER:
            return STARTED


@compiled
def submit(rules: Ints, of: Ints, sets: Sets, factors: Floats, slot: int) -> None:
    """Submit a job at the present time."""
    _enqueue(rules, of, factors, slot)
    _schedule(rules, of, sets, factors)


@compiled
def resume(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Take over a job from before: one that runs, on ``CHOSEN``, or one that waits."""
    if of[START_S, slot] == NEVER:
        _insert(rules, of, slot, of[_CLOCK, N_WAITING])
        of[_CLOCK, N_WAITING] += 1
    else:
        _hold(rules, of, sets, slot)


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
        due = _next_pass(rules, of)
        if due != NEVER:
            found = _earlier(found, max(due, now))
        if of[_CLOCK, WHOLE_DUE] != NEVER:
            found = _earlier(found, max(of[_CLOCK, WHOLE_DUE], now))
        if of[_CLOCK, BACKFILL_DUE] != NEVER:
            found = _earlier(found, max(of[_CLOCK, BACKFILL_DUE], now))
    return found


@compiled
def _earlier(first: int, second: int) -> int:
    return second if first == NEVER or second < first else first


@compiled
def _grid(rules: Ints, time: int) -> int:
    """Return the last periodic pass at or before ``time``."""
    return time - (time - rules[FIRST_TURN_S]) % rules[SCHED_INTERVAL_S]


@compiled
def _next_pass(rules: Ints, of: Ints) -> int:
    batch = of[_CLOCK, BATCH_DUE]
    if batch == NEVER:
        return NEVER
    grid = _grid(rules, batch)
    if grid == batch and grid > of[_CLOCK, LAST_PASS]:
        return grid
    last = max(of[_CLOCK, LAST_PASS], grid)
    return min(grid + rules[SCHED_INTERVAL_S], max(batch, last + rules[BATCH_SCHED_DELAY_S]))


@compiled
def _end(rules: Ints, of: Ints) -> None:
    """Take the job that ends first out of what runs; its nodes are given back once that has been seen."""
    slot = pop(of, END_TIMES, of[_CLOCK, N_RUNNING])
    of[_CLOCK, N_RUNNING] -= 1
    place, now = of[_CLOCK, N_ENDED], of[_CLOCK, NOW]
    of[ENDED_ID, place], of[ENDED_START_S, place], of[ENDED_END_S, place] = of[ID, slot], of[START_S, slot], now
    of[ENDED_TIMED_OUT, place], of[ENDED_BACKFILLED, place] = of[TIMED_OUT, slot], of[BACKFILLED, slot]
    of[ENDED_SET, place] = slot
    of[_CLOCK, N_ENDED] = place + 1
    lag_ms = 0 if of[TIMED_OUT, slot] else of[BEGAN_MS, slot] + rules[END_OVERHEAD_MS]
    push(of, SEEN_TIMES, of[_CLOCK, N_CLEANING], now * 1000 + lag_ms, slot)
    of[_CLOCK, N_CLEANING] += 1
    of[_CLOCK, CHANGES] += 1


@compiled
def _enqueue(rules: Ints, of: Ints, factors: Floats, slot: int) -> None:
    of[_CLOCK, CHANGES] += 1
    if of[BLOCKED, slot]:
        of[UNUSED, of[_CLOCK, N_UNUSED]] = slot  # by a limit of its partition: it waits for ever, outside the queue
        of[_CLOCK, N_UNUSED] += 1
        return
    if rules[MULTIFACTOR] and not of[GIVEN, slot]:
        of[PRIORITY, slot] = _priority(rules, of, factors, slot, 0)
    _insert(rules, of, slot, of[_CLOCK, N_WAITING])
    of[_CLOCK, N_WAITING] += 1
    of[_CLOCK, TRIGGERED] = 1


@compiled
def _insert(rules: Ints, of: Ints, slot: int, place: int) -> None:
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
def _priority(rules: Ints, of: Ints, factors: Floats, slot: int, first: int) -> int:
    """Return the multifactor priority: age, and what does not change, weighted: half of ``factors``, from ``first`` on.

    The first half counts at submission, the other one later.
    """
    age = min(1.0, max(0, of[_CLOCK, NOW] - of[SUBMIT_S, slot]) / rules[PRIORITY_MAX_AGE_S])
    total = rules[PRIORITY_WEIGHT_AGE] * age
    for factor in range(first, first + factors.shape[1] // 2):
        total += factors[slot, factor]
    return max(1, int(total))


@compiled
def _reprioritise(rules: Ints, of: Ints, factors: Floats) -> None:
    period = (of[_CLOCK, NOW] - rules[STARTED_S]) // rules[PRIORITY_CALC_PERIOD_S]
    if period == of[_CLOCK, PERIOD]:
        return
    of[_CLOCK, PERIOD] = period
    for place in range(of[_CLOCK, N_WAITING]):
        slot = of[WAITING, place]
        if not of[GIVEN, slot]:
            of[PRIORITY, slot] = _priority(rules, of, factors, slot, factors.shape[1] // 2)
        _insert(rules, of, slot, place)


@compiled
def _schedule(rules: Ints, of: Ints, sets: Sets, factors: Floats) -> None:
    """Do what the controller's threads do at this second, each in its turn."""
    if rules[MULTIFACTOR] and rules[RECALCULATED]:
        _reprioritise(rules, of, factors)
    now = of[_CLOCK, NOW]
    since = now - rules[STARTED_S]
    main_ms = (rules[STARTED_MS] + rules[LOOP_PHASE_MS] + since * rules[LOOP_DRIFT_US] // 1000) % 1000
    drift_ms = since * rules[BACKFILL_PASS_DRIFT_US] // (1000 * rules[BF_INTERVAL_S])
    backfill_ms = (rules[STARTED_MS] + rules[BACKFILL_PHASE_MS] + drift_ms) % 1000
    for turn in range(1 if rules[BUILTIN] else 2):
        main = rules[BUILTIN] or (main_ms <= backfill_ms) == (turn == 0)
        of[_CLOCK, TURN_MS] = main_ms if main else backfill_ms
        _see_ends(rules, of, sets, now * 1000 + of[_CLOCK, TURN_MS])
        _note_changes(rules, of, now)
        if not of[_CLOCK, N_WAITING]:
            continue
        if main:
            _main_turn(rules, of, sets)
        elif of[_CLOCK, BACKFILL_DUE] != NEVER and of[_CLOCK, BACKFILL_DUE] <= now:
            _backfill_pass(rules, of, sets)
    _see_ends(rules, of, sets, now * 1000 + 999)
    _note_changes(rules, of, now + 1)
    if not of[_CLOCK, N_WAITING]:
        of[_CLOCK, WAS_EMPTY] = 1


@compiled
def _see_ends(rules: Ints, of: Ints, sets: Sets, until_ms: int) -> None:
    """Let the nodes of jobs be given out again whose ends the controller has seen by then."""
    while of[_CLOCK, N_CLEANING] and of[SEEN_TIMES, 0] <= until_ms:
        slot = pop(of, SEEN_TIMES, of[_CLOCK, N_CLEANING])
        of[_CLOCK, N_CLEANING] -= 1
        for word in range(sets.shape[1]):
            sets[BUSY, word] &= ~sets[rules[JOB_SETS] + slot, word]
        last = of[_CLOCK, N_PROMISED] - 1
        for place in range(_place(of, slot) - 1, last):
            of[PROMISED, place] = of[PROMISED, place + 1]
        of[_CLOCK, N_PROMISED] = last
        of[UNUSED, of[_CLOCK, N_UNUSED]] = slot
        of[_CLOCK, N_UNUSED] += 1
        of[_CLOCK, CHANGES] += 1
        of[_CLOCK, TRIGGERED] = 1


@compiled
def _place(of: Ints, slot: int) -> int:
    """Return where a job belongs among those that run or are cleaned up, behind itself."""
    end, low, high = of[LIMIT_END_S, slot], 0, of[_CLOCK, N_PROMISED]
    while low < high:
        middle = (low + high) // 2
        other = of[PROMISED, middle]
        if of[LIMIT_END_S, other] < end or (of[LIMIT_END_S, other] == end and of[ID, other] <= of[ID, slot]):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _note_changes(rules: Ints, of: Ints, now: int) -> None:
    """Arm what is due after a change; a batch is due only after submissions and ends, not after starts."""
    if of[_CLOCK, TRIGGERED] and of[_CLOCK, BATCH_DUE] == NEVER:
        of[_CLOCK, BATCH_DUE] = now
    of[_CLOCK, TRIGGERED] = 0
    if of[_CLOCK, CHANGES] == of[_CLOCK, SEEN_CHANGES]:
        return
    of[_CLOCK, SEEN_CHANGES] = of[_CLOCK, CHANGES]
    if of[_CLOCK, WHOLE_DUE] == NEVER:
        of[_CLOCK, WHOLE_DUE] = _grid(rules, now + rules[SCHED_INTERVAL_S])
    if not rules[BUILTIN]:
        due = of[_CLOCK, BACKFILL_DUE]
        if due != NEVER and due < now:  # a turn with nothing to do
            of[_CLOCK, LAST_BACKFILL] = due
            due = NEVER
        of[_CLOCK, BACKFILL_DUE] = _next_backfill(rules, of, now) if due == NEVER else due
    of[_CLOCK, LAST_CHANGE] = now


@compiled
def _next_backfill(rules: Ints, of: Ints, now: int) -> int:
    """Return when the backfill thread next looks, something having changed now."""
    every, last = rules[BF_INTERVAL_S], of[_CLOCK, LAST_BACKFILL]
    if not of[_CLOCK, WAS_EMPTY]:
        return last + max(1, -(-(now - last) // every)) * every
    of[_CLOCK, WAS_EMPTY] = of[_CLOCK, N_WAITING] == 0
    if of[_CLOCK, LAST_CHANGE] >= last:
        last += ((of[_CLOCK, LAST_CHANGE] - last) // every + 1) * every
        if last >= now:
            return last
        of[_CLOCK, LAST_BACKFILL] = last
    return max(now, last + every)


@compiled
def _main_turn(rules: Ints, of: Ints, sets: Sets) -> None:
    now = of[_CLOCK, NOW]
    whole = of[_CLOCK, WHOLE_DUE] != NEVER and of[_CLOCK, WHOLE_DUE] <= now
    due = _next_pass(rules, of)
    if not whole and (due == NEVER or due > now):
        return
    of[_CLOCK, LAST_PASS], of[_CLOCK, BATCH_DUE] = now, NEVER
    depth, most = of[_CLOCK, N_WAITING], rules[DEFAULT_QUEUE_DEPTH]
    if whole or _grid(rules, now) == now or not most or depth <= most:
        of[_CLOCK, WHOLE_DUE] = NEVER
    else:
        depth = most
    _find_free(sets)
    for partition in range(rules[PARTITIONS]):
        of[LOOKED_AT, partition] = 0
    started = False
    for place in range(depth):
        if is_empty(sets, FREE):
            break
        slot = of[WAITING, place]
        partition, eligible = of[PARTITION, slot], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        of[LOOKED_AT, partition] += 1
        if 0 < rules[PARTITION_JOB_DEPTH] < of[LOOKED_AT, partition]:
            continue
        for word in range(sets.shape[1]):
            sets[POOL, word] = sets[FREE, word] & sets[eligible, word]
        if choose(rules, of, sets, POOL, of[NEED, slot]):
            _start(rules, of, sets, slot, 0)
            for word in range(sets.shape[1]):
                sets[FREE, word] &= ~sets[CHOSEN, word]
            started = True
        elif common(sets, eligible, ALL) >= of[NEED, slot]:
            for word in range(sets.shape[1]):
                sets[FREE, word] &= ~sets[rules[PARTITION_SETS] + partition, word]
    if started:
        _drop_started(of)


@compiled
def _find_free(sets: Sets) -> None:
    for word in range(sets.shape[1]):
        sets[FREE, word] = sets[ALL, word] & ~sets[BUSY, word]


@compiled
def _backfill_pass(rules: Ints, of: Ints, sets: Sets) -> None:
    now = of[_CLOCK, NOW]
    of[_CLOCK, LAST_BACKFILL], of[_CLOCK, BACKFILL_DUE] = now, NEVER
    count = min(of[_CLOCK, N_WAITING], rules[BF_MAX_JOB_TEST])
    _find_free(sets)
    begin_pass(rules, of, sets)
    last = last_that_can_start(rules, of, sets, count - 1)
    if last < 0:
        return
    counted = rules[BF_MAX_JOB_PART] > 0 or rules[BF_MAX_JOB_USER] > 0
    if counted:
        of[TESTED, :] = 0
        of[TESTED_USERS, :] = 0
    started = 0
    for place in range(count):
        if place > last:
            break
        slot = of[WAITING, place]
        if counted and not _may_test(rules, of, slot):
            continue
        start = find(rules, of, sets, slot)
        if start < 0:
            continue
        if start > now:
            promise(rules, of, sets, slot, start)
            last = last_that_can_start(rules, of, sets, last)
            continue
        _start(rules, of, sets, slot, 1)
        started_now(rules, of, sets, slot)
        last = last_that_can_start(rules, of, sets, last)
        started += 1
        if started == rules[BF_MAX_JOB_START]:
            break
    if started:
        _drop_started(of)


@compiled
def _may_test(rules: Ints, of: Ints, slot: int) -> bool:
    """Count a job towards ``bf_max_job_part`` and ``bf_max_job_user``; whether it is within them."""
    partition, user = of[PARTITION, slot], of[USER, slot]
    of[TESTED, partition] += 1
    of[TESTED_USERS, user] += 1
    if rules[BF_MAX_JOB_PART] and of[TESTED, partition] > rules[BF_MAX_JOB_PART]:
        return False
    return not rules[BF_MAX_JOB_USER] or of[TESTED_USERS, user] <= rules[BF_MAX_JOB_USER]


@compiled
def _start(rules: Ints, of: Ints, sets: Sets, slot: int, backfilled: int) -> None:
    """Start a job now on ``CHOSEN``."""
    of[START_S, slot], of[BEGAN_MS, slot], of[BACKFILLED, slot] = of[_CLOCK, NOW], of[_CLOCK, TURN_MS], backfilled
    _hold(rules, of, sets, slot)
    of[_CLOCK, CHANGES] += 1


@compiled
def _hold(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Give a job that has started ``CHOSEN``, until its end."""
    start, nodes = of[START_S, slot], rules[JOB_SETS] + slot
    for word in range(sets.shape[1]):
        sets[nodes, word] = sets[CHOSEN, word]
        sets[BUSY, word] |= sets[CHOSEN, word]
    end, limit_end = start + of[RUN_S, slot], start + of[LIMIT_S, slot]
    over = limit_end + rules[OVER_TIME_LIMIT_S]
    of[LIMIT_END_S, slot], of[TIMED_OUT, slot] = limit_end, end > over
    if end > over:
        end = min(end, over + (rules[FIRST_TURN_S] - over) % rules[TIME_LIMIT_CHECK_S])
    push(of, END_TIMES, of[_CLOCK, N_RUNNING], end, slot)
    of[_CLOCK, N_RUNNING] += 1
    first = _place(of, slot)
    for place in range(of[_CLOCK, N_PROMISED], first, -1):
        of[PROMISED, place] = of[PROMISED, place - 1]
    of[PROMISED, first] = slot
    of[_CLOCK, N_PROMISED] += 1


@compiled
def _drop_started(of: Ints) -> None:
    """Take the jobs out of the queue that a pass has started."""
    left = 0
    for place in range(of[_CLOCK, N_WAITING]):
        slot = of[WAITING, place]
        if of[START_S, slot] == NEVER:
            of[WAITING, left] = slot
            left += 1
    of[_CLOCK, N_WAITING] = left
