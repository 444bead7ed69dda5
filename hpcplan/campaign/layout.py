"""Where a campaign's files are: those of its first plan at the top, those of a later plan in a folder of its own.

Jobs always run in the campaign's directory, so that checkpoints, markers and logs stay in one place whichever plan
wrote the script.
"""

from __future__ import annotations

from pathlib import Path

from hpcplan.campaign.ledger import Ledger
from hpcplan.plan import Plan, read_plan
from hpcplan.render.manifest import PLAN_NAME, Manifest, ManifestJob, read_manifest

__all__ = ["current_manifest", "current_plan", "generation_folder", "log_path", "work_dir"]


def generation_folder(generation: int) -> str:
    """Return the folder of a later plan's files: ``plan-02``."""
    return f"plan-{generation:02d}"


def current_manifest(directory: Path, ledger: Ledger) -> Manifest:
    """Return the manifest of the plan that is followed now; a later plan's keys end in ``@2``, its scripts are named
    with their folder.

    Raises:
        InputError: there is none, or it is not one; with file, line and field.
    """
    if ledger.folder is None:
        return read_manifest(directory)
    manifest = read_manifest(directory / ledger.folder)
    suffix, folder = f"@{ledger.generation}", ledger.folder

    def moved(job: ManifestJob) -> ManifestJob:
        return job.model_copy(
            update={
                "key": job.key + suffix,
                "script": f"{folder}/{job.script}",
                "after": tuple(key + suffix for key in job.after),
                "after_ok": tuple(key + suffix for key in job.after_ok),
            }
        )

    return manifest.model_copy(update={"jobs": tuple(map(moved, manifest.jobs))})


def current_plan(directory: Path, ledger: Ledger) -> Plan:
    """Return the plan that is followed now.

    Raises:
        InputError: there is none, or it is not one.
    """
    return read_plan(directory / (ledger.folder or "") / PLAN_NAME)


def work_dir(directory: Path, ledger: Ledger) -> str:
    """Return where the campaign's jobs run."""
    return ledger.work_dir or str(directory)


def log_path(directory: Path, job: ManifestJob, job_id: int) -> Path:
    """Return where the rendered scripts let Slurm write a job's log (``--output=%x-%j.out``)."""
    return directory / f"{job.job_name}-{job_id}.out"
