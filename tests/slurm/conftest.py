"""The real Slurm cluster for the tests in this folder, which are all marked ``slurm``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcplan.slurm.command import CommandBackend
from tests.slurm.cluster import SlurmCluster, exclusive, why_not
from tests.slurm.twin import both, mock_environment

__all__ = ["both", "mock_environment"]  # fixtures

HERE = Path(__file__).parent
REQUIRED = os.environ.get("HPCPLAN_REQUIRE_SLURM") == "1"
REUSE = os.environ.get("HPCPLAN_SLURM_REUSE") == "1"
KEEP_LOGS = os.environ.get("HPCPLAN_SLURM_LOGS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder; with xdist's ``--dist loadgroup`` one worker runs it all."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A running cluster of 8 nodes with 8 GPUs each, accounting included.

    Skips where it cannot run; with ``HPCPLAN_REQUIRE_SLURM=1`` that is a failure. ``HPCPLAN_SLURM_REUSE=1`` takes the
    one that ``python -m tests.slurm.cluster up`` has started, and leaves it running.
    """
    reason = why_not()
    if reason is not None:
        if REQUIRED:
            pytest.fail(f"HPCPLAN_REQUIRE_SLURM is set, but the real Slurm cannot be started: {reason}")
        pytest.skip(reason)
    with exclusive():
        cluster = SlurmCluster()
        if REUSE and cluster.is_ready():
            yield cluster
            return
        try:
            cluster.start()
            yield cluster
        finally:
            if KEEP_LOGS:
                shutil.copytree(cluster.directory / "log", KEEP_LOGS, dirs_exist_ok=True)
            cluster.stop()


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """The cluster for one test: this process's environment points at it, and its queue is empty before and after.
    Nodes that are drained in the end are given back.
    """
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm_cluster.env[name])
    yield slurm_cluster
    slurm_cluster.drain_queue()
    slurm_cluster.resume_nodes()


@pytest.fixture
def backend(slurm: SlurmCluster) -> CommandBackend:
    """The command backend on the cluster."""
    return CommandBackend()
