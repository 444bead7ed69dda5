"""Submitting a campaign in good weather and bad; every job once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import campaigns, preview, sbatch_line, status, submit
from hpcplan.campaign.journal import JOURNAL_NAME, read_journal
from hpcplan.campaign.submit import sbatch_words
from hpcplan.errors import ConflictError, HpcplanError, InputError, SlurmError, SlurmUnreachableError
from hpcplan.render import render_plan, write_campaign
from hpcplan.slurm.records import JobState, Submission


def events(directory: Path) -> list[str]:
    return [entry.event for entry in read_journal(directory)]


def test_a_chain_is_submitted_in_order_each_after_the_one_before(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    steps = submit(directory, slurm)
    assert [(step.job.key, step.action, step.job_id) for step in steps] == [
        ("train-01", "submitted", 100),
        ("train-02", "submitted", 101),
        ("train-03", "submitted", 102),
    ]
    assert list(slurm.dependencies.values()) == [None, "afterany:100", "afterany:101"]
    assert [Path(script).name for script in slurm.scripts.values()] == [f"train-0{n}.sbatch" for n in (1, 2, 3)]
    assert {record.work_dir for record in slurm.records.values()} == {str(directory)}
    assert events(directory) == ["opened", *["submit", "submitted"] * 3]


def test_every_job_carries_its_own_token(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    submit(directory, slurm)
    campaign_id = read_journal(directory)[0].data["campaign"]
    assert [record.comment for record in slurm.records.values()] == [
        f"hpcplan:{campaign_id}:train:{segment}" for segment in (1, 2, 3)
    ]


def test_submitting_again_submits_nothing(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    submit(directory, slurm)
    again = submit(directory, slurm)
    assert [step.action for step in again] == ["already"] * 3
    assert slurm.calls.count("submit") == 3


def test_a_submitted_campaign_is_on_the_list(directory: Path, fakes: ModuleType) -> None:
    submit(directory, fakes.FakeSlurm())
    (entry,) = campaigns()
    assert (entry.name, entry.directory, entry.backend, entry.cluster) == ("llama3-70b", str(directory), "fake", "fake")
    assert entry.created_at == fakes.START


def test_the_script_is_submitted_as_edited_and_the_journal_says_which(directory: Path, fakes: ModuleType) -> None:
    script = directory / "train-02.sbatch"
    script.write_text(script.read_text() + "# mine\n")
    submit(directory, fakes.FakeSlurm())
    digests = [entry.data["script_sha256"] for entry in read_journal(directory) if entry.event == "submit"]
    manifest = (directory / "jobs.json").read_text()
    assert [digest in manifest for digest in digests] == [True, False, True]


def test_a_refusal_stops_and_the_next_submit_goes_on(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.before = fakes.on_call(4, lambda call: setattr(slurm, "refuses", "Invalid account"))  # ping, submit x 3
    with pytest.raises(SlurmError, match=r"train-03\.sbatch: Invalid account") as caught:
        submit(directory, slurm)
    assert "2 of 3 jobs are submitted" in str(caught.value.hint)
    slurm.refuses = None
    steps = submit(directory, slurm, settle_s=0)
    assert [step.action for step in steps] == ["already", "already", "submitted"]
    assert len(slurm.records) == 3


def test_where_slurm_takes_no_more_jobs_the_rest_comes_later(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.before = fakes.on_call(3, lambda call: setattr(slurm, "refuses", "QOSMaxSubmitJobPerUserLimit"))
    steps = submit(directory, slurm, settle_s=0)
    assert [step.action for step in steps] == ["submitted", "later", "later"]
    assert status(directory, slurm).state.value == "submitting"
    assert [step.action for step in submit(directory, slurm, settle_s=0)] == ["already", "later", "later"]
    slurm.refuses = None
    assert [step.action for step in submit(directory, slurm, settle_s=0)] == ["already", "submitted", "submitted"]
    assert len(slurm.records) == 3


def test_a_limit_on_queued_jobs_is_kept_and_room_is_used_as_it_comes(directory: Path, fakes: ModuleType) -> None:
    (directory / "policy.yaml").write_text("submit: {max_queued: 1}\n")
    slurm = fakes.FakeSlurm()
    for done in range(3):
        actions = [step.action for step in submit(directory, slurm, settle_s=0)]
        assert actions == [*["already"] * done, "submitted", *["later"] * (2 - done)]
        assert submit(directory, slurm, settle_s=0)[done].action == "already"
        slurm.run(100 + done)
        slurm.end(100 + done)
    assert len(slurm.records) == 3


def test_submissions_are_spaced_as_the_policy_says(directory: Path, fakes: ModuleType) -> None:
    (directory / "policy.yaml").write_text("submit: {per_minute: 6}\n")
    naps: list[float] = []
    submit(directory, fakes.FakeSlurm(), settle_s=0, sleep=naps.append)
    assert [round(nap) for nap in naps] == [10, 20]  # the clock stands still here


def test_no_answer_means_exit_code_four_and_nothing_opened(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.unreachable = True
    with pytest.raises(SlurmUnreachableError) as caught:
        submit(directory, slurm)
    assert caught.value.exit_code == 4
    assert events(directory) == []


def test_an_answer_that_was_lost_is_found_by_its_token(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()

    def lose(call: str) -> None:
        raise SlurmUnreachableError("timed out")

    slurm.after = fakes.on_call(2, lose)
    with pytest.raises(SlurmUnreachableError, match="timed out"):
        submit(directory, slurm)
    assert len(slurm.records) == 2
    steps = submit(directory, slurm, settle_s=0)
    assert [step.action for step in steps] == ["already", "found", "submitted"]
    assert [step.job_id for step in steps] == [100, 101, 102]
    assert len(slurm.records) == 3


@pytest.mark.parametrize("keeps_comments", [True, False])
def test_a_lost_job_that_has_ended_meanwhile_is_found(directory: Path, keeps_comments: bool, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.keeps_comments = keeps_comments
    slurm.after = fakes.on_call(1, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.run(100)
    slurm.end(100, JobState.FAILED)
    steps = submit(directory, slurm, settle_s=0)
    assert [(step.action, step.job_id) for step in steps] == [("found", 100), ("submitted", 101), ("submitted", 102)]
    assert slurm.dependencies[101] is None, "what it would wait for is over"


def test_a_namesake_in_another_directory_is_not_taken_for_a_lost_job(
    directory: Path, tmp_path: Path, rendered: dict[str, str], fakes: ModuleType
) -> None:
    slurm = fakes.FakeSlurm()
    slurm.keeps_comments = False
    slurm.before = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.before = lambda call: None
    write_campaign(rendered, tmp_path / "other")
    submit(tmp_path / "other", slurm)
    steps = submit(directory, slurm, settle_s=0)
    assert [(step.action, step.job_id) for step in steps] == [
        ("submitted", 103), ("submitted", 104), ("submitted", 105),
    ]  # fmt: skip


def test_segment_one_is_not_taken_for_segment_ten(plans: ModuleType, tmp_path: Path, fakes: ModuleType) -> None:
    plan = plans.plan(segments=plans.segments(*[250] * 10))
    write_campaign(render_plan(plan), tmp_path)
    slurm = fakes.FakeSlurm()
    submit(tmp_path, slurm)
    lines = (tmp_path / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL_NAME).write_bytes(b"".join(lines[:2]))  # as if it died after the first job's intent
    del slurm.records[100]  # which never arrived
    steps = submit(tmp_path, slurm, settle_s=0)
    assert steps[0].action == "submitted"


def test_a_request_is_given_time_to_arrive_before_it_is_looked_for(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.before = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.before = lambda call: None
    slurm.clock += 2
    waits: list[float] = []

    def arrive(seconds: float) -> None:
        waits.append(seconds)
        token = read_journal(directory)[1].data["token"]
        slurm.submit(Submission(script=str(directory / "train-01.sbatch"), work_dir=str(directory), comment=token))

    steps = submit(directory, slurm, settle_s=5, sleep=arrive)
    assert waits == [3]
    assert (steps[0].action, steps[0].job_id) == ("found", 100)


def test_a_second_job_with_the_same_token_is_cancelled(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.after = fakes.on_call(1, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    twin = Submission(script=slurm.scripts[100], work_dir=str(directory), comment=slurm.records[100].comment)
    slurm.submit(twin)
    steps = submit(directory, slurm, settle_s=0)
    assert steps[0].job_id == 100
    assert slurm.cancelled == [101]
    assert "duplicate" in events(directory)


def test_without_accounting_an_old_lost_job_is_not_guessed_at(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm(accounting=False)
    slurm.after = fakes.on_call(1, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    slurm.forget(100)
    slurm.clock += 3600
    with pytest.raises(ConflictError, match="train-01 was asked for 3600 s ago") as caught:
        submit(directory, slurm, settle_s=0)
    assert "--resubmit-lost" in str(caught.value.hint)
    steps = submit(directory, slurm, settle_s=0, resubmit_lost=True)
    assert [step.action for step in steps] == ["submitted"] * 3


def test_another_cluster_is_refused(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.before = fakes.on_call(3, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    with pytest.raises(ConflictError, match="belongs to cluster 'fake', but the fake backend reaches 'other'"):
        submit(directory, fakes.FakeSlurm(cluster="other"))


def test_another_plan_in_a_submitted_campaign_is_refused(directory: Path, plans: ModuleType, fakes: ModuleType) -> None:
    submit(directory, fakes.FakeSlurm())
    write_campaign(render_plan(plans.plan(segments=plans.segments(2500))), directory)
    with pytest.raises(ConflictError, match="another plan was rendered here"):
        submit(directory, fakes.FakeSlurm())


def test_a_directory_without_a_manifest_is_bad_input(tmp_path: Path, fakes: ModuleType) -> None:
    with pytest.raises(InputError, match=r"jobs\.json: no such file"):
        submit(tmp_path, fakes.FakeSlurm())


def test_a_missing_script_is_found_before_anything_is_submitted(directory: Path, fakes: ModuleType) -> None:
    (directory / "train-03.sbatch").unlink()
    slurm = fakes.FakeSlurm()
    with pytest.raises(InputError, match=r"train-03\.sbatch: no such file"):
        submit(directory, slurm)
    assert slurm.calls == []


def test_a_directory_that_cannot_be_written_is_an_error_before_anything_is_submitted(
    directory: Path, fakes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(directory)):
            raise OSError(30, "Read-only file system")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    slurm = fakes.FakeSlurm()
    with pytest.raises(HpcplanError, match="cannot be written: Read-only file system"):
        submit(directory, slurm)
    assert slurm.calls == []


def test_a_list_of_campaigns_that_cannot_be_written_does_not_stop_a_submission(
    directory: Path, fakes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    monkeypatch.setenv("HPCPLAN_DATA_DIR", str(tmp_path / "data"))
    assert len(submit(directory, fakes.FakeSlurm())) == 3
    assert campaigns() == []


def test_a_preview_touches_nothing_and_shows_every_command(directory: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    steps = preview(directory)
    assert [step.action for step in steps] == ["submit"] * 3
    waits = ["", "'--dependency=afterany:<train-01>' ", "'--dependency=afterany:<train-02>' "]
    assert [sbatch_line(step.submission) for step in steps] == [
        f"sbatch --parsable --chdir={directory} {wait}--comment=hpcplan:NEW:train:{n} {directory}/train-0{n}.sbatch"
        f" hpcplan:NEW:train:{n}"
        for n, wait in enumerate(waits, start=1)
    ]
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    assert campaigns() == []


def test_a_preview_of_an_interrupted_submission_says_what_is_left(directory: Path, fakes: ModuleType) -> None:
    slurm = fakes.FakeSlurm()
    slurm.after = fakes.on_call(2, fakes.die)
    with pytest.raises(fakes.Died):
        submit(directory, slurm)
    steps = preview(directory)
    assert [(step.action, step.job_id) for step in steps] == [("already", 100), ("look-up", None), ("submit", None)]
    assert steps[1].submission.dependency == "afterany:100"


def test_the_previewed_command_is_the_one_that_the_command_backend_runs(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = pytest.importorskip("hpcplan.slurm.command")
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(f'#!/bin/sh\nprintf "%s\\n" "$0" "$@" >{tmp_path}/words\necho 7\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    submission = Submission(
        script=str(directory / "train-02.sbatch"), work_dir=str(directory), dependency="afterany:6",
        comment="hpcplan:x:train:2", token="hpcplan:x:train:2",
    )  # fmt: skip
    assert command.CommandBackend().submit(submission) == 7
    ran = (tmp_path / "words").read_text().splitlines()
    assert [Path(ran[0]).name, *ran[1:]] == sbatch_words(submission)


SUBMITTER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import fakes
from hpcplan.campaign import submit
submit(Path(sys.argv[1]), fakes.FakeSlurm(Path(sys.argv[2])), wait_s=60, settle_s=0)
"""


def test_two_submits_at_once_submit_every_job_once(directory: Path, tmp_path: Path, fakes: ModuleType) -> None:
    code = SUBMITTER.format(tests=str(Path(__file__).parent))
    store = tmp_path / "store"
    command = [sys.executable, "-c", code, str(directory), str(store)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    slurm = fakes.FakeSlurm(store)
    assert len(slurm.records) == 3
    assert len({record.comment for record in slurm.records.values()}) == 3
