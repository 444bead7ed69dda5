"""``hpcplan submit`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.cli import COMMANDS
from hpcplan.cli.submit import command
from tests.cli.campaigns import Run, render_campaign, runner, use_backend


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hpcplan.cli.submit.settle_s", lambda backend: 0.0)
    return runner(capsys)


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


@pytest.fixture
def asked(slurm: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return use_backend(monkeypatch, slurm)


@pytest.fixture
def campaign(plans: ModuleType, tmp_path: Path) -> Path:
    return render_campaign(plans, tmp_path / "campaign")


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["submit"][1]
    assert "Example" in run("submit", "--help")[1]


def test_jobs_are_submitted_and_shown(run: Run, campaign: Path, slurm: Any, asked: list[str]) -> None:
    code, out, err = run("submit", "campaign")
    assert code == 0
    assert [line.split() for line in out.splitlines() if line.strip().startswith("train-")] == [
        ["train-01", "100", "submitted"],
        ["train-02", "101", "submitted", "train-01"],
        ["train-03", "102", "submitted", "train-02"],
    ]
    assert "next: hpcplan status campaign --watch" in err
    assert asked == ["auto"]


def test_json_is_one_document_on_stdout(run: Run, campaign: Path, slurm: Any, asked: list[str]) -> None:
    code, out, _ = run("submit", "campaign", "--format", "json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["campaign"], answer["directory"], answer["backend"]) == ("llama3-70b", str(campaign), "fake")
    assert [(job["stage"], job["segment"], job["job_id"], job["action"]) for job in answer["jobs"]] == [
        ("train", 1, 100, "submitted"), ("train", 2, 101, "submitted"), ("train", 3, 102, "submitted"),
    ]  # fmt: skip


def test_a_dry_run_prints_the_sbatch_lines_and_touches_nothing(
    run: Run, campaign: Path, slurm: Any, asked: list[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in campaign.rglob("*")}
    code, out, err = run("submit", "campaign", "--dry-run")
    assert code == 0
    lines = out.splitlines()
    token = "hpcplan:NEW:train:1"  # to Slurm, and to the script, which signs with it what it leaves word of
    assert lines[0] == f"sbatch --parsable --chdir={campaign} --comment={token} {campaign}/train-01.sbatch {token}"
    assert len(lines) == 3
    assert all(line.startswith("sbatch ") for line in lines)
    assert "nothing was submitted" in err
    assert (slurm.calls, asked) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in campaign.rglob("*")} == before


def test_a_dry_run_after_an_interruption_shows_what_is_left(
    run: Run, campaign: Path, slurm: Any, asked: list[str]
) -> None:
    slurm.refuses = None
    slurm.before = lambda call: setattr(slurm, "refuses", "no more" if len(slurm.calls) == 3 else None)
    assert run("submit", "campaign")[0] == 1
    code, out, err = run("submit", "campaign", "--dry-run")
    assert code == 0
    assert "train-01: submitted before as job 100" in err
    assert "train-02: was asked for before; would be looked for first" in err
    assert len(out.splitlines()) == 2


def test_a_refusal_says_slurms_words_and_how_to_go_on(run: Run, campaign: Path, slurm: Any, asked: list[str]) -> None:
    slurm.refuses = "Batch job submission failed: Invalid account"
    code, out, err = run("submit", "campaign")
    assert (code, out) == (1, "")
    assert "train-01.sbatch: Batch job submission failed: Invalid account" in err
    assert "0 of 3 jobs are submitted; run hpcplan submit again to go on" in err


def test_no_answer_is_exit_code_four(run: Run, campaign: Path, slurm: Any, asked: list[str]) -> None:
    slurm.unreachable = True
    code, _, err = run("submit", "campaign")
    assert code == 4
    assert "the controller does not answer" in err


def test_an_interrupted_submission_goes_on_with_the_backend_it_began_with(
    run: Run, campaign: Path, fakes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mock(fakes.FakeSlurm):  # type: ignore[misc, name-defined]
        @property
        def name(self) -> str:
            return "mock"

    asked = use_backend(monkeypatch, Mock())
    run("submit", "campaign")
    run("submit", "campaign")
    assert asked == ["auto", "mock"]
    use_backend(monkeypatch, fakes.FakeSlurm())
    code, _, err = run("submit", "campaign", "--backend", "command")
    assert code == 1
    assert "was submitted with the mock backend, not with fake" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "Missing argument 'DIR'"),
        (["submit", "none"], "jobs.json: no such file"),
        (["submit", "."], "jobs.json: no such file"),
        (["submit", "campaign", "--backend", "pbs"], "'pbs' is not one of"),
    ],
)
def test_wrong_usage_is_exit_code_two(
    arguments: list[str], message: str, run: Run, campaign: Path, asked: list[str]
) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err


def test_long_chains_are_shown_in_short(
    run: Run, plans: ModuleType, tmp_path: Path, slurm: Any, asked: list[str]
) -> None:
    render_campaign(plans, tmp_path / "long", segments=plans.segments(*[50] * 50))
    code, out, _ = run("submit", "long")
    assert code == 0
    assert "… 42 more" in out
    assert "train-50" in out
    assert len(slurm.records) == 50
