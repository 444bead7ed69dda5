"""slurmrestd's answers as our records, in every shape from API 0.0.38 to 0.0.44.

The same shapes come out of ``squeue --json``, ``sacct --json`` and ``scontrol --json`` of the same release. Units:
limits in minutes, memory of jobs and nodes in MiB, of a step's usage in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hpcplan.slurm import rest_values as read
from hpcplan.slurm import scontrol, values
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord, PartitionRecord

__all__ = ["nodes", "partitions", "queued", "stored"]

_NODE_WORDS: Final = {"maintenance": "maint", "drained": "drain", "draining": "drain"}


def queued(answer: Mapping[str, Any]) -> list[JobRecord]:
    """Return the jobs of an answer to ``/slurm/…/jobs``: what the controller knows. What has no id is left out."""
    return [_queued(job) for job in read.rows(answer.get("jobs")) if read.count(job.get("job_id"))]


def _queued(job: Mapping[str, Any]) -> JobRecord:
    state = read.job_state(job.get("job_state"))
    ended = state.final or state is JobState.COMPLETING
    node_list = read.word(job.get("nodes"))
    code, signal = read.exit_status(job.get("exit_code")) if ended else (None, None)
    resources = values.tres(read.word(job.get("tres_alloc_str")) or "")
    task, array = read.count(job.get("array_task_id")), read.count(job.get("array_job_id"))
    het_job_id = read.count(job.get("het_job_id")) or None
    return JobRecord(
        job_id=read.count(job.get("job_id")) or 0,
        state=state,
        name=str(job.get("name") or ""),
        cluster=read.word(job.get("cluster")),
        user=read.word(job.get("user_name")),
        account=read.word(job.get("account")),
        partition=read.word(job.get("partition")),
        qos=read.word(job.get("qos")),
        reason=read.word(job.get("state_reason")),
        comment=read.word(job.get("comment")),
        array_job_id=array if array and (task is not None or read.word(job.get("array_task_string"))) else None,
        array_task_id=task if array else None,
        array_tasks_waiting=read.word(job.get("array_task_string")) if array and task is None else None,
        het_job_id=het_job_id,
        het_offset=None if het_job_id is None else read.count(job.get("het_job_offset")),
        dependency=read.word(job.get("dependency")),
        submit_time=read.stamp(job.get("submit_time")),
        eligible_time=read.stamp(job.get("eligible_time")),
        # For a job that waits this is the scheduler's guess; for one that never started, the time it was cancelled.
        start_time=read.stamp(job.get("start_time")) if node_list and not state.waiting else None,
        end_time=read.stamp(job.get("end_time")) if ended else None,
        time_limit_s=read.minutes(job.get("time_limit")),
        exit_code=code,
        signal=signal,
        restarts=read.count(job.get("restart_cnt")) or 0,
        priority=read.count(job.get("priority")),
        nodes=read.count(job.get("node_count")),
        node_list=node_list,
        cpus=read.count(job.get("cpus")),
        gpus=_gpus(job, resources),
        memory_bytes=resources.get("mem"),
        tres=resources,
        work_dir=read.word(job.get("current_working_directory")),
    )


def _gpus(job: Mapping[str, Any], resources: Mapping[str, int]) -> int | None:
    """Return the GPUs that a job has or, while it waits, asks for; sites need not track them as resources."""
    tracked = values.gpu_count(resources)
    if tracked is not None:
        return tracked
    held = sum(values.gres_gpus(part) for part in read.flag_words(job.get("gres_detail")))
    if held:
        return held
    of_job = _gpus_in(job.get("tres_per_job"))
    of_node = _gpus_in(job.get("tres_per_node"))
    node_count = read.count(job.get("node_count"))
    return of_job or (of_node * node_count if of_node and node_count else None)


def _gpus_in(request: Any) -> int:
    """Return the GPUs in ``gres:gpu:2`` or ``gres/gpu:h100=2``."""
    return values.gres_gpus(read.word(request) or "")


def stored(answer: Mapping[str, Any]) -> list[JobRecord]:
    """Return the attempts of an answer to ``/slurmdb/…/jobs``: what accounting knows. What has no id is left out."""
    return [_stored(job) for job in read.rows(answer.get("jobs")) if read.count(job.get("job_id"))]


def _stored(job: Mapping[str, Any]) -> JobRecord:
    said, time, array, het = (read.mapping(job.get(key)) for key in ("state", "time", "array", "het"))
    het_job_id = read.count(het.get("job_id")) or None
    state = read.job_state(said.get("current"))
    node_list = read.word(job.get("nodes"))
    code, signal = read.exit_status(job.get("exit_code")) if state.final else (None, None)
    if state is JobState.FAILED and not code and not signal:
        code = signal = None  # slurmrestd 22.05 answers SUCCESS for jobs that failed
    tres = read.mapping(job.get("tres"))
    resources = read.tres_list(tres.get("allocated")) or read.tres_list(tres.get("requested"))
    comment = job.get("comment")
    steps = read.rows(job.get("steps"))
    return JobRecord(
        job_id=read.count(job.get("job_id")) or 0,
        state=state,
        name=str(job.get("name") or ""),
        cluster=read.word(job.get("cluster")),
        user=read.word(job.get("user")) or read.word(read.mapping(job.get("association")).get("user")),
        account=read.word(job.get("account")),
        partition=read.word(job.get("partition")),
        qos=read.word(job.get("qos")),
        # why it waited, last; of a job that has started, that is history
        reason=read.word(said.get("reason")) if node_list is None else None,
        comment=read.word(comment.get("job") if isinstance(comment, Mapping) else comment),
        array_job_id=read.count(array.get("job_id")) or None,
        array_task_id=read.count(array.get("task_id")) if read.count(array.get("job_id")) else None,
        array_tasks_waiting=read.word(array.get("task")) if read.count(array.get("job_id")) else None,
        het_job_id=het_job_id,
        het_offset=None if het_job_id is None else read.count(het.get("job_offset")),
        submit_time=read.stamp(time.get("submission")),
        eligible_time=read.stamp(time.get("eligible")),
        start_time=read.stamp(time.get("start")) if node_list else None,
        end_time=None if state.active else read.stamp(time.get("end")),
        time_limit_s=read.minutes(time.get("limit")),
        exit_code=code,
        signal=signal,
        restarts=read.count(job.get("restart_cnt")) or 0,
        priority=read.count(job.get("priority")),
        nodes=read.count(job.get("allocation_nodes")) or resources.get("node"),
        node_list=node_list,
        cpus=resources.get("cpu") or read.count(read.mapping(job.get("required")).get("CPUs")),
        gpus=values.gpu_count(resources),
        memory_bytes=resources.get("mem") or read.tres_list(tres.get("requested")).get("mem"),
        tres=resources,
        work_dir=read.word(job.get("working_directory")),
        total_cpu_s=_total_cpu_s(time, steps),
        max_rss_bytes=max(filter(None, map(_peak_bytes, steps)), default=None),
        backfilled=_backfilled(read.flag_words(job.get("flags"))),
    )


def _total_cpu_s(time: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the job's CPU time, added up over its steps where the release leaves that to its reader."""
    of_job = read.microseconds(time.get("total"))
    of_steps = sum(read.microseconds(read.mapping(step.get("time")).get("total")) or 0.0 for step in steps)
    return of_job or of_steps or None


