"""How many jobs a second the simulator schedules on one core, and in how much memory; pyss and AccaSim beside it.

Both peers stay outside this repository. pyss (https://github.com/dinesh121991/pyss) is Python 2: give its ``src``
folder and an interpreter; AccaSim (PyPI: accasim) needs an interpreter that has it. Times are CPU times of one process:
for ours the scheduling without the reading of the trace and with it, for the peers the whole command. The trace is made
up: powers of two from 32 to 1,024 processors, as on the CM-5 of LANL, at ``--load`` of the machine. Under ``slurm``
each processor is a node; compiling its scheduler, which is done once, is not counted. ``--shared`` prints how many jobs
a second share 1,024 nodes of 64 CPUs and 8 GPUs (select/cons_tres) at the loads given, ``--tree`` how many have whole
nodes under a tree of switches, ``--policy`` under a site's policy: fair share among 100 users in 20 accounts, 4 QOS,
two partitions, and one job in twenty that waits for another one. ``--lengths`` prints what a job costs in traces of
different lengths, ``--memory`` what ``hpcplan simulate TRACE -o`` takes, of SWF, CSV and sacct's text (``--policies``
says under which policies).

    python -m tests.benchmarks.simulate_speed [--jobs 122060] [--pyss ~/pyss/src --python2 python2.7]
        [--accasim ~/accasim-env/bin/python]
    python -m tests.benchmarks.simulate_speed --shared 0.6,0.8,0.95 [--jobs 30000]
    python -m tests.benchmarks.simulate_speed --tree 0.6 [--jobs 122060]
    python -m tests.benchmarks.simulate_speed --policy 0.6 [--jobs 122060]
    python -m tests.benchmarks.simulate_speed --lengths 30000,122060,500000,1000000
    python -m tests.benchmarks.simulate_speed --memory 250000,1000000,4000000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from hpcplan.simulate import trace_run
from hpcplan.simulate.account_policy import AccountPolicy, Association, QosPolicy
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape, Sharing
from hpcplan.simulate.outcome import metrics
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.switch_tree import SwitchShape
from hpcplan.simulate.trace_files import read_trace
from hpcplan.simulate.trace_run import on_nodes, on_processors
from hpcplan.simulate.traces import Trace, TraceJob

__all__ = ["main"]

PROCS = 1024
QOS = ("normal", "scavenger", "high", "urgent")
WIDTHS, SHARES = (32, 64, 128, 256, 512, 1024), (60, 13, 14, 9, 3.7, 0.3)
LIMITS_S = (600, 1200, 3600, 3600, 7200, 10800, 14400, 28800, 36000, 86400)
# AccaSim has no command: this is what its documentation does, with the names back that Python 3.10 has moved.
ACCASIM = """
import collections, collections.abc, sys
for name in ("Mapping", "MutableMapping", "Iterable", "Callable", "Sequence"):
    setattr(collections, name, getattr(collections.abc, name))
