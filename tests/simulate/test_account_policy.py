"""Priorities, limits, preemption, reservations and licences: what decides beside nodes, and where it is read from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.simulate.account_policy import AccountPolicy, Association, Limits, QosPolicy
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.fairshare import FairShare
from hpcplan.simulate.jobs import Behaviour, JobSpec
from hpcplan.simulate.live_controller import LiveController
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.outcome import Row
from hpcplan.simulate.reservations import Reservation, read_reservations
from hpcplan.simulate.sacctmgr_files import read_accounting
from hpcplan.simulate.slurm_cluster import SlurmCluster, read_slurm_cluster
from hpcplan.simulate.slurm_settings import scheduling
from hpcplan.simulate.snapshot import restore, snapshot
from hpcplan.simulate.trace_run import on_nodes
from hpcplan.simulate.traces import Trace, TraceJob

BASE = (
    "SchedulerParameters=bf_interval=1,bf_resolution=1,sched_interval=5\nSelectType=select/linear\n"
    "NodeName=n[1-4] CPUs=4 RealMemory=1000\nPartitionName=batch Nodes=ALL Default=YES OverSubscribe=EXCLUSIVE\n"
)
ONE = Machine.of_processors(1)
MULTI = "PriorityType=priority/multifactor\nAccountingStorageType=accounting_storage/slurmdbd\n"
DUMP = """\
Cluster - 'tiny':Fairshare=1:QOS='normal'
Parent - 'root'
User - 'root':DefaultAccount='root':Fairshare=1
Account - 'a':Description='a':Fairshare=30:GrpTRES=node=2
Account - 'b':Description='b':Fairshare=10
Parent - 'a'
User - 'ann':DefaultAccount='a':Fairshare=1:MaxJobs=2
Parent - 'b'
User - 'bob':DefaultAccount='b':Fairshare=1
"""
QOS = (
    "Name|Priority|GraceTime|Preempt|PreemptMode|UsageFactor|GrpTRES|GrpJobs|MaxTRES|MaxWall|MaxTRESPU|MaxJobsPU\n"
    "normal|0|00:00:00|||1.000000||||||\n"
    "high|100|00:00:00|normal|requeue|2.000000|node=3||node=2|01:00:00|cpu=4,gres/gpu=2|1\n"
)


def cluster(folder: Path, text: str = BASE, **changes: object) -> SlurmCluster:
    (folder / "slurm.conf").write_text(text)
    return replace(read_slurm_cluster(folder / "slurm.conf"), **changes)  # type: ignore[arg-type]


def job(
    number: int, submit_s: int, nodes: int, run_s: int, minutes: int = 2, user: str = "u", **asks: object
) -> TraceJob:
    fields = {"name": str(number), "nodes_min": nodes, "nodes_max": nodes, "time_limit_s": minutes * 60, **asks}
    return TraceJob(number, submit_s, run_s, minutes * 60, nodes, ask=JobSpec(**fields), user=user)  # type: ignore[arg-type]


def run(machine: SlurmCluster, *jobs: TraceJob) -> tuple[Row, ...]:
    return on_nodes(Trace(jobs, None, 0), machine, "slurm").rows


def test_qos_and_associations_are_read_from_what_sacctmgr_prints(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(DUMP)
    (tmp_path / "qos").write_text(QOS)
    policy = read_accounting(tmp_path / "dump", tmp_path / "qos")
    high = policy.qos["high"]
    assert (high.priority, high.preempts, high.preempt_mode, high.usage_factor) == (100, ("normal",), "requeue", 2.0)
    assert high.limits == Limits({"node": 3}, None, {"node": 2}, 3600, {"cpu": 4, "gres/gpu": 2}, 1)
    assert [one.account for one in policy.chain("ann", None)] == ["a", "a", "root"]
    assert policy.chain("ann", None)[0].limits.user_jobs == 2
    assert AccountPolicy.from_dict(json.loads(json.dumps(policy.as_dict()))).as_dict() == policy.as_dict()


def test_another_file_is_no_accounting(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\n")
    with pytest.raises(InputError, match="neither"):
        read_accounting(tmp_path / "x")


def test_the_priority_of_a_qos_counts(tmp_path: Path) -> None:
    policy = AccountPolicy({"normal": QosPolicy("normal"), "high": QosPolicy("high", 10)})
    text = MULTI + "PriorityWeightQOS=1000\n" + BASE
    rows = run(cluster(tmp_path, text, policy=policy), job(1, 0, 4, 60), job(2, 1, 4, 60), job(3, 2, 4, 60, qos="high"))
    assert (rows[2].start_s or 0) < (rows[1].start_s or 0)


def test_age_counts_only_where_priorities_are_worked_out_again(tmp_path: Path) -> None:
    age = "PriorityWeightAge=100000\nPriorityMaxAge=0-00:10:00\nPriorityCalcPeriod=1\nPriorityWeightJobSize=1000\n"
    jobs = (job(1, 0, 4, 110), job(2, 1, 2, 30, 10), job(3, 61, 4, 30))
    old = run(cluster(tmp_path, MULTI + age + BASE), *jobs)
    assert (old[1].start_s or 0) < (old[2].start_s or 0)
    frozen = MULTI.replace("slurmdbd", "none") + age + BASE
    new = run(cluster(tmp_path, frozen), *jobs)
    assert (new[2].start_s or 0) < (new[1].start_s or 0)


def test_who_has_used_little_goes_first() -> None:
    policy = AccountPolicy(
        {},
        (
            Association("root"), Association("a", parent="root"), Association("b", parent="root", shares=3),
            Association("a", "ann"), Association("b", "bob"), Association("b", "ben"),
        ),
    )  # fmt: skip
    tree = FairShare(policy, scheduling({}), ONE)
    assert {tree.factor("a", "ann"), tree.factor("b", "bob")} == {1.0}
    tree.usage = {("a", "ann"): 100.0, ("b", "bob"): 200.0, ("b", "ben"): 0.0}
    tree.update(0, ())
    assert [tree.factor(*one) for one in (("b", "ben"), ("b", "bob"), ("a", "ann"))] == [1.0, 2 / 3, 1 / 3]
    assert tree.factor("b", "nobody") == 0
    classic = FairShare(policy, scheduling({"priorityflags": "NO_FAIR_TREE"}), ONE)
    classic.usage = dict(tree.usage)
    classic.update(0, ())
    assert classic.factor("b", "ben") > classic.factor("a", "ann") > classic.factor("b", "bob")


def test_usage_decays_by_half_in_its_half_life() -> None:
    policy = AccountPolicy({}, (Association("root"), Association("a", parent="root"), Association("a", "ann")))
    share = FairShare(policy, scheduling({"prioritydecayhalflife": "1-0"}), ONE)
    share.usage["a", "ann"] = 1000.0
    share.update(0, ())
    share.update(86400, ())
    assert share.usage["a", "ann"] == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(group_tres={"node": 2}), "QOSGrpNodeLimit"),
        (Limits(user_jobs=1), "QOSMaxJobsPerUserLimit"),
        (Limits(user_tres={"cpu": 8}), "QOSMaxCpuPerUserLimit"),
        (Limits(group_jobs=1), "QOSGrpJobsLimit"),
        (Limits(job_tres={"node": 1}), "QOSMaxNodePerJobLimit"),
        (Limits(job_wall_s=60), "QOSMaxWallDurationPerJobLimit"),
    ],
)
def test_a_job_that_breaks_a_limit_waits_with_a_reason_and_holds_up_nobody(
    tmp_path: Path, limits: Limits, reason: str
) -> None:
    machine = cluster(tmp_path, policy=AccountPolicy({"few": QosPolicy("few", limits=limits)}))
    controller = Controller(machine)
    first = JobSpec(nodes_min=2, nodes_max=2, qos="few", time_limit_s=60 if limits.job_wall_s else 600)
    if not limits.job_tres:
        controller.submit(first, Behaviour(500), "u")
    controller.advance(10)
    second = controller.submit(replace(first, time_limit_s=600), Behaviour(100), "u")
    other = controller.submit(JobSpec(nodes_min=1, nodes_max=1, time_limit_s=60), Behaviour(10), "v")
    controller.advance(30)
    assert controller.waits_for(controller.jobs[second]) == reason
    assert other not in controller.jobs


def test_a_higher_tier_preempts_a_lower_one(tmp_path: Path) -> None:
    text = "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n" + BASE
    text += "PartitionName=urgent Nodes=ALL PriorityTier=5 OverSubscribe=EXCLUSIVE\n"
    jobs = (job(1, 0, 3, 300, 10), job(2, 0, 1, 300, 10), job(3, 30, 1, 20, 1, partition="urgent"))
    rows = run(cluster(tmp_path, text), *jobs)
    assert (rows[2].start_s or 0) < 45
    assert (rows[0].start_s or 0) < 10
    assert (rows[1].start_s or 0) > 100  # the smaller of the two gave way, and waits out the delay of a requeue
    cancelled = run(cluster(tmp_path, text.replace("REQUEUE", "CANCEL")), *jobs)
    assert (cancelled[1].state, (cancelled[1].end_s or 0) < 45) == ("PREEMPTED", True)


def test_nobody_else_runs_on_reserved_nodes_while_they_are_reserved(tmp_path: Path) -> None:
    held = Reservation("lab", 100, 400, 0b1111, users=("ann",))
    machine = cluster(tmp_path, reservations=(held,))
    rows = run(machine, job(1, 0, 4, 30, 1), job(2, 60, 1, 30, 1), job(3, 90, 1, 30, 1, user="ann", reservation="lab"))
    assert (rows[0].start_s or 0) < 40
    assert (rows[1].start_s or 0) >= 400
    assert 100 <= (rows[2].start_s or 0) < 110


def test_reservations_are_read_from_what_scontrol_prints(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(
        "ReservationName=lab StartTime=100 EndTime=400 Duration=00:05:00\n   Nodes=n[1-2] NodeCnt=2 Users=ann,bob "
        "Accounts=(null) Licenses=(null)\n"
    )
    machine = cluster(tmp_path).machine
    assert read_reservations(tmp_path / "r", machine).by_name["lab"] == Reservation(
        "lab", 100, 400, 0b11, ("ann", "bob")
    )
    (tmp_path / "r").write_text("ReservationName=lab StartTime=100 EndTime=400 Nodes=x1\n")
    with pytest.raises(InputError, match="x1"):
        read_reservations(tmp_path / "r", machine)


def test_licences_are_lent_out_and_given_back(tmp_path: Path) -> None:
    machine = cluster(tmp_path, "Licenses=solver:2\n" + BASE)
    rows = run(machine, *(job(number, 0, 1, 50, licenses="solver:1") for number in (1, 2, 3)), job(4, 1, 1, 5))
    assert [(row.start_s or 0) < 20 for row in rows] == [True, True, False, True]
    refused = on_nodes(Trace((job(1, 0, 1, 5, licenses="other"),), None, 0), machine, "slurm")
    assert "Invalid license specification" in refused.refused["1"]


def test_a_saved_controller_goes_on_as_if_it_had_not_been_saved(tmp_path: Path) -> None:
    text = BASE.replace("select/linear", "select/cons_tres").replace(" OverSubscribe=EXCLUSIVE", "")
    machine = cluster(tmp_path, MULTI + "PriorityWeightAge=100\nSelectTypeParameters=CR_CPU\n" + text)
    specs = [
        JobSpec(nodes_min=1 + number % 3, nodes_max=1 + number % 3, cpus_per_task=1 + number % 4, ntasks_per_node=1,
                time_limit_s=60 * (1 + number % 2), name=str(number))
        for number in range(25)
    ]  # fmt: skip

    def ends(engine: LiveController, until: int) -> list[tuple[int, int | None, int | None, str | None]]:
        engine.advance(until)
        return [(one.job_id, one.start_time, one.end_time, one.node_list) for one in engine.ended]

    whole, first = LiveController(machine), LiveController(machine)
    for engine in (whole, first):
        for number, spec in enumerate(specs):
            engine.advance(2 * number)
            engine.submit(spec, Behaviour(7 + 5 * (number % 7)), "u")
    before = ends(first, 60)
    second = LiveController(SlurmCluster.from_dict(json.loads(json.dumps(machine.as_dict())), machine.machine))
    restore(second, json.loads(json.dumps(snapshot(first))))
    assert before + ends(second, 2000) == ends(whole, 2000)
