"""Fitting the constants to measurements: robust least squares on logarithms, with priors.

The residual of a row is log(predicted / measured) over the noise of what is measured; rows far off count linearly
(Huber). A table of hundreds of rows counts as ``FULL_WEIGHT`` rows, so that it does not drown the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.levels import labels
from hpcplan.calibrate.targets import Array, Target
from hpcplan.cost.coefficients import NAMES, Coefficients

__all__ = ["FULL_WEIGHT", "Design", "design_for", "fit", "group_weights", "predicted"]

FULL_WEIGHT = 60
_HUBER = 2.0  # in units of the noise
_DIFFERENCE = 1e-3  # step of the numerical derivative by the logarithm of a constant


@dataclass(frozen=True, slots=True)
class Design:
    """The unknowns: one a (level, label, constant). ``rows[k]`` is 1 for the rows that unknown ``k`` moves."""

    names: tuple[tuple[str, str, str], ...]
    constant: NDArray[np.int64]  # index into NAMES, shape (unknowns,)
    rows: Array  # shape (unknowns, rows)
    spread: Array  # shape (unknowns,)

    def logs(self, values: Array) -> Array:
        """Return the logarithms of every row's factors, shape (rows, constants)."""
        table = np.zeros((self.rows.shape[1], len(NAMES)))
        for k, value in enumerate(values):
            if value:
                table[:, self.constant[k]] += value * self.rows[k]
        return table


def design_for(target: Target) -> Design:
    """Return the unknowns that the rows of a target bear on."""
    batch = target.batch
    names: list[tuple[str, str, str]] = []
    constant: list[int] = []
    rows: list[Array] = []
    spread: list[float] = []
    for level in target.levels:
        held = [
            labels(level.kind, row, system, level.inherited)
            for row, system in zip(batch.rows, batch.systems, strict=True)
        ]
        for label in sorted({label for each in held for label in each if level.moves(label)}):
            mask = np.array([float(label in each) for each in held])
            for name, width in level.spread.items():
                names.append((level.kind, label, name))
                constant.append(NAMES.index(name))
                rows.append(mask)
                spread.append(width)
    return Design(tuple(names), np.array(constant), np.array(rows), np.array(spread))


def group_weights(groups: Sequence[str]) -> Array:
    """Return a weight a row: 1 in small groups, less where a group has more than ``FULL_WEIGHT`` rows."""
    counts = {group: groups.count(group) for group in set(groups)}
    return np.array([min(1.0, FULL_WEIGHT / counts[group]) for group in groups])


def fit(
    target: Target, base: Coefficients, design: Design, weights: Array, *, start: Array | None = None, steps: int = 12
) -> Array:
    """Return the unknowns that explain the rows best; rows of weight 0 are not looked at.

    Gauss-Newton steps on iteratively reweighted rows, each damped until it gains (Madsen, Nielsen & Tingleff 2004,
    section 3.2). The derivative by each constant is taken once for all rows and spread over the unknowns that move it,
    which is why a general solver is not used: it would price the batch once an unknown instead of once a constant.
    """
    use = weights > 0
    values = np.zeros(len(design.names)) if start is None else start.copy()
    damping = 1e-2
    loss, residual = _loss(target, base, design, values, weights)
    for _ in range(steps):
        jacobian = _jacobian(target, base, design, values)[use]
        r = residual[use]
        robust = weights[use] * np.minimum(1.0, _HUBER / np.maximum(np.abs(r), 1e-9))
        hessian = jacobian.T @ (jacobian * robust[:, None]) + np.diag(design.spread**-2.0)
        gradient = jacobian.T @ (robust * r) + values / design.spread**2
        gained = False
        for _ in range(6):
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), -gradient)
            trial = values + np.clip(step, -0.7, 0.7)
            trial_loss, trial_residual = _loss(target, base, design, trial, weights)
            if trial_loss < loss:
                gained = True
                break
            damping *= 5
        if not gained:
            break
        small = loss - trial_loss < 3e-4 * loss
        values, loss, residual = trial, trial_loss, trial_residual
        damping = max(damping / 5, 1e-5)
        if small:
            break
    return values


def predicted(target: Target, base: Coefficients, design: Design, values: Array) -> Array:
    """Return the target's predictions under these unknowns."""
    return target.predict(target.batch.coefficients(base, design.logs(values)))


def _loss(target: Target, base: Coefficients, design: Design, values: Array, weights: Array) -> tuple[float, Array]:
    residual = np.where(weights > 0, target.residual(predicted(target, base, design, values)), 0.0)
    size = np.abs(residual)
    huber = np.where(size < _HUBER, 0.5 * residual**2, _HUBER * size - 0.5 * _HUBER**2)
    prior = 0.5 * float(((values / design.spread) ** 2).sum())
    return float((weights * huber).sum()) + prior, residual


def _jacobian(target: Target, base: Coefficients, design: Design, values: Array) -> Array:
    logs = design.logs(values)
    at = target.residual(target.predict(target.batch.coefficients(base, logs)))
    slopes: dict[int, Array] = {}
    for index in sorted(set(design.constant.tolist())):
        moved = logs.copy()
        moved[:, index] += _DIFFERENCE
        slopes[index] = (target.residual(target.predict(target.batch.coefficients(base, moved))) - at) / _DIFFERENCE
    columns = [slopes[int(index)] * mask for index, mask in zip(design.constant, design.rows, strict=True)]
    return np.stack(columns, axis=1)
