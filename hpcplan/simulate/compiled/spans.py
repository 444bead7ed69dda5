"""What a pass has promised until when, compiled: :mod:`hpcplan.simulate.node_space` on arrays; the names are the same.

The i-th span begins at ``of[BEGINS, i]``; nobody has been promised the nodes of the ``of[SPAN_ROWS, i]``-th of
``SPAN_SETS`` in it, nor those of ``UNTIL_SETS`` from now to its end. Rows of spans that are gone come behind the
others. ``of[GAINED, i]`` of the nodes are not in the span before, ``of[LOST, i]`` only in that one.

What is unpromised during some spans is asked for later and later ones: up to the middle one that was last asked for,
the sets are kept for each to begin with (``WINDOW_SETS``), and in ``FRONT`` the one for what follows.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

import numpy as np

from hpcplan.simulate.compiled.backfill import down, right
from hpcplan.simulate.compiled.jit import compiled, ones
from hpcplan.simulate.compiled.layout import (
    ALL, BEGINS, BF_RESOLUTION_S, BF_WINDOW_S, CHOSEN, FRONT, GAINED, LOST, NOW, N_SPANS, N_SPANS_MADE, OF_CLOCK,
    SPAN_ROWS, SPAN_SETS, UNTIL_SETS, USABLE, WINDOW_END, WINDOW_MIDDLE, WINDOW_SETS, Ints, Sets,
)  # fmt: skip

__all__ = ["begin_spans", "begin_window", "find_usable", "next_gain", "take_span", "without_span"]

_CLOCK: Final = OF_CLOCK
_WORD: Final = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled
def begin_spans(rules: Ints, of: Ints, sets: Sets) -> None:
    """Begin with one span, in which nobody has been promised anything."""
    for row in range(rules[UNTIL_SETS] - rules[SPAN_SETS]):
        of[SPAN_ROWS, row] = row
    of[_CLOCK, N_SPANS], of[BEGINS, 0] = 1, down(rules, of[_CLOCK, NOW])
    of[_CLOCK, N_SPANS_MADE] = 1
    of[GAINED, 0] = of[LOST, 0] = 0
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS], word] = sets[rules[UNTIL_SETS], word] = sets[ALL, word]


@compiled
def _end(rules: Ints, of: Ints) -> int:
    return down(rules, of[_CLOCK, NOW] + rules[BF_WINDOW_S])


@compiled
def next_gain(rules: Ints, of: Ints, sets: Sets, pool: int, first: int, beyond: int) -> int:
    """Return the next span after ``first`` in which nodes of ``pool`` could be had that cannot in the one before.

    -1 if it does not begin up to the end of the one at ``beyond``.
    """
    for position in range(first + 1, min(beyond + 2, of[_CLOCK, N_SPANS])):
        if of[GAINED, position]:
            before, after = rules[SPAN_SETS] + of[SPAN_ROWS, position - 1], rules[SPAN_SETS] + of[SPAN_ROWS, position]
            for word in range(sets.shape[1]):
                if sets[pool, word] & sets[after, word] & ~sets[before, word]:
                    return position
    return -1


@compiled
def begin_window(of: Ints) -> None:
    """Forget what was asked for another job."""
    of[_CLOCK, WINDOW_MIDDLE] = 0


@compiled
def find_usable(rules: Ints, of: Ints, sets: Sets, pool: int, start: int, first: int, beyond: int) -> None:
    """Put the nodes of ``pool`` that nobody has been promised from ``start`` on, in these spans, into ``USABLE``."""
    words, whole = sets.shape[1], rules[UNTIL_SETS] + of[SPAN_ROWS, beyond - 1]
    if first > 0:
        whole = rules[WINDOW_SETS] + first
        if start >= _end(rules, of):  # behind all that is planned for
            whole = pool
        elif first >= of[_CLOCK, WINDOW_MIDDLE]:
            _fill_window(rules, of, sets, first, beyond)
        else:
            for position in range(of[_CLOCK, WINDOW_END], beyond):
                row = rules[SPAN_SETS] + of[SPAN_ROWS, position]
                for word in range(words):
                    sets[FRONT, word] &= sets[row, word]
            of[_CLOCK, WINDOW_END] = beyond
            for word in range(words):
                sets[USABLE, word] = sets[pool, word] & sets[whole, word] & sets[FRONT, word]
            return
    elif start >= _end(rules, of):
        whole = pool
    for word in range(words):
        sets[USABLE, word] = sets[pool, word] & sets[whole, word]


@compiled
def without_span(rules: Ints, of: Ints, sets: Sets, start: int, position: int) -> None:
    """Take out of ``USABLE`` what has been promised in one more span."""
    if start < _end(rules, of):
        row = rules[SPAN_SETS] + of[SPAN_ROWS, position]
        for word in range(sets.shape[1]):
            sets[USABLE, word] &= sets[row, word]


@compiled
def _fill_window(rules: Ints, of: Ints, sets: Sets, first: int, beyond: int) -> None:
    words, row = sets.shape[1], rules[SPAN_SETS] + of[SPAN_ROWS, beyond - 1]
    for word in range(words):
        sets[rules[WINDOW_SETS] + beyond - 1, word], sets[FRONT, word] = sets[row, word], _WORD
    for position in range(beyond - 2, first - 1, -1):
        row, before = rules[SPAN_SETS] + of[SPAN_ROWS, position], rules[WINDOW_SETS] + position + 1
        for word in range(words):
            sets[before - 1, word] = sets[before, word] & sets[row, word]
    of[_CLOCK, WINDOW_MIDDLE] = of[_CLOCK, WINDOW_END] = beyond


@compiled
def take_span(rules: Ints, of: Ints, sets: Sets, start: int, end: int) -> None:
    """Promise ``CHOSEN`` to somebody between these times, which are whole multiples of the resolution but for now."""
    start = max(start, of[BEGINS, 0])
    end = max(end, start + rules[BF_RESOLUTION_S])
    if start >= _end(rules, of):
        return
    first = _cut(rules, of, sets, start)
    last = _cut(rules, of, sets, end)
    for word in range(sets.shape[1]):
        if sets[CHOSEN, word]:
            _take_word(rules, of, sets, word, first, last)
    _merge(of, max(0, first - 2), last)


@compiled
def _take_word(rules: Ints, of: Ints, sets: Sets, word: int, first: int, last: int) -> None:
    """Do that for the nodes of a word, in the spans from ``first`` up to ``last``."""
    spans, taken = of[_CLOCK, N_SPANS], sets[CHOSEN, word]
    had = before = np.uint64(0)  # what the span before had of it, and has
    if first:
        had = before = sets[rules[SPAN_SETS] + of[SPAN_ROWS, first - 1], word] & taken
    for position in range(first, min(last + 1, spans)):
        row = rules[SPAN_SETS] + of[SPAN_ROWS, position]
        has = sets[row, word] & taken
        left = has if position == last else np.uint64(0)
        if position:
            of[GAINED, position] += ones(left & ~before) - ones(has & ~had)
            of[LOST, position] += ones(before & ~left) - ones(had & ~has)
        if position < last:
            sets[row, word] &= ~taken
        had, before = has, left
    for position in range(first, spans):
        sets[rules[UNTIL_SETS] + of[SPAN_ROWS, position], word] &= ~taken


@compiled
def _merge(of: Ints, first: int, last: int) -> None:
    """Make one of the first two neighbours of these spans that are alike."""
    spans = of[_CLOCK, N_SPANS]
    for position in range(first + 1, min(last + 1, spans)):
        if not (of[GAINED, position] or of[LOST, position]):
            gone = of[SPAN_ROWS, position]
            for later in range(position, spans - 1):
                _move(of, later + 1, later)
            of[SPAN_ROWS, spans - 1] = gone
            of[_CLOCK, N_SPANS] = spans - 1
            return


@compiled
def _move(of: Ints, position: int, to: int) -> None:
    """Move what is known of a span."""
    of[BEGINS, to], of[SPAN_ROWS, to] = of[BEGINS, position], of[SPAN_ROWS, position]
    of[GAINED, to], of[LOST, to] = of[GAINED, position], of[LOST, position]


@compiled
def _cut(rules: Ints, of: Ints, sets: Sets, time: int) -> int:
    """Return the span that begins at ``time``, or where one would that begins behind the last."""
    spans = of[_CLOCK, N_SPANS]
    position = right(of, BEGINS, spans, time)
    if of[BEGINS, position - 1] == time:
        return position - 1
    if time >= _end(rules, of):
        return position
    row, before = of[SPAN_ROWS, spans], of[SPAN_ROWS, position - 1]
    for later in range(spans, position, -1):
        _move(of, later - 1, later)
    of[BEGINS, position], of[SPAN_ROWS, position] = time, row
    of[GAINED, position] = of[LOST, position] = 0
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS] + row, word] = sets[rules[SPAN_SETS] + before, word]
        sets[rules[UNTIL_SETS] + row, word] = sets[rules[UNTIL_SETS] + before, word]
    of[_CLOCK, N_SPANS] = spans + 1
    of[_CLOCK, N_SPANS_MADE] += 1
    return position
