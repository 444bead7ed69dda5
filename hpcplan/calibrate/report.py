"""A fit and its honest figures: every row predicted by fits that did not see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcplan.calibrate.batch import Batch, known_system, make_batch
from hpcplan.calibrate.fit import group_weights
from hpcplan.calibrate.holdout import Held, hold_out
from hpcplan.calibrate.levels import believed
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.calibrate.targets import Array, MemoryTarget, TimeTarget
from hpcplan.calibrate.validate import Prediction, Score, score
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import read_prior
from hpcplan.errors import InputError

__all__ = ["LEAST_ROWS", "Accuracy", "Calibration", "MeasuredRuns", "calibrate", "measured_runs"]

LEAST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One group's scores: each row's tenth held out, its whole site, and its site but for three other rows."""

    group: str
    calibrated: Score
    unseen: Score
    three_rows: Score


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fits of step time and of memory, and how good they are on rows that they did not see."""

    batch: Batch
    tables: tuple[str, ...]  # where each row is from
    time: Held
    memory: Held
    left_out: int
    by_table: tuple[Accuracy, ...]
    by_site: tuple[Accuracy, ...]


def calibrate(
    tables: Sequence[Path], folder: Path, *, seed: int = 0, on_site: Callable[[], None] = lambda: None
) -> Calibration:
    """Fit the constants of ``folder`` to every row that has a step time or a memory, and a known system.

    ``on_site`` is called twice a site, as its turn comes to be held out of the fits of time and of memory.

    Raises:
        InputError: a table cannot be read, or fewer than ``LEAST_ROWS`` rows are usable.
    """
    runs = measured_runs(tables, folder)
    batch, groups = runs.batch, runs.tables
    time = hold_out(TimeTarget(batch), runs.base, runs.weights, seed=seed, on_site=on_site)
    told = [bool(row.measured_bytes) for row in batch.rows]
    sized = np.where(told, 1.0, group_weights(groups))
    memory = hold_out(MemoryTarget(batch), runs.base, sized, seed=seed, on_site=on_site)
    sites = [row.site for row in batch.rows]
    reported, card = batch.memory_bytes(runs.base)
    beyond = np.where(told, card - reported, 0.0)
    return Calibration(
        batch=batch,
        tables=groups,
        time=time,
        memory=memory,
        left_out=runs.left_out,
        by_table=tuple(
            _accuracy(name, _where(groups, name), batch, time, memory, beyond) for name in dict.fromkeys(groups)
        ),
        by_site=tuple(_accuracy(name, _where(sites, name), batch, time, memory, beyond) for name in sorted(set(sites))),
    )


@dataclass(frozen=True, slots=True)
class MeasuredRuns:
    """Usable rows of some tables, the constants that a fit of them starts from, and their weights in it."""

    batch: Batch
    tables: tuple[str, ...]  # where each row is from
    base: Coefficients
    weights: Array  # in the fit of step times; 0 for rows without
    left_out: int


def measured_runs(tables: Sequence[Path], folder: Path) -> MeasuredRuns:
    """Read every row that has a step time or a memory, and a known system.

    Raises:
        InputError: a table cannot be read, or fewer than ``LEAST_ROWS`` rows are usable.
    """
    rows: list[Row] = []
    groups: list[str] = []
    left_out = 0
    for path in tables:
        for row in read_rows(path).rows:
            if isinstance(row, Row) and (row.measured_s or row.measured_bytes) and known_system(row) is None:
                rows.append(row)
                groups.append(path.stem)
            else:
                left_out += 1
    if len(rows) < LEAST_ROWS:
        few = f"{len(rows)} usable rows; a fit needs at least {LEAST_ROWS}"
        raise InputError(few, hint="hpcplan validate says why the others are not")
    prior = read_prior(folder)
    plain = Coefficients(**{name: prior.constants[name].value for name in NAMES})
    batch = make_batch(rows, lambda batch: believed(batch, plain, prior.beliefs))
    start = believed(batch, plain, prior.beliefs)
    timed = np.where([bool(row.measured_s) for row in rows], group_weights(groups), 0.0)
    return MeasuredRuns(batch, tuple(groups), start, timed, left_out)


def _where(names: Sequence[str], name: str) -> list[int]:
    return [i for i, each in enumerate(names) if each == name]


def _accuracy(group: str, index: list[int], batch: Batch, time: Held, memory: Held, beyond: Array) -> Accuracy:
    pairs = ((time.calibrated, memory.calibrated), (time.unseen, memory.unseen))
    calibrated, unseen = (score(group, _predictions(index, batch, *pair, beyond)) for pair in pairs)
    draws = zip(time.three_rows, memory.three_rows, strict=True)
    three = [prediction for pair in draws for prediction in _predictions(index, batch, *pair, beyond)]
    return Accuracy(group, calibrated, unseen, score(group, three))


def _predictions(index: list[int], batch: Batch, time: Array, memory: Array, beyond: Array) -> list[Prediction]:
    """Return predictions; ``beyond`` is what the card holds that a row's figure of memory does not count, in bytes."""
    capacity = np.broadcast_to(batch.machine.memory_bytes, (len(batch),)) - beyond
    result: list[Prediction] = []
    for i in index:
        step_s = None if np.isnan(time[i]) else float(np.exp(time[i]))
        size = None if np.isnan(memory[i]) else float(np.exp(memory[i]))
        fits = None if size is None else size <= float(capacity[i])
        result.append(Prediction("", batch.rows[i], step_s, size, fits=fits))
    return result
