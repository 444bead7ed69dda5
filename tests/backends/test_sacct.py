from __future__ import annotations

import pytest

from hpcplan.errors import SlurmError
from hpcplan.slurm import sacct
from hpcplan.slurm.marks import Marks
from hpcplan.slurm.records import JobRecord, JobState

# as Slurm 22.05.8 printed them
JOB = {
    "JobIDRaw": "7", "JobID": "7", "JobName": "train", "Cluster": "lab", "User": "ada", "Account": "research",
    "Partition": "batch", "QOS": "normal", "State": "COMPLETED", "Reason": "None", "Comment": "token-1",
    "Submit": "1000", "Eligible": "1000", "Start": "1010", "End": "1110", "TimelimitRaw": "60", "ExitCode": "0:0",
    "Priority": "12", "NNodes": "2", "NodeList": "n[0-1]", "NCPUS": "32",
    "ReqTRES": "billing=32,cpu=32,gres/gpu=16,mem=4000M,node=2", "AllocTRES": "billing=32,cpu=32,gres/gpu=16,node=2",
    "TotalCPU": "01:40.500", "MaxRSS": "", "TRESUsageInTot": "", "ElapsedRaw": "100",
    "Flags": "SchedBackfill,StartRecieved", "WorkDir": "/w",
}  # fmt: skip
STEP = {
    "JobIDRaw": "7.0", "JobID": "7.0", "JobName": "python", "State": "COMPLETED", "Start": "1010", "End": "1110",
    "ExitCode": "0:0", "NNodes": "2", "NodeList": "n[0-1]", "NCPUS": "32", "TotalCPU": "01:40.000",
    "MaxRSS": "2000K", "TRESUsageInTot": "cpu=00:01:40,gres/gpumem=10M,gres/gpuutil=800,mem=4000K",
    "ElapsedRaw": "100",
}  # fmt: skip


def read(*rows: dict[str, str]) -> list[JobRecord]:
    marks = Marks()
    answer = "".join("".join(row.get(name, "") + marks.cell for name in sacct.FIELDS) + "\n" for row in rows)
    return sacct.records(answer, marks)


def test_a_finished_job() -> None:
    (record,) = read(JOB)
    assert (record.job_id, record.state, record.comment, record.cluster) == (7, JobState.COMPLETED, "token-1", "lab")
    assert (record.submit_time, record.start_time, record.end_time) == (1000, 1010, 1110)
    assert (record.time_limit_s, record.exit_code, record.signal) == (3600, 0, 0)
    assert (record.nodes, record.node_list, record.cpus, record.gpus) == (2, "n[0-1]", 32, 16)
    assert record.memory_bytes == 4000 * 1024**2
    assert record.total_cpu_s == pytest.approx(100.5)
    assert record.backfilled is True


def test_the_step_whose_tasks_took_most_memory_together_gives_the_jobs_peak() -> None:
    batch = {**STEP, "JobIDRaw": "7.batch", "MaxRSS": "3000K", "TRESUsageInTot": "mem=3000K"}
    extern = {**STEP, "JobIDRaw": "7.extern", "MaxRSS": "", "TRESUsageInTot": ""}
    first, second = read(JOB, batch, extern, STEP, {**JOB, "JobIDRaw": "8"})
    assert first.max_rss_bytes == 4000 * 1024
    assert (second.job_id, second.max_rss_bytes) == (8, None)


def test_where_the_sum_over_tasks_is_missing_the_largest_task_has_to_do() -> None:
    assert read(JOB, {**STEP, "TRESUsageInTot": "energy=0"})[0].max_rss_bytes == 2000 * 1024


def test_gpu_use_is_the_share_of_all_the_jobs_gpus_over_its_whole_time() -> None:
    idle_shell = {**STEP, "JobIDRaw": "7.batch", "TRESUsageInTot": "gres/gpuutil=0,mem=1M", "MaxRSS": "1M"}
    half_as_long = {**STEP, "ElapsedRaw": "50"}
    assert read(JOB, idle_shell, STEP)[0].gpu_utilisation == pytest.approx(0.5)
    assert read(JOB, idle_shell, half_as_long)[0].gpu_utilisation == pytest.approx(0.25)


def test_a_step_that_was_never_sampled_says_nothing_of_gpu_use() -> None:
    unsampled = {**STEP, "MaxRSS": "0", "TRESUsageInTot": "gres/gpuutil=0"}
    assert read(JOB, unsampled)[0].gpu_utilisation is None
    assert read(JOB, {**STEP, "TRESUsageInTot": "cpu=00:01:40"})[0].gpu_utilisation is None


