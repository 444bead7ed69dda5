"""Nodes, partitions and reservations of ``sinfo --json`` and ``scontrol show --json``; of 22.05 the nodes."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from typing import Any, Final

from hpcplan.simulate.commands.formatting import release
from hpcplan.simulate.commands.job_json import envelope
from hpcplan.simulate.commands.json_shapes import INFINITE, Number
from hpcplan.simulate.commands.scontrol_show import gpus_used, memory_used, nodes_named, state_word
from hpcplan.simulate.machine import NodeGroupShape, PartitionShape
from hpcplan.simulate.reservations import Reservation
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import NodeRecord

__all__ = [
    "gres_in_use", "line_document", "node_document", "old_nodes", "partition_document", "reservation_document",
]  # fmt: skip

_MIB: Final = 1024**2
_NONE: Final = Number(None)


def node_document(session: Session, node: NodeRecord, group: NodeGroupShape) -> dict[str, Any]:
    """Return a node as the controller has it."""
    cpus, allocated, memory = node.cpus or 0, node.cpus_allocated or 0, (node.memory_bytes or 0) // _MIB
    used = gpus_used(session, node.name) if allocated else 0
    held = memory_used(session, node.name) // _MIB
    gpus = f",gres/gpu={node.gpus}" if node.gpus else ""
    began, when = Number(session.started), session.started if node.reason else 0
    return {
        "architecture": platform.machine(), "burstbuffer_network_address": "", "boards": 1, "boot_time": began,
        "tls_cert_last_renewal": Number(0), "cert_flags": [], "cluster_name": "", "cores": 1, "specialized_cores": 0,
        "cpu_binding": 0, "cpu_load": 0, "free_mem": Number(memory - held), "cpus": cpus, "effective_cpus": cpus,
        "specialized_cpus": "",
        "energy": {
            "average_watts": 0, "base_consumed_energy": 0, "consumed_energy": 0, "current_watts": Number(0),
            "previous_consumed_energy": 0, "last_collected": 0,
        },
        "external_sensors": {}, "extra": "", "power": {}, "features": list(node.features),
        "active_features": list(node.features), "gpu_spec": "", "gres": node.gres or "", "gres_drained": "N/A",
        "gres_used": gres_in_use(node, used), "instance_id": "", "instance_type": "",
        "last_busy": Number(session.engine.now), "mcs_label": "", "specialized_memory": 0, "name": node.name,
        "next_state_after_reboot": ["INVALID"], "address": "127.0.0.1", "hostname": node.name,
        "state": state_word(node).split("+"),
        "operating_system": f"{platform.system()} {platform.release()} {platform.version()}", "owner": "",
        "partitions": list(node.partitions), "port": 6818, "real_memory": memory, "res_cores_per_gpu": 0,
        "comment": "", "reason": node.reason or "", "reason_changed_at": Number(when),
        "reason_set_by_user": "root" if node.reason else "", "resume_after": Number(0), "reservation": "",
        "alloc_memory": held, "alloc_cpus": allocated, "alloc_idle_cpus": cpus - allocated,
        "tres_used": f"cpu={allocated}" + (f",gres/gpu={used}" if used else "") if allocated else "",
        "tres_weighted": 0.0, "slurmd_start_time": began, "sockets": cpus, "suspend_time": _NONE, "threads": 1,
        "temporary_disk": 0, "weight": group.weight, "topology": "",
        "tres": f"cpu={cpus},mem={memory}M,billing={cpus}{gpus}", "version": release(session.settings.slurm_version),
    }  # fmt: skip


def gres_in_use(node: NodeRecord, used: int) -> str:
    """Return a node's GRES with how many of them jobs have."""
    return re.sub(r":\d+$", f":{used}", node.gres) if node.gres else ""


