"""Fitting the link constants to all-reduces made with known ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.collectives import fit_links, read_link_runs
from hpcplan.errors import InputError
from hpcplan.site import load_site

HEADER = "gpu,ngpus_in_node,bytes,oop_us\n"


def made(path: Path, efficiency: float, half: float) -> Path:
    lines = []
    for ranks in (2, 4, 8):
        for size in np.geomspace(1e6, 1e9, 20):
            seconds = 2 * (ranks - 1) / ranks * (size + half) / (efficiency * 300e9) + 2 * (ranks - 1) * 2e-6
            lines.append(f"a100,{ranks},{size:.0f},{seconds * 1e6:.4f}")
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def test_the_fit_finds_the_constants_that_made_the_runs(tmp_path: Path) -> None:
    runs = read_link_runs(made(tmp_path / "runs.csv", 0.8, 6e6))
    found = fit_links("a100", runs["a100"], 300e9)
    assert found.link_efficiency == pytest.approx(0.8, rel=1e-3)
    assert found.link_half_bytes == pytest.approx(6e6, rel=1e-2)
    assert found.mean_abs_error < 1e-3
    assert found.runs == 60


@pytest.mark.parametrize("row", ["a100,1,1024,5", "a100,8,1024,0", "a100,8,,5", "a100,8,x,5"])
def test_a_run_that_cannot_be_says_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(HEADER + "a100,8,1024,5\n" + row + "\n")
    with pytest.raises(InputError, match=r"runs\.csv:3"):
        read_link_runs(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("gpu,bytes,oop_us\na100,1,1\n")
    with pytest.raises(InputError, match="ngpus_in_node"):
        read_link_runs(path)


def test_measured_all_reduces_on_a100_are_predicted_within_a_twentieth() -> None:
    path = Path(__file__).parents[2] / "../shared/data/measured/nccl_allreduce_intra_node.csv"
    if not path.is_file():
        pytest.skip("the measured data is not here")
    found = fit_links("a100", read_link_runs(path)["a100"], 300e9)
    assert found.mean_abs_error < 0.05


def test_a_mesh_without_a_switch_is_fitted_over_the_rings_that_it_holds(tmp_path: Path) -> None:
    mesh = ((0, 1, 1, 2), (1, 0, 2, 1), (1, 2, 0, 2), (2, 1, 2, 0))
    lines = []
    for ranks, rate in ((2, 25e9), (3, 50e9), (4, 100e9)):
        for size in np.geomspace(1e6, 1e9, 20):
            seconds = 2 * (ranks - 1) / ranks * (size + 1e6) / (0.9 * rate) + 2 * (ranks - 1) * 2e-6
            lines.append(f"v100,{ranks},{size:.0f},{seconds * 1e6:.4f}")
    path = tmp_path / "runs.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    runs = read_link_runs(path)["v100"]
    found = fit_links("v100", runs, 125e9, mesh)
    assert found.link_efficiency == pytest.approx(0.9, rel=1e-3)
    assert found.mean_abs_error < 1e-3
    assert fit_links("v100", runs, 125e9).mean_abs_error > 0.2


def test_measured_all_reduces_on_a_mesh_of_v100_are_predicted_within_a_twentieth() -> None:
    path = Path(__file__).parents[2] / "../shared/data/measured/nccl_allreduce_intra_node.csv"
    if not path.is_file():
        pytest.skip("the measured data is not here")
    inside = load_site("dgx-1v").site.node_groups["v100"].intra_node
    assert inside is not None
    found = fit_links("v100", read_link_runs(path)["v100"], inside.bandwidth_bytes_per_s, inside.mesh)
    assert found.mean_abs_error < 0.05
