"""Mistakes that newcomers make, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.cli import main
from hpcplan.plan import Plan

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``hpcplan ARGUMENTS`` and returns exit code and stderr."""

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        assert isinstance(left.value.code, int)
        return left.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def plan_file(plans: object, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    plan: Plan = plans.plan()  # type: ignore[attr-defined]
    path.write_text(plan.text())
    return path


@pytest.mark.parametrize("directory", [".", "no-such-directory"])
def test_submitting_what_is_no_campaign_is_said_before_slurm_is_looked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run("submit", directory)
    assert code == 2
    assert "jobs.json" in err


def test_a_fix_without_a_value_is_not_told_to_be_misspelt(run: Run) -> None:
    code, err = run("plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "4", "--fix", "tp")
    assert code == 2
    assert "as in tp=8" in err
    assert "did you mean" not in err


def test_a_site_like_no_other_is_answered_with_where_the_names_are(run: Run) -> None:
    code, err = run("site", "show", "zzz")
    assert code == 2
    assert "hpcplan site list" in err


def test_a_campaign_like_no_other_is_answered_with_where_the_names_are(run: Run) -> None:
    code, err = run("status", "zzz")
    assert code == 2
    assert "hpcplan list" in err


def test_a_plan_that_does_not_hold_together_is_named_with_its_file(run: Run, plan_file: Path, tmp_path: Path) -> None:
    plan = json.loads(plan_file.read_text())
    plan["plan"]["tp"] *= 3
    plan_file.write_text(json.dumps(plan))
    code, err = run("render", str(plan_file), "-o", str(tmp_path / "campaign"))
    assert code == 2
    assert f"{plan_file}: plan.gpus: is" in err
    assert not (tmp_path / "campaign").exists()


def test_somebody_elses_file_is_named_without_pages_of_differences(run: Run, plan_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "plan.json").write_text("mine")
    code, err = run("render", str(plan_file), "-o", str(other))
    assert code == 1
    assert "holds plan.json, which hpcplan render did not write" in err
    assert "more lines" in err
    assert len(err.splitlines()) < 30
    assert [path.name for path in other.iterdir()] == ["plan.json"]


def test_a_stopped_mock_cluster_without_others_says_so(run: Run) -> None:
    assert run("mock", "start", "mixed-lab")[0] == 0
    assert run("mock", "stop")[0] == 0
    code, err = run("mock", "start", "mixed-lab", "--load", "0.5")
    assert code == 1
    assert "was started without load" in err


def test_an_unreachable_slurm_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(SystemExit) as caught:
        main(["report", "--backend", "command"])
    assert caught.value.code == 4
    assert "hpcplan doctor" in capsys.readouterr().err
