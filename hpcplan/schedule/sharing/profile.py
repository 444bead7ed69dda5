"""How many nodes of a pool are free, over time: where jobs go that are placed one after the other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

__all__ = ["Profile"]


class Profile:
    """A step function: ``free[i]`` nodes from ``times[i]`` until ``times[i + 1]``; the last step has no end."""

    __slots__ = ("free", "times")

    def __init__(self, nodes: int) -> None:
        self.times: list[float] = [0.0]
        self.free: list[int] = [nodes]

    def earliest(self, nodes: int, length_s: float, after_s: float) -> float:
        """Return the first time from ``after_s`` on at which ``nodes`` are free for ``length_s`` without a break."""
        times, free = self.times, self.free
        count = len(times)
        i = max(0, bisect_right(times, after_s) - 1)
        start = after_s
        while True:
            if free[i] < nodes:
                i += 1  # the last step has all nodes free, so this ends
                start = times[i]
                continue
            end, j = start + length_s * (1 - 1e-12), i + 1
            while j < count and times[j] < end and free[j] >= nodes:
                j += 1
            if j >= count or times[j] >= end:
                return start
            i = j

    def take(self, nodes: int, start_s: float, end_s: float) -> None:
        """Take nodes away between two times, at which they must be free."""
        first, last = self._cut(start_s), self._cut(end_s)
        for i in range(first, last):
            self.free[i] -= nodes

    def _cut(self, time_s: float) -> int:
        i = bisect_left(self.times, time_s)
        if i == len(self.times) or self.times[i] != time_s:
            self.times.insert(i, time_s)
            self.free.insert(i, self.free[i - 1])
        return i
