"""How well the fitted model predicts what it was not fitted on: whole sites, a fifth of the rows, all but three."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.fit import Design, design_for, fit, predicted
from hpcplan.calibrate.targets import Array, Target
from hpcplan.cost.coefficients import Coefficients

__all__ = ["Held", "hold_out"]

_FOLDS = 5
_REPEATS = 5
_KNOWN = 3


@dataclass(frozen=True, slots=True)
class Held:
    """Logarithms of predictions, shape (rows,), each from a fit that did not see the row.

    ``calibrated``: the row's fifth was left out; ``unseen``: its whole site was; ``three_rows``: its site but for three
    other rows of it was (the mean over several draws; NaN for sites of fewer than four rows).
    """

    values: Array
    design: Design
    fitted: Array
    calibrated: Array
    unseen: Array
    three_rows: Array


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
    rows = target.batch.rows
    values = fit(target, base, design, weights)
    sites = [row.site for row in rows]
    unseen = np.full(len(rows), np.nan)
    three = np.full((_REPEATS, len(rows)), np.nan)
    generator = np.random.default_rng(seed)
    for site in sorted(set(sites)):
        on_site()
        here = np.array([name == site for name in sites])
        others = np.where(here, 0.0, weights)
        without = fit(target, base, design, others, start=_forget(design, values, site), steps=6)
        unseen[here] = predicted(target, base, design, without)[here]
        informative = np.flatnonzero(here & (weights > 0))
        if len(informative) <= _KNOWN:
            continue
        for repeat in range(_REPEATS):
            known = generator.choice(informative, _KNOWN, replace=False)
            few = others.copy()
            few[known] = 1.0
            rest = here.copy()
            rest[known] = False
            known_too = fit(target, base, design, few, start=without, steps=6)
            three[repeat, rest] = predicted(target, base, design, known_too)[rest]
    return Held(
        values=values,
        design=design,
        fitted=predicted(target, base, design, values),
        calibrated=_folds(target, base, design, weights, values, generator),
        unseen=unseen,
        three_rows=_mean(three),
    )


def _folds(
    target: Target, base: Coefficients, design: Design, weights: Array, values: Array, generator: np.random.Generator
) -> Array:
    fold = generator.permutation(np.arange(len(weights)) % _FOLDS)
    result = np.full(len(weights), np.nan)
    for number in range(_FOLDS):
        out = fold == number
        kept = fit(target, base, design, np.where(out, 0.0, weights), start=values, steps=6)
        result[out] = predicted(target, base, design, kept)[out]
    return result


def _forget(design: Design, values: Array, site: str) -> Array:
    own = [kind == "sites" and label == site for kind, label, _ in design.names]
    return np.where(own, 0.0, values)


def _mean(draws: Array) -> Array:
    seen = ~np.isnan(draws)
    total = np.where(seen, draws, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(1, seen.sum(axis=0)), np.nan)
