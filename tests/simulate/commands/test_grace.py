"""Preemption of jobs that really run, with GraceTime, as tried on Slurm 22.05."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcplan.simulate.account_policy import AccountPolicy, Limits, QosPolicy
from hpcplan.simulate.commands.attach import EnterOptions, enter
from hpcplan.simulate.slurm_cluster import SlurmCluster
from hpcplan.simulate.slurm_settings import SlurmSettings
from hpcplan.simulate.store import ClusterStore, Settings
from tests.simulate.clusters import machine
from tests.simulate.commands.conftest import MockSlurm

TASK = """'trap "echo task told" TERM; until [ -e go ]; do sleep 0.05; done; echo saved'"""
SCRIPT = f"""#!/bin/bash
trap 'echo script told' TERM
srun -n1 bash -c {TASK}
sleep 60 &
wait
"""


@pytest.fixture
def preempting(tmp_path: Path) -> Iterator[MockSlurm]:
    """Two nodes in a partition with GraceTime, and in one of a higher tier."""
    nodes = machine(2)
    low = replace(nodes.partitions["batch"], name="low", grace_time_s=3)
    high = replace(low, name="high", default=False, priority_tier=9, grace_time_s=0)
    nodes = replace(nodes, partitions={"low": low, "high": high})
    settings = SlurmSettings(preempt_type="partition_prio", preempt_mode="cancel")
    limits = Limits(user_tres={"gres/gpu": 8}, job_wall_s=3600)
    urgent = QosPolicy("urgent", priority=9, limits=limits, preempts=("low",), grace_time_s=60)
    store = ClusterStore(tmp_path / "cluster")
    described = Settings("g", "g", "", "22.05.8", policy="slurm")
    cluster = SlurmCluster(nodes, settings, policy=AccountPolicy({"urgent": urgent}))
    store.create(described, nodes, "{}", speed=1, slurm=cluster)
    folder = tmp_path / "here"
    folder.mkdir()
    with enter(store, EnterOptions(purge=True, kill_wait_s=1.0)) as entered:
        yield MockSlurm(entered, folder)


def test_tasks_are_told_at_once_and_the_script_when_the_grace_is_over(preempting: MockSlurm) -> None:
    job = preempting.submit("-N2", "-t", "9", "-o", "out", script=SCRIPT)
    preempting.until(lambda: preempting.out("squeue", "-h", "-s").partition(f"{job}.0")[1])
    urgent = preempting.submit("-p", "high", "-N1", "-t", "1", "true")
    preempting.until(lambda: preempting.read("out").partition("task told")[1])
    assert f"*** STEP {job}.0 ON n1 CANCELLED AT " in preempting.read("out")
    assert "script told" not in preempting.read("out")
    assert preempting.out("squeue", "-h", "-o", "%t", "-j", job) == "R"
    (preempting.folder / "go").touch()
    assert preempting.wait_for(job, "PREEMPTED") == "PREEMPTED"
    preempting.wait_for(urgent, "COMPLETED")
    said = preempting.read("out")
    assert "saved" in said
    assert f"*** JOB {job} ON n1 CANCELLED AT " in said
    assert "DUE TO PREEMPTION ***\n" in said
    assert said.endswith("script told\n")
    elapsed = int(preempting.out("sacct", "-X", "-n", "-P", "-j", job, "-o", "ElapsedRaw"))
    assert elapsed >= 3


def test_sacctmgr_shows_what_a_qos_is(preempting: MockSlurm) -> None:
    columns = "format=name,priority,gracetime,preempt,maxwall,maxtrespu"
    assert preempting.out("sacctmgr", "-nP", "show", "qos", columns).splitlines() == [
        "normal|0|00:00:00|||", "urgent|9|00:01:00|low|01:00:00|gres/gpu=8",
    ]  # fmt: skip
