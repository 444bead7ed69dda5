"""How well the fitted model predicts what it was not fitted on: whole sites, a fifth of the rows, all but three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.batch import Batch
from hpcplan.calibrate.fit import Array, Design, design_for, fit, predict
from hpcplan.cost.coefficients import Coefficients

__all__ = ["Held", "hold_out"]

_FOLDS = 5
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Held:
    """Logarithms of predicted step times, shape (rows,), each from a fit that did not see the row.

    ``calibrated``: the row's fifth was left out; ``unseen``: its whole site was; ``three_rows``: its site but for three
    other rows of it was (the mean over several draws; NaN for sites of fewer than four rows).
    """

    values: Array
    design: Design
    fitted: Array
    calibrated: Array
    unseen: Array
    three_rows: Array


def hold_out(batch: Batch, base: Coefficients, weights: Array, *, seed: int = 0) -> Held:
    """Fit on everything, then predict each row from fits without it. The same seed draws the same folds."""
    design = design_for(batch)
    values = fit(batch, base, design, weights)
    sites = [row.site for row in batch.rows]
    unseen = np.full(len(batch), np.nan)
    three = np.full((_REPEATS, len(batch)), np.nan)
    generator = np.random.default_rng(seed)
    for site in sorted(set(sites)):
        here = np.array([name == site for name in sites])
        without = fit(batch, base, design, np.where(here, 0.0, weights), start=_forget(design, values, site), steps=6)
        unseen[here] = predict(batch, base, design, without)[here]
        if here.sum() > 3:
            for repeat in range(_REPEATS):
                known = generator.choice(np.flatnonzero(here), 3, replace=False)
                few = np.where(here, 0.0, weights)
                few[known] = 1.0
                values_few = fit(batch, base, design, few, start=without, steps=6)
                rest = here.copy()
                rest[known] = False
                three[repeat, rest] = predict(batch, base, design, values_few)[rest]
    return Held(
        values, design, predict(batch, base, design, values),
        _folds(batch, base, design, weights, values, generator), unseen, _mean(three),
    )  # fmt: skip


def _folds(
    batch: Batch, base: Coefficients, design: Design, weights: Array, values: Array, generator: np.random.Generator
) -> Array:
    fold = generator.permutation(np.arange(len(batch)) % _FOLDS)
    predicted = np.full(len(batch), np.nan)
    for number in range(_FOLDS):
        out = fold == number
        kept = fit(batch, base, design, np.where(out, 0.0, weights), start=values, steps=6)
        predicted[out] = predict(batch, base, design, kept)[out]
    return predicted


def _forget(design: Design, values: Array, site: str) -> Array:
    own: Sequence[bool] = [kind == "sites" and label == site for kind, label, _ in design.names]
    return np.where(own, 0.0, values)


def _mean(draws: Array) -> Array:
    seen = ~np.isnan(draws)
    total = np.where(seen, draws, 0.0).sum(axis=0)
    return np.where(seen.any(axis=0), total / np.maximum(1, seen.sum(axis=0)), np.nan)
