"""What a simulation came to: one row a job, and the figures that schedulers are compared by."""

from __future__ import annotations

import csv
import heapq
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

__all__ = ["COLUMNS", "Metrics", "Row", "metrics", "to_csv"]

COLUMNS: Final = ("job_id", "submit_s", "start_s", "end_s", "procs", "nodes", "nodelist", "state")
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


def metrics(rows: Sequence[Row], procs: int) -> Metrics:
    """Return the figures of a schedule on ``procs`` processors."""
    begun = [(row.submit_s, row.start_s, row.end_s, row.procs) for row in rows if row.start_s is not None]
    runs = [(submit, start, end, width) for submit, start, end, width in begun if end is not None]
    lost = len(rows) - len(runs)
    if not runs:
        return Metrics(len(rows), lost, None, None, None, None, None, None, None, None, None)
    count = len(runs)
    waits = sorted(start - submit for submit, start, _, _ in runs)
    slowdowns = (max(1.0, (end - submit) / max(end - start, _BOUND_S)) for submit, start, end, _ in runs)
    makespan = max(end for _, _, end, _ in runs) - min(submit for submit, _, _, _ in runs)
    work = sum(width * (end - start) for _, start, end, width in runs)
    return Metrics(
        jobs=len(rows),
        never_started=lost,
        mean_wait_s=sum(waits) / count,
        median_wait_s=(waits[(count - 1) // 2] + waits[count // 2]) / 2,
        p95_wait_s=float(waits[-(-95 * count // 100) - 1]),
        max_wait_s=waits[-1],
        mean_bounded_slowdown=sum(slowdowns) / count,
        mean_turnaround_s=sum(end - submit for submit, _, end, _ in runs) / count,
        utilisation=work / (procs * makespan) if procs and makespan else None,
        makespan_s=makespan,
        backfilled_share=_overtaking([(submit, start) for submit, start, _, _ in runs]) / count,
        fragmentation=_lost_capacity(runs, procs) / (procs * makespan) if procs and makespan else None,
    )


def _overtaking(jobs: Sequence[tuple[int, int]]) -> int:
    """Return how many of (submission, start) start before one that was submitted earlier."""
    latest = -1
    overtook = 0
    for _, start in sorted(jobs, key=lambda job: job[0]):
        overtook += start < latest
        latest = max(latest, start)
    return overtook


def _lost_capacity(jobs: Sequence[tuple[int, int, int, int]], procs: int) -> int:
    """Return the processor seconds idle while jobs waited of which one was no wider than what was idle."""
    events: list[tuple[int, int, int, int]] = []  # (time, change of used processors, joins the queue, leaves it)
    for submit, start, end, width in jobs:
        events += ((end, -width, 0, 0), (start, width, 0, width), (submit, 0, width, 0))
    events.sort()
    used, lost, before = 0, 0, events[0][0] if events else 0
    waiting: Counter[int] = Counter()
    narrowest: list[int] = []
    for time, change, joins, leaves in events:
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
    return lost


def to_csv(rows: Sequence[Row]) -> str:
    """Return a schedule as CSV with :data:`COLUMNS`; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(
            (row.job_id, row.submit_s, row.start_s, row.end_s, row.procs, row.nodes, row.nodelist, row.state)
        )
    return text.getvalue()
