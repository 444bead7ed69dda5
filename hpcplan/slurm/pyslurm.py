"""The backend that talks to the controller through pyslurm (22.5 to 25.11), which the user has installed beside us.

What pyslurm does not do as Slurm's own commands do is left to them, so that the answers are the same:

- submission and start estimates: submit descriptions drop or misread options, and know no ``--test-only``;
- holding as the job's user: ``Job.hold(mode="user")`` follows a null pointer and ends the process (22.5 to 25.11);
- history, where sacct is installed: pyslurm has one record a job id, so that the attempts before a requeue are lost,
  and no trackable resources (GPUs) of a stored job before 24.11.

pyslurm is GPL-2.0 and never shipped with hpcplan. Importing it where Slurm has no configuration retries for a minute
and then ends the process, which no ``except`` catches: it is imported in a child first, see :func:`probe`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import pyslurm_records as convert
from hpcplan.slurm.command import DAY_S, CommandBackend
from hpcplan.slurm.merge import left_to_ask, merge
from hpcplan.slurm.process import error_in_words
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

__all__ = ["Probe", "PyslurmBackend", "connect", "probe"]

PROBE_S: Final = 15.0
_CHILD: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import pyslurm
config = pyslurm.slurmctld.Config.load()
needed = ("Jobs", "Job", "Nodes", "Partitions", "PyslurmError", "db")
json.dump({"version": pyslurm.__version__, "missing": [name for name in needed if not hasattr(pyslurm, name)],
           "cluster": getattr(config, "cluster_name", None) or getattr(config, "cluster", None)}, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether pyslurm can be used here, and in words which one it is or why not."""

    works: bool
    detail: str


def probe(*, limit_s: float = PROBE_S) -> Probe:
    """Import pyslurm in a child process and let it ask the controller; takes at most ``limit_s`` seconds."""
    if importlib.util.find_spec("pyslurm") is None:
        return Probe(False, "not installed (pip install 'hpcplan[pyslurm]', with Slurm's headers of the same release)")
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(sys.path)], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Probe(False, f"installed, but gives no answer within {limit_s:.0f} s")
    if child.returncode != 0:
        said = [line for line in child.stderr.strip().splitlines() if line.strip()]
        return Probe(False, f"installed, but does not work: {said[-1] if said else f'exit code {child.returncode}'}")
    try:
        found = json.loads(child.stdout)
    except ValueError:
        return Probe(False, "installed, but its answer cannot be read")
    if found["missing"]:
        return Probe(False, f"pyslurm {found['version']} is older than 22.5: it has no {', '.join(found['missing'])}")
    return Probe(True, f"pyslurm {found['version']}, cluster {found['cluster']}")


def connect(found: Probe | None = None) -> PyslurmBackend:
    """Return the backend, after a probe (or on the strength of one that was just made).

    Raises:
        SlurmUnreachableError: pyslurm is not installed, does not work here, or the controller does not answer it.
    """
    found = probe() if found is None else found
    if not found.works:
        raise SlurmUnreachableError(
            f"pyslurm: {found.detail}", hint="Use '--backend command', which needs Slurm's commands alone."
        )
    return PyslurmBackend(importlib.import_module("pyslurm"), CommandBackend())


