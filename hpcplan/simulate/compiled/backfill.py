"""One pass of the backfill scheduler, compiled: :mod:`hpcplan.simulate.slurm_backfill` on arrays.

Levels, spans and the rest are explained there; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from hpcplan.simulate.compiled.bits import common, has_all, is_empty
from hpcplan.simulate.compiled.choice import by_number, choose, plan
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    ALL, BEGINS, BF_JOB_PART_COUNT_RESERVE, BF_MAX_JOB_PART, BF_MAX_JOB_USER, BF_MIN_AGE_RESERVE_S,
    BF_MIN_PRIO_RESERVE, BF_RESOLUTION_S, BF_WINDOW_S, BUSY, CHOSEN, CLOCK_S, COMPETING, COMPLETING, COUNTS, ELIGIBLE,
    ELIGIBLE_SETS, FEW_SWITCHES, FITTING, FREE, ID, JOB_SETS, LATE, LEVEL_SETS, LIMIT_ENDS, LIMIT_END_S, LIMIT_S,
    LIMIT_SLOTS, NEED, NEVER, NODES, NOW, N_LEVELS, N_LIMITS, N_PROMISED, N_SPANS, N_SPANS_MADE, OF_CLOCK, PARTITION,
    PARTITIONS, PLANNED, POOL, PRIORITY, PROMISED, RESERVED, SPAN_ROWS, SPAN_SETS, TESTED, TESTED_USERS, TRIED,
    UNTIL_SETS, USABLE, USER, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.policy_layout import ELIGIBLE_S

__all__ = [
    "begin_pass", "begin_plan", "comes_again", "count_running", "down", "find", "last_that_can_start", "may_reserve",
    "overlaps", "promise", "right", "started_now", "test_counts",
]  # fmt: skip


@compiled
def begin_pass(rules: Ints, of: Ints, sets: Sets) -> None:
    """Set a pass up: ``FREE`` are the nodes that no job holds, also those on which none may start yet."""
    clock = OF_CLOCK
    for word in range(sets.shape[1]):
        sets[FREE, word] = sets[ALL, word] & ~sets[BUSY, word]
    of[clock, N_SPANS] = of[clock, N_SPANS_MADE] = 1
    of[clock, N_LEVELS] = 0
    for row in range(rules[UNTIL_SETS] - rules[SPAN_SETS]):
        of[SPAN_ROWS, row] = row
    of[BEGINS, 0], of[COUNTS, 0] = down(rules, of[clock, NOW]), rules[NODES]
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS], word] = sets[rules[UNTIL_SETS], word] = sets[ALL, word]
    begin_plan(rules, of, sets)


@compiled
def begin_plan(rules: Ints, of: Ints, sets: Sets) -> None:
    """Begin with the ends of what runs, and nothing promised."""
    clock = OF_CLOCK
    of[clock, COMPETING], of[clock, N_LIMITS] = 0, of[clock, N_PROMISED]
    for word in range(sets.shape[1]):
        sets[PLANNED, word] = 0
    for number in range(of[clock, N_PROMISED]):
        slot = of[PROMISED, number]
        of[LIMIT_SLOTS, number], of[LIMIT_ENDS, number] = slot, of[LIMIT_END_S, slot]
    for partition in range(rules[PARTITIONS]):
        of[RESERVED, partition] = 0


@compiled
def comes_again(of: Ints, sets: Sets) -> bool:
    """Whether what was promised is reason enough for another pass though nothing happens."""
    return of[OF_CLOCK, COMPETING] > 0 or common(sets, PLANNED, FREE) > 0


@compiled
def last_that_can_start(rules: Ints, of: Ints, sets: Sets, queue: int, last: int) -> int:
    """Return the last job of a row, from ``last`` downwards, that enough nodes are free and unpromised for."""
    now, spans, words = of[OF_CLOCK, NOW], of[OF_CLOCK, N_SPANS], sets.shape[1]
    if is_empty(sets, FREE):
        return -1
    while last >= 0:
        slot = of[queue, last]
        span = max(0, right(of, BEGINS, spans, now + of[LIMIT_S, slot]) - 1)
        until, eligible = rules[UNTIL_SETS] + of[SPAN_ROWS, span], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        count = 0
        for word in range(words):
            count += ones(sets[until, word] & sets[eligible, word] & sets[FREE, word])
        if count >= of[NEED, slot]:
            break
        last -= 1
    return last


@compiled
def find(rules: Ints, of: Ints, sets: Sets, slot: int, now_only: bool) -> int:
    """Return when the job can start, and put its nodes into ``CHOSEN``; -1 if not within what is planned for."""
    now, final = of[OF_CLOCK, NOW], of[OF_CLOCK, N_SPANS] - 1
    limit_s, need, eligible = of[LIMIT_S, slot], of[NEED, slot], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    first_level = 0
    if common(sets, FREE, eligible) < need:
        first_level = _level_with(rules, of, sets, eligible, need, 0) + 1
    if first_level > of[OF_CLOCK, N_LIMITS]:
        return -1
    bound = of[LIMIT_ENDS, first_level - 1] if first_level else now
    asked = now
    while asked != NEVER:
        earliest = asked
        first = max(0, right(of, BEGINS, final + 1, earliest) - 1)
        beyond = first + 1
        while beyond <= final and of[BEGINS, beyond] <= earliest + limit_s:
            beyond += 1
        later = asked = _next_gain(rules, of, sets, eligible, first, min(beyond + 1, final))
        if now_only:
            asked = NEVER
        elif later != NEVER and later < bound:
            if not of[OF_CLOCK, TRIED]:
                of[OF_CLOCK, TRIED] = _unpromised_during(rules, of, sets, eligible, first, beyond) >= need
            continue
        position = beyond - 1  # whatever runs into a span with too few nodes fails
        while position >= first and of[COUNTS, position] >= need:
            position -= 1
        if position >= first:
            if asked != NEVER and position < final:
                asked = max(asked, of[BEGINS, position + 1])
            continue
        if _unpromised_during(rules, of, sets, eligible, first, beyond) < need:
            continue
        of[OF_CLOCK, TRIED] = 1
        if later != NEVER and not _fits_by(rules, of, sets, later, need):
            continue
        if by_number(of, slot):
            start = _will_run(rules, of, sets, need, first_level)
        else:
            start = _will_fit(rules, of, sets, slot, first_level)
        if start < 0 or (now_only and start > now):
            continue
        of[OF_CLOCK, LATE] = start < earliest
        start = max(start, earliest)
        if start > now:
            if later != NEVER and start > later:
                continue
            if start > now + rules[BF_WINDOW_S]:
                return -1
            plan(rules, of, sets, slot, POOL)
            if overlaps(rules, of, sets, start, start + limit_s):
                asked = max(start, earliest + 1)
                continue
        elif is_empty(sets, COMPLETING):
            choose(rules, of, sets, slot, POOL, of[FEW_SWITCHES, slot])
        else:
            plan(rules, of, sets, slot, POOL)
            if not common(sets, CHOSEN, COMPLETING):
                for word in range(sets.shape[1]):
                    sets[POOL, word] &= ~sets[COMPLETING, word]
                    sets[FITTING, word] = sets[CHOSEN, word]
                if not choose(rules, of, sets, slot, POOL, of[FEW_SWITCHES, slot]):
                    for word in range(sets.shape[1]):
                        sets[CHOSEN, word] = sets[FITTING, word]
                return start
            if now_only:
                return -1
            start += 1
            if overlaps(rules, of, sets, start, start + limit_s):
                asked = max(start, earliest + 1)
                continue
        return start
    return -1


@compiled
def _unpromised_during(rules: Ints, of: Ints, sets: Sets, pool: int, first: int, beyond: int) -> int:
    """Put the nodes of ``pool`` that nobody has been promised in these spans into ``USABLE``; return how many."""
    there = 0
    for word in range(sets.shape[1]):
        bits = sets[pool, word]
        for position in range(first, beyond):
            bits &= sets[rules[SPAN_SETS] + of[SPAN_ROWS, position], word]
        sets[USABLE, word] = bits
        there += ones(bits)
    return there


@compiled
def _next_gain(rules: Ints, of: Ints, sets: Sets, pool: int, first: int, beyond: int) -> int:
    """Return the first time after span ``first`` when promises leave nodes that they did not leave before.

    ``NEVER`` if that is not in a span up to ``beyond``.
    """
    for position in range(first, beyond):
        before, after = rules[SPAN_SETS] + of[SPAN_ROWS, position], rules[SPAN_SETS] + of[SPAN_ROWS, position + 1]
        for word in range(sets.shape[1]):
            if sets[pool, word] & sets[after, word] & ~sets[before, word]:
                found: int = of[BEGINS, position + 1]
                return found
    return NEVER


@compiled
def down(rules: Ints, time: int) -> int:
    """Return the last multiple of the resolution up to ``time``, on the controller's clock."""
    return time - (time + rules[CLOCK_S]) % rules[BF_RESOLUTION_S]


