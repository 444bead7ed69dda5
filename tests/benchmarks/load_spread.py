"""Whether the load that forecasts draw for the next days spreads as the load that then comes.

    .venv/bin/python -m tests.benchmarks.load_spread [--traces TRACE.swf.gz ...] [--seeds 60] [--first 1] [--days 1 3 6]

Sources: the mock cluster's other users at several loads; users who submit in campaigns of like jobs; Lublin and
Feitelson's model; and traces, cut at moments so far apart that no two futures overlap. Of each moment two weeks of
history are known. The node-seconds submitted in the next days are held against those of the drawn futures: where they
come within the P10 and P90, whether half of them come below the P50, and how wide their normal scores spread (1: as
drawn; above: real load spreads wider than drawn). Fixed seeds: the table comes out the same each time.
"""

from __future__ import annotations

import argparse
import math
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcplan.schedule.forecast.arrivals import Arrivals, submissions
from hpcplan.schedule.forecast.runtimes import RunTimes
from hpcplan.schedule.forecast.snapshot import QueueJob
from hpcplan.schedule.forecast.traces import past_of_trace
from hpcplan.schedule.forecast.wait import run_like
from hpcplan.simulate.background import Background
from hpcplan.simulate.lublin import lublin
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.trace_files import read_trace

DAY_S = 86400
HISTORY_S = 14 * DAY_S
BEGIN = 1_700_000_000
MOMENT_S = 29 * 3600
DRAWS = 100


@dataclass(frozen=True)
class Moment:
    """A moment of a source: everything that is submitted, before and after."""

    now_s: int
    jobs: Sequence[QueueJob]


def job(number: int, submit_s: int, width: int, run_s: int, limit_s: int, user: str, name: str) -> QueueJob:
    """Return a job that starts as it is submitted."""
    run_s = max(1, min(run_s, limit_s))
    return QueueJob.model_construct(
        label=str(number), width=width, limit_s=limit_s, submit_s=submit_s, start_s=submit_s, end_s=submit_s + run_s,
        user=user, name=name, partition="batch", priority=0, nodes=None, qos=None, state=None,
    )  # fmt: skip


def mock(load: float, nodes: int, seeds: range, ahead_s: int) -> Iterator[Moment]:
    """Yield moments of the mock cluster's other users, if nobody waited."""
    mask = (1 << nodes) - 1
    machine = Machine(
        tuple(f"n{number:03d}" for number in range(nodes)),
        (NodeGroupShape(mask=mask, cpus=64, memory_bytes=2**38, gpus=8),),
        {"batch": PartitionShape("batch", mask, default=True, max_time_s=86400)},
    )
    for seed in seeds:
        begin = BEGIN + seed * MOMENT_S % (7 * DAY_S)
        others = Background(machine, load=load, seed=seed, start=begin)
        now, jobs = begin + HISTORY_S, []
        while others.next_time is not None and others.next_time < now + ahead_s:
            one = others.pop()
            spec, limit_s = one.spec, one.spec.time_limit_s or DAY_S
            run_s = one.behaviour.runtime_s
            jobs.append(job(len(jobs), one.time, spec.nodes_min or 1, run_s, limit_s, one.user, spec.name or ""))
        yield Moment(now, jobs)


def campaigns(seeds: range, ahead_s: int) -> Iterator[Moment]:
    """Yield moments of twelve users who work in sessions: days of none, then days of many like jobs."""
    for seed in seeds:
        chance = random.Random(f"campaigns/{seed}")
        begin = BEGIN + seed * MOMENT_S % (7 * DAY_S)
        now, jobs = begin + HISTORY_S, []
        for user in range(12):
            time = begin - chance.expovariate(1 / (3 * DAY_S))
            while time < now + ahead_s:
                width = 2 ** chance.randrange(6)
                usual_s = chance.lognormvariate(math.log(5400), 1)
                limit_s = math.ceil(4 * usual_s / 3600) * 3600
                for _ in range(chance.randint(3, 60)):
                    time += chance.expovariate(1 / 2400)
                    if begin <= time < now + ahead_s:
                        run_s = round(usual_s * chance.lognormvariate(0, 0.3))
                        jobs.append(job(len(jobs), round(time), width, run_s, limit_s, f"u{user}", f"c{width}"))
                time += chance.expovariate(1 / (2 * DAY_S))
        yield Moment(now, sorted(jobs, key=lambda one: one.submit_s))


def models(seeds: range, ahead_s: int) -> Iterator[Moment]:
    """Yield moments of Lublin and Feitelson's model on 256 processors at 70 % load, if nobody waited."""
    for seed in seeds:
        trace = lublin(5000, 256, seed=seed, load=0.7)
        jobs = [
            job(number, one.submit_s, one.procs, one.run_s, one.limit_s, one.user or "", "")
            for number, one in enumerate(trace.jobs)
        ]
        yield Moment(HISTORY_S + seed * MOMENT_S % (7 * DAY_S), jobs)