def _backfilled(flags: tuple[str, ...]) -> bool | None:
    if "STARTED_ON_BACKFILL" in flags:
        return True
    return False if "STARTED_ON_SCHEDULE" in flags else None


def _peak_bytes(step: Mapping[str, Any]) -> int | None:
    """Return the peaks of a step's tasks added up; slurmrestd calls what a step took in ``requested``."""
    used = read.mapping(read.mapping(step.get("tres")).get("requested"))
    for key in ("total", "max"):
        for row in read.rows(used.get(key)):
            if row.get("type") == "mem":
                return read.count(row.get("count")) or None
    return None


def nodes(answer: Mapping[str, Any]) -> list[NodeRecord]:
    """Return the nodes of an answer to ``/slurm/…/nodes``, by name."""
    found = [_node(node) for node in read.rows(answer.get("nodes")) if read.word(node.get("name"))]
    return sorted(found, key=lambda node: scontrol.natural(node.name))


def _node(node: Mapping[str, Any]) -> NodeRecord:
    words = [*read.flag_words(node.get("state")), *read.flag_words(node.get("state_flags"))]
    state, *flags = [_NODE_WORDS.get(part.lower(), part.lower()) for part in words] or ["unknown"]
    cpus, used = read.count(node.get("cpus")), read.count(node.get("alloc_cpus"))
    usable = read.count(node.get("effective_cpus")) or cpus
    if state == "allocated" and usable is not None and used is not None and used < usable:
        state = "mixed"  # as Slurm's commands have it
    memory = read.count(node.get("real_memory"))
    gres = read.word(node.get("gres"))
    return NodeRecord(
        name=node["name"],
        state=state,
        flags=tuple(dict.fromkeys(flags)),
        partitions=read.flag_words(node.get("partitions")),
        cpus=cpus,
        cpus_allocated=used,
        memory_bytes=None if memory is None else memory * read.MIB,
        gres=gres,
        gpus=values.gres_gpus(gres or ""),
        features=read.flag_words(node.get("active_features")),
        reason=read.word(node.get("reason")),
    )


def partitions(answer: Mapping[str, Any]) -> list[PartitionRecord]:
    """Return the partitions of an answer to ``/slurm/…/partitions``, by name.

    From 0.0.39 on slurmrestd does not say which is the default.
    """
    found = [_partition(row) for row in read.rows(answer.get("partitions")) if read.word(row.get("name"))]
    return sorted(found, key=lambda partition: partition.name)


def _partition(row: Mapping[str, Any]) -> PartitionRecord:
    members = row.get("nodes")
    if not isinstance(members, Mapping):
        return _flat_partition(row)
    most, usual = read.mapping(row.get("maximums")), read.mapping(row.get("defaults"))
    states = read.flag_words(read.mapping(row.get("partition")).get("state"))
    return PartitionRecord(
        name=row["name"],
        state=_first(state.lower() for state in states),
        nodes=read.word(members.get("configured")) or "",
        total_nodes=read.count(members.get("total")),
        max_time_s=read.minutes(most.get("time")),
        default_time_s=read.minutes(usual.get("time")),
        max_nodes=read.count(most.get("nodes")),
    )


def _flat_partition(row: Mapping[str, Any]) -> PartitionRecord:
    """Return a partition as API 0.0.38 has it."""
    return PartitionRecord(
        name=row["name"],
        state=(read.word(row.get("state")) or "").lower(),
        nodes=read.word(row.get("nodes")) or "",
        total_nodes=read.count(row.get("total_nodes")),
        default="default" in read.flag_words(row.get("flags")),
        max_time_s=read.minutes(row.get("max_time_limit")),
        default_time_s=read.minutes(row.get("default_time_limit")),
        max_nodes=read.count(row.get("maximum_nodes_per_job")),
    )


def _first(words: Iterable[str]) -> str:
    return next(iter(words), "")
