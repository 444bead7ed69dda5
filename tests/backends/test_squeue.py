from __future__ import annotations

import pytest

from hpcplan.errors import SlurmError
from hpcplan.slurm import squeue
from hpcplan.slurm.marks import Marks
from hpcplan.slurm.records import JobRecord, JobState

# as Slurm 22.05.8 printed it
RUNNING = {
    "jobid": "18", "arrayjobid": "18", "arraytaskid": "N/A", "name": "odd\nname|x", "cluster": "lab", "username": "ada",
    "account": "research", "partition": "batch", "qos": "normal", "state": "RUNNING", "reason": "None",
    "comment": "a|b\nc", "dependency": "(null)", "submittime": "1795217276", "eligibletime": "1795217276",
    "starttime": "1795217280", "endtime": "1795220880", "timelimit": "1:00:00", "exit_code": "0", "restartcnt": "0",
    "prioritylong": "4294901759", "numnodes": "8", "nodelist": "n[0-7]", "numcpus": "128",
    "tres-alloc": "cpu=128,node=8,billing=128,gres/gpu=64", "workdir": "/tmp/w",
    "hetjobid": "N/A", "hetjoboffset": "N/A",
}  # fmt: skip


def read(**changed: str) -> JobRecord:
    marks = Marks()
    row = {**RUNNING, **changed}
    answer = "".join(row[name] + marks.cell for name in squeue.FIELDS) + "\n"
    (record,) = squeue.records(answer, marks)
    return record


def test_a_running_job() -> None:
    record = read()
    assert (record.job_id, record.state, record.name, record.comment) == (18, JobState.RUNNING, "odd\nname|x", "a|b\nc")
    assert (record.user, record.account, record.cluster, record.qos) == ("ada", "research", "lab", "normal")
    assert (record.submit_time, record.start_time, record.time_limit_s) == (1795217276, 1795217280, 3600)
    assert (record.nodes, record.node_list, record.cpus, record.gpus) == (8, "n[0-7]", 128, 64)
    assert (record.reason, record.dependency, record.array_job_id, record.array_task_id) == (None, None, None, None)
    assert record.priority == 4294901759
    assert record.tres["gres/gpu"] == 64


def test_components_of_a_heterogeneous_job_name_it_and_their_place() -> None:
    assert (read().het_job_id, read().het_offset, read().submitted_id) == (None, None, 18)
    record = read(jobid="19", hetjobid="18", hetjoboffset="1")
    assert (record.job_id, record.het_job_id, record.het_offset, record.submitted_id) == (19, 18, 1, 18)
    assert record.is_among([18])
    assert record.is_among([19])
    assert not record.is_among([20])


def test_a_running_job_has_neither_an_end_nor_an_exit_code() -> None:
    record = read()
    assert (record.end_time, record.exit_code, record.signal) == (None, None, None)


def test_the_expected_start_of_a_pending_job_is_not_its_start() -> None:
    record = read(state="PENDING", starttime="1795219999", nodelist="", reason="Resources")
    assert (record.start_time, record.reason, record.node_list) == (None, "Resources", None)


def test_a_job_cancelled_before_it_started_has_no_start() -> None:
    record = read(state="CANCELLED", starttime="1795217300", endtime="1795217300", nodelist="")
    assert (record.start_time, record.end_time) == (None, 1795217300)


@pytest.mark.parametrize("word", ["768", "3:0"])
def test_a_failed_job_has_its_exit_code_in_the_old_form_and_in_the_new(word: str) -> None:
    record = read(state="FAILED", exit_code=word)
    assert (record.exit_code, record.signal, record.end_time) == (3, 0, 1795220880)


def test_array_tasks_name_their_array() -> None:
    task = read(jobid="35", arrayjobid="34", arraytaskid="1")
    assert (task.job_id, task.array_job_id, task.array_task_id) == (35, 34, 1)
    waiting = read(jobid="34", arrayjobid="34", arraytaskid="2-3%1", state="PENDING", nodelist="")
    assert (waiting.array_job_id, waiting.array_task_id) == (34, None)
    assert (task.array_tasks_waiting, waiting.array_tasks_waiting) == (None, "2-3%1")


@pytest.mark.parametrize(
    ("waiting", "jobs"),
    [("2-5", 4), ("1,3-7:2", 4), ("0-99%8", 8), ("3", 1), ("0-3%10", 4), ("1-4,...", 4), ("...", 1), (None, 1)],
)
def test_waiting_tasks_of_an_array_are_as_many_jobs_as_may_run_at_once(waiting: str | None, jobs: int) -> None:
    assert JobRecord(34, JobState.PENDING, array_tasks_waiting=waiting).jobs_waiting == jobs


@pytest.mark.parametrize(
    ("word", "limit_s"), [("UNLIMITED", None), ("NOT_SET", None), ("2:00", 120), ("1-00:00:00", 86400)]
)
def test_time_limits(word: str, limit_s: int | None) -> None:
    assert read(timelimit=word).time_limit_s == limit_s


def test_restarts_are_counted() -> None:
    assert read(restartcnt="2").restarts == 2


def test_a_state_that_no_release_documents_is_unknown_and_no_error() -> None:
    assert read(state="TELEPORTING").state is JobState.UNKNOWN


def test_times_that_are_not_unix_seconds_are_an_error() -> None:
    with pytest.raises(SlurmError, match="squeue: the answer cannot be read"):
        read(submittime="2026-11-20T23:27:56")


def test_every_field_is_asked_for_whole() -> None:
    marks = Marks()
    layout = squeue.arguments(marks)[-1].removeprefix("--Format=").split(",")
    assert [field.partition(":")[0] for field in layout] == list(squeue.FIELDS)
    assert {field.partition(":")[2] for field in layout} == {f"0{marks.cell}"}
