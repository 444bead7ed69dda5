"""The clocks of the controller's two threads, compiled: :mod:`hpcplan.simulate.threads` on arrays.

What counts, and why, is explained there; the names are the same.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    BACKFILL_CHANGED_S, BACKFILL_DUE_MS, BACKFILL_LAST_S, BACKFILL_PASS_DRIFT_US, BACKFILL_WAKE_MS, BATCH_MS,
    BATCH_SCHED_DELAY_S, BF_INTERVAL_S, BUILTIN, COMPETING, LAST_S, LAST_WHOLE_S, LOOP_DRIFT_US, LOOP_PHASE_MS,
    MAIN_DUE_MS, MAIN_DUE_WHOLE, NEVER, OF_CLOCK, PASSED_OVER, PLANNED_IDLE, REPEATS, SCHED_INTERVAL_S, STARTED_MS,
    STARTED_S, WANTED, Ints,
)  # fmt: skip

__all__ = [
    "backfill_changed", "backfill_passed", "backfill_postponed", "backfill_touched", "main_changed", "main_passed",
    "turn",
]  # fmt: skip

_SHORT_SLEEP_MS: Final = 1001
_LONG: Final = 1000
_CLOCK: Final = OF_CLOCK


@compiled
def _after(rules: Ints, pass_ms: int, passes: int) -> int:
    """Return when backfill wakes so many passes after one."""
    interval_ms, drift_us = rules[BF_INTERVAL_S] * 1000, rules[BACKFILL_PASS_DRIFT_US]
    before = pass_ms // interval_ms
    return pass_ms + passes * interval_ms + (before + passes) * drift_us // 1000 - before * drift_us // 1000


@compiled
def backfill_touched(rules: Ints, of: Ints, at_ms: int) -> None:
    """Note something that counts as a change, but that no pass can make anything of."""
    wake_ms = of[_CLOCK, BACKFILL_WAKE_MS]
    repeats = of[_CLOCK, REPEATS]
    if wake_ms < at_ms and not repeats and of[_CLOCK, BACKFILL_CHANGED_S] >= of[_CLOCK, BACKFILL_LAST_S]:
        of[_CLOCK, BACKFILL_LAST_S] = wake_ms // 1000
        wake_ms = _after(rules, wake_ms, 1)
    late_ms = at_ms - wake_ms
    if late_ms > 0:
        if repeats:
            passes = -(-late_ms * 1000 // (rules[BF_INTERVAL_S] * 1_000_000 + rules[BACKFILL_PASS_DRIFT_US]))
            if _after(rules, wake_ms, passes) < at_ms:
                passes += 1
            last_s = _after(rules, wake_ms, passes - 1) // 1000
            wake_ms = _after(rules, wake_ms, passes)
            of[_CLOCK, BACKFILL_LAST_S] = of[_CLOCK, BACKFILL_CHANGED_S] = last_s
        else:
            wake_ms += -(-late_ms // _SHORT_SLEEP_MS) * _SHORT_SLEEP_MS
    of[_CLOCK, BACKFILL_WAKE_MS] = wake_ms
    of[_CLOCK, BACKFILL_CHANGED_S] = max(of[_CLOCK, BACKFILL_CHANGED_S], at_ms // 1000)


@compiled
def backfill_changed(rules: Ints, of: Ints, at_ms: int) -> None:
    """Note a change; a pass follows."""
    backfill_touched(rules, of, at_ms)
    if of[_CLOCK, BACKFILL_DUE_MS] == NEVER or of[_CLOCK, BACKFILL_DUE_MS] < at_ms:
        of[_CLOCK, BACKFILL_DUE_MS] = of[_CLOCK, BACKFILL_WAKE_MS]


@compiled
def backfill_passed(rules: Ints, of: Ints, planned_idle: bool) -> None:
    """Note that the pass that was due is over."""
    due_ms = of[_CLOCK, BACKFILL_DUE_MS]
    of[_CLOCK, BACKFILL_LAST_S] = due_ms // 1000
    repeats = planned_idle or of[_CLOCK, COMPETING] > 0
    if of[_CLOCK, PLANNED_IDLE] or repeats:
        of[_CLOCK, BACKFILL_CHANGED_S] = due_ms // 1000
    of[_CLOCK, REPEATS], of[_CLOCK, PLANNED_IDLE] = repeats, planned_idle
    of[_CLOCK, BACKFILL_WAKE_MS] = _after(rules, due_ms, 1)
    of[_CLOCK, BACKFILL_DUE_MS] = NEVER


@compiled
def backfill_postponed(of: Ints) -> None:
    """Note that the pass that was due was not had: it asks again in a second."""
    of[_CLOCK, BACKFILL_DUE_MS] += _SHORT_SLEEP_MS
    of[_CLOCK, BACKFILL_WAKE_MS] = of[_CLOCK, BACKFILL_DUE_MS]


@compiled
def turn(rules: Ints, at_ms: int) -> int:
    """Return the first turn of the main loop at ``at_ms`` or later."""
    first_us = (rules[STARTED_S] * 1000 + rules[STARTED_MS] + rules[LOOP_PHASE_MS]) * 1000
    turn_us = 1_000_000 + rules[LOOP_DRIFT_US]
    turns = max(1, -(-(at_ms * 1000 - first_us) // turn_us))
    return (first_us + turns * turn_us) // 1000


@compiled
def _arm(rules: Ints, of: Ints) -> None:
    """Work out the next pass."""
    due_ms, whole, batch_ms = NEVER, 0, of[_CLOCK, BATCH_MS]
    if batch_ms != NEVER:
        due_ms = turn(rules, max(batch_ms, (of[_CLOCK, LAST_S] + rules[BATCH_SCHED_DELAY_S]) * 1000))
    if of[_CLOCK, WANTED] or batch_ms != NEVER:
        whole_ms = turn(rules, (of[_CLOCK, LAST_WHOLE_S] + rules[SCHED_INTERVAL_S]) * 1000)
        if due_ms == NEVER or whole_ms <= due_ms:
            due_ms, whole = whole_ms, 1
    of[_CLOCK, MAIN_DUE_MS], of[_CLOCK, MAIN_DUE_WHOLE] = due_ms, whole


@compiled
def main_changed(rules: Ints, of: Ints, at_ms: int, batch: int) -> None:
    """Note a change; ``batch``, if it is one that the loop is told of: a submission, or an end.

    Where the loop passed over a queue in which nothing had changed, backfill is told of that.
    """
    every = rules[SCHED_INTERVAL_S]
    idle_s = at_ms // 1000 - of[_CLOCK, LAST_WHOLE_S]
    if idle_s > _LONG * every:
        of[_CLOCK, LAST_WHOLE_S] += (idle_s // every - 1) * every
        of[_CLOCK, LAST_S] = max(of[_CLOCK, LAST_S], of[_CLOCK, LAST_WHOLE_S])
    of[_CLOCK, WANTED] = 1
    _arm(rules, of)
    while of[_CLOCK, MAIN_DUE_MS] != NEVER and of[_CLOCK, MAIN_DUE_MS] < at_ms:
        if of[_CLOCK, PASSED_OVER] and not rules[BUILTIN]:
            backfill_touched(rules, of, of[_CLOCK, MAIN_DUE_MS])
        main_passed(rules, of, True)
    if batch and of[_CLOCK, BATCH_MS] == NEVER:
        of[_CLOCK, BATCH_MS] = at_ms
        _arm(rules, of)


@compiled
def main_passed(rules: Ints, of: Ints, truncated: bool) -> None:
    """Note the pass that was due; ``truncated``: whether it left jobs out that one over the whole queue tries."""
    of[_CLOCK, LAST_S] = of[_CLOCK, MAIN_DUE_MS] // 1000
    of[_CLOCK, BATCH_MS], of[_CLOCK, WANTED] = NEVER, truncated
    if of[_CLOCK, MAIN_DUE_WHOLE]:
        of[_CLOCK, LAST_WHOLE_S] = of[_CLOCK, LAST_S]
    _arm(rules, of)
