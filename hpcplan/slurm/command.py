"""The backend that needs nothing but Slurm's commands: sbatch, squeue, sacct, scancel, scontrol; Slurm 20.11 to 26.05.

``--json`` is not used: its shape changes with each release, and scontrol has it only since 23.11. Every list has an
explicit format (see :mod:`hpcplan.slurm.squeue`, :mod:`hpcplan.slurm.sacct`, :mod:`hpcplan.slurm.scontrol`).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import sacct, scontrol, squeue
from hpcplan.slurm.marks import Marks
from hpcplan.slurm.merge import left_to_ask, merge
from hpcplan.slurm.process import SlurmCommands, refusal
from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

__all__ = ["CommandBackend"]

_log = logging.getLogger(__name__)

QUERY_S: Final = 60.0
HISTORY_S: Final = 30.0  # what a refresh waits for slurmdbd before it goes on without
ACCOUNTING_S: Final = 600.0  # a month of a large site takes slurmdbd minutes
ACTION_S: Final = 120.0  # sbatch itself retries for about that long while the controller is busy
DAY_S: Final = 86400
_MAX_IDS_BYTES: Final = 100_000  # Linux takes at most 128 KiB in one argument
_JOBS_A_CALL: Final = 500
_ALREADY_OVER: Final = ("already completing or completed", "already finished", "invalid job id")
_START: Final = re.compile(r"to start at (\d+)(?: on cluster \S+?)?(?: a)? using \d+ processors on (?:nodes )?(\S+)")


class CommandBackend:
    """Slurm through its commands. Implements :class:`hpcplan.slurm.Backend`.

    Every call of a command has a time limit, after which :class:`SlurmUnreachableError` is raised. A submission that
    ended so may have reached the controller: look for its comment before submitting again.

    ``environ`` (default: this process's environment) says how Slurm is reached; see :mod:`hpcplan.slurm.process`.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.commands = SlurmCommands(environ)

    @property
    def name(self) -> str:
        """``command``."""
        return "command"

    def now(self) -> int:
        """Return this machine's clock: Slurm wants all of a cluster's within seconds of each other."""
        return int(time.time())

    def ping(self, *, limit_s: float = QUERY_S) -> ClusterInfo:
        """Return which cluster answers and the controller's version; asks slurmdbd for a sign of life, too."""
        settings = scontrol.settings(self.commands.answer("scontrol", "show", "config", limit_s=limit_s))
        stored = settings.get("AccountingStorageType", "").endswith("slurmdbd")
        return ClusterInfo(
            backend=self.name,
            cluster=settings.get("ClusterName"),
            version=settings.get("SLURM_VERSION"),
            accounting=stored and self._accounting_answers(min(limit_s, HISTORY_S)),
        )

    def _accounting_answers(self, limit_s: float) -> bool:
        try:
            self.commands.answer("sacct", "--noheader", "--allocations", "--jobs=1", limit_s=limit_s)
        except SlurmError:
            return False
        return True

    def submit(self, submission: Submission) -> int:
        """Run sbatch on the script file and return the job's id."""
        command = ("sbatch", "--parsable", *_options(submission))
        answer = self.commands.answer(*command, limit_s=ACTION_S, neutral=False)
        job_id = answer.strip().partition(";")[0]  # jobid[;cluster]
        if not job_id.isdecimal():
            raise SlurmError(f"sbatch: answered {answer.strip()[:200]!r} where a job id was expected")
        return int(job_id)

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return jobs from one call of squeue and, for those that it does not know or that have ended, one of sacct;
        without ids two of sacct (see :mod:`hpcplan.slurm.sacct`).

        The controller forgets a job MinJobAge after its end; where accounting does not answer, such jobs are absent,
        and what only accounting knows (CPU time, peak memory) is ``None``.
        """
        if job_ids is not None and not job_ids:
            return []
        start = self.now() - DAY_S if since is None else since
        queue = self._queue(job_ids)
        asked = job_ids if job_ids is None else left_to_ask(job_ids, queue)
        history = {} if asked == [] else self.history(asked, start)
        return merge(queue, history, since=start, job_ids=job_ids)

    def _queue(self, job_ids: Sequence[int] | None) -> list[JobRecord]:
        marks = Marks()
        whose = ["--me"] if job_ids is None else _jobs_option(job_ids)
        result = self.commands.run(*squeue.arguments(marks), *whose, limit_s=QUERY_S)
        if result.returncode != 0:
            error = refusal(result)
            if "invalid job id" in error.message.lower():  # said of a single job that the controller has forgotten
                return []
            raise error
        return squeue.records(result.stdout, marks)

    def history(self, job_ids: Sequence[int] | None, start: int) -> dict[int, JobRecord]:
        """Return the newest attempt of each of these jobs (or the user's) since ``start``, as sacct knows it.

        Empty where accounting does not answer: the controller's word then has to do.
        """
        ids = [] if job_ids is None else _jobs_option(job_ids)
        whose = [f"--uid={os.getuid()}"] if job_ids is None else ["--allusers", *ids]
        try:
            found = self._attempts(start, self.now() + 1, whose, HISTORY_S)
            if not ids:
                found += self._never_eligible(start, self.now() + 1, whose, HISTORY_S, found)
            return sacct.newest(found)
        except SlurmError as error:
            _log.info("accounting does not answer; jobs that the controller has forgotten are missing: %s", error)
            return {}

    def _attempts(self, start: int, end: int, whose: Sequence[str], limit_s: float) -> list[JobRecord]:
        marks = Marks()
        answer = self.commands.answer(*sacct.arguments(marks, start, end), *whose, limit_s=limit_s)
        return sacct.records(answer, marks)

    def _never_eligible(
        self, start: int, end: int, whose: Sequence[str], limit_s: float, known: Sequence[JobRecord],
        *, started: bool = False,
    ) -> list[JobRecord]:  # fmt: skip
        """Return the attempts that ended between two times and that a question about that time leaves out; with
        ``started``, those alone that ever had nodes.
        """
        marks = Marks()
        answer = self.commands.answer(*sacct.ended_arguments(marks, start, end), *whose, limit_s=limit_s)
        there = {(record.job_id, record.submit_time) for record in known}
        missing = {
            (one.job_id, one.submit_time)
            for one in sacct.ended(answer, marks)
            if (one.job_id, one.submit_time) not in there and (one.started or not started)
        }
        found: list[JobRecord] = []
        for ids in _chunks(sorted({job_id for job_id, _ in missing})):
            found += self._attempts(start, end, ["--allusers", *_jobs_option(ids)], limit_s)
        return [record for record in found if (record.job_id, record.submit_time) in missing]

    def has(self, program: str) -> bool:
        """Return whether one of Slurm's commands is installed here."""
        return shutil.which(program, path=self.commands.environ.get("PATH")) is not None

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Run scancel; jobs that are over, or that the controller has forgotten, are no error."""
        self._act(("scancel",), job_ids, separator=None, tolerated=_ALREADY_OVER)

    def hold(self, job_ids: Sequence[int]) -> None:
        """Hold as their user, so that the user can release what an operator's account submitted."""
        self._act(("scontrol", "uhold"), job_ids)

    def release(self, job_ids: Sequence[int]) -> None:
        """Release held jobs."""
        self._act(("scontrol", "release"), job_ids)

    def requeue(self, job_ids: Sequence[int]) -> None:
        """Requeue jobs; Slurm lets them start again when their credential has expired (120 s as shipped)."""
        self._act(("scontrol", "requeue"), job_ids)

    def _act(
        self, command: tuple[str, ...], job_ids: Sequence[int], *, separator: str | None = ",",
        tolerated: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        errors = []
        for chunk in _chunks(job_ids):
            arguments = [str(job_id) for job_id in chunk]
            if separator is not None:
                arguments = [separator.join(arguments)]
            result = self.commands.run(*command, *arguments, limit_s=ACTION_S)
            if result.returncode != 0 and not _only(result, tolerated):
                errors.append(refusal(result))
        if errors:
            raise next((error for error in errors if isinstance(error, SlurmUnreachableError)), errors[0])

    def nodes(self) -> list[NodeRecord]:
        """Return every node, those of hidden partitions too."""
        return scontrol.nodes(self.commands.answer("scontrol", "--all", "--oneliner", "show", "node", limit_s=QUERY_S))

    def partitions(self) -> list[PartitionRecord]:
        """Return every partition, hidden ones too."""
        command = ("scontrol", "--all", "--oneliner", "show", "partition")
        return scontrol.partitions(self.commands.answer(*command, limit_s=QUERY_S))

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        """Return every attempt of every user's job that was pending or running between two times.

        sacct is asked twice, the second time, briefly, for what the first answer leaves out (see
        :mod:`hpcplan.slurm.sacct`). A requeued job comes once for each attempt, with the same id and other times, since
        each attempt held nodes; what was cut short has the state REQUEUED. As with sacct, a job that was cancelled
        before it was ever eligible (held, or waiting for another) is not among them.
        """
        whose = ["--allusers"]
        found = self._attempts(start, end, whose, ACCOUNTING_S)
        return found + self._never_eligible(start, end, whose, ACCOUNTING_S, found, started=True)

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        """Return the answer of ``sbatch --test-only``, which knows nothing of dependencies and holds."""
        result = self.commands.run("sbatch", "--test-only", *_options(submission), limit_s=ACTION_S)
        if result.returncode != 0:
            raise refusal(result)
        found = _START.search(result.stderr)
        return None if found is None else StartEstimate(start_time=int(found[1]), nodes=found[2])


def _options(submission: Submission) -> list[str]:
    options = [f"--chdir={submission.work_dir}"]
    if submission.dependency is not None:
        options.append(f"--dependency={submission.dependency}")
    if submission.comment is not None:
        options.append(f"--comment={submission.comment}")
    if submission.exclude is not None:
        options.append(f"--exclude={submission.exclude}")
    if submission.hold:
        options.append("--hold")
    # sbatch looks for a relative name in the job's directory and on PATH; ours means the current directory
    token = [] if submission.token is None else [submission.token]
    return [*options, str(Path(submission.script).absolute()), *token]


def _jobs_option(job_ids: Sequence[int]) -> list[str]:
    """Return the filter by ids; none, so that everything is asked for, where it would be longer than Linux allows."""
    option = f"--jobs={','.join(str(job_id) for job_id in job_ids)}"
    return [option] if len(option) <= _MAX_IDS_BYTES else []


def _chunks(job_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(job_ids), _JOBS_A_CALL):
        yield job_ids[first : first + _JOBS_A_CALL]


def _only(result: subprocess.CompletedProcess[str], tolerated: tuple[str, ...]) -> bool:
    """Whether every line of the refusal has one of these phrases."""
    lines = [line.lower() for line in result.stderr.splitlines() if line.strip()]
    return bool(lines) and all(any(phrase in line for phrase in tolerated) for line in lines)
