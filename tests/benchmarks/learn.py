"""What `hpcplan calibrate learn` gains: error on one half of a site's measured runs after learning from the other.

    python -m tests.benchmarks.learn TABLE.csv... [--halves 10] [--least 8] [--sites NAME...]

Before: constants fitted on all other sites; no run of the site was seen. After: its own factors learned from a random
half of its runs. Both errors are of the other half alone, which neither saw; the mean, and the least and the most over
the random halves. The last column says in how many of the halves the error fell.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hpcplan.calibrate.batch import make_batch
from hpcplan.calibrate.first_runs import taught
from hpcplan.calibrate.fit import design_for, fit, group_weights
from hpcplan.calibrate.learn import SiteTarget, mean_error, usable_runs
from hpcplan.calibrate.levels import believed
from hpcplan.calibrate.rows import read_rows
from hpcplan.calibrate.targets import TimeTarget
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import read_prior
from hpcplan.resources import shipped


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--halves", type=int, default=10)
    parser.add_argument("--least", type=int, default=8)
    parser.add_argument("--sites", nargs="+", default=[], help="only these; all others are still learned from before")
    options = parser.parse_args()
    rows, groups = [], []
    for path in options.tables:
        found = usable_runs(read_rows(path).rows)
        rows += found
        groups += [path.stem] * len(found)
    prior = read_prior(shipped("sites") / "constants")
    start = Coefficients(**{name: prior.constants[name].value for name in NAMES})
    batch = make_batch(rows, start)
    start = believed(batch, start, prior.beliefs)
    target = TimeTarget(batch)
    weights = group_weights(groups)
    design = design_for(target)
    sites = np.array([row.site for row in rows])
    print(f"{'site':22}{'runs':>6}{'before':>9}{'after':>9}{'least':>8}{'most':>8}{'fell in':>10}")
    sums = np.zeros(3)
    for site in sorted(set(sites)):
        here = np.flatnonzero(sites == site)
        if len(here) < options.least or (options.sites and site not in options.sites):
            continue
        others = np.where(sites == site, 0.0, weights)
        values = fit(target, start, design, others)  # from the prior: a fit of all would know the site
        base = batch.coefficients(start, design.logs(values))
        own = make_batch([rows[i] for i in here], Coefficients(**{n: prior.constants[n].value for n in NAMES}))
        of_site = Coefficients(**{name: getattr(base, name)[here] for name in NAMES})
        before, after = halves(SiteTarget(own), of_site, options.halves)
        fell = int((after < before).sum())
        print(f"{site:22}{len(here):6}{before.mean():9.1%}{after.mean():9.1%}{after.min():8.1%}{after.max():8.1%}"
              f"{fell:>7}/{options.halves}", flush=True)  # fmt: skip
        sums += np.array([before.mean(), after.mean(), 1.0])
    print(f"{'mean over sites':28}{sums[0] / sums[2]:9.1%}{sums[1] / sums[2]:9.1%}")


def halves(target: SiteTarget, base: Coefficients, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors before and after of random halves that were not learned from.

    As the command does, what the learned half's own held-out runs say is surely worse is not used.
    """
    chance = np.random.default_rng(0)
    runs = len(target.batch)
    untouched = target.predict(base)
    before, after = [], []
    for _ in range(count):
        known = np.sort(chance.permutation(runs)[: runs // 2])
        other = np.setdiff1d(np.arange(runs), known)
        found = taught(target.batch, base, known, other)
        before.append(mean_error(untouched[other], target.measured[other]))
        after.append(mean_error(found, target.measured[other]))
    return np.array(before), np.array(after)


if __name__ == "__main__":
    main()
