"""Submitting a campaign: every job exactly once, whatever dies in between.

Before a job is asked for, the journal says so, with a token that travels in the job's comment; after, the journal says
which id it got. Where the second line is missing, the token is looked for before the job is asked for again.
"""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcplan import __version__
from hpcplan.campaign import registry
from hpcplan.campaign.journal import JournalWriter
from hpcplan.campaign.ledger import Ledger, fold, job_token, read_ledger
from hpcplan.campaign.lock import campaign_lock
from hpcplan.campaign.recover import recover_lost
from hpcplan.documents import read_text
from hpcplan.errors import ConflictError, SlurmError, SlurmUnreachableError
from hpcplan.render.manifest import Manifest, ManifestJob, file_digest, read_manifest
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import ClusterInfo, JobRecord, Submission

__all__ = ["Action", "JobStep", "check_same_cluster", "preview", "sbatch_line", "sbatch_words", "submit"]

Action = Literal["submit", "submitted", "found", "look-up", "already"]
_PREVIEW_ID: Final = "NEW"


@dataclass(frozen=True, slots=True)
class JobStep:
    """One job, and what was or would be done with it.

    ``submitted`` now, ``already`` before, or ``found`` after its answer was lost; in a preview ``submit``, ``already``
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
    return [*words, *(["--hold"] if submission.hold else []), submission.script]


def sbatch_line(submission: Submission) -> str:
    """Return :func:`sbatch_words` as a shell would take it."""
    return shlex.join(sbatch_words(submission))


def preview(directory: Path) -> list[JobStep]:
    """Return what :func:`submit` would do, from the files alone; nothing is touched and nobody is asked.

    Ids that are not known yet stand as ``<train-01>``, and the campaign's as ``NEW``.
    """
    directory = directory.resolve()
    manifest = read_manifest(directory)
    ledger = read_ledger(directory)
    _check_unchanged(manifest, ledger, directory)
    steps = []
    for job in manifest.jobs:
        known = ledger.job(job.key)
        action: Action = "already" if known.job_id else "look-up" if known.unresolved else "submit"
        ids = [str(ledger.job(key).job_id or f"<{key}>") for key in job.after]
        steps.append(JobStep(job, action, known.job_id, _submission(directory, job, ids, ledger.campaign_id)))
    return steps


def _submission(directory: Path, job: ManifestJob, ids: list[str], campaign_id: str | None) -> Submission:
    return Submission(
        script=str(directory / job.script),
        work_dir=str(directory),
        dependency=f"afterany:{':'.join(ids)}" if ids else None,
        comment=job_token(campaign_id or _PREVIEW_ID, job.stage, job.segment),
    )


def submit(
    directory: Path,
    backend: Backend,
    *,
    settle_s: float = 5.0,
    resubmit_lost: bool = False,
    wait_s: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
    on_step: Callable[[JobStep], None] = lambda step: None,
) -> list[JobStep]:
    """Submit the jobs of a rendered campaign that are not submitted yet, and return what was done for each.

    Safe to call again at any time, and from two places at once: one waits up to ``wait_s`` for the other.

    Args:
        directory: the campaign's directory.
        backend: where to submit; recorded, and the same cluster must be used from then on.
        settle_s: how old an unanswered request must be before it is looked for, since the controller may still be
            working on it.
        resubmit_lost: submit again where it cannot be told whether the first request arrived.
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
    manifest = read_manifest(directory)
    scripts = _check_scripts(manifest, directory)
    with campaign_lock(directory, wait_s=wait_s, sleep=sleep), JournalWriter(directory) as journal:
        ledger = fold(journal.entries, directory)
        _check_unchanged(manifest, ledger, directory)
        info = backend.ping()
        check_same_cluster(ledger, backend, info)
        _open(journal, manifest, backend, info, directory)
        recovered = recover_lost(
            journal, manifest, backend, info, directory, settle_s=settle_s, resubmit_lost=resubmit_lost, sleep=sleep
        )
        return _Submitter(journal, manifest, backend, directory, scripts, on_step).run(recovered)


def _check_scripts(manifest: Manifest, directory: Path) -> dict[str, str]:
    """Return the digest of each job's script as it is now: an edited script is submitted as it stands."""
    return {job.key: file_digest(read_text(directory / job.script)) for job in manifest.jobs}


def _check_unchanged(manifest: Manifest, ledger: Ledger, directory: Path) -> None:
    if ledger.cancelled:
        message = f"{directory}: this campaign was cancelled"
        raise ConflictError(message, hint="render the plan into a new directory to run it again")
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


def _open(journal: JournalWriter, manifest: Manifest, backend: Backend, info: ClusterInfo, directory: Path) -> None:
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
        )
    registry.register(fold(journal.entries, directory), directory)


class _Submitter:
    """One walk through the manifest, with the lock held."""

    def __init__(
        self,
        journal: JournalWriter,
        manifest: Manifest,
        backend: Backend,
        directory: Path,
        scripts: dict[str, str],
        on_step: Callable[[JobStep], None],
    ) -> None:
        self.journal = journal
        self.manifest = manifest
        self.backend = backend
        self.directory = directory
        self.scripts = scripts
        self.on_step = on_step
        self.ledger = fold(journal.entries, directory)
        self.over: set[int] | None = None if self.ledger.job_ids else set()

    def run(self, recovered: set[str]) -> list[JobStep]:
        steps = []
        for job in self.manifest.jobs:
            known = self.ledger.job(job.key)
            submission = _submission(self.directory, job, self._waits_for(job), self.ledger.campaign_id)
            if known.job_id is None:
                step = JobStep(job, "submitted", self._ask(job, submission), submission)
            else:
                step = JobStep(job, "found" if job.key in recovered else "already", known.job_id, submission)
            self.on_step(step)
            steps.append(step)
        return steps

    def _waits_for(self, job: ManifestJob) -> list[str]:
        """Return the ids of the jobs before it that Slurm still has; on an id that it has purged, sbatch may fail."""
        ids = [self.ledger.job(key).job_id for key in job.after]
        return [str(job_id) for job_id in ids if job_id is not None and not self._is_over(job_id)]

    def _is_over(self, job_id: int) -> bool:
        if self.over is None:
            alive = {record.job_id for record in self._known() if not record.state.final}
            self.over = set(self.ledger.job_ids) - alive
        return job_id in self.over

    def _known(self) -> list[JobRecord]:
        return self.backend.jobs(self.ledger.job_ids, since=self.ledger.opened_at)

    def _ask(self, job: ManifestJob, submission: Submission) -> int:
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
            self.journal.append("submit-failed", job=job.key, message=error.message)
            raise self._explained(error, job) from None
        self.journal.append("submitted", job=job.key, job_id=job_id, at=self.backend.now())
        self.ledger.job(job.key).job_id = job_id
        return job_id

    def _explained(self, error: SlurmError, job: ManifestJob) -> SlurmError:
        done = len(self.ledger.job_ids)
        count = f"{done} of {len(self.manifest.jobs)} jobs are submitted"
        hint = f"{error.hint + '; ' if error.hint else ''}{count}; run hpcplan submit again to go on"
        kind = SlurmUnreachableError if isinstance(error, SlurmUnreachableError) else SlurmError
        return kind(f"{job.script}: {error.message}", hint=hint)
