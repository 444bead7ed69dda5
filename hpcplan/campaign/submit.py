"""Submitting a campaign: every job exactly once, whatever dies in between.

Before a job is asked for, the journal says so, with a token that travels in the job's comment; after, the journal says
which id it got. Where the second line is missing, the token is looked for before the job is asked for again.
"""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcplan import __version__
from hpcplan.campaign import registry
from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.layout import current_manifest, work_dir
from hpcplan.campaign.ledger import JobLedger, Ledger, fold, job_token, read_ledger
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.policy import Throttle, nodes_to_exclude, read_policy
from hpcplan.campaign.recover import recover_lost
from hpcplan.documents import read_text
from hpcplan.errors import ConflictError, SlurmError, SlurmUnreachableError
from hpcplan.render.manifest import Manifest, ManifestJob, file_digest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import ClusterInfo, JobState, Submission

__all__ = ["Action", "JobStep", "check_same_cluster", "is_full", "preview", "sbatch_line", "sbatch_words", "submit"]

Action = Literal["submit", "submitted", "found", "look-up", "already", "later"]
_PREVIEW_ID: Final = "NEW"
# What sbatch says when a limit on queued jobs is reached: MaxSubmitJobs, GrpSubmitJobs, MaxJobCount (slurm_errno.c).
_FULL: Final = (
    "MaxSubmitJob", "GrpSubmitJob", "job submit limit", "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable", "Reached maximum number of jobs",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobStep:
    """One job, and what was or would be done with it.

    ``submitted`` now, ``already`` before, ``found`` after its answer was lost, or ``later`` because the queue has no
    room for it now; in a preview ``submit``, ``already``
    or ``look-up`` (it would be looked for, and submitted if it is not there).
    """

    job: ManifestJob
    action: Action
    job_id: int | None
    submission: Submission


def sbatch_words(submission: Submission) -> list[str]:
    """Return the sbatch command that a submission amounts to; the command backend runs exactly this."""
    words = ["sbatch", "--parsable", f"--chdir={submission.work_dir}"]
    if submission.dependency is not None:
        words.append(f"--dependency={submission.dependency}")
    if submission.comment is not None:
        words.append(f"--comment={submission.comment}")
    if submission.exclude is not None:
        words.append(f"--exclude={submission.exclude}")
    return [
        *words,
        *(["--hold"] if submission.hold else []),
        submission.script,
        *([submission.token] if submission.token else []),
    ]


def sbatch_line(submission: Submission) -> str:
    """Return :func:`sbatch_words` as a shell would take it."""
    return shlex.join(sbatch_words(submission))


def preview(directory: Path) -> list[JobStep]:
    """Return what :func:`submit` would do, from the files alone; nothing is touched and nobody is asked.

    Ids that are not known yet stand as ``<train-01>``, and the campaign's as ``NEW``.
    """
    directory = directory.resolve()
    ledger = read_ledger(directory)
    manifest = current_manifest(directory, ledger)
    _check_unchanged(manifest, ledger, directory)
    exclude = nodes_to_exclude(ledger, read_policy(directory))
    steps = []
    for job in manifest.jobs:
        known = ledger.job(job.key)
        action: Action = "already" if known.job_id else "look-up" if known.unresolved else "submit"
        waits = {
            kind: [str(ledger.job(key).job_id or f"<{key}>") for key in keys]
            for kind, keys in _dependencies(job).items()
        }
        steps.append(JobStep(job, action, known.job_id, _submission(directory, job, waits, ledger, exclude)))
    return steps


def _dependencies(job: ManifestJob) -> dict[str, tuple[str, ...]]:
    return {"afterany": job.after, "afterok": job.after_ok}


def _submission(
    directory: Path, job: ManifestJob, waits: Mapping[str, list[str]], ledger: Ledger, exclude: str | None
) -> Submission:
    known = ledger.job(job.key)
    token = job_token(
        ledger.campaign_id or _PREVIEW_ID, job.stage, job.segment, generation=ledger.generation, attempt=known.attempt
    )
    return Submission(
        script=str(directory / job.script),
        work_dir=work_dir(directory, ledger),
        dependency=",".join(f"{kind}:{':'.join(ids)}" for kind, ids in waits.items() if ids) or None,
        comment=token,
        exclude=exclude,
        token=token,  # the script signs with it what it leaves of its begin and end
    )


def submit(
    directory: Path,
    backend: Backend,
    *,
    settle_s: float = 5.0,
    resubmit_lost: bool = False,
    run_in: str | None = None,
    wait_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
    on_step: Callable[[JobStep], None] = lambda step: None,
) -> list[JobStep]:
    """Submit the jobs of a rendered campaign that are not submitted yet, and return what was done for each.

    Safe to call again at any time, and from two places at once: one waits up to ``wait_s`` for the other. Where the
    policy (or Slurm's MaxSubmit and its like) has no room for more, the rest comes back as ``later``: call again.

    Args:
        directory: the campaign's directory.
        backend: where to submit; recorded, and the same cluster must be used from then on.
        settle_s: how old an unanswered request must be before it is looked for, since the controller may still be
            working on it.
        resubmit_lost: submit again where it cannot be told whether the first request arrived.
        run_in: where jobs run, as the cluster sees it, if that is not the campaign's directory; the first time only.
        wait_s: how long to wait for another hpcplan at work on this campaign.
        sleep: how to wait.
        on_step: called for each job as it is done.

    Raises:
        InputError: not a rendered campaign, or its journal is damaged.
        ConflictError: the campaign was cancelled, belongs to another cluster, its plan changed since it was first
            submitted, another hpcplan is at work on it, or a lost job can be neither found nor ruled out.
        SlurmUnreachableError: Slurm does not answer. Call again to go on.
        SlurmError: Slurm refuses a job, in its own words.
        HpcplanError: the directory cannot be written.
    """
    directory = directory.resolve()
    current_manifest(directory, read_ledger(directory))  # a wrong directory is said before it is locked
    with campaign_lock(directory, wait_s=wait_s, sleep=sleep), JournalWriter(directory) as journal:
        ledger = fold(journal.entries, directory)
        manifest = current_manifest(directory, ledger)
        scripts = _check_scripts(manifest, directory)
        _check_unchanged(manifest, ledger, directory)
        throttle = Throttle(read_policy(directory).submit, sleep)
        info = backend.ping()
        check_same_cluster(ledger, backend, info)
        _open(journal, manifest, backend, info, directory, run_in)
        recovered = recover_lost(
            journal, manifest, backend, info, directory, settle_s=settle_s, resubmit_lost=resubmit_lost, sleep=sleep
        )
        return _Submitter(journal, manifest, backend, directory, scripts, throttle, on_step).run(recovered)


def _check_scripts(manifest: Manifest, directory: Path) -> dict[str, str]:
    """Return the digest of each job's script as it is now: an edited script is submitted as it stands."""
    return {job.key: file_digest(read_text(directory / job.script)) for job in manifest.jobs}


def _check_unchanged(manifest: Manifest, ledger: Ledger, directory: Path) -> None:
    if ledger.cancelled:
        message = f"{directory}: this campaign was cancelled"
        raise ConflictError(message, hint="hpcplan retry goes on with it; a new directory starts anew")
    if ledger.plan_sha256 not in (None, manifest.plan_sha256):
        message = f"{directory}: another plan was rendered here after the campaign was submitted"
        raise ConflictError(message, hint="render the new plan into a directory of its own")


def check_same_cluster(ledger: Ledger, backend: Backend, info: ClusterInfo) -> None:
    """Check that ``backend`` reaches the cluster that the campaign was submitted to.

    Raises:
        ConflictError: it is another one, whose job ids mean other jobs.
    """
    if ledger.backend is not None and (ledger.backend == "mock") != (backend.name == "mock"):
        message = f"this campaign was submitted with the {ledger.backend} backend, not with {backend.name}"
        raise ConflictError(message, hint="a mock cluster and the real one share no jobs")
    if ledger.cluster is None or info.cluster is None or ledger.cluster == info.cluster:
        return
    message = (
        f"this campaign belongs to cluster {ledger.cluster!r}, but the {backend.name} backend reaches {info.cluster!r}"
    )
    raise ConflictError(message, hint="go to where that cluster answers, or render into a new directory for this one")


def _open(
    journal: JournalWriter, manifest: Manifest, backend: Backend, info: ClusterInfo, directory: Path, run_in: str | None
) -> None:
    """Give the campaign its id, the first time; and see that the list of campaigns has it, every time."""
    ledger = fold(journal.entries, directory)
    if ledger.campaign_id is None:
        journal.append(
            "opened",
            campaign=uuid.uuid4().hex,
            name=manifest.campaign,
            backend=backend.name,
            cluster=info.cluster,
            plan_sha256=manifest.plan_sha256,
            hpcplan=__version__,
            at=backend.now(),
            **({"work_dir": run_in} if run_in is not None else {}),
        )
    registry.register(fold(journal.entries, directory), directory)


def is_full(error: SlurmError) -> bool:
    """Whether Slurm refuses a job only because too many are queued already (its limits on submitted jobs)."""
    return not isinstance(error, SlurmUnreachableError) and any(words in error.message for words in _FULL)


class _Submitter:
    """One walk through the manifest, with the lock held."""

    def __init__(
        self,
        journal: JournalWriter,
        manifest: Manifest,
        backend: Backend,
        directory: Path,
        scripts: dict[str, str],
        throttle: Throttle,
        on_step: Callable[[JobStep], None],
    ) -> None:
        self.journal = journal
        self.manifest = manifest
        self.backend = backend
        self.directory = directory
        self.scripts = scripts
        self.on_step = on_step
        self.throttle = throttle
        self.ledger = fold(journal.entries, directory)
        self.exclude = nodes_to_exclude(self.ledger, read_policy(directory))
        self.alive: set[int] | None = None if self.ledger.job_ids else set()
        self.full = False
        self.succeeded: set[int] = set()

    def run(self, recovered: set[str]) -> list[JobStep]:
        steps = []
        for job in self.manifest.jobs:
            known = self.ledger.job(job.key)
            waits = {kind: self._waits_for(keys) for kind, keys in _dependencies(job).items()}
            submission = _submission(self.directory, job, waits, self.ledger, self.exclude)
            if known.job_id is None:
                job_id = None if self._has_no_room() or self._is_barred(job) else self._ask(job, submission)
                step = JobStep(job, "later" if job_id is None else "submitted", job_id, submission)
            else:
                step = JobStep(job, "found" if job.key in recovered else "already", known.job_id, submission)
            self.on_step(step)
            steps.append(step)
        return steps

    def _has_no_room(self) -> bool:
        """Whether the rest has to wait, since the policy's or Slurm's limit on queued jobs is reached."""
        if not self.full and self.throttle.max_queued is not None:
            self.full = len(self._alive()) >= self.throttle.max_queued
        return self.full

    def _waits_for(self, keys: tuple[str, ...]) -> list[str]:
        """Return the ids of these jobs that Slurm still has; on an id that it has purged, sbatch may fail."""
        ids = [self.ledger.job(key).job_id for key in keys]
        return [str(job_id) for job_id in ids if job_id is not None and job_id in self._alive()]

    def _is_barred(self, job: ManifestJob) -> bool:
        """Whether a job whose success it needs has ended without, or is not submitted itself."""
        return any(not self._may_succeed(self.ledger.job(key)) for key in job.after_ok)

    def _may_succeed(self, known: JobLedger) -> bool:
        if known.job_id is None:
            return False
        return known.job_id in self._alive() or known.job_id in self.succeeded

    def _alive(self) -> set[int]:
        """Return the ids of the campaign's jobs that have not ended; asked once, and kept up from then on."""
        if self.alive is None:
            ledger = self.ledger
            ended = {job.job_id: job.ended for job in ledger.jobs.values() if job.ended is not None}
            asked = [job_id for job_id in ledger.job_ids if job_id not in ended]
            found = self.backend.jobs(asked, since=ledger.opened_at) if asked else []
            self.alive = {record.submitted_id for record in found if not record.state.final}
            done = {record.submitted_id for record in found if record.state is JobState.COMPLETED}
            done |= {job_id for job_id, end in ended.items() if job_id and end.state is JobState.COMPLETED}
            self.succeeded = done - self.alive
        return self.alive

    def _ask(self, job: ManifestJob, submission: Submission) -> int | None:
        """Submit one job and return its id, ``None`` where Slurm has no room for another job of this user now."""
        self.throttle.wait()
        self.journal.append(
            "submit",
            job=job.key,
            token=submission.comment,
            at=self.backend.now(),
            dependency=submission.dependency,
            script_sha256=self.scripts[job.key],
        )
        try:
            job_id = self.backend.submit(submission)
        except SlurmError as error:
            full = is_full(error)
            self.journal.append("submit-failed", job=job.key, message=error.message, refused=full)
            if full and self._alive():
                self.full = True
                return None
            raise self._explained(error, job) from None
        self.journal.append("submitted", job=job.key, job_id=job_id, at=self.backend.now())
        self.ledger.job(job.key).job_id = job_id
        self._alive().add(job_id)
        return job_id

    def _explained(self, error: SlurmError, job: ManifestJob) -> SlurmError:
        done = len(self.ledger.job_ids)
        count = f"{done} of {len(self.manifest.jobs)} jobs are submitted"
        hint = f"{error.hint + '; ' if error.hint else ''}{count}; run hpcplan submit again to go on"
        kind = SlurmUnreachableError if isinstance(error, SlurmUnreachableError) else SlurmError
        return kind(f"{job.script}: {error.message}", hint=hint)