from accasim.base.allocator_class import FirstFit
from accasim.base.scheduler_class import EASYBackfilling
from accasim.base.simulator_class import Simulator
Simulator(sys.argv[1], sys.argv[2], EASYBackfilling(FirstFit())).start_simulation(system_status=False, debug=False)
"""
# The command, which writes the most KiB that it has taken into a file at its end.
MEASURED = """
import atexit, re, sys
from pathlib import Path
from hpcplan.cli import main
peak = Path(sys.argv.pop(1))
atexit.register(lambda: peak.write_text(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]))
main()
"""


def made_up(jobs: int, load: float) -> Iterator[TraceJob]:
    """Yield the jobs of the trace, which takes no memory however long it is."""

    def drawn() -> Iterator[tuple[int, int, int]]:
        draw = random.Random(5)
        for _ in range(jobs):
            width = draw.choices(WIDTHS, SHARES)[0]
            run_s = int(min(draw.lognormvariate(5.5, 2.0), 86000)) + 1
            yield width, run_s, max(draw.choice(LIMITS_S), run_s // 60 * 60 + 60)

    gap_s = sum(width * run_s for width, run_s, _ in drawn()) / jobs / PROCS / load
    moment, draw = 0.0, random.Random(7)
    for number, (width, run_s, limit_s) in enumerate(drawn(), start=1):
        moment += draw.expovariate(1 / gap_s)
        yield TraceJob(number, int(moment), run_s, limit_s, width)


def write(jobs: int, load: float, path: Path) -> Path:
    """Write the trace as SWF."""
    with path.open("w") as stream:
        stream.write(f"; Version: 2.2\n; Note: made up\n; MaxProcs: {PROCS}\n")
        for job in made_up(jobs, load):
            stream.write(f"{job.id} {job.submit_s} -1 {job.run_s} {job.procs} -1 -1 {job.procs} {job.limit_s} ")
            stream.write("-1 1 -1 -1 -1 -1 -1 -1 -1\n")
    return path


def write_table(jobs: int, load: float, path: Path) -> Path:
    """Write the trace as CSV, its processors as nodes."""
    with path.open("w") as stream:
        stream.write("job,submit_s,nodes,run_s,time_limit_min,user\n")
        for job in made_up(jobs, load):
            limit_min = job.limit_s // 60
            stream.write(f"{job.id},{job.submit_s},{job.procs},{job.run_s},{limit_min},u{job.id % 50}\n")
    return path


def write_dump(jobs: int, load: float, path: Path) -> Path:
    """Write the trace as sacct prints it."""
    with path.open("w") as stream:
        stream.write("JobID|User|Partition|Submit|ElapsedRaw|TimelimitRaw|NNodes|NCPUS|State\n")
        for job in made_up(jobs, load):
            submitted = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_700_000_000 + job.submit_s))
            stream.write(f"{job.id}|u{job.id % 50}||{submitted}|{job.run_s}|{job.limit_s // 60}|")
            stream.write(f"{job.procs}|{job.procs}|COMPLETED\n")
    return path


def _ours(path: Path, policy: str) -> tuple[int, float, float, float | None]:
    begin = time.process_time()
    trace = read_trace(path)
    read = time.process_time()
    schedule = on_processors(trace, PROCS, policy)
    done = time.process_time()
    return len(trace.jobs), done - read, done - begin, metrics(schedule.rows, PROCS).mean_wait_s


def _command(*command: str, cwd: str) -> float | None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if answer.returncode:
        print(answer.stderr[-500:])
        return None
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _line(name: str, jobs: int, seconds: float | None, note: str = "") -> None:
    rate = "failed" if seconds is None else f"{jobs / seconds:12,.0f}"
    print(f"{name:34} {jobs:9,} {rate} {note}", flush=True)


def _sharing_cluster() -> SlurmCluster:
    nodes, gib = (1 << PROCS) - 1, 1 << 30
    batch = PartitionShape("batch", nodes, default=True, exclusive=False)
    names = tuple(f"n{number}" for number in range(1, PROCS + 1))
    group = NodeGroupShape(nodes, 64, 256 * gib, gpus=8)
    machine = Machine(names, (group,), {"batch": batch}, Sharing(memory=True))
    return SlurmCluster(machine, SlurmSettings(consumable=True))


def _sharing_jobs(jobs: int, load: float) -> Iterator[TraceJob]:
    """Yield jobs of a few CPUs or GPUs, with memory by the CPU, of which one in five is on several nodes."""
    draw, specs = random.Random(5), dict[tuple[int, ...], JobSpec]()
    made = []
    for _ in range(jobs):
        limit_s, kind = draw.choice((600, 1200, 3600, 3600, 7200, 10800, 14400, 28800, 86400)), draw.random()
        gpus = draw.choice((1, 1, 2, 4, 8))
        if kind < 0.5:
            asked = (1, draw.choice((1, 2, 4, 8, 16, 32)), 0)
        elif kind < 0.8:
            asked = (1, 8 * gpus, gpus)
        else:
            asked = (draw.choice((1, 2, 4, 8, 16, 32)), 64, 8) if kind < 0.95 else (draw.choice((2, 4, 8)), 16, 0)
        nodes, cpus, gpus = asked
        key = (*asked, draw.choice((1, 2, 4)), limit_s)
        spec = specs.setdefault(
            key,
            JobSpec(
                nodes_min=nodes, ntasks_per_node=1, cpus_per_task=cpus, gpus_per_node=gpus or None,
                memory_per_cpu_bytes=key[3] << 30, time_limit_s=limit_s,
            ),
        )  # fmt: skip
        made.append((nodes * cpus, spec, limit_s, int(min(draw.lognormvariate(5.5, 2.0), limit_s)) + 1))
    gap_s = sum(cpus * run_s for cpus, _, _, run_s in made) / jobs / (PROCS * 64) / load
    moment, draw = 0.0, random.Random(7)
    for number, (cpus, spec, limit_s, run_s) in enumerate(made, start=1):
        moment += draw.expovariate(1 / gap_s)
        yield TraceJob(number, int(moment), run_s, limit_s, cpus, ask=spec)


def shared(jobs: int, loads: list[float]) -> None:
    """Print how many jobs a second share nodes under ``slurm``."""
    cluster = _sharing_cluster()
    on_nodes(Trace(tuple(_sharing_jobs(5_000, 0.5)), None, 0), cluster, "slurm")
    for load in loads:
        trace = Trace(tuple(_sharing_jobs(jobs, load)), None, 0)
        begin = time.process_time()
        schedule = on_nodes(trace, cluster, "slurm")
        _line(
            f"hpcplan, slurm, shared nodes, {load}", jobs, time.process_time() - begin,
            f"(mean wait {schedule.metrics().mean_wait_s or 0:,.0f} s)",
        )  # fmt: skip


def _tree_of(sizes: Sequence[int]) -> tuple[SwitchShape, ...]:
    """Return leaf switches with so many nodes, and one above them."""
    ends = list(accumulate(sizes))
    masks = [(1 << end) - (1 << (end - size)) for size, end in zip(sizes, ends, strict=True)]
    leaves = [SwitchShape(f"leaf{number}", mask, 0) for number, mask in enumerate(masks)]
    return (*leaves, SwitchShape("top", (1 << ends[-1]) - 1, 1))


def tree(jobs: int, loads: list[float]) -> None:
    """Print how many jobs a second have whole nodes under switches, with select/linear and select/cons_tres."""
    nodes = (1 << PROCS) - 1
    names = tuple(f"n{number}" for number in range(1, PROCS + 1))
    parts = {"batch": PartitionShape("batch", nodes, default=True)}
    uneven = [16, 48, 24, 40, 8, 56, 32, 32] * 4
    for consumable in (False, True):
        machine = Machine(names, (NodeGroupShape(nodes, 1, 1 << 30),), parts, Sharing() if consumable else None)
        how = SlurmSettings(consumable=consumable, multifactor=True, priority_weight_age=1000)
        for kind, switches in (
            ("no switches", ()), ("32 leaves of 32", _tree_of([32] * 32)), ("uneven leaves", _tree_of(uneven)),
        ):  # fmt: skip
            cluster = SlurmCluster(machine, how, switches)
            on_nodes(Trace(tuple(made_up(5_000, 0.5)), None, 0), cluster, "slurm")
            for load in loads:
                trace = Trace(tuple(made_up(jobs, load)), None, 0)
                begin = time.process_time()
                schedule = on_nodes(trace, cluster, "slurm")
                _line(
                    f"{'cons_tres' if consumable else 'linear'}, {kind}, {load}", jobs, time.process_time() - begin,
                    f"(mean wait {schedule.metrics().mean_wait_s or 0:,.0f} s)",
                )  # fmt: skip


def _policy_cluster() -> SlurmCluster:
    nodes = (1 << PROCS) - 1
    names = tuple(f"n{number}" for number in range(1, PROCS + 1))
    parts = {
        "batch": PartitionShape("batch", nodes, default=True),
        "short": PartitionShape("short", nodes, priority_job_factor=2, max_time_s=6 * 3600),
    }
    machine = Machine(names, (NodeGroupShape(nodes, 64, 256 << 30),), parts)
    tree = [Association("root")]
    for group in range(4):
        tree.append(Association(f"group{group}", parent="root", shares=group + 1))
        tree += [Association(f"lab{lab}", parent=f"group{group}") for lab in range(4 * group, 4 * group + 4)]
    tree += [Association(f"lab{user % 16}", f"user{user}", shares=1 + user % 3) for user in range(100)]
    qos = {name: QosPolicy(name, priority) for name, priority in zip(QOS, (10, 0, 100, 1000), strict=True)}
    settings = SlurmSettings(
        multifactor=True, priority_weight_age=1000, priority_weight_job_size=100, priority_weight_partition=500,
        priority_weight_qos=2000, priority_weight_fair_share=10000,
    )  # fmt: skip
    return SlurmCluster(machine, settings, policy=AccountPolicy(qos, tuple(tree)))


def _policy_jobs(jobs: int, load: float) -> Iterator[TraceJob]:
    draw, specs = random.Random(9), dict[tuple[object, ...], JobSpec]()
    for job in made_up(jobs, load):
        user, qos = draw.randrange(100), draw.choices(QOS, (80, 10, 8, 2))[0]
        part = "short" if job.limit_s <= 6 * 3600 and draw.random() < 0.5 else "batch"
        key = (job.procs, job.limit_s, part, qos)
        spec = specs.setdefault(
            key, JobSpec(nodes_min=job.procs, nodes_max=job.procs, time_limit_s=job.limit_s, partition=part, qos=qos)
        )
        if draw.random() < 0.05 and job.id > 10:
            spec = replace(spec, dependency=f"afterany:{job.id - draw.randrange(1, 10)}")
        yield job._replace(ask=spec, user=f"user{user}")


def under_policy(jobs: int, loads: list[float]) -> None:
    """Print how many jobs a second go under a site's policy."""
    cluster = _policy_cluster()
    on_nodes(Trace(tuple(_policy_jobs(5_000, 0.5)), None, 0), cluster, "slurm")
    for load in loads:
        trace = Trace(tuple(_policy_jobs(jobs, load)), None, 0)
        begin = time.process_time()
        schedule = on_nodes(trace, cluster, "slurm")
        _line(
            f"hpcplan, slurm, under a policy, {load}", jobs, time.process_time() - begin,
            f"(mean wait {schedule.metrics().mean_wait_s or 0:,.0f} s)",
        )  # fmt: skip