@compiled
def right(of: Ints, row: int, count: int, time: int) -> int:
    """Return how many of the first ``count`` times of a row are not after ``time``."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if of[row, middle] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _next_level(rules: Ints, of: Ints, sets: Sets) -> bool:
    """Work out one more level; whether there was one."""
    position = of[OF_CLOCK, N_LEVELS]
    if position == of[OF_CLOCK, N_LIMITS]:
        return False
    level, held = rules[LEVEL_SETS] + position, rules[JOB_SETS] + of[LIMIT_SLOTS, position]
    before = level - 1 if position else FREE
    for word in range(sets.shape[1]):
        sets[level, word] = sets[before, word] | sets[held, word]
    of[OF_CLOCK, N_LEVELS] = position + 1
    return True


@compiled
def _level_with(rules: Ints, of: Ints, sets: Sets, usable: int, need: int, low: int) -> int:
    """Return the first level from ``low`` on that has so many of the usable nodes; their number, if none has."""
    levels, high = rules[LEVEL_SETS], of[OF_CLOCK, N_LEVELS]
    if high > low and common(sets, levels + high - 1, usable) >= need:
        while low < high:
            middle = (low + high) // 2
            if common(sets, levels + middle, usable) >= need:
                high = middle
            else:
                low = middle + 1
        return low
    low = max(low, high)
    while low < of[OF_CLOCK, N_LEVELS] or _next_level(rules, of, sets):
        if common(sets, levels + low, usable) >= need:
            return low
        low += 1
    return low


@compiled
def _fits_by(rules: Ints, of: Ints, sets: Sets, time: int, need: int) -> bool:
    """Whether so many of ``USABLE`` have come free by then, if the running jobs go one after another."""
    ended = right(of, LIMIT_ENDS, of[OF_CLOCK, N_LIMITS], time)
    while ended > of[OF_CLOCK, N_LEVELS]:
        _next_level(rules, of, sets)
    return common(sets, rules[LEVEL_SETS] + ended - 1 if ended else FREE, USABLE) >= need


@compiled
def _will_run(rules: Ints, of: Ints, sets: Sets, need: int, first_level: int) -> int:
    """Return when the job would fit on ``USABLE``, -1 if never, and put into what into ``POOL``."""
    now, words, level = of[OF_CLOCK, NOW], sets.shape[1], FREE
    if first_level or common(sets, USABLE, FREE) < need:
        number = _level_with(rules, of, sets, USABLE, need, max(0, first_level - 1))
        if number >= of[OF_CLOCK, N_LEVELS]:
            return -1
        level = rules[LEVEL_SETS] + number
        now = max(of[LIMIT_ENDS, number], now + 1)
    for word in range(words):
        sets[POOL, word] = sets[USABLE, word] & sets[level, word]
    return now


@compiled
def _will_fit(rules: Ints, of: Ints, sets: Sets, slot: int, first_level: int) -> int:
    """Do the same for a job that insists on nodes, or that switches may keep apart."""
    need, few = of[NEED, slot], of[FEW_SWITCHES, slot]
    for number in range(max(0, first_level - 1) if first_level else -1, of[OF_CLOCK, N_LIMITS]):
        if number >= of[OF_CLOCK, N_LEVELS]:
            _next_level(rules, of, sets)
        level, there = rules[LEVEL_SETS] + number if number >= 0 else FREE, 0
        for word in range(sets.shape[1]):
            sets[POOL, word] = sets[USABLE, word] & sets[level, word]
            there += ones(sets[POOL, word])
        if there < need:
            continue
        if choose(rules, of, sets, slot, POOL, few):
            return of[OF_CLOCK, NOW] if number < 0 else max(of[LIMIT_ENDS, number], of[OF_CLOCK, NOW] + 1)
        if few and choose(rules, of, sets, slot, POOL, 0):
            return -1
    return -1


@compiled
def overlaps(rules: Ints, of: Ints, sets: Sets, start: int, end: int, beyond: int = 0) -> bool:
    """Whether nodes of ``CHOSEN`` have been promised between these times, rounded, in a span from ``beyond`` on."""
    start, end, spans = down(rules, start), down(rules, end), of[OF_CLOCK, N_SPANS]
    if start >= down(rules, of[OF_CLOCK, NOW] + rules[BF_WINDOW_S]):
        return False
    position = max(beyond, right(of, BEGINS, spans, start) - 1)
    while position < spans and of[BEGINS, position] < end:
        row = rules[SPAN_SETS] + of[SPAN_ROWS, position]
        for word in range(sets.shape[1]):
            if sets[CHOSEN, word] & ~sets[row, word]:
                return True
        position += 1
    return False


@compiled
def started_now(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Count a job that has started on ``CHOSEN`` among the running ones."""
    for word in range(sets.shape[1]):
        sets[FREE, word] &= ~sets[CHOSEN, word]
    place = count_running(of, slot)
    of[OF_CLOCK, N_LEVELS] = min(place, of[OF_CLOCK, N_LEVELS])
    for level in range(of[OF_CLOCK, N_LEVELS]):  # those after it have its nodes as before
        for word in range(sets.shape[1]):
            sets[rules[LEVEL_SETS] + level, word] &= ~sets[CHOSEN, word]


