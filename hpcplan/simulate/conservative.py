"""Conservative backfilling on a pool of equal processors.

Every job gets a reservation when it is submitted, at the earliest time at which it delays nobody's; when a job ends
before its limit, the reservations are moved up in the order of the queue, each as far as it can be (Mu'alem and
Feitelson, *Utilization, Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with
Backfilling*, IEEE TPDS 12(6), 2001, section 2.2). No reservation ever moves back.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
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
    """A pool with reservations. ``jobs`` come in the order of submission; the queue may put the shortest first."""

    def __init__(self, jobs: Iterable[TraceJob], procs: int, *, shortest_first: bool = False) -> None:
        self.jobs = iter(jobs)
        self.shortest_first = shortest_first
        self.levels = _Levels(procs)
        self.reserved: dict[int, tuple[int, TraceJob]] = {}  # start and job by rank, of those that wait
        self.ends: list[tuple[int, int, int, int]] = []  # (end, rank, end of the limit, processors)
        self.queue: list[tuple[int, int]] = []  # (order, rank)
        self.next_starts: list[tuple[int, int]] = []  # (reserved start, rank), with outdated ones among them

    def run(self) -> Iterator[tuple[int, TraceJob, int]]:
        """Yield the rank in the order of submission, the job and the start of each as it starts."""
        rank, job = 0, next(self.jobs, None)
        while job is not None or self.queue:
            now = self._next(job)
            self.levels.forget(now)
            if self._end(now):
                self._compress(now)
            while job is not None and job.submit_s == now:
                insort(self.queue, (self._order(job), rank))
                self._place(rank, job, now)
                rank, job = rank + 1, next(self.jobs, None)
            yield from self._start(now)

    def _next(self, job: TraceJob | None) -> int:
        while self.next_starts and not self._is_current(*self.next_starts[0]):
            heapq.heappop(self.next_starts)
        times = [] if job is None else [job.submit_s]
        times += [one[0][0] for one in (self.ends, self.next_starts) if one]
        return min(times)

    def _is_current(self, start: int, rank: int) -> bool:
        held = self.reserved.get(rank)
        return held is not None and held[0] == start

    def _order(self, job: TraceJob) -> int:
        return job.limit_s if self.shortest_first else 0

    def _end(self, now: int) -> bool:
        """Take out the jobs that end; whether one leaves part of its time to others."""
        early = False
        while self.ends and self.ends[0][0] == now:
            _, _, promised, width = heapq.heappop(self.ends)
            if promised > now:
                self.levels.add(now, promised, width)
                early = True
        return early

    def _compress(self, now: int) -> None:
        """Move the reservations up, in the order of the queue."""
        for _, rank in self.queue:
            old, job = self.reserved[rank]
            if old == now:
                continue
            self.levels.add(old, old + job.limit_s, job.procs)
            self._place(rank, job, now)

    def _place(self, rank: int, job: TraceJob, now: int) -> None:
        start = self.levels.earliest(now, job.procs, job.limit_s)
        self.levels.add(start, start + job.limit_s, -job.procs)
        if self.reserved.get(rank, (None,))[0] != start:
            heapq.heappush(self.next_starts, (start, rank))
        self.reserved[rank] = start, job

    def _start(self, now: int) -> Iterator[tuple[int, TraceJob, int]]:
        while self.next_starts and self.next_starts[0][0] <= now:
            start, rank = heapq.heappop(self.next_starts)
            if not self._is_current(start, rank):
                continue
            job = self.reserved.pop(rank)[1]
            del self.queue[bisect_left(self.queue, (self._order(job), rank))]
            heapq.heappush(self.ends, (now + min(job.run_s, job.limit_s), rank, now + job.limit_s, job.procs))
            yield rank, job, now
