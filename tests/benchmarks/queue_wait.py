"""How well ``hpcplan when`` foretells starts, on traces in the Standard Workload Format.

    .venv/bin/python -m tests.benchmarks.queue_wait TRACE.swf.gz ... [--submissions 1500] [--samples 60]

Truth is the trace under EASY backfill with the users' limits. Evenly spaced submissions are forecast with what was
known then: which jobs ran and waited, what they had asked for, and what had ended. Beside it, the same queue run
forward once with other run times: the users' limits, and the mean of the user's last two run times (Tsafrir, Etsion &
Feitelson, IEEE TPDS 18(6), 2007). Fixed seeds: the table comes out the same each time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcplan.schedule.forecast.backtest import Backtested, Moment, backtest, moments
from hpcplan.schedule.forecast.pool import PoolFuture
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.traces import past_of_trace, pool_of_trace
from hpcplan.simulate.trace_files import read_trace


def evenly(total: int, count: int) -> set[int]:
    """Return ``count`` evenly spaced numbers below ``total``."""
    count = min(total, count)
    return {number * total // count for number in range(count)}


def limits_alone(moment: Moment) -> int:
    """Return the wait if every job used up its limit."""
    future = PoolFuture(moment.snapshot)
    start = future.start_of(moment.target, [job.limit_s for job in future.live], ())
    return start - moment.snapshot.now_s


class LastTwo:
    """The mean of the user's last two run times, at most the limit; the limit where that is past or not known."""

    def __init__(self) -> None:
        self.runs: dict[str | None, list[int]] = {}

    def ended(self, job: QueueJob) -> None:
        """Take note of a job's run time."""
        assert job.start_s is not None
        assert job.end_s is not None
        self.runs.setdefault(job.user, []).append(job.end_s - job.start_s)

    def run_s(self, job: QueueJob, now: int) -> int:
        """Return how long a live job will run."""
        last = self.runs.get(job.user, [])[-2:]
        guess = min(job.limit_s, sum(last) // len(last)) if last else job.limit_s
        return guess if job.start_s is None or guess > now - job.start_s else job.limit_s

    def wait(self, moment: Moment) -> int:
        """Return the wait if every job ran as guessed."""
        future = PoolFuture(moment.snapshot)
        runs = [self.run_s(job, moment.snapshot.now_s) for job in future.live]
        return future.start_of(moment.target, runs, ()) - moment.snapshot.now_s


def baselines(jobs: Sequence[QueueJob], empty: QueueSnapshot, chosen: set[int]) -> tuple[list[int], list[int]]:
    """Return the waits that the two baselines foretell."""
    last_two = LastTwo()
    limits, twos = [], []
    for moment in moments(jobs, empty, chosen.__contains__, ended=last_two.ended):
        limits.append(limits_alone(moment))
        twos.append(last_two.wait(moment))
    return limits, twos


def figures(found: Sequence[Backtested]) -> dict[str, float]:
    """Return the mean absolute error of the median and how often the intervals hold, of jobs that waited."""
    waits = np.array([one.wait_s for one in found])
    medians = np.array([one.quantiles_s[0.5] for one in found])
    waited = waits > 0

    def held(low: float, high: float, *, raw: bool = False) -> float:
        inside = [
            (one.forecast.quantile_s(low) if raw else one.quantiles_s[low])
            <= one.wait_s
            <= (one.forecast.quantile_s(high) if raw else one.quantiles_s[high])
            for one in found
        ]
        return float(np.array(inside)[waited].mean()) if waited.any() else float("nan")

    return {
        "mae": float(np.abs(medians - waits).mean()),
        "held90": held(0.05, 0.95),
        "held80": held(0.1, 0.9),
        "raw90": held(0.05, 0.95, raw=True),
        "waited": int(waited.sum()),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--submissions", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    print(f"{'trace':24}{'n':>6}{'waited':>8}{'limits':>10}{'last two':>10}{'hpcplan':>10}"
          f"{'90 % holds':>12}{'80 % holds':>12}{'uncorrected':>13}{'seconds':>9}")  # fmt: skip
    for path in options.traces:
        trace = read_trace(path)
        empty, jobs = pool_of_trace(trace), past_of_trace(trace)
        chosen = evenly(len(jobs), options.submissions)
        began = time.monotonic()
        found, _ = backtest(jobs, empty, chosen.__contains__, samples=options.samples)
        taken = time.monotonic() - began
        limits, twos = baselines(jobs, empty, chosen)
        waits = [one.wait_s for one in found]
        errors = [float(np.abs(np.array(guess) - waits).mean()) for guess in (limits, twos)]
        seen = figures(found)
        print(
            f"{path.name.split('.')[0]:24}{len(found):6}{seen['waited']:8}{errors[0]:10,.0f}{errors[1]:10,.0f}"
            f"{seen['mae']:10,.0f}{seen['held90']:12.1%}{seen['held80']:12.1%}{seen['raw90']:13.1%}{taken:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