def lengths(folder: Path, counts: list[int], load: float) -> None:
    """Print what a job costs in traces of different lengths."""
    print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
    for count in counts:
        path = write(count, load, folder / "trace.swf")
        for policy in ("easy", "slurm"):
            jobs, seconds, total, wait = _ours(path, policy)
            each = (
                f"({1e6 * seconds / jobs:.1f} us a job, {1e6 * total / jobs:.1f} with reading; mean wait {wait:,.0f} s)"
            )
            _line(f"hpcplan, {policy}", jobs, seconds, each)


def memory(folder: Path, counts: list[int], load: float, policies: list[str]) -> None:
    """Print the most memory that ``hpcplan simulate TRACE -o`` takes, and its CPU time."""
    print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
    for count in counts:
        for kind, written in (("swf", write), ("csv", write_table), ("txt", write_dump)):
            path = written(count, load, folder / f"trace.{kind}")
            for policy in policies:
                options = ("simulate", str(path), "--procs", str(PROCS), "--policy", policy)
                output = ("-o", str(folder / "schedule.csv"))
                peak = folder / "peak"
                seconds = _command(sys.executable, "-c", MEASURED, str(peak), *options, *output, cwd=str(Path.cwd()))
                note = f"(the whole command; at most {int(peak.read_text()) / 1024:,.0f} MiB)"
                _line(f"hpcplan simulate, {kind}, {policy}", count, seconds, note)


