"""The passes of the main and the backfill scheduler, compiled.

:mod:`hpcplan.simulate.main_pass` and :mod:`hpcplan.simulate.slurm_backfill` on arrays; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.backfill import (
    begin_pass, comes_again, find, last_that_can_start, may_reserve, promise, started_now, test_counts,
)  # fmt: skip
from hpcplan.simulate.compiled.bits import common, is_empty
from hpcplan.simulate.compiled.choice import by_number, choose, required_of
from hpcplan.simulate.compiled.exact_backfill import exact_backfill_pass
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    ALL, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER, BF_MIN_AGE_RESERVE_S,
    BF_MIN_PRIO_RESERVE, BUSY, COMPETING, CONSUMABLE, DEFAULT_QUEUE_DEPTH, ELIGIBLE, ELIGIBLE_SETS, FEW_SWITCHES,
    FREE, LATE, LOOKED_AT, NEED, NOT_HELD_UP, NOW, N_SPANS_MADE, OF_CLOCK, PARTITION, PARTITIONS, PARTITION_JOB_DEPTH,
    PARTITION_SETS, PLANNED, POOL, PRIORITY, SCHED_MAX_JOB_START, SPANS_AT_MOST, TESTED, TESTED_USERS, TRIED, Ints,
    Sets, Stock,
)  # fmt: skip
from hpcplan.simulate.compiled.policy_layout import ELIGIBLE_S
from hpcplan.simulate.compiled.shared_backfill import shared_backfill_pass
from hpcplan.simulate.compiled.shared_choice import choose_now
from hpcplan.simulate.compiled.starting import drop_started, find_free, queue_in_sight, start_job
from hpcplan.simulate.compiled.weighing import level, weigh_ever

__all__ = ["backfill_pass", "main_pass"]

_CLOCK: Final = OF_CLOCK


@compiled
def main_pass(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, whole: int) -> bool:
    """Start jobs in order; whether some were passed over because nodes were held up."""
    queue, count = queue_in_sight(rules, of)
    words = sets.shape[1]
    find_free(sets)
    for word in range(words):
        sets[NOT_HELD_UP, word] = sets[ALL, word]
    for partition in range(rules[PARTITIONS]):
        of[LOOKED_AT, partition] = 0
    tested = started = 0
    passed_over = False
    for place in range(count):
        slot = of[queue, place]
        partition, required = of[PARTITION, slot], required_of(rules, of, slot)
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
        if _choose(rules, of, sets, stock, held, slot):
            start_job(rules, of, sets, stock, held, slot, 0)
            for word in range(words):
                sets[FREE, word] &= ~sets[BUSY, word]
            started += 1
        elif required >= 0 and common(sets, required, required) >= of[NEED, slot]:
            for word in range(words):  # no more jobs on the nodes that it insists on; the rest go on
                sets[FREE, word] &= ~sets[required, word]
        elif _holds_up(rules, of, slot) and _fits_ever(rules, of, sets, slot):
            for word in range(words):
                sets[FREE, word] &= ~sets[mask, word]
                sets[NOT_HELD_UP, word] &= ~sets[mask, word]
    if started:
        drop_started(of)
    return passed_over


@compiled
def _choose(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, slot: int) -> bool:
    """Put nodes that a job would be given now into ``CHOSEN``; whether it fits."""
    if stock is None or held is None:
        eligible = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        for word in range(sets.shape[1]):
            sets[POOL, word] = sets[FREE, word] & sets[eligible, word]
        return choose(rules, of, sets, slot, POOL, of[FEW_SWITCHES, slot])
    level(rules, of, sets, slot, ALL)
    found = choose_now(rules, of, sets, stock, held, slot, FREE)
    if not found:
        weigh_ever(rules, of, sets, stock, held, slot, ALL)
    return found


@compiled
def _fits_ever(rules: Ints, of: Ints, sets: Sets, slot: int) -> bool:
    """Whether a job would fit if no other ran."""
    eligible, there = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot], 0
    for word in range(sets.shape[1]):
        sets[POOL, word] = sets[ALL, word] & sets[eligible, word]
        there += ones(sets[POOL, word])
    if by_number(of, slot):
        return there >= of[NEED, slot]
    return choose(rules, of, sets, slot, POOL, of[FEW_SWITCHES, slot])


@compiled
def _holds_up(rules: Ints, of: Ints, slot: int) -> bool:
    """Whether a job that waits has waited long enough, and is important enough, to hold up others."""
    if of[PRIORITY, slot] < rules[BF_MIN_PRIO_RESERVE]:
        return False
    age_s: int = of[_CLOCK, NOW] - of[ELIGIBLE_S, slot]
    return age_s >= rules[BF_MIN_AGE_RESERVE_S]


@compiled
def backfill_pass(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock) -> bool:
    """Have a pass of the backfill scheduler; whether idle nodes have been promised in it."""
    if stock is None or held is None:
        return exact_backfill_pass(rules, of, sets) if rules[CONSUMABLE] else _whole_nodes_pass(rules, of, sets)
    return shared_backfill_pass(rules, of, sets, stock, held)


@compiled
def _whole_nodes_pass(rules: Ints, of: Ints, sets: Sets) -> bool:
    now = of[_CLOCK, NOW]
    queue, count = queue_in_sight(rules, of)
    in_sight = min(count, rules[BF_MAX_JOB_TEST])
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
        if not counted or test_counts(rules, of, slot):
            start = find(rules, of, sets, slot, not may_reserve(rules, of, slot))
        if not of[_CLOCK, TRIED] and in_sight < count:  # it does not count towards bf_max_job_test
            in_sight += 1
        if start < 0:
            continue
        if start > now:
            if of[_CLOCK, N_SPANS_MADE] >= rules[SPANS_AT_MOST]:
                of[_CLOCK, COMPETING] |= of[_CLOCK, LATE]
                break
            promise(rules, of, sets, slot, start)
            last = last_that_can_start(rules, of, sets, queue, last)
            continue
        start_job(rules, of, sets, None, None, slot, 1)
        started_now(rules, of, sets, slot)
        last = last_that_can_start(rules, of, sets, queue, last)
        started += 1
        if started == rules[BF_MAX_JOB_START]:
            break
    if started:
        drop_started(of)
    return common(sets, PLANNED, FREE) > 0
