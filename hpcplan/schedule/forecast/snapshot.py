"""A queue at one moment, as plain data: what runs, what waits, what there is, and what ran before."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hpcplan.documents import Loc, write_text
from hpcplan.hostlist import expand
from hpcplan.quantities import PositiveInt
from hpcplan.validation import Value, read_model

__all__ = ["QueueJob", "QueueSnapshot", "Reservation", "read_snapshot", "write_snapshot"]

Policy = Literal["fcfs", "easy", "conservative", "backfill", "slurm"]


class QueueJob(Value):
    """One job, times in unix seconds: it waits without ``start_s``, runs without ``end_s``, and has ended with both.

    ``width`` counts processors on a pool of them, nodes on a cluster. Jobs of a higher ``priority`` go first; one that
    is asked about goes last where its priority is 0.
    """

    label: str
    width: PositiveInt
    limit_s: PositiveInt
    submit_s: int
    start_s: int | None = None
    end_s: int | None = None
    user: str | None = None
    name: str | None = None
    partition: str | None = None
    priority: int = 0
    qos: str | None = None
    state: str | None = Field(None, description="how it ended, in Slurm's word")
    nodes: str | None = Field(None, description="a hostlist: where it runs, on a cluster")

    @property
    def running(self) -> bool:
        """Whether it has started, and not ended."""
        return self.start_s is not None and self.end_s is None

    @property
    def pending(self) -> bool:
        """Whether it has still to start."""
        return self.start_s is None


class Reservation(Value):
    """Nodes (a hostlist), or so many processors of a pool, that jobs cannot have for a time."""

    start_s: int
    end_s: int
    nodes: str | None = None
    width: PositiveInt | None = None


class QueueSnapshot(Value):
    """A pool of ``procs`` processors or a cluster of nodes (``machine``), its live jobs, and the jobs that ended.

    ``machine`` is the plain data of :class:`hpcplan.simulate.machine.Machine`; ``unusable`` a hostlist of nodes that
    take no jobs.
    """

    queue_snapshot: Literal[1] = 1
    source: str = ""
    now_s: int
    procs: PositiveInt | None = None
    machine: dict[str, Any] | None = None
    policy: Policy = "easy"
    unusable: str | None = None
    reservations: tuple[Reservation, ...] = ()
    left_out: Annotated[int, Field(ge=0)] = Field(0, description="jobs that are held, or wait for others")
    jobs: tuple[QueueJob, ...] = ()
    history: tuple[QueueJob, ...] = ()
    limit_use: dict[str, tuple[Annotated[float, Field(gt=0, le=1)], ...]] = Field(
        {}, description="by partition, shares of the limit that jobs use, as likely each: where no history tells better"
    )
    limit_source: str | None = Field(None, description="where these are from")

    @property
    def running(self) -> tuple[QueueJob, ...]:
        """The jobs that run."""
        return tuple(job for job in self.jobs if job.running)

    @property
    def pending(self) -> tuple[QueueJob, ...]:
        """The jobs that wait, in the order in which they are looked at."""
        waiting = (job for job in self.jobs if job.pending)
        return tuple(sorted(waiting, key=lambda job: (-job.priority, job.submit_s)))

    def inconsistencies(self) -> Iterable[tuple[Loc, str]]:
        """Yield what contradicts itself."""
        if (self.procs is None) == (self.machine is None):
            yield ("procs",), "give either procs (a pool of processors) or machine (nodes), and not both"
        if self.procs is not None:
            yield from self._pool_problems(self.procs)
        for index, job in enumerate(self.jobs):
            if job.end_s is not None:
                yield ("jobs", index, "end_s"), "a job that has ended belongs under history"
        for name, shares in self.limit_use.items():
            if not shares:
                yield ("limit_use", name), "is empty"
        for index, job in enumerate(self.history):
            if job.end_s is None:
                yield ("history", index, "end_s"), "is missing: jobs of the history have ended"
        for index, reservation in enumerate(self.reservations):
            if reservation.end_s <= reservation.start_s:
                yield ("reservations", index, "end_s"), "is not after start_s"
            if reservation.nodes is not None:
                try:
                    expand(reservation.nodes)
                except ValueError as error:
                    yield ("reservations", index, "nodes"), str(error)

    def _pool_problems(self, procs: int) -> Iterable[tuple[Loc, str]]:
        used = 0
        for index, job in enumerate(self.jobs):
            used += job.width if job.running else 0
            if job.width > procs:
                yield ("jobs", index, "width"), f"{job.width} is more than the pool's {procs} processors"
        if used > procs:
            yield ("jobs",), f"those that run take {used} processors; the pool has {procs}"


def read_snapshot(path: Path) -> QueueSnapshot:
    """Read a snapshot.

    Raises:
        InputError: not readable, or not a snapshot; with file, line and field.
    """
    return read_model(path, QueueSnapshot)


def write_snapshot(path: Path, snapshot: QueueSnapshot) -> None:
    """Write a snapshot as JSON; what is not known is left out."""
    data = snapshot.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    write_text(path, json.dumps({"queue_snapshot": 1, **data}, indent=1) + "\n")
