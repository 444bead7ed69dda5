"""What Slurm forgets, jobs have said themselves: their word counts where Slurm has none, and whose it is, is told."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import advance, cancel, read_ledger, retry, status, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.campaign.ledger import JobLedger
from hpcplan.campaign.own_word import GRACE_S, OwnWords
from hpcplan.campaign.replan import adopt
from hpcplan.campaign.watch import watch
from hpcplan.errors import ConflictError, SlurmUnreachableError
from hpcplan.plan import read_plan
from hpcplan.render.manifest import ManifestJob, read_manifest
from hpcplan.slurm.records import JobState

FIRST = 100


@pytest.fixture
def slurm(fakes: ModuleType, directory: Path) -> Any:
    made = fakes.FakeSlurm()
    submit(directory, made)
    return made


def leave(directory: Path, what: str, key: str = "train-01", job_id: int | str = FIRST, **lines: object) -> None:
    """Leave a job's word as its script does."""
    folder = directory / "state" / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    known = read_ledger(directory).jobs.get(key)
    token = known.token if known is not None else None
    told = {"token": token, "job_id": job_id, "restarts": 0, "node": "n0", **lines}
    (folder / f"{key}-{job_id}.{what}").write_text("".join(f"{name}={value}\n" for name, value in told.items()))


def ended(directory: Path, slurm: Any, exit_code: int = 0, how: str = "ended", after_s: int = 60, **lines: Any) -> None:
    end = slurm.clock + after_s
    leave(directory, "ended", **{"began": slurm.clock, "ended": end, "exit_code": exit_code, "how": how, **lines})


def first(directory: Path, slurm: Any) -> Any:
    return status(directory, slurm).jobs[0]


def turn(directory: Path, slurm: Any) -> Any:
    return advance(directory, slurm, settle_s=0, sleep=lambda seconds: None)


def test_a_job_that_slurm_forgot_has_completed_by_its_own_word(directory: Path, slurm: Any) -> None:
    ended(directory, slurm)
    slurm.forget(FIRST)
    job = first(directory, slurm)
    assert (job.state, job.exit_code, job.elapsed_s, job.known_from) == ("COMPLETED", 0, 60, "job")
    assert job.reason == "by its own word; Slurm has forgotten it"
    entry = [entry for entry in read_journal(directory) if entry.event == "ended"][-1]
    assert (entry.data["job"], entry.data["by"]) == ("train-01", "job")
    (directory / "state" / "jobs" / "train-01-100.ended").unlink()
    assert first(directory, slurm) == job, "the journal remembers whose word it was"
    assert first(directory, slurm) == job
    assert sum(entry.event == "ended" for entry in read_journal(directory)) == 1


def test_one_that_failed_is_retried_by_its_cause(directory: Path, slurm: Any) -> None:
    (directory / "policy.yaml").write_text("retry: {application_error: 1}\n")
    for job_id, key in zip((100, 101, 102), ("train-01", "train-02", "train-03"), strict=True):
        ended(directory, slurm, exit_code=3, key=key, job_id=job_id)
        slurm.forget(job_id)
    job = first(directory, slurm)
    assert (job.state, job.exit_code, job.known_from) == ("FAILED", 3, "job")
    assert job.reason == "its script ended with an error (exit code 3), by its own word; Slurm has forgotten it"
    assert turn(directory, slurm).acts[0] == "retries train-01, train-02, train-03 after application error"


@pytest.mark.parametrize(
    ("said", "state"),
    [("", "CANCELLED"), (" DUE TO TIME LIMIT", "TIMEOUT"), (" DUE TO PREEMPTION", "PREEMPTED"),
     (" DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "NODE_FAIL"), (None, "FAILED")],
)  # fmt: skip
def test_why_slurm_stopped_it_stands_in_its_log(said: str | None, state: str, directory: Path, slurm: Any) -> None:
    ended(directory, slurm, exit_code=143, how="stopped")
    slurm.forget(FIRST)
    name = read_manifest(directory).jobs[0].job_name
    if said is not None:
        line = f"slurmstepd: error: *** JOB 100 ON n0 CANCELLED AT 2026-11-27T10:00:00{said} ***\n"
        (directory / f"{name}-100.out").write_text(line)
    assert first(directory, slurm).state == state


def test_slurms_word_stands_as_long_as_it_has_one(directory: Path, slurm: Any) -> None:
    ended(directory, slurm)
    assert first(directory, slurm).state == "PENDING"
    slurm.run(FIRST)
    job = first(directory, slurm)
    assert (job.state, job.known_from, job.reason) == ("RUNNING", "slurm", None)
    slurm.clock += 1000
    assert "by its own word it has ended with exit code 0; Slurm has not noticed" in (first(directory, slurm).reason)
    slurm.end(FIRST, JobState.COMPLETED)
    assert first(directory, slurm).known_from == "slurm"


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.NODE_FAIL, JobState.CANCELLED])
def test_an_end_that_slurm_forgot_and_made_up_later_is_not_believed(
    state: JobState, directory: Path, slurm: Any
) -> None:
    slurm.run(FIRST)
    ended(directory, slurm, after_s=10)
    slurm.clock += 300
    slurm.end(FIRST, state)
    job = first(directory, slurm)
    assert (job.state, job.elapsed_s, job.known_from) == ("COMPLETED", 10, "job")
    assert job.reason == f"by its own word; Slurm, which forgot that, says {state}"
    slurm.forget(FIRST)
    assert first(directory, slurm).reason == job.reason


