"""Predicting measured runs, and saying how far off the predictions are."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan.calibrate.batch import Batch, known_system, make_batch
from hpcplan.calibrate.evidence import evidence_folder
from hpcplan.calibrate.learn_runs import read_runs
from hpcplan.calibrate.rows import Row, Table, read_rows
from hpcplan.calibrate.store import fingerprint, fitted_rows
from hpcplan.calibrate.targets import Array
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import Constants, constants_for
from hpcplan.cost.correction import places
from hpcplan.resources import shipped

__all__ = ["ADDED", "Prediction", "Score", "predict_table", "score", "scores", "to_csv"]

ADDED = ("predicted_iter_time_s", "predicted_mem_GB", "low", "high", "error_pct", "note")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of a table, priced; everything is ``None`` but the note where it could not be.

    ``memory_bytes`` is as the row's own figure counts it; ``fits`` is of all that the card has to hold.
    """

    note: str
    row: Row | None = None
    step_s: float | None = None
    memory_bytes: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    fits: bool | None = None
    fitted_on: bool = False

    @property
    def inside(self) -> bool | None:
        """Whether the measured time lies in the interval."""
        if self.row is None or self.low_s is None or self.high_s is None or not self.row.measured_s:
            return None
        return self.low_s <= self.row.measured_s <= self.high_s

    @property
    def error(self) -> float | None:
        """Predicted over measured, less one."""
        if self.row is None or self.step_s is None or not self.row.measured_s:
            return None
        return self.step_s / self.row.measured_s - 1


@dataclass(frozen=True, slots=True)
class Score:
    """How good the predictions of one group are; shares as fractions, ``None`` where there is nothing to say.

    ``pick_regret``: among runs of the same model on as many GPUs of one site, how much slower than the measured best is
    the one that the predictions would have picked; the mean over such sets.
    """

    group: str
    rows: int
    unpriced: int
    fitted_on: int
    mean_abs_error: float | None
    median_abs_error: float | None
    bias: float | None
    within_interval: float | None
    rank_correlation: float | None
    pick_regret: float | None
    memory_rows: int
    memory_mean_abs_error: float | None
    fit_right: float | None


def predict_table(path: Path, *, folder: Path | None = None) -> tuple[Table, list[Prediction]]:
    """Predict every row of a table of measured runs with the constants of ``folder``.

    If absent, those that plans take: the shipped ones, and what was measured and learned of a site.

    Raises:
        InputError: the table cannot be read.
    """
    table = read_rows(path)
    usable: list[tuple[int, Row]] = []
    notes: dict[int, str] = {}
    for index, row in enumerate(table.rows):
        reason = row if isinstance(row, str) else known_system(row)
        if isinstance(row, Row) and reason is None:
            usable.append((index, row))
        else:
            notes[index] = str(reason)
    found: dict[int, Prediction] = {}
    if usable:
        batch = make_batch([row for _, row in usable], lambda batch: _columns(_constants(batch, folder)))
        for (index, _), prediction in zip(usable, _predictions(batch, folder), strict=True):
            found[index] = prediction
    return table, [found.get(i) or Prediction(note=notes.get(i, "")) for i in range(len(table.rows))]


def _constants(batch: Batch, folder: Path | None) -> list[Constants]:
    """Return the constants of each row."""
    return [
        constants_for(
            accelerator=system.accelerator, family=system.family, framework=row.framework, precision=row.precision,
            site=row.site, features=row.features, folder=folder,
        )
        for row, system in zip(batch.rows, batch.systems, strict=True)
    ]  # fmt: skip


def _columns(constants: Sequence[Constants]) -> Coefficients:
    """Return the constants of many rows as arrays of shape (rows,)."""
    return Coefficients(**{name: np.array([getattr(c.coefficients, name) for c in constants]) for name in NAMES})


def _seen(batch: Batch, folder: Path | None) -> frozenset[str]:
    """Return the fingerprints of the rows that the constants were fitted on, or learned from."""
    if folder is not None:
        return fitted_rows(folder)
    sites = {row.site for row in batch.rows if "/" not in row.site and not row.site.startswith(".") and row.site}
    tables = (evidence_folder(site, make=False) / "runs.csv" for site in sites)
    learned = {fingerprint(row) for path in tables for row in read_runs(path) if isinstance(row, Row)}
    return fitted_rows(shipped("sites") / "constants") | learned


def _predictions(batch: Batch, folder: Path | None) -> list[Prediction]:
    constants = _constants(batch, folder)
    c = _columns(constants)
    costs, (reported, memory) = batch.price(c), batch.memory_bytes(c)
    at = places(batch.shape, batch.sequence, batch.shardings)
    steps = _corrected(constants, at, costs.step_s)
    widths = _half_widths(constants, at)
    known = _seen(batch, folder)
    capacity = np.broadcast_to(batch.machine.memory_bytes, memory.shape)
    result: list[Prediction] = []
    for i, row in enumerate(batch.rows):
        step = float(steps[i])
        seen = fingerprint(row) in known
        fits = bool(memory[i] <= capacity[i])
        notes = [*row.notes, *batch.notes[i]]
        if not fits:
            notes.append(f"does not fit: {memory[i] / 1e9:.0f} GB of {capacity[i] / 1e9:.0f} GB")
        if seen:
            notes.append("the constants were fitted on this row")
        notes += constants[i].evidence
        result.append(
            Prediction(
                row=row, step_s=step, memory_bytes=float(reported[i]),
                low_s=step / (1 + widths[i]), high_s=step * (1 + widths[i]),
                fits=fits, fitted_on=seen, note="; ".join(notes),
            )
        )  # fmt: skip
    return result


