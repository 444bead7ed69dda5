"""What a fit leaves over at a site: learned from its own rows, for their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from hpcplan.calibrate.batch import make_batch
from hpcplan.calibrate.residuals import MOST_PLACES, Residuals
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.calibrate.targets import MemoryTarget, TimeTarget
from hpcplan.cost.constants import constants_for
from tests.calibrate.made_up import write_table


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> TimeTarget:
    path = write_table(tmp_path_factory.mktemp("measured") / "made.csv", rows=240)
    rows = [row for row in read_rows(path).rows if isinstance(row, Row)]
    return TimeTarget(make_batch(rows, constants_for().coefficients))


def test_rows_near_known_ones_get_nearer_to_their_measurement(target: TimeTarget) -> None:
    selene = np.array([row.site == "selene" for row in target.batch.rows])
    wide = np.array([row.tp == 8 for row in target.batch.rows])
    predicted = target.measured + np.where(selene & wide, 0.25, 0.0)  # the fit is off on one kind of run
    known = np.arange(len(wide)) % 2 == 0
    left = Residuals(target).corrected(predicted, known) - target.measured
    asked = selene & wide & ~known
    assert np.abs(left[asked]).mean() < 0.5 * 0.25
    assert np.abs(left[selene & ~wide]).mean() < 0.05


def test_other_sites_learn_nothing(target: TimeTarget) -> None:
    selene = np.array([row.site == "selene" for row in target.batch.rows])
    predicted = target.measured + 0.2
    corrected = Residuals(target).corrected(predicted, selene)
    assert np.array_equal(corrected[~selene], predicted[~selene])
    assert np.all(corrected[selene] < predicted[selene])


def test_nothing_known_changes_nothing(target: TimeTarget) -> None:
    nothing = np.zeros(len(target.measured), dtype=np.bool_)
    assert np.array_equal(Residuals(target).corrected(target.measured, nothing), target.measured)


def test_a_row_is_as_near_as_the_nearest_known_run_of_its_own_site(target: TimeTarget) -> None:
    rows = target.batch.rows
    selene = np.array([row.site == "selene" for row in rows])
    narrow = np.array([row.tp == 1 for row in rows])
    nearest = Residuals(target).nearest(selene & narrow)
    assert np.all(nearest[~selene] == 0)
    assert np.allclose(nearest[selene & narrow], 1.0)
    wide = nearest[selene & np.array([row.tp == 8 for row in rows])]
    assert len(wide)
    assert np.all((wide > 0) & (wide < 0.01)), "three octaves of tensor parallelism away"


def test_places_are_few_and_the_same_each_time(target: TimeTarget) -> None:
    everything = np.ones(len(target.measured), dtype=np.bool_)
    first, second = (Residuals(target).learn(target.measured + 0.1, everything) for _ in range(2))
    assert set(first) == {row.site for row in target.batch.rows}
    for site, correction in first.items():
        assert len(correction.weights) <= MOST_PLACES
        assert np.array_equal(correction.weights, second[site].weights)


def test_memory_is_left_as_the_formula_has_it(target: TimeTarget) -> None:
    memory = Residuals(MemoryTarget(target.batch))
    everything = np.ones(len(target.measured), dtype=np.bool_)
    assert memory.learn(memory.measured + 0.3, everything) == {}
