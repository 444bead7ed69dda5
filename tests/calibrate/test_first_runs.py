"""Three runs of a site, and what they do for its others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.batch import Batch, make_batch
from hpcplan.calibrate.first_runs import predicted_after, taught
from hpcplan.calibrate.learn import Learned, mean_error, usable_runs
from hpcplan.calibrate.rows import read_rows
from hpcplan.calibrate.targets import TimeTarget
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import constants_for
from tests.calibrate.made_up import write_table

KNOWN = np.arange(3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Batch, Coefficients]:
    """Runs of one site as the model has them, and the model's constants, row by row."""
    path: Path = write_table(tmp_path_factory.mktemp("runs") / "runs.csv")
    plain = constants_for().coefficients
    batch = make_batch([row for row in usable_runs(read_rows(path).rows) if row.site == "selene"], plain)
    base = Coefficients(**{name: np.full(len(batch), getattr(plain, name)) for name in NAMES})
    return batch, base


def slowed(batch: Batch, base: Coefficients, factor: float) -> Batch:
    seconds = factor * np.exp(TimeTarget(batch).predict(base))
    rows = tuple(replace(row, measured_s=float(each)) for row, each in zip(batch.rows, seconds, strict=True))
    return replace(batch, rows=rows)


def test_three_runs_of_a_site_that_is_slower_make_its_others_better_predicted(
    runs: tuple[Batch, Coefficients],
) -> None:
    batch, base = slowed(*runs, 1.25), runs[1]
    others = np.arange(3, len(batch))
    measured = TimeTarget(batch).measured[others]
    before = mean_error(TimeTarget(batch).predict(base)[others], measured)
    assert before == pytest.approx(0.2)
    assert mean_error(taught(batch, base, KNOWN, others), measured) < 0.7 * before


def test_three_runs_as_predicted_leave_the_others_where_they_were(runs: tuple[Batch, Coefficients]) -> None:
    batch, base = slowed(*runs, 1.0), runs[1]
    others = np.arange(3, len(batch))
    assert taught(batch, base, KNOWN, others) == pytest.approx(TimeTarget(batch).predict(base)[others], abs=0.01)


def test_what_makes_predictions_surely_worse_is_not_used(runs: tuple[Batch, Coefficients]) -> None:
    batch, base = runs
    worse = Learned(runs=3, factors={"matmul_efficiency": 0.5}, before=0.1, after=0.2, interval=None, doubt=0.01)
    before = TimeTarget(batch).predict(base)
    assert predicted_after(worse, batch, base) == pytest.approx(before)
    assert predicted_after(replace(worse, after=0.05), batch, base).mean() > before.mean() + 0.1
