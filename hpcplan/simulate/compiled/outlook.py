"""From when on jobs of a pass might fit, as is known from those that it has planned for before, compiled.

In a pass nodes are only promised and given out. So a job fits no earlier than one could that asked for no more: than
when that one first found enough nodes, unpromised for as long as it might run from then on, that have room before more
can be had (``KNOWN_FROM`` of the job in ``KNOWN_SLOTS``). What is left out besides are tries that would find nothing.
"""
# ruff: noqa: I001  (long lists of constants)

from __future__ import annotations

from typing import Final

from hpcplan.simulate.compiled.jit import compiled
from hpcplan.simulate.compiled.layout import (
    CPU_MEMORY, ELIGIBLE, KIND, KNOWN_FROM, KNOWN_SLOTS, LIMIT_S, NEED, NODE_CPUS, NODE_GRES, NODE_MEMORY, N_GRES,
    N_KNOWN, OF_CLOCK, Ints,
)  # fmt: skip

__all__ = ["begin_outlook", "fits_from", "note_outlook"]

_MOST: Final = 64  # jobs that are remembered
_CLOCK: Final = OF_CLOCK


@compiled
def begin_outlook(of: Ints) -> None:
    """Know nothing."""
    of[_CLOCK, N_KNOWN] = 0


@compiled
def fits_from(of: Ints, slot: int, now: int) -> int:
    """Return a time before which a job cannot fit."""
    found = now
    for place in range(of[_CLOCK, N_KNOWN]):
        if of[KNOWN_FROM, place] > found and _asks_for_no_more(of, of[KNOWN_SLOTS, place], slot):
            found = of[KNOWN_FROM, place]
    return found


@compiled
def note_outlook(of: Ints, slot: int, time: int) -> None:
    """Note from when on a job might fit, in place of what says less."""
    known, place = of[_CLOCK, N_KNOWN], 0
    while place < known:
        other = of[KNOWN_SLOTS, place]
        if of[KNOWN_FROM, place] <= time and _asks_for_no_more(of, slot, other):
            break
        place += 1
    if place == _MOST:
        return
    of[KNOWN_SLOTS, place], of[KNOWN_FROM, place] = slot, time
    of[_CLOCK, N_KNOWN] = max(known, place + 1)


@compiled
def _asks_for_no_more(of: Ints, slot: int, than: int) -> bool:
    """Whether a job fits wherever and whenever another one does."""
    if (
        of[LIMIT_S, slot] > of[LIMIT_S, than] or of[NEED, slot] > of[NEED, than]
        or of[ELIGIBLE, slot] != of[ELIGIBLE, than]
    ):  # fmt: skip
        return False
    if of[KIND, slot] == of[KIND, than]:
        return True
    if not 0 < of[NODE_CPUS, slot] <= of[NODE_CPUS, than]:
        return False
    if of[CPU_MEMORY, slot] > of[CPU_MEMORY, than] or not 0 <= of[NODE_MEMORY, slot] <= of[NODE_MEMORY, than]:
        return False
    for kind in range(of[_CLOCK, N_GRES]):  # noqa: SIM110  (numba knows no generators)
        if of[NODE_GRES + kind, slot] > of[NODE_GRES + kind, than]:
            return False
    return True
