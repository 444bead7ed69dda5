"""What if jobs had asked for what they needed: past jobs replayed on the mock cluster, as asked and right-sized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcplan.errors import InputError
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.trace_run import Schedule, on_nodes, on_processors
from hpcplan.simulate.traces import Trace, TraceJob

__all__ = ["Asked", "PastJob", "Replayed", "replay"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job asked for; ``memory_bytes`` and ``gpus`` are the whole job's, ``None`` where that is not known."""

    limit_s: int
    cpus: int
    memory_bytes: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class PastJob:
    """A job that ran ``run_s`` on ``nodes`` nodes; ``counted`` says that its wait is of interest.

    Jobs that were running when the time looked at begins are not counted, and are submitted at its beginning with what
    was left of their run.
    """

    label: str
    submit_s: int
    run_s: int
    nodes: int
    asked: Asked
    needed: Asked
    partition: str | None
    user: str | None
    account: str | None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Replayed:
    """Wait hours of the jobs counted that started in every replay, how many those are, and how many did not.

    ``sized_wait_hours``: with sizes as needed and time limits as asked; ``None`` where sizes make no difference. The
    ``*_core_hour_s`` are the mean wait of a core-hour: waits weighed by CPUs asked for × time run, in seconds.
    """

    jobs: int
    changed: int
    left_out: int
    asked_wait_hours: float
    needed_wait_hours: float
    sized_wait_hours: float | None
    asked_core_hour_s: float
    needed_core_hour_s: float


def replay(jobs: Sequence[PastJob], cluster: SlurmCluster, *, nodes_shared: bool) -> Replayed:
    """Schedule the same jobs as they asked and with what they needed, and add up how long they waited.

    Where jobs get whole nodes, under Slurm's rules on the cluster's nodes: only the time limits make a difference.
    Where they share nodes (``nodes_shared``), on as many processors as the cluster has CPUs, with EASY backfill in the
    order of submission; a job is as wide as its largest share of the CPUs, memory and GPUs (its dominant share: Ghodsi
    et al., Dominant Resource Fairness, NSDI 2011), so that fragments and partitions are not seen.

    A partition that the cluster does not have is left out of the request. Jobs that it would refuse in any of the
    replays are in none: smaller requests must not bring more work than the others had. No job is cut short by a limit
    that is right-sized: one shorter than its run, or longer than what was asked for, is refused as an error.

    The hours that jobs waited may well grow with exact limits, as small jobs no longer slip past wide ones' late
    reservations (Tsafrir and Feitelson, The Dynamics of Backfilling, IISWC 2006): hence the wait of a core-hour beside.

    Raises:
        InputError: there are no jobs.
        ValueError: a needed limit is shorter than the run that the asked one allowed, or longer than that.
    """
    if not jobs:
        raise InputError("the counterfactual needs jobs that ran, with their sizes and time limits on record")
    for job in jobs:
        if not min(job.run_s, job.asked.limit_s) <= job.needed.limit_s <= job.asked.limit_s:
            raise ValueError(f"job {job.label}: a needed limit of {job.needed.limit_s} s for {job}")
    sized = [replace(job, needed=replace(job.needed, limit_s=job.asked.limit_s)) for job in jobs]
    alike = not nodes_shared or all(job.needed == job.asked for job in sized)
    runs = [(jobs, False), (jobs, True)] if alike else [(jobs, False), (jobs, True), (sized, True)]
    taken = {job.label for job in jobs}
    while True:  # until all replays have the same jobs
        waits = [
            _waits([job for job in some if job.label in taken], cluster, needed=needed, nodes_shared=nodes_shared)
            for some, needed in runs
        ]
        started = set.intersection(*(set(found) for found in waits))
        if started == taken:
            break
        taken = started
    both = [job for job in jobs if job.counted and job.label in taken]
    hours = [sum(found[job.label] for job in both) / 3600 for found in waits]
    return Replayed(
        jobs=len(both),
        changed=sum(job.asked != job.needed for job in both),
        left_out=sum(job.counted for job in jobs) - len(both),
        asked_wait_hours=hours[0],
        needed_wait_hours=hours[1],
        sized_wait_hours=hours[0] if alike and nodes_shared else None if alike else hours[2],
        asked_core_hour_s=_of_a_core_hour(both, waits[0]),
        needed_core_hour_s=_of_a_core_hour(both, waits[1]),
    )


def _of_a_core_hour(jobs: Sequence[PastJob], waits: dict[str, int]) -> float:
    weights = [job.asked.cpus * job.run_s for job in jobs]
    total = sum(weights)
    return sum(waits[job.label] * weight for job, weight in zip(jobs, weights, strict=True)) / total if total else 0.0


def _waits(jobs: Sequence[PastJob], cluster: SlurmCluster, *, needed: bool, nodes_shared: bool) -> dict[str, int]:
    schedule = (
        _on_shares(jobs, cluster, needed) if nodes_shared else on_nodes(_trace(jobs, cluster, needed), cluster, "slurm")
    )
    return {str(row.job_id): row.start_s - row.submit_s for row in schedule.rows if row.start_s is not None}


def _on_shares(jobs: Sequence[PastJob], cluster: SlurmCluster, needed: bool) -> Schedule:
    machine = cluster.machine
    cpus, memory, gpus = (machine.total(machine.all_nodes, name) for name in ("cpus", "memory_bytes", "gpus"))
    made = []
    for position, job in enumerate(sorted(jobs, key=lambda job: (job.submit_s, job.label)), start=1):
        asked = job.needed if needed else job.asked
        widths = [asked.cpus]
        widths += [-(-asked.memory_bytes * cpus // memory)] if asked.memory_bytes and memory else []
        widths += [-(-asked.gpus * cpus // gpus)] if asked.gpus and gpus else []
        if max(widths) <= cpus:
            made.append(TraceJob(position, job.submit_s, job.run_s, asked.limit_s, max(widths), label=job.label))
    return on_processors(Trace(tuple(made), cpus, 0), cpus, "easy")


def _trace(jobs: Sequence[PastJob], cluster: SlurmCluster, needed: bool) -> Trace:
    known = cluster.machine.partitions
    made = []
    for position, job in enumerate(sorted(jobs, key=lambda job: (job.submit_s, job.label)), start=1):
        asked = job.needed if needed else job.asked
        memory = None if asked.memory_bytes is None else -(-asked.memory_bytes // job.nodes)
        spec = JobSpec(
            name=job.label, partition=job.partition if job.partition in known else None, nodes_min=job.nodes,
            nodes_max=job.nodes, ntasks=max(job.nodes, asked.cpus), time_limit_s=asked.limit_s, account=job.account,
            memory_per_node_bytes=memory, gpus_per_node=-(-asked.gpus // job.nodes) if asked.gpus else None,
        )  # fmt: skip
        made.append(
            TraceJob(
                position, job.submit_s, job.run_s, asked.limit_s, asked.cpus, label=job.label, ask=spec, user=job.user
            )
        )
    return Trace(tuple(made), None, 0)
