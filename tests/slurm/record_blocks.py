"""Records which nodes a real slurmctld with topology/block gives to jobs, to check the simulator's blocks against.

By hand, as root, from the top of the checkout; the Slurm of ``HPCPLAN_SLURM_PREFIX`` has to be 23.11 or newer:

    python -m tests.slurm.record_blocks FOLDER -o DECISIONS.csv [--count 150] [--seed 1] [--options WORDS] ...

FOLDER holds ``slurm.conf``, the lines with NodeName and PartitionName as for :mod:`tests.slurm.record_schedule`, and
``topology.conf`` or ``topology.yaml``. Jobs of whole nodes come and go at random, with one of the ``--options`` each
(``--spread-segments``, ``--consolidate-segments``, ``--exclusive=topo``; ``RANGE`` is a range of nodes, ``NODELIST``
some nodes that it must have). A row has the nodes that were free, those held by jobs with ``--exclusive=topo``, those
asked for, the segment (0: none), further options, and the nodes given, none where the job had to wait.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpcplan.hostlist import compress, expand
from tests.slurm.record_schedule import cluster, run

COLUMNS = ("free", "alone", "nodes", "segment", "options", "given")


def decisions(env: Mapping[str, str], count: int, seed: int, options: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """Yield what is decided of so many jobs."""
    draw = random.Random(seed)
    nodes = set(expand(",".join(run(env, "sinfo", "-h", "-o", "%N").split())))
    running: dict[str, set[str]] = {}
    alone: set[str] = set()
    told = 0
    while told < count:
        while running and draw.random() < len(set().union(*running.values())) / (1.4 * len(nodes)):
            _cancel(env, running, draw.choice(sorted(running)))
        free = nodes.difference(*running.values())
        segment = draw.choice([0, 0, 1, 2, 3, 4, 5, 6, 8])
        wanted = segment * draw.randint(1, max(1, len(nodes) // (2 * segment))) if segment else _width(draw, len(nodes))
        asked, more = _drawn(draw, draw.choice(options), wanted, segment, sorted(free or nodes))
        words = [f"--nodes={asked}", *([f"--segment={segment}"] if segment else []), *more.split()]
        answer = _allocate(env, words)
        said = re.search(r"Granted job allocation (\d+)", answer)
        given: set[str] = set()
        if said is not None:
            given = set(expand(run(env, "squeue", "-h", "-j", said[1], "-o", "%N").strip()))
            running[said[1]] = given
            alone |= {said[1]} if "topo" in more else set()
        elif "timed out" not in answer and "busy" not in answer:
            print(" ".join(words), "->", answer.strip())
            continue
        told += 1
        held = set().union(*(running[job] for job in alone if job in running and job != (said and said[1])))
        yield {
            "free": _written(free), "alone": _written(held), "nodes": asked, "segment": segment, "options": more,
            "given": _written(given),
        }  # fmt: skip


def _drawn(draw: random.Random, more: str, wanted: int, segment: int, names: list[str]) -> tuple[str, str]:
    """Return how many nodes to ask for, and the options with what was drawn for them."""
    if more == "RANGE":
        return f"{wanted}-{wanted + (segment or 1) * draw.randint(1, 3) + draw.choice([0, 0, 1])}", ""
    if more == "NODELIST":
        return str(
            wanted
        ), f"--nodelist={_written(set(draw.sample(names, min(draw.randint(1, 3), wanted, len(names)))))}"
    return str(wanted), more if segment or "segment" not in more else ""


def _written(names: set[str]) -> str:
    return compress(sorted(names, key=lambda name: (len(name), name)))


def _width(draw: random.Random, nodes: int) -> int:
    return draw.choice([draw.randint(1, max(1, nodes // 4)), draw.randint(1, nodes)])


def _allocate(env: Mapping[str, str], words: list[str]) -> str:
    whole = [] if "--exclusive=topo" in words else ["--exclusive"]
    command = ["salloc", "--no-shell", "--immediate=2", *whole, "--time=60", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60).stderr


def _cancel(env: Mapping[str, str], running: dict[str, set[str]], job: str) -> None:
    """Cancel a job, and wait until its nodes are idle."""
    run(env, "scancel", job)
    nodes = compress(running.pop(job))
    while set(run(env, "sinfo", "-h", "-N", "-n", nodes, "-o", "%T").split()) != {"idle"}:
        time.sleep(0.05)


def main() -> None:
    """Record decisions on one topology."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", action="append", default=[""])
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hpcplan-recording-") as name,
        cluster(Path(name), given.folder / "slurm.conf") as env,
        given.output.open("w", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in decisions(env, given.count, given.seed, tuple(given.options)):
            writer.writerow(row)
            stream.flush()


if __name__ == "__main__":
    main()
