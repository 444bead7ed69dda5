"""sacct's answer as job records: what accounting remembers, each attempt of a requeued job for itself.

Steps (``7.batch``, ``7.extern``, ``7.0``) follow the row of their job, and give it what only steps know: peak memory
and the use of its GPUs. Only fields that every release from 20.11 to 26.05 has are asked for (sacct(1),
``--helpformat``).

A question about a time leaves out jobs that slurmdbd has no eligible time of (``setup_job_cond_limits`` in
as_mysql_jobacct_process.c). Those are not only jobs that were never eligible: slurmctld tells that time every five
seconds, so a job that was shorter lacks it for as long, and for ever where the controller was killed in between. Such
jobs are found by how they ended (``--state``), which does not look at it, and then asked for by their ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from hpcplan.errors import SlurmError
from hpcplan.slurm import values
from hpcplan.slurm.marks import Marks
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["ENDED_FIELDS", "FIELDS", "Ended", "arguments", "ended", "ended_arguments", "newest", "records"]

FIELDS: Final = (
    "JobIDRaw", "JobID", "JobName", "Cluster", "User", "Account", "Partition", "QOS", "State", "Reason", "Comment",
    "Submit", "Eligible", "Start", "End", "TimelimitRaw", "ExitCode", "Priority", "NNodes", "NodeList", "NCPUS",
    "ReqTRES", "AllocTRES", "TotalCPU", "MaxRSS", "TRESUsageInTot", "ElapsedRaw", "Flags", "WorkDir",
)  # fmt: skip
ENDED_FIELDS: Final = ("JobIDRaw", "Submit", "NodeList")
_ENDS: Final = "BOOT_FAIL,CANCELLED,COMPLETED,DEADLINE,FAILED,NODE_FAIL,OUT_OF_MEMORY,PREEMPTED,TIMEOUT"


class Ended(NamedTuple):
    """An attempt that ended in a time: which one, and whether it ever had nodes."""

    job_id: int
    submit_time: int | None
    started: bool


def arguments(marks: Marks, start: int, end: int) -> list[str]:
    """Return sacct's command line for every attempt that was pending or running between two times (unix seconds).

    The times are written for a command that runs in UTC.
    """
    return [*_question(marks, FIELDS), f"--starttime={_utc(start)}", f"--endtime={_utc(end)}"]


def ended_arguments(marks: Marks, start: int, end: int) -> list[str]:
    """Return sacct's command line for every attempt that ended between two times, eligible or not."""
    times = (f"--starttime={_utc(start)}", f"--endtime={_utc(end)}")
    return [*_question(marks, ENDED_FIELDS), "--allocations", f"--state={_ENDS}", *times]


def _question(marks: Marks, fields: Sequence[str]) -> list[str]:
    return [
        "sacct", "--duplicates", "--noheader", "--noconvert", "--parsable", f"--delimiter={marks.cell}",
        f"--format={','.join(fields)}",
    ]  # fmt: skip


