"""The jobs of ``sacct --json``, from 23.02 on (:mod:`.data_parser`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.data_parser import exit_code
from hpcplan.simulate.commands.jobfiles import Step
from hpcplan.simulate.commands.json_jobs import output_pattern
from hpcplan.simulate.commands.json_shapes import INFINITE, Number
from hpcplan.simulate.commands.rows import JobRow
from hpcplan.simulate.commands.squeue_fields import group_name
from hpcplan.slurm.records import JobState

__all__ = ["accounting_document"]

_MIB: Final = 1024**2
_NONE: Final = Number(None)
_TRES_IDS: Final = {"cpu": 1, "mem": 2, "energy": 3, "node": 4, "billing": 5, "gres/gpu": 1001}


def accounting_document(row: JobRow) -> dict[str, Any]:
    """Return a job as slurmdbd has it."""
    record, spec, info = row.record, row.spec, row.info
    started = record.start_time is not None
    over = record.state.final or record.state is JobState.REQUEUED
    error = info.std_err if info is not None else None
    files = {"stdin": row.path("std_in"), "stdout": row.path("std_out"), "stderr": row.path("std_err") if error else ""}
    throttle = (spec.array_limit or 0) if record.job_id == record.array_job_id else 0
    return {
        "account": record.account or "",
        "comment": {"administrator": "", "job": (record.comment or "") if over else "", "system": ""},
        "allocation_nodes": (record.nodes or 0) if started else 0,
        "array": {
            "job_id": record.array_job_id or 0,
            "limits": {"max": {"running": {"tasks": throttle}}},
            "task_id": Number(record.array_task_id),
            "task": row.array_word.strip("[]") if row.tasks else "",
        },
        "association": {
            "account": record.account or "", "cluster": record.cluster or "", "partition": "",
            "user": record.user or "", "id": 1,
        },
        "block": "",
        "cluster": record.cluster or "",
        "constraints": spec.constraint or "",
        "container": "",
        "derived_exit_code": exit_code(max((s.exit_code for s in row.steps if s.name != "batch"), default=0), 0),
        "time": {
            "elapsed": record.elapsed_s(row.now) or 0,
            "eligible": record.eligible_time or 0,
            "end": record.end_time or 0 if over else 0,
            "planned": Number(record.eligible_wait_s(row.now) or 0),
            "start": record.start_time or 0,
            "submission": record.submit_time or 0,
            "suspended": 0,
            "system": _cpu(0),
            "limit": Number(INFINITE if record.time_limit_s is None else record.time_limit_s // 60),
            "total": _cpu(record.total_cpu_s),
            "user": _cpu(record.total_cpu_s),
        },
        "exclusive": "",
        "exit_code": exit_code(record.exit_code or 0, record.signal or 0, pending=not started and not over),
        "extra": "",
        "failed_node": "",
        "flags": [*_scheduler(row), "START_RECEIVED"] if started else [],
        "group": group_name(row),
        "het": {
            "job_id": row.het[0] if row.het is not None else 0,
            "job_offset": Number(row.het[1] if row.het is not None else None),
        },
        "job_id": record.job_id,
        "name": record.name,
        "licenses": spec.licenses or "",
        "mcs": {"label": ""},
        "nodes": record.node_list or "None assigned",
        "original_sluid": "",
        "oversubscribe": "",
        "partition": record.partition or "",
        "hold": record.priority == 0,
        "priority": Number(record.priority or 0),
        "qos": record.qos or "normal",
        "qosreq": spec.qos or "",
        "required": {
            "CPUs": row.requested.get("cpu", record.cpus or 0),
            "memory_per_cpu": Number(spec.memory_per_cpu_bytes // _MIB if spec.memory_per_cpu_bytes else None),
            "memory_per_node": Number(
                None if spec.memory_per_cpu_bytes else (spec.memory_per_node_bytes or 0) // _MIB
            ),
            "memory": (spec.memory_per_node_bytes or 0) // _MIB,
        },
        "kill_request_user": (record.user or "") if record.state is JobState.CANCELLED else "",
        "restart_cnt": record.restarts,
        "reservation": {"id": 0, "name": spec.reservation or "", "requested": spec.reservation or ""},
        "script": "",
        "segment_size": spec.segment or 0,
        "sluid": "",
        "stdin_expanded": files["stdin"],
        "stdout_expanded": files["stdout"],
        "stderr_expanded": files["stderr"],
        "stdout": output_pattern(row),
        "stderr": error or "",
        "stdin": (info.std_in if info else "") or "/dev/null",
        "state": {"current": [record.state.value], "reason": "None" if started else row.reason},
        "steps": [_step(row, step) for step in row.steps],
        "submit_line": info.submit_line if info else "",
        "tres": {"allocated": _tres(record.tres) if started else [], "requested": _tres(row.requested)},
        "used_gres": "",
        "user": record.user or "",
        "wckey": {"wckey": "", "flags": []},
        "working_directory": record.work_dir or "",
    }  # fmt: skip


def _scheduler(row: JobRow) -> list[str]:
    return ["STARTED_ON_BACKFILL" if row.record.backfilled else "STARTED_ON_SCHEDULE"]


def _tres(tres: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return TRES as a list, memory in MiB."""
    rows = []
    for key, number in _TRES_IDS.items():
        if key in tres:
            kind, _, name = key.partition("/")
            count = tres[key] // _MIB if key == "mem" else tres[key]
            rows.append({"type": kind, "name": name, "id": number, "count": count})
    return rows


