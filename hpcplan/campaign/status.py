"""How a campaign stands: what its journal says, what Slurm says now, and nothing that neither says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from hpcplan.campaign.evidence import Known, known_of
from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest, work_dir
from hpcplan.campaign.ledger import JobLedger, Ledger, fold, read_ledger
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.match import Wanted, since
from hpcplan.campaign.own_word import OwnWords
from hpcplan.campaign.parts import Component, by_submitted_id, components_of, tasks_of, whole
from hpcplan.campaign.progress import Progress, read_progress
from hpcplan.campaign.submit import check_same_cluster
from hpcplan.errors import HpcplanError, SlurmUnreachableError
from hpcplan.garbage import without_collection
from hpcplan.render.manifest import Manifest, ManifestJob
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord, JobState

__all__ = [
    "LOST",
    "NOT_SUBMITTED",
    "CampaignState",
    "CampaignStatus",
    "JobStatus",
    "assess",
    "status",
]

NOT_SUBMITTED: Final = "NOT_SUBMITTED"
LOST: Final = "LOST"
_TRAIN: Final = "train"
_NO_ACCOUNTING: Final = "accounting does not answer; jobs that ended a while ago are unknown until it does"


class CampaignState(StrEnum):
    """How a campaign as a whole stands."""

    RENDERED = "rendered"
    SUBMITTING = "submitting"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARTLY_UNKNOWN = "partly unknown"
    UNKNOWN = "unknown"

    @property
    def moving(self) -> bool:
        """Whether it may change without anybody doing anything."""
        return self in {CampaignState.SUBMITTING, CampaignState.WAITING, CampaignState.RUNNING}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job. ``state`` is Slurm's word, ``NOT_SUBMITTED``, ``UNKNOWN`` where Slurm does not know the job, or ``LOST``
    where it has begun, can only be over by now, and nobody knows how it ended.

    ``known_from`` says whose word the state is: ``slurm``, the ``job``'s own where Slurm has forgotten it, or its time
    ``limit``; ``None`` where nobody knows. ``over_by`` is by when an unknown job that has begun can only be over. Times
    are unix seconds by the cluster's clock; ``reason`` is in plain words, ``reason_code`` in Slurm's. ``tasks`` counts
    an array's tasks by state, ``components`` are a heterogeneous job's, whose nodes are counted together.
    """

    key: str
    stage: str
    segment: int
    job_id: int | None
    state: str
    reason: str | None = None
    reason_code: str | None = None
    submit_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    elapsed_s: int | None = None
    expected_s: float | None = None
    time_limit_s: int | None = None
    nodes: int | None = None
    node_list: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    script: str = ""
    attempt: int = 1
    tasks: dict[str, int] | None = None
    components: tuple[Component, ...] | None = None
    known_from: str | None = None
    over_by: int | None = None


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """A campaign at one moment; ``now`` is the cluster's clock, ``None`` where nobody was asked.

    ``due`` are the keys of the jobs that are still to be submitted.
    """

    campaign: str
    state: CampaignState
    jobs: tuple[JobStatus, ...]
    progress: Progress
    directory: str
    campaign_id: str | None
    backend: str | None
    cluster: str | None
    now: int | None
    notes: tuple[str, ...] = ()
    generation: int = 1
    due: tuple[str, ...] = ()

    @property
    def moving(self) -> bool:
        """Whether it may change without anybody doing anything: also where a job that Slurm forgot may still run."""
        return self.state.moving or any(job.over_by is not None for job in self.jobs)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "state": self.state.value}


@without_collection()
def status(directory: Path, backend: Backend | None) -> CampaignStatus:
    """Return how the campaign stands. Slurm is asked once for all jobs; final states that are new go into the journal.

    ``backend`` may be ``None`` for a campaign that was never submitted.

    Raises:
        InputError: not a rendered campaign, or its journal is damaged.
        ConflictError: ``backend`` reaches another cluster.
        SlurmUnreachableError: Slurm does not answer, and the journal does not know the end of every job.
    """
    directory = directory.resolve()
    ledger = read_ledger(directory)
    manifest = current_manifest(directory, ledger)
    progress = read_progress(manifest, directory, ledger)
    if backend is None or not ledger.job_ids:
        return assess(manifest, ledger, None, progress, directory)
    try:
        now = backend.now()
        records = backend.jobs(ledger.job_ids, since=since([ledger.opened_at], now))
    except SlurmUnreachableError as error:
        result = assess(manifest, ledger, None, progress, directory)
        if any(job.known_from is None for job in result.jobs):
            raise
        return replace(result, notes=(*result.notes, f"Slurm does not answer; from the journal ({error.message})"))
    facts = _facts(manifest, ledger, records, directory, now)
    result = _assessed(manifest, ledger, facts, progress, directory, now)
    if any(job.state == JobState.UNKNOWN.value and job.job_id is not None for job in result.jobs):
        info = backend.ping()
        check_same_cluster(ledger, backend, info)
        if not info.accounting:
            result = replace(result, notes=(*result.notes, _NO_ACCOUNTING))
    _remember_ends(ledger, facts, directory)
    return result


