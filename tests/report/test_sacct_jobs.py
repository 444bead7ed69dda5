from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from hpcplan.report import jobs_of
from hpcplan.report.faults import Faults

Read = Callable[..., tuple[pl.DataFrame, Faults]]
COLUMNS = [
    "JobID", "JobIDRaw", "JobName", "User", "State", "Submit", "Start", "End", "Elapsed", "Timelimit", "NNodes",
    "AllocCPUS", "NTasks", "ReqMem", "AllocTRES", "TotalCPU", "MaxRSS", "TRESUsageInTot", "NodeList",
]  # fmt: skip
JOB = {
    "JobID": "7", "JobIDRaw": "7", "JobName": "train", "User": "alice", "State": "COMPLETED",
    "Submit": "2024-05-01T00:00:00", "Start": "2024-05-01T01:00:00", "End": "2024-05-01T03:00:00",
    "Elapsed": "02:00:00", "Timelimit": "04:00:00", "NNodes": "2", "AllocCPUS": "16", "ReqMem": "64G",
    "TotalCPU": "16:00:00", "NodeList": "n[1-2]",
}  # fmt: skip


@pytest.fixture
def jobs(read_text: Read, made_up: ModuleType) -> Callable[..., tuple[list[dict[str, Any]], Faults]]:
    def read(*rows: dict[str, str]) -> tuple[list[dict[str, Any]], Faults]:
        names = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
        text = made_up.sacct_text(names, [[row.get(name, "") for name in names] for row in rows])
        table, faults = read_text(text)
        return jobs_of(table), faults

    return read


Jobs = Callable[..., tuple[list[dict[str, Any]], Faults]]


def test_one_job_gives_every_efficiency(jobs: Jobs) -> None:
    step = {"JobID": "7.0", "Elapsed": "02:00:00", "NTasks": "4", "TotalCPU": "16:00:00", "MaxRSS": "4G"}
    (job,), faults = jobs({**JOB, "AllocTRES": "cpu=16,gres/gpu=4,mem=64G,node=2"}, {
        **step, "TRESUsageInTot": "cpu=16:00:00,gres/gpuutil=200,mem=16G",
    })  # fmt: skip
    assert faults.total == 0
    assert job["job_id"] == "7"
    assert job["cpu_efficiency"] == pytest.approx(0.5)
    assert job["memory_efficiency"] == pytest.approx(0.25)
    assert job["gpu_efficiency"] == pytest.approx(0.5)
    assert job["time_efficiency"] == pytest.approx(0.5)
    assert (job["wait_s"], job["elapsed_s"], job["gpus"], job["cpus"], job["nodes"]) == (3600, 7200, 4, 16, 2)
    assert job["slowdown"] == pytest.approx(1.5)


def test_without_steps_nothing_is_known_of_memory_and_cpu_time_of_zero_is_unknown(jobs: Jobs) -> None:
    (job,), _ = jobs({**JOB, "TotalCPU": "00:00:00"})
    assert job["cpu_efficiency"] is None
    assert job["memory_efficiency"] is None
    assert job["gpu_efficiency"] is None


def test_tres_usage_comes_before_max_rss_times_tasks(jobs: Jobs) -> None:
    step = {"JobID": "7.0", "NTasks": "8", "MaxRSS": "1G"}
    (job,), _ = jobs(JOB, step)
    assert job["memory_used_bytes"] == 8 * 2**30
    (job,), _ = jobs(JOB, {**step, "TRESUsageInTot": "mem=5G"})
    assert job["memory_used_bytes"] == 5 * 2**30


def test_the_largest_step_counts_and_not_their_sum(jobs: Jobs) -> None:
    (job,), _ = jobs(JOB, *({"JobID": f"7.{i}", "NTasks": "1", "MaxRSS": f"{i}G"} for i in (1, 9, 3)))
    assert job["memory_used_bytes"] == 9 * 2**30


def test_a_step_that_was_never_sampled_leaves_memory_unknown_whatever_extern_says(jobs: Jobs) -> None:
    (job,), _ = jobs(
        JOB, {"JobID": "7.batch", "NTasks": "1", "MaxRSS": "0"}, {"JobID": "7.extern", "NTasks": "1", "MaxRSS": "12K"}
    )
    assert job["memory_used_bytes"] is None
    (job,), _ = jobs(JOB, {"JobID": "7.extern", "NTasks": "1", "MaxRSS": "12K"})
    assert job["memory_used_bytes"] == 12 * 1024


def test_gpu_zero_is_idle_where_the_step_was_sampled_and_unknown_where_not(jobs: Jobs) -> None:
    job = {**JOB, "AllocTRES": "cpu=16,gres/gpu=2,mem=64G,node=2"}
    (idle,), _ = jobs(job, {"JobID": "7.batch", "TRESUsageInTot": "gres/gpuutil=0,mem=3G"})
    (unknown,), _ = jobs(job, {"JobID": "7.batch", "TRESUsageInTot": "gres/gpuutil=0,mem=0"})
    assert idle["gpu_efficiency"] == 0
    assert unknown["gpu_efficiency"] is None


