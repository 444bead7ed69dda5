"""A real dask-jobqueue cluster on the mock cluster: its workers are Slurm jobs that really run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulate.commands.conftest import MockSlurm

cloudpickle = pytest.importorskip("cloudpickle")
dask_jobqueue = pytest.importorskip("dask_jobqueue")
distributed = pytest.importorskip("distributed")


@pytest.fixture
def dask_cluster(slurm: MockSlurm) -> Iterator[Any]:
    """A cluster of dask workers of one thread, without any yet."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import this module
    with dask_jobqueue.SLURMCluster(
        cores=1, memory="1GiB", processes=1, queue="batch", walltime="00:10:00", account="test", job_name="worker",
        interface="lo", log_directory=str(slurm.folder / "logs"), local_directory=str(slurm.folder),
        scheduler_options={"dashboard_address": None}, death_timeout=60,
    ) as cluster:  # fmt: skip
        yield cluster
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def running(slurm: MockSlurm) -> list[str]:
    return slurm.out("squeue", "-h", "-t", "R", "-n", "worker", "-o", "%i").split()


def test_it_scales_computes_and_closes(slurm: MockSlurm, dask_cluster: Any) -> None:
    dask_cluster.scale(jobs=2)
    with distributed.Client(dask_cluster) as client:
        client.wait_for_workers(2, timeout=60)
        assert sorted(client.run(lambda: os.environ["SLURM_JOB_ID"]).values()) == sorted(running(slurm))
        assert client.submit(sum, client.map(lambda number: number * number, range(10))).result(timeout=30) == 285
        dask_cluster.scale(jobs=1)
        slurm.until(lambda: "one" if len(running(slurm)) == 1 else "")
        assert client.submit(lambda: 6 * 7).result(timeout=30) == 42
    dask_cluster.close()
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-n", "worker") else "none is left")


def test_its_script_says_what_was_asked_for(slurm: MockSlurm, dask_cluster: Any) -> None:
    dask_cluster.scale(jobs=1)
    slurm.until(lambda: running(slurm)[0] if running(slurm) else "")
    job = slurm.out("scontrol", "show", "job", running(slurm)[0])
    assert "JobName=worker" in job
    assert "Partition=batch" in job
    assert "Account=test" in job
    assert "TimeLimit=00:10:00" in job