class _Fact(NamedTuple):
    """A job, what is known of it, and Slurm's records of its id."""

    job: ManifestJob
    known: Known
    found: Sequence[JobRecord]


def _facts(
    manifest: Manifest, ledger: Ledger, records: Sequence[JobRecord] | None, directory: Path, now: int | None
) -> list[_Fact]:
    by_id, where = by_submitted_id(records or ()), Path(work_dir(directory, ledger))
    words = OwnWords(directory, ledger.cluster)
    facts = []
    for job in manifest.jobs:
        asked_for = ledger.job(job.key)
        found = by_id.get(asked_for.job_id, ()) if asked_for.job_id is not None else ()
        wanted = Wanted(job, asked_for, where, ledger.cluster)
        known = known_of(wanted, whole(found), words, asked=records is not None, now=now)
        facts.append(_Fact(job, known, found))
    return facts


def assess(
    manifest: Manifest,
    ledger: Ledger,
    records: Sequence[JobRecord] | None,
    progress: Progress,
    directory: Path,
    *,
    now: int | None = None,
) -> CampaignStatus:
    """Return the status that follows from these facts. ``records`` is Slurm's answer, ``None`` if it was not asked."""
    return _assessed(manifest, ledger, _facts(manifest, ledger, records, directory, now), progress, directory, now)


def _assessed(
    manifest: Manifest, ledger: Ledger, facts: Sequence[_Fact], progress: Progress, directory: Path, now: int | None
) -> CampaignStatus:
    jobs = [_job_status(fact, ledger.job(fact.job.key), now) for fact in facts]
    due = _due(manifest, ledger, jobs)
    state = _campaign_state(manifest, ledger, jobs, progress, due)
    return CampaignStatus(
        campaign=manifest.campaign,
        state=state,
        jobs=tuple(jobs),
        progress=progress,
        directory=str(directory),
        campaign_id=ledger.campaign_id,
        backend=ledger.backend,
        cluster=ledger.cluster,
        now=now,
        notes=tuple(_notes(state, ledger, jobs, progress, due)),
        generation=ledger.generation,
        due=due,
    )


def _due(manifest: Manifest, ledger: Ledger, jobs: Sequence[JobStatus]) -> tuple[str, ...]:
    """Return the keys of the jobs that are still to be submitted; not those that need a success which did not come."""
    states = {job.key: job.state for job in jobs}
    barred: set[str] = set()
    due = []
    for job in manifest.jobs:
        if ledger.job(job.key).job_id is not None:
            continue
        if any(key in barred or _ended_badly(states[key]) for key in job.after_ok):
            barred.add(job.key)
        elif not ledger.cancelled:
            due.append(job.key)
    return tuple(due)


def _ended_badly(state: str) -> bool:
    found = JobState.parse(state)
    return state == LOST or (found.final and found is not JobState.COMPLETED)


def _job_status(fact: _Fact, asked_for: JobLedger, now: int | None) -> JobStatus:
    job, known, record = fact.job, fact.known, fact.known.record
    fixed: dict[str, Any] = {
        "key": job.key, "stage": job.stage, "segment": job.segment, "job_id": asked_for.job_id,
        "expected_s": job.expected_s, "script": job.script, "attempt": asked_for.attempt,
        "tasks": tasks_of(fact.found), "components": components_of(fact.found), "over_by": known.over_by,
    }  # fmt: skip
    if record is not None:
        return JobStatus(
            **fixed,
            state=LOST if known.lost else record.state.value,
            reason=known.reason(),
            reason_code=record.reason,
            submit_time=record.submit_time,
            start_time=record.start_time,
            end_time=record.end_time if record.state.final else None,
            elapsed_s=None if known.lost else record.elapsed_s(now),
            time_limit_s=record.time_limit_s or job.time_limit_s,
            nodes=record.nodes or job.nodes,
            node_list=record.node_list,
            exit_code=record.exit_code,
            signal=record.signal,
            restarts=record.restarts,
            known_from=known.by,
        )
    fixed |= {"time_limit_s": job.time_limit_s, "nodes": job.nodes, "start_time": known.began}
    if asked_for.unresolved:
        words = "asked for, but the answer was lost; hpcplan submit looks for it and goes on"
        return JobStatus(**fixed, state=JobState.UNKNOWN.value, reason=words)
    if asked_for.job_id is None:
        return JobStatus(**fixed, state=NOT_SUBMITTED)
    return JobStatus(**fixed, state=JobState.UNKNOWN.value, reason=known.reason())


