"""Splitting the public layer graphs: our whole command beside the program published with them, in one run.

The graphs and the program are those of https://github.com/msr-fiddle/dnn-partitioning (Tarnawski et al. 2020) and stay
outside this repository: give a checkout with ``--graphs`` or the environment variable ``DNN_PARTITIONING``. The
program is compiled here with ``g++ -O3`` and stopped after ``--limit`` seconds; ours proves its objective by a bound.
Times are processor seconds of the whole command, so that other work on the machine does not count.

    DNN_PARTITIONING=~/dnn-partitioning python -m tests.benchmarks.search_graphs
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Timed:
    """A command's output, ``None`` where it was stopped or failed; processor seconds, and its most memory (bytes)."""

    text: str | None
    seconds: float
    memory_bytes: int


def timed(words: Sequence[str], given: Path | None, limit: float) -> Timed:
    """Run a command and take its time and its memory; kill it at the limit."""
    with tempfile.TemporaryFile("w+") as out, Path(given or os.devnull).open() as source:
        child = subprocess.Popen(words, stdin=source, stdout=out, stderr=subprocess.DEVNULL, cwd=ROOT)
        timer = threading.Timer(limit, child.kill)
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read() if child.returncode == 0 else None
    return Timed(text, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def compiled(graphs: Path, folder: Path) -> str:
    """Compile the published program."""
    target = folder / "dp"
    source = graphs / "throughput-dp" / "dp.cpp"
    subprocess.run(["g++", "-O3", "-std=c++17", str(source), "-o", str(target)], check=True, capture_output=True)
    return str(target)


def main() -> None:
    """Print one line a graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, default=os.environ.get("DNN_PARTITIONING"), required=False)
    parser.add_argument("--limit", type=float, default=150.0, help="seconds for the published program, each graph")
    parser.add_argument("--skip-published", action="store_true")
    options = parser.parse_args()
    if options.graphs is None:
        parser.error("--graphs, or the environment variable DNN_PARTITIONING, must name the checkout")
    print("| graph | objective | bound | our command | published program | ratio | our memory |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        program = None if options.skip_published else compiled(Path(options.graphs), Path(folder))
        for path in sorted((Path(options.graphs) / "throughput-inputs").glob("*/*.json")):
            ours = timed([sys.executable, "-m", "hpcplan", "partition", str(path), "--format", "json"], None, 600)
            assert ours.text is not None, path
            split = json.loads(ours.text)
            theirs, ratio = "", ""
            if program is not None:
                other = timed([program], path, options.limit)
                theirs = f"{other.seconds:.2f} s" if other.text is not None else f"none in {options.limit:.0f} s"
                ratio = f"{'' if other.text is not None else 'over '}{other.seconds / ours.seconds:.1f}"
            name = f"{path.parent.name.removesuffix('Graphs').lower()} {path.stem}"
            found = f"{split['objective']:.4f} | {split['bound']:.4f}"
            print(f"| {name} | {found} | {ours.seconds:.2f} s | {theirs} | {ratio} "
                  f"| {ours.memory_bytes / 2**20:.0f} MiB |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
