"""What can be fitted: the step time and the memory of measured runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.batch import Batch
from hpcplan.calibrate.levels import LEVELS, MEMORY_LEVELS, Level
from hpcplan.cost.coefficients import Coefficients

__all__ = ["Array", "MemoryTarget", "Target", "TimeTarget"]

Array: TypeAlias = NDArray[np.float64]


class Target(ABC):
    """Predictions and measurements of the rows of a batch, as logarithms of shape (rows,)."""

    levels: Sequence[Level]
    corrected = False  # whether runs near measured ones are corrected by these
    measured: Array  # logarithms, NaN where a row was not measured

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    @abstractmethod
    def predict(self, c: Coefficients) -> Array:
        """Return the logarithm of what is predicted for every row."""

    @abstractmethod
    def residual(self, predicted: Array) -> Array:
        """Return the errors in units of their noise; 0 where there is nothing to compare with."""


class TimeTarget(Target):
    """The step time."""

    levels = LEVELS
    corrected = True
    _NOISE = 0.06  # spread of log(measured) among runs that should be equal

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.measured = np.log([row.measured_s or np.nan for row in batch.rows])

    def predict(self, c: Coefficients) -> Array:
        """Return the logarithm of the step time in seconds."""
        return np.log(self.batch.price(c).step_s)

    def residual(self, predicted: Array) -> Array:
        """Return log(predicted / measured) over the noise."""
        return np.nan_to_num((predicted - self.measured) / self._NOISE)


class MemoryTarget(Target):
    """The memory of the fullest rank. A run that is only known to have fitted counts where it is predicted not to, if
    the row says what it recomputed: what is inferred instead is inferred from the memory.

    A reading of nearly the whole card is what the allocator holds in reserve: an upper bound, no measurement.
    """

    levels = MEMORY_LEVELS
    _NOISE = 0.08
    _EDGE = 0.04  # noise of the bound
    _MARGIN = 0.05  # by which a run that fitted should be predicted to: driver and fragments take some of the card
    _RESERVE = 0.90  # share of the card from which on a reading is taken for the allocator's reserve

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.measured = np.log([row.measured_bytes or np.nan for row in batch.rows])
        self.capacity = np.log(np.broadcast_to(batch.machine.memory_bytes, (len(batch),)))
        self.ran = np.array([row.fitted is True and row.recompute is not None for row in batch.rows])
        self.failed = np.array([row.fitted is False for row in batch.rows])

    def predict(self, c: Coefficients) -> Array:
        """Return the logarithm of the bytes: as a measured row's figure counts them, else of the card."""
        reported, card = self.batch.memory_bytes(c)
        return np.asarray(np.log(np.where(np.isnan(self.measured), card, reported)), dtype=float)

    def residual(self, predicted: Array) -> Array:
        """Return log(predicted / measured) over the noise, or how far the wrong side of the capacity it is."""
        over = (predicted - self.capacity) / self._EDGE
        margin = self._MARGIN / self._EDGE
        ran, failed = np.maximum(over + margin, 0.0), np.minimum(over - margin, 0.0)
        bound = np.where(self.ran, ran, np.where(self.failed, failed, 0.0))
        error = np.nan_to_num(predicted - self.measured) / self._NOISE
        reserve = self.measured > self.capacity + np.log(self._RESERVE)
        return np.where(np.isnan(self.measured), bound, np.where(reserve, np.maximum(error, 0.0), error))
