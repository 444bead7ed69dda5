"""Figures by reason, node, energy and share, each against a sum written out."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pytest

from hpcplan.errors import InputError
from hpcplan.report import build_report, job_table, jobs_of
from hpcplan.report.metrics_reasons import BEFORE_ELIGIBLE, NOT_ON_RECORD
from hpcplan.report.model import Report
from hpcplan.report.shares import parse_shares
from hpcplan.report.site_facts import Sampled, SiteFacts
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord

START, HOUR = 1_714_521_600, 3600
JOB = JobRecord(
    job_id=1, state=JobState.COMPLETED, name="a", user="alice", account="physics", partition="batch", submit_time=START,
    eligible_time=START, start_time=START + HOUR, end_time=START + 3 * HOUR, time_limit_s=4 * HOUR, nodes=1,
    node_list="n1", cpus=8, gpus=0, memory_bytes=16 * 2**30,
)  # fmt: skip
NODES = [NodeRecord(f"n{i}", "idle", cpus=16, gpus=0) for i in (1, 2)]


def job(**changes: object) -> JobRecord:
    return dataclasses.replace(JOB, **changes)  # type: ignore[arg-type]


def test_hours_waited_go_to_their_reasons_and_add_up(made_up: ModuleType) -> None:
    records = [
        job(eligible_time=START + HOUR // 2),
        job(job_id=2, state=JobState.PENDING, start_time=None, end_time=None, node_list=None, reason="Priority"),
    ]
    report = build_report(records, start=START, end=START + 4 * HOUR)
    found = {row.reason: row.wait_hours for row in report.wait_reasons}
    assert found == {"Priority": 4.0, BEFORE_ELIGIBLE: 0.5, NOT_ON_RECORD: 0.5}
    ended = [job(state=JobState.TIMEOUT, reason=word) for word in ("TimeLimit", "RaisedSignal:9(Killed)", "None")]
    (row,) = build_report(ended, start=START, end=START + 4 * HOUR).wait_reasons  # why it ended, not why it waited
    assert row.reason == NOT_ON_RECORD
    many = build_report(made_up.records(400), start=made_up.START, end=made_up.START + made_up.DAY)
    assert sum(row.wait_hours for row in many.wait_reasons) == pytest.approx(sum(many.series.pending))


def test_the_queue_grew_by_what_waits_now_and_did_not_before() -> None:
    waiting = job(job_id=3, state=JobState.PENDING, start_time=None, end_time=None, node_list=None)
    report = build_report([JOB, waiting], start=START + HOUR // 2, end=START + 4 * HOUR)
    assert (report.queue_growth.pending_at_start, report.queue_growth.pending_at_end) == (2, 1)
    assert report.queue_growth.asked_core_hours_at_end == pytest.approx(32)


def test_backfill_is_a_share_of_those_that_are_known() -> None:
    records = [job(backfilled=True), job(job_id=2, backfilled=False), job(job_id=3, backfilled=None)]
    share = build_report(records, start=START, end=START + 4 * HOUR).backfill_share
    assert (share.value, share.known, share.total) == (0.5, 2, 3)


def test_idle_cpus_beside_used_ones_are_fragments() -> None:
    records = [job(submit_time=START - 9, eligible_time=START - 9, start_time=START, end_time=START + 4 * HOUR)]
    report = build_report(records, start=START, end=START + 4 * HOUR, nodes=NODES)
    assert report.fragmentation.value == pytest.approx(8 / 24)  # 8 of n1's 16, and all of n2's
    assert build_report(records, start=START, end=START + HOUR).fragmentation.value is None


def test_a_node_is_as_busy_as_its_jobs_and_its_failures_are_its_own() -> None:
    records = [
        JOB,
        *(job(job_id=10 + i, state=JobState.NODE_FAIL, node_list="n2", submit_time=START + i) for i in range(3)),
    ]
    report = build_report(records, start=START, end=START + 4 * HOUR, nodes=NODES)
    first, second = report.nodes_used
    assert (first.name, first.attempts, first.failed, first.node_failures) == ("n1", 1, 0, 0)
    assert (second.attempts, second.failed, second.node_failures) == (3, 3, 3)
    assert second.expected_failed == pytest.approx(3 * 3 / 4)
    assert second.lost_core_hours == pytest.approx(3 * 16)
    assert sum(first.busy) / len(first.busy) == pytest.approx(0.5)  # two hours of four


def test_energy_is_measured_or_the_nodes_power_and_says_which() -> None:
    records = [job(tres={"energy": 7_200_000}), job(job_id=2, node_list="n2")]
    bare = build_report(records, start=START, end=START + 4 * HOUR).energy_kwh
    assert (bare.value, bare.known, bare.total) == (2.0, 2.0, 4.0)
    facts = SiteFacts(power_w_per_node={"n1": 500.0, "n2": 500.0}, price_per_kwh=0.5)
    report = build_report(records, start=START, end=START + 4 * HOUR, known=facts, currency="EUR")
    assert report.energy_kwh.value == pytest.approx(3.0)
    assert report.energy_cost is not None
    assert (report.energy_cost.value, report.currency) == (pytest.approx(1.5), "EUR")
    half = build_report(records[:1], start=START, end=START + 2 * HOUR).energy_kwh
    assert half.value == pytest.approx(1.0)  # an hour of its two lies in the window


def test_gpu_kinds_node_groups_and_job_names_have_their_rows() -> None:
    records = [job(gpus=2, tres={"gres/gpu:a100": 2, "gres/gpu": 2}), job(job_id=2, node_list="n2", name="b")]
    facts = SiteFacts(group_of_node={"n1": "fast", "n2": "slow"})
    report = build_report(records, start=START, end=START + 4 * HOUR, known=facts)
    assert [(row.name, row.gpu_hours) for row in report.by_gpu_type] == [("a100", 4.0)]
    assert {row.name for row in report.by_node_group} == {"fast", "slow"}
    assert {row.name for row in report.by_name} == {"a", "b"}


def test_shares_stand_beside_use() -> None:
    facts = SiteFacts(shares={"physics": 0.25, "chemistry": 0.75})
    report = build_report([JOB], start=START, end=START + 4 * HOUR, known=facts)
    assert [(row.account, row.target, row.used) for row in report.shares] == [
        ("physics", 0.25, 1.0), ("chemistry", 0.75, 0.0),
    ]  # fmt: skip


def test_shares_are_read_as_sshare_or_people_write_them() -> None:
    rows = ["root||1|1.0|0", " physics||3|0.75|9", "  physics|alice|1|0.5|9", " chem||1|0.25|0"]
    table = "\n".join(["Account|User|RawShares|NormShares|RawUsage", *rows])
    assert parse_shares(table) == {"physics": 0.75, "chem": 0.25}
    assert parse_shares("account,share\nphysics,3\nchem,1\n") == {"physics": 0.75, "chem": 0.25}
    for text in ("", "physics\n", "physics,many\nx,y\n"):
        with pytest.raises(InputError):
            parse_shares(text)


def test_a_plans_expectation_stands_beside_what_its_jobs_took() -> None:
    records = [job(comment="hpcplan:c1:train:1"), job(job_id=2, comment="hpcplan:c1:train:2", state=JobState.TIMEOUT)]
    facts = SiteFacts(predicted_s={"hpcplan:c1:train:1": 6000.0, "hpcplan:c1:train:2": 6000.0})
    (one,) = build_report(records, start=START, end=START + 4 * HOUR, known=facts).campaigns
    assert (one.predicted_s, one.actual_s, one.ratio) == (6000.0, 7200.0, 1.2)


def test_what_jobs_of_hpcplan_sampled_stands_in_where_accounting_has_nothing() -> None:
    ours = job(comment="hpcplan:c1:train:1", gpus=4, nodes=1)
    start, end = ours.start_time or 0, ours.end_time or 0

    def report(sampled: Sampled, record: JobRecord = ours, campaign: str = "c1") -> Report:
        return build_report(
            [record], start=START, end=START + 4 * HOUR, known=SiteFacts(samples={(campaign, ours.job_id): sampled})
        )

    whole = Sampled(first=start + 30, last=end - 5, nodes=1, gpus=4, gpu_used=0.4, gpu_power_w=1000.0)
    found = report(whole)
    assert found.gpu_efficiency.value == pytest.approx(0.4)
    assert found.gpu_efficiency.coverage == 1.0
    assert "samples" in (found.gpu_efficiency.note or "")
    assert found.energy_kwh.value == pytest.approx((end - start) / 3600)
    assert "GPUs' alone" in (found.energy_kwh.note or "")
    told = report(whole, dataclasses.replace(ours, gpu_utilisation=0.9))
    assert told.gpu_efficiency.value == pytest.approx(0.9)
    assert told.gpu_efficiency.note is None
    for doubtful in (
        dataclasses.replace(whole, gpus=3),  # one was not seen
        dataclasses.replace(whole, gpus=8),  # others' as well
        dataclasses.replace(whole, nodes=2),
        dataclasses.replace(whole, last=start + 60),  # the beginning only
        dataclasses.replace(whole, first=start - 9000),  # an attempt before
    ):
        assert report(doubtful).gpu_efficiency.value is None
    assert report(whole, campaign="c2").gpu_efficiency.value is None
    assert build_report([ours], start=START, end=START + 4 * HOUR).gpu_efficiency.value is None


def test_a_jobs_row_says_that_its_gpus_were_sampled() -> None:
    ours = job(comment="hpcplan:c1:train:1", gpus=4, nodes=1)
    sampled = Sampled(ours.start_time or 0, ours.end_time or 0, 1, 4, 0.4, None)
    rows = jobs_of(job_table([ours, job(job_id=2)]), samples={("c1", ours.job_id): sampled})
    assert [(row["gpu_efficiency"], row["gpu_sampled"]) for row in rows] == [(pytest.approx(0.4), True), (None, False)]
