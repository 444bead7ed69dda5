"""The strategy search against Calculon's: candidates a second, and whose optimum is better, on one core.

Calculon (https://github.com/calculon-ai/calculon, Isaev et al. 2023) stays outside this repository: give the path of a
checkout with ``--calculon`` or the environment variable ``CALCULON``; it needs ``psutil`` and ``pandas``. Both programs
are held to one core. Calculon's own loop over one (tensor, pipeline, data, interleaving, recomputation, sharding,
communication) is timed for a sample of those, drawn at random with a fixed seed, until ``--seconds`` are over
(``--full``: all of them); how many candidates there are in all is counted with its own ``--debug``. Ours is the whole
command, start-up included, the best of three times. Rates by CPU time (user and system) do not depend on what else the
machine does; wall-clock times do.

"Same cost model": every sharding of Calculon's space is written in our terms and priced by our cost model, on the
machine that ours is searched on. The best of these that fit can be no faster than what the search finds.

    CALCULON=~/calculon python -m tests.benchmarks.search_calculon
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Case", "main"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """A model on so many accelerators: by our names, and by Calculon's."""

    workload: str
    site: str
    nodes: int
    system: str
    name: str


CASES = (
    Case("gpt3-175b", "selene", 128, "a100_80g", "GPT-3 175B on 1,024 A100"),
    Case("gpt3-175b", "selene", 512, "a100_80g", "GPT-3 175B on 4,096 A100"),
    Case("llama3-405b", "grand-teton-h100-700w", 2048, "h100_80g_nvl8", "Llama 3 405B on 16,384 H100"),
)


@dataclass(frozen=True)
class Theirs:
    """What Calculon did: candidates in all and tried, seconds, and the shardings of its whole space."""

    total: int
    tried: int
    cpu_s: float
    shardings: list[tuple[int, ...]]


@dataclass(frozen=True)
class Ours:
    """What the whole command did."""

    candidates: int
    search_s: float
    wall_s: float
    cpu_s: float
    step_s: float
    sharding: dict[str, Any]


def calculon_parts(llm: Any, app: Any, gpus: int, batch: int) -> Iterator[tuple[Any, ...]]:
    """Yield the parts of Calculon's search space, as its own command lists them."""
    search = sys.modules["calculon.llm.optimal_execution"].OptimalExecution
    for tp in llm.get_all_tensor_parallelisms(gpus, app.hidden, app.attn_heads):
        for pp in llm.get_all_pipeline_parallelisms(gpus, tp, app.num_blocks):
            dp = llm.get_data_parallelism(gpus, tp, pp)
            size = search.get_batch_size(dp, batch)
            if size is None:
                continue
            for chunks in llm.get_valid_pipeline_interleavings(app.num_blocks, pp):
                sharding = [True, False] if dp > 1 else [False]
                for rest in product(["full", "attn_only", "none"], sharding, ["ar", "p2p_rs_ag", "rs_ag"]):
                    yield (tp, pp, dp, chunks, size, *rest)


def run_calculon(path: Path, case: Case, seconds: float, full: bool) -> Theirs:
    """Search with Calculon, in this process and on this core."""
    sys.path.insert(0, str(path))
    import calculon
    from calculon.llm.llm import Llm
    from calculon.llm.optimal_execution import OptimalExecution
    from calculon.system import System

    from hpcplan.workload import load_workload

    workload = load_workload(case.workload).workload
    shape, run = workload.model, workload.training
    app = Llm.Application({"hidden": shape.hidden, "feedforward": shape.ffn, "seq_size": run.sequence_length,
                           "attn_heads": shape.heads, "attn_size": shape.head_size, "num_blocks": shape.layers,
                           "name": case.workload})  # fmt: skip
    system = System(calculon.io.read_json_file(str(path / "systems" / f"{case.system}.json")))
    gpus = case.nodes * 8
    parts = [*calculon_parts(Llm, app, gpus, run.global_batch)]

    def search(part: tuple[Any, ...], debug: bool) -> tuple[Any, ...]:
        tp, pp, dp, chunks, batch, again, shard, comm = part
        found = OptimalExecution.search(debug, 1, False, gpus, batch, "float16", app, system, tp, pp, dp, chunks, batch,
                                        again, shard, comm, [True], False, True, True)  # fmt: skip
        return tuple(found)

    total = sum(search(part, True)[1] for part in parts)
    shardings = [row for part in parts for row in _our_terms(Llm, run.sequence_length, run.global_batch, part)]
    random.Random(1).shuffle(parts)
    tried, began = 0, time.process_time()
    for part in parts:
        tried += search(part, False)[1]
        if not full and time.process_time() - began > seconds:
            break
    return Theirs(total, tried, time.process_time() - began, shardings)


