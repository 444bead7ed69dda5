"""One pass of the backfill scheduler where jobs share nodes, compiled: :mod:`hpcplan.simulate.exact_backfill` and
:mod:`hpcplan.simulate.shared_backfill` on arrays; the names are the same.

What changes nothing is left out. When enough nodes have room is known from the nodes (:mod:`.kinds`), without letting
one job end after the other; and where a job would fit too late it is not worked out when, but for the sake of the nodes
that jobs with GRES are weighed on.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.backfill import (
    begin_plan, count_running, down, may_reserve, overlaps, right, test_counts,
)  # fmt: skip
from hpcplan.simulate.compiled.bits import common, is_empty
from hpcplan.simulate.compiled.ends import begin_ends, count_in_levels, first_on_usable, last_of_group
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.kinds import enough_before, enough_by, find_pool, find_room, ready_by
from hpcplan.simulate.compiled.layout import (
    BEGINS, BF_MAX_JOB_PART, BF_MAX_JOB_START, BF_MAX_JOB_TEST, BF_MAX_JOB_USER, BF_WINDOW_LINEAR_S, BF_WINDOW_S,
    CHOSEN, CLOCK_S, COMPETING, COMPLETING, ELIGIBLE, ELIGIBLE_SETS, FITTING, GRES_A_NODE, ID, IDLE, KILL_WAIT_S,
    LIMIT_ENDS, LIMIT_END_S, LIMIT_S, LIMIT_SLOTS, MODEST, NEED, NEVER, NEXT_GRES_S, NODE_CPUS, NOW, N_LIMITS,
    N_READY, N_SPANS, N_SPANS_MADE, OF_CLOCK, OVER_TIME_LIMIT_S, PARTITION, PLANNED, READY, RESERVED, SPANS_AT_MOST,
    SPAN_ROWS, TESTED, TESTED_USERS, TRIED, UNTIL_SETS, USABLE, Ints, Sets,
)  # fmt: skip
from hpcplan.simulate.compiled.outlook import begin_outlook, fits_from, note_outlook
from hpcplan.simulate.compiled.shared_choice import choose_nodes, choose_now
from hpcplan.simulate.compiled.spans import begin_spans, begin_window, find_usable, next_gain, take_span, without_span
from hpcplan.simulate.compiled.starting import drop_started, queue_in_sight, start_job
from hpcplan.simulate.compiled.stock import FOREVER
from hpcplan.simulate.compiled.weighing import begin_weighing, level, next_to_weigh, weigh_by, weigh_ever

__all__ = ["expected_end", "shared_backfill_pass", "until_row", "wider"]

_SHORT: Final = 50
_WINDOW_S: Final = 30
_CLOCK: Final = OF_CLOCK


@compiled
def shared_backfill_pass(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints) -> bool:
    """Have a pass; whether idle nodes have been promised in it."""
    now = of[_CLOCK, NOW]
    queue, count = queue_in_sight(rules, of)
    begin_plan(rules, of, sets)
    begin_spans(rules, of, sets)
    begin_ends(of)
    begin_outlook(of)
    counted = rules[BF_MAX_JOB_PART] > 0 or rules[BF_MAX_JOB_USER] > 0
    if counted:
        of[TESTED, :] = 0
        of[TESTED_USERS, :] = 0
    to_the_end = count <= _SHORT and _differ(of, queue, count)
    last = count - 1 if to_the_end else _last_that_can_start(rules, of, sets, stock, held, queue, count - 1)
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
            if of[_CLOCK, N_SPANS_MADE] >= rules[SPANS_AT_MOST]:
                place = count  # and none is left to be weighed
                break
            _promise(rules, of, sets, slot, start)
        else:
            _start(rules, of, sets, stock, held, slot)
            started += 1
            if started == rules[BF_MAX_JOB_START]:
                break
        if not to_the_end:
            last = _last_that_can_start(rules, of, sets, stock, held, queue, last)
    if tries < rules[BF_MAX_JOB_TEST]:
        for left in range(place, count):
            slot = of[queue, left]
            if of[GRES_A_NODE, slot]:
                _room_for(rules, of, sets, slot)
                weigh_ever(rules, of, sets, stock, held, slot, USABLE)
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
def until_row(rules: Ints, of: Ints, slot: int) -> int:
    """Return the row of the nodes that nobody has been promised for as long as a job might run from now on."""
    end = of[_CLOCK, NOW] + of[LIMIT_S, slot]
    span = max(0, right(of, BEGINS, of[_CLOCK, N_SPANS], end) - 1)
    row: int = rules[UNTIL_SETS] + of[SPAN_ROWS, span]
    return row


@compiled
def _room_for(rules: Ints, of: Ints, sets: Sets, slot: int) -> None:
    """Put the eligible ones among those into ``USABLE``."""
    until, eligible = until_row(rules, of, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    for word in range(sets.shape[1]):
        sets[USABLE, word] = sets[until, word] & sets[eligible, word]


@compiled
def _last_that_can_start(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, queue: int, last: int
) -> int:  # fmt: skip
    """Return the last job of a row, from ``last`` downwards, that enough nodes are free and unpromised for."""
    while last >= 0:
        slot = of[queue, last]
        until, eligible = until_row(rules, of, slot), rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        room, need, there = find_room(rules, of, sets, stock, held, slot), of[NEED, slot], 0
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
    for word in range(sets.shape[1]):
        sets[USABLE, word] &= ~sets[COMPLETING, word]
    level(rules, of, sets, slot, USABLE)
    if not choose_now(rules, of, sets, stock, held, slot, USABLE):
        for word in range(sets.shape[1]):
            sets[CHOSEN, word] = sets[FITTING, word]
    start_job(rules, of, sets, stock, held, slot, 1)
    count_in_levels(rules, of, sets, count_running(of, slot))
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
    now, need, spans = of[_CLOCK, NOW], of[NEED, slot], of[_CLOCK, N_SPANS]
    limit_s, eligible = of[LIMIT_S, slot], rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
    begin_window(of)
    begin_weighing(of, sets, slot)
    room, looked = find_room(rules, of, sets, stock, held, slot), of[GRES_A_NODE, slot] > 0
    of[_CLOCK, N_READY] = -1
    bound = now if looked or now_only else fits_from(of, slot, now)
    unnoted = not now_only
    asked = now
    while asked != NEVER:
        earliest = asked
        first = max(0, right(of, BEGINS, spans, earliest) - 1)
        beyond = right(of, BEGINS, spans, earliest + limit_s)
        gain = next_gain(rules, of, sets, eligible, first, beyond)
        later = of[BEGINS, gain] if gain >= 0 else NEVER
        asked = NEVER if now_only else later
        latest = now + rules[BF_WINDOW_S]
        if now_only:
            latest = now
        elif later != NEVER:
            latest = min(latest, later)
        too_early = later != NEVER and later < bound
        if too_early and of[_CLOCK, TRIED]:
            continue
        short = beyond
        if unnoted and beyond - 1 > first and of[BEGINS, beyond - 1] >= down(rules, earliest + limit_s):
            short -= 1  # what begins where a promise to the job would end is none of its concern
        find_usable(rules, of, sets, eligible, earliest, first, short)
        if unnoted and not too_early:
            unnoted = earliest > now or common(sets, room, USABLE) < need
            if unnoted:
                ready_by(rules, of, sets, stock, held, slot, latest)
                unnoted = common(sets, READY, USABLE) < need
                if not unnoted:
                    note_outlook(of, slot, earliest)
        if short < beyond:
            without_span(rules, of, sets, earliest, short)
        if common(sets, USABLE, USABLE) < need:
            continue
        of[_CLOCK, TRIED] = 1
        if too_early:
            continue
        there = common(sets, room, USABLE) >= need
        if there and of[MODEST, slot] and earliest == now and is_empty(sets, COMPLETING):
            return now  # its nodes are chosen as it starts
        ready_by(rules, of, sets, stock, held, slot, latest)
        if common(sets, READY, USABLE) < need and not _needs_weighing(rules, of, sets, slot):
            continue
        if there and choose_now(rules, of, sets, stock, held, slot, USABLE):
            start = now
        else:
            start = _once_jobs_end(rules, of, sets, stock, held, slot, latest)
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
        if not overlaps(rules, of, sets, start, start + limit_s, beyond):
            return start
        asked = max(start, earliest + 1)
    if unnoted:
        note_outlook(of, slot, earliest)
    return -1


@compiled
def _needs_weighing(rules: Ints, of: Ints, sets: Sets, slot: int) -> bool:
    """Whether it has to be known when a job fits on ``USABLE`` though that is too late: for the nodes that it is
    weighed on until then. Not if it fits before any that it has not been weighed on has the GRES.
    """
    if not of[GRES_A_NODE, slot]:
        return False
    number = first_on_usable(rules, of, sets)
    if number == of[_CLOCK, N_LIMITS]:
        return False
    if not of[MODEST, slot]:
        return next_to_weigh(rules, of, sets, slot, USABLE) != FOREVER
    if of[_CLOCK, NEXT_GRES_S] == NEVER:  # of all nodes, usable or not, it is most often the same
        eligible = rules[ELIGIBLE_SETS] + of[ELIGIBLE, slot]
        of[_CLOCK, NEXT_GRES_S] = next_to_weigh(rules, of, sets, slot, eligible)
    gres_s = of[_CLOCK, NEXT_GRES_S]
    if gres_s == FOREVER or _fits_before(rules, of, sets, slot, number, gres_s):
        return False
    gres_s = next_to_weigh(rules, of, sets, slot, USABLE)
    return gres_s != FOREVER and not _fits_before(rules, of, sets, slot, number, gres_s)


@compiled
def _fits_before(rules: Ints, of: Ints, sets: Sets, slot: int, number: int, time: int) -> bool:
    """Whether a job, that is modest, is certainly found to fit before some time; ``number`` is the first to end."""
    window_s = _WINDOW_S
    start = of[LIMIT_ENDS, number] + window_s - (of[LIMIT_ENDS, number] + rules[CLOCK_S]) % window_s
    while start + wider(rules, window_s) < time:
        window_s = wider(rules, window_s)
    last = last_of_group(rules, of, sets, number, start + window_s)
    if last == of[_CLOCK, N_LIMITS] or of[LIMIT_ENDS, last] >= time:
        return False
    return enough_before(rules, of, sets, slot, of[LIMIT_ENDS, last])


@compiled
def _once_jobs_end(rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, latest: int) -> int:
    """Return when a job would fit on ``USABLE`` if running jobs use up their limits, with its nodes in ``CHOSEN``.

    ``NEVER`` if it would not. Where nothing hangs on when, after ``latest``, it is some time after it, without nodes.
    Jobs go in groups (:mod:`hpcplan.simulate.job_ends`).
    """
    enough_s = enough_by(rules, of, sets, slot)
    ends, number = of[_CLOCK, N_LIMITS], first_on_usable(rules, of, sets)
    if number == ends:
        return NEVER
    if enough_s != FOREVER:
        window_s = _WINDOW_S
        start = of[LIMIT_ENDS, number] + window_s - (of[LIMIT_ENDS, number] + rules[CLOCK_S]) % window_s
        while start + wider(rules, window_s) < enough_s:  # before that there is nothing to ask for
            window_s = wider(rules, window_s)
        while number < ends:
            while of[LIMIT_ENDS, number] > start + window_s:
                window_s = wider(rules, window_s)
            number = last_of_group(rules, of, sets, number, start + window_s)
            if number == ends:
                break
            if of[LIMIT_ENDS, number] >= enough_s:
                expected = expected_end(rules, of, of[LIMIT_ENDS, number])
                if _fits_after(rules, of, sets, stock, held, slot, number, enough_s, expected > latest):
                    return expected
            number += 1
    weigh_by(rules, of, sets, stock, held, slot, FOREVER, 0)
    return NEVER


@compiled
def wider(rules: Ints, window_s: int) -> int:
    """Return how long the next group of ends is looked at together (see :mod:`hpcplan.simulate.job_ends`)."""
    return window_s + rules[BF_WINDOW_LINEAR_S] if rules[BF_WINDOW_LINEAR_S] else window_s * 2


@compiled
def _fits_after(
    rules: Ints, of: Ints, sets: Sets, stock: Ints, held: Ints, slot: int, number: int, enough_s: int, without: bool
) -> bool:  # fmt: skip
    """Whether a job fits once the others have ended up to this one; its nodes are in ``CHOSEN`` unless ``without``."""
    end, ident = of[LIMIT_ENDS, number], of[ID, of[LIMIT_SLOTS, number]]
    tied = number + 1 < of[_CLOCK, N_LIMITS] and of[LIMIT_ENDS, number + 1] == end
    weigh_by(rules, of, sets, stock, held, slot, end, ident)
    if without and of[MODEST, slot] and (end > enough_s or not tied):
        return True
    there = find_pool(rules, of, sets, stock, held, slot, end, ident, tied)
    return there >= of[NEED, slot] and choose_nodes(rules, of, sets, stock, held, slot, end, ident)


@compiled
def expected_end(rules: Ints, of: Ints, end: int) -> int:
    """Return when a job with this time limit is taken to end, which may have passed."""
    now = of[_CLOCK, NOW]
    if end > now:
        return end
    return max(now + 1, end + rules[KILL_WAIT_S] + rules[OVER_TIME_LIMIT_S])
