"""The mock cluster's jobs as :class:`~hpcplan.slurm.records.JobRecord`, and how they end."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from hpcplan.simulate.jobs import UNLIMITED_S, Job
from hpcplan.simulate.machine import Machine
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["Cluster", "Share", "ended_record", "live_record", "natural_end", "node_shares"]

_REASONS = {
    JobState.TIMEOUT: "TimeLimit",
    JobState.FAILED: "NonZeroExitCode",
    JobState.OUT_OF_MEMORY: "OutOfMemory",
    JobState.NODE_FAIL: "NodeDown",
}


class Share(NamedTuple):
    """What a job has of one node."""

    cpus: int
    gpus: int
    memory_bytes: int


class Cluster(Protocol):
    """What a record needs of the cluster that the job is on."""

    machine: Machine
    cluster: str | None
    now: int


def natural_end(job: Job) -> tuple[JobState, int, int]:
    """Return (state, exit code, signal) of a running job that nothing disturbs; its limit comes before its own end."""
    if job.behaviour.runtime_s > job.request.limit_s:
        return JobState.TIMEOUT, 0, 0
    return JobState(job.behaviour.state), job.behaviour.exit_code, job.behaviour.signal


def ended_record(job: Job, cluster: Cluster, state: JobState, exit_code: int = 0, signal: int = 0) -> JobRecord:
    """Return what accounting keeps of an attempt that ends now."""
    use: dict[str, Any] = {}
    if job.start_time is not None:
        elapsed = cluster.now - job.start_time
        fraction = job.behaviour.cpu_fraction
        use = {
            "total_cpu_s": None if fraction is None else round(fraction * elapsed * _cpus(job, cluster.machine), 3),
            "max_rss_bytes": job.behaviour.max_rss_bytes,
            "gpu_utilisation": job.behaviour.gpu_utilisation,
        }
    reason = "DependencyNeverSatisfied" if job.dependency is not None and job.dependency.failed else _REASONS.get(state)
    return JobRecord(
        **_common(job, cluster),
        **use,
        state=state,
        reason=reason,
        end_time=cluster.now,
        exit_code=exit_code if state.final else None,
        signal=signal if state.final else None,
    )


def live_record(job: Job, cluster: Cluster, reason: str | None) -> JobRecord:
    """Return what squeue shows of a job that waits (for ``reason``) or runs."""
    state = JobState.RUNNING if job.running else JobState.PENDING
    return JobRecord(**_common(job, cluster), state=state, reason=reason)


def node_shares(job: Job, machine: Machine) -> list[Share]:
    """Return what a running job has of each of its nodes, in their order: all of whole ones, else what it asked for."""
    request = job.request
    bits = []
    nodes = job.nodes
    while nodes:
        bits.append(nodes & -nodes)
        nodes ^= bits[-1]
    if request.whole:
        kinds = ("cpus", "gpus", "memory_bytes")
        return [Share(*(machine.total(bit, kind) for kind in kinds)) for bit in bits]
    shares = []
    for bit, cpus in zip(bits, job.node_cpus or [request.node_cpus] * len(bits), strict=True):
        memory = request.memory_per_cpu_bytes * cpus or request.node_memory_bytes
        if memory is None:
            memory = machine.total(bit, "memory_bytes")
        shares.append(Share(cpus, request.node_gpus, memory))
    return shares


def _cpus(job: Job, machine: Machine) -> int:
    if job.request.whole:
        return machine.total(job.nodes, "cpus")
    return sum(share.cpus for share in node_shares(job, machine))


def _gpus(job: Job, machine: Machine) -> int:
    if job.request.whole:
        return machine.total(job.nodes, "gpus")
    return sum(share.gpus for share in node_shares(job, machine))


def _memory(job: Job, machine: Machine) -> int | None:
    """Return the bytes allocated: what was asked for, else all that whole nodes have; none where it is not counted."""
    if not job.running:
        return None
    if not job.request.whole:
        return sum(share.memory_bytes for share in node_shares(job, machine)) or None
    asked = job.request.memory_per_node_bytes
    if asked is None and machine.sharing is not None and not machine.sharing.memory:
        return None  # slurm.conf(5), SelectTypeParameters: memory is no resource that is given out
    return asked * job.nodes.bit_count() if asked is not None else machine.total(job.nodes, "memory_bytes")


def _eligible(job: Job) -> int | None:
    """Return when a job could start first, which may be to come."""
    waits = job.held or (job.dependency is not None and not job.dependency.met)
    return job.begin_time if job.eligible_time is None and not waits else job.eligible_time


def _common(job: Job, cluster: Cluster) -> dict[str, Any]:
    """Return the fields that every record has; of whole nodes all CPUs and GPUs count."""
    spec, request, machine = job.spec, job.request, cluster.machine
    nodes = job.nodes.bit_count() if job.running else request.minimum
    cpus = _cpus(job, machine) if job.running else request.cpus
    gpus = _gpus(job, machine) if job.running else request.gpus
    memory = _memory(job, machine)
    tres = {"cpu": cpus, "node": nodes, "billing": cpus}
    if memory is not None:
        tres["mem"] = memory
    if gpus:
        tres["gres/gpu"] = gpus
    return {
        "job_id": job.number,
        "name": spec.name,
        "cluster": cluster.cluster,
        "user": job.user,
        "account": spec.account,
        "partition": request.partition if job.start_time is not None else job.spec.partition or request.partition,
        "qos": spec.qos,
        "comment": spec.comment,
        "array_job_id": job.array_job_id,
        "array_task_id": job.array_task_id,
        "het_job_id": job.het_id,
        "het_offset": job.het_offset if job.het_id is not None else None,
        "dependency": str(job.dependency) or None if job.dependency is not None else None,
        "submit_time": job.submit_time,
        "eligible_time": _eligible(job),
        "start_time": job.start_time,
        "time_limit_s": None if request.limit_s == UNLIMITED_S else request.limit_s,
        "restarts": job.restarts,
        "priority": 0 if job.held else job.priority,
        "nodes": nodes,
        "node_list": job.node_list,
        "cpus": cpus,
        "gpus": gpus,
        "memory_bytes": memory,
        "tres": tres,
        "work_dir": spec.work_dir,
        "backfilled": job.backfilled,
    }
