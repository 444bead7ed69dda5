"""The passes of the main and the backfill scheduler, compiled, and how jobs start in them.

:mod:`hpcplan.simulate.main_pass` and :mod:`hpcplan.simulate.slurm_backfill` on arrays; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.backfill import (
    begin_pass, comes_again, find, last_that_can_start, may_reserve, promise, started_now,
)  # fmt: skip
from hpcplan.simulate.compiled.bits import common, is_empty
from hpcplan.simulate.compiled.choice import choose
from hpcplan.simulate.compiled.heaps import push
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    ALL, BACKFILLED, BEGAN_MS, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER,
    BF_MIN_AGE_RESERVE_S, BF_MIN_PRIO_RESERVE, BUSY, CHANGED, CHOSEN, DEFAULT_QUEUE_DEPTH, ELIGIBLE, ELIGIBLE_SETS,
    END_TIMES, FIRST_TURN_S, FREE, ID, IN_SIGHT, JOB_SETS, LIMIT_END_S, LIMIT_S, LOOKED_AT, NEED, NEVER,
    NOT_HELD_UP, NOW, N_PROMISED, N_RUNNING, N_WAITING, OF_CLOCK, OVER_TIME_LIMIT_S, PARTITION, PARTITIONS,
    PARTITION_JOB_DEPTH, PARTITION_SETS, PLANNED, POOL, PRIORITY, PROMISED, REPEATS, RUN_S, SCHED_MAX_JOB_START,
    START_S, SUBMIT_S, TESTED, TESTED_USERS, TIMED_OUT, TIME_LIMIT_CHECK_S, TRIED, TURN_MS, USER, WAITING, Ints,
    Sets,
)  # fmt: skip

__all__ = ["SUBMITTED_MS", "backfill_pass", "hold", "main_pass", "place_of"]

SUBMITTED_MS: Final = 20  # how far into its second a submission is taken to arrive
_CLOCK: Final = OF_CLOCK


@compiled
def _queue_in_sight(of: Ints) -> tuple[int, int]:
    """Return the row of the jobs that a turn sees and how many they are; those submitted now come a bit later."""
    count = of[_CLOCK, N_WAITING]
    if of[_CLOCK, TURN_MS] >= SUBMITTED_MS:
        return WAITING, count
    seen = 0
    for place in range(count):
        slot = of[WAITING, place]
        if of[SUBMIT_S, slot] < of[_CLOCK, NOW]:
            of[IN_SIGHT, seen] = slot
            seen += 1
    return IN_SIGHT, seen


@compiled
def place_of(of: Ints, slot: int) -> int:
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
def main_pass(rules: Ints, of: Ints, sets: Sets, whole: int) -> bool:
    """Start jobs in order; whether some were passed over because nodes were held up."""
    queue, count = _queue_in_sight(of)
    words = sets.shape[1]
    _find_free(sets)
    for word in range(words):
        sets[NOT_HELD_UP, word] = sets[ALL, word]
    for partition in range(rules[PARTITIONS]):
        of[LOOKED_AT, partition] = 0
    tested = started = 0
    passed_over = False
    for place in range(count):
        slot = of[queue, place]
        partition, eligible = of[PARTITION, slot], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        mask = rules[PARTITION_SETS] + partition
        if not passed_over:
            passed_over = common(sets, NOT_HELD_UP, mask) < of[NEED, slot]
        if is_empty(sets, FREE):
            passed_over = passed_over or place + 1 < count
            break
        if started == rules[SCHED_MAX_JOB_START] and started:
            break
        of[LOOKED_AT, partition] += 1
        if 0 < rules[PARTITION_JOB_DEPTH] < of[LOOKED_AT, partition]:
            continue
        if not whole and tested > rules[DEFAULT_QUEUE_DEPTH]:
            break
        tested += 1
        for word in range(words):
            sets[POOL, word] = sets[FREE, word] & sets[eligible, word]
        if choose(rules, of, sets, POOL, of[NEED, slot]):
            _start(rules, of, sets, slot, 0)
            for word in range(words):
                sets[FREE, word] &= ~sets[CHOSEN, word]
            started += 1
        elif _holds_up(rules, of, slot) and common(sets, eligible, ALL) >= of[NEED, slot]:
            for word in range(words):
                sets[FREE, word] &= ~sets[mask, word]
                sets[NOT_HELD_UP, word] &= ~sets[mask, word]
    if started:
        _drop_started(of)
    return passed_over


@compiled
def _holds_up(rules: Ints, of: Ints, slot: int) -> bool:
    """Whether a job that waits has waited long enough, and is important enough, to hold up others."""
    if of[PRIORITY, slot] < rules[BF_MIN_PRIO_RESERVE]:
        return False
    age_s: int = of[_CLOCK, NOW] - of[SUBMIT_S, slot]
    return age_s >= rules[BF_MIN_AGE_RESERVE_S]


@compiled
def _find_free(sets: Sets) -> None:
    for word in range(sets.shape[1]):
        sets[FREE, word] = sets[ALL, word] & ~sets[BUSY, word]


@compiled
def backfill_pass(rules: Ints, of: Ints, sets: Sets) -> bool:
    """Have a pass of the backfill scheduler; whether idle nodes have been promised in it."""
    now = of[_CLOCK, NOW]
    queue, count = _queue_in_sight(of)
    in_sight = min(count, rules[BF_MAX_JOB_TEST])
    _find_free(sets)
    begin_pass(rules, of, sets)
    last = last_that_can_start(rules, of, sets, queue, count - 1)
    counted = rules[BF_MAX_JOB_PART] > 0 or rules[BF_MAX_JOB_USER] > 0
    if counted:
        of[TESTED, :] = 0
        of[TESTED_USERS, :] = 0
    started = place = 0
    while place < in_sight and (place <= last or not comes_again(of, sets)):
        slot = of[queue, place]
        place += 1
        of[_CLOCK, TRIED], start = 0, -1
        if not counted or _may_test(rules, of, slot):
            start = find(rules, of, sets, slot, not may_reserve(rules, of, slot))
        if not of[_CLOCK, TRIED] and in_sight < count:  # it does not count towards bf_max_job_test
            in_sight += 1
        if start < 0:
            continue
        if start > now:
            promise(rules, of, sets, slot, start)
            last = last_that_can_start(rules, of, sets, queue, last)
            continue
        _start(rules, of, sets, slot, 1)
        started_now(rules, of, sets, slot)
        last = last_that_can_start(rules, of, sets, queue, last)
        started += 1
        if started == rules[BF_MAX_JOB_START]:
            break
    if started:
        _drop_started(of)
    return common(sets, PLANNED, FREE) > 0


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
    hold(rules, of, sets, slot)
    of[_CLOCK, CHANGED] = 1


@compiled
def hold(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
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
    first = place_of(of, slot)
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
    if not left:
        of[_CLOCK, REPEATS] = 0