def _campaign_state(
    manifest: Manifest, ledger: Ledger, jobs: Sequence[JobStatus], progress: Progress, due: Sequence[str]
) -> CampaignState:
    states = [JobState.parse(job.state) for job in jobs]
    submitted = [job for job in jobs if job.job_id is not None]
    if any(state.active for state in states):
        return CampaignState.RUNNING
    if not submitted and not any(ledger.job(job.key).unresolved for job in jobs):
        if ledger.cancelled:
            return CampaignState.CANCELLED
        return CampaignState.RENDERED if ledger.campaign_id is None else CampaignState.SUBMITTING
    if due:
        return CampaignState.SUBMITTING
    if any(state.waiting for state in states):
        return CampaignState.WAITING
    return _ended(manifest, ledger, jobs, states, progress)


def _ended(
    manifest: Manifest, ledger: Ledger, jobs: Sequence[JobStatus], states: Sequence[JobState], progress: Progress
) -> CampaignState:
    """Judge a campaign none of whose jobs runs or waits. The last job ends well only when training is done."""
    unknown = [job.state == JobState.UNKNOWN.value for job in jobs]
    if _is_done(manifest, jobs, progress):
        return CampaignState.DONE
    if ledger.cancelled or states[-1] is JobState.CANCELLED:
        return CampaignState.CANCELLED
    if all(unknown):
        return CampaignState.UNKNOWN
    if any(unknown):
        return CampaignState.PARTLY_UNKNOWN
    return CampaignState.FAILED


def _is_done(manifest: Manifest, jobs: Sequence[JobStatus], progress: Progress) -> bool:
    """Whether training is done, which the end of its chain or its marker says, and every other stage has succeeded.

    Of a stage those jobs count that no other job of it comes after: the last of a chain, each one of jobs side by side.
    """
    stage = {job.key: job.stage for job in manifest.jobs}
    followed = {key for job in manifest.jobs for key in (*job.after, *job.after_ok) if stage.get(key) == job.stage}
    done = dict.fromkeys(stage.values(), True)
    for job in jobs:
        done[job.stage] &= job.key in followed or job.state == JobState.COMPLETED.value
    return all(well or (name == _TRAIN and progress.done is not None) for name, well in done.items())


def _notes(
    state: CampaignState, ledger: Ledger, jobs: Iterable[JobStatus], progress: Progress, due: Sequence[str]
) -> Iterable[str]:
    if ledger.stopped is not None:
        yield f"hpcplan no longer goes on with it by itself: {ledger.stopped}"
    if ledger.generation > 1:
        yield f"this is its plan number {ledger.generation}, in {ledger.folder}"
    if progress.failed is not None:
        yield f"the chain was stopped by {progress.failed}"
    if due and state is not CampaignState.RENDERED:
        yield "not all jobs are submitted; run hpcplan submit again to go on (hpcplan track does by itself)"
    if any(job.reason_code == "DependencyNeverSatisfied" for job in jobs):
        yield "a job waits for what can no longer happen; cancel the campaign and submit it anew"


def _remember_ends(ledger: Ledger, facts: Iterable[_Fact], directory: Path) -> None:
    """Write ends that are new into the journal, since Slurm forgets; where that fails, nothing is lost now."""
    ended = [fact for fact in facts if _is_new_end(fact.known, ledger.job(fact.job.key))]
    if not ended:
        return
    try:
        with campaign_lock(directory, wait_s=0.0), JournalWriter(directory) as journal:
            current = fold(journal.entries, directory)
            for fact in ended:
                key, known = fact.job.key, fact.known
                if current.job(key).job_id == ledger.job(key).job_id:  # or somebody went on with it meanwhile
                    assert known.record is not None
                    by = {} if known.by == "slurm" else {"by": known.by}
                    slurm = {} if known.slurm is None else {"slurm": known.slurm.value}
                    journal.append("ended", job=key, record=known.record.as_dict(), **by, **slurm)
    except HpcplanError:
        return  # a reader without the right to write, or another hpcplan at work: the next status tries again


def _is_new_end(known: Known, before: JobLedger) -> bool:
    record = known.record
    if record is None or not (record.state.final or known.lost):
        return False
    told = None if before.ended is None else (before.ended_by, before.ended.state, before.ended.end_time)
    return told != (known.by, record.state, record.end_time)
