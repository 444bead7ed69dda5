from __future__ import annotations

import dataclasses

import pytest

from hpcplan.report import build_report, job_table, jobs_of
from hpcplan.report.table import SCHEMA, span
from hpcplan.slurm.records import JobRecord, JobState

JOB = JobRecord(
    job_id=7, state=JobState.COMPLETED, user="alice", submit_time=100, eligible_time=160, start_time=200, end_time=500,
    time_limit_s=600, nodes=1, node_list="n1", cpus=4, memory_bytes=1000, total_cpu_s=600.0, max_rss_bytes=250,
)  # fmt: skip


def row(record: JobRecord) -> dict[str, object]:
    (only,) = jobs_of(job_table([record]))
    return only


def test_a_record_gives_waits_and_efficiencies() -> None:
    job = row(JOB)
    assert (job["wait_s"], job["eligible_wait_s"], job["elapsed_s"]) == (100, 40, 300)
    assert (job["cpu_efficiency"], job["memory_efficiency"], job["time_efficiency"]) == (0.5, 0.25, 0.5)
    assert job["slowdown"] == pytest.approx(400 / 300)
    assert job["gpu_efficiency"] is None


def test_short_jobs_do_not_blow_up_the_slowdown() -> None:
    assert row(dataclasses.replace(JOB, end_time=201))["slowdown"] == pytest.approx(101 / 10)
    assert row(dataclasses.replace(JOB, submit_time=200, end_time=201))["slowdown"] == 1


def test_the_table_of_nothing_has_every_column() -> None:
    table = job_table([])
    assert table.columns == list(SCHEMA)
    assert span(table) == (0, 0)


def test_a_running_job_is_not_ended_by_the_end_that_squeue_expects() -> None:
    job = row(dataclasses.replace(JOB, state=JobState.RUNNING, end_time=800))
    assert job["end_time"] is None
    assert job["cpu_efficiency"] is None


def test_a_pending_job_has_not_started_at_the_time_that_squeue_expects() -> None:
    job = row(dataclasses.replace(JOB, state=JobState.PENDING, start_time=9000, end_time=None))
    assert job["start_time"] is None
    assert job["wait_s"] is None


def test_the_tasks_of_an_array_are_named_as_slurm_names_them() -> None:
    assert row(dataclasses.replace(JOB, array_job_id=5, array_task_id=3))["job_id"] == "5_3"


def test_gpus_are_zero_only_where_slurm_counts_them() -> None:
    without = dataclasses.replace(JOB, tres={"cpu": 4})
    assert row(without)["gpus"] is None
    rows = jobs_of(job_table([without, dataclasses.replace(JOB, job_id=8, gpus=2)]))
    assert [job["gpus"] for job in rows] == [0, 2]


def test_ids_select_arrays_heterogeneous_parts_and_raw_numbers() -> None:
    table = job_table(
        [JOB, dataclasses.replace(JOB, job_id=9, array_job_id=5, array_task_id=1),
         dataclasses.replace(JOB, job_id=10, array_job_id=5, array_task_id=2, user="bob")]
    )  # fmt: skip
    assert [job["job_id"] for job in jobs_of(table, ["5"])] == ["5_1", "5_2"]
    assert [job["job_id"] for job in jobs_of(table, ["5_2"])] == ["5_2"]
    assert [job["job_id"] for job in jobs_of(table, ["10", "7"])] == ["7", "5_2"]
    assert [job["job_id"] for job in jobs_of(table, user="bob")] == ["5_2"]
    assert jobs_of(table, ["77"]) == []


def test_a_job_that_ended_after_the_window_still_runs_in_it() -> None:
    report = build_report([JOB], start=150, end=300)
    assert report.jobs.by_status == {"RUNNING": 1}
    assert report.core_hours.value == pytest.approx(4 * 100 / 3600)
    assert build_report([JOB], start=150, end=190).jobs.by_status == {"PENDING": 1}
    assert build_report([JOB], start=150, end=501).jobs.by_status == {"COMPLETED": 1}
    assert build_report([JOB], start=501, end=900).jobs.total == 0


def test_without_the_cluster_s_size_utilisation_is_unknown_and_says_why() -> None:
    report = build_report([JOB], start=0, end=1000)
    for measure in (report.cpu_utilisation, report.gpu_utilisation, report.node_utilisation):
        assert measure.value is None
        assert measure.note is not None
        assert "not known" in measure.note


def test_unknown_sizes_lower_the_coverage_and_not_the_figure() -> None:
    report = build_report([JOB, dataclasses.replace(JOB, job_id=8, cpus=None)], start=0, end=1000)
    assert report.core_hours.value == pytest.approx(4 * 300 / 3600)
    assert report.core_hours.coverage == 0.5
    assert report.core_hours.note is not None
    assert report.cpu_efficiency.jobs_known == 1
    assert report.cpu_efficiency.jobs_total == 2


def test_the_cost_is_what_the_nodes_cost_while_they_were_held() -> None:
    prices = {"n1": 36.0}
    report = build_report([JOB], start=0, end=350, price_per_node_hour=prices, currency="EUR")
    assert report.cost is not None
    assert report.cost.value == pytest.approx(36 * 150 / 3600)
    assert report.by_user[0].cost == pytest.approx(36 * 150 / 3600)
    other = dataclasses.replace(JOB, job_id=8, node_list="n[1-2]")
    report = build_report([JOB, other], start=0, end=350, price_per_node_hour=prices, currency="EUR")
    assert report.cost is not None
    assert (report.cost.known, report.cost.total) == (1, 2)
    assert build_report([JOB], start=0, end=350).cost is None


def test_an_empty_window_is_refused() -> None:
    from hpcplan.errors import InputError

    with pytest.raises(InputError, match="window is empty"):
        build_report([JOB], start=10, end=10)
