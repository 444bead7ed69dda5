"""Sweeps on Dask: on a scheduler that is there, and on workers that are Slurm jobs of the mock cluster."""

from __future__ import annotations

import pytest

from hpcplan.errors import HpcplanError
from hpcplan.simulate.sweep import Case, run_cases, spreads
from tests.simulate.commands.conftest import MockSlurm

distributed = pytest.importorskip("distributed")
CASES = [Case("lublin", 50, policy, "submit", 1, 0.8, 32, None) for policy in ("fcfs", "easy")]


def test_a_scheduler_gives_the_same_figures_as_this_machine() -> None:
    here = list(run_cases(CASES, workers=1))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as cluster:
        there = list(run_cases(CASES, dask=cluster.scheduler_address))
    assert spreads(there) == spreads(here)


def test_workers_are_jobs_of_slurm(slurm: MockSlurm) -> None:
    pytest.importorskip("dask_jobqueue")
    import dask

    with dask.config.set({"jobqueue.slurm.interface": "lo", "jobqueue.slurm.walltime": "00:10:00"}):
        there = list(run_cases(CASES, dask="slurm:1"))
    assert spreads(there) == spreads(list(run_cases(CASES, workers=1)))
    names = slurm.out("sacct", "-X", "-n", "-P", "-o", "JobName").split()
    assert names.count("hpcplan-sweep") == 1
    slurm.until(lambda: "" if slurm.out("squeue", "-h", "-n", "hpcplan-sweep") else "none is left")


def test_nobody_at_the_address_is_said() -> None:
    with pytest.raises(HpcplanError, match="no Dask scheduler answers"):
        list(run_cases(CASES, dask="nonsense://nowhere"))
