"""Which Slurm ``--backend`` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.cli import backends
from hpcplan.cli.backends import open_backend
from hpcplan.errors import SlurmUnreachableError
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.simulate.clusters import write_site


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Slurm; returns the folder that is its PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(backends, "_CONFIGURATION", ())
    return folder


def install(folder: Path, answer: str = "exit 1") -> None:
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"):
        (folder / name).write_text(f"#!/bin/sh\n{answer}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def mock(tmp_path: Path) -> None:
    start_cluster(load_site(str(write_site(tmp_path))), StartOptions(speed=0))


def test_auto_without_slurm_and_without_a_mock_says_where_to_go(bare: Path) -> None:
    with pytest.raises(SlurmUnreachableError, match="no Slurm is installed here") as caught:
        open_backend()
    assert "hpcplan mock start" in str(caught.value.hint)


def test_auto_takes_a_running_mock_where_there_is_no_slurm_and_says_so(
    bare: Path, mock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_backend().name == "mock"
    captured = capsys.readouterr()
    assert "using the mock cluster" in captured.err
    assert captured.out == ""


def test_auto_takes_a_running_mock_where_slurms_commands_know_no_cluster(bare: Path, mock: None) -> None:
    install(bare)
    assert open_backend().name == "mock"


def test_auto_prefers_the_real_slurm_where_it_is_set_up(
    bare: Path, mock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(bare)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    assert open_backend().name != "mock"


def test_auto_explains_when_slurms_commands_find_nothing(bare: Path) -> None:
    install(bare, "echo 'fatal: Could not establish a configuration source' >&2; exit 1")
    with pytest.raises(SlurmUnreachableError, match="find no cluster, and no mock cluster runs"):
        open_backend()


def test_what_is_named_is_what_is_opened(bare: Path, mock: None) -> None:
    install(bare)
    assert open_backend("mock").name == "mock"
    assert open_backend("command").name == "command"
