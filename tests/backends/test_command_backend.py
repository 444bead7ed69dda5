"""The command backend over made-up commands; on a real Slurm it is tested in tests/slurm/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.slurm import Backend, JobState, StartEstimate, Submission
from hpcplan.slurm.command import CommandBackend

QUEUED = {
    "jobid": "7", "arrayjobid": "7", "name": "train", "state": "RUNNING", "submittime": "1000", "starttime": "1010",
    "endtime": "9999999999", "timelimit": "1:00:00", "exit_code": "0", "restartcnt": "0", "nodelist": "n0",
    "tres-alloc": "cpu=1,gres/gpu=8",
}  # fmt: skip
STORED = {
    "JobIDRaw": "6", "JobID": "6", "JobName": "prepare", "State": "COMPLETED", "Submit": "900", "Start": "910",
    "End": "990", "TimelimitRaw": "60", "ExitCode": "0:0", "NodeList": "n0", "NCPUS": "1",
}  # fmt: skip


@pytest.fixture
def backend(made_up: Any, monkeypatch: pytest.MonkeyPatch) -> CommandBackend:
    found = CommandBackend()
    monkeypatch.setattr(found, "now", lambda: 2000)
    return found


def test_it_is_a_backend(backend: CommandBackend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name == "command"


def test_a_refresh_asks_squeue_once_and_sacct_once(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("squeue", rows=[QUEUED | {"jobid": str(job)} for job in range(100, 200)])
    made_up.answer("sacct", rows=[STORED])
    records = backend.jobs([6, *range(100, 200)])
    assert len(records) == 101
    assert [call["name"] for call in made_up.calls()] == ["squeue", "sacct"]


def test_the_queue_and_history_make_one_list(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("squeue", rows=[QUEUED])
    made_up.answer(
        "sacct", rows=[STORED, {**STORED, "JobIDRaw": "7", "JobID": "7", "Submit": "1000", "State": "RUNNING"}]
    )
    first, second = backend.jobs([6, 7])
    assert (first.job_id, first.state, first.end_time) == (6, JobState.COMPLETED, 990)
    assert (second.job_id, second.state, second.end_time, second.gpus) == (7, JobState.RUNNING, None, 8)


def test_without_ids_it_asks_for_the_users_own(made_up: Any, backend: CommandBackend) -> None:
    backend.jobs(since=1500)
    squeue, *asked = made_up.calls()
    assert "--me" in squeue["argv"]
    assert [call["name"] for call in asked] == ["sacct", "sacct"]
    assert all({f"--uid={os.getuid()}", "--starttime=1970-01-01T00:25:00"} <= set(call["argv"]) for call in asked)


def test_jobs_without_an_eligible_time_are_found_by_how_they_ended(made_up: Any, backend: CommandBackend) -> None:
    short = STORED | {"JobIDRaw": "8", "JobID": "8", "NodeList": "n1"}
    never = STORED | {"JobIDRaw": "9", "JobID": "9", "State": "CANCELLED by 0", "NodeList": "None assigned"}
    made_up.answer("sacct", rows=[STORED])
    made_up.answer("sacct --allocations", rows=[STORED, short, never])
    made_up.answer("sacct --jobs=8", rows=[short, {**short, "Submit": "1", "End": "2"}])
    made_up.answer("sacct --jobs=8,9", rows=[short, never])
    assert [(record.job_id, record.submit_time) for record in backend.accounting(0, 2000)] == [(6, 900), (8, 900)]
    assert [record.job_id for record in backend.jobs(since=0)] == [6, 8, 9]


def test_what_ended_is_asked_of_the_same_time(made_up: Any, backend: CommandBackend) -> None:
    backend.accounting(1000, 2000)
    first, second = (call["argv"] for call in made_up.calls("sacct"))
    assert [word for word in first if "time=" in word] == [word for word in second if "time=" in word]
    assert not any(word.startswith("--state") for word in first)
    (states,) = (word for word in second if word.startswith("--state="))
    assert all(JobState.parse(word).final for word in states.removeprefix("--state=").split(","))


def test_with_ids_it_asks_for_these_whoever_owns_them(made_up: Any, backend: CommandBackend) -> None:
    backend.jobs([3, 4])
    squeue, sacct = made_up.calls()
    assert "--jobs=3,4" in squeue["argv"]
    assert {"--jobs=3,4", "--allusers"} <= set(sacct["argv"])


def test_no_ids_are_no_question(made_up: Any, backend: CommandBackend) -> None:
    assert backend.jobs([]) == []
    backend.cancel([])
    assert made_up.calls() == []


def test_ten_thousand_ids_fit_and_a_hundred_thousand_are_filtered_here(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("squeue", rows=[QUEUED, QUEUED | {"jobid": "1000000"}])
    for count in (10_000, 100_000):
        assert [record.job_id for record in backend.jobs(range(1_000_000, 1_000_000 + count))] == [1_000_000]
    small, large = made_up.calls("squeue")
    assert any(argument.startswith("--jobs=1000000,") for argument in small["argv"])
    assert not any(argument.startswith("--jobs") for argument in large["argv"])


def test_a_single_job_that_the_controller_has_forgotten_is_looked_up_in_accounting(
    made_up: Any, backend: CommandBackend
) -> None:
    made_up.answer("squeue", rc=1, stderr="slurm_load_jobs error: Invalid job id specified\n")
    made_up.answer("sacct", rows=[STORED])
    assert [record.job_id for record in backend.jobs([6])] == [6]


@pytest.mark.parametrize("stderr", ["sacct: error: Problem talking to the database: Connection refused\n", "no\n"])
def test_without_accounting_the_queue_alone_is_told(made_up: Any, backend: CommandBackend, stderr: str) -> None:
    made_up.answer("squeue", rows=[QUEUED])
    made_up.answer("sacct", rc=1, stderr=stderr)
    (record,) = backend.jobs([6, 7])
    assert (record.job_id, record.total_cpu_s, record.max_rss_bytes) == (7, None, None)


def test_without_sacct_the_queue_alone_is_told(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("squeue", rows=[QUEUED])
    made_up.remove("sacct")
    assert [record.job_id for record in backend.jobs()] == [7]


def test_without_a_controller_accounting_alone_is_not_passed_off_as_the_truth(
    made_up: Any, backend: CommandBackend
) -> None:
    made_up.answer("squeue", rc=1, stderr="slurm_load_jobs error: Unable to contact slurm controller\n")
    made_up.answer("sacct", rows=[STORED])
    with pytest.raises(SlurmUnreachableError):
        backend.jobs([6])


def test_a_submission_passes_the_script_as_it_stands_and_the_options_given(
    made_up: Any, backend: CommandBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made_up.answer("sbatch", stdout="42;lab\n")
    plain = Submission(script="a.sbatch", work_dir="/w")
    full = Submission(script="/s/b.sbatch", work_dir="/w", dependency="afterok:1:2", comment="t k", hold=True)
    assert [backend.submit(plain), backend.submit(full)] == [42, 42]
    first, second = made_up.calls("sbatch")
    assert first["argv"] == ["--parsable", "--chdir=/w", str(tmp_path / "a.sbatch")]
    assert second["argv"] == [
        "--parsable", "--chdir=/w", "--dependency=afterok:1:2", "--comment=t k", "--hold", "/s/b.sbatch",
    ]  # fmt: skip


def test_an_answer_to_a_submission_that_is_no_id_is_an_error(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("sbatch", stdout="Submitted, I think\n")
    with pytest.raises(SlurmError, match="where a job id was expected"):
        backend.submit(Submission(script="/a", work_dir="/w"))


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: Job 7 to start at 1795221342 using 8 processors on nodes n[0-7] in partition batch",
        "sbatch: Job 7 to start at 1795221342 a using 8 processors on nodes n[0-7] in partition batch",
        "sbatch: Job 7 to start at 1795221342 on cluster lab a using 8 processors on nodes n[0-7] in partition batch",
        "sbatch: Job 7 to start at 1795221342 using 8 processors on n[0-7]",
    ],
)
def test_the_estimate_of_every_release_is_understood(made_up: Any, backend: CommandBackend, words: str) -> None:
    made_up.answer("sbatch", stderr=f"sbatch: warning: something\n{words}\n")
    assert backend.estimate_start(Submission(script="/a", work_dir="/w")) == StartEstimate(1795221342, "n[0-7]")


def test_no_estimate_is_none_and_a_refusal_is_an_error(made_up: Any, backend: CommandBackend) -> None:
    submission = Submission(script="/a", work_dir="/w")
    assert backend.estimate_start(submission) is None
    made_up.answer("sbatch", rc=1, stderr="allocation failure: Requested node configuration is not available\n")
    with pytest.raises(SlurmError, match="Requested node configuration is not available"):
        backend.estimate_start(submission)


def test_cancelling_what_is_over_is_no_error(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer(
        "scancel",
        rc=1,
        stderr="scancel: error: Kill job error on job id 1: Invalid job id specified\n"
        "scancel: error: Kill job error on job id 2: Job/step already completing or completed\n",
    )
    backend.cancel([1, 2])
    assert made_up.calls()[0]["argv"] == ["1", "2"]


def test_not_being_allowed_to_cancel_is_an_error(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer(
        "scancel",
        rc=1,
        stderr="scancel: error: Kill job error on job id 1: Access/permission denied\n"
        "scancel: error: Kill job error on job id 2: Invalid job id specified\n",
    )
    with pytest.raises(SlurmError, match="permission denied"):
        backend.cancel([1, 2])


def test_actions_on_thousands_of_jobs_take_a_few_calls(made_up: Any, backend: CommandBackend) -> None:
    backend.hold(range(1, 1201))
    backend.release([5])
    backend.requeue([6, 7])
    calls = [call["argv"] for call in made_up.calls("scontrol")]
    assert [argv[0] for argv in calls] == ["uhold"] * 3 + ["release", "requeue"]
    assert ",".join(argv[1] for argv in calls[:3]) == ",".join(str(job) for job in range(1, 1201))
    assert [argv[1:] for argv in calls[3:]] == [["5"], ["6,7"]]


def test_one_failed_chunk_does_not_keep_the_others_from_being_done(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("scontrol", rc=1, stderr="Access/permission denied for job 1\n")
    with pytest.raises(SlurmError, match="permission denied"):
        backend.requeue(range(1, 1001))
    assert len(made_up.calls("scontrol")) == 2


def test_accounting_has_every_attempt_of_everyone(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("sacct", rows=[{**STORED, "State": "REQUEUED", "Submit": "800"}, STORED])
    assert [record.state for record in backend.accounting(0, 2000)] == [JobState.REQUEUED, JobState.COMPLETED]
    argv = made_up.calls()[0]["argv"]
    assert {"--allusers", "--duplicates"} <= set(argv)
    assert "--endtime=1970-01-01T00:33:20" in argv


def test_ping_says_who_answers(made_up: Any, backend: CommandBackend) -> None:
    config = "ClusterName = lab\nSLURM_VERSION = 24.05.1\nAccountingStorageType = accounting_storage/{}\n"
    made_up.answer("scontrol", stdout=config.format("slurmdbd"))
    info = backend.ping()
    assert (info.cluster, info.version, info.accounting) == ("lab", "24.05.1", True)
    made_up.answer("sacct", rc=1, stderr="Connection refused\n")
    assert not backend.ping().accounting
    made_up.answer("scontrol", stdout=config.format("none"))
    asked = len(made_up.calls("sacct"))
    assert not backend.ping().accounting
    assert len(made_up.calls("sacct")) == asked


def test_json_is_never_asked_for(made_up: Any, backend: CommandBackend) -> None:
    made_up.answer("sbatch", stdout="1\n")
    backend.jobs()
    backend.nodes()
    backend.partitions()
    backend.accounting(0, 1)
    backend.ping()
    backend.submit(Submission(script="/a", work_dir="/w"))
    assert made_up.calls()
    assert not any("json" in argument for call in made_up.calls() for argument in call["argv"])
