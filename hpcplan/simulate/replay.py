"""Scheduling whole traces on a pool of equal processors, as the literature defines the policies, fast.

Where only the number of processors counts, a schedule needs no node masks. The rules are those of :mod:`.policies`, and
a test holds that both give the same starts. At each instant first all ends, then all submissions in trace order, then
one pass.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from hpcplan.errors import InputError
from hpcplan.simulate.conservative import Conservative
from hpcplan.simulate.traces import TraceJob

__all__ = ["Order", "TracePolicy", "replay", "start_of"]

TracePolicy = Literal["fcfs", "sjf", "priority", "easy", "conservative"]
Order = Literal["submit", "sjf"]
_NOT_YET: Final = -(2**62)


def replay(jobs: Sequence[TraceJob], procs: int, *, policy: TracePolicy = "easy", order: Order = "submit") -> list[int]:
    """Return the start of each job, in seconds, on ``procs`` processors.

    ``order`` is how the queue is sorted: by submission, or shortest time limit first (``sjf``), ties by submission.
    ``fcfs`` starts jobs strictly in that order, ``sjf`` in the order of their limits, ``priority`` of their priorities
    (those of equal priority as ``order`` says); ``easy`` and ``conservative`` backfill (:mod:`.policies`,
    :mod:`.conservative`).

    Raises:
        InputError: a job that asks for more processors than there are.
    """
    for job in jobs:
        if job.procs > procs:
            raise InputError(f"job {job.id} of the trace asks for {job.procs} processors; the machine has {procs}")
    arrivals = sorted(range(len(jobs)), key=lambda index: jobs[index].submit_s)
    ranked = [jobs[index] for index in arrivals]
    if policy == "conservative":
        found = Conservative(ranked, procs, shortest_first=order == "sjf").run()
    else:
        pool = _Pool(ranked, procs, backfill=policy == "easy", orders=_orders(ranked, policy, order))
        pool.run()
        found = pool.starts
    starts = [0] * len(jobs)
    for rank, index in enumerate(arrivals):
        starts[index] = found[rank]
    return starts


def start_of(jobs: Sequence[TraceJob], procs: int, index: int, *, runs: Sequence[int], backfill: bool = True) -> int:
    """Return the start of the job at ``index`` alone, in seconds, under EASY (or FCFS, without ``backfill``).

    The jobs come in the order of their submission, and run ``runs`` in the place of what they say. Nothing after that
    start is simulated.
    """
    pool = _Pool(jobs, procs, backfill=backfill, orders=None, runs=runs)
    pool.run(until=index)
    return pool.starts[index]


def _orders(jobs: Sequence[TraceJob], policy: TracePolicy, order: Order) -> list[int] | None:
    """Return what the queue is sorted by before submission, ``None`` where submission alone counts."""
    shortest_first = order == "sjf" or policy == "sjf"
    if policy != "priority":
        return [job.limit_s for job in jobs] if shortest_first else None
    longest = max((job.limit_s for job in jobs), default=0) + 1 if shortest_first else 1
    return [-job.priority * longest + (job.limit_s if shortest_first else 0) for job in jobs]


class _Pool:
    """Processors, what runs on them and what waits. Jobs are known by their rank in the order of submission.

    ``waiting`` holds (order, rank), ``promised`` the running jobs as (end by time limit, rank), both sorted. What a
    pass could not start cannot start before something ends or the queue has another head; until then (``settled``) only
    new jobs are looked at, against the same shadow time and extra processors.
    """

    def __init__(
        self,
        jobs: Sequence[TraceJob],
        procs: int,
        *,
        backfill: bool,
        orders: list[int] | None,
        runs: Sequence[int] | None = None,
    ) -> None:
        self.submits = [job.submit_s for job in jobs]
        self.runs = runs if runs is not None else [min(job.run_s, job.limit_s) for job in jobs]
        self.limits = [job.limit_s for job in jobs]
        self.widths = [job.procs for job in jobs]
        self.procs = self.free = procs
        self.backfill = backfill
        self.orders = orders
        self.starts = [_NOT_YET] * len(jobs)
        self.ends: list[tuple[int, int]] = []
        self.promised: list[tuple[int, int]] = []
        self.waiting: list[tuple[int, int]] = []
        self.narrowest = procs  # a lower bound on the width of what waits
        self.settled = False
        self.shadow = self.extra = 0

    def run(self, until: int | None = None) -> None:
        """Run until every job has started, or the one of the rank ``until``."""
        submits, ends, count = self.submits, self.ends, len(self.submits)
        rank = 0
        while rank < count or self.waiting:
            if until is not None and self.starts[until] != _NOT_YET:
                return
            now = submits[rank] if rank < count else ends[0][0]
            if ends and ends[0][0] <= now:
                now = ends[0][0]
                self._end(now)
            first = rank
            while rank < count and submits[rank] == now:
                rank += 1
            fresh = self._submit(range(first, rank))
            if not self.settled:
                self._pass(now)
            elif self.backfill and fresh:
                self._backfill(now, fresh)

    def _end(self, now: int) -> None:
        ends, promised = self.ends, self.promised
        while ends and ends[0][0] == now:
            rank = heapq.heappop(ends)[1]
            self.free += self.widths[rank]
            del promised[bisect_left(promised, (self.starts[rank] + self.limits[rank], rank))]
        self.settled = False

    def _submit(self, ranks: Iterable[int]) -> list[tuple[int, int]]:
        """Queue new jobs and return their keys in the queue's order."""
        fresh = []
        for rank in ranks:
            if self.orders is not None:
                key = (self.orders[rank], rank)
                insort(self.waiting, key)
            else:
                key = (0, rank)
                self.waiting.append(key)
            if self.waiting[0] is key:
                self.settled = False
            if self.widths[rank] < self.narrowest:
                self.narrowest = self.widths[rank]
            fresh.append(key)
        return fresh if self.orders is None else sorted(fresh)

    def _start(self, now: int, rank: int) -> None:
        self.starts[rank] = now
        self.free -= self.widths[rank]
        heapq.heappush(self.ends, (now + self.runs[rank], rank))
        insort(self.promised, (now + self.limits[rank], rank))

    def _pass(self, now: int) -> None:
        """Look at the whole queue."""
        if not self.waiting or self.free < self.narrowest:
            return
        started = 0
        for _, rank in self.waiting:
            if self.widths[rank] > self.free:
                break
            self._start(now, rank)
            started += 1
        del self.waiting[:started]
        if not self.waiting:
            self.narrowest = self.procs
        elif self.backfill and self.free:
            self._reserve()
            self._backfill(now, self.waiting)
            self.settled = True

    def _reserve(self) -> None:
        """Find the shadow time, when the head of the queue could start, and how many processors it would leave."""
        need = self.widths[self.waiting[0][1]]
        level = self.free
        shadow = 0
        for end, rank in self.promised:
            if level >= need and end > shadow:
                break
            level += self.widths[rank]
            shadow = end
        self.shadow, self.extra = shadow, level - need

    def _backfill(self, now: int, keys: Sequence[tuple[int, int]]) -> None:
        """Start those of ``keys`` that neither delay the head past its shadow time nor lack processors."""
        widths, limits = self.widths, self.limits
        latest = self.shadow - now
        free, extra = self.free, self.extra
        started = []
        for key in keys:
            rank = key[1]
            width = widths[rank]
            if width <= free:
                if limits[rank] <= latest:
                    pass
                elif width <= extra:
                    extra -= width
                else:
                    continue
                self._start(now, rank)
                free -= width
                started.append(key)
                if not free:
                    break
        self.extra = extra
        waiting = self.waiting
        for key in started:
            del waiting[bisect_left(waiting, key)]