def cut(path: Path, ahead_s: int) -> Iterator[Moment]:
    """Yield moments of a trace under EASY, the first when two weeks are known."""
    jobs = sorted(past_of_trace(read_trace(path)), key=lambda one: one.submit_s)
    first, last = jobs[0].submit_s, jobs[-1].submit_s
    for now in range(first + HISTORY_S, last - ahead_s, ahead_s):
        yield Moment(now, jobs)


def known(moment: Moment) -> tuple[list[QueueJob], list[QueueJob]]:
    """Return what had ended at a moment, and what ran or waited."""
    ended, live = [], []
    for one in moment.jobs:
        if moment.now_s - HISTORY_S <= one.submit_s < moment.now_s:
            if (one.end_s or 0) <= moment.now_s:
                ended.append(one)
            else:
                started = (one.start_s or 0) < moment.now_s
                live.append(one.model_copy(update={"end_s": None} if started else {"end_s": None, "start_s": None}))
    return ended, live


def work(one: QueueJob, run_s: int) -> float:
    """Return the node-seconds of a job."""
    return float(one.width * run_s)


def drawn(moment: Moment, days: Sequence[int], seed: int) -> np.ndarray:
    """Return the load of the next so many days, a column each, in drawn futures, a row each."""
    ended, live = known(moment)
    runtimes = RunTimes()
    for one in sorted(ended, key=lambda one: one.end_s or 0):
        runtimes.add(one)
    arrivals = Arrivals(submissions(ended, live))
    random_ = np.random.default_rng(seed)
    runs = runtimes.draw(live, moment.now_s, DRAWS, random_)
    position = {one.label: index for index, one in enumerate(live)}
    found = np.zeros((DRAWS, len(days)))
    for draw in range(DRAWS):
        runs_s = runs[:, draw].tolist()
        for stretch in arrivals.stretches(moment.now_s, random_, horizon_s=max(days) * DAY_S):
            for time, one in stretch:
                amount = work(one, run_like(one, moment.now_s, position, runs_s, random_))
                for column, count in enumerate(days):
                    found[draw, column] += amount * (time < moment.now_s + count * DAY_S)
    return found


def came(moment: Moment, days: Sequence[int]) -> np.ndarray:
    """Return the load that came in the next so many days."""
    found = np.zeros(len(days))
    for one in moment.jobs:
        if one.submit_s >= moment.now_s:
            amount = work(one, (one.end_s or 0) - (one.start_s or 0))
            found += [amount * (one.submit_s < moment.now_s + count * DAY_S) for count in days]
    return found


def told(name: str, moments: Iterator[Moment], days: Sequence[int]) -> None:
    """Print the rows of a source."""
    from scipy.stats import norm

    ranks, ratios = [], []
    for number, moment in enumerate(moments):
        mine, real = drawn(moment, days, zlib.crc32(f"{name}/{number}".encode())), came(moment, days)
        ranks.append(((mine < real).sum(axis=0) + 0.5 * (mine == real).sum(axis=0) + 0.5) / (DRAWS + 1))
        ratios.append(np.concatenate([real / np.maximum(mine.mean(axis=0), 1e-9), mine.std(axis=0)]))
    if not ranks:
        return
    u = np.array(ranks)
    for column, count in enumerate(days):
        scores = norm.ppf(u[:, column])
        inside = ((u[:, column] >= 0.1) & (u[:, column] <= 0.9)).mean()
        print(
            f"{name:24}{count:4} d{len(u):6}{inside:12.0%}{(u[:, column] > 0.9).mean():12.0%}"
            f"{(u[:, column] < 0.1).mean():12.0%}{(u[:, column] <= 0.5).mean():10.0%}{scores.std():10.2f}"
            f"{np.array(ratios)[:, column].mean():10.2f}", flush=True,
        )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", nargs="*", type=Path, default=[])
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--only", nargs="*", help="sources whose names hold one of these words")
    options = parser.parse_args()
    seeds, ahead_s = range(options.first, options.first + options.seeds), max(options.days) * DAY_S
    print(f"{'load that came':24}{'':6}{'n':>6}{'P10 to P90':>12}{'above P90':>12}{'below P10':>12}{'<= P50':>10}"
          f"{'spread':>10}{'mean':>10}")  # fmt: skip
    sources = {
        **{f"mock, {nodes} nodes, {load:.0%}": mock(load, nodes, seeds, ahead_s)
           for nodes, load in ((32, 0.3), (32, 0.8), (128, 0.8))},
        "campaigns of users": campaigns(seeds, ahead_s),
        "Lublin 256, 70 %": models(seeds, ahead_s),
        **{path.name.split(".")[0]: cut(path, ahead_s) for path in options.traces},
    }  # fmt: skip
    for name, moments in sources.items():
        if not options.only or any(word in name for word in options.only):
            told(name, moments, options.days)


if __name__ == "__main__":
    main()
