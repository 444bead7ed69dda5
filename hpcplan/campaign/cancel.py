"""Cancelling a campaign: every job that may still run, the lost ones too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest
from hpcplan.campaign.ledger import Ledger, fold, read_ledger
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.match import Wanted, is_ours, since
from hpcplan.campaign.parts import by_submitted_id, whole
from hpcplan.campaign.recover import recover_lost
from hpcplan.campaign.submit import check_same_cluster
from hpcplan.render.manifest import Manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord

__all__ = ["Cancelled", "cancel"]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was asked of Slurm: the ids it was told to cancel, and those of jobs that had already ended."""

    job_ids: tuple[int, ...]
    ended: tuple[int, ...]


def cancel(
    directory: Path,
    backend: Backend,
    *,
    settle_s: float = 5.0,
    wait_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Cancelled:
    """Cancel the campaign's jobs that have not ended, the last of the chain first, and let no more be submitted.

    Raises:
        InputError: not a rendered campaign, or its journal is damaged.
        ConflictError: ``backend`` reaches another cluster, or another hpcplan is at work on the campaign.
        SlurmUnreachableError: Slurm does not answer. Call again to go on.
        SlurmError: Slurm refuses.
    """
    directory = directory.resolve()
    current_manifest(directory, read_ledger(directory))  # a wrong directory is said before it is locked
    with campaign_lock(directory, wait_s=wait_s, sleep=sleep), JournalWriter(directory) as journal:
        ledger = fold(journal.entries, directory)
        manifest = current_manifest(directory, ledger)
        if ledger.campaign_id is None:
            return Cancelled((), ())
        info = backend.ping()
        check_same_cluster(ledger, backend, info)
        recover_lost(journal, manifest, backend, info, directory, settle_s=settle_s, resubmit_lost=True, sleep=sleep)
        return _cancel(journal, manifest, backend, directory)


def _cancel(journal: JournalWriter, manifest: Manifest, backend: Backend, directory: Path) -> Cancelled:
    ledger = fold(journal.entries, directory)
    ids = ledger.job_ids
    records = backend.jobs(ids, since=since([ledger.opened_at], backend.now())) if ids else []
    foreign, ended = _sorted_out(manifest, ledger, records, directory)
    alive = tuple(job_id for job_id in reversed(ids) if job_id not in foreign and job_id not in ended)
    journal.append("cancel", job_ids=list(alive))
    if alive:
        backend.cancel(alive)
    journal.append("cancelled", job_ids=list(alive))
    return Cancelled(job_ids=alive, ended=tuple(job_id for job_id in ids if job_id in ended))


def _sorted_out(
    manifest: Manifest, ledger: Ledger, records: list[JobRecord], directory: Path
) -> tuple[set[int], set[int]]:
    """Return the ids that Slurm has given to somebody else's job since, and those of our jobs that have ended."""
    by_id = by_submitted_id(records)
    foreign: set[int] = set()
    ended: set[int] = set()
    for job in manifest.jobs:
        known = ledger.job(job.key)
        if known.job_id is None:
            continue
        record = whole(by_id.get(known.job_id, ()))
        if record is None:
            if known.ended is not None:
                ended.add(known.job_id)
        elif not is_ours(record, Wanted(job, known, directory, ledger.cluster)):
            foreign.add(known.job_id)
        elif record.state.final:
            ended.add(known.job_id)
    return foreign, ended
