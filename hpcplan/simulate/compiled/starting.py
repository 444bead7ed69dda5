"""How jobs start in a pass, compiled, and what passes begin and end with."""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.bits import common
from hpcplan.simulate.compiled.dependencies import hangs_on_unseen, has_started
from hpcplan.simulate.compiled.fairshare import count_started
from hpcplan.simulate.compiled.heaps import push
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    ALL, BACKFILLED, BEGAN_MS, BUSY, CHANGED, CHOSEN, COMPLETING, CPUS, END_TIMES, FIRST_HELD, FIRST_TURN_S, FIRST_WORD,
    FREE, HELD_CPUS, HELD_NEXT, ID, IN_SIGHT, JOB_SETS, LAST_WORD, LIMIT_END_S, LIMIT_S, NEVER, NODE_CPUS, NOW,
    N_CLEANING, N_PROMISED, N_RUNNING, N_WAITING, OF_CLOCK, OVER_TIME_LIMIT_S, PROMISED, REPEATS, RUN_S, SPREAD,
    START_S, SUBMIT_S, TIMED_OUT, TIME_LIMIT_CHECK_S, TURN_MS, WAITING, Ints, Sets, Stock,
)  # fmt: skip
from hpcplan.simulate.compiled.pace import SUBMITTED_MS
from hpcplan.simulate.compiled.policy_layout import BILLED, DEPENDS, FAIR_PLACE, GROUPS, GROUP_CPUS, GROUP_SETS
from hpcplan.simulate.compiled.stock import take

__all__ = ["drop_started", "find_free", "hold", "place_of", "queue_in_sight", "start_job"]

_CLOCK: Final = OF_CLOCK


@compiled
def queue_in_sight(rules: Ints, of: Ints) -> tuple[int, int]:
    """Return the row of the jobs that a turn sees and how many they are.

    Those submitted now come a bit later, and those that waited for a job whose nodes are not clean yet.
    """
    count = of[_CLOCK, N_WAITING]
    early = of[_CLOCK, TURN_MS] < SUBMITTED_MS
    unseen = rules[DEPENDS] and of[_CLOCK, N_CLEANING]
    if not (early or unseen):
        return WAITING, count
    seen = 0
    for place in range(count):
        slot = of[WAITING, place]
        if (early and of[SUBMIT_S, slot] >= of[_CLOCK, NOW]) or (unseen and hangs_on_unseen(of, slot)):
            continue
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
def find_free(sets: Sets) -> None:
    """Put the nodes on which jobs can start now into ``FREE``."""
    for word in range(sets.shape[1]):
        sets[FREE, word] = sets[ALL, word] & ~(sets[BUSY, word] | sets[COMPLETING, word])


@compiled
def start_job(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, slot: int, backfilled: int) -> None:
    """Start a job now on ``CHOSEN``."""
    of[START_S, slot], of[BEGAN_MS, slot], of[BACKFILLED, slot] = of[_CLOCK, NOW], of[_CLOCK, TURN_MS], backfilled
    hold(rules, of, sets, stock, held, slot)
    of[_CLOCK, CHANGED] = 1


@compiled
def hold(rules: Ints, of: Ints, sets: Sets, stock: Stock, held: Stock, slot: int) -> None:
    """Give a job that has started ``CHOSEN``, until its end."""
    start, nodes = of[START_S, slot], rules[JOB_SETS] + slot
    of[LIMIT_END_S, slot] = limit_end = start + of[LIMIT_S, slot]
    for word in range(sets.shape[1]):
        sets[nodes, word] = sets[CHOSEN, word]
        if sets[CHOSEN, word]:
            of[LAST_WORD, slot] = word
    of[FIRST_WORD, slot] = 0
    while not sets[CHOSEN, of[FIRST_WORD, slot]]:
        of[FIRST_WORD, slot] += 1
    if stock is None or held is None:
        for word in range(sets.shape[1]):
            sets[BUSY, word] |= sets[CHOSEN, word]
    else:
        take(rules, of, sets, stock, held, slot)
    end, over = start + of[RUN_S, slot], limit_end + rules[OVER_TIME_LIMIT_S]
    of[TIMED_OUT, slot] = end > over
    if end > over:
        end = min(end, over + (rules[FIRST_TURN_S] - over) % rules[TIME_LIMIT_CHECK_S])
    push(of, END_TIMES, of[_CLOCK, N_RUNNING], end, slot)
    of[_CLOCK, N_RUNNING] += 1
    first = place_of(of, slot)
    for place in range(of[_CLOCK, N_PROMISED], first, -1):
        of[PROMISED, place] = of[PROMISED, place - 1]
    of[PROMISED, first] = slot
    of[_CLOCK, N_PROMISED] += 1
    if rules[FAIR_PLACE] >= 0:
        of[BILLED, slot] = _cpus(rules, of, sets, held, slot)
        count_started(of, slot)
    if rules[DEPENDS]:
        has_started(of, slot)


@compiled
def _cpus(rules: Ints, of: Ints, sets: Sets, held: Stock, slot: int) -> int:
    """Return how many CPUs a job has that has started on ``CHOSEN``, which is what is billed for it."""
    cpus = 0
    if held is None or not of[NODE_CPUS, slot]:
        for group in range(rules[GROUPS]):
            cpus += of[GROUP_CPUS, group] * common(sets, CHOSEN, rules[GROUP_SETS] + group)
    elif not of[SPREAD, slot]:
        cpus = of[CPUS, slot]
    else:
        place = of[FIRST_HELD, slot]
        while place >= 0:
            cpus += held[place, HELD_CPUS]
            place = held[place, HELD_NEXT]
    return cpus


@compiled
def drop_started(of: Ints) -> None:
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