def test_total_cpu_is_added_up_from_steps_where_the_job_has_none(jobs: Jobs) -> None:
    (job,), _ = jobs(
        {**JOB, "TotalCPU": ""},
        {"JobID": "7.batch", "TotalCPU": "01:00:00"},
        {"JobID": "7.0", "TRESUsageInTot": "cpu=1-00:00:00,mem=1G"},
    )
    assert job["cpu_used_s"] == 90_000


@pytest.mark.parametrize(
    ("asked", "gib"), [("4Gc", 64), ("4Gn", 8), ("4G", 4), ("0n", None), ("0", None), ("Unknown", None), ("", None)]
)
def test_memory_per_cpu_and_per_node_is_multiplied_out(jobs: Jobs, asked: str, gib: int | None) -> None:
    (job,), faults = jobs({**JOB, "ReqMem": asked})
    assert job["memory_bytes"] == (None if gib is None else gib * 2**30)
    assert faults.total == 0


def test_what_was_allocated_comes_before_what_was_asked_for(jobs: Jobs) -> None:
    (job,), _ = jobs({**JOB, "AllocTRES": "cpu=32,mem=128G,node=4", "ReqTRES": "cpu=1,mem=1G,node=1"})
    assert (job["cpus"], job["nodes"], job["memory_bytes"]) == (32, 4, 2**37)
    (job,), _ = jobs({**JOB, "AllocTRES": "", "ReqTRES": "cpu=1,mem=1G,node=1"})
    assert (job["cpus"], job["nodes"], job["memory_bytes"]) == (16, 2, 2**36)


def test_gpus_are_zero_only_where_the_site_counts_them(jobs: Jobs) -> None:
    (job,), _ = jobs({**JOB, "AllocTRES": "cpu=16,mem=64G,node=2"})
    assert job["gpus"] is None
    (first, second), _ = jobs(
        {**JOB, "AllocTRES": "cpu=16,mem=64G,node=2"},
        {**JOB, "JobID": "8", "JobIDRaw": "8", "AllocTRES": "cpu=1,gres/gpu:a100=2,gres/gpu:v100=1"},
    )
    assert (first["gpus"], second["gpus"]) == (0, 3)


def test_old_gres_columns_tell_the_gpus_too(jobs: Jobs) -> None:
    (job,), _ = jobs({**JOB, "ReqGRES": "gpu:v100:4"})
    assert job["gpus"] == 8


@pytest.mark.parametrize("state", ["CANCELLED by 1000", "CANCELLED", "CANCELLED+"])
def test_a_job_cancelled_while_it_waited_never_started(jobs: Jobs, state: str) -> None:
    same = "2024-05-01T00:10:00"
    for start in (same, "None", "Unknown"):
        (job,), _ = jobs({**JOB, "State": state, "Start": start, "End": same, "Elapsed": "00:00:00",
                          "NodeList": "None assigned", "TotalCPU": "00:00:00"})  # fmt: skip
        assert job["state"] == "CANCELLED"
        assert job["start_time"] is None
        assert job["wait_s"] is None
        assert job["time_efficiency"] is None


def test_a_running_job_has_no_efficiency_yet(jobs: Jobs) -> None:
    running = {**JOB, "State": "RUNNING", "End": "Unknown", "Elapsed": "00:30:00"}
    (job,), faults = jobs(running, {"JobID": "7.0", "State": "COMPLETED", "TotalCPU": "01:00:00", "MaxRSS": "1G"})
    assert faults.total == 0
    assert (job["state"], job["elapsed_s"], job["end_time"]) == ("RUNNING", 1800, None)
    assert [job[name] for name in ("cpu_efficiency", "memory_efficiency", "gpu_efficiency", "time_efficiency")] == [
        None
    ] * 4


def test_every_attempt_of_a_requeued_job_is_kept_with_its_own_steps(jobs: Jobs) -> None:
    first = {**JOB, "State": "NODE_FAIL"}
    second = {**JOB, "Submit": "2024-05-01T03:00:01", "Start": "2024-05-01T03:02:00", "End": "2024-05-01T04:02:00",
              "Elapsed": "01:00:00"}  # fmt: skip
    found, _ = jobs(
        first, {"JobID": "7.0", "MaxRSS": "1G", "NTasks": "1"}, second, {"JobID": "7.0", "MaxRSS": "2G", "NTasks": "1"}
    )
    assert [(job["state"], job["memory_used_bytes"]) for job in found] == [("NODE_FAIL", 2**30), ("COMPLETED", 2**31)]


def test_an_attempt_that_was_requeued_counts_as_ended(jobs: Jobs) -> None:
    (job,), _ = jobs({**JOB, "State": "REQUEUED"})
    assert (job["state"], job["elapsed_s"]) == ("REQUEUED", 7200)


