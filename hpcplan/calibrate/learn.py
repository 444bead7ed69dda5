"""What measured runs of one site teach: factors on the cost model's constants that are the site's own, and corrections.

Everything that holds for all sites stays as it is; only the factors of the level ``sites`` move, each pulled towards
what was known before (:mod:`hpcplan.calibrate.levels`), so that a few runs move them a little and many as far as they
say. What these leave over corrects the runs near the measured ones (:mod:`hpcplan.calibrate.residuals`). How good both
are comes from runs that were held out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.batch import Batch, known_system, make_batch
from hpcplan.calibrate.fit import Design, design_for, fit, predicted
from hpcplan.calibrate.levels import LEVELS
from hpcplan.calibrate.residuals import Residuals
from hpcplan.calibrate.rows import Row
from hpcplan.calibrate.store import site_width
from hpcplan.calibrate.targets import Array, TimeTarget
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import constants_for
from hpcplan.cost.correction import Correction
from hpcplan.errors import InputError
from hpcplan.resources import shipped

__all__ = ["LEAST_RUNS", "Learned", "SiteTarget", "learn_from", "learn_site", "mean_error", "usable_runs"]

LEAST_RUNS = 2
_FOLDS = 5
_SCALES = (1.0, 0.3)  # of how far factors may move: what held-out runs like better is taken
_LEAST = 0.002  # a factor closer to 1 than this is noise


class SiteTarget(TimeTarget):
    """The step time, with the site's own factors alone to move."""

    levels = tuple(level for level in LEVELS if level.kind == "sites")  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Learned:
    """What runs of a site teach.

    ``factors`` multiply the constants that were known before; ``correction`` is what they leave over, for the runs near
    the measured ones. ``before`` and ``after`` are the mean absolute errors of the runs, as shares, with the constants
    of before and with what was learned from other runs; ``interval`` is the half-width that 90 % of the held-out runs
    near others lie within, ``None`` for too few. ``doubt`` is the standard error of the mean by which single runs are
    better predicted. ``better`` says whether what was learned should be used.
    """

    runs: int
    factors: Mapping[str, float]
    before: float
    after: float
    interval: float | None
    doubt: float = 0.0
    correction: Correction | None = None

    @property
    def better(self) -> bool:
        """Whether what was learned should be used: held-out runs do not say that it makes predictions surely worse.

        Worse by more than two standard errors is surely. Few runs cannot prove a gain, and need not: all that is
        learned is pulled towards what was known, and to ask for a proof was measured to cost more than it saves.
        """
        return self.after <= self.before + 2 * self.doubt


def usable_runs(rows: Sequence[Row | str]) -> list[Row]:
    """Return the runs that have a step time and can be priced."""
    return [row for row in rows if isinstance(row, Row) and row.measured_s and known_system(row) is None]


def learn_site(
    rows: Sequence[Row], *, known: Mapping[str, float] | None = None, folder: Path | None = None, seed: int = 0
) -> Learned:
    """Learn from runs of one site.

    Args:
        rows: with step times, all of the same site.
        known: factors on the shipped constants that are known besides, from a benchmark.
        folder: of the constants to begin with; the shipped ones if absent.
        seed: of the folds.

    Raises:
        InputError: fewer than ``LEAST_RUNS`` runs, or runs of several sites.
    """
    if len({row.site for row in rows}) > 1:
        raise InputError(f"runs of several sites: {', '.join(sorted({row.site for row in rows}))}")
    if len(rows) < LEAST_RUNS:
        raise InputError(f"{len(rows)} usable runs; learning needs at least {LEAST_RUNS}")
    folder = folder or shipped("sites") / "constants"
    batch = make_batch(rows, constants_for(folder=folder).coefficients)
    target = SiteTarget(batch)
    return learn_from(target, _base(batch, folder, known or {}), seed=seed)


def learn_from(target: SiteTarget, base: Coefficients, *, seed: int = 0) -> Learned:
    """Learn with ``base``, arrays of shape (runs,), as what is known before."""
    full, residuals = design_for(target), Residuals(target)
    before = predicted(target, base, full, np.zeros(len(full.names)))
    tried = []
    for scale in _SCALES:
        design = replace(full, spread=full.spread * scale)
        held, nearest = _held_out(target, base, design, residuals, seed)
        tried.append((mean_error(held, target.measured), scale, design, held))
    after, _, design, held = min(tried, key=lambda each: each[:2])
    values = fit(target, base, design, np.ones(len(target.batch)))
    left = residuals.learn(predicted(target, base, design, values), np.ones(len(target.batch), dtype=np.bool_))
    factors = {name: float(np.exp(value)) for (_, _, name), value in zip(design.names, values, strict=True)}
    return Learned(
        runs=len(target.batch),
        factors={name: factor for name, factor in factors.items() if abs(factor - 1) > _LEAST},
        before=mean_error(before, target.measured),
        after=after,
        interval=site_width(held, target.measured, nearest),
        doubt=float(np.std(_errors(before, target.measured) - _errors(held, target.measured), ddof=1))
        / math.sqrt(len(held)),
        correction=next(iter(left.values()), None),
    )


def mean_error(predicted_logs: Array, measured_logs: Array) -> float:
    """Return the mean of |predicted / measured - 1|."""
    return float(np.mean(_errors(predicted_logs, measured_logs)))


def _errors(predicted_logs: Array, measured_logs: Array) -> Array:
    errors: Array = np.abs(np.expm1(predicted_logs - measured_logs))
    return errors


def _held_out(
    target: SiteTarget, base: Coefficients, design: Design, residuals: Residuals, seed: int
) -> tuple[Array, Array]:
    """Return predictions of every run by fits that did not see it, and how near the nearest that they saw was.

    They see all but a fold, or all but one where there are few.
    """
    count = len(target.batch)
    folds: NDArray[np.int64] = np.arange(count) if count < 2 * _FOLDS else np.arange(count) % _FOLDS
    fold = np.random.default_rng(seed).permutation(folds)
    result, nearest = np.empty(count), np.empty(count)
    for number in np.unique(fold):
        out = fold == number
        values = fit(target, base, design, np.where(out, 0.0, 1.0), steps=8)
        result[out] = residuals.corrected(predicted(target, base, design, values), ~out)[out]
        nearest[out] = residuals.nearest(~out)[out]
    return result, nearest


def _base(batch: Batch, folder: Path, known: Mapping[str, float]) -> Coefficients:
    """Return each run's constants before learning: the shipped ones, with what a benchmark found."""
    found = [
        constants_for(
            accelerator=system.accelerator, family=system.family, framework=row.framework, precision=row.precision,
            site=row.site, features=row.features, folder=folder,
        ).coefficients.scaled(known)
        for row, system in zip(batch.rows, batch.systems, strict=True)
    ]  # fmt: skip
    return Coefficients(**{name: np.array([float(np.asarray(getattr(c, name))) for c in found]) for name in NAMES})
