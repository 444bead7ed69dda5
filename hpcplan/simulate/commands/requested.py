"""What a job asked for, as TRES: what accounting keeps beside what the job got (sacct(1), ReqTRES, ReqMem, ReqCPUS)."""

from __future__ import annotations

from collections.abc import Mapping

from hpcplan.errors import SlurmError
from hpcplan.simulate.jobs import JobSpec, Request
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.store import Session

__all__ = ["requested_tres"]


def requested_tres(session: Session, spec: JobSpec) -> dict[str, int]:
    """Return the TRES that a job asked for, empty where its partition can no longer hold it; memory in bytes.

    A job that names no memory, or 0, asks for all of its nodes', as Slurm 22.05 keeps it.
    """
    try:
        request = session.engine.resolve(spec, anew=True)
    except SlurmError:
        return {}
    tres = {"cpu": request.cpus, "node": request.minimum, "billing": request.cpus}
    amounts: Mapping[str, int] = {"mem": _memory(spec, request, session.machine), "gres/gpu": request.gpus}
    return tres | {name: amount for name, amount in amounts.items() if amount}


def _memory(spec: JobSpec, request: Request, machine: Machine) -> int:
    per_cpu = request.memory_per_cpu_bytes or spec.memory_per_cpu_bytes or 0
    per_node = request.memory_per_node_bytes or request.node_memory_bytes or 0
    if per_cpu or per_node:
        return per_cpu * request.cpus or per_node * request.minimum
    first = request.eligible & -request.eligible
    return machine.total(first, "memory_bytes") * request.minimum
