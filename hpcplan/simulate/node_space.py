"""What the backfill scheduler has promised until when: nodes by spans of time (sched/backfill of Slurm 22.05)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.profile import Slot
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["NodeSpace"]


class NodeSpace:
    """Spans of time, each with the nodes that nobody has been promised in it.

    The i-th begins at ``begins[i]`` and ends where the next begins, the last one at the end of ``bf_window``. All times
    are whole multiples of ``bf_resolution`` on the controller's clock.
    """

    def __init__(self, now: int, available: int, settings: SlurmSettings) -> None:
        self._resolution_s = settings.bf_resolution_s
        self._clock_s = settings.clock_s
        self.begins = [self.rounded(now)]
        self.made = 1  # spans, also those that are one with others now: slurmctld does not use their places again
        self.nodes = [available]
        self.end = self.rounded(now + settings.bf_window_s)

    def rounded(self, time: int) -> int:
        """Return the last multiple of the resolution up to ``time``."""
        return time - (time + self._clock_s) % self._resolution_s

    def during(self, pool: int, start: int, end: int) -> tuple[int, int | None]:
        """Return the nodes of ``pool`` that nobody has been promised from ``start`` until ``end``, both included, and
        the first end of a span, from ``start`` on, after which others than those could be had.
        """
        begins, nodes = self.begins, self.nodes
        first = max(0, bisect_right(begins, start) - 1)
        found, later = pool, None
        last = len(begins) - 1
        for position in range(first, last + 1):
            begin = begins[position]
            if position == last and self.end <= start:
                break
            if begin > end and later is not None:
                break
            if later is None and position < last and pool & nodes[position + 1] & ~(found & nodes[position]):
                later = begins[position + 1]
            if begin > end:
                break
            found &= nodes[position]
        return found, later

    def overlaps(self, slot: Slot) -> bool:
        """Whether somebody has been promised a node of ``slot`` while it lasts."""
        begins, nodes = self.begins, self.nodes
        if slot.start >= self.end:
            return False
        position = max(0, bisect_right(begins, slot.start) - 1)
        while position < len(begins) and begins[position] < slot.end:
            if slot.nodes & ~nodes[position]:
                return True
            position += 1
        return False

    def take(self, slot: Slot) -> None:
        """Promise the slot's nodes to somebody, for one ``bf_resolution`` at least."""
        start = max(slot.start, self.begins[0])
        end = max(slot.end, start + self._resolution_s)
        if start >= self.end:
            return
        first, last = self._cut(start), self._cut(end)
        others = ~slot.nodes
        for position in range(first, last):
            self.nodes[position] &= others
        self._merge(max(0, first - 2), last)

    def _merge(self, first: int, last: int) -> None:
        """Make one of the first two neighbours of these spans that are alike: only one pair, as slurmctld does."""
        for position in range(first, min(last, len(self.begins) - 1)):
            if self.nodes[position] == self.nodes[position + 1]:
                del self.begins[position + 1], self.nodes[position + 1]
                return

    def _cut(self, time: int) -> int:
        """Return the span that begins at ``time``, or where one would that begins behind the last."""
        position = bisect_right(self.begins, time)
        if self.begins[position - 1] == time:
            return position - 1
        if time < self.end:
            self.made += 1
            self.begins.insert(position, time)
            self.nodes.insert(position, self.nodes[position - 1])
        return position