def _utc(time: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def records(answer: str, marks: Marks) -> list[JobRecord]:
    """Return the attempts in sacct's answer to :func:`arguments`, in its order.

    Raises:
        SlurmError: the answer cannot be read.
    """
    jobs: list[JobRecord] = []
    steps: list[Mapping[str, str]] = []
    try:
        for row in marks.rows(answer, FIELDS, "sacct"):
            if "." in row["JobIDRaw"]:
                steps.append(row)
                continue
            _give(jobs, steps)
            steps = []
            jobs.append(_record(row))
        _give(jobs, steps)
    except ValueError as error:
        raise SlurmError(f"sacct: the answer cannot be read: {error}") from None
    return jobs


def ended(answer: str, marks: Marks) -> list[Ended]:
    """Return the attempts in sacct's answer to :func:`ended_arguments`.

    Raises:
        SlurmError: the answer cannot be read.
    """
    try:
        return [
            Ended(int(row["JobIDRaw"]), values.stamp(row["Submit"]), values.text(row["NodeList"]) is not None)
            for row in marks.rows(answer, ENDED_FIELDS, "sacct")
        ]
    except ValueError as error:
        raise SlurmError(f"sacct: the answer cannot be read: {error}") from None


def newest(attempts: Iterable[JobRecord]) -> dict[int, JobRecord]:
    """Return the last attempt of each job by its id; ``restarts`` counts the attempts before it that were requeued."""
    found: dict[int, JobRecord] = {}
    for record in sorted(attempts, key=lambda record: (record.submit_time or 0, record.start_time or 0)):
        before = found.get(record.job_id)
        restarts = before.restarts + 1 if before is not None and before.state in _REQUEUED else 0
        found[record.job_id] = dataclasses.replace(record, restarts=restarts) if restarts else record
    return found


_REQUEUED: Final = frozenset({JobState.REQUEUED, JobState.NODE_FAIL, JobState.PREEMPTED, JobState.BOOT_FAIL})


def _record(row: Mapping[str, str]) -> JobRecord:
    state = JobState.parse(row["State"])
    node_list = values.text(row["NodeList"])
    code, signal = values.exit_status(row["ExitCode"]) if state.final else (None, None)
    array, underscore, task = row["JobID"].partition("_")
    het, plus, offset = row["JobID"].partition("+")
    resources = values.tres(row["AllocTRES"]) or values.tres(row["ReqTRES"])
    limit_min = values.text(row["TimelimitRaw"]) or ""
    cpu_s = values.cpu_seconds(row["TotalCPU"])
    flags = row["Flags"].split(",")
    return JobRecord(
        job_id=int(row["JobIDRaw"]),
        state=state,
        name=row["JobName"],
        cluster=values.text(row["Cluster"]),
        user=values.text(row["User"]),
        account=values.text(row["Account"]),
        partition=values.text(row["Partition"]),
        qos=values.text(row["QOS"]),
        # why it waited, last; of a job that has started, that is history
        reason=values.text(row["Reason"]) if node_list is None else None,
        comment=values.text(row["Comment"]),
        array_job_id=int(array) if underscore else None,
        array_task_id=int(task) if task.isdecimal() else None,
        array_tasks_waiting=task.strip("[]") if task.startswith("[") else None,
        het_job_id=int(het) if plus else None,
        het_offset=int(offset) if plus else None,
        submit_time=values.stamp(row["Submit"]),
        eligible_time=values.stamp(row["Eligible"]),
        start_time=values.stamp(row["Start"]) if node_list else None,
        end_time=values.stamp(row["End"]),
        time_limit_s=int(limit_min) * 60 if limit_min.isdecimal() else None,
        exit_code=code,
        signal=signal,
        priority=values.number(row["Priority"]),
        nodes=values.number(row["NNodes"]),
        node_list=node_list,
        cpus=values.number(row["NCPUS"]),
        gpus=values.gpu_count(resources),
        memory_bytes=resources.get("mem") or values.tres(row["ReqTRES"]).get("mem"),
        tres=resources,
        work_dir=values.text(row["WorkDir"]),
        total_cpu_s=cpu_s or None,  # zero means that nothing was recorded: no step has ended, or none was measured
        backfilled={"SchedBackfill": True, "SchedMain": False}.get(
            next((f for f in flags if f.startswith("Sched")), "")
        ),
    )


def _give(jobs: list[JobRecord], steps: Sequence[Mapping[str, str]]) -> None:
    """Merge steps into the last job."""
    if not steps or not jobs:
        return
    sizes = [size for row in steps if (size := _peak_bytes(row)) is not None]
    jobs[-1] = dataclasses.replace(
        jobs[-1], max_rss_bytes=max(sizes, default=None), gpu_utilisation=_gpu_utilisation(jobs[-1], steps)
    )


def _peak_bytes(step: Mapping[str, str]) -> int | None:
    """Return the peaks of a step's tasks added up (TRESUsageInTot); of the largest task alone where that is missing."""
    together = values.tres(step["TRESUsageInTot"]).get("mem")
    return values.size_bytes(step["MaxRSS"]) if together is None else together


def _gpu_utilisation(job: JobRecord, steps: Iterable[Mapping[str, str]]) -> float | None:
    """Return the mean use of the job's GPUs over its time (0 to 1), where the site gathers it.

    TRES ``gres/gpuutil`` in TRESUsageInTot is in percent and added up over the GPUs of a step (slurm.conf(5),
    AccountingStorageTRES). A step without memory was never sampled, so its zero means nothing.
    """
    elapsed_s = job.elapsed_s() if job.state.final else None
    if not elapsed_s or not job.gpus:
        return None
    sampled: list[float] = []
    for row in steps:
        percent = values.tres(row["TRESUsageInTot"]).get("gres/gpuutil")
        step_s = values.number(row["ElapsedRaw"])
        if percent is not None and step_s is not None and values.size_bytes(row["MaxRSS"]):
            sampled.append(percent * min(step_s, elapsed_s))
    return min(1.0, sum(sampled) / (100 * job.gpus * elapsed_s)) if sampled else None
