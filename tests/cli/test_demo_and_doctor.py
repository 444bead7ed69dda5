"""``hpcplan demo`` and ``hpcplan doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcplan.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def test_the_demo_closes_the_loop(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = run(capsys, "demo", "--format", "json")
    data = json.loads(out)
    assert [step["title"] for step in data["steps"]] == [
        "Plan",
        "Render",
        "A mock cluster",
        "Submit",
        "Track",
        "Report",
    ]
    folder = tmp_path / "hpcplan-demo"
    for name in ("plan.json", "report.html", "report.md", "report.json", "loop.svg", "topology.svg"):
        assert (folder / name).stat().st_size > 1000
    jobs = len(json.loads((folder / "plan.json").read_text())["segments"])
    assert data["steps"][4]["lines"][-1].count("COMPLETED") == jobs > 1
    report = json.loads((folder / "report.json").read_text())
    assert report["jobs"]["total"] > 100, "other users are there too"
    status, _ = run(capsys, "status", str(folder / "campaign"), "--format", "json")
    assert json.loads(status)["state"] == "done"


def test_a_second_demo_takes_the_next_folder_and_a_full_one_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcplan.demo.run import demo_folder

    monkeypatch.chdir(tmp_path)
    (tmp_path / "hpcplan-demo").mkdir()
    assert demo_folder(tmp_path).name == "hpcplan-demo-2"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    _, err = run(capsys, "demo", "-d", str(tmp_path / "mine"), code=1)
    assert "is not empty" in err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_the_doctor_looks_at_everything_needed(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "doctor", "--format", "json")
    findings = {finding["what"]: finding for finding in json.loads(out)}
    assert {"hpcplan", "Python", "numpy", "sites", "templates", "backend command", "backend mock"} <= set(findings)
    assert findings["numpy"]["verdict"] == "ok"
    assert all(finding["hint"] for finding in findings.values() if finding["verdict"] != "ok")
