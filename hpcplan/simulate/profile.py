"""Which nodes would be free when, if every running job used up its time limit: what reservations are planned on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcplan.simulate.machine import lowest

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Request

__all__ = ["Profile", "Slot", "choose"]


def choose(request: Request, mask: int, spare: int = 0) -> int:
    """Return the nodes of ``mask`` that the request would be given, 0 if it does not fit.

    The lowest-numbered come first, as in Slurm, after those outside ``spare``: nodes that a plan for later had better
    leave to others.
    """
    usable = mask & request.eligible
    count = usable.bit_count()
    if count < request.minimum or request.required & ~usable:
        return 0
    wanted = min(count, request.maximum)
    if wanted == count:
        return usable
    chosen = request.required
    if spare:
        chosen |= lowest(usable & ~spare & ~chosen, wanted - chosen.bit_count())
    return chosen | lowest(usable & ~chosen, wanted - chosen.bit_count())


@dataclass(frozen=True, slots=True)
class Slot:
    """Nodes promised from ``start`` until ``end`` (unix seconds)."""

    start: int
    end: int
    nodes: int


class Profile:
    """The free nodes as a step function of time, from now on."""

    def __init__(self, now: int, free: int, available: int, running: Iterable[tuple[int, int]]) -> None:
        """Begin with the nodes free now; ``running`` holds (end by time limit, nodes) of what runs.

        Nodes outside ``available`` (down, drained) do not come free.
        """
        self.times = [now]
        self.free = [free]
        for end, nodes in sorted(running):
            level = self.free[-1] | (nodes & available)
            if end <= self.times[-1]:
                self.free[-1] = level
            else:
                self.times.append(end)
                self.free.append(level)

    def over(self, start: int, end: int) -> int:
        """Return the nodes that are free all the time from ``start`` until ``end``."""
        first = bisect_right(self.times, start) - 1
        mask = self.free[first]
        for level in self.free[first + 1 : bisect_left(self.times, end)]:
            mask &= level
        return mask

    def earliest(self, request: Request, spare: int = 0) -> Slot | None:
        """Return the first time at which the request fits for as long as its limit, and where; ``None`` if never."""
        for position, start in enumerate(self.times):
            if choose(request, self.free[position]):
                end = start + request.limit_s
                nodes = choose(request, self.over(start, end), spare)
                if nodes:
                    return Slot(start, end, nodes)
        return None

    def take(self, slot: Slot) -> None:
        """Mark the slot's nodes as used while it lasts."""
        first, last = self._step_at(slot.start), self._step_at(slot.end)
        for position in range(first, last):
            self.free[position] &= ~slot.nodes

    def _step_at(self, time: int) -> int:
        position = bisect_left(self.times, time)
        if position == len(self.times) or self.times[position] != time:
            self.times.insert(position, time)
            self.free.insert(position, self.free[position - 1])
        return position
