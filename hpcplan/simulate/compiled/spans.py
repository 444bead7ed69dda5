"""What a pass has promised until when, compiled: :mod:`hpcplan.simulate.node_space` on arrays; the names are the same.

The i-th span begins at ``of[BEGINS, i]``; nobody has been promised the nodes of the ``of[SPAN_ROWS, i]``-th of
``SPAN_SETS`` in it, nor those of ``UNTIL_SETS`` from now to its end. Rows of spans that are gone come behind the
others.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from hpcplan.simulate.compiled.backfill import down, right
from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    ALL, BEGINS, BF_RESOLUTION_S, BF_WINDOW_S, CHOSEN, NEVER, NOW, N_SPANS, OF_CLOCK, SPAN_ROWS, SPAN_SETS, UNTIL_SETS,
    USABLE, Ints, Sets,
)  # fmt: skip

__all__ = ["begin_spans", "during", "take_span"]

_CLOCK = OF_CLOCK


@compiled
def begin_spans(rules: Ints, of: Ints, sets: Sets) -> None:
    """Begin with one span, in which nobody has been promised anything."""
    for row in range(rules[UNTIL_SETS] - rules[SPAN_SETS]):
        of[SPAN_ROWS, row] = row
    of[_CLOCK, N_SPANS], of[BEGINS, 0] = 1, down(rules, of[_CLOCK, NOW])
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS], word] = sets[rules[UNTIL_SETS], word] = sets[ALL, word]


@compiled
def _end(rules: Ints, of: Ints) -> int:
    return down(rules, of[_CLOCK, NOW] + rules[BF_WINDOW_S])


@compiled
def during(rules: Ints, of: Ints, sets: Sets, pool: int, start: int, end: int) -> int:
    """Put the nodes of ``pool`` that nobody has been promised from ``start`` until ``end`` into ``USABLE``.

    Return the first end of a span, from ``start`` on, after which others than those could be had; ``NEVER`` if none.
    """
    words, spans = sets.shape[1], of[_CLOCK, N_SPANS]
    for word in range(words):
        sets[USABLE, word] = sets[pool, word]
    first, later = max(0, right(of, BEGINS, spans, start) - 1), NEVER
    for position in range(first, spans):
        begin = of[BEGINS, position]
        if (position == spans - 1 and _end(rules, of) <= start) or (begin > end and later != NEVER):
            break
        row = rules[SPAN_SETS] + of[SPAN_ROWS, position]
        if later == NEVER and position < spans - 1:
            following = rules[SPAN_SETS] + of[SPAN_ROWS, position + 1]
            for word in range(words):
                if sets[pool, word] & sets[following, word] & ~(sets[USABLE, word] & sets[row, word]):
                    later = of[BEGINS, position + 1]
                    break
        if begin > end:
            break
        for word in range(words):
            sets[USABLE, word] &= sets[row, word]
    return later


@compiled
def take_span(rules: Ints, of: Ints, sets: Sets, start: int, end: int) -> None:
    """Promise ``CHOSEN`` to somebody between these times, which are whole multiples of the resolution but for now."""
    start = max(start, of[BEGINS, 0])
    end = max(end, start + rules[BF_RESOLUTION_S])
    if start >= _end(rules, of):
        return
    first = _cut(rules, of, sets, start)
    last = _cut(rules, of, sets, end)
    for position in range(first, of[_CLOCK, N_SPANS]):
        row = of[SPAN_ROWS, position]
        for word in range(sets.shape[1]):
            left = ~sets[CHOSEN, word]
            sets[rules[UNTIL_SETS] + row, word] &= left
            if position < last:
                sets[rules[SPAN_SETS] + row, word] &= left
    _merge(rules, of, sets, max(0, first - 2), last)


@compiled
def _merge(rules: Ints, of: Ints, sets: Sets, first: int, last: int) -> None:
    """Make one of the first two neighbours of these spans that are alike."""
    spans = of[_CLOCK, N_SPANS]
    for position in range(first, min(last, spans - 1)):
        one, other = rules[SPAN_SETS] + of[SPAN_ROWS, position], rules[SPAN_SETS] + of[SPAN_ROWS, position + 1]
        alike = True
        for word in range(sets.shape[1]):
            alike = alike and sets[one, word] == sets[other, word]
        if alike:
            gone = of[SPAN_ROWS, position + 1]
            for later in range(position + 1, spans - 1):
                of[BEGINS, later], of[SPAN_ROWS, later] = of[BEGINS, later + 1], of[SPAN_ROWS, later + 1]
            of[SPAN_ROWS, spans - 1] = gone
            of[_CLOCK, N_SPANS] = spans - 1
            return


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
        of[BEGINS, later], of[SPAN_ROWS, later] = of[BEGINS, later - 1], of[SPAN_ROWS, later - 1]
    of[BEGINS, position], of[SPAN_ROWS, position] = time, row
    for word in range(sets.shape[1]):
        sets[rules[SPAN_SETS] + row, word] = sets[rules[SPAN_SETS] + before, word]
        sets[rules[UNTIL_SETS] + row, word] = sets[rules[UNTIL_SETS] + before, word]
    of[_CLOCK, N_SPANS] = spans + 1
    return position