def test_a_time_limit_that_was_really_reached_is_believed(directory: Path, slurm: Any) -> None:
    slurm.run(FIRST)
    ended(directory, slurm, after_s=305)  # saved and left after the limit, before it was killed
    slurm.clock += 300
    slurm.end(FIRST, JobState.TIMEOUT)
    assert (first(directory, slurm).state, first(directory, slurm).known_from) == ("TIMEOUT", "slurm")


def test_the_word_of_an_earlier_start_says_nothing_of_a_later_one(directory: Path, slurm: Any) -> None:
    ended(directory, slurm, exit_code=143, how="stopped", restarts=0)
    leave(directory, "began", restarts=1, began=slurm.clock + 100)
    slurm.forget(FIRST)
    job = first(directory, slurm)
    assert (job.state, job.start_time) == ("UNKNOWN", slurm.clock + 100)
    slurm.clock += 100


@pytest.mark.parametrize("token", ["hpcplan:another:train:1", "", None])
def test_the_word_of_another_job_with_the_same_id_is_not_taken(token: str | None, directory: Path, slurm: Any) -> None:
    ended(directory, slurm, token=token)
    slurm.forget(FIRST)
    assert first(directory, slurm).state == "UNKNOWN"


@pytest.mark.parametrize("text", ["", "token", "exit_code=0\n", "token=hpcplan:x\nended=yes\n", "\0\xff" * 9])
def test_half_a_word_is_none(text: str, directory: Path, slurm: Any) -> None:
    ended(directory, slurm)
    path = directory / "state" / "jobs" / "train-01-100.ended"
    token = path.read_text().splitlines()[0]
    slurm.forget(FIRST)
    for content in (text, f"{token}\n{text}", f"{token}\nbegan=1\nended=\nexit_code=x\nhow=ended\n"):
        path.write_text(content, encoding="latin-1")
        assert first(directory, slurm).state in ("UNKNOWN", "LOST")


def test_what_began_and_was_forgotten_may_run_until_its_limit_has_passed_and_is_lost_then(
    directory: Path, slurm: Any
) -> None:
    leave(directory, "began", began=slurm.clock)
    for job_id in (100, 101, 102):
        slurm.forget(job_id)
    limit_s = read_manifest(directory).jobs[0].time_limit_s
    slurm.clock += limit_s
    found = turn(directory, slurm)
    assert found.acts == ("found that Slurm has lost train-02, train-03", "submitted train-02, train-03")
    job = found.status.jobs[0]
    assert (job.state, job.over_by) == ("UNKNOWN", slurm.clock + GRACE_S)
    assert "may still run, until its time limit has passed" in (job.reason or "")
    assert found.status.moving
    with pytest.raises(ConflictError):
        retry(directory, slurm)
    slurm.clock += GRACE_S + 1
    job = first(directory, slurm)
    assert (job.state, job.known_from, job.elapsed_s, job.exit_code) == ("LOST", "limit", None, None)
    assert "how it ended is lost" in (job.reason or "")


def lose_the_last(directory: Path, slurm: Any) -> None:
    for job_id in (100, 101):
        slurm.run(job_id)
        slurm.end(job_id, JobState.COMPLETED)
    leave(directory, "began", "train-03", 102, began=slurm.clock)
    slurm.forget(102)
    slurm.clock += 30 * 86400


def test_a_lost_end_stops_the_campaign_unless_the_policy_says_to_go_on(directory: Path, slurm: Any) -> None:
    lose_the_last(directory, slurm)
    found = turn(directory, slurm)
    assert found.status.state.value == "failed"
    assert found.acts == ("stopped: train-03 (job 102): nobody knows how it ended; not retried",)
    assert [one.state.value for one in watch(directory, slurm, sleep=lambda seconds: None)] == ["failed"]


def test_a_lost_end_is_gone_on_from_where_the_policy_says_so(directory: Path, slurm: Any) -> None:
    (directory / "policy.yaml").write_text("retry: {unknown: 1}\n")
    lose_the_last(directory, slurm)
    found = turn(directory, slurm)
    assert found.acts == ("retries train-03 after unknown", "submitted train-03")
    assert found.status.jobs[2].attempt == 2


