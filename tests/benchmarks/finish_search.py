"""How long `hpcplan plan --objective finish` takes before a long queue of a cluster's nodes.

    .venv/bin/python -m tests.benchmarks.finish_search [--nodes 128 512] [--pending 400] [--load 0.8] [--seed 1]

A site like superpod-h100 with so many nodes is under the load of other users for two weeks, then under more than it can
take until so many jobs wait. The snapshot of that moment, with the accounting of two weeks, is what the plan for
llama3-8b is made from. Fixed seeds: the queue and the plan come out the same each time; the times are of this machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

from hpcplan.resources import shipped
from hpcplan.schedule.finish_search import Queue, plan_for_finish
from hpcplan.schedule.forecast.live import past_of_records
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot, read_snapshot, write_snapshot
from hpcplan.schedule.workers import processors
from hpcplan.simulate.background import Background
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.slurm_cluster import cluster_of_site
from hpcplan.site import load_site
from hpcplan.site.load import LoadedSite
from hpcplan.workload import load_workload

BEGIN = 1_700_000_000
USUAL_S = 14 * 86400
RUSH = 1.8  # of all node time, submitted until the queue is long


def site_of(nodes: int, folder: Path) -> LoadedSite:
    """Return superpod-h100 with so many nodes."""
    text = (shipped("sites") / "superpod-h100.yaml").read_text().replace("dgx[001-128]", f"dgx[001-{nodes:03d}]")
    text = text.replace("name: spine, size: 4", f"name: spine, size: {max(1, nodes // 32)}")
    path = folder / f"superpod-{nodes}.yaml"
    path.write_text(text.replace("name: superpod-h100", f"name: superpod-{nodes}"))
    return load_site(str(path))


def crowded(site: LoadedSite, pending: int, load: float, seed: int) -> QueueSnapshot:
    """Return the queue of the site at the moment when so many jobs wait."""
    cluster = cluster_of_site(site.site)
    engine = Controller(cluster, now=BEGIN, arrivals=Background(cluster.machine, load=load, seed=seed, start=BEGIN))
    engine.advance(BEGIN + USUAL_S)
    engine.arrivals = Background(cluster.machine, load=RUSH, seed=seed + 1, start=engine.now)
    while len(engine.queue) < pending:
        engine.advance(engine.now + 600)
    jobs = tuple(
        QueueJob(
            label=str(job.id), width=job.request.minimum, limit_s=job.request.limit_s, submit_s=job.submit_time,
            start_s=job.start_time, user=job.user, name=job.spec.name, partition=job.request.partition,
            priority=job.priority, nodes=job.node_list,
        )
        for job in engine.jobs.values()
    )  # fmt: skip
    past = tuple(job for job in past_of_records(engine.ended) if (job.end_s or 0) > engine.now - 14 * 86400)
    return QueueSnapshot(
        source="benchmark", now_s=engine.now, machine=engine.machine.as_dict(), policy="slurm", jobs=jobs, history=past
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--pending", type=int, default=400)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=float, default=100e9)
    parser.add_argument("--processes", type=int, default=processors())
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep sites and snapshots here, for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for nodes in options.nodes:
            timed(site_of(nodes, folder), folder / f"queue-{nodes}-{options.pending}.json", options)


def timed(site: LoadedSite, path: Path, options: argparse.Namespace) -> None:
    """Print how long one plan takes, and what it says."""
    if not path.exists():
        write_snapshot(path, crowded(site, options.pending, options.load, options.seed))
    snapshot = read_snapshot(path)
    loaded = load_workload("llama3-8b")
    training = loaded.workload.training.model_copy(update={"tokens": int(options.tokens)})
    loaded = dataclasses.replace(loaded, workload=loaded.workload.model_copy(update={"training": training}))
    began, cpu = time.monotonic(), sum(os.times()[:4])
    found = plan_for_finish(loaded, site, Queue(snapshot), processes=options.processes)
    wall, cpu = time.monotonic() - began, sum(os.times()[:4]) - cpu
    print(
        f"{site.site.name}: {len(snapshot.running)} jobs run, {len(snapshot.pending)} wait, "
        f"{len(snapshot.history):,} ended before; {wall:.0f} s with {options.processes} processes, {cpu:.0f} s of CPU "
        f"in the first of them, load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for one in found.options:
        hours = [one.finish.quantile_s(level) / 3600 for level in (0.5, 0.9)]
        first = one.as_dict(None)["first_wait_s"]["p50"] / 3600
        mark = "<- chosen" if one is found.best else ""
        print(
            f"  {one.partition:8}{one.nodes:5} nodes, {len(one.planned.plan.segments):3} jobs of "
            f"{one.limit_s / 3600:5.1f} h: first wait {first:7.1f} h, done P50 {hours[0]:7.1f} h, "
            f"P90 {hours[1]:7.1f} h, {len(one.finish.finish_s)} futures {mark}"
        )
    print(f"  {found.planned.plan.search.why}")


if __name__ == "__main__":
    main()
