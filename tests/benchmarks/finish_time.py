"""Chains of jobs run end to end on the mock cluster, beside what was predicted when the first was submitted.

    .venv/bin/python -m tests.benchmarks.finish_time [--seeds 60] [--load 0.6]

For each seed a cluster of 32 nodes is under the load of its other users for eighteen days; the moment then is another
hour of another day of the week each time. A chain for 8 nodes is
predicted from the queue and the accounting of the last fourteen, and run: each job is submitted when the one before has
ended; one whose node fails loses what it did since its last checkpoint, and is submitted again. P50 is the actual time
over the predicted median, median of all seeds; P90 how often the chain was done within the predicted 90th percentile.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass

import numpy as np

from hpcplan.plan import Segment
from hpcplan.schedule.chain_waits import ChainWaits
from hpcplan.schedule.finish import REQUEUE_S, Chain, simulate_chain
from hpcplan.schedule.forecast.live import past_of_records
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster
from hpcplan.simulate.background import Background
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import Behaviour, JobSpec
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings

NODES, WIDTH = 32, 8
BEGIN = 1_700_000_000
MOMENT_S = 29 * 3600  # from one seed's moment to the next: all hours of the day and days of the week have their turn
EMPTY_S = 4 * 86400  # until the queue is what it will be
HISTORY_S = 14 * 86400
STEP_S, EVERY, WRITE_S = 20.0, 90, 30.0
MTBF_NODE_S = 8 * 40 * 3600.0
SEGMENTS, STEPS = 4, 1400
LIMIT_S = 9 * 3600


def cluster() -> SlurmCluster:
    """Return 32 equal nodes in one partition, under Slurm's defaults."""
    mask = (1 << NODES) - 1
    machine = Machine(
        tuple(f"n{number:02d}" for number in range(NODES)),
        (NodeGroupShape(mask=mask, cpus=64, memory_bytes=2**38, gpus=8),),
        {"batch": PartitionShape("batch", mask, default=True, max_time_s=86400)},
    )
    return SlurmCluster(machine, SlurmSettings())


def chain() -> Chain:
    """Return the chain: four jobs of about eight hours each."""
    segments = tuple(
        Segment(
            index=number + 1, first_step=number * STEPS + 1, last_step=(number + 1) * STEPS, time_limit_s=LIMIT_S,
            warning_s=180, expected_s=STEPS * STEP_S,
        )
        for number in range(SEGMENTS)
    )  # fmt: skip
    return Chain(segments, STEP_S, STEP_S, EVERY, WRITE_S, failure_rate_per_s=WIDTH / MTBF_NODE_S)


def snapshot(engine: Controller) -> QueueSnapshot:
    """Return the queue of an engine and what ended on it, as accounting would tell."""
    live = tuple(
        QueueJob(
            label=str(job.id), width=job.request.minimum, limit_s=job.request.limit_s, submit_s=job.submit_time,
            start_s=job.start_time, user=job.user, name=job.spec.name, partition="batch", priority=job.priority,
            nodes=job.node_list,
        )
        for job in engine.jobs.values()
    )  # fmt: skip
    return QueueSnapshot(
        now_s=engine.now, machine=engine.machine.as_dict(), policy="slurm", jobs=live,
        history=tuple(past_of_records(engine.ended)),
    )  # fmt: skip


@dataclass
class Run:
    """One chain on its way over a cluster."""

    engine: Controller
    asked: Chain
    chance: random.Random

    def finish_s(self) -> float:
        """Return how long the whole chain takes from now."""
        began, done, total = self.engine.now, 0, SEGMENTS * STEPS
        position = 0
        while done < total:
            goal = self.asked.segments[position].last_step
            steps = goal - done
            runs_s = self.asked.startup_s + steps * STEP_S + math.ceil(steps / EVERY) * WRITE_S
            fails_s = self.chance.expovariate(self.asked.failure_rate_per_s)
            ended = self.job(round(min(runs_s, fails_s)))
            if fails_s < runs_s:
                cycles = max(0.0, fails_s - self.asked.startup_s) // (EVERY * STEP_S + WRITE_S)
                done += min(steps, int(cycles) * EVERY)
                self.advance(ended + REQUEUE_S)
            else:
                done, position = goal, position + 1
        return self.engine.now - began

    def job(self, run_s: int) -> int:
        """Run one job to its end and return when that was."""
        spec = JobSpec(name="chain", partition="batch", nodes_min=WIDTH, nodes_max=WIDTH, time_limit_s=LIMIT_S)
        number = self.engine.submit(spec, Behaviour(max(1, run_s)), "we")
        while number in self.engine.jobs:
            following = self.engine.next_event_time()
            assert following is not None
            self.engine.step(following)
        return self.engine.now

    def advance(self, until: int) -> None:
        """Let time pass."""
        self.engine.advance(until)


def one(seed: int, load: float, samples: int) -> tuple[float, float, float, float]:
    """Return (actual, predicted P50, predicted P10, predicted P90) in seconds."""
    where = cluster()
    begin = BEGIN + seed * MOMENT_S % (7 * 86400)
    others = Background(where.machine, load=load, seed=seed, start=begin)
    engine = Controller(where, now=begin, arrivals=others)
    engine.advance(begin + EMPTY_S)
    engine.ended.clear()
    engine.advance(begin + EMPTY_S + HISTORY_S)
    now = snapshot(engine)
    asked = chain()
    job = QueueJob(label="chain", width=WIDTH, limit_s=LIMIT_S, submit_s=now.now_s, partition="batch")
    futures = ChainWaits(now, Forecaster(now.history, now.jobs, seed=seed), futures=samples)
    random_ = np.random.default_rng(seed)
    found = simulate_chain(asked, lambda number: futures.wait_in(number, job, random_), samples=samples, random=random_)
    actual = Run(engine, asked, random.Random(f"failures/{seed}")).finish_s()
    return actual, found.quantile_s(0.5), found.quantile_s(0.1), found.quantile_s(0.9)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--load", type=float, default=0.6)
    options = parser.parse_args()
    began = time.monotonic()
    found = []
    for seed in range(options.first, options.first + options.seeds):
        found.append(one(seed, options.load, options.samples))
        print(f"seed {seed}: " + " ".join(f"{value / 3600:.2f}" for value in found[-1]), file=sys.stderr, flush=True)
    rows = np.array(found)
    ratio = rows[:, 0] / rows[:, 1]
    pure_h = SEGMENTS * (STEPS * STEP_S) / 3600
    print(f"{len(rows)} chains of {SEGMENTS} jobs, {pure_h:.1f} h of steps each; load {options.load:.0%}")
    print(
        f"done after, median of seeds: {np.median(rows[:, 0]) / 3600:.2f} h; "
        f"predicted {np.median(rows[:, 1]) / 3600:.2f} h"
    )
    print(f"actual over predicted P50, median: {np.median(ratio):.3f}; mean {ratio.mean():.3f}")
    print(f"within P90: {(rows[:, 0] <= rows[:, 3]).mean():.1%}; above P10: {(rows[:, 0] >= rows[:, 2]).mean():.1%}")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
