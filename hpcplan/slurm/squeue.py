"""squeue's answer as job records: what the controller remembers, which is every job until MinJobAge after its end.

``--Format`` has a suffix for each field and, with size 0, prints it whole, in every release from 20.11 to 26.05
(squeue(1); ``_parse_long_token`` in src/squeue/opts.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hpcplan.errors import SlurmError
from hpcplan.slurm import values
from hpcplan.slurm.marks import Marks
from hpcplan.slurm.records import JobRecord, JobState
from hpcplan.units import parse_slurm_time

__all__ = ["FIELDS", "arguments", "records"]

FIELDS: Final = (
    "jobid", "arrayjobid", "arraytaskid", "name", "cluster", "username", "account", "partition", "qos", "state",
    "reason", "comment", "dependency", "submittime", "eligibletime", "starttime", "endtime", "timelimit", "exit_code",
    "restartcnt", "prioritylong", "numnodes", "nodelist", "numcpus", "tres-alloc", "workdir", "hetjobid",
    "hetjoboffset",
)  # fmt: skip


def arguments(marks: Marks) -> list[str]:
    """Return squeue's command line for every job in every state, of partitions hidden or not."""
    layout = ",".join(f"{name}:0{marks.cell}" for name in FIELDS)
    return ["squeue", "--all", "--states=all", "--noheader", "--noconvert", f"--Format={layout}"]


def records(answer: str, marks: Marks) -> list[JobRecord]:
    """Return the jobs in squeue's answer to :func:`arguments`.

    Raises:
        SlurmError: the answer cannot be read.
    """
    try:
        return [_record(row) for row in marks.rows(answer, FIELDS, "squeue")]
    except ValueError as error:
        raise SlurmError(f"squeue: the answer cannot be read: {error}") from None


def _record(row: Mapping[str, str]) -> JobRecord:
    state = JobState.parse(row["state"])
    ended = state.final or state is JobState.COMPLETING
    node_list = values.text(row["nodelist"])
    code, signal = values.exit_status(row["exit_code"]) if ended else (None, None)
    task = values.text(row["arraytaskid"])
    het = row["hetjobid"]
    het_job_id = None if het == "N/A" else values.number(het) or None
    resources = values.tres(row["tres-alloc"])
    return JobRecord(
        job_id=int(row["jobid"]),
        state=state,
        name=row["name"],
        cluster=values.text(row["cluster"]),
        user=values.text(row["username"]),
        account=values.text(row["account"]),
        partition=values.text(row["partition"]),
        qos=values.text(row["qos"]),
        reason=values.text(row["reason"]),
        comment=values.text(row["comment"]),
        array_job_id=int(row["arrayjobid"]) if task is not None else None,
        array_task_id=int(task) if task is not None and task.isdecimal() else None,
        array_tasks_waiting=task if task is not None and not task.isdecimal() else None,
        het_job_id=het_job_id,
        het_offset=None if het_job_id is None else values.number(row["hetjoboffset"]),
        dependency=values.text(row["dependency"]),
        submit_time=values.stamp(row["submittime"]),
        eligible_time=values.stamp(row["eligibletime"]),
        # For a job that waits this is the scheduler's guess; for one that never started, the time it was cancelled.
        start_time=values.stamp(row["starttime"]) if not state.waiting and node_list else None,
        # While it runs, this is when its time limit will be reached.
        end_time=values.stamp(row["endtime"]) if ended else None,
        time_limit_s=parse_slurm_time(row["timelimit"]),
        exit_code=code,
        signal=signal,
        restarts=values.number(row["restartcnt"]) or 0,
        priority=values.number(row["prioritylong"]),
        nodes=values.number(row["numnodes"]),
        node_list=node_list,
        cpus=values.number(row["numcpus"]),
        gpus=values.gpu_count(resources),
        memory_bytes=resources.get("mem"),
        tres=resources,
        work_dir=values.text(row["workdir"]),
    )
