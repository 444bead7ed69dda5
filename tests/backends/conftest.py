"""Slurm's commands, made up: one script under five names on PATH, which answers in the format that it is asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """\
import json, os, sys, time
home = os.environ["MADE_UP_SLURM"]
name = os.path.basename(sys.argv[0])
with open(os.path.join(home, "calls.jsonl"), "a") as log:
    log.write(json.dumps({"name": name, "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}) + "\\n")
with open(os.path.join(home, "answers.json")) as file:
    answers = json.load(file)
key = next((key for key in (f"{name} {argument}" for argument in sys.argv[1:]) if key in answers), name)
answer = answers.get(key, {})
time.sleep(answer.get("sleep_s", 0))
options = dict(argument[2:].partition("=")[::2] for argument in sys.argv[1:] if argument.startswith("--"))
for row in answer.get("rows", []):
    if name == "squeue":
        for field in options["Format"].split(","):
            column, _, suffix = field.partition(":0")
            sys.stdout.write(row.get(column, "N/A") + suffix)
    else:
        for column in options["format"].split(","):
            sys.stdout.write(row.get(column, "") + options["delimiter"])
    sys.stdout.write("\\n")
sys.stdout.write(answer.get("stdout", ""))
sys.stderr.write(answer.get("stderr", ""))
sys.exit(answer.get("rc", 0))
"""
NAMES = ("sbatch", "squeue", "sacct", "scancel", "scontrol")


class MadeUpSlurm:
    """What the commands answer, and how they were called."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.programs = home / "bin"
        self.programs.mkdir(parents=True)
        for name in NAMES:
            program = self.programs / name
            program.write_text(f"#!{sys.executable} -IS\n{SCRIPT}")
            program.chmod(0o755)
        self._answers: dict[str, Any] = {}
        self._write()

    def answer(self, command: str, **answer: Any) -> None:
        """Set what ``squeue`` or, by an argument, ``scontrol node`` answers: rows, stdout, stderr, rc, sleep_s."""
        self._answers[command] = answer
        self._write()

    def _write(self) -> None:
        (self.home / "answers.json").write_text(json.dumps(self._answers))

    def remove(self, name: str) -> None:
        """Take a command away."""
        (self.programs / name).unlink()

    def calls(self, name: str | None = None) -> Sequence[dict[str, Any]]:
        """Return the calls so far: name, argv, env, cwd."""
        log = self.home / "calls.jsonl"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [call for call in calls if name in (None, call["name"])]


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpSlurm:
    """Made-up commands in place of Slurm's, and nothing else on PATH."""
    slurm = MadeUpSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(slurm.programs))
    monkeypatch.setenv("MADE_UP_SLURM", os.fspath(slurm.home))
    return slurm