def partition_document(session: Session, part: PartitionShape) -> dict[str, Any]:
    """Return a partition as the controller has it."""
    machine = session.machine
    nodes, cpus, gpus = part.mask.bit_count(), machine.total(part.mask, "cpus"), machine.total(part.mask, "gpus")
    memory = machine.total(part.mask, "memory_bytes") // _MIB
    tres = f"cpu={cpus},mem={memory}M,node={nodes},billing={cpus}" + (f",gres/gpu={gpus}" if gpus else "")
    memory_limits = {"partition_memory_per_cpu": _NONE, "partition_memory_per_node": Number(0)}
    default = None if part.default_time_s is None else part.default_time_s // 60
    return {
        "nodes": {"allowed_allocation": "", "configured": machine.node_list(part.mask), "total": nodes},
        "accounts": {"allowed": ",".join(part.accounts), "deny": ""},
        "groups": {"allowed": ""},
        "qos": {"allowed": ",".join(part.qos), "deny": "", "assigned": part.limits_qos or ""},
        "alternate": "",
        "tres": {"billing_weights": "", "configured": tres},
        "cluster": "",
        "flags": ["DEFAULT"] if part.default else [],
        "select_type": [],
        "cpus": {"task_binding": 0, "total": cpus},
        "defaults": {"memory_per_cpu": 0, **memory_limits, "time": Number(default), "job": ""},
        "grace_time": part.grace_time_s,
        "maximums": {
            "cpus_per_node": Number(part.max_cpus_per_node or INFINITE),
            "cpus_per_socket": Number(INFINITE),
            "memory_per_cpu": 0,
            **memory_limits,
            "nodes": Number(INFINITE if part.max_nodes is None else part.max_nodes),
            "shares": 1,
            "oversubscribe": {"jobs": 1, "flags": []},
            "time": Number(INFINITE if part.max_time_s is None else part.max_time_s // 60),
            "over_time_limit": _NONE,
        },
        "minimums": {"nodes": part.min_nodes or 0},
        "name": part.name,
        "node_sets": "",
        "preempt_mode": [],
        "priority": {"job_factor": part.priority_job_factor, "tier": part.priority_tier},
        "timeouts": {"resume": _NONE, "suspend": _NONE},
        "topology": "",
        "partition": {"state": [part.state.upper()], "exclusive": [], "oversubscribe": []},
        "suspend_time": _NONE,
    }


def line_document(
    session: Session, part: PartitionShape, nodes: list[tuple[NodeRecord, NodeGroupShape]]
) -> dict[str, Any]:
    """Return a line of sinfo: nodes of one partition that are alike."""
    records = [record for record, _ in nodes]
    cpus = [record.cpus or 0 for record in records]
    used = [record.cpus_allocated or 0 for record in records]
    memory = [(record.memory_bytes or 0) // _MIB for record in records]
    held = [memory_used(session, record.name) // _MIB for record in records]
    free = [size - taken for size, taken in zip(memory, held, strict=True)]
    first = records[0] if records else None
    states = state_word(first).split("+") if first is not None else ["UNKNOWN"]
    busy, total = sum(1 for count in used if count), len(records)
    down = total if set(states) & {"DOWN", "DRAIN"} and not busy else 0
    features = ",".join(first.features) if first is not None else ""
    gpus = gpus_used(session, first.name) if first is not None and first.cpus_allocated else 0

    def span(values: list[int]) -> dict[str, Any]:
        return {"minimum": min(values, default=0), "maximum": max(values, default=0)}

    ones = [1] * total
    return {
        "port": 6818 if records else 0,
        "node": {"state": states},
        "nodes": {
            "allocated": busy, "idle": total - busy - down, "other": down, "total": total, "hostnames": [],
            "addresses": [], "nodes": [record.name for record in records],
        },
        "cpus": {
            "allocated": sum(used), "idle": 0 if down else sum(cpus) - sum(used), "other": sum(cpus) if down else 0,
            "total": sum(cpus), **span(cpus), "load": span([0] * total), "per_node": {"max": Number(INFINITE)},
        },
        "sockets": span(cpus), "cores": span(ones), "threads": span(ones), "disk": span([0] * total),
        "memory": {
            **span(memory), "free": {name: Number(value) for name, value in span(free).items()}, "allocated": sum(held),
        },
        "weight": span([group.weight for _, group in nodes]),
        "features": {"total": features, "active": features},
        "gres": {"total": first.gres or "", "used": gres_in_use(first, gpus)} if first else {"total": "", "used": ""},
        "cluster": "", "comment": "", "extra": "",
        "reason": {
            "description": (first.reason if first is not None else None) or "",
            "time": session.started if first is not None and first.reason else 0,
            "user": "root" if first is not None and first.reason else "",
        },
        "reason_set_by_user": "root" if first is not None and first.reason else "",
        "reservation": "", "resource_spec": {"cpus": "", "memory": 0},
        "partition": partition_document(session, part),
    }  # fmt: skip


def reservation_document(session: Session, one: Reservation) -> dict[str, Any]:
    """Return a reservation as the controller has it."""
    machine = session.machine
    cpus = machine.total(one.nodes, "cpus")
    return {
        "accounts": ",".join(one.accounts), "burst_buffer": "", "core_count": cpus, "core_specializations": [],
        "end_time": Number(one.end_s), "features": "", "flags": list(one.flags), "groups": "", "licenses": "",
        "max_start_delay": 0, "name": one.name, "node_count": one.nodes.bit_count(),
        "node_list": machine.node_list(one.nodes) if one.nodes else "", "partition": one.partition or "",
        "purge_completed": {"time": _NONE}, "start_time": Number(one.start_s), "watts": _NONE, "tres": f"cpu={cpus}",
        "users": ",".join(one.users),
    }  # fmt: skip


def old_nodes(session: Session, found: Iterable[tuple[NodeRecord, NodeGroupShape]] | None = None) -> dict[str, Any]:
    """Return the document of ``sinfo --json`` of 22.05, of all nodes or of those given."""
    rows = [_old_node(session, *one) for one in (nodes_named(session, None) if found is None else found)]
    return envelope(session, "openapi/v0.0.38", "Slurm OpenAPI v0.0.38", "nodes", rows)


def _old_node(session: Session, node: NodeRecord, group: NodeGroupShape) -> dict[str, Any]:
    cpus, allocated, memory = node.cpus or 0, node.cpus_allocated or 0, (node.memory_bytes or 0) // _MIB
    used = gpus_used(session, node.name) if allocated else 0
    flags_: Iterable[str] = node.flags
    gpus = f",gres/gpu={node.gpus}" if node.gpus else ""
    return {
        "architecture": platform.machine(), "burstbuffer_network_address": "", "boards": 1,
        "boot_time": session.started, "comment": "", "cores": 1, "cpu_binding": 0, "cpu_load": 0, "extra": "",
        "free_memory": memory - memory_used(session, node.name) // _MIB, "cpus": cpus,
        "last_busy": session.engine.now, "features": ",".join(node.features),
        "active_features": ",".join(node.features), "gres": node.gres or "", "gres_drained": "N/A",
        "gres_used": gres_in_use(node, used), "mcs_label": "", "name": node.name,
        "next_state_after_reboot": "invalid", "address": node.name, "hostname": node.name,
        "state": state_word(node).partition("+")[0].lower(),
        "state_flags": list(flags_), "next_state_after_reboot_flags": [],
        "operating_system": f"{platform.system()} {platform.release()}", "owner": None,
        "partitions": list(node.partitions), "port": 6818, "real_memory": memory, "reason": node.reason or "",
        "reason_changed_at": session.started if node.reason else 0,
        "reason_set_by_user": "root" if node.reason else None, "slurmd_start_time": session.started, "sockets": cpus,
        "threads": 1, "temporary_disk": 0, "weight": group.weight,
        "tres": f"cpu={cpus},mem={memory}M,billing={cpus}{gpus}",
        "slurmd_version": release(session.settings.slurm_version),
        "alloc_memory": memory_used(session, node.name) // _MIB, "alloc_cpus": allocated,
        "idle_cpus": cpus - allocated,
        "tres_used": (f"cpu={allocated}" + (f",gres/gpu={used}" if used else "")) if allocated else None,
        "tres_weighted": float(allocated),
    }  # fmt: skip
