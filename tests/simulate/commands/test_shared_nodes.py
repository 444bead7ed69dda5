"""The commands on a cluster whose jobs share nodes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.machine import Machine, Sharing
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.store import ClusterStore, Settings
from tests.simulate.clusters import machine


def shared_machine() -> Machine:
    """Return four nodes of 16 CPUs and 8 GPUs, of which jobs get what they ask for."""
    whole = machine(4)
    partitions = {name: replace(part, exclusive=False) for name, part in whole.partitions.items()}
    return replace(whole, partitions=partitions, sharing=Sharing())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Run a line of shell in a cluster of four nodes of 16 CPUs and 8 GPUs that jobs share."""
    folder = tmp_path_factory.mktemp("shared")
    nodes = shared_machine()
    store = ClusterStore(folder / "cluster")
    described = Settings("s", "s", "", "22.05.8", policy="slurm")
    store.create(described, nodes, "{}", speed=1.0, slurm=SlurmCluster(nodes, SlurmSettings()))
    with enter(store, EnterOptions(kill_wait_s=1.0)) as entered:

        def run(line: str) -> str:
            return subprocess.run(
                ["bash", "-c", line], env=entered.environment(os.environ), cwd=folder, capture_output=True, text=True,
                check=True, timeout=60,
            ).stdout  # fmt: skip

        yield run


def test_jobs_get_the_cpus_that_they_asked_for(out: Callable[[str], str]) -> None:
    job = out("sbatch --parsable -n 3 -c 2 --gres=gpu:2 -o out --wrap 'env; srun -l true; sleep 60'").strip()
    out("until grep -q SLURM_CPUS_ON_NODE out; do sleep 0.05; done")
    assert "SLURM_CPUS_ON_NODE=6\n" in out("cat out")
    assert "SLURM_JOB_CPUS_PER_NODE=6\n" in out("cat out")
    other = out("sbatch --parsable -n 4 --wrap 'sleep 60'").strip()
    assert out(f"squeue -h -S i -j {job},{other} -o '%C %N'") == "6 n1\n4 n1\n"
    assert out("sinfo -h -n n1,n2 -p batch -o '%T %C %D'").splitlines() == ["mixed 10/6/0/16 1", "idle 0/16/0/16 1"]
    shown = out("scontrol show node n1")
    assert "CPUAlloc=10" in shown
    assert "State=MIXED" in shown
    assert "AllocTRES=cpu=10,gres/gpu=2" in shown
    assert out(f"sacct -X -n -P -j {job} -o AllocCPUS,AllocTRES").strip() == "6|billing=6,cpu=6,gres/gpu=2,node=1"
    out("scancel --me")
