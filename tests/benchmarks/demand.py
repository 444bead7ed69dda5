"""How well the next day's load is foretold, on traces in the Standard Workload Format.

    python -m tests.benchmarks.demand TRACE.swf.gz ...

From each past day the next one is forecast with what was known then (rolling origin); the error is the mean absolute
one over the mean daily load. "holds" is how often the 80 % interval, made from the days before alone, held. Where
statsmodels can be imported, its exponential smoothing with a weekly season of days stands beside; hpcplan does without.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan.schedule.forecast.demand import backtest_days, flat, hourly_load, seasonal
from hpcplan.schedule.forecast.traces import past_of_trace
from hpcplan.simulate.trace_files import read_trace

FIRST_DAYS = 21  # of history before the first day that counts


def same_day_last_week(
    load: np.ndarray[Any, np.dtype[np.float64]], ahead: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the load of a week ago."""
    week = load[-7 * 24 :]
    return np.array([week[hour % len(week)] for hour in range(ahead)])


def smoothed(load: np.ndarray[Any, np.dtype[np.float64]], ahead: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return Holt-Winters' forecast of the days: additive level and weekly season, as statsmodels fits it."""
    module = importlib.import_module("statsmodels.tsa.holtwinters")
    days = load.reshape(-1, 24).sum(axis=1)
    if len(days) < 15:
        return flat(load, ahead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = module.ExponentialSmoothing(days, seasonal="add", seasonal_periods=7).fit()
    return np.repeat(np.asarray(fitted.forecast(ahead // 24)) / 24, 24)


def interval_holds(rows: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return how often the 80 % interval made from the days before held the next."""
    held = []
    for day in range(FIRST_DAYS - 7, len(rows)):
        past = np.sort(rows[:day, 1] / np.maximum(rows[:day, 0], 1e-9))
        low, high = past[max(0, int(0.1 * (day + 1)) - 1)], past[min(day - 1, int(np.ceil(0.9 * (day + 1))) - 1)]
        held.append(low * rows[day, 0] <= rows[day, 1] <= high * rows[day, 0])
    return float(np.mean(held)) if held else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    options = parser.parse_args()
    methods: dict[str, Any] = {"hour of week": seasonal, "four weeks": flat, "a week ago": same_day_last_week}
    try:
        importlib.import_module("statsmodels.tsa.holtwinters")
        methods["Holt-Winters"] = smoothed
    except ImportError:
        pass
    print(
        f"{'error / mean daily load':24}{'days':>6}"
        + "".join(f"{name:>14}" for name in methods)
        + f"{'80 % holds':>12}"
    )
    for path in options.traces:
        jobs = past_of_trace(read_trace(path))
        load, _ = hourly_load(jobs, max(job.submit_s for job in jobs))
        load = load[len(load) % 24 :]
        found = {name: backtest_days(load, method)[FIRST_DAYS - 7 :] for name, method in methods.items()}
        mean = load.sum() / len(load) * 24
        errors = "".join(f"{np.abs(rows[:, 0] - rows[:, 1]).mean() / mean:14.1%}" for rows in found.values())
        days = len(found["hour of week"])
        print(f"{path.name.split('.')[0]:24}{days:6}{errors}{interval_holds(backtest_days(load, seasonal)):12.1%}")


if __name__ == "__main__":
    main()
