"""How many jobs a second the simulator schedules on one core, beside pyss and AccaSim on the same trace.

Both peers stay outside this repository. pyss (https://github.com/dinesh121991/pyss) is Python 2: give its ``src``
folder and an interpreter; AccaSim (PyPI: accasim) needs an interpreter that has it. Times are CPU times of one process:
for ours the scheduling without the reading of the trace and with it, for the peers the whole command. The trace is made
up: powers of two from 32 to 1,024 processors, as on the CM-5 of LANL, at ``--load`` of the machine.

    python -m tests.benchmarks.simulate_speed [--jobs 122060] [--pyss ~/pyss/src --python2 python2.7]
        [--accasim ~/accasim-env/bin/python]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from hpcplan.simulate.made_traces import write_trace
from hpcplan.simulate.trace_files import read_trace
from hpcplan.simulate.trace_run import on_processors
from hpcplan.simulate.traces import Trace, TraceJob

__all__ = ["main"]

PROCS = 1024
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


def made_up(jobs: int, load: float) -> Trace:
    """Return the trace."""
    draw = random.Random(5)
    found, work = [], 0
    for number in range(1, jobs + 1):
        width = draw.choices(WIDTHS, SHARES)[0]
        run_s = int(min(draw.lognormvariate(5.5, 2.0), 86000)) + 1
        limit_s = max(draw.choice(LIMITS_S), run_s // 60 * 60 + 60)
        work += width * run_s
        found.append((number, width, run_s, limit_s))
    gap_s = work / jobs / PROCS / load
    moment, rows = 0.0, []
    for number, width, run_s, limit_s in found:
        moment += draw.expovariate(1 / gap_s)
        rows.append(TraceJob(number, int(moment), run_s, limit_s, width))
    return Trace(tuple(rows), PROCS, 0)


def _ours(path: Path, policy: str) -> tuple[int, float, float, float | None]:
    begin = time.process_time()
    trace = read_trace(path)
    read = time.process_time()
    schedule = on_processors(trace, PROCS, policy)
    done = time.process_time()
    return len(trace.jobs), done - read, done - begin, schedule.metrics().mean_wait_s


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
    print(f"{name:34} {jobs:9,} {rate} {note}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=122_060)
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--few", type=int, default=5_000, help="jobs for what is slow")
    parser.add_argument("--pyss", type=Path)
    parser.add_argument("--python2", default="python2.7")
    parser.add_argument("--accasim", metavar="PYTHON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, few = folder / "whole.swf", folder / "few.swf"
        write_trace(made_up(given.jobs, given.load), whole)
        write_trace(made_up(given.few, given.load), few)
        print(f"{'':34} {'jobs':>9} {'jobs/s':>12}")
        for path, policies in ((whole, ("fcfs", "easy")), (few, ("easy", "conservative", "slurm"))):
            for policy in policies:
                jobs, seconds, total, wait = _ours(path, policy)
                _line(
                    f"hpcplan, {policy}", jobs, seconds, f"({jobs / total:,.0f} with reading; mean wait {wait:,.0f} s)"
                )
        if given.pyss:
            options = ("--num-processors", str(PROCS), "--input-file", str(few), "--scheduler", "EasyBackfillScheduler")
            _line(
                "pyss, EASY",
                given.few,
                _command(given.python2, "-O", "run_simulator.py", *options, cwd=str(given.pyss)),
            )
        if given.accasim:
            system = {"groups": {"g0": {"core": 1, "mem": 1}}, "resources": {"g0": PROCS}}
            (folder / "system.json").write_text(json.dumps(system))
            lines = (line.split() for line in few.read_text().splitlines() if not line.startswith(";"))
            memory = [" ".join([*line[:6], "1", *line[7:9], "1", *line[10:]]) for line in lines]
            (folder / "memory.swf").write_text("; MaxProcs: 1024\n" + "\n".join(memory) + "\n")
            (folder / "run.py").write_text(ACCASIM)
            command = (given.accasim, str(folder / "run.py"), str(folder / "memory.swf"), str(folder / "system.json"))
            _line("AccaSim, EASY", given.few, _command(*command, cwd=name))


if __name__ == "__main__":
    main()
