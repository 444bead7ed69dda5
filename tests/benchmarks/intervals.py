"""How often measurements lie in the 90 % interval, by what the fit knew of their site.

Rows of the tables are left out of the fit and of the corrections: a tenth of all at a time, all of one model at one
site, all of one trainer at one site, whole sites. An interval that is the same for all of a site's runs stands beside
the one that widens with the distance from measured runs (:meth:`hpcplan.cost.constants.Constants.half_width`). Widths
are those of the constants folder; with the shipped one they were set on the same tables, by other rows.

    python -m tests.benchmarks.intervals measured/*.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.fit import design_for, fit, predicted
from hpcplan.calibrate.report import MeasuredRuns, measured_runs
from hpcplan.calibrate.residuals import Residuals, trainer_of
from hpcplan.calibrate.rows import Row
from hpcplan.calibrate.targets import TimeTarget
from hpcplan.cost.constants import constants_for
from hpcplan.resources import shipped

__all__ = ["main"]

Mask = NDArray[np.bool_]
SETS: dict[str, Callable[[Row], object]] = {
    "one model at a site": lambda row: (row.site, row.framework, row.model.hidden, row.model.layers),
    "one trainer at a site": lambda row: (row.site, trainer_of(row)),
    "a whole site": lambda row: row.site,
}


def left_out(runs: MeasuredRuns) -> dict[str, list[Mask]]:
    """Return the rows to leave out together, set by set, by what they have in common."""
    rows = runs.batch.rows
    fold = np.random.default_rng(0).permutation(np.arange(len(rows)) % 10)
    result = {"a tenth of all": [fold == number for number in range(10)]}
    for name, key in SETS.items():
        keys = [key(row) for row in rows]
        result[name] = [np.array([each == one for each in keys]) for one in dict.fromkeys(keys)]
    return result


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("tables", nargs="+", type=Path)
    folder = shipped("sites") / "constants"
    runs = measured_runs(parser.parse_args().tables, folder)
    target = TimeTarget(runs.batch)
    design, residuals = design_for(target), Residuals(target)
    sites = np.array([row.site for row in runs.batch.rows])
    constants = [constants_for(site=site, folder=folder) for site in sites]
    start = fit(target, runs.base, design, runs.weights)
    timed = (runs.weights > 0) & ~np.isnan(target.measured)
    print("| left out | rows | mean error | same for all of a site | by distance | same, mean of sites | by distance |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, sets in left_out(runs).items():
        errors, nearest = np.full(len(sites), np.nan), np.zeros(len(sites))
        for out in sets:
            known = np.where(out, 0.0, runs.weights)
            values = fit(target, runs.base, design, known, start=start, steps=6)
            errors[out] = (residuals.corrected(predicted(target, runs.base, design, values), known > 0))[out]
            nearest[out] = residuals.nearest(known > 0)[out]
        errors -= target.measured
        widths = np.log1p([[c.interval, float(c.half_width(near))] for c, near in zip(constants, nearest, strict=True)])
        inside = np.abs(errors)[:, None] <= widths
        mean = np.mean([inside[timed & (sites == site)].mean(axis=0) for site in sorted(set(sites[timed]))], axis=0)
        shares = [*inside[timed].mean(axis=0), *mean]
        error = np.abs(np.expm1(errors[timed])).mean()
        print(
            f"| {name} | {timed.sum()} | {100 * error:.1f} % | " + " | ".join(f"{100 * s:.0f} %" for s in shares) + " |"
        )


if __name__ == "__main__":
    main()
