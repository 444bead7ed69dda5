"""A trace from its file to its schedule's file, figures and picture, without ever being in memory as a whole.

What is held is the jobs that wait or run, the rows that wait for one before them, and 8 bytes a job; 32 where the jobs
do not come in the order of their submission (:mod:`.trace_order`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.documents import write_parts
from hpcplan.simulate.outcome import Figures, Metrics, csv_parts
from hpcplan.simulate.trace_order import BySubmission
from hpcplan.simulate.trace_run import UnusualJob, check_policy, pool_of, rows_on_nodes, rows_on_processors
from hpcplan.simulate.trace_submissions import awaited

if TYPE_CHECKING:
    from hpcplan.simulate.outcome import Row
    from hpcplan.simulate.picture import Sketch
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.simulate.traces import TraceJob, TraceSource

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
    source: TraceSource, target: Target, policy: str, order: str = "submit", *,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:  # fmt: skip
    """Schedule a trace and write what ``target`` asks for; ``tell`` is told what makes it take longer than it might.

    Raises:
        InputError: the trace cannot be used, or not on this machine; no such policy; nothing to draw.
        HpcplanError: a file cannot be written.
    """
    check_policy(policy)
    size = target.size(source.procs)
    jobs: BySubmission | None = None
    compiled = True
    while True:
        try:
            return _streamed(source, jobs, target, size, policy, order, compiled=compiled, tell=tell)
        except _OutOfOrder:
            jobs = BySubmission(source)
        except UnusualJob:
            compiled = False


def _streamed(
    source: TraceSource, sorted_jobs: BySubmission | None, target: Target, size: int, policy: str, order: str, *,
    compiled: bool, tell: Callable[[str], None],
) -> Outcome:  # fmt: skip
    refused: dict[str, str] = {}
    jobs = sorted_jobs or _ordered(source)
    rows: Iterable[Row]
    if target.cluster is not None:
        rows = rows_on_nodes(
            jobs, target.cluster, policy, order, refused,
            names=awaited(source) if source.may_depend else (), compiled=compiled, tell=tell,
        )  # fmt: skip
    else:
        rows = rows_on_processors(jobs, size, policy, order, refused, tell=tell)
    figures = Figures(size)
    rows = figures.of(rows)
    sketch: Sketch | None = None
    if target.picture is not None:
        from hpcplan.simulate.picture import Sketch, check_suffix, draw_sketch

        check_suffix(target.picture)
        sketch = Sketch()
        rows = sketch.of(rows)
    if sorted_jobs is not None:
        rows = sorted_jobs.in_trace_order(rows)
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
