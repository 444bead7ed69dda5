"""Small clusters and jobs for the tests of the mock cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Arrival, Behaviour, JobSpec
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.policies import Policy, policy_named
from hpcplan.simulate.traces import TraceJob

GIB = 1024**3

SITE = """\
name: tiny
node_groups:
  big:
    nodes: b[1-6]
    cpus: 64
    memory: 512 GiB
    accelerators: {type: H100-SXM5-80GB, count: 8, gres: h100}
    intra_node: {kind: nvswitch, bandwidth: 450 GB/s}
    nics: {count: 8, bandwidth: 400 Gb/s}
    features: [h100, nvme]
  small:
    nodes: s[1-2]
    cpus: 16
    memory: 64 GiB
    nics: {bandwidth: 100 Gb/s}
partitions:
  batch: {nodes: big, default: true, max_time: 24 h, default_time: 1 h}
  debug: {nodes: [big, small], max_time: 30 min, max_nodes: 2}
fabric:
  levels: [{name: leaf, size: 8}]
slurm: {version: "23.11", cluster: tinycluster}
"""


def write_site(folder: Path, text: str = SITE) -> Path:
    """Write the site file of these tests."""
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def machine(nodes: int = 4, *, max_time_s: int | None = None, max_nodes: int | None = None) -> Machine:
    """Return ``nodes`` nodes n1, n2, … with 16 CPUs and 8 GPUs each, in a partition ``batch``; ``half`` has the first
    half of them.
    """
    mask = (1 << nodes) - 1
    group = NodeGroupShape(mask, cpus=16, memory_bytes=64 * GIB, gpus=8, gpu_type="h100", features=("h100",))
    partitions = {
        "batch": PartitionShape("batch", mask, default=True, max_time_s=max_time_s, max_nodes=max_nodes),
        "half": PartitionShape("half", (1 << max(1, nodes // 2)) - 1, max_time_s=max_time_s),
    }
    return Machine(tuple(f"n{number}" for number in range(1, nodes + 1)), (group,), partitions)


def engine(nodes: int = 4, policy: str | Policy = "backfill", *, now: int = 0, **partition: Any) -> Engine:
    """Return an idle cluster."""
    chosen = policy_named(policy) if isinstance(policy, str) else policy
    return Engine(machine(nodes, **partition), chosen, now=now, cluster="tiny")


def job(nodes: int = 1, limit_s: int = 600, **options: Any) -> JobSpec:
    """Return a specification; ``limit_s`` is a whole number of minutes."""
    return JobSpec(**{"nodes_min": nodes, "nodes_max": nodes, "time_limit_s": limit_s, "name": "job", **options})


def submit(
    cluster: Engine, nodes: int = 1, limit_s: int = 600, run_s: int = 300, user: str = "ana", **options: Any
) -> int:
    """Submit a job that would run ``run_s`` seconds."""
    return cluster.submit(job(nodes, limit_s, **options), Behaviour(run_s), user)


@dataclass
class Arrivals:
    """A list of jobs as a source of arrivals."""

    jobs: Sequence[Arrival]
    position: int = 0

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return self.jobs[self.position].time if self.position < len(self.jobs) else None

    def pop(self) -> Arrival:
        """Return the next job."""
        self.position += 1
        return self.jobs[self.position - 1]


def arrivals(jobs: Sequence[TraceJob], *, shortest_first: bool = False) -> Arrivals:
    """Return a trace as arrivals: equal priorities, or the higher the shorter the limit."""
    return Arrivals(
        [
            Arrival(
                one.submit_s,
                "trace",
                JobSpec(
                    name=str(one.id),
                    nodes_min=one.procs,
                    nodes_max=one.procs,
                    time_limit_s=one.limit_s,
                    priority=10**9 - one.limit_s if shortest_first else 1,
                ),
                Behaviour(one.run_s),
            )
            for one in sorted(jobs, key=lambda one: one.submit_s)
        ]
    )


def starts(cluster: Engine) -> dict[int, int | None]:
    """Return the start of every job by id, of those that ended and those that live."""
    found = {record.job_id: record.start_time for record in cluster.ended}
    return found | {one.id: one.start_time for one in cluster.jobs.values()}


def write_script(folder: Path, text: str = "", name: str = "job.sbatch") -> Path:
    """Write a batch script with these lines after ``#!/bin/bash``."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\nsrun hostname\n")
    return path
