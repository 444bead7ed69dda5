"""The mock cluster keeps the contract of every backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.simulate.backend import MockBackend
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.backends.contract import BackendContract, World
from tests.simulate.clusters import write_site


class MockWorld(World):
    """A mock cluster whose clock a test moves; its jobs are pretended."""

    runs_scripts = False

    def __init__(self, folder: Path) -> None:
        self.store = start_cluster(load_site(write_site(folder)), StartOptions(speed=0.0))
        self.backend = self.mock = MockBackend(self.store)
        self.cluster, self.folder = "tinycluster", folder
        partition = next(part for part in self.backend.partitions() if part.default)
        self.partition, self.nodes = partition.name, partition.total_nodes or 0

    def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(300):
            if condition():
                return
            self.mock.advance(1)
        pytest.fail(f"waited in vain until {what}")

    def cut(self) -> None:
        self.store.stop()


class TestMockBackend(BackendContract):
    @pytest.fixture
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MockWorld:
        monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path / "data"))
        return MockWorld(tmp_path)