def _cpu(seconds: float | None) -> dict[str, int]:
    whole = int(seconds or 0)
    return {"seconds": whole, "microseconds": int(((seconds or 0) - whole) * 1e6)}


def _step(row: JobRow, step: Step) -> dict[str, Any]:
    names = list(expand(step.node_list))
    batch = step.name == "batch"
    frequency = Number(0) if batch else _NONE
    used = {"type": "mem", "name": "", "id": 2, "count": step.max_rss_bytes, "node": names[0], "task": 0}
    peak = [used] if step.max_rss_bytes is not None else []
    total = [{key: used[key] for key in ("type", "name", "id", "count")}] if peak else []
    gpus = row.record.tres.get("gres/gpu", 0) // (row.record.nodes or 1) if batch else row.gpus_per_node
    held = {"cpu": step.cpus, "mem": 0, "node": step.nodes} | ({"gres/gpu": gpus * step.nodes} if gpus else {})
    files = ("stderr", "stdin", "stdout", "stderr_expanded", "stdin_expanded", "stdout_expanded")
    return {
        "time": {
            "elapsed": max(0, (step.end or row.now) - step.start),
            "end": Number(step.end or 0),
            "start": Number(step.start),
            "suspended": 0,
            "system": _cpu(0),
            "limit": Number(INFINITE),
            "total": _cpu(step.cpu_s),
            "user": _cpu(step.cpu_s),
        },
        "exit_code": exit_code(step.exit_code, step.signal),
        "nodes": {"count": len(names), "range": step.node_list, "list": names},
        "tasks": {"count": step.ntasks},
        "pid": "",
        "CPU": {"requested_frequency": {"min": frequency, "max": frequency}, "governor": "0" if batch else "Unknown"},
        "kill_request_user": "",
        "state": [step.state],
        "statistics": {"CPU": {"actual_frequency": 0}, "energy": {"consumed": Number(0)}},
        "step": {"id": f"{row.step_prefix}.{step.name}", "name": step.job_name, **dict.fromkeys(files, "")},
        "submit_line": "",
        "task": {"distribution": "Unknown" if batch else "Block"},
        "tres": {
            "requested": {"max": peak, "min": peak, "average": total, "total": total},
            "consumed": {"max": [], "min": [], "average": [], "total": []},
            "allocated": _tres(held),
        },
    }
