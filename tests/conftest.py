"""What every test gets: a home of its own, and no trace of the user's settings or of a Slurm that is there."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# Time is never what a test is about, and a busy machine is no failure.
# CI draws the same examples each time, so that no change is refused for what it did not touch; 'make test' draws anew.
settings.register_profile("hpcplan", deadline=None, derandomize=bool(os.environ.get("HPCPLAN_SAME_EXAMPLES")))
settings.load_profile("hpcplan")

pytest.register_assert_rewrite("tests.backends.contract")

ROOT = Path(__file__).resolve().parents[1]
_FOREIGN = ("HPCPLAN_", "SLURM", "SBATCH", "SQUEUE", "SACCT", "SINFO", "SCANCEL", "SALLOC", "SRUN")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one flag that rewrites golden files."""
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files from what the code makes now")


@pytest.fixture(scope="session")
def plans() -> ModuleType:
    """Plans written by hand."""
    return importlib.import_module("tests.render.plans")


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """A Slurm in memory that can lose answers, forget jobs and die."""
    return importlib.import_module("tests.campaign.fakes")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real cases beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")  # for the session: matplotlib takes seconds to build its list of fonts


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, _homes: Iterator[Path], _caches: Path) -> Path:
    """Give the test an empty home, and take the user's variables away; returns the home."""
    home = next(_homes)
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)
    for name, folder in {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local" / "share",
        "XDG_STATE_HOME": home / ".local" / "state",
        "XDG_CACHE_HOME": home / ".cache",
        "MPLCONFIGDIR": _caches,
    }.items():
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    return home
