"""How well the fitted model predicts what it was not fitted on: whole sites, a tenth of the rows, all but three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.first_runs import taught
from hpcplan.calibrate.fit import Design, design_for, fit, predicted
from hpcplan.calibrate.residuals import Residuals
from hpcplan.calibrate.targets import Array, Target, TimeTarget
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.correction import Correction

__all__ = ["Held", "hold_out"]

_FOLDS = 10
_REPEATS = 20
_KNOWN = 3


@dataclass(frozen=True, slots=True)
class Held:
    """Logarithms of predictions, shape (rows,), each from a fit and corrections that did not see the row.

    ``calibrated``: the row's tenth was left out; ``unseen``: its whole site was; ``three_rows``, of shape (draws,
    rows): its site was, and then learned from three other rows of it (step times alone; NaN for the three, and for
    sites of fewer than four rows).
    ``nearest`` is how near the nearest other run of the site was to a row when its tenth was left out. ``corrections``
    are those of each site that all rows teach.
    """

    values: Array
    design: Design
    fitted: Array
    calibrated: Array
    unseen: Array
    three_rows: Array
    nearest: Array
    corrections: dict[str, Correction]


def hold_out(
    target: Target,
    base: Coefficients,
    weights: Array,
    *,
    seed: int = 0,
    on_site: Callable[[], None] = lambda: None,
) -> Held:
    """Fit on everything, then predict each row from fits without it. The same seed draws the same folds.

    ``on_site`` is called as each site's turn comes.
    """
    design = design_for(target)
    rows, residuals = target.batch.rows, Residuals(target)
    values = fit(target, base, design, weights)
    sites = [row.site for row in rows]
    unseen = np.full(len(rows), np.nan)
    three = np.full((_REPEATS, len(rows)), np.nan)
    generator = np.random.default_rng(seed)
    for site in sorted(set(sites)):
        on_site()
        here = np.array([name == site for name in sites])
        others = np.where(here, 0.0, weights)
        without = fit(target, base, design, others)  # from the prior: a start at ``values`` would know the site
        unseen[here] = predicted(target, base, design, without)[here]
        informative = np.flatnonzero(here & (weights > 0))
        if len(informative) <= _KNOWN:
            continue
        for repeat in range(_REPEATS):
            known = generator.choice(informative, _KNOWN, replace=False)
            rest = np.setdiff1d(np.flatnonzero(here), known)
            if isinstance(target, TimeTarget):
                before = target.batch.coefficients(base, design.logs(without))
                three[repeat, rest] = taught(target.batch, before, np.sort(known), rest)
    fitted = predicted(target, base, design, values)
    calibrated, nearest = _folds(target, base, design, weights, values, residuals, generator)
    return Held(
        values=values,
        design=design,
        fitted=fitted,
        calibrated=calibrated,
        unseen=unseen,
        three_rows=three,
        nearest=nearest,
        corrections=residuals.learn(fitted, weights > 0),
    )


def _folds(
    target: Target,
    base: Coefficients,
    design: Design,
    weights: Array,
    values: Array,
    residuals: Residuals,
    generator: np.random.Generator,
) -> tuple[Array, Array]:
    """Return what each row is predicted by the other nine tenths, and how near their nearest run is."""
    fold = generator.permutation(np.arange(len(weights)) % _FOLDS)
    result, nearest = np.full(len(weights), np.nan), np.zeros(len(weights))
    for number in range(_FOLDS):
        out = fold == number
        known = np.where(out, 0.0, weights)
        kept = fit(target, base, design, known, start=values, steps=6)
        result[out] = residuals.corrected(predicted(target, base, design, kept), known > 0)[out]
        nearest[out] = residuals.nearest(known > 0)[out]
    return result, nearest
