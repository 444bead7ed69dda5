"""Which nodes would be free when, if every running job used up its time limit: what reservations are planned on."""

from __future__ import annotations

from bisect import bisect_left
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

    def earliest(self, request: Request, spare: int = 0, not_before: int | None = None) -> Slot | None:
        """Return the first time at which the request fits for as long as its limit, and where; ``None`` if never."""
        eligible, minimum = request.eligible, request.minimum
        position = 0 if not_before is None or not_before <= self.times[0] else self._step_at(not_before)
        for step, level in enumerate(self.free):
            if step < position or (level & eligible).bit_count() < minimum:
                continue
            mask, obstacle = self._common(step, request)
            if obstacle is None:
                nodes = choose(request, mask, spare)
                if nodes:
                    start = self.times[step]
                    return Slot(start, start + request.limit_s, nodes)
            elif (self.free[obstacle] & eligible).bit_count() < minimum:
                position = obstacle + 1  # whatever starts between here and there runs into it too
        return None

    def _common(self, first: int, request: Request) -> tuple[int, int | None]:
        """Return the eligible nodes free from a step on for as long as the limit, and the step, if there is one, at
        which they become too few.
        """
        times, free, minimum = self.times, self.free, request.minimum
        mask = request.eligible
        for step in range(first, bisect_left(times, times[first] + request.limit_s)):
            mask &= free[step]
            if mask.bit_count() < minimum:
                return mask, step
        return mask, None

    def copy(self) -> Profile:
        """Return a profile that can be changed by itself."""
        copied = Profile(self.times[0], self.free[0], 0, ())
        copied.times, copied.free = self.times.copy(), self.free.copy()
        return copied

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
