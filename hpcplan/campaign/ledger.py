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
``ended``          a job was seen in a final state: ``job, record``; with ``by``: ``job`` where its own word is all that
                   is known, or contradicts what Slurm says (``slurm``), ``limit`` where it can only be over by now
``retry``          jobs that ended badly are about to be submitted once more: ``jobs, cause, why, at, step``
``lost``           Slurm took these jobs and no longer knows of them; they will be submitted anew: ``jobs, at``
``release``        jobs that Slurm holds since it could not launch them are about to be released: ``jobs, at``
``withdraw``       jobs of a plan that is given up are about to be cancelled: ``job_ids``; then ``withdrawn``
``replanned``      another plan takes over: ``generation, folder, plan_sha256, why, at, carried``
``node-failed``    these nodes failed under a job (none may be known): ``nodes, job, job_id, at``
``stopped``        the campaign's policy gives up: ``cause, why, at``
``notify``         somebody is about to be told: ``about, text``
``notify-failed``  telling them failed: ``about, message``
=================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from hpcplan.campaign.journal import JOURNAL_NAME, Entry, read_journal
from hpcplan.errors import InputError, Problem
from hpcplan.slurm.records import JobRecord

__all__ = ["JobLedger", "Ledger", "base_key", "fold", "job_token", "read_ledger"]


def job_token(campaign_id: str, stage: str, segment: int, *, generation: int = 1, attempt: int = 1) -> str:
    """Return what travels in the job's comment, by which a submission whose answer was lost is found again.

    A later plan's jobs end in ``p2``, a second attempt in ``r2``; the first of each say nothing.
    """
    of_plan = f"p{generation}" if generation > 1 else ""
    return f"hpcplan:{campaign_id}:{stage}:{segment}{of_plan}{f'r{attempt}' if attempt > 1 else ''}"


def base_key(key: str) -> str:
    """Return a job's key without the number of its plan: ``train-01`` for ``train-01@2``."""
    return key.partition("@")[0]


@dataclass(slots=True)
class JobLedger:
    """One job as the journal knows it; times are unix seconds by the cluster's clock.

    ``ended_by`` is who told how it ended, and ``slurm_said`` what Slurm said where that was not Slurm. ``attempt``
    counts from 1; ``past`` has how the attempts before it ended.
    """

    key: str
    token: str | None = None
    asked_at: int | None = None
    job_id: int | None = None
    answered_at: int | None = None
    ended: JobRecord | None = None
    ended_by: Literal["slurm", "job", "limit"] = "slurm"
    slurm_said: str | None = None
    attempt: int = 1
    past: list[JobRecord] = field(default_factory=list)

    @property
    def unresolved(self) -> bool:
        """Whether it was asked for and the answer is not known."""
        return self.asked_at is not None and self.job_id is None


@dataclass(slots=True)
class Ledger:
    """A campaign as its journal knows it; ``campaign_id`` is ``None`` until it is first submitted.

    ``generation`` counts its plans; of the later ones ``folder`` has the files. ``retries`` counts by cause,
    ``node_failures`` by node, ``releases`` by job. ``earlier`` has how the jobs of earlier plans ended; ``work_dir`` is
    where jobs run, if that is not the campaign's directory.
    """

    campaign_id: str | None = None
    name: str | None = None
    backend: str | None = None
    cluster: str | None = None
    plan_sha256: str | None = None
    opened_at: int | None = None
    cancelled: bool = False
    generation: int = 1
    folder: str | None = None
    work_dir: str | None = None
    last_retry_step: int | None = None
    blamed: set[int] = field(default_factory=set)
    stopped: str | None = None
    retries: dict[str, int] = field(default_factory=dict)
    node_failures: dict[str, int] = field(default_factory=dict)
    releases: dict[str, int] = field(default_factory=dict)
    notified: set[str] = field(default_factory=set)
    jobs: dict[str, JobLedger] = field(default_factory=dict)
    earlier: list[JobRecord] = field(default_factory=list)

    @property
    def job_ids(self) -> list[int]:
        """The ids that are known, in the order of submission."""
        return [job.job_id for job in self.jobs.values() if job.job_id is not None]

    @property
    def all_ended(self) -> list[JobRecord]:
        """How every job and attempt ended that is known to have."""
        now = [job.ended for job in self.jobs.values() if job.ended is not None]
        return [*self.earlier, *(record for job in self.jobs.values() for record in job.past), *now]

    def job(self, key: str) -> JobLedger:
        """Return the ledger of one job, empty if nothing happened to it yet."""
        known = self.jobs.get(key)
        if known is None:
            known = self.jobs[key] = JobLedger(key)
        return known


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
        ledger.work_dir = data.get("work_dir")
    elif event == "submit":
        job = ledger.job(data["job"])
        job.token, job.asked_at, job.job_id, job.ended = data["token"], data["at"], None, None
        ledger.stopped = None
    elif event == "submitted":
        job = ledger.job(data["job"])
        job.job_id, job.answered_at = data["job_id"], data["at"]
    elif event == "cancel":
        ledger.cancelled = True
    elif event == "ended":
        job = ledger.job(data["job"])
        job.ended, job.slurm_said = JobRecord.from_dict(data["record"]), data.get("slurm")
        job.ended_by = data.get("by", "slurm")
    elif event == "submit-failed" and data.get("refused"):
        ledger.job(data["job"]).asked_at = None  # Slurm said no: there is nothing to look for
    elif event in _LATER:
        _LATER[event](ledger, data)


def _once_more(ledger: Ledger, data: Any) -> None:
    for key in data["jobs"]:
        before = ledger.job(key)
        past = [*before.past, *([before.ended] if before.ended is not None else [])]
        ledger.jobs[key] = JobLedger(key, attempt=before.attempt + (before.job_id is not None), past=past)


def _retried(ledger: Ledger, data: Any) -> None:
    _once_more(ledger, data)
    ledger.cancelled, ledger.stopped, ledger.last_retry_step = False, None, data.get("step")
    ledger.retries[data["cause"]] = ledger.retries.get(data["cause"], 0) + 1


def _replanned(ledger: Ledger, data: Any) -> None:
    carried = set(data["carried"])
    suffix = f"@{data['generation']}"
    kept = {base_key(key) + suffix: job for key, job in ledger.jobs.items() if base_key(key) in carried}
    ledger.earlier = [record for record in ledger.all_ended if record not in [job.ended for job in kept.values()]]
    ledger.generation, ledger.folder, ledger.plan_sha256 = data["generation"], data["folder"], data["plan_sha256"]
    ledger.jobs = {key: replace(job, key=key, past=[]) for key, job in kept.items()}
    ledger.cancelled, ledger.stopped, ledger.last_retry_step = False, None, None


def _node_failed(ledger: Ledger, data: Any) -> None:
    ledger.blamed.add(data["job_id"])
    for node in data["nodes"]:
        ledger.node_failures[node] = ledger.node_failures.get(node, 0) + 1


def _released(ledger: Ledger, data: Any) -> None:
    for key in data["jobs"]:
        ledger.releases[key] = ledger.releases.get(key, 0) + 1


def _stopped(ledger: Ledger, data: Any) -> None:
    ledger.stopped = data["why"]


def _notified(ledger: Ledger, data: Any) -> None:
    ledger.notified.add(data["about"])


_LATER: Final = {
    "lost": _once_more, "retry": _retried, "replanned": _replanned, "node-failed": _node_failed, "stopped": _stopped,
    "release": _released, "notify": _notified,
}  # fmt: skip
