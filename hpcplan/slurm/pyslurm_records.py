"""pyslurm's objects as our records. Its units: limits in minutes, memory in MiB, times in unix seconds, statistics of
the database in bytes and seconds; ``None`` or ``"UNLIMITED"`` for no limit.

Checked against pyslurm 22.5.3 on a real Slurm 22.05.8, and against the sources of 25.11.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hpcplan.slurm import scontrol, values
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord, PartitionRecord

__all__ = ["het_job_id", "nodes", "partitions", "queued", "stored"]

MIB: Final = 1024**2


def queued(job: Any) -> JobRecord:
    """Return the record of a ``pyslurm.Job``: what the controller knows."""
    state = JobState.parse(job.state or "")
    ended = state.final or state is JobState.COMPLETING
    node_list = values.text(job.allocated_nodes or "")
    is_array = job.array_id is not None and (job.array_task_id is not None or bool(job.array_tasks_waiting))
    gpus = _gpus_of(job) if node_list else _gpus_asked(job)
    return JobRecord(
        **_common(job, state, gpus),
        restarts=job.requeue_count or 0,
        reason=values.text(job.state_reason or ""),
        dependency=_dependency(job.dependencies),
        array_job_id=job.array_id if is_array else None,
        # For a job that waits this is the scheduler's guess; for one that never started, the time it was cancelled.
        start_time=job.start_time or None if node_list and not state.waiting else None,
        end_time=job.end_time or None if ended else None,
        exit_code=job.exit_code if ended else None,
        signal=job.exit_code_signal if ended else None,
        node_list=node_list,
    )


def stored(job: Any) -> JobRecord:
    """Return the record of a ``pyslurm.db.Job``: what accounting knows."""
    state = JobState.parse(job.state or "")
    node_list = values.text(job.nodelist or "")
    cpu_s = job.stats.total_cpu_time
    return JobRecord(
        **_common(job, state, _gpus_tracked(job)),
        restarts=getattr(job, "requeue_count", None) or 0,
        reason=values.text(job.state_reason or "") if node_list is None else None,
        array_job_id=job.array_id or None,
        start_time=job.start_time or None if node_list else None,
        end_time=job.end_time or None if state.final else None,
        exit_code=job.exit_code if state.final else None,
        signal=job.exit_code_signal if state.final else None,
        node_list=node_list,
        total_cpu_s=float(cpu_s) if cpu_s else None,  # in whole seconds, zero also where nothing is known
        max_rss_bytes=job.stats.max_resident_memory or None,
    )


def _common(job: Any, state: JobState, gpus: int | None) -> dict[str, Any]:
    memory = None if job.memory is None else job.memory * MIB
    counted = {"cpu": job.cpus, "mem": memory, "node": job.num_nodes, "gres/gpu": gpus}
    het = het_job_id(job)
    return {
        "job_id": job.id,
        "het_job_id": het,
        "het_offset": (_first(job, "heterogeneous_offset", "hetjob_offset") or 0) if het else None,
        "state": state,
        "name": job.name or "",
        "cluster": job.cluster,
        "user": job.user_name,
        "account": job.account,
        "partition": job.partition,
        "qos": job.qos,
        "comment": values.text(job.comment or ""),
        "array_task_id": job.array_task_id,
        "array_tasks_waiting": _waiting_tasks(job),
        "submit_time": job.submit_time or None,
        "eligible_time": job.eligible_time or None,
        "time_limit_s": _minutes(job.time_limit),
        "priority": job.priority,
        "nodes": job.num_nodes or None,
        "cpus": job.cpus or None,
        "gpus": gpus,
        "memory_bytes": memory,
        "tres": {name: count for name, count in counted.items() if count},
        "work_dir": job.working_directory,
    }


def het_job_id(job: Any) -> int | None:
    """Return the id of the heterogeneous job that a job is a part of; of stored jobs pyslurm says so since 25.11."""
    return _first(job, "heterogeneous_id", "hetjob_id")


def _first(job: Any, *names: str) -> int | None:
    """Return what a job has under the first of these names: pyslurm's releases differ in this; zero stands for none."""
    return next((value for name in names if (value := getattr(job, name, None))), None)