def _corrected(constants: Sequence[Constants], at: Array, step_s: Array) -> Array:
    """Return step times with the corrections that measured runs of each row's site add."""
    result = step_s.copy()
    for i, each in enumerate(constants):
        if each.corrected is not None:
            result[i] *= np.exp(each.corrected.correction.log_factor(at[[i]], each.corrected.trainer)[0])
    return result


def _half_widths(constants: Sequence[Constants], at: Array) -> list[float]:
    """Return the half-width of each row's interval, as a share of its step time."""
    nears = [each.corrected for each in constants]
    nearest = [
        1.0 if near is None else near.correction.nearest(at[[i]], near.trainer)[0] for i, near in enumerate(nears)
    ]
    return [float(each.half_width(near)) for each, near in zip(constants, nearest, strict=True)]


def score(group: str, predictions: Sequence[Prediction]) -> Score:
    """Return how good predictions are."""
    priced = [p for p in predictions if p.row is not None]
    timed = [p for p in priced if p.error is not None]
    errors = np.array([p.error for p in timed], dtype=float)
    inside = [p.inside for p in timed if p.inside is not None]
    memory = [
        p.memory_bytes / p.row.measured_bytes - 1 for p in priced if p.row and p.row.measured_bytes and p.memory_bytes
    ]
    verdicts = [p.fits == p.row.fitted for p in priced if p.row and None not in (p.fits, p.row.fitted)]
    return Score(
        group=group,
        rows=len(timed),
        unpriced=len(predictions) - len(priced),
        fitted_on=sum(p.fitted_on for p in timed),
        mean_abs_error=_of(np.mean, np.abs(errors)),
        median_abs_error=_of(np.median, np.abs(errors)),
        bias=_of(np.median, errors),
        within_interval=_of(np.mean, np.array(inside, dtype=float)),
        rank_correlation=_rank_correlation(timed),
        pick_regret=_pick_regret(timed),
        memory_rows=len(memory),
        memory_mean_abs_error=_of(np.mean, np.abs(np.array(memory, dtype=float))),
        fit_right=_of(np.mean, np.array(verdicts, dtype=float)),
    )


def scores(predictions: Sequence[Prediction], groups: Sequence[str]) -> list[Score]:
    """Return a score a group, in the order of their first rows."""
    return [
        score(group, [p for p, name in zip(predictions, groups, strict=True) if name == group])
        for group in dict.fromkeys(groups)
    ]


def _of(statistic: Callable[[Array], Any], values: Array) -> float | None:
    return float(statistic(values)) if len(values) else None


def _choices(members: Sequence[Prediction]) -> list[tuple[float, float]]:
    """Return predicted and measured seconds a sequence of each sharding: runs of different batches compare by that.

    One sharding that was measured twice, with other versions of the software, is one choice: the mean of its runs.
    """
    same: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for p in members:
        r = p.row
        assert r is not None
        assert p.step_s is not None
        assert r.measured_s is not None
        key = (r.tp, r.pp, r.vpp, r.cp, r.ep, r.dp, r.micro_batch, r.zero, r.recompute, r.sequence_parallel)
        same.setdefault((*key, r.schedule), []).append((p.step_s / r.global_batch, r.measured_s / r.global_batch))
    means = (np.mean(runs, axis=0) for runs in same.values())
    return [(float(predicted), float(measured)) for predicted, measured in means]


def _sets(timed: Sequence[Prediction]) -> list[list[Prediction]]:
    """Return the sets of runs that answer one question: this model, at this sequence, on so many GPUs of a site."""
    sets: dict[tuple[Any, ...], list[Prediction]] = {}
    for p in timed:
        assert p.row is not None
        key = (p.row.site, p.row.model, p.row.sequence, p.row.gpus, p.row.precision, p.row.features)
        sets.setdefault(key, []).append(p)
    return [members for members in sets.values() if len(members) > 1]


def _rank_correlation(timed: Sequence[Prediction]) -> float | None:
    """Return Spearman's coefficient within the sets, weighted by size: over all runs it only says which are large."""
    from scipy.stats import spearmanr

    total = weight = 0.0
    for members in _sets(timed):
        if len(members) < 3:
            continue
        predicted, measured = zip(*_choices(members), strict=True)
        if len(set(predicted)) > 2 and len(set(measured)) > 1:
            total += len(members) * float(spearmanr(predicted, measured).statistic)
            weight += len(members)
    return total / weight if weight else None


def _pick_regret(timed: Sequence[Prediction]) -> float | None:
    regrets: list[float] = []
    for members in _sets(timed):
        pairs = _choices(members)
        if len(pairs) < 2:
            continue
        picked = min(pairs)[1]
        regrets.append(picked / min(measured for _, measured in pairs) - 1)
    return float(np.mean(regrets)) if regrets else None


def to_csv(table: Table, predictions: Sequence[Prediction]) -> str:
    """Return the table's own columns with :data:`ADDED` beside them."""
    stream = io.StringIO()
    header = [*table.header, *(name for name in ADDED if name not in table.header)]
    writer = csv.DictWriter(stream, header, lineterminator="\n")
    writer.writeheader()
    for cells, p in zip(table.cells, predictions, strict=True):
        added = {
            "predicted_iter_time_s": _digits(p.step_s, 6),
            "predicted_mem_GB": _digits(_in_its_unit(p), 4),
            "low": _digits(p.low_s, 6),
            "high": _digits(p.high_s, 6),
            "error_pct": _digits(None if p.error is None else 100 * p.error, 4),
            "note": p.note,
        }
        writer.writerow({**cells, **added})
    return stream.getvalue()


def _in_its_unit(p: Prediction) -> float | None:
    """Return the memory in the unit of the row's own column, so that the two can be compared."""
    return None if p.memory_bytes is None else p.memory_bytes / (p.row.memory_unit if p.row else 1e9)


def _digits(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"
