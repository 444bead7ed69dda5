"""Corrections near measured runs: what a fit leaves over at a site, smoothed over neighbouring runs.

The hyperparameters are chosen, not fitted: what is left over is believed to spread by ``_SPREAD`` (of the logarithm),
and a measurement by ``_NOISE`` beside. A site with many runs keeps ``MOST_PLACES`` of them as places and weighs all
the others into these (the projected process of Rasmussen & Williams 2006, equation 8.26), so that a million shardings
are priced as fast as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.batch import Batch
from hpcplan.calibrate.rows import Row
from hpcplan.calibrate.targets import Array, Target
from hpcplan.cost.correction import Correction, Trainer, nearness, places, trainer_distance

__all__ = ["MOST_PLACES", "Residuals", "trainer_of"]

MOST_PLACES = 160
_SPREAD = 0.10
_NOISE = 0.05
_LARGEST = 0.40  # a run that is further off than this is taken to be this far off


def trainer_of(row: Row) -> Trainer:
    """Return what tells a row's trainer from others."""
    return (row.framework, row.precision, *row.features)


class Residuals:
    """Learns corrections from the rows of a batch. A row's correction comes from known rows of its own site alone."""

    def __init__(self, target: Target) -> None:
        batch: Batch = target.batch
        self.active = target.corrected
        self.at = places(batch.shape, batch.sequence, batch.shardings)
        self.trainers = [trainer_of(row) for row in batch.rows]
        self.sites = np.array([row.site for row in batch.rows])
        self.measured = target.measured
        kinds = list(dict.fromkeys(self.trainers))
        self.kind = np.array([kinds.index(trainer) for trainer in self.trainers])
        self.between = np.array([[trainer_distance(a, b) for b in kinds] for a in kinds])

    def learn(self, predicted: Array, known: NDArray[np.bool_]) -> dict[str, Correction]:
        """Return a correction a site, from the logarithms that were predicted and the rows that may be looked at."""
        if not self.active:
            return {}
        usable = known & ~np.isnan(self.measured)
        return {site: self._of(np.flatnonzero(usable & (self.sites == site)), predicted)
                for site in sorted(set(self.sites[usable].tolist()))}  # fmt: skip

    def corrected(self, predicted: Array, known: NDArray[np.bool_]) -> Array:
        """Return predictions with the corrections that the known rows teach."""
        if not self.active:
            return predicted
        result = predicted.copy()
        for site, correction in self.learn(predicted, known).items():
            for kind in np.unique(self.kind[self.sites == site]):
                rows = np.flatnonzero((self.sites == site) & (self.kind == kind))
                result[rows] += correction.log_factor(self.at[rows], self.trainers[rows[0]])
        return result

    def nearest(self, known: NDArray[np.bool_]) -> Array:
        """Return how near the nearest known run of its site is to each row: 1 the same, 0 far or none."""
        usable = known & ~np.isnan(self.measured)
        result = np.zeros(len(self.sites))
        for site in sorted(set(self.sites.tolist())):
            rows, others = np.flatnonzero(self.sites == site), np.flatnonzero(usable & (self.sites == site))
            result[rows] = self._near(rows, others).max(axis=1, initial=0.0)
        return result

    def _near(self, a: Sequence[int] | NDArray[np.int64], b: Sequence[int] | NDArray[np.int64]) -> Array:
        return nearness(self.at[a], self.at[b], self.between[np.ix_(self.kind[a], self.kind[b])])

    def _of(self, rows: NDArray[np.int64], predicted: Array) -> Correction:
        left = np.clip((self.measured - predicted)[rows], -_LARGEST, _LARGEST)
        kept = self._representatives(rows)
        signal, noise = _SPREAD**2, _NOISE**2
        across = signal * self._near(rows, kept)
        among = signal * self._near(kept, kept) + 1e-10 * np.eye(len(kept))
        weights: Array = np.asarray(np.linalg.solve(across.T @ across + noise * among, across.T @ left), dtype=float)
        return Correction(self.at[kept], tuple(self.trainers[i] for i in kept), signal * weights)

    def _representatives(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return rows that leave least unsaid about the others: one after the other, the one that is furthest from all.

        This is the pivoted Cholesky decomposition of the kernel (Harbrecht, Peters & Schneider 2012, algorithm 1).
        """
        left = np.ones(len(rows))
        factors = np.zeros((len(rows), min(MOST_PLACES, len(rows))))
        chosen: list[int] = []
        for k in range(factors.shape[1]):
            pivot = int(np.argmax(left))
            if left[pivot] < 1e-3:
                break
            chosen.append(pivot)
            column = self._near(rows, rows[[pivot]])[:, 0] - factors[:, :k] @ factors[pivot, :k]
            factors[:, k] = column / np.sqrt(left[pivot])
            left = np.maximum(0.0, left - factors[:, k] ** 2)
        return rows[chosen]