def test_steps_of_two_attempts_stay_with_their_attempt() -> None:
    first = {**JOB, "State": "REQUEUED", "Submit": "900"}
    records = read(first, {**STEP, "TRESUsageInTot": "mem=1K"}, JOB, {**STEP, "TRESUsageInTot": "mem=2K"})
    assert [(record.state, record.max_rss_bytes) for record in records] == [
        (JobState.REQUEUED, 1024),
        (JobState.COMPLETED, 2048),
    ]


def test_the_newest_attempt_counts_those_that_were_requeued() -> None:
    attempts = read(
        {**JOB, "State": "NODE_FAIL", "Submit": "900"},
        {**JOB, "State": "REQUEUED", "Submit": "950"},
        JOB,
        {**JOB, "JobIDRaw": "9", "JobID": "9"},
    )
    found = sacct.newest(reversed(attempts))
    assert (found[7].submit_time, found[7].restarts) == (1000, 2)
    assert found[9].restarts == 0


def test_another_job_that_was_given_the_same_id_is_no_restart() -> None:
    found = sacct.newest(read({**JOB, "State": "COMPLETED", "Submit": "10"}, JOB))
    assert (found[7].submit_time, found[7].restarts) == (1000, 0)


def test_a_running_job_has_neither_end_nor_exit_code_nor_cpu_time() -> None:
    running = {**JOB, "State": "RUNNING", "End": "Unknown", "TotalCPU": "00:00:00", "Reason": "BeginTime"}
    (record,) = read(running)
    assert (record.end_time, record.exit_code, record.signal, record.total_cpu_s) == (None, None, None, None)
    assert record.reason is None


def test_a_job_cancelled_before_it_started_keeps_why_it_waited() -> None:
    (record,) = read(
        {**JOB, "State": "CANCELLED by 1000", "Start": "None", "NodeList": "None assigned", "Eligible": "Unknown",
         "Reason": "Dependency", "AllocTRES": "", "End": "1050"}
    )  # fmt: skip
    assert (record.state, record.reason) == (JobState.CANCELLED, "Dependency")
    assert (record.start_time, record.eligible_time, record.end_time, record.node_list) == (None, None, 1050, None)
    assert record.gpus == 16


def test_array_tasks_name_their_array() -> None:
    task, waiting = read({**JOB, "JobIDRaw": "35", "JobID": "34_1"}, {**JOB, "JobIDRaw": "34", "JobID": "34_[2-3%1]"})
    assert (task.job_id, task.array_job_id, task.array_task_id) == (35, 34, 1)
    assert (waiting.job_id, waiting.array_job_id, waiting.array_task_id) == (34, 34, None)
    assert (task.array_tasks_waiting, waiting.array_tasks_waiting) == (None, "2-3%1")


def test_components_of_a_heterogeneous_job_name_it_and_their_place() -> None:
    first, second = read({**JOB, "JobIDRaw": "34", "JobID": "34+0"}, {**JOB, "JobIDRaw": "35", "JobID": "34+1"})
    assert (first.job_id, first.het_job_id, first.het_offset, first.array_job_id) == (34, 34, 0, None)
    assert (second.job_id, second.het_job_id, second.het_offset, second.submitted_id) == (35, 34, 1, 34)


@pytest.mark.parametrize("word", ["UNLIMITED", "Partition_Limit", ""])
def test_no_time_limit_is_none(word: str) -> None:
    assert read({**JOB, "TimelimitRaw": word})[0].time_limit_s is None


@pytest.mark.parametrize(("flags", "backfilled"), [("SchedMain", False), ("StartRecieved", None), ("", None)])
def test_who_started_the_job(flags: str, backfilled: bool | None) -> None:
    assert read({**JOB, "Flags": flags})[0].backfilled is backfilled


def test_an_answer_that_makes_no_sense_is_an_error() -> None:
    with pytest.raises(SlurmError, match="sacct: the answer cannot be read"):
        read({**JOB, "Start": "yesterday"})


def test_the_window_is_written_in_utc() -> None:
    arguments = sacct.arguments(Marks(), 1795217276, 1795220876)
    assert "--starttime=2026-11-20T23:27:56" in arguments
    assert "--endtime=2026-11-21T00:27:56" in arguments
