"""What the journal says happened: a fold over its entries, before Slurm is asked.

Events, each with its fields; ``at`` is the cluster's clock in unix seconds:

=================  ================================================================================================
``opened``         the campaign got its id, backend and cluster: ``campaign, name, backend, cluster, plan_sha256``
``submit``         a job is about to be submitted: ``job, token, at, dependency, script_sha256``
``submitted``      it has this id: ``job, job_id, at``; ``found`` where a lost answer was found by its token
``submit-failed``  Slurm refused or did not answer: ``job, message``
``cancel``         jobs are about to be cancelled: ``job_ids``
``cancelled``      Slurm took the request: ``job_ids``
``duplicate``      a second job with the same token was found and is about to be cancelled: ``job, job_id``
``ended``          a job was seen in a final state: ``job, record``
=================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcplan.campaign.journal import JOURNAL_NAME, Entry, read_journal
from hpcplan.errors import InputError, Problem
from hpcplan.slurm.records import JobRecord

__all__ = ["JobLedger", "Ledger", "fold", "job_token", "read_ledger"]


def job_token(campaign_id: str, stage: str, segment: int) -> str:
    """Return what travels in the job's comment, by which a submission whose answer was lost is found again."""
    return f"hpcplan:{campaign_id}:{stage}:{segment}"


@dataclass(slots=True)
class JobLedger:
    """One job as the journal knows it; times are unix seconds by the cluster's clock."""

    key: str
    token: str | None = None
    asked_at: int | None = None
    job_id: int | None = None
    answered_at: int | None = None
    ended: JobRecord | None = None

    @property
    def unresolved(self) -> bool:
        """Whether it was asked for and the answer is not known."""
        return self.asked_at is not None and self.job_id is None


@dataclass(slots=True)
class Ledger:
    """A campaign as its journal knows it; ``campaign_id`` is ``None`` until it is first submitted."""

    campaign_id: str | None = None
    name: str | None = None
    backend: str | None = None
    cluster: str | None = None
    plan_sha256: str | None = None
    opened_at: int | None = None
    cancelled: bool = False
    jobs: dict[str, JobLedger] = field(default_factory=dict)

    @property
    def job_ids(self) -> list[int]:
        """The ids that are known, in the order of submission."""
        return [job.job_id for job in self.jobs.values() if job.job_id is not None]

    def job(self, key: str) -> JobLedger:
        """Return the ledger of one job, empty if nothing happened to it yet."""
        return self.jobs.setdefault(key, JobLedger(key))


def read_ledger(directory: Path) -> Ledger:
    """Return what a campaign's journal adds up to; empty for one that was never submitted.

    Raises:
        InputError: the journal is damaged.
    """
    return fold(read_journal(directory), directory)


def fold(entries: Iterable[Entry], directory: Path) -> Ledger:
    """Return what the entries add up to. Events of a newer hpcplan that this one does not know are skipped.

    Raises:
        InputError: an entry lacks a field; the message names its line.
    """
    ledger = Ledger()
    for entry in entries:
        try:
            _apply(ledger, entry.event, entry.data)
        except (KeyError, TypeError, ValueError) as error:
            message = f"the entry {entry.event!r} lacks or spoils {error}"
            raise InputError(Problem(message, file=str(directory / JOURNAL_NAME), line=entry.seq)) from None
    return ledger


def _apply(ledger: Ledger, event: str, data: Any) -> None:
    if event == "opened":
        ledger.campaign_id, ledger.name = data["campaign"], data["name"]
        ledger.backend, ledger.cluster = data["backend"], data["cluster"]
        ledger.plan_sha256, ledger.opened_at = data["plan_sha256"], data["at"]
    elif event == "submit":
        job = ledger.job(data["job"])
        job.token, job.asked_at, job.job_id, job.ended = data["token"], data["at"], None, None
    elif event == "submitted":
        job = ledger.job(data["job"])
        job.job_id, job.answered_at = data["job_id"], data["at"]
    elif event == "cancel":
        ledger.cancelled = True
    elif event == "ended":
        ledger.job(data["job"]).ended = JobRecord.from_dict(data["record"])
