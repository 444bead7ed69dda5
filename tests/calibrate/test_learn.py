"""Learning from a site: known runs make others better predicted, accounting is counted right, drift is noticed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.calibrate.evidence import merge_bench
from hpcplan.calibrate.learn import Learned, learn_site, usable_runs
from hpcplan.calibrate.learn_accounting import failure_rate, failures_by_group, limit_use
from hpcplan.calibrate.learn_runs import add_runs, cells_of_plan, cells_of_table, read_runs
from hpcplan.calibrate.learn_track import Entry, add_entries, read_track, watch
from hpcplan.calibrate.rows import Row, read_rows
from hpcplan.calibrate.validate import predict_table
from hpcplan.cli import main
from hpcplan.cost.constants import constants_for
from hpcplan.errors import InputError
from hpcplan.plan import Plan, read_plan
from hpcplan.report.table import SCHEMA
from hpcplan.site import load_site
from tests.calibrate.made_up import write_table


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*words])
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def rows_of(path: Path, site: str) -> list[Row]:
    return [row for row in usable_runs(read_rows(path).rows) if row.site == site]


def slowed(path: Path, site: str, factor: float) -> Path:
    """Make every run of a site take ``factor`` times as long."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[1:], start=1):
        cells = line.split(",")
        if cells[0] == site:
            cells[-2] = f"{float(cells[-2]) * factor:.6g}"
        lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_half_of_a_sites_runs_make_the_other_half_better_predicted(tmp_path: Path) -> None:
    rows = rows_of(slowed(write_table(tmp_path / "runs.csv"), "selene", 1.3), "selene")
    half = learn_site(rows[::2])
    assert half.better
    assert half.after < 0.5 * half.before
    whole = learn_site(rows)
    assert whole.before > 0.15
    assert whole.after < 0.06
    assert whole.interval is not None
    assert 0.01 < whole.interval < 0.2


def test_runs_that_are_as_predicted_teach_nothing_much(tmp_path: Path) -> None:
    """Times that scatter about the prediction move no constant far."""
    path = write_table(tmp_path / "runs.csv", rows=60)
    _, predictions = predict_table(path)
    lines = path.read_text().splitlines()
    for number, prediction in enumerate(predictions, start=1):
        cells = lines[number].split(",")
        assert prediction.step_s is not None
        cells[-2] = f"{prediction.step_s:.6g}"
        lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    found = learn_site(rows_of(path, "selene"))
    assert all(abs(math.log(factor)) < 0.05 for factor in found.factors.values())


def test_what_makes_held_out_runs_surely_worse_is_not_used() -> None:
    steady = Learned(runs=5, factors={}, before=0.10, after=0.08, interval=None, doubt=0.005)
    assert steady.better
    assert replace(steady, after=0.109).better, "within two standard errors"
    assert not replace(steady, after=0.111).better


