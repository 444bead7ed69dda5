"""The pyslurm backend keeps the contract of every backend, over a module of pyslurm's recorded shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from hpcplan.slurm.pyslurm import PyslurmBackend
from tests.backends.contract import BackendContract
from tests.backends.pyslurm_over_mock import MadeUpCommands, MadeUpPyslurm
from tests.backends.test_contract_of_mock import MockWorld


class TestPyslurmBackend(BackendContract):
    @pytest.fixture
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MockWorld:
        monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path / "data"))
        world = MockWorld(tmp_path)
        backend = PyslurmBackend(MadeUpPyslurm(world.mock), cast(Any, MadeUpCommands(world.mock)))
        monkeypatch.setattr(backend, "now", world.mock.now)
        world.backend = backend
        return world
