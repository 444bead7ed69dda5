"""A long queue by the widths of its jobs, so that those which may be backfilled are found without a look at each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.traces import TraceJob

__all__ = ["QueueIndex", "Waiting"]

Waiting = tuple[int, int, int, int, int, "TraceJob"]  # order, rank, processors, limit, run, and the job


class _Alike:
    """The waiting jobs of one width, in the order of the queue, their time limits, and the least of those."""

    __slots__ = ("jobs", "limits", "shortest", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.jobs: list[Waiting] = []
        self.limits: list[int] = []
        self.shortest = 0


class QueueIndex:
    """The jobs of a queue by width."""

    __slots__ = ("_alike", "_widths")

    def __init__(self, waiting: Iterable[Waiting]) -> None:
        """Make it of the jobs of a queue, in its order."""
        self._alike: dict[int, _Alike] = {}
        self._widths: list[_Alike] = []
        for one in waiting:
            self.add(one)

    def add(self, one: Waiting) -> None:
        """Put a job in."""
        width, limit_s = one[2], one[3]
        alike = self._alike.get(width)
        if alike is None:
            alike = self._alike[width] = _Alike(width)
            insort(self._widths, alike, key=_width)
        jobs = alike.jobs
        if not jobs:
            jobs.append(one)
            alike.limits.append(limit_s)
            alike.shortest = limit_s
            return
        at = len(jobs) if one > jobs[-1] else bisect_left(jobs, one)
        jobs.insert(at, one)
        alike.limits.insert(at, limit_s)
        if limit_s < alike.shortest:
            alike.shortest = limit_s

    def remove(self, one: Waiting) -> None:
        """Take a job out."""
        alike = self._alike[one[2]]
        jobs, limits = alike.jobs, alike.limits
        at = 0 if jobs[0] is one else bisect_left(jobs, one)
        del jobs[at], limits[at]
        if not limits:
            del self._alike[alike.width]
            self._widths.remove(alike)
        elif one[3] == alike.shortest:
            alike.shortest = min(limits)

    def fitting(self, free: int, latest_s: int, extra: int) -> list[Waiting]:
        """Return the jobs that start if each that fits does, in the order of the queue.

        A job fits that is no wider than what is ``free`` by then, if its limit is ``latest_s`` at most, or if it is no
        wider than what is left of ``extra``.
        """
        options: list[tuple[Waiting, int, _Alike]] = []
        for alike in self._widths:
            width = alike.width
            if width > free:
                break
            if width <= extra:
                options.append((alike.jobs[0], 0, alike))
            elif alike.shortest <= latest_s:
                at = _first(alike.limits, 0, latest_s)
                options.append((alike.jobs[at], at, alike))
        found: list[Waiting] = []
        while options:
            best = min(options) if len(options) > 1 else options[0]
            one = best[0]
            found.append(one)
            free -= one[2]
            if one[3] > latest_s:
                extra -= one[2]
            before, options = options, []
            for option in before:
                _, at, alike = option
                width = alike.width
                if width > free:
                    continue
                if option is best:
                    at += 1
                if width > extra and (at == len(alike.limits) or alike.limits[at] > latest_s):
                    at = _first(alike.limits, at, latest_s)
                if at < len(alike.limits):
                    options.append((alike.jobs[at], at, alike))
        return found


def _width(alike: _Alike) -> int:
    return alike.width


def _first(limits: list[int], at: int, latest_s: int) -> int:
    """Return the first position from ``at`` on of a limit that is no longer, or the number of them all."""
    for limit_s in islice(limits, at, None):
        if limit_s <= latest_s:
            return limits.index(limit_s, at)
    return len(limits)
