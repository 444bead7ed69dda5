"""What a job used, from its own row and its steps. Best source first (sacct(1), "Job Accounting Fields"):

CPU time
    a Jobstats summary; TotalCPU of the job; the sum over its steps of TotalCPU, else of ``cpu`` in TRESUsageInTot.
    TotalCPU is finer (milliseconds), the other whole seconds. No CPU time at all was not measured: Slurm writes zero
    where a step left no figures behind.
Memory
    Jobstats; the largest over the steps of ``mem`` in TRESUsageInTot, else MaxRSS × tasks, an upper bound. A step of
    0 bytes was never sampled (the default is once in 30 s): if no step that did the work was, the job's peak is
    unknown, whatever the ``extern`` step says.
GPU utilisation
    Jobstats, or ``gpu_util`` in Comment; ``gres/gpuutil`` in TRESUsageInTot, a percentage added up over the GPUs, of
    each sampled step weighed by how long it ran.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcplan.report.jobstats import Measured
from hpcplan.report.sacct_cells import MAX_BYTES
from hpcplan.report.sacct_fields import Job, Step

__all__ = ["complete"]


def complete(job: Job, *, gpus_tracked: bool) -> None:
    """Fill in what takes the steps, or the whole file, to know; ``gpus_tracked``: the site's Slurm counts GPUs."""
    values = job.values
    values["gpus"] = 0 if job.gpus is None and job.tres_listed and gpus_tracked else job.gpus
    if not values["ended"]:
        return  # what its finished steps used is not what it used
    found = [job.measured, *(step.measured for step in job.steps)]
    measured = next((one for one in found if one is not None), Measured())
    values["cpu_used_s"] = _cpu_used_s(job) if measured.cpu_used_s is None else measured.cpu_used_s
    values["memory_used_bytes"] = measured.memory_used_bytes or _memory_used(job.steps)
    values["gpu_used"] = _gpu_used(job) if measured.gpu_used is None else measured.gpu_used


def _cpu_used_s(job: Job) -> float | None:
    used = job.total_cpu_s or sum(step.cpu_s or 0.0 for step in job.steps)
    return used or None


def _working(steps: Sequence[Step]) -> Sequence[Step]:
    """Return the steps that ran the job: all but ``extern``, unless there is no other."""
    return [step for step in steps if step.name != "extern"] or steps


def _memory_used(steps: Sequence[Step]) -> int | None:
    if not any(step.memory_bytes for step in _working(steps)):
        return None
    return min(max(step.memory_bytes or 0 for step in steps), MAX_BYTES)


def _gpu_used(job: Job) -> float | None:
    ran_s: int | None = job.values.get("elapsed_s")
    sampled = [step for step in _working(job.steps) if step.gpu_percent is not None and step.memory_bytes]
    if not sampled or not ran_s or not job.gpus:
        return None
    busy = sum((step.gpu_percent or 0.0) * min(step.elapsed_s or ran_s, ran_s) for step in sampled)
    return min(1.0, busy / (100 * job.gpus * ran_s))