@compiled
def count_running(of: Ints, slot: int) -> int:
    """Put the end of a job that has started among those of the others, and return where."""
    place, end = of[OF_CLOCK, N_LIMITS], of[LIMIT_END_S, slot]
    while place > 0:
        before = of[LIMIT_ENDS, place - 1]
        if before < end or (before == end and of[ID, of[LIMIT_SLOTS, place - 1]] < of[ID, slot]):
            break
        of[LIMIT_ENDS, place], of[LIMIT_SLOTS, place] = before, of[LIMIT_SLOTS, place - 1]
        place -= 1
    of[LIMIT_ENDS, place], of[LIMIT_SLOTS, place] = end, slot
    of[OF_CLOCK, N_LIMITS] += 1
    return place


@compiled
def may_reserve(rules: Ints, of: Ints, slot: int) -> bool:
    """Whether nodes are promised to a job; if not, it is tried for now only."""
    most = rules[BF_JOB_PART_COUNT_RESERVE]
    if most and of[RESERVED, of[PARTITION, slot]] >= most:
        return False
    if rules[BF_MIN_PRIO_RESERVE] and of[PRIORITY, slot] < rules[BF_MIN_PRIO_RESERVE]:
        return False
    waited_s: int = of[OF_CLOCK, NOW] - of[ELIGIBLE_S, slot]
    return waited_s >= rules[BF_MIN_AGE_RESERVE_S]


