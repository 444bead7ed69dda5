"""``squeue --json`` and ``sacct --json`` in the shapes of Slurm 22.05 (openapi v0.0.38 and dbv0.0.38)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.data_parser import yaml_text
from hpcplan.simulate.commands.formatting import release
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.options import Words
from hpcplan.simulate.commands.reply import Call
from hpcplan.simulate.commands.rows import JobRow, expected_start
from hpcplan.simulate.commands.squeue_fields import tres_text
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import JobState

__all__ = ["envelope", "sacct_json", "say_old", "squeue_json"]

_MIB: Final = 1024**2


def envelope(session: Session, plugin: str, name: str, key: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the document around a list."""
    parts = [*(int(part) for part in session.settings.slurm_version.split(".")[:3] if part.isdecimal()), 0, 0]
    return {
        "meta": {
            "plugin": {"type": plugin, "name": name},
            "Slurm": {
                "version": {"major": parts[0], "micro": parts[2], "minor": parts[1]},
                "release": release(session.settings.slurm_version),
            },
        },
        "errors": [],
        key: rows,
    }


def say_old(call: Call, words: Words, document: dict[str, Any]) -> None:
    """Print a document as 22.05 does, as JSON or YAML."""
    if "yaml" in words:
        call.reply.out += yaml_text(_without_empty(document))
    else:
        call.reply.say(json.dumps(document, indent=2))


