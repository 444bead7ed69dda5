"""sprio on a cluster with priority/multifactor, and on one without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.store import ClusterStore, Settings
from tests.simulate.clusters import machine
from tests.simulate.commands.conftest import MockSlurm


def test_without_multifactor_there_is_nothing_to_show(slurm: MockSlurm) -> None:
    answer = slurm.run("sprio")
    assert answer.returncode == 1
    assert answer.stderr.startswith("You are not running a supported priority plugin\n(priority/basic).\n")


@pytest.fixture
def multifactor(tmp_path: Path) -> ClusterStore:
    """A cluster whose priorities are size and partition."""
    settings = SlurmSettings(multifactor=True, priority_weight_job_size=1000, priority_weight_partition=100)
    nodes = machine(4)
    store = ClusterStore(tmp_path / "cluster")
    described = Settings("m", "m", "", "22.05.8", policy="slurm")
    store.create(described, nodes, "{}", speed=0, slurm=SlurmCluster(nodes, settings))
    return store


def test_the_parts_of_a_priority_add_up(multifactor: ClusterStore, tmp_path: Path) -> None:
    with enter(multifactor, EnterOptions(pretend=True)) as entered:

        def out(line: str) -> str:
            return subprocess.run(
                ["bash", "-c", line], env=entered.environment(os.environ), cwd=tmp_path, capture_output=True, text=True,
                check=True, timeout=60,
            ).stdout  # fmt: skip

        out(
            "sbatch -N4 --exclusive --wrap true; sbatch -N4 --exclusive --wrap true; sbatch -N2 --exclusive --wrap true"
        )
        header, *rows = (line.split() for line in out("sprio").splitlines())
        assert header == ["JOBID", "PARTITION", "PRIORITY", "SITE", "JOBSIZE", "PARTITION"]
        assert [row[0] for row in rows] == ["2", "3"]
        for row in rows:
            assert int(row[2]) == int(row[4]) + int(row[5])
        assert int(rows[0][4]) > int(rows[1][4])
        assert out("sprio -h -o '%i %Y' -j 3").split() == ["3", rows[1][2]]
        assert out("sprio -w -h").split() == ["Weights", "1", "1000", "100"]
