"""Going on with a campaign that has ended without being done: the jobs that did not complete, once more.

A new attempt of a job is the same script with a token of its own, so that it, too, is submitted exactly once. Training
goes on from its newest checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcplan.campaign.causes import Cause, cause_of, log_end
from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest, log_path
from hpcplan.campaign.ledger import Ledger, fold
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.status import CampaignStatus, JobStatus, status
from hpcplan.errors import ConflictError, HpcplanError
from hpcplan.render.manifest import Manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["Failure", "failure", "jobs_to_retry", "retry", "unblock"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a campaign ended without being done: the job that ended first in that way, and the cause."""

    key: str
    job_id: int | None
    cause: Cause
    record: JobRecord | None = None


def failure(directory: Path, manifest: Manifest, ledger: Ledger) -> Failure | None:
    """Return what stopped a campaign, ``None`` where no job is known to have ended badly.

    Where a job's script stopped the chain, that job counts: those after it only obeyed. Else the last one does, since
    each job goes on from where the one before it ended, however it ended.
    """
    bad = [
        (job, ledger.job(job.key))
        for job in manifest.jobs
        if (end := ledger.job(job.key).ended) is not None and end.state is not JobState.COMPLETED
    ]
    if not bad:
        return None
    stopped_by = _stopped_by(directory)
    job, known = next(((job, known) for job, known in bad if str(known.job_id) == stopped_by), bad[-1])
    assert known.ended is not None
    assert known.job_id is not None
    log = log_end(log_path(directory, job, known.job_id))
    cause = cause_of(known.ended, log)
    if cause is Cause.APPLICATION_ERROR and stopped_by is None and known.ended.exit_code == 1 and _ran_out(log):
        cause = Cause.TIMEOUT
    return Failure(job.key, known.job_id, cause, known.ended)


def _ran_out(log: str) -> bool:
    return "training stands at step" in log


def _stopped_by(directory: Path) -> str | None:
    """Return the id of the job that wrote ``state/failed``: ``train 2 (job 17): …``."""
    try:
        words = (directory / "state" / "failed").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return words.partition("(job ")[2].partition(")")[0] or None


def jobs_to_retry(result: CampaignStatus) -> list[JobStatus]:
    """Return the jobs that did not complete, in order."""
    return [job for job in result.jobs if job.state != JobState.COMPLETED.value]


def retry(
    directory: Path,
    backend: Backend,
    *,
    cause: Cause | None = None,
    why: str = "asked for",
    wait_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Make the jobs that did not complete ready to be submitted once more, and return their keys; submit them after.

    Raises:
        ConflictError: a job still runs or waits, the campaign is done, or nobody knows how its jobs ended.
        InputError, SlurmUnreachableError: as :func:`hpcplan.campaign.status`.
    """
    directory = directory.resolve()
    result = status(directory, backend)
    keys = [job.key for job in _ready(result)]
    with campaign_lock(directory, wait_s=wait_s, sleep=sleep), JournalWriter(directory) as journal:
        ledger = fold(journal.entries, directory)
        if any(ledger.job(job.key).job_id != job.job_id for job in result.jobs):
            raise ConflictError(f"{directory}: somebody else is going on with it just now")
        found = failure(directory, current_manifest(directory, ledger), ledger)
        named = cause or (found.cause if found is not None else Cause.UNKNOWN)
        unblock(directory)
        journal.append("retry", jobs=keys, cause=named.value, why=why, at=backend.now(), step=result.progress.step)
    return keys


def _ready(result: CampaignStatus) -> list[JobStatus]:
    alive = [job for job in result.jobs if _is_alive(job)]
    if alive:
        message = f"{result.campaign}: {alive[0].key} has not ended ({alive[0].state})"
        raise ConflictError(message, hint="wait for its end, or hpcplan cancel first")
    forgotten = [job for job in result.jobs if job.over_by is not None]
    if forgotten and result.state.value != "cancelled":
        message = f"{result.campaign}: {forgotten[0].key} began and may still run; Slurm has forgotten it"
        raise ConflictError(message, hint="wait until its time limit has passed, or hpcplan cancel first")
    if any(job.state == JobState.UNKNOWN.value and job.job_id is None for job in result.jobs):
        raise ConflictError(f"{result.campaign}: an answer was lost", hint="hpcplan submit looks for it first")
    keys = jobs_to_retry(result)
    if not keys or result.state.value == "done":
        raise ConflictError(f"{result.campaign}: training is done; there is nothing to retry")
    if result.state.value == "rendered":
        raise ConflictError(f"{result.campaign}: it was never submitted", hint="hpcplan submit does that")
    return keys


def _is_alive(job: JobStatus) -> bool:
    state = JobState.parse(job.state)
    return state.waiting or state.active


def unblock(directory: Path) -> None:
    """Put the marker that stops the chain aside, as ``state/failed-1`` and so on, so that what it says is kept.

    Raises:
        HpcplanError: the directory cannot be written.
    """
    marker = directory / "state" / "failed"
    number = 1
    while (kept := marker.with_name(f"failed-{number}")).exists():
        number += 1
    try:
        marker.rename(kept)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HpcplanError(f"{marker}: cannot be put aside: {error.strerror or error}") from None