def _without_empty(value: Any) -> Any:
    """Return a value with nothing in the place of empty texts, as 22.05's YAML has it."""
    if isinstance(value, dict):
        return {key: _without_empty(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_empty(inner) for inner in value]
    return None if value == "" else value


def squeue_json(session: Session, rows: Iterable[JobRow]) -> dict[str, Any]:
    """Return the document of ``squeue --json``."""
    jobs = [_squeue_job(session, row) for row in rows]
    return envelope(session, "openapi/v0.0.38", "Slurm OpenAPI v0.0.38", "jobs", jobs)


def _squeue_job(session: Session, row: JobRow) -> dict[str, Any]:
    record, spec, info = row.record, row.spec, row.info
    start, end = record.start_time or 0, record.end_time or 0
    if row.state is JobState.PENDING and (slot := expected_start(session, row)) is not None:
        start = slot[0]
    if not record.state.final:
        end = start + record.time_limit_s if start and record.time_limit_s is not None else 0
    per_node = spec.memory_per_node_bytes
    kind = f"{spec.gpu_type}:" if spec.gpu_type else ""
    return {
        "account": record.account or "",
        "accrue_time": record.eligible_time or 0,
        "admin_comment": "",
        "array_job_id": record.array_job_id or 0,
        "array_task_id": record.array_task_id,
        "array_max_tasks": spec.array_limit or 0,
        "array_task_string": row.array_word.strip("[]") if row.tasks else "",
        "association_id": 1,
        "batch_features": "",
        "batch_flag": info.batch if info else True,
        "batch_host": _first(record.node_list),
        "flags": ["JOB_WAS_RUNNING"] if record.start_time is not None else [],
        "burst_buffer": "",
        "burst_buffer_state": "",
        "cluster": record.cluster or "",
        "cluster_features": "",
        "command": " ".join([info.command, *info.arguments]) if info and info.command else "",
        "comment": record.comment or "",
        "container": "",
        "contiguous": False,
        "core_spec": None,
        "thread_spec": None,
        "cores_per_socket": None,
        "billable_tres": float(record.tres.get("billing", 0)) if record.start_time is not None else None,
        "cpus_per_task": spec.cpus_per_task if info and info.cpus_per_task_given else None,
        "cpu_frequency_minimum": None,
        "cpu_frequency_maximum": None,
        "cpu_frequency_governor": None,
        "cpus_per_tres": "",
        "deadline": 0,
        "delay_boot": 0,
        "dependency": record.dependency or "",
        "derived_exit_code": max((step.exit_code for step in row.steps if step.name != "batch"), default=0) << 8,
        "eligible_time": record.eligible_time or 0,
        "end_time": end,
        "excluded_nodes": spec.exclude or "",
        "exit_code": ((record.exit_code or 0) << 8) + (record.signal or 0),
        "features": spec.constraint or "",
        "federation_origin": "",
        "federation_siblings_active": "",
        "federation_siblings_viable": "",
        "gres_detail": [],
        "group_id": info.gid if info else 0,
        "group_name": "",
        "job_id": record.job_id,
        "job_resources": _resources(row),
        "job_state": row.state.value,
        "last_sched_evaluation": start or row.now,
        "licenses": "",
        "max_cpus": 0,
        "max_nodes": spec.nodes_max or 0,
        "mcs_label": "",
        "memory_per_tres": "",
        "name": record.name,
        "nodes": row.node_list,
        "nice": spec.nice or None,
        "tasks_per_core": None,
        "tasks_per_node": spec.ntasks_per_node or 0,
        "tasks_per_socket": None,
        "tasks_per_board": 0,
        "cpus": record.cpus or 0,
        "node_count": record.nodes or 0,
        "tasks": info.ntasks if info else 1,
        "het_job_id": row.het[0] if row.het is not None else 0,
        "het_job_id_set": row.het_id_set,
        "het_job_offset": row.het[1] if row.het is not None else 0,
        "partition": record.partition or "",
        "prefer": "",
        "memory_per_node": per_node // _MIB if per_node else None,
        "memory_per_cpu": spec.memory_per_cpu_bytes // _MIB if spec.memory_per_cpu_bytes else None,
        "minimum_cpus_per_node": spec.cpus_per_task * max(1, spec.ntasks_per_node or 1),
        "minimum_tmp_disk_per_node": 0,
        "preempt_time": 0,
        "pre_sus_time": 0,
        "priority": record.priority or 0,
        "profile": None,
        "qos": record.qos or "normal",
        "reboot": False,
        "required_nodes": spec.nodelist or "",
        "requeue": spec.requeue,
        "resize_time": 0,
        "restart_cnt": record.restarts,
        "resv_name": spec.reservation or "",
        "shared": "none" if spec.exclusive else None,
        "show_flags": ["SHOW_ALL", "SHOW_DETAIL", "SHOW_LOCAL"],
        "sockets_per_board": 0,
        "sockets_per_node": None,
        "start_time": start,
        "state_description": "",
        "state_reason": row.reason.partition(",")[0],
        "standard_error": row.path("std_err"),
        "standard_input": row.path("std_in"),
        "standard_output": row.path("std_out"),
        "submit_time": record.submit_time or 0,
        "suspend_time": 0,
        "system_comment": "",
        "time_limit": None if record.time_limit_s is None else record.time_limit_s // 60,
        "time_minimum": 0,
        "threads_per_core": None,
        "tres_bind": "",
        "tres_freq": "",
        "tres_per_job": f"gres:gpu:{kind}{spec.gpus}" if spec.gpus is not None else "",
        "tres_per_node": f"gres:gpu:{kind}{spec.gpus_per_node}" if spec.gpus_per_node is not None else "",
        "tres_per_socket": "",
        "tres_per_task": f"gres:gpu:{kind}{spec.gpus_per_task}" if spec.gpus_per_task is not None else "",
        "tres_req_str": tres_text(row.requested),
        "tres_alloc_str": tres_text(record.tres) if record.start_time is not None else "",
        "user_id": info.uid if info else 0,
        "user_name": record.user or "",
        "wckey": "",
        "current_working_directory": record.work_dir or "",
    }


def _first(node_list: str | None) -> str:
    return next(iter(expand(node_list)), "") if node_list else ""


def _resources(row: JobRow) -> dict[str, Any]:
    record = row.record
    if record.start_time is None or not record.node_list:
        return {}
    names = list(expand(record.node_list))
    return {
        "nodes": record.node_list,
        "allocated_cpus": record.cpus or 0,
        "allocated_hosts": len(names),
        "allocated_nodes": [
            {"nodename": name, "cpus_used": 0, "memory_used": 0, "memory_allocated": 0} for name in names
        ],
    }


# sacct --------------------------------------------------------------------------------------------------------------


def sacct_json(session: Session, rows: Iterable[JobRow]) -> dict[str, Any]:
    """Return the document of ``sacct --json``."""
    jobs = [_sacct_job(row) for row in rows]
    return envelope(session, "openapi/dbv0.0.38", "Slurm OpenAPI DB v0.0.38", "jobs", jobs)


def _array_limit(row: JobRow) -> int:
    """Return how many tasks may run at once: slurmdbd knows it of the record with the array's own id alone."""
    return (row.spec.array_limit or 0) if row.record.job_id == row.record.array_job_id else 0


def _sacct_job(row: JobRow) -> dict[str, Any]:
    record, info = row.record, row.info
    over = record.state.final or record.state is JobState.REQUEUED
    kill = info.uid if info and record.state is JobState.CANCELLED else None
    return {
        "account": record.account or "",
        "comment": {"administrator": None, "job": record.comment, "system": None},
        "allocation_nodes": (record.nodes or 0) if record.start_time is not None else 0,
        "array": {
            "job_id": record.array_job_id or 0,
            "limits": {"max": {"running": {"tasks": _array_limit(row)}}},
            "task": hex(sum(1 << task for task in row.tasks)) if row.tasks else None,
            "task_id": record.array_task_id,
        },
        "association": {
            "account": record.account or "", "cluster": record.cluster or "", "partition": None,
            "user": record.user or "",
        },
        "cluster": record.cluster or "",
        "constraints": row.spec.constraint or "",
        "container": None,
        "derived_exit_code": _exit(max((s.exit_code for s in row.steps if s.name != "batch"), default=0), 0),
        "time": {
            "elapsed": record.elapsed_s(row.now) or 0,
            "eligible": record.eligible_time or 0,
            "end": record.end_time or 0 if over else 0,
            "start": record.start_time or 0,
            "submission": record.submit_time or 0,
            "suspended": 0,
            "system": _cpu(0),
            "limit": None if record.time_limit_s is None else record.time_limit_s // 60,
            "total": _cpu(record.total_cpu_s),
            "user": _cpu(record.total_cpu_s),
        },
        "exit_code": _exit(record.exit_code or 0, record.signal or 0, pending=not over),
        "flags": ["CLEAR_SCHEDULING", "STARTED_ON_BACKFILL" if record.backfilled else "STARTED_ON_SCHEDULE"]
        if record.start_time is not None
        else [],
        "group": "",
        "het": {
            "job_id": row.het[0] if row.het is not None else 0,
            "job_offset": row.het[1] if row.het is not None else None,
        },
        "job_id": record.job_id,
        "name": record.name,
        "mcs": {"label": ""},
        "nodes": record.node_list or "None assigned",
        "partition": record.partition or "",
        "priority": record.priority or 0,
        "qos": record.qos or "normal",
        "required": {
            "CPUs": row.job.request.cpus if row.job else record.cpus or 0,
            "memory": (row.spec.memory_per_node_bytes or 0) // _MIB,
        },
        "kill_request_user": kill,
        "reservation": {"id": 0, "name": 0},
        "state": {"current": record.state.value, "reason": row.reason},
        "steps": [_sacct_step(row, step) for step in row.steps],
        "tres": {"allocated": _tres(record.tres) if record.start_time else [], "requested": _tres(row.requested)},
        "user": record.user or "",
        "wckey": {"wckey": "", "flags": []},
        "working_directory": record.work_dir or "",
    }  # fmt: skip


_TRES_IDS: Final = {"cpu": 1, "mem": 2, "energy": 3, "node": 4, "billing": 5, "gres/gpu": 1001}


def _tres(tres: Any) -> list[dict[str, Any]]:
    rows = []
    for key, number in _TRES_IDS.items():
        if tres.get(key):
            kind, _, name = key.partition("/")
            count = tres[key] // _MIB if key == "mem" else tres[key]
            rows.append({"type": kind, "name": name or None, "id": number, "count": count})
    return rows


def _cpu(seconds: float | None) -> dict[str, int]:
    whole = int(seconds or 0)
    return {"seconds": whole, "microseconds": int(((seconds or 0) - whole) * 1e6)}


def _exit(code: int, number: int, *, pending: bool = False) -> dict[str, Any]:
    if pending:
        return {"status": "PENDING", "return_code": 0}
    if number:
        import signal

        name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
        return {"status": "SIGNALED", "return_code": code, "signal": {"signal_id": number, "name": name[3:]}}
    return {"status": "ERROR" if code else "SUCCESS", "return_code": code}


def _sacct_step(row: JobRow, step: Step) -> dict[str, Any]:
    names = list(expand(step.node_list))
    end = step.end if step.end is not None else 0
    none: dict[str, list[Any]] = {"max": [], "min": [], "average": [], "total": []}
    used = {"type": "mem", "name": None, "id": 2, "count": step.max_rss_bytes, "node": names[0], "task": 0}
    return {
        "nodes": {"list": names, "count": len(names), "range": step.node_list},
        "tres": {
            "requested": {**none, "max": [used]} if step.max_rss_bytes is not None else none,
            "consumed": none,
            "allocated": _tres({"cpu": step.cpus, "node": step.nodes}),
        },
        "time": {
            "elapsed": max(0, (end or row.now) - step.start), "end": end, "start": step.start, "suspended": 0,
            "system": _cpu(0), "total": _cpu(step.cpu_s), "user": _cpu(step.cpu_s),
        },
        "exit_code": _exit(step.exit_code, step.signal),
        "tasks": {"count": step.ntasks},
        "pid": None,
        "CPU": {"requested_frequency": {"min": 0, "max": 0}, "governor": []},
        "kill_request_user": None,
        "state": step.state,
        "statistics": {"CPU": {"actual_frequency": 0}, "energy": {"consumed": 0}},
        "step": {
            "job_id": row.record.job_id, "het": {"component": None}, "id": step.name, "name": step.job_name,
        },
        "task": {"distribution": "Unknown" if step.name == "batch" else "Block"},
    }  # fmt: skip
