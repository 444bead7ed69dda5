"""``hpcplan status`` as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import submit, watch
from hpcplan.cli import COMMANDS
from hpcplan.cli.status import command
from hpcplan.slurm.records import JobState
from tests.cli.campaigns import Run, render_campaign


def test_its_help_begins_as_the_table_of_commands_says(run: Run) -> None:
    assert (command.help or "").splitlines()[0] == COMMANDS["status"][1]
    assert "Example" in run("status", "--help")[1]


def test_a_campaign_is_shown_job_by_job(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    slurm.run(100, seconds=3600)
    code, out, _ = run("status", "campaign")
    assert code == 0
    assert out.startswith("llama3-70b: running; 1 running, 2 pending")
    assert "1 h 00 min" in out
    assert "n[1-16]" in out
    assert "waiting for the job before it to end" in out


def test_json_has_the_promised_keys(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, out, _ = run("status", "campaign", "--format", "json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["campaign"], answer["state"]) == ("llama3-70b", "waiting")
    for job in answer["jobs"]:
        assert {"stage", "segment", "job_id", "state", "reason"} <= set(job)


def test_what_jobs_sampled_is_told_in_one_line_and_in_json(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    assert json.loads(run("status", "campaign", "--format", "json")[1])["usage"] == []
    folder = campaign / "usage" / "7"
    folder.mkdir(parents=True)
    lines = ["time,node,gpu,gpu_percent,gpu_memory_mib,gpu_power_w,cpu_percent,memory_mib"]
    lines += ["100,n1,0,90,1024,500,,", "100,n1,1,0,0,60,,", "100,n1,,,,,12.0,2048", ""]
    (folder / "n1.csv").write_text("\n".join(lines))
    assert "job 7 uses: GPUs 45% busy, 1 of 2 idle, up to" in run("status", "campaign")[1]
    (used,) = json.loads(run("status", "campaign", "--format", "json")[1])["usage"]
    assert (used["job_id"], used["gpu_used"], used["idle_gpus"]) == (7, 0.45, 1)


def test_it_is_found_by_name_by_being_here_and_as_the_newest(
    run: Run, campaign: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(campaign, slurm)
    assert run("status", "llama3-70b")[1].startswith("llama3-70b: waiting")
    code, _, err = run("status")
    assert code == 0
    assert "the newest campaign: llama3-70b" in err
    monkeypatch.chdir(campaign)
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert out.startswith("llama3-70b: waiting")


def test_what_was_never_submitted_asks_no_slurm(run: Run, campaign: Path, slurm: Any) -> None:
    code, out, _ = run("status", "campaign")
    assert code == 0
    assert out.startswith("llama3-70b: rendered; 3 not submitted")
    assert slurm.calls == []


def test_no_answer_is_exit_code_four(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    slurm.unreachable = True
    code, out, err = run("status", "campaign")
    assert (code, out) == (4, "")
    assert "does not answer" in err


def test_a_campaign_that_nobody_knows_is_bad_input(run: Run, slurm: Any) -> None:
    code, _, err = run("status", "nothing")
    assert code == 2
    assert "no campaign is called 'nothing'" in err


def test_a_damaged_journal_is_bad_input_with_file_and_line(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    journal = campaign / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"job_id":100', b'"job_id":900'))
    code, _, err = run("status", "campaign")
    assert code == 2
    assert "journal.jsonl:3: does not have the checksum" in err


def finish(slurm: Any, last: JobState) -> Any:
    """Return a sleep that ends one job each time it is called."""
    ends = iter([(100, JobState.COMPLETED), (101, JobState.TIMEOUT), (102, last)])

    def sleep(_seconds: float) -> None:
        job_id, state = next(ends)
        slurm.run(job_id)
        slurm.end(job_id, state)

    return sleep


@pytest.mark.parametrize(
    ("last", "code", "word", "counts"),
    [
        (JobState.COMPLETED, 0, "done", "2 completed, 1 timeout"),
        (JobState.FAILED, 1, "failed", "1 completed, 1 timeout, 1 failed"),
    ],
)
def test_watching_prints_a_line_for_each_change_and_ends_with_the_campaign(
    last: JobState,
    code: int,
    word: str,
    counts: str,
    run: Run,
    campaign: Path,
    slurm: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit(campaign, slurm)
    monkeypatch.setattr(watch, "__kwdefaults__", {"interval_s": None, "sleep": finish(slurm, last)})
    status, out, _ = run("status", "campaign", "--watch")
    assert status == code
    assert out.splitlines() == [
        "llama3-70b: waiting; 3 pending",
        "llama3-70b: waiting; 1 completed, 2 pending",
        "llama3-70b: waiting; 1 completed, 1 timeout, 1 pending",
        f"llama3-70b: {word}; {counts}",
    ]


def test_watching_in_json_prints_the_last_status_alone(
    run: Run, campaign: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(campaign, slurm)
    monkeypatch.setattr(watch, "__kwdefaults__", {"interval_s": None, "sleep": finish(slurm, JobState.COMPLETED)})
    code, out, _ = run("status", "campaign", "--watch", "--format", "json")
    assert code == 0
    assert json.loads(out)["state"] == "done"


def test_long_stretches_of_like_jobs_are_one_line(run: Run, plans: ModuleType, tmp_path: Path, slurm: Any) -> None:
    directory = render_campaign(plans, tmp_path / "long", segments=plans.segments(*[50] * 50))
    submit(directory, slurm)
    _, out, _ = run("status", "long")
    assert "… 47 more" in out
    assert len(out.splitlines()) < 15
