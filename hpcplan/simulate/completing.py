"""Jobs that have ended, until the last of their nodes is clean: slurmctld 22.05 calls them COMPLETING.

When the controller hears that a job is over, what it held is free in plans, but none of its nodes is given out before
the controller has heard from it too. In between a backfill pass may choose such nodes; then the job is promised them
for the next second, and does not start.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from hpcplan.simulate.compiled.pace import UNSURE_MS
from hpcplan.simulate.machine import lowest

__all__ = ["Completing", "EndedJob"]

EndedJob = tuple[int, int, int]
"""When its limit would have ended it (seconds), its id, the set of its nodes."""


class Completing:
    """The jobs that have ended, in the order in which the controller hears of them; times in milliseconds.

    ``nodes`` are those on which no job may start. Where they tell by themselves that they are clean, they do so one
    after the other, ``message_us`` (microseconds) apart (slurm.conf(5), EpilogMsgTime): the first by name first, where
    on a real cluster the clock says who begins. A node that told less than 20 ms ago is not counted on: so far apart
    are ends on a real cluster that come at the same moment here. Where nodes do not tell (0), all are heard of at once.
    """

    def __init__(self, message_us: int = 0) -> None:
        self._message_us = message_us
        self._steps: list[tuple[int, int, EndedJob]] = []  # (when, how long its nodes take then or -1, whose)
        self._recorded: dict[int, tuple[tuple[int, int], ...]] = {}  # of jobs: (when, node) as a real one heard of them
        self.nodes = 0

    def __bool__(self) -> bool:
        return bool(self._steps)

    @property
    def next_ms(self) -> int | None:
        """When something is heard next, ``None`` if nothing will be."""
        return self._steps[0][0] if self._steps else None

    @property
    def job_ids(self) -> set[int]:
        """The jobs."""
        return {job_id for _, _, (_, job_id, _) in self._steps}

    def add(self, over_ms: int, cleanup_ms: int, ended: EndedJob, recorded: tuple[tuple[int, int], ...] = ()) -> None:
        """Note a job that has ended: when the controller will hear of it, and how long after that of its nodes.

        ``recorded`` is when it hears of which node, where that is known (of the last one after ``cleanup_ms``).
        """
        heapq.heappush(self._steps, (over_ms, cleanup_ms, ended))
        if recorded:
            self._recorded[ended[1]] = recorded

    def hear(self, until_ms: int) -> tuple[EndedJob, bool] | None:
        """Return the next job that is heard of by then, and whether its nodes are clean; ``None`` if there is none."""
        if not self._steps or self._steps[0][0] > until_ms:
            return None
        at_ms, cleanup_ms, ended = heapq.heappop(self._steps)
        if cleanup_ms >= 0:
            heapq.heappush(self._steps, (at_ms + cleanup_ms, -1, ended))
            return ended, False
        return ended, True

    def look(self, at_ms: int) -> None:
        """Work out ``nodes`` for a moment, everything up to it having been heard."""
        self.nodes = 0
        for last_ms, cleanup_ms, (_, job_id, nodes) in self._steps:
            if cleanup_ms >= 0:
                continue
            if job_id in self._recorded:
                nodes = sum(node for heard_ms, node in self._recorded[job_id] if heard_ms > at_ms)
            elif self._message_us:
                waiting = -(-(last_ms - at_ms + UNSURE_MS) * 1000 // self._message_us)
                nodes &= ~lowest(nodes, nodes.bit_count() - waiting)
            self.nodes |= nodes

    def saved(self) -> list[list[Any]]:
        """Return plain data for JSON; :meth:`restore` takes it."""
        return [[at, more, end, job_id, hex(nodes)] for at, more, (end, job_id, nodes) in self._steps]

    def restore(self, data: Sequence[Sequence[Any]]) -> list[EndedJob]:
        """Go on from what :meth:`saved` gave; return the jobs of which it has not yet been heard that they are over."""
        self._steps = [(at, more, (end, job_id, int(nodes, 16))) for at, more, end, job_id, nodes in data]
        return [ended for _, more, ended in self._steps if more >= 0]