@compiled
def test_counts(rules: Ints, of: Ints, slot: int) -> bool:
    """Count a job towards ``bf_max_job_part`` and ``bf_max_job_user``; whether it is within them."""
    partition, user = of[PARTITION, slot], of[USER, slot]
    of[TESTED, partition] += 1
    of[TESTED_USERS, user] += 1
    if rules[BF_MAX_JOB_PART] and of[TESTED, partition] > rules[BF_MAX_JOB_PART]:
        return False
    return not rules[BF_MAX_JOB_USER] or of[TESTED_USERS, user] <= rules[BF_MAX_JOB_USER]


@compiled
def promise(rules: Ints, of: Ints, sets: Sets, slot: int, start: int) -> None:
    """Promise a job ``CHOSEN`` from ``start`` on."""
    of[RESERVED, of[PARTITION, slot]] += 1
    of[OF_CLOCK, COMPETING] |= of[OF_CLOCK, LATE]
    for word in range(sets.shape[1]):
        sets[PLANNED, word] |= sets[CHOSEN, word]
    end = down(rules, start + of[LIMIT_S, slot])
    start = max(down(rules, start), of[BEGINS, 0])
    if start >= down(rules, of[OF_CLOCK, NOW] + rules[BF_WINDOW_S]):
        return
    end = max(end, start + rules[BF_RESOLUTION_S])
    first = _cut(rules, of, sets, start)
    last = _cut(rules, of, sets, end)
    for position in range(first, of[OF_CLOCK, N_SPANS]):
        row, count = of[SPAN_ROWS, position], 0
        if position < last:
            for word in range(sets.shape[1]):
                left = sets[rules[SPAN_SETS] + row, word] & ~sets[CHOSEN, word]
                sets[rules[SPAN_SETS] + row, word] = left
                count += ones(left)
            of[COUNTS, position] = count
        for word in range(sets.shape[1]):
            sets[rules[UNTIL_SETS] + row, word] &= ~sets[CHOSEN, word]
    _merge(rules, of, sets, max(0, first - 2), last)


