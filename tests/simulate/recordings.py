"""Recorded runs of a real slurmctld 22.05.8, and what the simulator makes of the same jobs.

Each folder of ``data/recordings`` was written by ``tests/slurm/record_schedule.py``: the jobs with what became of them,
the slurm.conf (and topology, accounting and reservations, if there are any), and the moments at which the controller's
threads had their turns. What is compared with ``moments`` are the decisions of the schedulers alone; without, the
controller's clock is modelled too, from when it was started.

    python -m tests.simulate.recordings        prints a table of all of them
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

from hpcplan.hostlist import expand
from hpcplan.simulate.moments import read_moments
from hpcplan.simulate.reservations import read_reservations
from hpcplan.simulate.sacctmgr_files import read_accounting
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.slurm_settings import with_slurmdbd
from hpcplan.simulate.table_trace import read_table
from hpcplan.simulate.trace_run import on_nodes

FOLDER = Path(__file__).parent / "data" / "recordings"
ABOUT = {
    "cpus": "CPUs shared",
    "fair-share": "whole nodes, fair share of accounts and users, age, job size",
    "fair-share-2": "whole nodes, fair share of accounts and users, age, load 30",
    "favour-small": "whole nodes, multifactor, two partitions, nice",
    "gpus": "GPUs and cores shared",
    "gpus-and-cpus": "GPUs, cores and whole nodes",
    "gres-other": "GPUs and other GRES, cores",
    "least-loaded": "CPUs shared, the least loaded nodes first (CR_LLN)",
    "limits": "whole nodes, limits of QOS, a partition's QOS, accounts and users",
    "memory": "memory and cores shared",
    "mixed": "memory, GPUs, cores, whole nodes",
    "partitions": "whole nodes, three partitions, a tier, job size",
    "preempt-cancel": "whole nodes, preemption by partition, jobs cancelled",
    "preempt-requeue": "whole nodes, preemption by partition, jobs requeued, load 30",
    "priorities": "whole nodes, given priorities, 60 s resolution",
    "qos-limits": "whole nodes, QOS with limits and priorities",
    "reservations": "whole nodes, reservations of users and for maintenance",
    "sockets": "whole sockets (CR_Socket)",
    "sockets-memory": "whole sockets of two cores, memory (CR_Socket_Memory)",
    "tiers-shared": "CPUs and memory shared, tiers, dependencies",
    "tiers-shared-2": "CPUs shared, tiers, multifactor",
    "tree": "whole nodes under a tree of switches",
    "tree-cons": "whole nodes under a tree, select/cons_tres",
    "tree-shared": "CPUs shared under a tree, dependencies",
    "tree-tiers": "whole nodes under a tree, a tier, job size",
    "weights": "whole nodes, half of them preferred",
}
UNSEEN = {  # recorded and compared when the code was done: nothing was changed for them
    "fair-share", "fair-share-2", "favour-small", "gpus", "least-loaded", "mixed", "partitions", "preempt-requeue",
    "sockets",
    "tiers-shared-2", "tree-cons", "tree-tiers", "weights",
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """How the starts of a simulation lie to those of a recording."""

    jobs: int
    within_2_s: float
    within_5_s: float
    same_nodes: float
    mean_wait: float  # relative error

    def __str__(self) -> str:
        shares = f"{self.within_2_s:.0%} | {self.within_5_s:.0%} | {self.same_nodes:.0%}"
        return f"{self.jobs} | {shares} | {self.mean_wait:+.1%}"


def names() -> list[str]:
    """The recordings that there are."""
    return sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


def cluster(name: str, *, moments: bool) -> SlurmCluster:
    """Read the cluster of a recording."""
    folder = FOLDER / name
    topology = folder / "topology.conf"
    found = read_slurm_cluster(folder / "slurm.conf", topology if topology.exists() else None)
    recorded = read_moments(folder / "moments.json")
    started_s, started_ms = divmod(recorded.started_ms, 1000)
    settings = replace(found.settings, started_s=started_s, started_ms=started_ms, clock_s=recorded.clock_s)
    accounting = [file for file in (folder / "accounts.cfg", folder / "qos.txt") if file.exists()]
    if accounting:
        settings = with_slurmdbd(settings)
        found = replace(found, policy=read_accounting(*accounting))
    if (file := folder / "reservations.txt").exists():
        found = replace(found, reservations=tuple(read_reservations(file, found.machine).by_name.values()))
    return replace(found, settings=settings, moments=recorded if moments else None)


def compare(name: str, *, moments: bool) -> Comparison:
    """Simulate the jobs of a recording, and hold the result against what they really did."""
    table = FOLDER / name / "jobs.csv"
    rows = on_nodes(read_table(table), cluster(name, moments=moments), "slurm").rows
    with table.open(newline="") as stream:
        real = list(csv.DictReader(stream))
    errors, same, waits = [], 0, 0.0
    for row, one in zip(rows, real, strict=True):
        if (row.start_s is None) != (not one["start_s"]):
            errors.append(float("inf"))
        elif row.start_s is not None:
            errors.append(row.start_s - float(one["start_s"]))
            waits += float(one["start_s"]) - float(one["submit_s"])
            same += expand(row.nodelist or "") == expand(one["nodelist"])
    count = len(errors)
    near = [sum(abs(error) <= most for error in errors) / count for most in (2, 5)]
    mean = sum(error for error in errors if abs(error) < float("inf")) / waits
    return Comparison(count, near[0], near[1], same / count, mean)


def main() -> None:
    """Print the table of the documentation."""
    print("| recording | jobs | within 2 s | 5 s | nodes | wait | clock modelled: 2 s | 5 s | nodes | wait |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in sorted(names(), key=lambda name: (name not in UNSEEN, name)):
        about = ABOUT.get(name, name) + ("" if name in UNSEEN else " *")
        print(f"| {about} | {compare(name, moments=True)} | {str(compare(name, moments=False)).partition(' | ')[2]} |")
    print("\n\\* something was mended for it; the others were recorded when the code was done")


if __name__ == "__main__":
    main()
