"""Limits on minutes: what a job may use until its limit, and what QOS and accounts have used and may still."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.simulate.account_policy import AccountPolicy, Association, Limits, QosPolicy
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import Behaviour, JobSpec
from hpcplan.simulate.minute_limits import WALL, UsedMinutes
from hpcplan.simulate.sacctmgr_files import read_accounting
from hpcplan.simulate.slurm_cluster import read_slurm_cluster
from hpcplan.simulate.slurm_settings import SlurmSettings

SETTINGS = SlurmSettings(multifactor=True, priority_calc_period_s=60, priority_decay_half_life_s=0, started_s=0)
CONF = (
    "SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=5\nSelectType=select/linear\n"
    "PriorityType=priority/multifactor\nPriorityCalcPeriod=1\nPriorityDecayHalfLife=0\n"
    "AccountingStorageType=accounting_storage/slurmdbd\n"
    "NodeName=n[1-4] CPUs=4 RealMemory=1000\nPartitionName=batch Nodes=ALL Default=YES OverSubscribe=EXCLUSIVE\n"
)


def test_use_is_counted_every_period_and_as_a_job_ends_and_what_may_come_shrinks_with_it() -> None:
    used = UsedMinutes(SETTINGS)
    used.started(1, ("a",), {"cpu": 8}, 1.0, 30, 600)
    assert (used.used("a", "cpu", 59), used.to_come("a", "cpu", 59)) == (0, 80)
    assert (used.used("a", "cpu", 60), used.to_come("a", "cpu", 60)) == (4, 76)
    used.ended(1, 90)
    assert (used.used("a", "cpu", 90), used.to_come("a", "cpu", 90)) == (8, 0)
    assert used.used("a", "cpu", 120) == 8
    assert used.used("a", WALL, 1000) == 1
    assert used.used("b", "cpu", 1000) == 0


def test_use_decays_by_half_in_its_half_life() -> None:
    used = UsedMinutes(SlurmSettings(multifactor=True, priority_decay_half_life_s=86400, started_s=0))
    used.started(1, ("a",), {"cpu": 1}, 2.0, 0, 6000)
    used.ended(1, 600)
    before = used.used("a", "cpu", 600)
    assert before == pytest.approx(20, rel=0.01)
    assert used.used("a", "cpu", 600 + 86400) == pytest.approx(before / 2, rel=0.01)


def test_with_basic_priorities_nothing_is_ever_used() -> None:
    used = UsedMinutes(SlurmSettings())
    used.started(1, ("a",), {"cpu": 1}, 1.0, 0, 600)
    assert (used.used("a", "cpu", 599), used.to_come("a", "cpu", 599)) == (0, 10)
    used.ended(1, 600)
    assert (used.used("a", "cpu", 6000), used.to_come("a", "cpu", 6000)) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(job_minutes={"cpu": 79}), "QOSMaxCpuMinutesPerJobLimit"),
        (Limits(job_minutes={"node": 19}), "QOSMaxNodeMinutesPerJob"),
        (Limits(group_minutes={"cpu": 8}), "QOSGrpCPUMinutesLimit"),
        (Limits(group_minutes={"mem": 1}), "QOSGrpMemoryMinutes"),
        (Limits(group_run_minutes={"cpu": 100}), "QOSGrpCPURunMinutesLimit"),
        (Limits(group_run_minutes={"node": 30}), "QOSGrpNodeRunMinutes"),
        (Limits(group_wall_s=60), "QOSGrpWallLimit"),
        (Limits(group_tres={"gres/gpu": 0}), None),
    ],
)
@pytest.mark.parametrize("association", [False, True])
def test_a_job_that_breaks_one_waits_with_its_reason(
    tmp_path: Path, limits: Limits, reason: str | None, association: bool
) -> None:
    """A job of two nodes for ten minutes comes while one like it has run for two minutes."""
    (tmp_path / "slurm.conf").write_text(CONF)
    qos = {"few": QosPolicy("few", limits=Limits() if association else limits)}
    tree = (Association("root"), Association("a", parent="root", limits=limits if association else Limits()))
    policy = AccountPolicy(qos, (*tree, Association("a", "u")))
    read = read_slurm_cluster(tmp_path / "slurm.conf")
    controller = Controller(type(read)(read.machine, read.settings, policy=policy))
    spec = JobSpec(nodes_min=2, nodes_max=2, qos="few", time_limit_s=600)
    if not limits.job_minutes:
        controller.submit(spec, Behaviour(500), "u")
    controller.advance(120)
    second = controller.submit(spec, Behaviour(100), "u")
    controller.advance(125)
    if association and reason is not None:
        reason = reason.replace("QOS", "Assoc").replace("Memory", "Mem")
    found = controller.waits_for(controller.jobs[second]) if second not in controller.running else None
    assert found == reason


def test_they_are_read_from_what_sacctmgr_prints(tmp_path: Path) -> None:
    (tmp_path / "qos.txt").write_text(
        "Name|Priority|GrpTRES|GrpTRESMins|GrpTRESRunMins|GrpWall|MaxTRESMins\n"
        "lean|0||cpu=100,mem=1G|node=5|01:30:00|cpu=16\n"
    )
    (tmp_path / "accounts.cfg").write_text(
        "Parent - 'root'\nAccount - 'a':Fairshare=1:GrpTRESMins=cpu=7:GrpTRESRunMins=cpu=9:GrpWall=4\n"
        "Parent - 'a'\nUser - 'u':MaxTRESMinsPerJob=node=3\n"
    )
    policy = read_accounting(tmp_path / "qos.txt", tmp_path / "accounts.cfg")
    assert policy.qos["lean"].limits == Limits(
        group_minutes={"cpu": 100, "mem": 1024**3}, group_run_minutes={"node": 5}, group_wall_s=5400,
        job_minutes={"cpu": 16},
    )  # fmt: skip
    assert policy.accounts["a"].limits == Limits(
        group_minutes={"cpu": 7}, group_run_minutes={"cpu": 9}, group_wall_s=240
    )
    assert policy.users["a", "u"].limits == Limits(job_minutes={"node": 3})