@compiled
def _merge(rules: Ints, of: Ints, sets: Sets, first: int, last: int) -> None:
    """Make one of the first two neighbours of these spans that are alike: only one pair, as slurmctld does."""
    spans = of[OF_CLOCK, N_SPANS]
    for position in range(first + 1, min(last + 1, spans)):
        gone = of[SPAN_ROWS, position]
        if of[COUNTS, position] != of[COUNTS, position - 1]:
            continue
        if not has_all(sets, rules[SPAN_SETS] + gone, rules[SPAN_SETS] + of[SPAN_ROWS, position - 1]):
            continue
        for later in range(position, spans - 1):
            of[BEGINS, later], of[COUNTS, later] = of[BEGINS, later + 1], of[COUNTS, later + 1]
            of[SPAN_ROWS, later] = of[SPAN_ROWS, later + 1]
        of[SPAN_ROWS, spans - 1] = gone
        of[OF_CLOCK, N_SPANS] = spans - 1
        return


@compiled
def _cut(rules: Ints, of: Ints, sets: Sets, time: int) -> int:
    """Return the first span that begins at ``time`` or later, after cutting the one that ``time`` lies in."""
    spans = of[OF_CLOCK, N_SPANS]
    position = right(of, BEGINS, spans, time - 1)
    if not position or (position < spans and of[BEGINS, position] == time):
        return position
    if position == spans and time >= down(rules, of[OF_CLOCK, NOW] + rules[BF_WINDOW_S]):
        return position
    unused = of[SPAN_ROWS, spans]
    for later in range(spans, position, -1):
        of[BEGINS, later], of[COUNTS, later] = of[BEGINS, later - 1], of[COUNTS, later - 1]
        of[SPAN_ROWS, later] = of[SPAN_ROWS, later - 1]
    of[BEGINS, position], of[SPAN_ROWS, position] = time, unused
    of[COUNTS, position] = of[COUNTS, position - 1]
    before = of[SPAN_ROWS, position - 1]
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS] + unused, word] = sets[rules[SPAN_SETS] + before, word]
        sets[rules[UNTIL_SETS] + unused, word] = sets[rules[UNTIL_SETS] + before, word]
    of[OF_CLOCK, N_SPANS] = spans + 1
    of[OF_CLOCK, N_SPANS_MADE] += 1
    return position
