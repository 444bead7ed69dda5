"""Fitting on data made with known constants finds them, and the held-out figures are honest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hpcplan.calibrate.report import Calibration, calibrate
from hpcplan.calibrate.store import fitted_rows, half_width, site_width, unseen_width, write_constants
from hpcplan.calibrate.validate import predict_table, score, to_csv
from hpcplan.cli import main
from hpcplan.cost.constants import constants_for, read_prior
from hpcplan.resources import shipped
from tests.calibrate.made_up import SITES, write_table

FOLDER = shipped("sites") / "constants"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("measured") / "made.csv")


@pytest.fixture(scope="module")
def fitted(made: Path) -> Calibration:
    return calibrate([made], FOLDER)


def test_the_fit_explains_what_differs_between_sites(fitted: Calibration) -> None:
    result = fitted
    for accuracy in result.by_site:
        assert accuracy.calibrated.mean_abs_error is not None
        assert accuracy.calibrated.mean_abs_error < 0.05
    unknowns = zip(result.time.design.names, result.time.values, strict=True)
    found = {label: value for (kind, label, name), value in unknowns if kind == "sites" and name == "matmul_efficiency"}
    assert SITES["jean-zay-a100"] > SITES["selene"]
    assert found["jean-zay-a100"] > found["selene"], "of two sites with one chip, the more efficient is found to be so"


def test_a_held_out_row_does_not_know_its_own_time(made: Path, fitted: Calibration, tmp_path: Path) -> None:
    """Spoil one row: fits that hold it out must not follow it."""
    lines = made.read_text().splitlines()
    cells = lines[1].split(",")
    cells[-2] = f"{float(cells[-2]) * 1.5:.6g}"
    spoilt = tmp_path / "spoilt.csv"
    spoilt.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    clean, dirty = fitted, calibrate([spoilt], FOLDER)
    assert dirty.time.calibrated[0] == pytest.approx(clean.time.calibrated[0], abs=0.03)
    assert dirty.time.unseen[0] == pytest.approx(clean.time.unseen[0], abs=0.03)


def test_the_same_rows_give_the_same_constants(made: Path, fitted: Calibration, tmp_path: Path) -> None:
    texts = []
    for name, result in (("a", fitted), ("b", calibrate([made], FOLDER))):
        folder = tmp_path / name
        folder.mkdir()
        written = write_constants(folder, read_prior(FOLDER), result.batch, (result.time, result.memory), [made.name])
        texts.append({path.relative_to(folder): path.read_text() for path in written})
    assert texts[0] == texts[1]


def test_fitted_constants_read_back_and_predict(made: Path, fitted: Calibration, tmp_path: Path) -> None:
    result = fitted
    write_constants(tmp_path, read_prior(FOLDER), result.batch, (result.time, result.memory), [made.name])
    assert len(fitted_rows(tmp_path)) > 50
    _, predictions = predict_table(made, folder=tmp_path)
    good = score("all", predictions)
    assert good.mean_abs_error is not None
    assert good.mean_abs_error < 0.04
    assert good.fitted_on == good.rows
    assert all("fitted on this row" in p.note for p in predictions if p.row)
    seen = constants_for(site="selene", folder=tmp_path)
    unseen = constants_for(site="nowhere", folder=tmp_path)
    assert seen.coefficients != unseen.coefficients


def test_new_constants_fall_within_their_interval_about_nine_times_in_ten(
    made: Path, fitted: Calibration, tmp_path: Path
) -> None:
    result = fitted
    write_constants(tmp_path, read_prior(FOLDER), result.batch, (result.time, result.memory), [made.name])
    fresh = write_table(tmp_path / "fresh.csv", seed=7)
    _, predictions = predict_table(fresh, folder=tmp_path)
    share = score("all", predictions).within_interval
    assert share is not None
    assert 0.8 <= share <= 1.0


def test_the_output_keeps_every_column_and_adds_ours(made: Path) -> None:
    read, predictions = predict_table(made)
    lines = to_csv(read, predictions).splitlines()
    assert lines[0].startswith("site,source,gpus,")
    assert lines[0].endswith("predicted_iter_time_s,predicted_mem_GB,low,high,error_pct,note")
    assert len(lines) == len(read.rows) + 1


def test_a_run_that_is_predicted_not_to_fit_says_so(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("site,gpus,model,tp,pp,zero,seq,global_batch,micro_batch\nselene,8,gpt3-175b,8,1,0,2048,8,8\n")
    _, (prediction,) = predict_table(table)
    assert prediction.fits is False
    assert "does not fit: " in prediction.note


def test_the_commands_say_their_figures(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", "fit", str(made), "-o", str(tmp_path / "c"), "--format", "json"])
    assert caught.value.code == 0
    data = json.loads(capsys.readouterr().out)
    assert data["tables"][0]["unseen"]["rows"] == 90
    with pytest.raises(SystemExit) as caught:
        main(["validate", str(made), "--constants", str(tmp_path / "c"), "-o", str(tmp_path / "out.csv"), "--format",
              "json"])  # fmt: skip
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out)["all"]["rows"] == 90
    assert (tmp_path / "out.csv").read_text().count("\n") == 91


def test_validate_says_why_a_row_has_no_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("site,gpus,model,tp,precision\nselene,8,gpt3-175b,3,bf16\nselene,64,gpt3-175b,8,fp64\n")
    with pytest.raises(SystemExit) as caught:
        main(["validate", str(table)])
    assert caught.value.code == 0
    assert f"{table}:2: not priced: tp 3 x pp 1 x cp 1 does not divide 8 GPUs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["validate", str(table), "--format", "json"])
    (unpriced,) = json.loads(capsys.readouterr().out)["unpriced"]
    assert (unpriced["table"], unpriced["line"]) == (str(table), 2)
    assert "does not divide" in unpriced["reason"]


@pytest.mark.parametrize(("line", "told"), [("nowhere,8,gpt9\n", "stands above"), ("", "there is none")])
def test_a_table_without_a_row_to_price_is_refused_when_all_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("site,gpus,model\n" + line)
    with pytest.raises(SystemExit) as caught:
        main(["validate", str(table), "-o", str(tmp_path / "out.csv")])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert f"no row of {table} can be priced" in err
    assert told in err
    assert (tmp_path / "out.csv").read_text().count("\n") == 1 + bool(line)


def test_a_step_of_zero_seconds_is_no_measurement_and_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("site,gpus,model,tp,iter_time_s,mem_GB\nselene,64,gpt3-175b,8,0,0.0\n")
    _, (prediction,) = predict_table(table)
    assert prediction.error is None
    assert "iter_time_s 0 taken as not measured" in prediction.note
    assert "mem_GB 0 taken as not measured" in prediction.note
    with pytest.raises(SystemExit) as caught:
        main(["validate", str(table)])
    assert caught.value.code == 0
    assert "no row has a measured step time or memory" in capsys.readouterr().err


def test_a_precision_that_is_not_known_is_said_to_be_so(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("site,gpus,model,tp,precision\nselene,64,gpt3-175b,8,fp64\n")
    _, (prediction,) = predict_table(table)
    assert "precision 'fp64' is not known, bf16 assumed" in prediction.note


def test_too_few_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = write_table(tmp_path / "few.csv", rows=5)
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", "fit", str(few)])
    assert caught.value.code == 2
    assert "a fit needs at least 20" in capsys.readouterr().err


def test_weights_keep_large_tables_from_drowning_small_ones() -> None:
    from hpcplan.calibrate.fit import FULL_WEIGHT, group_weights

    weights = group_weights(["large"] * 600 + ["small"] * 10)
    assert np.sum(weights[:600]) == pytest.approx(FULL_WEIGHT)
    assert np.all(weights[600:] == 1)


def test_an_interval_counts_rows_by_their_weight() -> None:
    measured, errors = np.zeros(100), np.linspace(0.0, 0.99, 100)
    assert half_width(errors, measured) == pytest.approx(np.expm1(0.895), abs=0.02)
    surer = half_width(errors, measured, np.where(errors < 0.5, 1.0, 0.01))
    assert surer < np.expm1(0.5)
    assert half_width(np.append(errors, np.nan), np.zeros(101)) == half_width(errors, measured)


def test_the_interval_of_a_site_is_that_of_rows_with_a_run_near_them() -> None:
    """Thirty rows beside another are 2 % off, and ten far from all 30 %: those widen no interval near runs."""
    errors, nearest = np.array([0.02] * 30 + [0.30] * 10), np.array([1.0] * 30 + [0.0] * 10)
    assert site_width(errors, np.zeros(40), nearest) == pytest.approx(np.expm1(0.02))
    assert site_width(errors, np.zeros(40), np.zeros(40)) == pytest.approx(np.expm1(0.30))
    assert site_width(errors[:5], np.zeros(5), nearest[:5]) is None
    assert site_width(errors, np.full(40, np.nan), nearest) is None


def test_a_large_site_does_not_set_the_interval_of_the_next_one_alone() -> None:
    """Nineteen sites of five rows are 2 % off, and one of a thousand is 30 %: few of the sites, most of the rows."""
    sites = [f"s{i // 5}" for i in range(95)] + ["large"] * 1000 + ["untimed"]
    errors = np.array([0.02] * 95 + [0.30] * 1000 + [0.0])
    measured = np.array([0.0] * 1095 + [np.nan])
    assert unseen_width(errors, measured, sites) < 0.5 * half_width(errors, measured)
