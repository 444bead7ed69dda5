"""Training steps measured on one H100 and one H200 by `tests/benchmarks/one_gpu.py`: sites that no fit has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.validate import predict_table

STEADY = 0.15  # spread of a run's steps from which on the host sets the pace, and not the accelerator


@pytest.mark.parametrize("chip", ["h100", "h200"])
def test_steps_on_one_accelerator_are_predicted_without_having_seen_any(chip: str) -> None:
    table, found = predict_table(Path(__file__).with_name(f"measured_one_{chip}.csv"))
    errors = np.array([np.nan if p.error is None else p.error for p in found])
    steady = np.array([float(c["notes"].partition("spread ")[2] or np.inf) < STEADY for c in table.cells])
    assert np.nanmean(np.abs(errors[steady])) < 0.11
    assert np.nanmean(np.abs(errors)) < 0.17, "small models wait for the host, by up to half"
    assert not any(p.fitted_on for p in found)


@pytest.mark.parametrize("chip", ["h100", "h200"])
def test_memory_on_one_accelerator_has_no_buffers_of_nccl(chip: str) -> None:
    _, found = predict_table(Path(__file__).with_name(f"measured_one_{chip}.csv"))
    off = [
        (p.memory_bytes or 0.0) / p.row.measured_bytes - 1 for p in found if p.row is not None and p.row.measured_bytes
    ]
    assert len(off) > 30
    assert np.mean(np.abs(off)) < 0.10
    assert abs(np.median(off)) < 0.04


@pytest.mark.parametrize("chip", ["h100", "h200"])
def test_what_ran_out_of_memory_and_what_did_not_is_told_but_for_rows_at_the_edge(chip: str) -> None:
    _, found = predict_table(Path(__file__).with_name(f"measured_one_{chip}.csv"))
    capacity = {"h100": 85.9e9, "h200": 141e9}[chip]
    wrong = [p for p in found if p.row is not None and None not in (p.fits, p.row.fitted) and p.fits != p.row.fitted]
    assert all(abs((p.memory_bytes or 0.0) / capacity - 1) < 0.03 for p in wrong)
    assert len(wrong) <= 2
    assert sum(p.row is not None and p.row.fitted is False for p in found) >= 1
