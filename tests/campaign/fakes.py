"""A Slurm in memory that forgets, loses answers and dies on command; it keeps its jobs in a file if given one.

With a file, several processes share it, and a process can be killed in the middle of a call: the job is in the file
before the answer is given, as it would be in slurmctld.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    JobState,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

START = 1_800_000_000


class Died(BaseException):
    """The process ends here; no ``except Exception`` may stop it."""


class FakeSlurm:
    """Implements the Backend protocol over a dictionary of jobs."""

    def __init__(self, store: Path | None = None, *, cluster: str = "fake", accounting: bool = True) -> None:
        self.store = store
        self.cluster = cluster
        self.accounting_on = accounting
        self.records: dict[int, JobRecord] = {}
        self.scripts: dict[int, str] = {}
        self.dependencies: dict[int, str | None] = {}
        self.next_id = 100
        self.clock = START
        self.calls: list[str] = []
        self.cancelled: list[int] = []
        self.excluded: list[str | None] = []
        self.unreachable = False
        self.refuses: str | None = None
        self.keeps_comments = True
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self._load()

    def _load(self) -> None:
        if self.store is not None and self.store.exists():
            for line in self.store.read_text().splitlines():
                record = JobRecord.from_dict(json.loads(line))
                self.records[record.job_id] = record
            self.next_id = max(self.records, default=99) + 1

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)
        if self.unreachable:
            raise SlurmUnreachableError("the controller does not answer")
        self._load()

    @property
    def name(self) -> str:
        return "fake"

    def now(self) -> int:
        return self.clock

    def ping(self) -> ClusterInfo:
        self._call("ping")
        return ClusterInfo(backend="fake", cluster=self.cluster, version="23.11", accounting=self.accounting_on)

    def submit(self, submission: Submission) -> int:
        self._call("submit")
        if self.refuses is not None:
            raise SlurmError(self.refuses)
        job_id = self.next_id
        self.next_id += 1
        record = JobRecord(
            job_id=job_id,
            state=JobState.PENDING,
            name=_job_name(Path(submission.script)),
            cluster=self.cluster,
            comment=submission.comment,
            reason="Dependency" if submission.dependency else "Priority",
            submit_time=self.clock,
            work_dir=submission.work_dir,
            dependency=submission.dependency,
        )
        self.add(record)
        self.scripts[job_id] = submission.script
        self.dependencies[job_id] = submission.dependency
        self.excluded.append(submission.exclude)
        self.after("submit")
        return job_id

    def add(self, record: JobRecord) -> None:
        self.records[record.job_id] = record
        if self.store is not None:
            with self.store.open("a") as stream:
                stream.write(json.dumps(record.as_dict()) + "\n")
                stream.flush()
                os.fsync(stream.fileno())

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        self._call("jobs")
        found = [record for _, record in sorted(self.records.items()) if job_ids is None or record.is_among(job_ids)]
        return found if self.keeps_comments else [replace(record, comment=None) for record in found]

    def cancel(self, job_ids: Sequence[int]) -> None:
        self._call("cancel")
        self.cancelled += job_ids
        for job_id in job_ids:
            if job_id in self.records and not self.records[job_id].state.final:
                self.set(job_id, JobState.CANCELLED, end_time=self.clock)
        self.after("cancel")

    def hold(self, job_ids: Sequence[int]) -> None:
        self._call("hold")

    def release(self, job_ids: Sequence[int]) -> None:
        self._call("release")

    def requeue(self, job_ids: Sequence[int]) -> None:
        self._call("requeue")

    def nodes(self) -> list[NodeRecord]:
        self._call("nodes")
        return []

    def partitions(self) -> list[PartitionRecord]:
        self._call("partitions")
        return []

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        self._call("accounting")
        return [record for record in self.records.values() if (record.submit_time or 0) < end]

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        self._call("estimate_start")
        return None

    def set(self, job_id: int, state: JobState, **changes: object) -> None:
        """Put a job into a state."""
        self.add(replace(self.records[job_id], state=state, **changes))

    def run(self, job_id: int, *, seconds: int = 60) -> None:
        """Start a job and let time pass."""
        self.set(job_id, JobState.RUNNING, start_time=self.clock, reason=None, node_list="n[1-16]", nodes=16)
        self.clock += seconds

    def end(self, job_id: int, state: JobState = JobState.COMPLETED, **changes: object) -> None:
        """End a running job."""
        self.set(job_id, state, end_time=self.clock, **{"exit_code": 0, **changes})

    def forget(self, *job_ids: int) -> None:
        """Lose all memory of jobs."""
        for job_id in job_ids:
            del self.records[job_id]


def _job_name(script: Path) -> str:
    lines = script.read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("#SBATCH --job-name="))


def die(_call: str) -> None:
    """End the process as a crash would, as far as a test can."""
    raise Died


def kill(_call: str) -> None:
    """End this process with SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number: int, action: Callable[[str], None]) -> Callable[[str], None]:
    """Return a hook that acts on the ``number``-th time it is called, counted from 1."""
    count = 0

    def hook(call: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            action(call)

    return hook
