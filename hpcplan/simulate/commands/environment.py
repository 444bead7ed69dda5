"""The SLURM_* variables that a job and its steps find (sbatch(1), OUTPUT ENVIRONMENT VARIABLES; srun(1))."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from itertools import groupby

from hpcplan.hostlist import compress
from hpcplan.simulate.commands.formatting import at_least
from hpcplan.simulate.commands.jobfiles import JobInfo
from hpcplan.simulate.job_records import node_shares
from hpcplan.simulate.jobs import Job
from hpcplan.simulate.machine import Machine

__all__ = [
    "allocated_cpus", "batch_environment", "compact_counts", "gpu_ids", "gpus_on_node", "job_environment", "layout",
    "release_environment",
    "task_environment",
]  # fmt: skip

_MIB = 1024**2


def compact_counts(counts: Sequence[int]) -> str:
    """Return counts as Slurm writes them: ``4(x2),3``."""
    runs = ((value, len(list(same))) for value, same in groupby(counts))
    return ",".join(f"{value}(x{times})" if times > 1 else str(value) for value, times in runs)


def layout(ntasks: int, nodes: int, per_node: int | None = None) -> list[int]:
    """Return how many tasks each node gets: as many as asked for on each, else spread evenly, the first ones more."""
    if per_node:
        counts: list[int] = []
        for _ in range(nodes):
            counts.append(max(0, min(per_node, ntasks - sum(counts))))
        return counts
    return [ntasks // nodes + (node < ntasks % nodes) for node in range(nodes)]


def allocated_cpus(job: Job, machine: Machine) -> list[int]:
    """Return how many CPUs a running job has on each of its nodes, in order."""
    return [share.cpus for share in node_shares(job, machine)]


def gpus_on_node(job: Job) -> int:
    """Return how many GPUs the job asked for on each of its nodes."""
    spec = job.spec
    nodes = max(1, job.nodes.bit_count())
    if spec.gpus_per_node is not None:
        return spec.gpus_per_node
    return -(-job.request.gpus // nodes)


def job_environment(job: Job, info: JobInfo, machine: Machine, cluster: str) -> dict[str, str]:
    """Return what every process of a job finds."""
    spec, request = job.spec, job.request
    nodes = job.nodes.bit_count()
    names = machine.names_of(job.nodes)
    env = {
        "SLURM_CLUSTER_NAME": cluster,
        "SLURM_JOB_ID": job.id,
        "SLURM_JOBID": job.id,
        "SLURM_JOB_NAME": spec.name,
        "SLURM_JOB_NODELIST": compress(names),
        "SLURM_NODELIST": compress(names),
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NNODES": nodes,
        "SLURM_JOB_PARTITION": request.partition,
        "SLURM_JOB_CPUS_PER_NODE": compact_counts(allocated_cpus(job, machine)),
        "SLURM_SUBMIT_DIR": info.work_dir,
        "SLURM_SUBMIT_HOST": socket.gethostname(),
        "SLURM_JOB_USER": info.user,
        "SLURM_JOB_UID": info.uid,
        "SLURM_JOB_GID": info.gid,
        "SLURM_JOB_ACCOUNT": spec.account,
        "SLURM_JOB_QOS": spec.qos or "normal",
        "SLURM_JOB_RESERVATION": spec.reservation,
        "SLURM_TASKS_PER_NODE": compact_counts(layout(info.ntasks, nodes, spec.ntasks_per_node)),
        "SLURM_NTASKS": info.ntasks if info.ntasks_given else None,
        "SLURM_NPROCS": info.ntasks if info.ntasks_given else None,
        "SLURM_NTASKS_PER_NODE": spec.ntasks_per_node,
        "SLURM_CPUS_PER_TASK": spec.cpus_per_task if info.cpus_per_task_given else None,
        "SLURM_MEM_PER_NODE": spec.memory_per_node_bytes and spec.memory_per_node_bytes // _MIB,
        "SLURM_MEM_PER_CPU": spec.memory_per_cpu_bytes and spec.memory_per_cpu_bytes // _MIB,
        "SLURM_MEM_PER_GPU": spec.memory_per_gpu_bytes and spec.memory_per_gpu_bytes // _MIB,
        "SLURM_GPUS": spec.gpus,
        "SLURM_GPUS_PER_NODE": spec.gpus_per_node,
        "SLURM_GPUS_PER_TASK": spec.gpus_per_task,
        "SLURM_OPEN_MODE": spec.open_mode and spec.open_mode[:1].lower(),
        "SLURM_PRIO_PROCESS": 0,
        "SLURM_RESTART_COUNT": job.restarts or None,
        **_array(job, info),
        **_gpus(job),
    }
    return {name: str(value) for name, value in env.items() if value is not None}


def release_environment(job: Job, info: JobInfo, version: str) -> dict[str, str]:
    """Return what releases after 22.05 tell a job beside that."""
    spec, env = job.spec, {}
    if at_least(version, "23.02") and job.start_time is not None:
        env = {"SLURM_JOB_START_TIME": str(job.start_time), "SLURM_JOB_END_TIME": str(job.limit_end)}
    if at_least(version, "24.05") and (info.cpus_per_task_given or spec.gpus_per_task is not None):
        kind = f":{spec.gpu_type}" if spec.gpu_type else ""
        cpus = [f"cpu={spec.cpus_per_task}"] if info.cpus_per_task_given else []
        gpus = [f"gres/gpu{kind}={spec.gpus_per_task}"] if spec.gpus_per_task is not None else []
        env["SLURM_TRES_PER_TASK"] = ",".join([*cpus, *gpus])
    if at_least(version, "24.11"):
        env["SLURM_OOM_KILL_STEP"] = "0"
    return env


def _array(job: Job, info: JobInfo) -> dict[str, int | None]:
    if job.array_job_id is None:
        return {}
    tasks = job.spec.array
    step = tasks[1] - tasks[0] if len(tasks) > 1 else 1
    return {
        "SLURM_ARRAY_JOB_ID": job.array_job_id,
        "SLURM_ARRAY_TASK_ID": job.array_task_id,
        "SLURM_ARRAY_TASK_COUNT": len(tasks),
        "SLURM_ARRAY_TASK_MIN": tasks[0],
        "SLURM_ARRAY_TASK_MAX": tasks[-1],
        "SLURM_ARRAY_TASK_STEP": step,
    }


def _gpus(job: Job) -> dict[str, str | int]:
    count = gpus_on_node(job)
    if not count:
        return {}
    ids = ",".join(str(index) for index in range(count))
    return {"SLURM_JOB_GPUS": ids, "SLURM_GPUS_ON_NODE": count, **gpu_ids(range(count))}


def gpu_ids(indexes: Iterable[int]) -> dict[str, str]:
    """Return the variables that say which GPUs of a node a process may use."""
    ids = ",".join(str(index) for index in indexes)
    return {"CUDA_VISIBLE_DEVICES": ids, "ROCR_VISIBLE_DEVICES": ids, "GPU_DEVICE_ORDINAL": ids}


def batch_environment(job: Job, machine: Machine) -> dict[str, str]:
    """Return what the batch script finds beside what every process does: it is task 0 on the first node."""
    first = machine.names_of(job.nodes)[0]
    return {
        "ENVIRONMENT": "BATCH",
        "SLURM_CPUS_ON_NODE": str(allocated_cpus(job, machine)[0]),
        "SLURM_GTIDS": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_NODE_ALIASES": "(null)",
        "SLURM_TOPOLOGY_ADDR": first,
        "SLURM_TOPOLOGY_ADDR_PATTERN": "node",
        "SLURMD_NODENAME": first,
    }


def task_environment(
    names: Sequence[str], counts: Sequence[int], step: int, cpus: Sequence[int]
) -> list[dict[str, str]]:
    """Return what each task of a step finds of its own: its place among ``counts`` tasks on each of ``names``."""
    total = sum(counts)
    shared = {
        "SLURM_STEP_ID": step,
        "SLURM_STEPID": step,
        "SLURM_STEP_NODELIST": compress(names),
        "SLURM_STEP_NUM_NODES": len(names),
        "SLURM_STEP_NUM_TASKS": total,
        "SLURM_STEP_TASKS_PER_NODE": compact_counts(counts),
        "SLURM_TASKS_PER_NODE": compact_counts(counts),
        "SLURM_NTASKS": total,
        "SLURM_NPROCS": total,
        "SLURM_NNODES": len(names),
        "SLURM_NODELIST": compress(names),
        "SLURM_DISTRIBUTION": "block",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        "SLURM_SRUN_COMM_HOST": "127.0.0.1",
    }
    result = []
    rank = 0
    for node, (name, count) in enumerate(zip(names, counts, strict=True)):
        ranks = list(range(rank, rank + count))
        for local in range(count):
            own = {
                "SLURM_PROCID": rank,
                "SLURM_NODEID": node,
                "SLURM_LOCALID": local,
                "SLURM_GTIDS": ",".join(map(str, ranks)),
                "SLURM_CPUS_ON_NODE": cpus[node],
                "SLURMD_NODENAME": name,
                "SLURM_TOPOLOGY_ADDR": name,
            }
            result.append({key: str(value) for key, value in {**shared, **own}.items()})
            rank += 1
    return result
