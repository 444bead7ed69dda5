"""How well the next day's load is foretold, on traces in the Standard Workload Format and on the mock cluster's users.

    python -m tests.benchmarks.demand TRACE.swf.gz ...

From each past day the next one is forecast with what was known then (rolling origin); the error is the mean absolute
one over the mean daily load, from 21 days of history on. "chosen" is the weighting that was best until then, as hpcplan
takes it; "holds" how often the 80 % interval held that it tells and draws by. Where statsmodels or statsforecast can be
imported, their exponential smoothing (Holt-Winters with a weekly season, ETS and theta chosen by themselves) stands
beside; hpcplan does without. The mock's users are of ten seeds, with seventy days each.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan.schedule.forecast.arrivals import Arrivals
from hpcplan.schedule.forecast.day_weights import DAY_S, METHODS, NEEDED_DAYS, day_weights
from hpcplan.schedule.forecast.demand import predict_demand
from hpcplan.schedule.forecast.snapshot import QueueJob
from hpcplan.schedule.forecast.traces import past_of_trace
from hpcplan.simulate.trace_files import read_trace
from tests.benchmarks import load_spread

Library = Callable[[np.ndarray], float]  # the next day's load from those before, oldest first
NO_DATES_S = 10**9 // 2


def holt_winters(days: np.ndarray) -> float:
    """Return statsmodels' forecast: additive level and weekly season."""
    module = importlib.import_module("statsmodels.tsa.holtwinters")
    fitted = module.ExponentialSmoothing(days, seasonal="add", seasonal_periods=7).fit()
    return float(fitted.forecast(1)[0])


def statsforecast(name: str) -> Library:
    """Return the forecast of one of statsforecast's models that choose their form themselves."""

    def forecast(days: np.ndarray) -> float:
        module = importlib.import_module("statsforecast.models")
        return float(getattr(module, name)(season_length=7).forecast(days.astype(np.float64), h=1)["mean"][0])

    return forecast


def libraries() -> dict[str, Library]:
    """Return what can be imported."""
    found: dict[str, Library] = {}
    if find_spec("statsmodels"):
        found["Holt-Winters"] = holt_winters
    if find_spec("statsforecast"):
        found |= {name: statsforecast(name) for name in ("AutoETS", "AutoTheta", "AutoCES")}
    return found


def ordered(jobs: Sequence[QueueJob]) -> list[QueueJob]:
    """Return jobs by their submission."""
    return sorted(jobs, key=lambda job: job.submit_s)


def as_known(job: QueueJob, now_s: int) -> QueueJob:
    """Return a job without what was still to come."""
    ended = job.end_s is not None and job.end_s <= now_s
    return job if ended else job.model_copy(update={"end_s": None})


def row(jobs: Sequence[QueueJob], found: dict[str, Library]) -> tuple[int, list[float]]:
    """Return the days forecast, and the errors and how often the interval held."""
    first, last = jobs[0].submit_s, jobs[-1].submit_s
    count = (last - first) // DAY_S
    begin, dated = last - count * DAY_S, first > NO_DATES_S
    load = np.zeros(count)
    for job in jobs:
        if begin <= job.submit_s < last:
            load[(job.submit_s - begin) // DAY_S] += job.width * ((job.end_s or 0) - (job.start_s or 0)) / 3600
    off: dict[str, list[float]] = {name: [] for name in (*METHODS, "a week ago", *found, "chosen")}
    held = []
    for day in range(NEEDED_DAYS, count):
        now_s, past = begin + day * DAY_S, load[:day]
        for method in METHODS:
            weights = day_weights(method, now_s, day, 0, dated=dated)
            off[method].append(float(weights @ past[::-1]) - load[day])
        off["a week ago"].append(past[-7] - load[day])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, forecast in found.items():
                off[name].append(max(0.0, forecast(past)) - load[day])
        known = [as_known(job, now_s) for job in jobs if job.submit_s < now_s]
        told = predict_demand(Arrivals(known), now_s, 1)[0].days[0]
        off["chosen"].append(told.expected - load[day])
        held.append((told.p10 or 0.0) <= load[day] <= (told.p90 or 0.0))
    mean = float(load.mean())
    return count - NEEDED_DAYS, [float(np.abs(values).mean()) / mean for values in off.values()] + [
        float(np.mean(held))
    ]


def sources(paths: Sequence[Path]) -> Iterator[tuple[str, list[list[QueueJob]]]]:
    """Yield the name of each source and its histories."""
    for path in paths:
        yield path.name.split(".")[0], [ordered(past_of_trace(read_trace(path)))]
    load_spread.HISTORY_S = 70 * DAY_S
    for share in (0.3, 0.8):
        moments = load_spread.mock(share, 32, range(900, 910), 0)
        yield f"mock, 32 nodes, {share:.0%}", [ordered(moment.jobs) for moment in moments]
    yield "campaigns of users", [ordered(moment.jobs) for moment in load_spread.campaigns(range(900, 910), 0)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    options = parser.parse_args()
    found = libraries()
    names: list[Any] = [*METHODS, "a week ago", *found, "chosen", "80 % holds"]
    print(f"{'error / mean daily load':24}{'days':>6}" + "".join(f"{name:>17}" for name in names))
    for name, histories in sources(options.traces):
        rows = [row(jobs, found) for jobs in histories]
        figures = np.mean([figures for _, figures in rows], axis=0)
        print(f"{name:24}{sum(days for days, _ in rows):6}" + "".join(f"{one:17.1%}" for one in figures), flush=True)


if __name__ == "__main__":
    main()
