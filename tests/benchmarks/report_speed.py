"""How fast ``hpcplan report --sacct`` is, and how much memory it takes, beside reportseff and slurm2sql in one run.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install reportseff slurm2sql
    python -m tests.benchmarks.report_speed --jobs 1000000 --peers /tmp/peers/bin

The dump is made up by seed (:mod:`tests.benchmarks.sacct_dump`), four rows a job. The peers, row by row, get the
first of its jobs (``--peer-jobs``) in the form that each takes: reportseff calls sacct, for which a script stands in
that prints the rows; slurm2sql reads CSV. All times are of whole processes, start-up included; rates are rows a second;
memory is that of all processes together.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.sacct_dump import COLUMNS

BARS = {"reportseff": 10.0, "slurm2sql": 50.0}
MOST_S, MOST_BYTES, MOST_PAGE_BYTES = 30.0, 2e9, 2e6


class Cost(NamedTuple):
    """What a command took: ``cpu_s`` of all its threads and processes, so that other work on the machine shows."""

    wall_s: float
    cpu_s: float
    peak_bytes: float


def timed(command: list[str], env: dict[str, str] | None = None) -> Cost:
    """Run a command, and return what it and the processes that it started took."""
    begin, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, sum(map(_held_bytes, _family(process.pid))))
            time.sleep(0.25)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} left with {process.returncode}")
    peak = max(peak, usage.ru_maxrss * 1024.0)
    return Cost(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, peak)


def _family(pid: int) -> list[int]:
    """Return a process and those that it started."""
    found = [pid]
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [one for child in listed.read_text().split() for one in _family(int(child))]
    return found


def _held_bytes(pid: int) -> float:
    """Return a process's memory, of what it shares its part (PSS)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1]) * 1024
    return 0.0


def head(dump: Path, jobs: int) -> list[dict[str, str]]:
    """Return the rows of the first jobs, without those whose name holds the delimiter, at which the peers stop."""
    with dump.open() as stream:
        next(stream)
        cells = (line.rstrip("\n").split("|") for line in itertools.islice(stream, 4 * jobs))
        return [dict(zip(COLUMNS, row, strict=True)) for row in cells if len(row) == len(COLUMNS)]


def reportseff(peers: Path, rows: list[dict[str, str]], folder: Path) -> Cost:
    """Return what it took."""
    stand_in, asked, answer = folder / "sacct", folder / "asked", folder / "answer"
    names = sorted({*COLUMNS, "AdminComment", "Comment", "REQMEM"})
    (folder / "fields").write_text(" ".join(names) + "\n")
    answer.write_text("")
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = --helpformat ]; then cat {folder}/fields; exit; fi\n'
        f'printf "%s\\n" "$@" > {asked}; cat {answer}\n'
    )
    stand_in.chmod(0o755)
    (folder / "scontrol").write_text("#!/bin/sh\necho PartitionName=batch MaxTime=UNLIMITED\n")
    (folder / "scontrol").chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    command = [str(peers / "reportseff"), "--no-color", "--since", "d=400", "--user", "any"]
    subprocess.run(command, env=env, capture_output=True, check=False)
    words = asked.read_text().split("\n")
    wanted = next(word for word in words if word.startswith("--format=")).removeprefix("--format=").split(",")
    known = {name.lower(): name for name in COLUMNS}
    with answer.open("w") as stream:
        for row in rows:
            stream.write("^|^".join(row.get(known.get(name.lower(), ""), "") for name in wanted) + "^|^\n")
    return timed(command, env)


def slurm2sql(peers: Path, rows: list[dict[str, str]], folder: Path) -> Cost:
    """Return what it took."""
    with (folder / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, "NCPUS", "ReqCPUS"])
        writer.writeheader()
        writer.writerows({**row, "NCPUS": row["AllocCPUS"], "ReqCPUS": row["AllocCPUS"]} for row in rows)
    return timed([str(peers / "slurm2sql"), str(folder / "db"), "--csv-input", str(folder / "rows.csv")])


def told(cost: Cost, rows: int) -> str:
    """Return it as text."""
    memory = f"{cost.peak_bytes / 1e9:.2f} GB peak"
    return f"{cost.wall_s:.1f} s ({cost.cpu_s:.1f} s of CPU), {memory}, {rows / cost.wall_s:,.0f} rows/s"


def main() -> None:
    """Print the figures, and leave with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--peers", type=Path, help="the bin folder of an environment with reportseff and slurm2sql")
    parser.add_argument("--peer-jobs", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    missed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = ["-m", "tests.benchmarks.sacct_dump", str(options.jobs), str(folder / "sacct.txt"), str(options.seed)]
        subprocess.run([sys.executable, *make], check=True)  # apart, since a child's peak begins with its parent's
        size = (folder / "sacct.txt").stat().st_size
        rows = 4 * options.jobs
        command = [sys.executable, "-m", "hpcplan", "report", "--sacct", str(folder / "sacct.txt"), "--timezone", "UTC"]
        ours = timed([*command, "-o", str(folder / "page.html")])
        page = (folder / "page.html").stat().st_size
        print(
            f"hpcplan      {rows:>11,} rows ({size / 1e9:.2f} GB) to HTML: {told(ours, rows)}, page {page / 1e6:.2f} MB"
        )
        if options.jobs == 1_000_000:
            met = ours.wall_s < MOST_S and ours.peak_bytes < MOST_BYTES and page < MOST_PAGE_BYTES
            missed += [] if met else ["the page's bars"]
        if options.peers is not None:
            found = head(folder / "sacct.txt", options.peer_jobs)
            for tool, run in (("reportseff", reportseff), ("slurm2sql", slurm2sql)):
                place = folder / tool
                place.mkdir()
                took = run(options.peers, found, place)
                ratio = rows / ours.wall_s / (len(found) / took.wall_s)
                by_cpu = rows / ours.cpu_s / (len(found) / took.cpu_s)
                print(f"{tool:<12} {len(found):>11,} rows: {told(took, len(found))}; "
                      f"hpcplan is {ratio:.1f} times as fast ({by_cpu:.1f} by CPU time)")  # fmt: skip
                missed += [tool] if ratio < BARS[tool] else []
    print(f"peak of the benchmark itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