def _minutes(limit: int | str | None) -> int | None:
    return limit * 60 if isinstance(limit, int) else None


def _gpus_tracked(job: Any) -> int | None:
    """Return the GPUs among a job's trackable resources, which pyslurm has since 24.11."""
    found = getattr(job, "gpus", None)
    return values.gpu_count({f"gres/{name}": gpu.count for name, gpu in found.items()}) if found else None


def _gpus_of(job: Any) -> int | None:
    """Return the GPUs that a job holds, node by node."""
    tracked = _gpus_tracked(job)
    if tracked is not None:
        return tracked
    counts = [
        int(gres["count"])
        for layout in job.get_resource_layout_per_node().values()
        for name, gres in (layout.get("gres") or {}).items()
        if name.partition(":")[0] == "gpu"
    ]
    return sum(counts) if counts else _gpus_asked(job)


def _gpus_asked(job: Any) -> int | None:
    tracked = _gpus_tracked(job)
    if tracked is not None:
        return tracked
    each = _gpus_in(job.gres_per_node)
    return each * job.num_nodes if each and job.num_nodes else None


def _gpus_in(gres: Mapping[str, int] | None) -> int:
    return sum(count for name, count in (gres or {}).items() if name.partition(":")[0] == "gpu")


def _dependency(dependencies: Mapping[str, Any] | None) -> str | None:
    """Return ``afterok:32(unfulfilled),afterany:31`` for pyslurm's dictionary of the same."""
    if not dependencies:
        return None
    parts = [f"{kind}:{job}" for kind, jobs in dependencies.items() if isinstance(jobs, list) for job in jobs]
    if dependencies.get("singleton"):
        parts.append("singleton")
    return ("?" if dependencies.get("satisfy") == "any" else ",").join(parts) or None


def nodes(loaded: Iterable[Any]) -> list[NodeRecord]:
    """Return the records of ``pyslurm.Node`` objects, by name."""
    return sorted((_node(node) for node in loaded), key=lambda node: scontrol.natural(node.name))


def _node(node: Any) -> NodeRecord:
    state, flags = scontrol.node_state(node.state or "unknown")
    if state == "allocated" and node.allocated_cpus < node.effective_cpus:
        state = "mixed"  # as Slurm's commands have it; the library leaves that to its callers
    gres = node.configured_gres or {}
    return NodeRecord(
        name=node.name,
        state=state,
        flags=flags,
        partitions=tuple(node.partitions or ()),
        cpus=node.total_cpus,
        cpus_allocated=node.allocated_cpus,
        memory_bytes=None if node.real_memory is None else node.real_memory * MIB,
        gres=",".join(f"{name}:{count}" for name, count in gres.items()) or None,
        gpus=_gpus_in(gres),
        features=tuple(node.active_features or ()),
        reason=values.text(node.reason or ""),
    )


def partitions(loaded: Iterable[Any]) -> list[PartitionRecord]:
    """Return the records of ``pyslurm.Partition`` objects, by name."""
    return sorted((_partition(partition) for partition in loaded), key=lambda partition: partition.name)


def _partition(partition: Any) -> PartitionRecord:
    return PartitionRecord(
        name=partition.name,
        state=(partition.state or "").lower(),
        nodes=partition.nodes or "",
        total_nodes=partition.total_nodes,
        default=bool(partition.is_default),
        max_time_s=_minutes(partition.max_time),
        default_time_s=_minutes(partition.default_time),
        max_nodes=partition.max_nodes if isinstance(partition.max_nodes, int) else None,
    )


def _waiting_tasks(job: Any) -> str | None:
    """Return the tasks that a record of an array stands for, in Slurm's notation."""
    waiting = getattr(job, "array_tasks_waiting", None)
    return values.text(str(waiting)) if waiting and job.array_task_id is None else None
