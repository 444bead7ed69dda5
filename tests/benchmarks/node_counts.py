"""What it is worth to choose node counts by predicted finish, on traces in the Standard Workload Format.

    .venv/bin/python -m tests.benchmarks.node_counts TRACE.swf.gz ... [--moments 300] [--samples 60]

At evenly spaced moments of a trace under EASY a job turns up that can run on a sixteenth, an eighth, a quarter, a half
or all of the processors (Amdahl's law, 0.2 % serial; half an hour to eight hours on a quarter of the machine). What
each size would have come to is replayed with what really happened: the true run times, and the true submissions. The
choice by forecast knows only what was known at that moment. "Oracle" takes the best of the replays, "best fixed" the
share that is best for all moments together, in hindsight. Fixed seeds: the table comes out the same each time.
"""

from __future__ import annotations

import argparse
import time
from bisect import bisect_right
from pathlib import Path

import numpy as np

from hpcplan.schedule.forecast.backtest import moments
from hpcplan.schedule.forecast.pool import PoolFuture
from hpcplan.schedule.forecast.snapshot import QueueJob
from hpcplan.schedule.forecast.traces import past_of_trace, pool_of_trace
from hpcplan.schedule.forecast.wait import Forecaster
from hpcplan.simulate.trace_files import read_trace
from tests.benchmarks.queue_wait import evenly

SHARES = (16, 8, 4, 2, 1)
SERIAL = 0.002
AHEAD = 600  # true submissions replayed behind the job


def run_s(work_s: float, width: int) -> int:
    """Return the run time on so many processors of a job that takes ``work_s`` on one."""
    return max(60, round(work_s * (SERIAL + (1 - SERIAL) / width)))


def compared(path: Path, count: int, samples: int) -> dict[str, float]:
    """Return mean times from submission to end, in hours, by way of choosing."""
    trace = read_trace(path)
    empty, jobs = pool_of_trace(trace), sorted(past_of_trace(trace), key=lambda job: job.submit_s)
    procs = empty.procs or 1
    widths = [max(1, procs // share) for share in SHARES]
    truth = {job.label: (job.end_s or 0) - (job.start_s or 0) for job in jobs}
    submissions = [job.submit_s for job in jobs]
    forecaster = Forecaster(seed=1)
    random = np.random.default_rng(7)
    real, predicted = [], []
    past = moments(
        jobs, empty, evenly(len(jobs), count).__contains__, ended=forecaster.runtimes.add,
        submitted=forecaster.arrivals.add,
    )  # fmt: skip
    for moment in past:
        now = moment.snapshot.now_s
        quarter_s = float(np.exp(random.uniform(np.log(1800), np.log(8 * 3600))))
        work_s = quarter_s / (SERIAL + (1 - SERIAL) / max(1, procs // 4))
        runs = [run_s(work_s, width) for width in widths]
        targets = [
            QueueJob(label=f"x{width}", width=width, limit_s=round(1.5 * run), submit_s=now)
            for width, run in zip(widths, runs, strict=True)
        ]
        future = PoolFuture(moment.snapshot)
        first = bisect_right(submissions, now)
        coming = [(job.submit_s, job, truth[job.label]) for job in jobs[first : first + AHEAD]]
        live = [truth[job.label] for job in future.live]
        real.append([future.start_of(one, live, coming) - now + run for one, run in zip(targets, runs, strict=True)])
        found = forecaster.forecast(moment.snapshot, targets, samples=samples)
        predicted.append([one.quantile_s(0.5) + run for one, run in zip(found, runs, strict=True)])
    ends, guess = np.array(real) / 3600, np.array(predicted)
    return {
        "least": ends[:, 0].mean(),
        "most": ends[:, -1].mean(),
        "best fixed": ends.mean(axis=0).min(),
        "forecast": ends[np.arange(len(ends)), guess.argmin(axis=1)].mean(),
        "oracle": ends.min(axis=1).mean(),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--moments", type=int, default=300)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    names = ("least", "most", "best fixed", "forecast", "oracle")
    print(f"{'mean hours to the end':24}" + "".join(f"{name:>12}" for name in names)
          + f"{'vs least':>10}{'vs most':>10}{'vs oracle':>11}{'seconds':>9}")  # fmt: skip
    for path in options.traces:
        began = time.monotonic()
        found = compared(path, options.moments, options.samples)
        chosen = found["forecast"]
        against = "".join(f"{chosen / found[name] - 1:>+{width}.1%}" for name, width in
                          (("least", 10), ("most", 10), ("oracle", 11)))  # fmt: skip
        print(f"{path.name.split('.')[0]:24}" + "".join(f"{found[name]:12.2f}" for name in names) + against
              + f"{time.monotonic() - began:9.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
