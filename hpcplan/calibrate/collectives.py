"""Fitting the collective model to measured all-reduces inside one node: bandwidth reached, and message at half of it.

A table is CSV as ``nccl-tests`` figures are kept: ``gpu, ngpus_in_node, bytes, oop_us`` (out-of-place microseconds).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcplan.calibrate.targets import Array
from hpcplan.cost.mesh import rings
from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem

__all__ = ["LinkFit", "LinkRuns", "fit_links", "read_link_runs"]

_COLUMNS = ("gpu", "ngpus_in_node", "bytes", "oop_us")
_LATENCY_S = 2e-6  # of one hop, as in site files


@dataclass(frozen=True, slots=True)
class LinkRuns:
    """All-reduces of one kind of accelerator: ranks, message bytes and seconds, arrays of shape (runs,)."""

    ranks: Array
    message_bytes: Array
    measured_s: Array

    def take(self, mask: NDArray[np.bool_]) -> LinkRuns:
        """Return the runs where ``mask`` is true."""
        return LinkRuns(self.ranks[mask], self.message_bytes[mask], self.measured_s[mask])


@dataclass(frozen=True, slots=True)
class LinkFit:
    """What the runs of one accelerator say; ``mean_abs_error`` is of every second message size, which was held out."""

    gpu: str
    runs: int
    link_efficiency: float
    link_half_bytes: float
    mean_abs_error: float


def read_link_runs(path: Path) -> dict[str, LinkRuns]:
    """Return the runs of a table by accelerator.

    Raises:
        InputError: a column is missing, or a cell is not a positive number; with file and line.
    """
    reader = csv.DictReader(io.StringIO(read_text(path)))
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            Problem(f"has no column {missing[0]!r}; needed: {', '.join(_COLUMNS)}", file=str(path), line=1)
        )
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in reader:
        try:
            ranks, size, micros = (float(row[name]) for name in _COLUMNS[1:])
        except (TypeError, ValueError):
            ranks = size = micros = 0.0
        if not (ranks > 1 and size > 0 and micros > 0):
            message = "ngpus_in_node must be 2 or more, bytes and oop_us positive numbers"
            raise InputError(Problem(message, file=str(path), line=reader.line_num))
        found.setdefault(row["gpu"].strip(), []).append((ranks, size, micros * 1e-6))
    return {gpu: LinkRuns(*np.array(runs).T) for gpu, runs in found.items()}


def fit_links(
    gpu: str, runs: LinkRuns, link_bytes_per_s: float | Array, mesh: tuple[tuple[int, ...], ...] = ()
) -> LinkFit:
    """Return the constants that explain the runs: 2 (n-1)/n (S + half) / (efficiency link) and a latency a hop.

    That is :func:`hpcplan.cost.collectives.all_reduce` inside one domain. Where no switch joins its links, ``mesh`` has
    those between each two accelerators, and so many ranks use the share of them that holds rings.
    """
    if mesh:
        link_bytes_per_s = link_bytes_per_s * _shares(runs.ranks, mesh)
    sizes = np.unique(runs.message_bytes)
    held_out = np.isin(runs.message_bytes, sizes[1::2])
    link = np.broadcast_to(link_bytes_per_s, runs.ranks.shape)
    known = _solve(runs.take(~held_out), link[~held_out])
    errors = np.abs(np.expm1(_residual(known, runs.take(held_out), link[held_out])))
    efficiency, half = np.exp(_solve(runs, link))
    return LinkFit(gpu, len(runs.ranks), float(efficiency), float(half), float(errors.mean()) if len(errors) else 0.0)


def _shares(ranks: Array, mesh: tuple[tuple[int, ...], ...]) -> Array:
    """Return the share of the links that holds rings over the first so many accelerators, which nccl-tests uses."""
    held = {int(n): rings(mesh, range(int(n))) for n in np.unique(ranks) if n <= len(mesh)}
    most = max(map(sum, mesh))
    return np.array([held.get(int(n), most) / most for n in ranks])


def _solve(runs: LinkRuns, link: Array) -> Array:
    from scipy.optimize import least_squares

    start = np.log([0.75, 4e6])
    found = least_squares(lambda logs: _residual(logs, runs, link), start, loss="soft_l1", f_scale=0.05)
    return np.asarray(found.x, dtype=float)


def _residual(logs: Array, runs: LinkRuns, link: Array) -> Array:
    efficiency, half = np.exp(logs)
    n = runs.ranks
    predicted = 2 * (n - 1) / n * (runs.message_bytes + half) / (efficiency * link) + 2 * (n - 1) * _LATENCY_S
    return np.asarray(np.log(predicted / runs.measured_s))
