"""What measured runs of a site add to the model: a Gaussian process over log(measured / modelled).

The model's constants cannot say everything about a site. Runs near one that was measured are off by about as much as
that one was, so what is left over is carried over to its neighbours, and to nothing else: a sharding that resembles no
measured run gets no correction. Places are logarithms (base 2) of the sharding and the shape over a length each, so
that a distance of 1 is a step of most of an octave; a different recomputation, trainer or precision is a distance of 1
too. The kernel is the squared exponential (Rasmussen & Williams 2006, equation 2.16), and a prediction is the sum over
the measured places of weight times nearness (ibid., equation 2.27).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import RECOMPUTE, Floats, Shardings
from hpcplan.errors import InputError, Problem

__all__ = [
    "LENGTHS",
    "Corrected",
    "Correction",
    "Trainer",
    "as_json",
    "nearness",
    "places",
    "read_correction",
    "trainer_distance",
]

Trainer = tuple[str, ...]  # framework, precision, and features of the trainer

# Replicas are no coordinate: a correction that changed with them could make doubling them more than twice as fast.
# octaves over which what is left over changes; two runs that differ by one of them are a distance of 1 apart
LENGTHS = {
    "micro_batch": 0.7, "tp": 0.7, "pp": 0.5, "cp": 0.7, "ep": 0.7, "vpp": 0.7,
    "layers": 2.0, "hidden": 0.5, "sequence": 0.7,
}  # fmt: skip

_COORDINATES = len(LENGTHS) + len(RECOMPUTE) + 2


def places(shape: Shape, sequence: Number, s: Shardings) -> Floats:
    """Return where shardings lie, of shape (rows, coordinates): Euclidean distances between them are dimensionless."""
    numbers: list[Number] = [getattr(s, name).astype(float) for name in LENGTHS if name in s.__slots__]
    numbers += [shape.layers, shape.hidden, sequence]
    octaves = [np.log2(np.broadcast_to(n, (len(s),))) / w for n, w in zip(numbers, LENGTHS.values(), strict=True)]
    apart = np.sqrt(0.5)  # so that two that differ in kind are a distance of 1 apart
    kinds = [np.where(s.recompute == level, apart, 0.0) for level in range(len(RECOMPUTE))]
    kinds += [np.where(s.zero == 3, 1.0, 0.0), np.where(s.offload > 0, 1.0, 0.0)]
    return np.stack([*octaves, *kinds], axis=1)


def trainer_distance(a: Trainer, b: Trainer) -> float:
    """Return the squared distance between two trainers: 1 for each of framework, precision and features that differ."""
    return float((a[0] != b[0]) + (a[1] != b[1]) + (a[2:] != b[2:]))


def nearness(a: Floats, b: Floats, apart: Floats | float = 0.0) -> Floats:
    """Return exp(-d²/2) of shape (a, b); ``apart`` is what is added to the squared distances."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.asarray(np.exp(-0.5 * (np.maximum(squares, 0.0) + apart)), dtype=float)


@dataclass(frozen=True, slots=True)
class Correction:
    """Measured places, of shape (places, coordinates), with the trainer and the weight of each."""

    where: Floats
    trainers: tuple[Trainer, ...]
    weights: Floats

    def log_factor(self, at: Floats, trainer: Trainer) -> Floats:
        """Return the logarithm of what predictions are multiplied by, of shape (rows,)."""
        apart = np.array([trainer_distance(trainer, other) for other in self.trainers])
        return np.asarray(nearness(at, self.where, apart) @ self.weights)

    def nearest(self, at: Floats, trainer: Trainer) -> Floats:
        """Return how near the nearest measured place is, 1 at it and 0 far from all, of shape (rows,)."""
        apart = np.array([trainer_distance(trainer, other) for other in self.trainers])
        return np.asarray(nearness(at, self.where, apart).max(axis=1, initial=0.0))


@dataclass(frozen=True, slots=True)
class Corrected:
    """A site's correction of step times, for one trainer."""

    trainer: Trainer
    correction: Correction

    def factor(self, shape: Shape, sequence: Number, s: Shardings) -> Floats:
        """Return what step times are multiplied by, of shape (rows,)."""
        return np.asarray(np.exp(self.correction.log_factor(places(shape, sequence, s), self.trainer)), dtype=float)

    def nearest(self, shape: Shape, sequence: Number, s: Shardings) -> Floats:
        """Return how near the nearest measured run is, 1 at it and 0 far from all, of shape (rows,)."""
        return self.correction.nearest(places(shape, sequence, s), self.trainer)


def as_json(site: str, source: str, correction: Correction) -> str:
    """Return a site's correction as the text of ``corrections/SITE.json``: a line a measured place."""
    lines = [
        json.dumps([list(trainer), [round(float(x), 3) for x in where], float(f"{weight:.4g}")])
        for where, trainer, weight in zip(correction.where, correction.trainers, correction.weights, strict=True)
    ]
    head = f'{{"name": {json.dumps(site)}, "source": {json.dumps(source)}, "coordinates": {_COORDINATES}'
    return head + ',\n"places": [\n' + ",\n".join(lines) + "]}\n"


@cache
def read_correction(path: Path) -> Correction:
    """Return a site's correction.

    Raises:
        InputError: not what :func:`as_json` writes, or written for other coordinates.
    """
    try:
        held: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if held["coordinates"] != _COORDINATES:
            raise InputError(
                Problem("was written by another version; run `hpcplan calibrate fit`, or `learn`, again", str(path))
            )
        where = np.array([entry[1] for entry in held["places"]], dtype=float)
        if where.ndim != 2 or where.shape[1] != _COORDINATES:
            raise ValueError("every place needs all coordinates")
        trainers = tuple(tuple(str(word) for word in entry[0]) for entry in held["places"])
        return Correction(where, trainers, np.array([entry[2] for entry in held["places"]], dtype=float))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(Problem(f"is not a file of corrections: {error}", str(path))) from None