class PyslurmBackend:
    """Slurm through the module pyslurm. Implements :class:`hpcplan.slurm.Backend`; see :func:`connect`.

    Slurm's library sets its own time limits (slurm.conf(5), MessageTimeout).
    """

    def __init__(self, module: Any, commands: CommandBackend) -> None:
        self._pyslurm = module
        self._commands = commands

    @property
    def name(self) -> str:
        """``pyslurm``."""
        return "pyslurm"

    def now(self) -> int:
        """Return this machine's clock: Slurm wants all of a cluster's within seconds of each other."""
        return int(time.time())

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._pyslurm.PyslurmError as error:
            raise error_in_words(f"pyslurm: {what}: {error}") from None

    def ping(self) -> ClusterInfo:
        """Return which cluster answers, and the release of Slurm that this pyslurm was built for."""
        with self._asking("settings"):
            config = self._pyslurm.slurmctld.Config.load()
        major, minor = (int(part) for part in str(self._pyslurm.__version__).split(".")[:2])
        return ClusterInfo(
            backend=self.name,
            cluster=getattr(config, "cluster_name", None) or getattr(config, "cluster", None),
            version=getattr(config, "version", None) or f"{major}.{minor:02d}",
            accounting=self._accounting_answers(),
        )

    def _accounting_answers(self) -> bool:
        try:
            self._pyslurm.db.Connection.open().close()
        except self._pyslurm.PyslurmError:
            return False
        return True

    def submit(self, submission: Submission) -> int:
        """Submit the script as it was rendered, with sbatch."""
        return self._commands.submit(submission)

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return jobs from one question to the controller and one to accounting, without which it does as it can."""
        if job_ids is not None and not job_ids:
            return []
        start = self.now() - DAY_S if since is None else since
        queue = self._queue(job_ids)
        asked = job_ids if job_ids is None else left_to_ask(job_ids, queue)
        history = {} if asked == [] else self._history(asked, start)
        return merge(queue, history, since=start, job_ids=job_ids)

    def _queue(self, job_ids: Collection[int] | None) -> list[JobRecord]:
        with self._asking("jobs"):
            loaded = list(self._pyslurm.Jobs.load().values())
        if job_ids is None:
            return [convert.queued(job) for job in loaded if job.user_id == os.getuid()]
        wanted = frozenset(job_ids)
        ours = (job for job in loaded if not wanted.isdisjoint((job.id, job.array_id, convert.het_job_id(job))))
        return [convert.queued(job) for job in ours]

    def _history(self, job_ids: Sequence[int] | None, start: int) -> Mapping[int, JobRecord]:
        if self._commands.has("sacct"):
            return self._commands.history(job_ids, start)
        whose: dict[str, Any] = {"users": [os.getuid()]} if job_ids is None else {"ids": list(job_ids)}
        try:
            return {record.job_id: record for record in self._stored(start, self.now() + 1, **whose)}
        except SlurmError:
            return {}  # slurmdbd is down: what only it knows stays unknown

    def _stored(self, start: int, end: int, **whose: Any) -> list[JobRecord]:
        with self._asking("accounting"):
            chosen = self._pyslurm.db.JobFilter(start_time=start, end_time=end, **whose)
            return [convert.stored(job) for job in self._pyslurm.db.Jobs.load(chosen).values()]

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel jobs; those that are over are no error.

        pyslurm 22.5 reports an earlier call's error where this one succeeded, so an error is left to scancel to judge.
        """
        failed = []
        for job_id in job_ids:
            try:
                self._pyslurm.Job(job_id).cancel()
            except self._pyslurm.PyslurmError:
                failed.append(job_id)
        if failed:
            self._commands.cancel(failed)

    def hold(self, job_ids: Sequence[int]) -> None:
        """Hold as their user, with scontrol."""
        self._commands.hold(job_ids)

    def release(self, job_ids: Sequence[int]) -> None:
        """Release held jobs."""
        self._each(job_ids, "release", lambda job: job.release())

    def requeue(self, job_ids: Sequence[int]) -> None:
        """Requeue jobs; Slurm lets them start again when their credential has expired (120 s as shipped)."""
        self._each(job_ids, "requeue", lambda job: job.requeue())

    def _each(self, job_ids: Sequence[int], what: str, act: Callable[[Any], None]) -> None:
        """Act on every job, and raise the first error when all have had their turn."""
        errors: list[SlurmError] = []
        for job_id in job_ids:
            try:
                with self._asking(f"{what} {job_id}"):
                    act(self._pyslurm.Job(job_id))
            except SlurmError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def nodes(self) -> list[NodeRecord]:
        """Return every node, by name."""
        with self._asking("nodes"):
            return convert.nodes(self._pyslurm.Nodes.load().values())

    def partitions(self) -> list[PartitionRecord]:
        """Return every partition, by name."""
        with self._asking("partitions"):
            return convert.partitions(self._pyslurm.Partitions.load().values())

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        """Return every attempt, from sacct; where that is not installed, the last attempt of every job."""
        if self._commands.has("sacct"):
            return self._commands.accounting(start, end)
        return self._stored(start, end)

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        """Return the answer of ``sbatch --test-only``."""
        return self._commands.estimate_start(submission)