def _our_terms(llm: Any, sequence: int, batch: int, part: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """Yield one of Calculon's parts as rows of our columns, one for each of its micro-batch sizes."""
    tp, pp, dp, chunks, size, again, shard, comm = part
    if size != batch:
        return  # it takes the largest multiple of dp below the batch; we take the batch
    words = {"full": 2, "attn_only": 1, "none": 0}
    for micro_batch in llm.get_valid_microbatch_sizes(sequence, tp, dp, batch, pp):
        yield (tp, pp, chunks, dp, micro_batch, batch // dp // micro_batch, int(shard), words[again],
               int(comm == "rs_ag" and tp > 1))  # fmt: skip


def run_ours(case: Case, *options: str, times: int = 3) -> Ours:
    """Run the whole command in a process of its own, some times, and return the quickest."""
    return min((_run_once(case, *options) for _ in range(times)), key=lambda ours: ours.wall_s)


def _run_once(case: Case, *options: str) -> Ours:
    words = [sys.executable, "-m", "hpcplan", "plan", case.workload, "--site", case.site, "--format", "json"]
    if not options:
        options = ("--nodes", str(case.nodes), "--framework", "srun")
    began, before = time.perf_counter(), _cpu_of_children_s()
    done = subprocess.run([*words, *options], capture_output=True, text=True, check=True, cwd=ROOT)
    wall_s, cpu_s = time.perf_counter() - began, _cpu_of_children_s() - before
    data = json.loads(done.stdout)
    search = data["search"]
    return Ours(search["candidates"], search["seconds"], wall_s, cpu_s, data["estimate"]["iter_time_s"], data["plan"])


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def priced(case: Case, rows: list[tuple[int, ...]]) -> float:
    """Return the shortest step (s) that our cost model gives to any of these shardings that fits and has a schedule."""
    from hpcplan.cost.shardings import Shardings
    from hpcplan.partition.kinds import kinds_of
    from hpcplan.schedule.planner import constants_on
    from hpcplan.site import load_site
    from hpcplan.site.topology import build_topology
    from hpcplan.workload import Workload, load_workload

    data = load_workload(case.workload).workload.model_dump()
    data["request"]["framework"] = "srun"
    workload = Workload.model_validate(data)
    site = load_site(case.site).site
    group = site.partitions[site.default_partition()].nodes[0]
    kind = kinds_of(workload, site, build_topology(site), (group,),
                    lambda g, p: constants_on(workload, site, None, g, p))[0]  # fmt: skip
    names = ("tp", "pp", "vpp", "dp", "micro_batch", "micro_batches", "zero", "recompute", "sequence_parallel")
    s = Shardings.of(**{name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    costs = kind.price(workload, s)
    fits = costs.memory_bytes <= kind.free_bytes(workload.request.memory_headroom)
    interleaved = (s.vpp > 1) & (s.micro_batches % s.pp != 0)  # no schedule runs these
    return float(np.min(np.where(fits & ~interleaved, costs.step_s, np.inf)))


def large_site(folder: Path, nodes: int) -> Path:
    """Write a site of so many nodes: Meta's cluster with more pods."""
    import yaml

    from hpcplan.resources import shipped

    data = yaml.safe_load((shipped("sites") / "grand-teton-h100-700w.yaml").read_text())
    data["name"] = f"grand-teton-{nodes}"
    data["node_groups"]["h100"]["nodes"] = f"gt[00001-{nodes:05d}]"
    data["fabric"]["levels"][-1]["size"] = -(-nodes // 384)
    path = folder / f"large-{nodes}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def growth(counts: list[int]) -> list[tuple[int, Ours, Ours]]:
    """Search on ever more accelerators: on all of them, and on any number of nodes up to all."""
    rows: list[tuple[int, Ours, Ours]] = []
    with tempfile.TemporaryDirectory() as folder:
        for gpus in counts:
            site = str(large_site(Path(folder), gpus // 8))
            case = Case("llama3-405b", site, gpus // 8, "", "")
            batch = ("--global-batch", str(max(2048, gpus // 8)), "--framework", "srun")
            rows.append((gpus, run_ours(case, "--nodes", str(gpus // 8), *batch),
                         run_ours(case, "--nodes", f"1:{gpus // 8}", *batch, times=1)))  # fmt: skip
    return rows


def main() -> None:
    """Print the comparison, and how the search grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calculon", type=Path, default=os.environ.get("CALCULON"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of Calculon, for each case")
    parser.add_argument("--full", action="store_true", help="let Calculon go through its whole space (hours)")
    parser.add_argument("--no-growth", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    print("| case | Calculon: candidates | tried in (CPU) | a CPU second | ours: candidates | search | whole command "
          "| its CPU time | candidates a CPU second, whole command | ratio | best of its space, priced by our model "
          "| our best |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for case in CASES:
        ours = run_ours(case)
        speed = ours.candidates / ours.cpu_s
        mine = f"{ours.candidates:,} | {ours.search_s:.2f} s | {ours.wall_s:.2f} s | {ours.cpu_s:.2f} s | {speed:,.0f}"
        if options.calculon is None:
            print(f"| {case.name} | | | | {mine} | | | {ours.step_s:.2f} s |")
            continue
        theirs = run_calculon(Path(options.calculon), case, options.seconds, options.full)
        rate = theirs.tried / theirs.cpu_s
        print(f"| {case.name} | {theirs.total:,} | {theirs.tried:,} in {theirs.cpu_s:.0f} s | {rate:,.0f} | {mine} "
              f"| {speed / rate:,.0f} | {priced(case, theirs.shardings):.2f} s | {ours.step_s:.2f} s |",
              flush=True)  # fmt: skip
    if options.no_growth:
        return
    print()
    print("| H100 | candidates on all nodes | search | whole command | its CPU time | candidates on 1 to all nodes "
          "| whole command | its CPU time | CPU us a candidate |")  # fmt: skip
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for gpus, exact, upto in growth([1024, 4096, 16384, 32768, 65536, 98304]):
        each = 1e6 * upto.cpu_s / upto.candidates
        print(
            f"| {gpus:,} | {exact.candidates:,} | {exact.search_s:.2f} s | {exact.wall_s:.2f} s | {exact.cpu_s:.2f} s "
            f"| {upto.candidates:,} | {upto.wall_s:.1f} s | {upto.cpu_s:.1f} s | {each:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
