"""A fit and its honest figures: every row predicted by fits that did not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcplan.calibrate.batch import Batch, known_system, make_batch
from hpcplan.calibrate.fit import Array, group_weights
from hpcplan.calibrate.holdout import Held, hold_out
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.calibrate.validate import Prediction, Score, score
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import read_base
from hpcplan.errors import InputError

__all__ = ["LEAST_ROWS", "Accuracy", "Calibration", "calibrate"]

LEAST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One group's scores: each row's fifth held out, its whole site, and its site but for three other rows."""

    group: str
    calibrated: Score
    unseen: Score
    three_rows: Score


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fit, and how good it is on rows that it did not see, by table and by site."""

    batch: Batch
    held: Held
    left_out: int
    by_table: tuple[Accuracy, ...]
    by_site: tuple[Accuracy, ...]


def calibrate(tables: Sequence[Path], folder: Path, *, seed: int = 0) -> Calibration:
    """Fit the constants of ``folder`` to every row that has a step time and a known system.

    Raises:
        InputError: a table cannot be read, or fewer than ``LEAST_ROWS`` rows are usable.
    """
    rows: list[Row] = []
    groups: list[str] = []
    left_out = 0
    for path in tables:
        for row in read_rows(path).rows:
            if isinstance(row, Row) and row.measured_s and known_system(row) is None:
                rows.append(row)
                groups.append(path.stem)
            else:
                left_out += 1
    if len(rows) < LEAST_ROWS:
        raise InputError(
            f"{len(rows)} usable rows; a fit needs at least {LEAST_ROWS}", hint="hpcplan validate says why"
        )
    base = read_base(folder)
    start = Coefficients(**{name: base.constants[name].value for name in NAMES})
    batch = make_batch(rows, start)
    held = hold_out(batch, start, group_weights(groups), seed=seed)
    return Calibration(
        batch, held, left_out,
        by_table=tuple(_accuracy(name, _where(groups, name), batch, held) for name in dict.fromkeys(groups)),
        by_site=tuple(
            _accuracy(name, _where([row.site for row in rows], name), batch, held)
            for name in sorted({row.site for row in rows})
        ),
    )  # fmt: skip


def _where(names: Sequence[str], name: str) -> list[int]:
    return [i for i, each in enumerate(names) if each == name]


def _accuracy(group: str, index: list[int], batch: Batch, held: Held) -> Accuracy:
    kinds = (held.calibrated, held.unseen, held.three_rows)
    return Accuracy(group, *(score(group, _predictions(index, batch, logs)) for logs in kinds))


def _predictions(index: list[int], batch: Batch, logs: Array) -> list[Prediction]:
    return [Prediction("", batch.rows[i], float(np.exp(logs[i]))) for i in index if not np.isnan(logs[i])]
