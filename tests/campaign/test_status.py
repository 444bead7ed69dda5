"""How a campaign stands: every state, in plain words, and nothing guessed."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import CampaignState, status, submit
from hpcplan.campaign.journal import JOURNAL_NAME, read_journal
from hpcplan.campaign.watch import polite_interval_s, watch
from hpcplan.errors import ConflictError, InputError, SlurmUnreachableError
from hpcplan.slurm.records import JobRecord, JobState
from tests.campaign.tiny import write_tiny_campaign


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


def states(directory: Path, slurm: Any) -> tuple[str, list[str]]:
    result = status(directory, slurm)
    return result.state.value, [job.state for job in result.jobs]


def test_a_rendered_campaign_asks_nobody(directory: Path, slurm: Any) -> None:
    assert states(directory, None) == ("rendered", ["NOT_SUBMITTED"] * 3)
    assert states(directory, slurm) == ("rendered", ["NOT_SUBMITTED"] * 3)
    assert slurm.calls == []


def test_waiting_running_and_done(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    assert states(directory, slurm) == ("waiting", ["PENDING"] * 3)
    slurm.run(100)
    assert states(directory, slurm) == ("running", ["RUNNING", "PENDING", "PENDING"])
    slurm.end(100, JobState.TIMEOUT)
    assert states(directory, slurm) == ("waiting", ["TIMEOUT", "PENDING", "PENDING"])
    for job_id in (101, 102):
        slurm.run(job_id)
        slurm.end(job_id)
    assert states(directory, slurm) == ("done", ["TIMEOUT", "COMPLETED", "COMPLETED"])


@pytest.mark.parametrize("last", [JobState.FAILED, JobState.TIMEOUT, JobState.NODE_FAIL, JobState.OUT_OF_MEMORY])
def test_a_chain_whose_last_job_did_not_end_well_has_failed(last: JobState, directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    for job_id, state in zip((100, 101, 102), (JobState.COMPLETED, JobState.COMPLETED, last), strict=True):
        slurm.run(job_id)
        slurm.end(job_id, state)
    assert status(directory, slurm).state is CampaignState.FAILED


def test_one_question_answers_for_all_jobs(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.calls.clear()
    status(directory, slurm)
    assert slurm.calls == ["jobs"]


def test_reasons_are_in_plain_words_and_in_slurms(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.set(100, JobState.PENDING, reason="QOSMaxNodePerUserLimit")
    first, second, _ = status(directory, slurm).jobs
    assert (first.reason_code, first.reason) == (
        "QOSMaxNodePerUserLimit", "the QOS's limit on nodes for one user stands against it",
    )  # fmt: skip
    assert second.reason == "waiting for the job before it to end"
    slurm.run(100)
    slurm.end(100, JobState.FAILED, exit_code=7)
    assert status(directory, slurm).jobs[0].reason == "its script ended with an error (exit code 7)"


def test_times_come_from_the_clusters_clock(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.run(100, seconds=90)
    job = status(directory, slurm).jobs[0]
    assert (job.elapsed_s, job.end_time, job.expected_s, job.time_limit_s) == (90, None, 82801, 86400)


def test_an_end_that_was_seen_is_remembered_when_slurm_forgets(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    for job_id in (100, 101, 102):
        slurm.run(job_id)
        slurm.end(job_id)
    status(directory, slurm)
    slurm.forget(100, 101, 102)
    assert states(directory, slurm) == ("done", ["COMPLETED"] * 3)
    assert [entry.event for entry in read_journal(directory)].count("ended") == 3
    status(directory, slurm)
    assert [entry.event for entry in read_journal(directory)].count("ended") == 3, "once each"


def test_a_job_that_vanished_unseen_is_unknown_never_guessed(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.forget(100)
    result = status(directory, slurm)
    assert (result.jobs[0].state, result.jobs[0].reason) == ("UNKNOWN", "Slurm no longer knows this job")
    slurm.run(101)
    slurm.end(101)
    slurm.set(102, JobState.FAILED)
    assert states(directory, slurm) == ("partly unknown", ["UNKNOWN", "COMPLETED", "FAILED"])
    slurm.forget(101, 102)
    (directory / JOURNAL_NAME).write_bytes(
        b"".join(line for line in _lines(directory) if b'"ended"' not in line)
    )  # as if nobody had looked
    assert states(directory, slurm) == ("unknown", ["UNKNOWN"] * 3)


@pytest.mark.parametrize(("chained", "state"), [(True, "done"), (False, "partly unknown")])
def test_jobs_side_by_side_are_done_when_each_is_and_a_chain_when_its_last_is(
    chained: bool, state: str, tmp_path: Path, slurm: Any
) -> None:
    directory = write_tiny_campaign(tmp_path / "tiny", 3, chained=chained)
    submit(directory, slurm)
    for job_id in (100, 102):
        slurm.run(job_id)
        slurm.end(job_id)
    slurm.forget(101)
    assert states(directory, slurm) == (state, ["COMPLETED", "UNKNOWN", "COMPLETED"])


def _lines(directory: Path) -> list[bytes]:
    return (directory / JOURNAL_NAME).read_bytes().splitlines(keepends=True)


def test_the_done_marker_is_a_fact_even_if_slurm_forgot(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.forget(100, 101, 102)
    (directory / "state").mkdir()
    (directory / "state" / "done").write_text("2500 steps, job 101\n")
    result = status(directory, slurm)
    assert result.state is CampaignState.DONE
    assert [job.state for job in result.jobs] == ["UNKNOWN"] * 3


@pytest.mark.parametrize(
    "stranger",
    [
        {"comment": "hpcplan:another:train:1"},
        {"comment": None, "name": "somebody-elses"},
        {"comment": None, "submit_time": 1_700_000_000},
        {"cluster": "elsewhere"},
    ],
)
def test_a_reused_id_is_not_taken_for_ours(stranger: dict[str, Any], directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.set(100, JobState.COMPLETED, **stranger)
    job = status(directory, slurm).jobs[0]
    assert (job.state, job.job_id) == ("UNKNOWN", 100)


def test_a_requeued_job_is_still_ours(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.set(100, JobState.PENDING, restarts=1, submit_time=slurm.clock + 5000, reason="BeginTime")
    job = status(directory, slurm).jobs[0]
    assert (job.state, job.restarts) == ("PENDING", 1)


def test_an_interrupted_submission_is_shown_as_such(directory: Path, slurm: Any, fakes: ModuleType) -> None:
    slurm.after = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    result = status(directory, slurm)
    assert (result.state.value, [job.state for job in result.jobs]) == (
        "submitting", ["PENDING", "UNKNOWN", "NOT_SUBMITTED"],
    )  # fmt: skip
    assert "the answer was lost" in str(result.jobs[1].reason)
    assert any("hpcplan submit again" in note for note in result.notes)


def test_progress_comes_from_the_trainers_step_file(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    assert (status(directory, slurm).progress.step, status(directory, slurm).progress.total_steps) == (None, 2500)
    (directory / "checkpoints").mkdir()
    tracker = directory / "checkpoints" / "latest_checkpointed_iteration.txt"
    for text, step in (("700\n", 700), ("release\n", None), ("", None), ("٣\n", None)):
        tracker.write_text(text)
        assert status(directory, slurm).progress.step == step


def test_a_stopped_chain_says_by_what(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    (directory / "state").mkdir()
    (directory / "state" / "failed").write_text("train 1 (job 100): the trainer failed with status 7\n")
    assert (
        "the chain was stopped by train 1 (job 100): the trainer failed with status 7" in status(directory, slurm).notes
    )


def test_no_answer_is_an_error_unless_the_journal_knows_every_end(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    slurm.unreachable = True
    with pytest.raises(SlurmUnreachableError):
        status(directory, slurm)
    slurm.unreachable = False
    for job_id in (100, 101, 102):
        slurm.run(job_id)
        slurm.end(job_id)
    status(directory, slurm)
    slurm.unreachable = True
    result = status(directory, slurm)
    assert result.state is CampaignState.DONE
    assert "Slurm does not answer" in result.notes[0]


def test_jobs_of_another_cluster_are_not_reported_as_vanished(directory: Path, slurm: Any, fakes: ModuleType) -> None:
    submit(directory, slurm)
    with pytest.raises(ConflictError, match="belongs to cluster 'fake'"):
        status(directory, fakes.FakeSlurm(cluster="other"))


def test_status_needs_no_right_to_write(directory: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    submit(directory, slurm)
    for job_id in (100, 101, 102):
        slurm.run(job_id)
        slurm.end(job_id)
    before = _lines(directory)
    real = os.open

    def read_only(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert status(directory, slurm).state is CampaignState.DONE
    assert _lines(directory) == before


def test_a_damaged_journal_is_named_not_guessed_around(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    path = directory / JOURNAL_NAME
    path.write_bytes(path.read_bytes().replace(b'"job_id":101', b'"job_id":191'))
    with pytest.raises(InputError, match=r"journal\.jsonl:5: does not have the checksum"):
        status(directory, slurm)


def test_the_status_is_plain_data(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    data = json.loads(json.dumps(status(directory, slurm).as_dict()))
    assert (data["campaign"], data["state"]) == ("llama3-70b", "waiting")
    assert [(job["stage"], job["segment"], job["job_id"], job["state"]) for job in data["jobs"]] == [
        ("train", 1, 100, "PENDING"), ("train", 2, 101, "PENDING"), ("train", 3, 102, "PENDING"),
    ]  # fmt: skip


def test_every_state_of_slurm_gives_a_campaign_state(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    for state in JobState:
        for job_id in (100, 101, 102):
            slurm.add(JobRecord.from_dict({**slurm.records[job_id].as_dict(), "state": state.value}))
        seen = status(directory, slurm).state
        if state.active:
            assert seen is CampaignState.RUNNING
        elif state.waiting:
            assert seen is CampaignState.WAITING


def test_watching_ends_with_the_campaign(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    script = iter([lambda: slurm.run(100), lambda: slurm.end(100)])

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        step = next(script, None)
        if step:
            step()
        else:
            for job_id in (101, 102):
                slurm.end(job_id)

    waits: list[float] = []
    seen = [result.state.value for result in watch(directory, slurm, interval_s=3, sleep=sleep)]
    assert seen == ["waiting", "running", "waiting", "done"]
    assert waits == [3, 3, 3]


def test_watching_backs_off_while_slurm_is_away_and_comes_back(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        slurm.unreachable = len(waits) <= 6
        if len(waits) == 8:
            for job_id in (100, 101, 102):
                slurm.end(job_id)

    seen = list(watch(directory, slurm, interval_s=15, sleep=sleep))
    assert [result.state.value for result in seen] == ["waiting"] * 8 + ["done"]
    assert all("does not answer" in result.notes[-1] for result in seen[1:7])
    assert seen[7].notes == ()
    assert waits[0] == 15
    assert waits[7] == 15, "back to the usual pace"
    assert waits[1] > 15
    assert max(waits) <= 300 * 1.25


def test_a_real_cluster_is_asked_less_often_than_a_mock(slurm: Any) -> None:
    assert polite_interval_s(slurm) == 15

    class Mock(type(slurm)):  # type: ignore[misc]
        @property
        def name(self) -> str:
            return "mock"

    assert polite_interval_s(Mock()) == 1
