"""``hpcplan list`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import submit
from hpcplan.cli import COMMANDS
from hpcplan.cli.list import command
from hpcplan.slurm.records import JobState
from tests.cli.campaigns import Run, render_campaign


@pytest.fixture
def two(plans: ModuleType, tmp_path: Path, slurm: Any) -> list[Path]:
    directories = [render_campaign(plans, tmp_path / name, name=name) for name in ("first", "second")]
    for directory in directories:
        submit(directory, slurm)
        slurm.clock += 60
    slurm.calls.clear()
    return directories


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["list"][1]
    assert "Example" in run("list", "--help")[1]


def test_without_campaigns_it_says_how_to_begin(run: Run, slurm: Any) -> None:
    code, out, err = run("list")
    assert (code, out) == (0, "")
    assert "hpcplan plan" in err
    assert json.loads(run("list", "--format", "json")[1]) == []


def test_all_campaigns_are_listed_with_one_question(run: Run, two: list[Path], slurm: Any) -> None:
    slurm.run(103)
    slurm.calls.clear()
    code, out, _ = run("list", "--format", "json")
    assert code == 0
    answer = json.loads(out)
    assert [(entry["campaign"], entry["state"], entry["jobs"]) for entry in answer] == [
        ("second", "running", {"submitted": 3, "total": 3}),
        ("first", "waiting", {"submitted": 3, "total": 3}),
    ]
    assert [entry["directory"] for entry in answer] == [str(two[1]), str(two[0])]
    assert slurm.calls == ["jobs"]


def test_the_table_shows_them_too(run: Run, two: list[Path]) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert out.index("second") < out.index("first")
    assert "3 of 3" in out


def test_no_answer_is_unknown_with_a_note_not_an_error(run: Run, two: list[Path], slurm: Any) -> None:
    slurm.unreachable = True
    code, out, _ = run("list", "--format", "json")
    assert code == 0
    assert {(entry["state"], entry["note"]) for entry in json.loads(out)} == {
        ("unknown", "the controller does not answer")
    }


def test_what_has_ended_is_known_without_asking(run: Run, two: list[Path], slurm: Any) -> None:
    for job_id in (100, 101, 102):
        slurm.run(job_id)
        slurm.end(job_id, JobState.COMPLETED)
    run("status", "first")
    slurm.unreachable = True
    states = {entry["campaign"]: entry["state"] for entry in json.loads(run("list", "--format", "json")[1])}
    assert states == {"first": "done", "second": "unknown"}


def test_a_directory_that_is_gone_is_said(run: Run, two: list[Path]) -> None:
    (two[0] / "jobs.json").unlink()
    answer = {entry["campaign"]: entry for entry in json.loads(run("list", "--format", "json")[1])}
    assert (answer["first"]["state"], answer["first"]["note"]) == ("unknown", "its directory is gone")
    assert answer["second"]["state"] == "waiting"
