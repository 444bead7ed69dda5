"""Scheduling whole traces on a pool of equal processors, as the literature defines the policies, fast.

Where only the number of processors counts, a schedule needs no node masks. The rules are those of :mod:`.policies`, and
a test holds that both give the same starts. At each instant first all ends, then all submissions in trace order, then
one pass. Jobs are taken from the trace as their times come and given back as they start, so that only those that wait
or run are held.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Final, Literal

from hpcplan.errors import InputError
from hpcplan.simulate.conservative import Conservative
from hpcplan.simulate.queue_index import QueueIndex, Waiting
from hpcplan.simulate.traces import TraceJob

__all__ = ["Order", "TracePolicy", "replay", "start_of", "starts_in_time"]

TracePolicy = Literal["fcfs", "sjf", "priority", "easy", "conservative"]
Order = Literal["submit", "sjf"]
Started = tuple[int, TraceJob, int]  # a job's rank in the order of submission, the job, and its start
_Key = Callable[[TraceJob], int]
_LONG: Final = 32  # jobs that wait; of fewer each is looked at


def replay(jobs: Sequence[TraceJob], procs: int, *, policy: TracePolicy = "easy", order: Order = "submit") -> list[int]:
    """Return the start of each job, in seconds, on ``procs`` processors.

    ``order`` is how the queue is sorted: by submission, or shortest time limit first (``sjf``), ties by submission.
    ``fcfs`` starts jobs strictly in that order, ``sjf`` in the order of their limits, ``priority`` of their priorities
    (those of equal priority as ``order`` says); ``easy`` and ``conservative`` backfill (:mod:`.policies`,
    :mod:`.conservative`).

    Raises:
        InputError: a job that asks for more processors than there are.
    """
    arrivals = sorted(range(len(jobs)), key=lambda index: jobs[index].submit_s)
    starts = [0] * len(jobs)
    for rank, _, start in starts_in_time((jobs[index] for index in arrivals), procs, policy=policy, order=order):
        starts[arrivals[rank]] = start
    return starts


def starts_in_time(
    jobs: Iterable[TraceJob], procs: int, *, policy: TracePolicy = "easy", order: Order = "submit"
) -> Iterator[Started]:
    """Yield each job of a trace in the order of submission as it starts; the policies are those of :func:`replay`.

    Raises:
        InputError: a job that asks for more processors than there are.
    """
    if policy == "conservative":
        fitting = _no_wider(jobs, procs)
        yield from Conservative(fitting, procs, shortest_first=order == "sjf").run()
        return
    schedule = _backfilled if policy == "easy" else _in_order
    yield from schedule(jobs, procs, _order(policy, order), None)


def start_of(jobs: Sequence[TraceJob], procs: int, index: int, *, runs: Sequence[int], backfill: bool = True) -> int:
    """Return the start of the job at ``index`` alone, in seconds, under EASY (or FCFS, without ``backfill``).

    The jobs come in the order of their submission, and run ``runs`` in the place of what they say. Nothing after that
    start is simulated.
    """
    schedule = _backfilled if backfill else _in_order
    return next(start for rank, _, start in schedule(jobs, procs, None, runs) if rank == index)


def _too_wide(job: TraceJob, procs: int) -> InputError:
    return InputError(f"job {job.id} of the trace asks for {job.procs} processors; the machine has {procs}")


def _no_wider(jobs: Iterable[TraceJob], procs: int) -> Iterator[TraceJob]:
    for job in jobs:
        if job.procs > procs:
            raise _too_wide(job, procs)
        yield job


def _order(policy: TracePolicy, order: Order) -> _Key | None:
    """Return what the queue is sorted by before submission, ``None`` where submission alone counts."""
    shortest_first = order == "sjf" or policy == "sjf"
    if policy != "priority":
        return _limit if shortest_first else None
    return (lambda job: (-job.priority << 64) + job.limit_s) if shortest_first else lambda job: -job.priority


def _limit(job: TraceJob) -> int:
    return job.limit_s


def _in_order(
    jobs: Iterable[TraceJob], procs: int, order: _Key | None, runs: Sequence[int] | None
) -> Iterator[Started]:
    """Start jobs strictly in order."""
    source = iter(jobs)
    job = next(source, None)
    rank, free = 0, procs
    ends: list[tuple[int, int]] = []  # (end, processors)
    waiting: list[tuple[int, int, TraceJob]] = []  # a heap of (order, rank, job)
    while job is not None or waiting:
        now = job.submit_s if job is not None else ends[0][0]
        if ends and ends[0][0] <= now:
            now = ends[0][0]
            while ends and ends[0][0] == now:
                free += heappop(ends)[1]
        while job is not None and job.submit_s == now:
            if job.procs > procs:
                raise _too_wide(job, procs)
            heappush(waiting, (0 if order is None else order(job), rank, job))
            rank += 1
            job = next(source, None)
        while waiting and waiting[0][2].procs <= free:
            _, first, started = heappop(waiting)
            run_s = min(started.run_s, started.limit_s) if runs is None else runs[first]
            free -= started.procs
            heappush(ends, (now + run_s, started.procs))
            yield first, started, now


def _backfilled(
    jobs: Iterable[TraceJob], procs: int, order: _Key | None, runs: Sequence[int] | None
) -> Iterator[Started]:
    """Start jobs in order, and those behind the first that has to wait if that does not delay it (EASY).

    ``promised`` holds what runs by the ends of time limits. What a pass could not start cannot start before something
    ends or the queue has another head; until then (``settled``) only new jobs are looked at, against the same shadow
    time and extra processors.
    """
    source = iter(jobs)
    job = next(source, None)
    rank, free, shadow, extra = 0, procs, 0, 0
    ends: list[tuple[int, int, int, int]] = []  # a heap of (end, rank, end of the limit, processors)
    promised: list[tuple[int, int, int]] = []  # (end of the limit, rank, processors), sorted
    waiting: list[Waiting] = []  # sorted
    narrowest = procs  # a lower bound on the width of what waits
    index: QueueIndex | None = None  # of a long queue
    settled = False
    while job is not None or waiting:
        now = job.submit_s if job is not None else ends[0][0]
        if ends and ends[0][0] <= now:
            now = ends[0][0]
            while ends and ends[0][0] == now:
                _, ended, limit_end, width = heappop(ends)
                free += width
                del promised[bisect_left(promised, (limit_end, ended))]
            settled = False
        while job is not None:
            _, submit_s, run_s, limit_s, width, _, _, _ = job
            if submit_s != now:
                break
            if runs is not None:
                run_s = runs[rank]
            elif run_s > limit_s:
                run_s = limit_s
            if (
                order is None
                and width <= free
                and (now + limit_s <= shadow or width <= extra if settled else not waiting)
            ):
                limit_end = now + limit_s
                if settled and limit_end > shadow:
                    extra -= width
                free -= width
                heappush(ends, (now + run_s, rank, limit_end, width))
                insort(promised, (limit_end, rank, width))
                yield rank, job, now
            else:
                if width > procs:
                    raise _too_wide(job, procs)
                one = (0 if order is None else order(job), rank, width, limit_s, run_s, job)
                if order is None:
                    waiting.append(one)
                else:
                    insort(waiting, one)
                    settled = False
                if index is not None:
                    index.add(one)
                if width < narrowest:
                    narrowest = width
            rank += 1
            job = next(source, None)
        if settled or not waiting or free < narrowest:
            continue
        started = 0
        for one in waiting:
            _, first, width, limit_s, run_s, one_job = one
            if width > free:
                break
            free -= width
            heappush(ends, (now + run_s, first, now + limit_s, width))
            insort(promised, (now + limit_s, first, width))
            yield first, one_job, now
            if index is not None:
                index.remove(one)
            started += 1
        del waiting[:started]
        if not waiting:
            narrowest, index = procs, None
            continue
        if not free:
            continue
        need, level, shadow = waiting[0][2], free, 0
        for limit_end, _, width in promised:
            if level >= need and limit_end > shadow:
                break
            level += width
            shadow = limit_end
        extra = level - need
        settled = True
        latest = shadow - now
        if index is None and len(waiting) > _LONG:
            index = QueueIndex(waiting)
        if index is None:
            begun = _fitting(waiting, free, latest, extra, narrowest)
        else:
            begun = index.fitting(free, latest, extra)
        for one in begun:
            _, first, width, limit_s, run_s, one_job = one
            if limit_s > latest:
                extra -= width
            free -= width
            heappush(ends, (now + run_s, first, now + limit_s, width))
            insort(promised, (now + limit_s, first, width))
            yield first, one_job, now
            del waiting[bisect_left(waiting, one)]
            if index is not None:
                index.remove(one)
        if len(waiting) < _LONG // 4:
            index = None


def _fitting(waiting: Iterable[Waiting], free: int, latest_s: int, extra: int, narrowest: int) -> list[Waiting]:
    """Return the jobs that start as :meth:`.QueueIndex.fitting` does; none is narrower than ``narrowest``."""
    found = []
    for one in waiting:
        width = one[2]
        if width > free or (one[3] > latest_s and width > extra):
            continue
        if one[3] > latest_s:
            extra -= width
        free -= width
        found.append(one)
        if free < narrowest:
            break
    return found
