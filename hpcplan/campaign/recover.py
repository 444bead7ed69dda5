"""After a crash: finding the jobs that were asked for and whose answer was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import work_dir
from hpcplan.campaign.ledger import fold
from hpcplan.campaign.match import Wanted, find_lost, since
from hpcplan.errors import ConflictError
from hpcplan.render.manifest import Manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import ClusterInfo, JobRecord

__all__ = ["recover_lost"]

# Slurm's controller forgets a finished job MinJobAge after its end: 300 s unless the site says otherwise.
_REMEMBERED_S: Final = 240


def recover_lost(
    journal: JournalWriter,
    manifest: Manifest,
    backend: Backend,
    info: ClusterInfo,
    directory: Path,
    *,
    settle_s: float,
    resubmit_lost: bool,
    sleep: Callable[[float], None],
) -> set[str]:
    """Look once for all jobs without an answer, write what was found into the journal, and return the keys found.

    Raises:
        ConflictError: a job is not there, but could have come and gone unseen, and ``resubmit_lost`` is not given.
    """
    ledger = fold(journal.entries, directory)
    lost = [
        Wanted(job, ledger.job(job.key), Path(work_dir(directory, ledger)), ledger.cluster)
        for job in manifest.jobs
        if ledger.job(job.key).unresolved
    ]
    if not lost:
        return set()
    asked_at = [wanted.ledger.asked_at or 0 for wanted in lost]
    _settle(backend, max(asked_at), settle_s, sleep)
    records = backend.jobs(None, since=since(asked_at, backend.now()))
    found: set[str] = set()
    for wanted in lost:
        matches = find_lost(records, wanted) or _look_harder(wanted, backend, info)
        if matches:
            job_id = min(record.submitted_id for record in matches)
            journal.append("submitted", job=wanted.job.key, job_id=job_id, at=backend.now(), found=True)
            _drop_duplicates(journal, backend, wanted, [one for one in matches if one.submitted_id != job_id])
            found.add(wanted.job.key)
        elif not resubmit_lost:
            _refuse_to_guess(wanted, backend, info)
    return found


def _settle(backend: Backend, asked_at: int, settle_s: float, sleep: Callable[[float], None]) -> None:
    """Wait until the last request is so old that the controller has either taken it or never will."""
    age_s = backend.now() - asked_at
    if age_s < settle_s:  # below zero, the clock was set back, and nothing is known of the request's age
        sleep(settle_s - max(0, age_s))


def _drop_duplicates(journal: JournalWriter, backend: Backend, wanted: Wanted, matches: Sequence[JobRecord]) -> None:
    """Cancel second jobs with the same token, which a request that outlived its sender can leave."""
    alive = sorted({record.submitted_id for record in matches if not record.state.final})
    for job_id in alive:
        journal.append("duplicate", job=wanted.job.key, job_id=job_id)
    if alive:
        backend.cancel(alive)


def _look_harder(wanted: Wanted, backend: Backend, info: ClusterInfo) -> list[JobRecord]:
    """Look into accounting alone for a job that the controller may have forgotten by now; in the question about all
    jobs a silence of accounting's goes unheard, in this one it does not.

    Raises:
        SlurmUnreachableError, SlurmError: accounting does not answer.
    """
    if not info.accounting or 0 <= backend.now() - (wanted.ledger.asked_at or 0) < _REMEMBERED_S:
        return []
    return find_lost(backend.accounting(since([wanted.ledger.asked_at], backend.now()), backend.now() + 1), wanted)


def _refuse_to_guess(wanted: Wanted, backend: Backend, info: ClusterInfo) -> None:
    age_s = backend.now() - (wanted.ledger.asked_at or 0)
    if info.accounting or 0 <= age_s < _REMEMBERED_S:
        return  # if it had arrived, it would be known
    message = (
        f"{wanted.job.key} was asked for {age_s} s ago and the answer was lost; Slurm does not know it now, but "
        "without accounting it could have run and been forgotten"
    )
    raise ConflictError(message, hint="look for its log; if it never ran, submit with --resubmit-lost")
