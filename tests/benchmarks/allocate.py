"""How long sharing a site takes, and how near to the bound it comes: 200 workloads on 8 pools.

    python -m tests.benchmarks.allocate [WORKLOADS]

First the whole way (portfolio and site files, the planner's curves, the optimum), with an empty cache and again with a
full one; then the optimum of each objective alone, on curves drawn at random.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from hpcplan.schedule.sharing import OBJECTIVES, Job, Option, Pricing, Problem, compare, read_portfolio, solve
from hpcplan.site import load_site

_CHIPS = ("H100-SXM5-80GB", "H200-SXM5-141GB", "A100-SXM4-80GB", "A100-SXM4-40GB", "B200-SXM-180GB",
          "H100-SXM5-80GB", "A100-SXM4-80GB", "H200-SXM5-141GB")  # fmt: skip
_NODES = (32, 16, 32, 8, 8, 16, 16, 32)


def drawn(count: int, seed: int = 1) -> Problem:
    """Return a problem of curves after Amdahl's law, on 8 pools of different speed."""
    chance = random.Random(seed)
    pools = {f"pool{i}": chance.choice([8, 16, 32, 64]) for i in range(8)}
    speed = {pool: chance.uniform(0.3, 2) for pool in pools}
    jobs = []
    for k in range(count):
        work, serial = 10 ** chance.uniform(4, 6), chance.uniform(0.005, 0.1)
        options = []
        for pool, nodes in pools.items():
            for n in (1, 2, 4, 8, 16, 32, 64):
                if n <= nodes:
                    run_s = work / speed[pool] * (serial + (1 - serial) / n)
                    options.append(Option(pool, n, run_s, n * run_s / 3600 * speed[pool] ** 1.2, n * run_s / 3600))
        arrival_s = 0.0 if chance.random() < 0.5 else chance.uniform(0, 2e5)
        jobs.append(Job(f"w{k}", tuple(options), weight=chance.choice([1, 2, 5]), arrival_s=arrival_s))
    return Problem(pools, tuple(jobs), horizon_s=1e6)


def written(folder: Path, count: int, seed: int = 2) -> tuple[Path, Path]:
    """Write a site of 8 node groups, and a portfolio of real models."""
    chance = random.Random(seed)
    lines = ["name: eight-pools", "node_groups:"]
    for i, (chip, nodes) in enumerate(zip(_CHIPS, _NODES, strict=True)):
        lines += [
            f"  g{i}:", f"    nodes: g{i}n[1-{nodes}]", "    cpus: 96", "    memory: 2 TiB",
            f"    accelerators: {{type: {chip}, count: 8}}",
            "    intra_node: {kind: nvswitch, bandwidth: 300 GB/s}",
            "    nics: {count: 4, bandwidth: 200 Gb/s}", "    power: 8 kW", f"    price_per_hour: {12 + i}",
        ]  # fmt: skip
    lines += ["partitions:", f"  all: {{nodes: [{', '.join(f'g{i}' for i in range(8))}], max_time: 2-00:00:00}}"]
    lines += ["fabric:", "  kind: tree", "  levels:",
              "    - {name: leaf, size: 16, uplink: 12.8 Tb/s, latency: 300 ns}",
              "    - {name: spine, size: 16, latency: 600 ns}"]  # fmt: skip
    site = folder / "eight-pools.yaml"
    site.write_text("\n".join(lines) + "\n")
    models = ("bert-large", "llama3-8b", "bloom-176b", "llama3-70b")
    entries = ["name: many", "workloads:"]
    for k in range(count):
        model = chance.choices(models, [4, 4, 1, 2])[0]
        tokens = {"bert-large": 60, "llama3-8b": 20, "bloom-176b": 1, "llama3-70b": 2}[model] * chance.uniform(0.2, 2)
        entries.append(
            f"  - {{workload: {model}, name: w{k}, tokens: {tokens:.2f}B, priority: {chance.choice([1, 2, 5])}}}"
        )
    portfolio = folder / "portfolio.yaml"
    portfolio.write_text("\n".join(entries) + "\n")
    return site, portfolio


def main(count: int) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site, path = written(folder, count)
        for state in ("empty", "full"):
            began, cpu = time.perf_counter(), time.process_time()
            portfolio, wanted = read_portfolio(path)
            pricing = Pricing(load_site(site), cache=folder / "curves")
            problem = pricing.problem(portfolio, wanted)
            priced = time.perf_counter()
            outcomes = compare(problem, ["equal", "priority", "proportional", "optimal"], "makespan")
            ended = time.perf_counter()
            solution = outcomes[-1].solution
            assert solution is not None
            print(f"{count} workloads, 8 pools, {state} cache: read and priced in {priced - began:.1f} s "
                  f"({pricing.asked} searches), four policies in {ended - priced:.1f} s, all {ended - began:.1f} s "
                f"({time.process_time() - cpu:.1f} s of CPU); "
                  f"gap {solution.gap:.1%}")  # fmt: skip
        for outcome in outcomes:
            print(f"  {outcome.policy:13} makespan {outcome.makespan_s / 3600:8.1f} h  nodes used {outcome.used:4.0%}  "
                  f"Jain {outcome.fairness.jain:.2f}  worst rho {outcome.fairness.worst_rho:.2f}")  # fmt: skip
    print(f"\nthe optimum alone, {count} workloads on curves drawn at random")
    print(f"{'objective':22}{'value':>14}{'bound':>14}{'gap':>8}{'seconds':>9}")
    for objective in OBJECTIVES:
        began = time.perf_counter()
        found = solve(drawn(count), objective, time_limit_s=30)
        print(f"{objective:22}{found.value:14.6g}{found.bound:14.6g}{found.gap:8.1%}{time.perf_counter() - began:9.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
