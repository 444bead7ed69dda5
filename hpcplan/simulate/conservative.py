"""Conservative backfilling on a pool of equal processors.

Every job gets a reservation when it is submitted, at the earliest time at which it delays nobody's; when a job ends
before its limit, the reservations are moved up in the order of the queue, each as far as it can be (Mu'alem and
Feitelson, *Utilization, Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with
Backfilling*, IEEE TPDS 12(6), 2001, section 2.2). No reservation ever moves back.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.traces import TraceJob

__all__ = ["Conservative"]


class _Levels:
    """How many processors are promised to nobody, as a step function of time."""

    def __init__(self, procs: int) -> None:
        self.times = [0]
        self.free = [procs]

    def earliest(self, now: int, width: int, length: int) -> int:
        """Return the first time from ``now`` on at which ``width`` processors are free for ``length`` seconds."""
        times, free = self.times, self.free
        step = bisect_right(times, now) - 1
        start = now
        while True:
            while free[step] < width:
                step += 1
                start = times[step]
            end = start + length
            ahead = step + 1
            while ahead < len(times) and times[ahead] < end and free[ahead] >= width:
                ahead += 1
            if ahead == len(times) or times[ahead] >= end:
                return start
            step = ahead

    def add(self, begin: int, end: int, width: int) -> None:
        """Give back ``width`` processors between two times; a negative width takes them."""
        first, last = self._step_at(begin), self._step_at(end)
        for step in range(first, last):
            self.free[step] += width
        for step in (last, first):  # equal neighbours are one step
            if step and self.free[step] == self.free[step - 1]:
                del self.times[step], self.free[step]

    def forget(self, now: int) -> None:
        """Drop what lies before ``now``."""
        step = bisect_right(self.times, now) - 1
        if step > 64:
            del self.times[:step], self.free[:step]

    def _step_at(self, time: int) -> int:
        step = bisect_left(self.times, time)
        if step == len(self.times) or self.times[step] != time:
            self.times.insert(step, time)
            self.free.insert(step, self.free[step - 1])
        return step


class Conservative:
    """A pool with reservations. ``jobs`` are in the order of submission; the queue may put the shortest first."""

    def __init__(self, jobs: Sequence[TraceJob], procs: int, *, shortest_first: bool = False) -> None:
        self.jobs = jobs
        self.shortest_first = shortest_first
        self.levels = _Levels(procs)
        self.starts = [0] * len(jobs)
        self.ends: list[tuple[int, int]] = []
        self.queue: list[tuple[int, int]] = []  # (order, rank)
        self.next_starts: list[tuple[int, int]] = []  # (reserved start, rank), with outdated ones among them

    def run(self) -> list[int]:
        """Return when each job starts."""
        rank, count = 0, len(self.jobs)
        while rank < count or self.queue:
            now = self._next(rank)
            self.levels.forget(now)
            if self._end(now):
                self._compress(now)
            while rank < count and self.jobs[rank].submit_s == now:
                self._reserve(rank, now)
                rank += 1
            self._start(now)
        return self.starts

    def _next(self, rank: int) -> int:
        while self.next_starts and not self._is_current(*self.next_starts[0]):
            heapq.heappop(self.next_starts)
        times = [heap[0][0] for heap in (self.ends, self.next_starts) if heap]
        if rank < len(self.jobs):
            times.append(self.jobs[rank].submit_s)
        return min(times)

    def _is_current(self, start: int, rank: int) -> bool:
        key = self._key(rank)
        position = bisect_left(self.queue, key)
        return self.starts[rank] == start and position < len(self.queue) and self.queue[position] == key

    def _key(self, rank: int) -> tuple[int, int]:
        return (self.jobs[rank].limit_s if self.shortest_first else 0, rank)

    def _end(self, now: int) -> bool:
        """Take out the jobs that end; whether one leaves part of its time to others."""
        early = False
        while self.ends and self.ends[0][0] == now:
            rank = heapq.heappop(self.ends)[1]
            job = self.jobs[rank]
            promised = self.starts[rank] + job.limit_s
            if promised > now:
                self.levels.add(now, promised, job.procs)
                early = True
        return early

    def _compress(self, now: int) -> None:
        """Move the reservations up, in the order of the queue."""
        for _, rank in self.queue:
            job, old = self.jobs[rank], self.starts[rank]
            if old == now:
                continue
            self.levels.add(old, old + job.limit_s, job.procs)
            self._place(rank, now)

    def _reserve(self, rank: int, now: int) -> None:
        insort(self.queue, self._key(rank))
        self._place(rank, now)

    def _place(self, rank: int, now: int) -> None:
        job = self.jobs[rank]
        start = self.levels.earliest(now, job.procs, job.limit_s)
        self.levels.add(start, start + job.limit_s, -job.procs)
        self.starts[rank] = start
        heapq.heappush(self.next_starts, (start, rank))

    def _start(self, now: int) -> None:
        while self.next_starts and self.next_starts[0][0] <= now:
            start, rank = heapq.heappop(self.next_starts)
            if not self._is_current(start, rank):
                continue
            del self.queue[bisect_left(self.queue, self._key(rank))]
            job = self.jobs[rank]
            heapq.heappush(self.ends, (now + min(job.run_s, job.limit_s), rank))
