"""What a simulation came to: one row a job, and the figures that schedulers are compared by."""

from __future__ import annotations

import csv
import heapq
import io
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

__all__ = ["COLUMNS", "Figures", "Metrics", "Row", "csv_parts", "metrics"]

COLUMNS: Final = ("job_id", "submit_s", "start_s", "end_s", "procs", "nodes", "nodelist", "state")
_BATCH: Final = 8192  # rows or events that are dealt with together
_MANY: Final = 100_000  # numbers that are worth numpy
_BOUND_S: Final = 10  # shorter runs count as this long in the bounded slowdown


class Row(NamedTuple):
    """One job of a schedule, times in seconds as in the trace; ``None`` where it never started.

    ``nodes`` and ``nodelist`` are of machines that have nodes; a trace's bare processors have none.
    """

    job_id: str
    submit_s: int
    start_s: int | None
    end_s: int | None
    procs: int
    nodes: int | None
    nodelist: str | None
    state: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures over the jobs that started; ``None`` where none did.

    Bounded slowdown: (wait + run) / max(run, 10 s), 1 at least (Feitelson, *Metrics for Parallel Job Scheduling and
    Their Convergence*, JSSPP 2001). Utilisation: the share of all processors' time between the first submission and the
    last end that jobs used. A job counts as backfilled if one that was submitted before it started after it.
    Fragmentation: the share of all processors' time in which they were idle although the narrowest waiting job would
    have fitted in number, 0 where nothing waited (Feitelson & Rudolph, *Toward Convergence in Job Schedulers for
    Parallel Supercomputers*, JSSPP 1996: loss of capacity).
    """

    jobs: int
    never_started: int
    mean_wait_s: float | None
    median_wait_s: float | None
    p95_wait_s: float | None
    max_wait_s: int | None
    mean_bounded_slowdown: float | None
    mean_turnaround_s: float | None
    utilisation: float | None
    makespan_s: int | None
    backfilled_share: float | None
    fragmentation: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def metrics(rows: Iterable[Row], procs: int) -> Metrics:
    """Return the figures of a schedule on ``procs`` processors."""
    figures = Figures(procs)
    for _ in figures.of(sorted(rows, key=lambda row: row.submit_s)):
        pass
    return figures.metrics()


class Figures:
    """Adds up the rows of a schedule as they go by; of each job 8 bytes are kept, for the quantiles of the waits."""

    def __init__(self, procs: int) -> None:
        self._procs = procs
        self._jobs = 0
        self._waits = array("q")
        self._slowdowns = 0.0
        self._turnaround_s = self._work_s = self._overtook = 0
        self._first_s = self._last_s = 0
        self._idle = _LostCapacity(procs)

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows, which must come in the order of submission."""
        waits, idle = self._waits, self._idle
        slowdowns, turnaround_s, work_s, latest, overtook = 0.0, 0, 0, -1, 0
        first_s, last_s = None, 0
        jobs = 0
        for row in rows:
            jobs += 1
            yield row
            _, submit, start, end, width, _, _, _ = row
            if start is None or end is None:
                continue
            if first_s is None:
                first_s = submit
            waits.append(start - submit)
            slowdowns += max(1.0, (end - submit) / max(end - start, _BOUND_S))
            turnaround_s += end - submit
            work_s += width * (end - start)
            if start < latest:
                overtook += 1
            else:
                latest = start
            if end > last_s:
                last_s = end
            idle.add(submit, start, end, width)
        self._jobs, self._slowdowns, self._turnaround_s, self._work_s = jobs, slowdowns, turnaround_s, work_s
        self._overtook, self._first_s, self._last_s = overtook, first_s or 0, last_s

    def metrics(self) -> Metrics:
        """Return the figures of the rows that have gone by."""
        count, lost = len(self._waits), self._jobs - len(self._waits)
        if not count:
            return Metrics(self._jobs, lost, None, None, None, None, None, None, None, None, None)
        waits = _sorted(self._waits)
        span_s = self._last_s - self._first_s
        room = self._procs * span_s
        return Metrics(
            jobs=self._jobs,
            never_started=lost,
            mean_wait_s=sum(waits) / count,
            median_wait_s=(waits[(count - 1) // 2] + waits[count // 2]) / 2,
            p95_wait_s=float(waits[-(-95 * count // 100) - 1]),
            max_wait_s=waits[-1],
            mean_bounded_slowdown=self._slowdowns / count,
            mean_turnaround_s=self._turnaround_s / count,
            utilisation=self._work_s / room if room else None,
            makespan_s=span_s,
            backfilled_share=self._overtook / count,
            fragmentation=self._idle.total() / room if room else None,
        )


def _sorted(values: array[int]) -> Sequence[int]:
    if len(values) < _MANY:
        return sorted(values)
    import numpy as np

    np.frombuffer(values, dtype=np.int64).sort()  # in place: a list would take several times the memory
    return values


class _LostCapacity:
    """The processor seconds idle while jobs waited of which one was no wider than what was idle.

    Events that no later job can come before are counted some thousands at a time.
    """

    def __init__(self, procs: int) -> None:
        self._procs = procs
        self._events: list[tuple[int, int, int, int]] = []  # (time, change of used processors, joins the queue, leaves)
        self._full = _BATCH
        self._used = self._lost = self._before = 0
        self._waiting: Counter[int] = Counter()
        self._narrowest: list[int] = []

    def add(self, submit: int, start: int, end: int, width: int) -> None:
        """Add a job; none that was submitted earlier will come."""
        events = self._events
        events += ((end, -width, 0, 0), (start, width, 0, width), (submit, 0, width, 0))
        if len(events) > self._full:
            self._count(submit)
            self._full = len(events) + _BATCH

    def total(self) -> int:
        """Return the processor seconds."""
        self._count(None)
        return self._lost

    def _count(self, until: int | None) -> None:
        """Count the events before a time."""
        events = self._events
        events.sort()
        end = len(events) if until is None else bisect_left(events, (until,))
        procs, used, lost, before = self._procs, self._used, self._lost, self._before
        waiting, narrowest = self._waiting, self._narrowest
        for time, change, joins, leaves in events[:end]:
            if time > before:
                while narrowest and not waiting[narrowest[0]]:
                    heapq.heappop(narrowest)
                idle = procs - used
                if narrowest and narrowest[0] <= idle:
                    lost += idle * (time - before)
                before = time
            used += change
            if joins:
                if not waiting[joins]:
                    heapq.heappush(narrowest, joins)
                waiting[joins] += 1
            if leaves:
                waiting[leaves] -= 1
        del events[:end]
        self._used, self._lost, self._before = used, lost, before


def csv_parts(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield a schedule as CSV with :data:`COLUMNS`, some thousands of rows at a time; what is not known is empty."""
    rows = iter(rows)
    first: Sequence[Any] = (COLUMNS,)
    while first or (first := tuple(islice(rows, _BATCH))):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(first)
        yield text.getvalue().encode()
        first = ()
