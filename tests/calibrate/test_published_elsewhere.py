"""Published runs that no fit has used: `published_elsewhere.csv`, each row with its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.validate import Prediction, predict_table, score

RUNS = Path(__file__).with_name("published_elsewhere.csv")


@pytest.fixture(scope="module")
def runs() -> list[tuple[dict[str, str], Prediction]]:
    table, found = predict_table(RUNS)
    return list(zip(table.cells, found, strict=True))


def test_they_are_predicted_about_as_well_as_the_interval_says(runs: list[tuple[dict[str, str], Prediction]]) -> None:
    every = score("all", [prediction for _, prediction in runs])
    assert (every.rows, every.fitted_on, every.unpriced) == (70, 0, 0)
    assert (every.mean_abs_error or 1) < 0.12
    assert (every.within_interval or 0) > 0.8


def test_memory_of_pipelines_is_what_the_allocator_had_handed_out(
    runs: list[tuple[dict[str, str], Prediction]],
) -> None:
    """Qi et al. 2023, table 4: attention that is not fused, gradients in 16 bits, the fullest stage."""
    off = [
        (p.memory_bytes or 0.0) / p.row.measured_bytes - 1
        for cells, p in runs
        if cells["source"].startswith("Qi") and p.row is not None and p.row.measured_bytes
    ]
    assert len(off) == 36
    assert np.abs(off).max() < 0.05
    assert np.abs(off).mean() < 0.025


def test_pipeline_schedules_gain_on_each_other_what_was_measured(
    runs: list[tuple[dict[str, str], Prediction]],
) -> None:
    """Qi et al. 2023: the same models and micro-batches by 1F1B, interleaved 1F1B and a zero-bubble schedule."""
    times: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for cells, p in runs:
        if cells["source"].startswith("Qi"):
            assert p.row is not None
            assert p.row.measured_s is not None
            assert p.step_s is not None
            kind = "interleaved" if p.row.vpp and p.row.vpp > 1 else p.row.schedule
            times.setdefault((cells["model"], cells["global_batch"]), {})[kind] = (p.step_s, p.row.measured_s)
    assert len(times) == 12
    for (model, batch), by_kind in times.items():
        plain = by_kind.pop("1f1b")
        assert len(by_kind) == 2
        for kind, (predicted, measured) in by_kind.items():
            gain, seen = plain[0] / predicted, plain[1] / measured
            assert abs(np.log(gain / seen)) < 0.05, (model, batch, kind)
