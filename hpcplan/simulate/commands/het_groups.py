"""The components of a heterogeneous job as its commands know them: variables, and ``srun --het-group``."""

from __future__ import annotations

import re
from typing import Final

from hpcplan.simulate.commands.environment import job_environment, release_environment
from hpcplan.simulate.commands.jobfiles import JobFiles
from hpcplan.simulate.commands.reply import Refusal
from hpcplan.simulate.het_jobs import whole
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.store import Session

__all__ = ["components", "environment_of", "read_groups"]

_OF_EACH: Final = (
    "SLURM_CPUS_PER_TASK", "SLURM_JOB_ACCOUNT", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_ID", "SLURM_JOB_NAME",
    "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_JOB_PARTITION", "SLURM_JOB_QOS", "SLURM_NPROCS", "SLURM_NTASKS",
    "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE",
)  # fmt: skip
_NOT_OF_THE_WHOLE: Final = ("SLURM_CPUS_PER_TASK", "SLURM_GPUS_PER_NODE", "SLURM_NTASKS_PER_NODE")


def components(session: Session, job: Job) -> list[Job]:
    """Return the live components of a job in their order: itself, if it is no heterogeneous one."""
    return sorted(whole(session.engine.jobs, job), key=lambda one: one.het_offset)


def environment_of(job: Job, files: JobFiles, session: Session) -> dict[str, str]:
    """Return what Slurm tells every process of a job; in a heterogeneous one, of each component too."""

    def own(one: Job) -> dict[str, str]:
        info = files.info(one.array_job_id or one.id)
        if info is None:
            return {}
        env = job_environment(one, info, session.machine, session.settings.cluster)
        newer = release_environment(one, info, session.settings.slurm_version)
        return {"SLURM_JOB_ACCOUNT": files.default_account, **env, **newer}

    env = own(job)
    if job.het_id is None:
        return env
    env = {name: value for name, value in env.items() if name not in _NOT_OF_THE_WHOLE}
    members = components(session, job)
    for word, size in (("HET_GROUP", "SLURM_HET_SIZE"), ("PACK_GROUP", "SLURM_PACK_SIZE")):  # the older name is known
        env[size] = str(len(members))
        for one in members:
            told = own(one)
            env |= {f"{name}_{word}_{one.het_offset}": told[name] for name in _OF_EACH if name in told}
    return env | {"SLURM_JOB_ID": str(job.het_id), "SLURM_JOBID": str(job.het_id)}


def read_groups(text: str, count: int) -> list[int]:
    """Return the components that ``--het-group=0,2-3`` names of a job that has ``count`` (1 is no heterogeneous one).

    Raises:
        Refusal: it cannot be read, or the job has no such component.
    """
    found: list[int] = []
    for item in text.strip("[]").split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", item.strip())
        if match is None:
            raise Refusal(
                f"srun: error: _parse_single_range: Invalid range: `{item}'\n"
                f"srun: error: Invalid --het-group value: {text}"
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    highest = max(found, default=0)
    if highest >= count:
        raise Refusal(f"srun: error: Requested het-group offset exceeds highest hetjob index ({highest} > {count - 1})")
    if count == 1:
        raise Refusal("srun: error: No directives to start application on any available hetjob components")
    return sorted(set(found))
