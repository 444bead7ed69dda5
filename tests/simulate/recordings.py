"""Recorded runs of a real slurmctld 22.05.8 (``blocks``: 25.11.7), and what the simulator makes of the same jobs.

Each folder of ``data/recordings`` was written by ``tests/slurm/record_schedule.py``: the jobs with what became of them,
the slurm.conf (and topology, accounting and reservations, if there are any), and the moments at which the controller's
threads had their turns. What is compared with ``moments`` are the decisions of the schedulers alone; without, the
controller's clock is modelled too, from when it was started.

    python -m tests.simulate.recordings        prints a table of all of them
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from hpcplan.hostlist import expand
from hpcplan.simulate.moments import read_moments
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.reservations import read_reservations
from hpcplan.simulate.sacctmgr_files import read_accounting
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.slurm_settings import with_slurmdbd
from hpcplan.simulate.table_trace import read_table
from hpcplan.simulate.trace_run import on_nodes

AGAIN = ".again"  # ends the names of second runs of the same jobs
FOLDER = Path(__file__).parent / "data" / "recordings"
ABOUT = {
    "blocks": "whole nodes in blocks (topology/block of Slurm 25.11), segments",
    "builtin": "whole nodes, sched/builtin, two partitions, a tier, nice",
    "complete-wait": "whole nodes under a tree, Epilog, CompleteWait",
    "complete-wait-2": "CPUs shared, CompleteWait",
    "contain": "whole nodes under a tree, PrologFlags=Contain",
    "cpus": "CPUs shared",
    "cpus-epilog": "CPUs shared, Epilog",
    "defaults": "whole nodes, no SchedulerParameters, three partitions, nice",
    "defer": "whole nodes under a tree, Epilog, defer",
    "few-tests-epilog": "whole nodes, bf_max_job_test and other limits of the schedulers, Epilog",
    "fair-share": "whole nodes, fair share of accounts and users, age, job size",
    "fair-share-2": "whole nodes, fair share of accounts and users, age",
    "favour-small": "whole nodes, multifactor, two partitions, nice",
    "favour-small-epilog": "whole nodes, multifactor, two partitions, nice, Epilog",
    "few-tests": "whole nodes, bf_max_job_test and other limits of the schedulers",
    "gpus": "GPUs and cores shared",
    "gpus-and-cpus": "GPUs, cores and whole nodes",
    "grace": "whole nodes, preemption by partition, jobs cancelled after GraceTime",
    "grace-requeue": "whole nodes, preemption by partition, jobs requeued after GraceTime",
    "gpus-and-cpus-epilog": "GPUs, cores and whole nodes, Epilog",
    "gpus-epilog": "GPUs and cores shared, Epilog",
    "gres-other": "GPUs and other GRES, cores",
    "least-loaded": "CPUs shared, the least loaded nodes first (CR_LLN)",
    "like-bf10": "45 jobs of limits of whole minutes on 8 whole nodes, a look a second, bf_interval=10",
    "like-cons": "the same kind, CPUs shared, bf_interval=1",
    "like-defaults": "the same kind, no SchedulerParameters",
    "like-fair-share": "the same kind, fair share every second",
    "like-few-tests": "the same kind, bf_max_job_test=6, default_queue_depth=4",
    "like-fifo-partitions": "the same kind, sched/builtin, two partitions",
    "like-fifo-priorities": "the same kind, sched/builtin, given priorities",
    "like-fifo-tree": "the same kind, sched/builtin, under a tree",
    "like-job-size": "the same kind, multifactor by job size",
    "like-limits": "the same kind, limits of partitions, EnforcePartLimits",
    "like-partition-factor": "the same kind, multifactor by partition",
    "like-priorities": "the same kind, given priorities",
    "like-qos": "the same kind, multifactor by QOS",
    "like-resolution60": "the same kind, bf_resolution=60, bf_interval=5",
    "like-sched60": "the same kind, sched_interval=60",
    "like-tiers": "the same kind, a partition of a higher tier",
    "like-tree": "the same kind, under a tree, --switches",
    "like-tree-plain": "the same kind, under a tree of three levels",
    "like-two-partitions": "the same kind, two partitions of other nodes",
    "like-window": "the same kind, bf_window=2",
    "limits": "whole nodes, limits of QOS, a partition's QOS, accounts and users",
    "lln-partition": "CPUs shared, the least loaded nodes first (LLN of the partition)",
    "memory": "memory and cores shared",
    "memory-epilog": "memory and cores shared, Epilog",
    "minutes": "whole nodes, limits on minutes of QOS, accounts and users",
    "minutes-end": "whole nodes, minutes of QOS and accounts used up while jobs run",
    "minutes-end-2": "whole nodes, other minutes of QOS and accounts used up while jobs run",
    "minutes-safe": "whole nodes, the same with safe",
    "mixed": "memory, GPUs, cores, whole nodes",
    "partitions": "whole nodes, three partitions, a tier, job size",
    "partitions-epilog": "whole nodes, three partitions, a tier, job size, Epilog",
    "preempt-cancel": "whole nodes, preemption by partition, jobs cancelled",
    "preempt-qos": "whole nodes, preemption by QOS, GraceTime of one of them",
    "preempt-qos-2": "whole nodes, preemption by QOS, GraceTime, PreemptExemptTime, jobs requeued",
    "preempt-requeue": "whole nodes, preemption by partition, jobs requeued, load 30",
    "preempt-requeue-2": "whole nodes, preemption by partition, jobs requeued, recorded again",
    "preempt-requeue-epilog": "whole nodes, preemption by partition, jobs requeued, Epilog",
    "priorities": "whole nodes, given priorities, 60 s resolution",
    "qos-limits": "whole nodes, QOS with limits and priorities",
    "qos-limits-2": "whole nodes, other limits of QOS, a partition's QOS, an account",
    "reservations": "whole nodes, reservations of users and for maintenance",
    "sockets": "whole sockets (CR_Socket)",
    "sockets-memory": "whole sockets of two cores, memory (CR_Socket_Memory)",
    "sockets-memory-epilog": "whole sockets of two cores, memory (CR_Socket_Memory), Epilog",
    "tiers-epilog": "CPUs and memory shared, tiers, dependencies, Epilog",
    "tiers-shared": "CPUs and memory shared, tiers, dependencies",
    "tiers-shared-2": "CPUs shared, tiers, multifactor",
    "timeouts": "whole nodes, jobs that run into their limits, dependencies",
    "timeouts-epilog": "whole nodes, jobs that run into their limits, dependencies, Epilog",
    "tree": "whole nodes under a tree of switches",
    "tree-cons": "whole nodes under a tree, select/cons_tres",
    "tree-epilog": "whole nodes under a tree, given priorities, Epilog",
    "tree-plain": "whole nodes under a tree, given priorities, recorded again",
    "tree-priorities": "whole nodes under a tree of switches, given priorities",
    "tree-shared": "CPUs shared under a tree, dependencies",
    "tree-shared-epilog": "CPUs shared under a tree, dependencies, Epilog",
    "tree-tiers": "whole nodes under a tree, a tier, job size",
    "weights": "whole nodes, half of them preferred",
}
UNSEEN = {  # recorded and compared when the code was done: nothing was changed for them
    "blocks",
    "builtin", "complete-wait", "complete-wait-2", "contain", "cpus-epilog", "defaults", "defer", "fair-share",
    "fair-share-2", "favour-small", "favour-small-epilog", "few-tests-epilog", "gpus", "gpus-and-cpus-epilog",
    "like-bf10", "like-cons", "like-defaults", "like-fair-share", "like-fifo-partitions", "like-fifo-priorities",
    "like-fifo-tree", "like-job-size", "like-limits", "like-partition-factor", "like-priorities", "like-qos",
    "like-resolution60", "like-sched60", "like-tiers", "like-tree", "like-tree-plain", "like-two-partitions",
    "like-window",
    "gpus-epilog", "least-loaded", "lln-partition", "memory-epilog", "mixed", "partitions", "preempt-qos-2",
    "preempt-requeue", "preempt-requeue-2", "preempt-requeue-epilog", "qos-limits-2", "sockets",
    "sockets-memory-epilog", "tiers-shared-2", "tree-cons", "tree-plain", "tree-shared-epilog", "tree-tiers", "weights",
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
    rows = on_nodes(read_table(FOLDER / name / "jobs.csv"), cluster(name, moments=moments), "slurm").rows
    return _compare([(row.start_s, row.nodelist) for row in rows], name)


def both(name: str) -> list[tuple[Row, dict[str, str]]]:
    """Simulate the jobs of a recording at its moments, and return what becomes of each beside what did."""
    rows = on_nodes(read_table(FOLDER / name / "jobs.csv"), cluster(name, moments=True), "slurm").rows
    return list(zip(rows, _jobs(name), strict=True))


def compare_again(name: str, first: str | None = None) -> Comparison:
    """Hold a second real run of the same jobs against the first: closer than that nobody can foretell it."""
    second = [(float(one["start_s"] or "nan"), one["nodelist"]) for one in _jobs(f"{name}{AGAIN}")]
    return _compare(second, first or name)


def _jobs(name: str) -> list[dict[str, str]]:
    with (FOLDER / name / "jobs.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _compare(found: Sequence[tuple[float | None, str | None]], name: str) -> Comparison:
    errors, same, waits = [], 0, 0.0
    for (start_s, nodelist), one in zip(found, _jobs(name), strict=True):
        started = start_s is not None and not isnan(start_s)
        if started != bool(one["start_s"]):
            errors.append(float("inf"))
        elif start_s is not None and started:
            errors.append(start_s - float(one["start_s"]))
            waits += float(one["start_s"]) - float(one["submit_s"])
            same += expand(nodelist or "") == expand(one["nodelist"])
    count = len(errors)
    near = [sum(abs(error) <= most for error in errors) / count for most in (2, 5)]
    mean = sum(error for error in errors if abs(error) < float("inf")) / (waits or 1)
    return Comparison(count, near[0], near[1], same / count, mean)


def main() -> None:
    """Print the table of the documentation."""
    print("| recording | jobs | within 2 s | 5 s | nodes | wait | clock modelled: 2 s | 5 s | nodes | wait |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    first = [name for name in names() if not name.endswith(AGAIN)]
    for name in sorted(first, key=lambda name: (name not in UNSEEN, name)):
        about = ABOUT.get(name, name) + ("" if name in UNSEEN else " *")
        print(f"| {about} | {compare(name, moments=True)} | {str(compare(name, moments=False)).partition(' | ')[2]} |")
    print("\n| two real runs | jobs | second against first | clock modelled against first | against second |")
    print("|---|---|---|---|---|")
    for name in first:
        if f"{name}{AGAIN}" in names():
            ours = [str(compare(one, moments=False)).partition(" | ")[2] for one in (name, f"{name}{AGAIN}")]
            cells = [ABOUT[name], str(compare_again(name)).replace(" | ", " ¦ ").replace(" ¦ ", " | ", 1)]
            print(f"| {' | '.join([*cells, *(one.replace(' | ', ' ¦ ') for one in ours)])} |")
    print("\n\\* something was mended for it; the others were recorded when the code was done")


if __name__ == "__main__":
    main()