def test_runs_near_measured_ones_are_corrected_beyond_the_factors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of one kind take half as long again: no factor says so, and every later prediction does."""
    path = write_table(tmp_path / "runs.csv", rows=60)
    lines = path.read_text().splitlines()
    wide = [number for number, line in enumerate(lines) if line.startswith("selene,") and line.split(",")[13] == "8"]
    for number in wide:
        cells = lines[number].split(",")
        cells[-2] = f"{float(cells[-2]) * 1.5:.6g}"
        lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    assert 3 <= len(wide) < len(rows_of(path, "selene"))
    run(capsys, "calibrate", "learn", "--site", "selene", "--runs", str(path))
    _, predictions = predict_table(path)
    errors = [p.error for p in predictions if p.row and p.row.site == "selene"]
    assert np.mean(np.abs(errors)) < 0.05
    found = learn_site(rows_of(path, "selene"))
    assert found.correction is not None
    assert found.after < 0.6 * found.before
    merge_bench("selene", {"matmul_efficiency": (1.1, "measured")}, "bench 2026-11-27")
    assert constants_for(site="selene").corrected is None, "made for other factors than a benchmark's"


def test_too_few_runs_or_several_sites_are_refused(tmp_path: Path) -> None:
    rows = usable_runs(read_rows(write_table(tmp_path / "runs.csv", rows=6)).rows)
    with pytest.raises(InputError, match="at least 2"):
        learn_site(rows[:1])
    with pytest.raises(InputError, match="several sites"):
        learn_site(rows)


def test_runs_are_added_once(tmp_path: Path) -> None:
    table = read_rows(write_table(tmp_path / "runs.csv", rows=30))
    cells = cells_of_table(table, "selene")
    assert add_runs(tmp_path / "kept.csv", cells) == 10
    assert add_runs(tmp_path / "kept.csv", cells) == 0
    kept = usable_runs(read_runs(tmp_path / "kept.csv"))
    assert [row.measured_s for row in kept] == [row.measured_s for row in rows_of(table.path, "selene")]


@pytest.mark.parametrize("options", [
    ("llama3-8b",), ("mixtral-8x7b",), ("bert-large",),
    ("mixtral-8x7b", "--fix", "zero=1", "--fix", "shard_group=8", "--fix", "recompute_layers=4"),
])  # fmt: skip
def test_a_plan_as_a_row_is_predicted_as_the_plan_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    run(capsys, "plan", *options, "--site", "superpod-h100", "--nodes", "4", "-o", str(tmp_path / "plan.json"))
    plan = read_plan(tmp_path / "plan.json")
    cells = cells_of_plan(plan, plan.estimate.iter_time_s, "a")
    assert cells is not None
    add_runs(tmp_path / "runs.csv", [cells, {**cells, "key": "b"}])
    assert learn_site(usable_runs(read_runs(tmp_path / "runs.csv"))).before < 0.02


def test_the_mean_time_between_failures_has_the_exact_interval() -> None:
    rate = failure_rate(4, 4e6)
    assert rate.mtbf_s == 1e6
    assert rate.low_s == pytest.approx(4e6 / 10.2416, rel=1e-4)  # Garwood 1936: 4 events are 1.0899 to 10.2416
    assert rate.high_s == pytest.approx(4e6 / 1.0899, rel=1e-4)
    none = failure_rate(0, 4e6)
    assert (none.mtbf_s, none.high_s) == (None, None)
    assert none.low_s == pytest.approx(4e6 / 3.6889, rel=1e-4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(3)
    rates = [failure_rate(int(count), 1e6) for count in chance.poisson(6.0, 400)]
    inside = [rate.low_s <= 1e6 / 6 <= (rate.high_s or math.inf) for rate in rates]
    assert 0.93 <= sum(inside) / len(inside) <= 1.0


def jobs(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{"ended": True, "start_time": 0, **row} for row in rows], schema=dict(SCHEMA))


def test_limits_and_failures_are_counted_from_accounting() -> None:
    done = {"state": "COMPLETED", "time_limit_s": 1000, "partition": "batch", "nodes": 2, "node_list": "dgx[001-002]"}
    table = jobs(
        *({**done, "elapsed_s": 100 * share} for share in (1, 2, 3, 4)),
        {**done, "elapsed_s": 1000, "state": "TIMEOUT"},
        {**done, "elapsed_s": 600, "state": "NODE_FAIL", "node_list": "dgx[003-004]"},
        {**done, "elapsed_s": 5000, "state": "CANCELLED", "node_list": "cpu1", "nodes": 1},
    )
    (use,) = limit_use(table)
    assert (use.partition, use.jobs, use.timed_out) == ("batch", 5, pytest.approx(0.2))
    assert (use.p50, use.p10) == (pytest.approx(0.3), pytest.approx(0.14))
    hosts = {host: name for name, group in load_site("superpod-h100").site.node_groups.items()
             for host in group.hostnames()}  # fmt: skip
    found = failures_by_group(table, hosts)
    assert found["dgx"].failures == 1
    assert found["dgx"].node_s == 2 * (1000 + 1000 + 600)
    assert found[""].node_s == 5000


def entries(errors: list[float]) -> list[Entry]:
    return [Entry(i, f"c{i}", "x", 4, 10.0, 10.0 / 1.1, 11.0, 10.0 * math.exp(e)) for i, e in enumerate(errors)]


def test_a_lasting_change_is_noticed_and_scatter_is_not() -> None:
    chance = np.random.default_rng(5)
    spread = math.log(1.1) / 1.6449
    calm = [entry.error for entry in entries(list(chance.normal(0, spread, 40)))]
    assert np.std(calm) == pytest.approx(1.0, abs=0.3)
    assert all(seen.drift is None for seen in watch(calm))
    slower = [*calm, *(e + 1.5 for e in chance.normal(0, 1, 12))]
    seen = watch(slower)
    assert seen[-1].drift == "slower"
    first = next(i for i, each in enumerate(seen) if each.drift)
    assert 40 <= first < 50
    assert watch([-e for e in slower])[-1].drift == "faster"


@given(st.lists(st.floats(-3, 3), max_size=30))
def test_the_charts_mirror_each_other(errors: list[float]) -> None:
    for up, down in zip(watch(errors), watch([-e for e in errors]), strict=True):
        assert up.average == pytest.approx(-down.average)
        assert (up.slower, up.faster) == (pytest.approx(down.faster), pytest.approx(down.slower))
        assert 0 < up.limit <= 1.0


def test_a_track_is_kept_once_each_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "track.csv"
    some = entries([0.1, -0.2, 0.05])
    assert add_entries(path, some[1:]) == some[1:]
    again = add_entries(path, some)
    assert [entry.campaign for entry in again] == ["c0", "c1", "c2"]
    assert [entry.campaign for entry in read_track(path)] == ["c0", "c1", "c2"]
    path.write_text(path.read_text() + "x,y,z,1,2,3,4,5\n")
    with pytest.raises(InputError, match=r"track\.csv:5"):
        read_track(path)


def finished(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, factor: float) -> Plan:
    """Run a campaign on the mock cluster, and leave a log whose steps take ``factor`` times as long as planned."""
    folder = tmp_path / name
    run(capsys, "plan", "bert-large", "--site", "superpod-h100", "--nodes", "2", "--tokens", "1B", "-o",
        str(tmp_path / f"{name}.json"))  # fmt: skip
    run(capsys, "render", str(tmp_path / f"{name}.json"), "-o", str(folder))
    out, _ = run(capsys, "submit", str(folder), "--backend", "mock", "--format", "json")
    job_id = json.loads(out)["jobs"][0]["job_id"]
    plan = read_plan(folder / "plan.json")
    (job,) = json.loads((folder / "jobs.json").read_text())["jobs"][:1]
    millis = 1000 * factor * plan.estimate.iter_time_s
    line = " iteration {:8d}/     100 | elapsed time per iteration (ms): {:.1f} | learning rate: 1e-4 |\n"
    log = "".join(line.format(step, millis) for step in range(1, 40))
    (folder / f"{job['job_name']}-{job_id}.out").write_text(log)
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "done").write_text("100\n")
    return plan


def test_finished_campaigns_teach_the_next_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "mock", "start", "superpod-h100", "--speed", "0")
    first = finished(tmp_path, capsys, "a", 1.25)
    finished(tmp_path, capsys, "b", 1.27)
    run(capsys, "mock", "stop")
    out, _ = run(capsys, "calibrate", "learn", "--site", "superpod-h100", "--format", "json", "--dry-run")
    assert json.loads(out)["runs"] == 2
    out, _ = run(capsys, "calibrate", "learn", "--site", "superpod-h100", "--format", "json")
    data = json.loads(out)
    assert data["new_runs"] == 2
    assert data["learned"]["better"]
    assert sorted(round(e["actual_s"] / e["predicted_s"], 2) for e in data["track"]) == [1.25, 1.27]
    run(capsys, "plan", "bert-large", "--site", "superpod-h100", "--nodes", "2", "--tokens", "1B", "-o",
        str(tmp_path / "next.json"))  # fmt: skip
    later = read_plan(tmp_path / "next.json")
    assert "from 2 runs" in later.provenance.constants.name
    assert later.estimate.iter_time_s > 1.05 * first.estimate.iter_time_s
    out, _ = run(capsys, "calibrate", "learn", "--site", "superpod-h100")
    assert "predicted against measured" in out
    assert "2 runs (0 new)" in out


def test_drift_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hpcplan.calibrate.evidence import evidence_folder

    add_entries(evidence_folder("superpod-h100") / "track.csv", entries([0.3] * 6))
    _, err = run(capsys, "calibrate", "learn", "--site", "superpod-h100")
    assert "warning: training has drifted: it is slower than predicted" in err


def test_accounting_changes_how_often_plans_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "JobIDRaw|State|Partition|Submit|Start|End|Elapsed|Timelimit|NNodes|NodeList"
    lines = [header]
    for number in range(40):
        state = "NODE_FAIL" if number % 4 == 0 else "COMPLETED"
        lines.append(f"{number + 1}|{state}|batch|2026-10-01T00:00:00|2026-10-01T00:00:00|2026-10-01T10:00:00|10:00:00|"
                     "20:00:00|4|dgx[001-004]")  # fmt: skip
    dump = tmp_path / "sacct.txt"
    dump.write_text("\n".join(lines) + "\n")
    words = ("plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "8", "--format", "json")
    before = json.loads(run(capsys, *words)[0])
    out, _ = run(capsys, "calibrate", "learn", "--site", "superpod-h100", "--sacct", str(dump), "--format", "json")
    failures = json.loads(out)["accounting"]["failures"]["dgx"]
    assert (failures["failures"], failures["mtbf_s"]) == (10, pytest.approx(40 * 4 * 36000 / 10))
    assert json.loads(out)["accounting"]["limits"][0]["p50"] == pytest.approx(0.5)
    after = json.loads(run(capsys, *words)[0])
    steps = "checkpoint_interval_steps"
    assert after["training"][steps] < before["training"][steps]
    assert "a node of dgx fails every" in after["provenance"]["constants"]["name"]
    assert after["provenance"]["site"]["sha256"] != before["provenance"]["site"]["sha256"]


def test_accounting_alone_leaves_predictions_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hpcplan.calibrate.evidence import keep_accounting

    words = ["plan", "gpt3-175b", "--site", "selene", "--nodes", "64", "-o"]
    run(capsys, *words, str(tmp_path / "before.json"))
    keep_accounting("selene", "accounting 2026-11-27: 10 jobs")
    run(capsys, *words, str(tmp_path / "after.json"))
    before, after = (read_plan(tmp_path / f"{name}.json") for name in ("before", "after"))
    assert after.estimate == before.estimate
    assert after.provenance.constants.name.endswith("(evidence: accounting 2026-11-27: 10 jobs)")


def test_a_damaged_file_of_what_was_learned_is_named(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = isolated / ".config" / "hpcplan" / "sites" / "evidence" / "superpod-h100"
    folder.mkdir(parents=True)
    (folder / "learned.json").write_text("{}")
    _, err = run(capsys, "plan", "bert-large", "--site", "superpod-h100", code=2)
    assert "learned.json" in err


def test_learning_from_half_of_the_measured_runs_of_a_site(shared_data: Path) -> None:
    rows = usable_runs(read_rows(shared_data / "measured" / "llm_foundry_mpt.csv").rows)
    mine = [row for row in rows if row.site == "mosaic-h100"]
    found = learn_site(mine[::2])
    assert found.after < found.before * 1.2
