"""Which of Slurm's jobs is ours. A job id alone does not say: Slurm reuses ids, and answers get lost.

A job is known by the token in its comment. Where comments are not to be had (slurmdbd keeps them only with
``AccountingStoreFlags=job_comment``), its name, its directory and the time of its submission have to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.campaign.ledger import JobLedger
from hpcplan.render.manifest import ManifestJob
from hpcplan.slurm.records import JobRecord

__all__ = ["CLOCK_SLACK_S", "Wanted", "find_lost", "has_token", "is_ours", "since"]

CLOCK_SLACK_S: Final = 120  # how far the clocks of a login node and the controller may be apart


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job of the campaign, as the manifest and the journal describe it."""

    job: ManifestJob
    ledger: JobLedger
    directory: Path
    cluster: str | None = None


def has_token(record: JobRecord, token: str | None) -> bool:
    """Return whether a job's comment holds this token, and not that of another attempt or segment."""
    if token is None or not record.comment:
        return False
    found = record.comment.find(token)
    while found >= 0:
        following = record.comment[found + len(token) : found + len(token) + 1]
        if not following or following not in "0123456789pr":  # …:train:1 is neither …:train:10 nor …:train:1r2
            return True
        found = record.comment.find(token, found + 1)
    return False


def since(times: Iterable[int | None], now: int) -> int:
    """Return from when on to ask for jobs: before the earliest of these times, also after a clock was set back."""
    return min([*(time for time in times if time is not None), now]) - CLOCK_SLACK_S


def is_ours(record: JobRecord, wanted: Wanted) -> bool:
    """Return whether the job that Slurm knows by our id is still ours, not a later one with the same id.

    A requeued job has a new submit time but keeps comment and name.
    """
    if None not in (record.cluster, wanted.cluster) and record.cluster != wanted.cluster:
        return False
    if record.comment and "hpcplan:" in record.comment:
        return has_token(record, wanted.ledger.token)
    if record.name and record.name != wanted.job.job_name:
        return False
    asked_at = wanted.ledger.asked_at
    return record.submit_time is None or asked_at is None or record.submit_time >= asked_at - CLOCK_SLACK_S


def find_lost(records: Iterable[JobRecord], wanted: Wanted) -> list[JobRecord]:
    """Return the jobs that can only be the one whose answer was lost, the first submitted first; mostly one or none.
    The tasks of an array and the components of a heterogeneous job are records of their own.
    """
    records = list(records)
    found: Sequence[JobRecord] = [record for record in records if has_token(record, wanted.ledger.token)]
    if not found:
        found = [record for record in records if _looks_like(record, wanted)]
    return sorted(found, key=lambda record: record.submitted_id)


def _looks_like(record: JobRecord, wanted: Wanted) -> bool:
    asked_at = wanted.ledger.asked_at
    return (
        not record.comment
        and record.name == wanted.job.job_name
        and record.work_dir == str(wanted.directory)
        and asked_at is not None
        and record.submit_time is not None
        and record.submit_time >= asked_at - CLOCK_SLACK_S
    )
