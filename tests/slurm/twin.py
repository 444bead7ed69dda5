"""A real Slurm and a mock of it side by side, for tests that type the same lines on both."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.lifecycle import StartOptions, start_cluster
from hpcplan.site.load import load_site
from tests.slurm.cluster import SlurmCluster

__all__ = ["STATED", "Both", "both", "mock_environment", "wait_until"]

STATED = (22, 5)  # the release that all words and columns were held against

GROUP = """
    cpus: 16
    memory: 2000 MiB
    accelerators: {type: H100-SXM5-80GB, count: 8}
    intra_node: {kind: nvswitch, bandwidth: 450 GB/s}
    nics: {count: 1, bandwidth: 100 Gb/s}
    features: [h100, sim]
"""
SITE = f"""\
name: twin
node_groups:
  low:
    nodes: n[0-1]{GROUP}
  high:
    nodes: n[2-7]{GROUP}
partitions:
  batch: {{nodes: [low, high], default: true, max_time: 1-00:00:00, default_time: 01:00:00}}
  debug: {{nodes: low, max_time: 10 min, max_nodes: 2}}
  long: {{nodes: [low, high]}}
fabric:
  kind: tree
  switches:
    - {{name: leaf0, nodes: "n[0-3]", uplink: 100 Gb/s}}
    - {{name: leaf1, nodes: "n[4-7]", uplink: 100 Gb/s}}
    - {{name: spine, switches: [leaf0, leaf1]}}
slurm: {{version: "22.05.8", cluster: hpcplan}}
"""


@dataclass
class Both:
    """A real Slurm and a mock of the same release, with a folder for each; ``run`` types a line on one of them."""

    environments: dict[str, dict[str, str]]
    folders: dict[str, Path]
    release: tuple[int, int] = STATED

    def run(self, which: str, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line], env=self.environments[which], cwd=self.folders[which], capture_output=True, text=True,
            timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def each(self, line: str) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        return self.run("real", line), self.run("mock", line)

    def read(self, name: str) -> tuple[str, str]:
        return (self.folders["real"] / name).read_text(), (self.folders["mock"] / name).read_text()


@pytest.fixture(scope="module")
def mock_environment(slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Commands of a mock cluster that pretends to be of the real one's release."""
    folder = tmp_path_factory.mktemp("twin")
    year, month = slurm_cluster.release
    newer = SITE.replace("22.05.8", f"{year}.{month:02d}.7")
    (folder / "twin.yaml").write_text(SITE if (year, month) == STATED else newer)
    store = start_cluster(load_site(str(folder / "twin.yaml")), StartOptions(speed=1.0), directory=folder / "cluster")
    with enter(store, EnterOptions(purge=True, kill_wait_s=2.0, requeue_delay_s=11)) as entered:
        yield entered.environment(os.environ)


@pytest.fixture
def both(slurm: SlurmCluster, mock_environment: dict[str, str], tmp_path: Path) -> Iterator[Both]:
    folders = {"real": tmp_path / "real", "mock": tmp_path / "mock"}
    for path in folders.values():
        path.mkdir()
    made = Both({"real": dict(slurm.env), "mock": mock_environment}, folders, slurm.release)
    yield made
    made.run("mock", "scancel --me")
    wait_until(lambda: made.run("mock", "squeue -h").stdout == "")


def wait_until(found: Callable[[], object], patience_s: float = 40) -> None:
    deadline = time.monotonic() + patience_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.2)