def main() -> None:
    """Print the tables."""
    trace_run.worth_compiling = lambda **_: 0  # however few the jobs are that it is compiled with first
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=122_060)
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--few", type=int, default=5_000, help="jobs for what is slow")
    parser.add_argument("--shared", type=lambda text: [float(word) for word in text.split(",")])
    parser.add_argument("--tree", type=lambda text: [float(word) for word in text.split(",")])
    parser.add_argument("--policy", type=lambda text: [float(word) for word in text.split(",")])
    parser.add_argument("--lengths", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--memory", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--policies", type=lambda text: text.split(","), default=["easy", "slurm"])
    parser.add_argument("--pyss", type=Path)
    parser.add_argument("--python2", default="python2.7")
    parser.add_argument("--accasim", metavar="PYTHON")
    given = parser.parse_args()
    if given.shared or given.tree:
        print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
        if given.shared:
            shared(given.jobs, given.shared)
        if given.tree:
            tree(given.jobs, given.tree)
        return
    if given.policy:
        print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
        under_policy(given.jobs, given.policy)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = write(given.few, given.load, folder / "few.swf")
        _ours(few, "slurm")
        if given.lengths or given.memory:
            lengths(folder, given.lengths or [], given.load)
            memory(folder, given.memory or [], given.load, given.policies)
            return
        whole = write(given.jobs, given.load, folder / "whole.swf")
        print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
        for path, policies in ((whole, ("fcfs", "easy", "slurm")), (few, ("easy", "conservative"))):
            for policy in policies:
                jobs, seconds, total, wait = _ours(path, policy)
                note = f"({jobs / total:,.0f} with reading; mean wait {wait:,.0f} s)"
                _line(f"hpcplan, {policy}", jobs, seconds, note)
        if given.pyss:
            options = ("--num-processors", str(PROCS), "--input-file", str(few), "--scheduler", "EasyBackfillScheduler")
            command = (given.python2, "-O", "run_simulator.py", *options)
            _line("pyss, EASY", given.few, _command(*command, cwd=str(given.pyss)))
        if given.accasim:
            system = {"groups": {"g0": {"core": 1, "mem": 1}}, "resources": {"g0": PROCS}}
            (folder / "system.json").write_text(json.dumps(system))
            lines = (line.split() for line in few.read_text().splitlines() if not line.startswith(";"))
            rows = [" ".join([*line[:6], "1", *line[7:9], "1", *line[10:]]) for line in lines]
            (folder / "memory.swf").write_text("; MaxProcs: 1024\n" + "\n".join(rows) + "\n")
            (folder / "run.py").write_text(ACCASIM)
            command = (given.accasim, str(folder / "run.py"), str(folder / "memory.swf"), str(folder / "system.json"))
            _line("AccaSim, EASY", given.few, _command(*command, cwd=name))


if __name__ == "__main__":
    main()
