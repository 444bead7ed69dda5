"""What the tests of submit, status, cancel and list share: a rendered campaign and a Slurm in memory behind the CLI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.cli import main
from hpcplan.render import render_plan, write_campaign

Run = Callable[..., tuple[int, str, str]]

__all__ = ["Run", "render_campaign", "runner", "use_backend"]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs ``hpcplan ARGUMENTS`` and returns exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        assert "Traceback" not in captured.err
        return left.value.code, captured.out, captured.err

    return run


def render_campaign(plans: ModuleType, directory: Path, **changes: Any) -> Path:
    """Write a campaign of three segments."""
    write_campaign(render_plan(plans.plan(job=plans.job(checkpoint_dir="checkpoints"), **changes)), directory)
    return directory


def use_backend(monkeypatch: pytest.MonkeyPatch, backend: Any) -> list[str]:
    """Let the commands reach ``backend`` whatever they ask for; returns the names they ask for, as they do."""
    asked: list[str] = []

    def open_backend(name: str = "auto") -> Any:
        asked.append(name)
        return backend

    for module in ("backends", "submit", "status", "track"):
        monkeypatch.setattr(f"hpcplan.cli.{module}.open_backend", open_backend)
    return asked
