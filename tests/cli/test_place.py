"""hpcplan place: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from hpcplan.cli import main
from hpcplan.plan import read_plan
from hpcplan.render import render_plan

SITE = """\
name: two-racks
node_groups:
  gpu:
    nodes: n[0-15]
    cpus: 16
    memory: 512 GiB
    accelerators: {type: H100-SXM5-80GB, count: 8}
    intra_node: {bandwidth: 450 GB/s}
    nics: {count: 8, bandwidth: 400 Gb/s}
partitions:
  batch: {nodes: gpu, default: true, max_time: 1-00:00:00}
fabric:
  levels:
    - {name: rack, size: 8, uplink: 50 GB/s}
    - {name: top, size: 2}
slurm: {version: "23.11", topology: true}
"""


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


@pytest.fixture
def plan_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A plan for 8 of 16 nodes under two racks with narrow up-links."""
    (tmp_path / "site.yaml").write_text(SITE)
    path = tmp_path / "plan.json"
    run(
        capsys,
        "plan",
        "llama3-8b",
        "--site",
        str(tmp_path / "site.yaml"),
        "--nodes",
        "8",
        "--tokens",
        "1B",
        "-o",
        str(path),
    )
    return path


def test_the_whole_machine_is_the_default(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "place", str(plan_file))
    for words in (
        "predicted step",
        "Slurm's choice",
        "random nodes",
        "Busiest links",
        "--switches=1",
        "in order itself",
    ):
        assert words in out


def test_json_has_the_nodes_in_order_and_what_others_come_to(
    plan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(capsys, "place", str(plan_file), "--format", "json", "--busy", "n[0-3]", "--drained", "n9")
    data: dict[str, Any] = json.loads(out)
    assert err == ""
    assert not {"n0", "n1", "n2", "n3", "n9"} & set(data["hosts"])
    assert len(data["hosts"]) == 8
    prediction = data["prediction"]
    assert (
        prediction["bound_step_s"] <= prediction["ideal_step_s"] <= prediction["step_s"] <= prediction["slurm_step_s"]
    )
    assert prediction["step_s"] <= prediction["reordered_step_s"]
    assert data["orders"][0].keys() == {"order", "step_s"}
    assert prediction["busiest"][0].keys() == {"source", "target", "bytes", "busy_s", "mostly", "alike"}


def test_the_load_of_every_link_is_written(plan_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    links = tmp_path / "links.csv"
    run(capsys, "place", str(plan_file), "--links", str(links))
    rows = list(csv.DictReader(links.open()))
    assert rows[0].keys() == {"source", "target", "bytes", "busy_s", "mostly"}
    busy = [float(row["busy_s"]) for row in rows]
    assert busy == sorted(busy, reverse=True)
    assert len({(row["source"], row["target"]) for row in rows}) == len(rows) >= 16


def test_given_nodes_reach_the_script(
    plan_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n[0-2,5]\nn[8-15]  # idle\n"))
    placed = tmp_path / "placed.json"
    _, err = run(capsys, "place", str(plan_file), "--nodes-from", "-", "-o", str(placed))
    assert f"wrote {placed}" in err
    plan = read_plan(placed)
    assert set(plan.placement.node_order) == {f"n{number}" for number in range(8, 16)}
    assert "#SBATCH --nodelist=n[8-15]" in render_plan(plan)["train-01.sbatch"]
    assert read_plan(plan_file).placement.node_order == ()


def test_leaving_out_is_another_way_to_ask(plan_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    placed = tmp_path / "placed.json"
    run(capsys, "place", str(plan_file), "--nodes", "n[0-2,8-15]", "--ask", "exclude", "-o", str(placed))
    script = render_plan(read_plan(placed))["train-01.sbatch"]
    assert "#SBATCH --exclude=n[0-7]" in script
    assert "nodelist=n" not in script


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--nodes", "n[0-3]"), 3, "8 nodes are needed, and 4 are free"),
        (("--nodes", "n[0-9],x1"), 2, "has no node 'x1'"),
        (("--nodes", "n[0-"), 2, "--nodes: hostlist"),
        (("--nodes", "n0", "--nodes-from", "f"), 2, "not both"),
        (("--nodes-from", "nowhere"), 2, "nowhere: no such file"),
        (("--site", "nowhere"), 2, "nowhere"),
        (("--site", "superpod-h100"), 2, "no node group 'gpu'"),
    ],
)
def test_what_is_wrong_is_said(
    plan_file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    out, err = run(capsys, "place", str(plan_file), *words, code=code)
    assert message in err
    assert out == ""


def test_a_file_that_names_no_nodes_is_refused(
    plan_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "free").write_text("# nothing\n\n")
    _, err = run(capsys, "place", str(plan_file), "--nodes-from", str(tmp_path / "free"), code=2)
    assert "names no nodes" in err


def test_a_plan_without_traffic_is_refused_with_what_to_do(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_plan(plan_file)
    bare = plan.placement.model_copy(update={"traffic": None})
    plan_file.write_text(plan.model_copy(update={"placement": bare}).text())
    _, err = run(capsys, "place", str(plan_file), code=2)
    assert "placement.traffic" in err
    assert "hpcplan plan" in err


def test_a_job_over_unequal_pools_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "pooled.json")
    run(capsys, "plan", "llama3-8b", "--site", "mixed-lab", "--tokens", "1B", "--global-batch", "128",
        "--pool", "h100", "--pool", "a100", "-o", path)  # fmt: skip
    _, err = run(capsys, "place", path, code=2)
    assert "placement.pools" in err


def test_a_site_that_changed_since_is_said(plan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = plan_file.parent / "site.yaml"
    site.write_text(SITE.replace("50 GB/s", "60 GB/s"))
    _, err = run(capsys, "place", str(plan_file))
    assert "not as it was, when the plan was made" in err
    site.unlink()
    _, err = run(capsys, "place", str(plan_file), code=2)
    assert "--site two-racks" in err
