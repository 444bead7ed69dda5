"""Heaps of (time, slot) in two rows, the earliest first, and of those of one time the job that was submitted first."""

from __future__ import annotations

from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import ID, Ints

__all__ = ["pop", "push"]


@compiled
def _is_before(of: Ints, times: int, place: int, time: int, slot: int) -> bool:
    """Whether what is at a place comes before this."""
    if of[times, place] != time:
        return bool(of[times, place] < time)
    return bool(of[ID, of[times + 1, place]] < of[ID, slot])


@compiled
def push(of: Ints, times: int, count: int, time: int, slot: int) -> None:
    """Add to a heap of ``count``, whose times are in the row ``times`` and slots in the one after."""
    place = count
    while place > 0:
        above = (place - 1) // 2
        if _is_before(of, times, above, time, slot):
            break
        of[times, place], of[times + 1, place] = of[times, above], of[times + 1, above]
        place = above
    of[times, place], of[times + 1, place] = time, slot


@compiled
def pop(of: Ints, times: int, count: int) -> int:
    """Take the slot with the earliest time out of a heap of ``count``."""
    found = of[times + 1, 0]
    last = count - 1
    time, slot = of[times, last], of[times + 1, last]
    place = 0
    while True:
        below = 2 * place + 1
        if below >= last:
            break
        if below + 1 < last and _is_before(of, times, below + 1, of[times, below], of[times + 1, below]):
            below += 1
        if not _is_before(of, times, below, time, slot):
            break
        of[times, place], of[times + 1, place] = of[times, below], of[times + 1, below]
        place = below
    of[times, place], of[times + 1, place] = time, slot
    return found
