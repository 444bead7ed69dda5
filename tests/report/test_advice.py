from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from hpcplan.report import build_report
from hpcplan.report.rows import Advice
from hpcplan.slurm.records import JobRecord, JobState

HOUR = 3600
JOB = JobRecord(
    job_id=1, state=JobState.COMPLETED, user="alice", partition="batch", submit_time=0, start_time=0, end_time=HOUR,
    time_limit_s=HOUR, nodes=1, cpus=8, gpus=0, memory_bytes=64 * 2**30, total_cpu_s=8.0 * HOUR * 0.9,
    max_rss_bytes=60 * 2**30,
)  # fmt: skip


def advice(jobs: Iterable[JobRecord]) -> tuple[Advice, ...]:
    numbered = [dataclasses.replace(job, job_id=number) for number, job in enumerate(jobs, start=1)]
    return build_report(numbered, start=0, end=24 * HOUR).advice


def test_well_used_resources_call_for_no_advice() -> None:
    assert advice([JOB] * 10) == ()


def test_a_limit_asked_too_long_is_answered_with_the_directive() -> None:
    (piece,) = advice([dataclasses.replace(JOB, time_limit_s=24 * HOUR)] * 3)
    assert (piece.kind, piece.who, piece.jobs) == ("time limit", "alice", 3)
    assert "#SBATCH --time=01:15:00" in piece.action
    assert piece.gain == pytest.approx(3 * 8 * (24 - 1.25))
    assert "1-00:00:00" in piece.finding


def test_memory_asked_too_high_is_answered_with_the_directive() -> None:
    (piece,) = advice([dataclasses.replace(JOB, max_rss_bytes=8 * 2**30)] * 3)
    assert (piece.kind, piece.action) == ("memory", "#SBATCH --mem=10G")
    assert piece.gain == pytest.approx(3 * 54)
    assert piece.gain_share == pytest.approx(54 / 64)


def test_memory_is_asked_for_per_node() -> None:
    (piece,) = advice([dataclasses.replace(JOB, nodes=2, max_rss_bytes=8 * 2**30)] * 3)
    assert piece.action.startswith("#SBATCH --mem=5G, of each node")


def test_one_gpu_job_that_did_nothing_is_enough() -> None:
    (piece,) = advice([dataclasses.replace(JOB, gpus=8, gpu_utilisation=0.0)])
    assert (piece.kind, piece.gain, piece.unit, piece.gain_share) == ("idle GPUs", 8.0, "GPU-hours", 1.0)


def test_cpus_left_idle_are_counted() -> None:
    (piece,) = advice([dataclasses.replace(JOB, total_cpu_s=1.0 * HOUR)] * 3)
    assert piece.kind == "CPUs"
    assert "2 CPUs" in piece.action
    assert piece.gain == pytest.approx(3 * 6)


def test_where_nodes_are_given_whole_smaller_requests_on_them_are_not_advised() -> None:
    wasteful = dataclasses.replace(JOB, total_cpu_s=1.0 * HOUR, max_rss_bytes=2**30)
    apart = [dataclasses.replace(wasteful, node_list=f"n{number}") for number in range(4)]
    together = [dataclasses.replace(wasteful, node_list="n1")] * 4
    assert advice(apart) == ()
    assert {piece.kind for piece in advice(together)} == {"memory", "CPUs"}


def test_too_few_or_unmeasured_jobs_are_not_judged() -> None:
    assert advice([dataclasses.replace(JOB, time_limit_s=24 * HOUR, max_rss_bytes=2**30)] * 2) == ()
    unmeasured = dataclasses.replace(JOB, total_cpu_s=None, max_rss_bytes=None, time_limit_s=None, gpus=8)
    assert advice([unmeasured] * 10) == ()


def test_a_job_that_used_its_whole_limit_speaks_for_its_group() -> None:
    long = dataclasses.replace(JOB, time_limit_s=10 * HOUR)
    assert advice([long, long, dataclasses.replace(long, end_time=9 * HOUR, total_cpu_s=60.0 * HOUR)]) == ()


def test_what_frees_resources_comes_before_what_helps_to_plan_and_the_larger_share_first() -> None:
    idle = dataclasses.replace(JOB, gpus=8, gpu_utilisation=0.0, user="bob")
    low = dataclasses.replace(JOB, max_rss_bytes=8 * 2**30, user="carol")
    long = dataclasses.replace(JOB, time_limit_s=1000 * HOUR, user="dave")
    found = advice([long] * 3 + [low] * 3 + [idle] * 3)
    assert [piece.kind for piece in found] == ["idle GPUs", "memory", "time limit"]


def test_repeated_failures_are_named_with_a_remedy() -> None:
    (piece,) = advice([dataclasses.replace(JOB, state=JobState.OUT_OF_MEMORY)] * 3)
    assert (piece.kind, piece.gain) == ("failures", 24.0)
    assert "memory" in piece.action


def test_whole_nodes_that_were_not_filled_are_counted_unless_their_gpus_or_memory_were() -> None:
    wide = dataclasses.replace(JOB, nodes=8, node_list="n[1-8]", cpus=512, total_cpu_s=40.0 * HOUR)
    small = dataclasses.replace(wide, max_rss_bytes=2 * 2**30)

    def one_by_one(job: JobRecord) -> tuple[Advice, ...]:
        return advice(dataclasses.replace(job, start_time=k * HOUR, end_time=k * HOUR + HOUR) for k in range(3))

    (piece,) = one_by_one(small)
    assert (piece.kind, piece.unit) == ("nodes", "core-hours")
    assert piece.action.startswith("#SBATCH --nodes=1,")
    assert piece.gain == pytest.approx(3 * 512 * 7 / 8)
    for full in ({"max_rss_bytes": 60 * 2**30}, {"max_rss_bytes": None}, {"gpus": 64, "gpu_utilisation": 0.5}):
        assert one_by_one(dataclasses.replace(small, **full)) == ()  # type: ignore[arg-type]