def test_what_may_still_run_is_not_retried_before_it_was_cancelled(directory: Path, slurm: Any) -> None:
    for job_id in (100, 101):
        slurm.end(job_id, JobState.COMPLETED)
    leave(directory, "began", "train-03", 102, began=slurm.clock)
    slurm.forget(102)
    with pytest.raises(ConflictError, match="train-03 began and may still run"):
        retry(directory, slurm)
    cancel(directory, slurm, settle_s=0)
    assert slurm.cancelled == [102]
    assert retry(directory, slurm) == ["train-03"]


def test_no_other_plan_takes_over_while_a_forgotten_job_may_still_run(directory: Path, slurm: Any) -> None:
    leave(directory, "began", began=slurm.clock)
    slurm.forget(FIRST)
    plan = read_plan(directory / "plan.json")
    with pytest.raises(ConflictError, match="train-01 began and may still run"):
        adopt(directory, slurm, plan, why="a test")
    adopt(directory, slurm, plan, why="a test", stop=True)
    assert slurm.cancelled == [102, 101, 100]


def test_a_job_that_put_itself_back_into_the_queue_has_not_ended(directory: Path, slurm: Any) -> None:
    ended(directory, slurm, how="requeued")
    slurm.forget(FIRST)
    assert first(directory, slurm).state == "UNKNOWN"


def test_slurms_word_comes_back_when_accounting_does(directory: Path, slurm: Any) -> None:
    ended(directory, slurm, exit_code=1)
    record = slurm.records[FIRST]
    slurm.forget(FIRST)
    assert first(directory, slurm).known_from == "job"
    slurm.add(record)
    slurm.run(FIRST)
    slurm.clock += 60
    slurm.end(FIRST, JobState.OUT_OF_MEMORY)
    job = first(directory, slurm)
    assert (job.state, job.known_from) == ("OUT_OF_MEMORY", "slurm")
    assert [entry.data.get("by") for entry in read_journal(directory) if entry.event == "ended"] == ["job", None]


def test_where_slurm_is_away_jobs_that_said_how_they_ended_are_told(directory: Path, slurm: Any) -> None:
    slurm.unreachable = True
    ended(directory, slurm)
    with pytest.raises(SlurmUnreachableError):
        status(directory, slurm)
    for key, job_id in (("train-02", 101), ("train-03", 102)):
        ended(directory, slurm, key=key, job_id=job_id)
    result = status(directory, slurm)
    assert (result.state.value, [job.known_from for job in result.jobs]) == ("done", ["job"] * 3)
    assert "Slurm does not answer" in result.notes[-1]


def sweep(directory: Path) -> tuple[OwnWords, ManifestJob, JobLedger]:
    job = ManifestJob(
        key="sweep", stage="sweep", segment=1, script="sweep.sbatch", job_name="m-sweep", expected_s=1,
        time_limit_s=60, nodes=1,
    )  # fmt: skip
    return OwnWords(directory), job, JobLedger("sweep", token="hpcplan:c:sweep:1", job_id=7)


def test_an_array_has_ended_when_each_of_its_tasks_has(tmp_path: Path) -> None:
    def task(number: int, exit_code: int | None = None) -> None:
        lines: dict[str, Any] = {"token": "hpcplan:c:sweep:1", "tasks": 3, "began": 1000 + number}
        leave(tmp_path, "began", "sweep", f"7_{number}", **lines)
        if exit_code is not None:
            lines |= {"ended": 1100 + number, "exit_code": exit_code, "how": "ended"}
            leave(tmp_path, "ended", "sweep", f"7_{number}", **lines)

    task(0, 0)
    task(1, 0)
    words, job, known = sweep(tmp_path)
    found = words.of(job, known)
    assert found is not None
    assert (found.began, found.record) == (1000, None), "one has not even begun"
    task(2)
    assert (word := sweep(tmp_path)[0].of(job, known)) is not None
    assert word.record is None
    task(2, 5)
    assert (word := sweep(tmp_path)[0].ended(job, known)) is not None
    assert word.record is not None
    assert (word.record.job_id, word.record.state, word.record.exit_code) == (7, JobState.FAILED, 5)
    assert (word.record.start_time, word.record.end_time) == (1000, 1102)
    task(2, 0)
    assert (word := sweep(tmp_path)[0].ended(job, known)) is not None
    assert word.record is not None
    assert word.record.state is JobState.COMPLETED


def test_tasks_of_an_array_that_left_only_logs_have_begun(tmp_path: Path) -> None:
    words, job, known = sweep(tmp_path)
    assert words.of(job, known) is None
    for name in ("m-sweep-7_0.out", "m-sweep-7_11.out", "m-sweep-70_1.out"):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / "m-sweep-7_0.out", (500, 500))
    os.utime(tmp_path / "m-sweep-7_11.out", (900, 900))
    words.look_anew()
    found = words.of(job, known)
    assert found is not None
    assert (found.began, found.over_by, found.record) == (None, 900 + 60 + GRACE_S, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m-sweep-70_1.out", "m-sweep-7_0.out", "m-sweep-7_11.out"
    ]  # fmt: skip
