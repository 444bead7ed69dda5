"""What the tests of submit, status, cancel and list share, as fixtures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cli.campaigns import Run, render_campaign, runner, use_backend


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``hpcplan`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def slurm(fakes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Slurm in memory behind the command line."""
    backend = fakes.FakeSlurm()
    use_backend(monkeypatch, backend)
    return backend


@pytest.fixture
def campaign(plans: ModuleType, tmp_path: Path) -> Path:
    """A rendered campaign of three segments."""
    return render_campaign(plans, tmp_path / "campaign")