def test_tasks_of_arrays_and_parts_of_heterogeneous_jobs_are_jobs_of_their_own(jobs: Jobs) -> None:
    found, faults = jobs(
        {**JOB, "JobID": "7_3", "JobIDRaw": "9"},
        {"JobID": "7_3.batch", "JobIDRaw": "9.batch", "MaxRSS": "1G", "NTasks": "1"},
        {**JOB, "JobID": "20+0", "JobIDRaw": "20"},
        {**JOB, "JobID": "20+1", "JobIDRaw": "21"},
        {"JobID": "20+1.0", "JobIDRaw": "21.0", "MaxRSS": "2G", "NTasks": "1"},
        {**JOB, "JobID": "30_[4-9%2]", "JobIDRaw": "30", "State": "PENDING", "Start": "Unknown", "End": "Unknown"},
    )
    assert faults.total == 0
    assert {job["job_id"]: (job["job_id_raw"], job["memory_used_bytes"]) for job in found} == {
        "7_3": (9, 2**30), "20+0": (20, None), "20+1": (21, 2**31), "30_[4-9%2]": (30, None),
    }  # fmt: skip


def test_a_step_without_its_job_is_quoted(jobs: Jobs) -> None:
    found, faults = jobs(JOB, {"JobID": "99.batch", "MaxRSS": "1G"})
    assert len(found) == 1
    assert faults.counts == {"row skipped": 1}
    assert "not in the file" in faults.quoted[0].message


def test_steps_that_come_before_their_job_still_reach_it(jobs: Jobs) -> None:
    (job,), faults = jobs({"JobID": "7.0", "MaxRSS": "1G", "NTasks": "1"}, JOB)
    assert job["memory_used_bytes"] == 2**30
    assert faults.total == 0


@pytest.mark.parametrize(
    ("column", "bad", "unknown"),
    [
        ("Elapsed", "soon", "memory_used_bytes"), ("Timelimit", "two days", "time_limit_s"),
        ("AllocCPUS", "many", "cpus"), ("ReqMem", "lots", "memory_bytes"), ("Submit", "noon", "submit_time"),
        ("AllocTRES", "gpus!", "gpus"), ("TotalCPU", "1:2:3:4", "cpu_used_s"), ("AllocCPUS", "9" * 30, "cpus"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_unknown_and_quoted(jobs: Jobs, column: str, bad: str, unknown: str) -> None:
    (job,), faults = jobs({**JOB, column: bad})
    assert job[unknown] is None
    assert faults.counts == {"cell ignored": 1}
    assert bad[:20] in faults.quoted[0].message + faults.quoted[0].quote
    assert job["user"] == "alice"


def test_a_state_that_no_release_documents_is_kept_as_unknown_and_quoted(jobs: Jobs) -> None:
    (job,), faults = jobs({**JOB, "State": "TELEPORTED"})
    assert job["state"] == "UNKNOWN"
    assert faults.counts == {"cell ignored": 1}


def test_an_end_before_the_start_is_not_believed(jobs: Jobs) -> None:
    (job,), faults = jobs({**JOB, "End": "2024-05-01T00:30:00", "Elapsed": ""})
    assert (job["end_time"], job["elapsed_s"]) == (None, None)
    assert faults.counts == {"cell ignored": 1}


def test_unlimited_and_partition_limits_are_no_limits(jobs: Jobs) -> None:
    for word in ("UNLIMITED", "Partition_Limit", "INVALID", ""):
        (job,), faults = jobs({**JOB, "Timelimit": word})
        assert job["time_limit_s"] is None
        assert job["time_efficiency"] is None
        assert faults.total == 0


def test_raw_columns_do_where_the_others_are_missing(read_text: Read) -> None:
    table, _ = read_text(
        "JobIDRaw|State|Submit|Start|End|ElapsedRaw|TimelimitRaw|AllocCPUS\n"
        "7|COMPLETED|1714521600|1714525200|1714532400|7200|240|4\n"
    )
    (job,) = jobs_of(table)
    assert (job["elapsed_s"], job["time_limit_s"], job["wait_s"]) == (7200, 14_400, 3600)


def test_the_same_rows_read_twice_are_one_job_and_the_later_state_wins(tmp_path: Any, made_up: ModuleType) -> None:
    from hpcplan.report import read_sacct

    running = {**JOB, "State": "RUNNING", "End": "Unknown", "Elapsed": "00:30:00"}
    waiting = {**JOB, "State": "PENDING", "Start": "Unknown", "End": "Unknown", "Elapsed": "00:00:00"}
    paths = []
    for number, row in enumerate((JOB, running, waiting, JOB)):
        path = tmp_path / f"{number}.txt"
        path.write_text(made_up.sacct_text(COLUMNS, [[row.get(name, "") for name in COLUMNS]]))
        paths.append(path)
    for order in (paths, paths[::-1]):
        (job,) = jobs_of(read_sacct(order)[0])
        assert job["state"] == "COMPLETED"
