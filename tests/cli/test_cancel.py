"""``hpcplan cancel`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcplan.campaign import submit
from hpcplan.cli import COMMANDS
from hpcplan.cli.cancel import command
from tests.cli.campaigns import Run


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["cancel"][1]
    assert "Example" in run("cancel", "--help")[1]


def test_with_yes_nobody_is_asked(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, out, _ = run("cancel", "llama3-70b", "--yes")
    assert (code, out) == (0, "cancelled 3 jobs: 102, 101, 100\n")
    assert run("status", "campaign")[1].startswith("llama3-70b: cancelled; 3 cancelled")


def test_where_nobody_can_be_asked_yes_must_be_said(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, _, err = run("cancel", "campaign")
    assert code == 2
    assert "say --yes" in err
    assert slurm.cancelled == []


@pytest.mark.parametrize(("answer", "code", "cancelled"), [(True, 0, [102, 101, 100]), (False, 1, [])])
def test_on_a_terminal_it_asks(
    answer: bool, code: int, cancelled: list[int], run: Run, campaign: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click

    submit(campaign, slurm)
    questions: list[str] = []

    def confirm(text: str, **options: Any) -> None:
        questions.append(text)
        if not answer:
            raise click.Abort

    monkeypatch.setattr("click.confirm", confirm)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert run("cancel", "campaign")[0] == code
    assert questions == ["llama3-70b: waiting; 3 pending\nCancel it?"]
    assert slurm.cancelled == cancelled


def test_json_is_one_document_on_stdout(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    slurm.run(100)
    slurm.end(100)
    code, out, _ = run("cancel", "campaign", "--yes", "--format", "json")
    assert code == 0
    assert json.loads(out) == {"directory": str(campaign), "cancelled": [102, 101], "ended": [100]}


def test_what_was_never_submitted_needs_no_cancelling(run: Run, campaign: Path, slurm: Any) -> None:
    code, out, err = run("cancel", "campaign", "--yes")
    assert (code, out) == (0, "")
    assert "nothing was submitted" in err


def test_no_answer_is_exit_code_four(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    slurm.unreachable = True
    assert run("cancel", "campaign", "--yes")[0] == 4
