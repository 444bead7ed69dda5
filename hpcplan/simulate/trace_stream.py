"""A trace from its file to its schedule's file, figures and picture, without ever being in memory as a whole.

That is so for traces in SWF whose jobs come in the order of their submission, as they do in the archive; any other is
read first. What is held then is the jobs that wait or run, the rows that wait for one before them, and 8 bytes a job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.documents import write_parts
from hpcplan.simulate.outcome import Figures, Metrics, csv_parts
from hpcplan.simulate.trace_files import read_trace
from hpcplan.simulate.trace_run import check_policy, on_nodes, on_processors, pool_of, rows_on_nodes, rows_on_processors
from hpcplan.simulate.traces import SwfJobs, Trace, TraceJob

if TYPE_CHECKING:
    from hpcplan.simulate.outcome import Row
    from hpcplan.simulate.picture import Sketch
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["Outcome", "Target", "schedule_trace"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a trace is scheduled on (``cluster``, else ``procs`` equal processors), and where the schedule goes."""

    procs: int | None = None
    cluster: SlurmCluster | None = None
    output: Path | None = None
    picture: Path | None = None

    def size(self, of_trace: int | None) -> int:
        """Return how many processors there are.

        Raises:
            InputError: nobody says so.
        """
        if self.cluster is not None:
            machine = self.cluster.machine
            return machine.total(machine.all_nodes, "cpus")
        return pool_of(self.procs or of_trace)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation came to. ``skipped`` jobs of the trace did not run; ``refused`` says why sbatch would."""

    policy: str
    order: str
    procs: int
    metrics: Metrics
    refused: dict[str, str]
    skipped: int


class _OutOfOrder(Exception):
    """A job of a trace was submitted before the one that precedes it."""


def schedule_trace(
    source: SwfJobs | Trace, target: Target, policy: str, order: str = "submit", *,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:  # fmt: skip
    """Schedule a trace and write what ``target`` asks for; ``tell`` is told what makes it take longer than it might.

    Raises:
        InputError: the trace cannot be used, or not on this machine; no such policy; nothing to draw.
        HpcplanError: a file cannot be written.
    """
    check_policy(policy)
    size = target.size(source.procs)
    if isinstance(source, SwfJobs):
        try:
            return _streamed(source, target, size, policy, order, tell)
        except _OutOfOrder:
            source = read_trace(source.path, procs=target.procs)
    if target.cluster is not None:
        schedule = on_nodes(source, target.cluster, policy, order, tell=tell)
    else:
        schedule = on_processors(source, size, policy, order, tell=tell)
    if target.output is not None:
        write_parts(target.output, csv_parts(schedule.rows))
    if target.picture is not None:
        from hpcplan.simulate.picture import draw_schedule

        draw_schedule(schedule, target.picture)
    return Outcome(policy, order, size, schedule.metrics(), schedule.refused, source.skipped)


def _streamed(
    source: SwfJobs, target: Target, size: int, policy: str, order: str, tell: Callable[[str], None]
) -> Outcome:
    refused: dict[str, str] = {}
    rows: Iterable[Row]
    if target.cluster is not None:
        rows = rows_on_nodes(_ordered(source), target.cluster, policy, order, refused, tell=tell)
    else:
        rows = rows_on_processors(_ordered(source), size, policy, order, refused, tell=tell)
    figures = Figures(size)
    rows = figures.of(rows)
    sketch: Sketch | None = None
    if target.picture is not None:
        from hpcplan.simulate.picture import Sketch, check_suffix, draw_sketch

        check_suffix(target.picture)
        sketch = Sketch()
        rows = sketch.of(rows)
    if target.output is not None:
        write_parts(target.output, csv_parts(rows))
    else:
        for _ in rows:
            pass
    if target.picture is not None and sketch is not None:
        draw_sketch(sketch, target.picture, procs=size, policy=policy, order=order)
    return Outcome(policy, order, size, figures.metrics(), refused, source.skipped)


def _ordered(jobs: Iterable[TraceJob]) -> Iterator[TraceJob]:
    last_s: int | None = None
    for job in jobs:
        if last_s is not None and job.submit_s < last_s:
            raise _OutOfOrder
        last_s = job.submit_s
        yield job
