"""Jobs and steps of ``squeue --json`` and ``scontrol show --json``, from 23.02 on (:mod:`.data_parser`)."""

from __future__ import annotations

from typing import Any, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.data_parser import exit_code
from hpcplan.simulate.commands.formatting import at_least, first_to
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.json_shapes import INFINITE, Number
from hpcplan.simulate.commands.rows import JobRow, expected_start
from hpcplan.simulate.commands.squeue_fields import group_name, per_task_tres, tres_text
from hpcplan.simulate.job_records import Share, node_shares
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["job_document", "output_pattern", "step_document"]

_MIB: Final = 1024**2
_NONE: Final = Number(None)
_ZERO: Final = Number(0)
_NO_TASK: Final = 4294967294


def job_document(session: Session, row: JobRow) -> dict[str, Any]:
    """Return a job as the controller has it."""
    record, spec, info = row.record, row.spec, row.info
    started = record.start_time is not None
    start, end = _start_and_end(session, row)
    per_task = per_task_tres(row)
    kind = f"{spec.gpu_type}:" if spec.gpu_type else ""
    shared = ["none"] if spec.exclusive else []
    error = info.std_err if info is not None else None
    worst = max((step.exit_code for step in row.steps if step.name != "batch"), default=0)
    return {
        "account": record.account or "",
        "accrue_time": Number(record.eligible_time or 0),
        "admin_comment": "",
        "allocating_node": session.settings.cluster,
        "array_job_id": Number(record.array_job_id or 0),
        "array_task_id": Number(record.array_task_id),
        "array_max_tasks": Number(spec.array_limit or 0),
        "array_task_string": row.array_word.strip("[]") if row.tasks else "",
        "association_id": 1,
        "batch_features": "",
        "batch_flag": info.batch if info else True,
        "batch_host": next(iter(expand(record.node_list)), "") if record.node_list else "",
        "flags": _flags(row),
        "burst_buffer": "",
        "burst_buffer_state": "",
        "cluster": record.cluster or "",
        "cluster_features": "",
        "command": " ".join([info.command, *info.arguments]) if info and info.command else "",
        "comment": record.comment or "",
        "container": "",
        "container_id": "",
        "container_type": "",
        "contiguous": False,
        "core_spec": 0,
        "thread_spec": 32766,
        "cores_per_socket": _NONE,
        "billable_tres": Number(record.tres.get("billing", 0) if started else None, real=True),
        "cpus_per_task": Number(spec.cpus_per_task),
        "cpu_frequency_minimum": _NONE,
        "cpu_frequency_maximum": _NONE,
        "cpu_frequency_governor": _NONE,
        "cpus_per_tres": "",
        "cron": "",
        "deadline": _ZERO,
        "delay_boot": _ZERO,
        "dependency": record.dependency or "",
        "derived_exit_code": exit_code(worst, 0),
        "eligible_time": Number(record.eligible_time or 0),
        "end_time": Number(end),
        "excluded_nodes": spec.exclude or "",
        "exit_code": exit_code(record.exit_code or 0, record.signal or 0),
        "extra": "",
        "failed_node": "",
        "features": spec.constraint or "",
        "federation_origin": "",
        "federation_siblings_active": "",
        "federation_siblings_viable": "",
        "gres_detail": [
            f"gpu:{kind}{one.gpus}(IDX:{first_to(one.gpus)})" for one in _shares(session, row) if one.gpus
        ],
        "group_id": info.gid if info else 0,
        "group_name": group_name(row),
        "het_job_id": Number(row.het[0] if row.het is not None else 0),
        "het_job_id_set": row.het_id_set,
        "het_job_offset": Number(row.het[1] if row.het is not None else 0),
        "job_id": record.job_id,
        "job_resources": _resources(session, row),
        "job_size_str": [],
        "job_state": [row.state.value],
        "last_sched_evaluation": Number(record.start_time or row.now),
        "licenses": spec.licenses or "",
        "licenses_allocated": (spec.licenses or "") if started else "",
        "mail_type": [],
        "mail_user": record.user or "",
        "max_cpus": _ZERO,
        "max_nodes": Number(_most_nodes(row)),
        "mcs_label": "",
        "memory_per_tres": "",
        "memory_update_delay": 0,
        "memory_update_margin": 0,
        "name": record.name,
        "network": "",
        "nodes": record.node_list or "",
        "nice": spec.nice,
        "tasks_per_core": Number(INFINITE),
        "tasks_per_tres": _ZERO,
        "tasks_per_node": Number(spec.ntasks_per_node or 0),
        "tasks_per_socket": Number(INFINITE),
        "tasks_per_board": _ZERO,
        "cpus": Number(record.cpus or 0),
        "node_count": Number(record.nodes or 0),
        "tasks": Number(info.ntasks if info else 1),
        "partition": record.partition or "",
        "prefer": "",
        "memory_per_cpu": Number(spec.memory_per_cpu_bytes // _MIB if spec.memory_per_cpu_bytes else None),
        "memory_per_node": Number(None if spec.memory_per_cpu_bytes else (spec.memory_per_node_bytes or 0) // _MIB),
        "minimum_cpus_per_node": Number(spec.cpus_per_task * max(1, spec.ntasks_per_node or 1)),
        "minimum_tmp_disk_per_node": _ZERO,
        "power": {"flags": []},
        "preempt_time": _ZERO,
        "preemptable_time": _ZERO,
        "pre_sus_time": _ZERO,
        "hold": record.priority == 0,
        "priority": Number(record.priority or 0),
        "priority_by_partition": [],
        "profile": ["NOT_SET"],
        "qos": record.qos or "normal",
        "reboot": False,
        "required_nodes": spec.nodelist or "",
        "required_switches": int((spec.switches or "0").partition("@")[0]),
        "minimum_switches": int((spec.switches or "0").partition("@")[0]),
        "requeue": spec.requeue,
        "resize_time": _ZERO,
        "restart_cnt": record.restarts,
        "resv_name": spec.reservation or "",
        "scheduled_nodes": "",
        "segment_size": spec.segment or 0,
        "selinux_context": "",
        "shared": shared,
        "exclusive": ["true"] if spec.exclusive else [],
        "oversubscribe": False,
        "show_flags": [],
        "step_id": {
            "sluid": "", "job_id": Number(record.job_id), "step_het_component": _NONE, "step_id": "entire",
        },
        "sockets_per_board": 0,
        "sockets_per_node": _NONE,
        "start_time": Number(start),
        "state_description": "",
        "state_reason": row.reason.partition(",")[0],
        "standard_input": [(info.std_in if info else "") or "/dev/null", row.path("std_in")],
        "standard_output": [output_pattern(row), row.path("std_out")],
        "standard_error": [error or "", row.path("std_err") if error else ""],
        "stdin_expanded": row.path("std_in"),
        "stdout_expanded": row.path("std_out"),
        "stderr_expanded": row.path("std_err") if error else "",
        "submit_time": Number(record.submit_time or 0),
        "submit_line": info.submit_line if info else "",
        "suspend_time": _ZERO,
        "system_comment": "",
        "time_limit": Number(INFINITE if record.time_limit_s is None else record.time_limit_s // 60),
        "time_minimum": _ZERO,
        "threads_per_core": _NONE,
        "tres_bind": "",
        "tres_freq": "",
        "tres_per_job": f"gres/gpu:{kind}{spec.gpus}" if spec.gpus is not None else "",
        "tres_per_node": f"gres/gpu:{kind}{spec.gpus_per_node}" if spec.gpus_per_node is not None else "",
        "tres_per_socket": "",
        "tres_per_task": per_task,
        "tres_req_str": tres_text(row.requested),
        "tres_alloc_str": tres_text(record.tres) if started else "",
        "user_id": info.uid if info else 0,
        "user_name": record.user or "",
        "maximum_switch_wait_time": 0,
        "wckey": "",
        "current_working_directory": record.work_dir or "",
    }  # fmt: skip


def _start_and_end(session: Session, row: JobRow) -> tuple[int, int]:
    """Return when a job began and ended, or is expected to."""
    record = row.record
    start, end = record.start_time or 0, record.end_time or 0
    if row.state is JobState.PENDING and (slot := expected_start(session, row)) is not None:
        start = slot[0]
    if record.state.final:
        return start or end, end
    return start, start + record.time_limit_s if start and record.time_limit_s is not None else 0


def _flags(row: JobRow) -> list[str]:
    """Return what slurmctld notes of a job, as far as the mock cluster knows it."""
    record, spec, info = row.record, row.spec, row.info
    given = info is not None and info.cpus_per_task_given, info is not None and info.ntasks_given
    noted = {
        "EXACT_TASK_COUNT_REQUESTED": given[1],
        "EXACT_CPU_COUNT_REQUESTED": given[0],
        "JOB_WAS_RUNNING": record.start_time is not None and not record.state.final,
        "EXACT_MEMORY_REQUESTED": bool(spec.memory_per_node_bytes or spec.memory_per_cpu_bytes),
        "USING_DEFAULT_ACCOUNT": spec.account is None,
        "USING_DEFAULT_PARTITION": spec.partition is None,
        "USING_DEFAULT_QOS": spec.qos is None,
        "USING_DEFAULT_WCKEY": True,
        "DEPENDENT": record.state is JobState.PENDING and record.reason in {"Dependency", "JobHeldUser"},
        "PARTITION_ASSIGNED": record.reason != "Dependency",
        "BACKFILL_ATTEMPTED": bool(record.backfilled),
    }
    return [name for name, is_so in noted.items() if is_so]


def _most_nodes(row: JobRow) -> int:
    """Return how many nodes a job may have at most; of one that runs it is not kept."""
    waiting = row.record.start_time is None
    return (row.spec.nodes_max or row.spec.nodes_min or 0) if waiting and (row.record.nodes or 1) > 1 else 0


def output_pattern(row: JobRow) -> str:
    """Return where a job's output goes, its %-codes as they are."""
    info = row.info
    if info is None or not info.batch:
        return ""
    return info.std_out or ("slurm-%A_%a.out" if row.record.array_job_id is not None else "slurm-%j.out")


def _shares(session: Session, row: JobRow) -> list[Share]:
    """Return what a job has of each node; of one that has ended what was kept, in equal parts."""
    if row.job is not None and row.job.running:
        return node_shares(row.job, session.machine)
    return []


def _resources(session: Session, row: JobRow) -> dict[str, Any] | None:
    record = row.record
    if record.start_time is None or not record.node_list:
        return None if at_least(session.settings.slurm_version, "24.11") else {}
    names = list(expand(record.node_list))
    even = Share((record.cpus or 0) // len(names), 0, 0)
    shares = _shares(session, row) or [even] * len(names)
    with_memory = session.machine.sharing is None or session.machine.sharing.memory
    nodes = [
        {
            "index": index,
            "name": name,
            "cpus": {"count": share.cpus, "used": _used(row, name)},
            "memory": {"used": 0, "allocated": share.memory_bytes // _MIB if with_memory else 0},
            "sockets": _sockets(session, name, share.cpus),
        }
        for index, (name, share) in enumerate(zip(names, shares, strict=False))
    ]
    return {
        "select_type": ["CPU", "MEMORY"] if with_memory else ["CPU"],
        "nodes": {
            "count": len(names), "select_type": ["ONE_ROW"], "list": record.node_list, "whole": row.spec.exclusive,
            "allocation": nodes,
        },
        "cpus": row.requested.get("cpu", record.cpus or 0),
        "threads_per_core": _NONE,
    }  # fmt: skip


def _used(row: JobRow, name: str) -> int:
    """Return how many CPUs of a node the steps that run have between them, but for the batch script's."""
    running = [step for step in row.steps if step.end is None and step.name != "batch"]
    return sum(step.cpus // step.nodes for step in running if name in expand(step.node_list))


def _sockets(session: Session, name: str, taken: int) -> list[dict[str, Any]]:
    """Return the sockets of a node, of one core each as ``scontrol show node`` says; the first ones are taken."""
    cpus = session.machine.total(session.machine.mask_of([name]), "cpus")
    states = ["ALLOCATED"] * taken + ["UNALLOCATED"] * (cpus - taken)
    return [{"index": index, "cores": [{"index": 0, "status": [state]}]} for index, state in enumerate(states)]


def step_document(row: JobRow, step: Step) -> dict[str, Any]:
    """Return a step that runs."""
    record = row.record
    batch = step.name == "batch"
    frequency = _ZERO if batch else _NONE
    gpus = row.gpus_per_node
    held = f"cpu={step.cpus}" + (f",gres/gpu={gpus * step.nodes}" if gpus else "") + f",mem=0,node={step.nodes}"
    return {
        "array": {"job_id": record.array_job_id or 0, "task_id": _task(row)},
        "cluster": record.cluster or "", "container": "", "container_id": "", "container_type": "",
        "cpu": {"frequency": {"min": frequency, "max": frequency, "governor": frequency}},
        "tres": {
            "per": {
                "cpu": "", "memory": "", "step": "", "node": f"gres/gpu:{gpus}" if gpus and not batch else "",
                "socket": "", "task": "" if batch else per_task_tres(row),
            },
            "allocation": "" if batch else held, "binding": "", "frequency": "",
        },
        "name": step.job_name, "network": "", "nodes": step.node_list, "number_cpus": 0 if batch else step.cpus,
        "number_tasks": step.ntasks, "partition": record.partition or "", "reserved_ports": "",
        "time": {"running": Number(row.now - step.start), "start": Number(step.start), "limit": Number(INFINITE)},
        "srun": {"host": "", "pid": 0}, "state": [step.state], "id": f"{record.job_id}.{step.name}", "sluid": "",
        "stderr": "", "stdin": "", "stdout": "", "stdin_expanded": "", "stdout_expanded": "", "stderr_expanded": "",
        "submit_line": "", "task": {"distribution": "Unknown" if batch else "Block"}, "user": record.user or "",
    }  # fmt: skip


def _task(row: JobRow) -> int:
    return _NO_TASK if row.record.array_task_id is None else row.record.array_task_id
