"""``wait``, ``logs``, ``history``, ``retry``, ``replan`` and ``track`` as people type them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import submit
from hpcplan.cli import COMMANDS
from hpcplan.slurm.records import JobState, NodeRecord
from tests.cli.campaigns import Run


def ends(slurm: Any, *states: JobState) -> None:
    for job_id, state in zip(sorted(slurm.records)[-len(states) :], states, strict=True):
        slurm.run(job_id)
        slurm.end(job_id, state, **({"exit_code": 1} if state is JobState.FAILED else {}))


@pytest.mark.parametrize("name", ["wait", "logs", "history", "retry", "replan", "track"])
def test_help_begins_as_the_table_of_commands_says_and_has_an_example(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert COMMANDS[name][1] in " ".join(out.split())
    assert "Example" in out


def test_wait_ends_with_the_campaign(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    ends(slurm, *[JobState.COMPLETED] * 3)
    code, out, _ = run("wait", "campaign")
    assert (code, out.startswith("llama3-70b: done")) == (0, True)
    slurm.set(102, JobState.FAILED, exit_code=1)
    code, out, _ = run("wait", "campaign", "--format", "json")
    assert (code, json.loads(out)["state"]) == (1, "failed")


def test_wait_gives_up_when_the_time_is_over(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, out, err = run("wait", "campaign", "--timeout", "0.0001 s")
    assert (code, out.startswith("llama3-70b: waiting")) == (1, True)
    assert "are over" in err
    assert run("wait", "campaign", "--timeout", "soon")[0] == 2


def test_logs_shows_the_end_of_the_newest_log_or_of_the_job_named(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, _, err = run("logs", "campaign")
    assert (code, "no job of the campaign has written a log yet" in err) == (2, True)
    (campaign / "llama3-70b-train-01-100.out").write_text("".join(f"line {n}\n" for n in range(100)))
    (campaign / "llama3-70b-train-02-101.out").write_text("second\n")
    assert run("logs", "campaign")[1] == "second\n"
    assert run("logs", "campaign", "--job", "train-01", "-n", "2")[1] == "line 98\nline 99\n"
    assert run("logs", "campaign", "--path")[1].strip().endswith("train-02-101.out")
    code, _, err = run("logs", "campaign", "--job", "train-1")
    assert (code, "did you mean 'train-01'" in err) == (2, True)


def test_history_tells_the_journal_in_words(run: Run, campaign: Path, slurm: Any) -> None:
    assert "nothing was done with it yet" in run("history", "campaign")[2]
    submit(campaign, slurm)
    ends(slurm, JobState.COMPLETED, JobState.COMPLETED, JobState.TIMEOUT)
    run("status", "campaign")
    out = run("history", "campaign")[1]
    assert "train-02, after afterany:100" in out
    assert "train-03 (job 102): TIMEOUT on n[1-16]" in out
    entries = json.loads(run("history", "campaign", "-n", "2", "--format", "json")[1])
    assert [entry["event"] for entry in entries] == ["ended", "ended"]


def test_whose_word_an_end_is_stands_in_status_and_history(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    jobs = campaign / "state" / "jobs"
    jobs.mkdir(parents=True)
    begun = f"restarts=0\nnode=n0\nbegan={slurm.clock}\n"
    for key, job_id, end in (
        ("train-01", 100, f"ended={slurm.clock + 9}\nexit_code=0\nhow=ended\n"),
        ("train-02", 101, ""),
    ):
        what = "ended" if end else "began"
        text = f"token={slurm.records[job_id].comment}\njob_id={job_id}\n{begun}{end}"
        (jobs / f"{key}-{job_id}.{what}").write_text(text)
        slurm.forget(job_id)
    slurm.clock += 30 * 86400
    told = json.loads(run("status", "campaign", "--format", "json")[1])["jobs"]
    assert [(job["state"], job["known_from"]) for job in told] == [
        ("COMPLETED", "job"), ("LOST", "limit"), ("PENDING", "slurm")
    ]  # fmt: skip
    assert "by its own word; Slurm has forgotten it" in run("status", "campaign")[1]
    out = run("history", "campaign")[1]
    assert "train-01 (job 100): COMPLETED, by its own word" in out
    assert "train-02 (job 101): its end is lost" in out


def test_retry_goes_on_with_a_failed_chain(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    code, _, err = run("retry", "campaign")
    assert (code, "has not ended" in err) == (1, True)
    ends(slurm, JobState.COMPLETED, JobState.FAILED, JobState.FAILED)
    code, out, _ = run("retry", "campaign", "--why", "the disk is back")
    assert (code, out) == (0, "train-02: submitted as job 103\ntrain-03: submitted as job 104\n")
    assert "attempt 2" in run("status", "campaign")[1]
    assert "the disk is back" in run("history", "campaign")[1]


@pytest.fixture
def planned(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    wishes = ("--nodes", "4", "--tokens", "300B", "--global-batch", "1024", "--walltime", "12:00:00")
    assert run("plan", "llama3-8b", "--site", "superpod-h100", *wishes, "-o", "plan.json")[0] == 0
    assert run("render", "plan.json", "-o", "planned")[0] == 0
    return tmp_path / "planned"


def test_replan_goes_on_from_the_checkpoint_on_the_nodes_that_can_be_used(run: Run, planned: Path, slurm: Any) -> None:
    submit(planned, slurm)
    total = json.loads((planned / "jobs.json").read_text())["total_steps"]
    step_file = planned / json.loads((planned / "jobs.json").read_text())["step_file"]
    step_file.parent.mkdir(parents=True, exist_ok=True)
    step_file.write_text(f"{total - 100}\n")
    slurm.nodes = lambda: [NodeRecord(f"dgx{n}", "idle" if n <= 2 else "down", partitions=("batch",)) for n in range(4)]
    partition = json.loads((planned / "plan.json").read_text())["placement"]["partition"]
    slurm.nodes = lambda: [
        NodeRecord(f"dgx{n}", "idle" if n < 2 else "down", partitions=(partition,)) for n in range(4)
    ]
    slurm.run(100)
    code, _, err = run("replan", "planned")
    assert (code, "runs" in err) == (1, True)
    code, out, _ = run("replan", "planned", "--stop", "--dry-run")
    assert (code, "on 2 nodes (before: 4)" in out) == (0, True)
    assert not (planned / "plan-02").exists()
    before = set(slurm.records)
    code, out, _ = run("replan", "planned", "--stop")
    assert (code, out.startswith("plan 2 from step")) == (0, True)
    assert all(slurm.records[job_id].state is JobState.CANCELLED for job_id in before)
    new = json.loads((planned / "plan-02" / "plan.json").read_text())
    assert (new["plan"]["nodes"], new["segments"][0]["first_step"], new["segments"][-1]["last_step"]) == (
        2, total - 99, total
    )  # fmt: skip
    old = json.loads((planned / "plan.json").read_text())
    assert [new["training"][name] for name in ("tokens", "global_batch", "steps")] == [
        old["training"][name] for name in ("tokens", "global_batch", "steps")
    ]  # fmt: skip
    assert new["segments"][0]["time_limit_s"] == 12 * 3600
    out = run("status", "planned", "--format", "json")[1]
    answer = json.loads(out)
    assert (answer["generation"], answer["state"]) == (2, "waiting")
    assert answer["jobs"][0]["key"].endswith("@2")


def test_track_once_takes_one_turn_for_each_campaign_named(run: Run, campaign: Path, slurm: Any) -> None:
    (campaign / "policy.yaml").write_text("submit: {max_queued: 1}\n")
    submit(campaign, slurm)
    (campaign / "policy.yaml").unlink()
    code, out, _ = run("track", "campaign", "--once")
    assert (code, "llama3-70b: submitted train-02, train-03" in out) == (0, True)
    answer = json.loads(run("track", "campaign", "--once", "--format", "json")[1])
    assert (answer["campaigns"][0]["state"], answer["answers"]) == ("waiting", {"fake": True})


def test_track_runs_until_all_is_done_and_serves_figures(
    run: Run, campaign: Path, slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(campaign, slurm)
    pages: list[str] = []
    serve = __import__("prometheus_client").start_http_server

    def remember(port: int, **options: Any) -> Any:
        found = serve(0, **options)
        pages.append(f"http://127.0.0.1:{found[0].server_port}/metrics")
        return found

    monkeypatch.setattr("prometheus_client.start_http_server", remember)
    asked = slurm.before
    texts: list[str] = []

    def before(call: str) -> None:
        asked(call)
        if call == "jobs" and len(texts) == 0 and slurm.calls.count("jobs") > 1:
            texts.append(urllib.request.urlopen(pages[0], timeout=5).read().decode())
            ends(slurm, *[JobState.COMPLETED] * 3)

    slurm.before = before
    code, out, err = run("track", "campaign", "--until-done", "--interval", "0.1", "--metrics", "9464")
    assert (code, "llama3-70b: done" in out) == (0, True)
    assert "/metrics" in err
    assert 'hpcplan_campaign_state{campaign="llama3-70b"' in texts[0]
    assert run("track", "campaign", "--metrics", "none")[0] == 2


def test_a_campaign_that_was_never_submitted_is_wrong_usage(run: Run, campaign: Path) -> None:
    for name in ("wait", "retry", "replan"):
        assert run(name, "campaign")[0] == 2


def test_submit_says_what_comes_later(run: Run, campaign: Path, slurm: Any) -> None:
    (campaign / "policy.yaml").write_text("submit: {max_queued: 1}\n")
    code, out, err = run("submit", "campaign")
    assert code == 0
    assert "later: the queue has no room for it now" in out
    assert "hpcplan track" in err


def test_status_compares_the_step_time_with_the_plans(run: Run, campaign: Path, slurm: Any) -> None:
    submit(campaign, slurm)
    slurm.run(100)
    line = " iteration      120/    2500 | samples: 1 | elapsed time per iteration (ms): 180800.0 | lm loss: 7 |"
    (campaign / "llama3-70b-train-01-100.out").write_text(line + "\n")
    out = run("status", "campaign")[1]
    assert "step 120 of 2,500" in out
    assert "a step takes 181 s by the log, planned 90.4 s (85 to 96): 50% of that speed" in out
    progress = json.loads(run("status", "campaign", "--format", "json")[1])["progress"]
    assert (progress["log_step"], progress["speed"]) == (120, pytest.approx(0.5))


def test_the_tree_of_stages(run: Run, plans: ModuleType, slurm: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from hpcplan.plan import Stage
    from tests.cli.campaigns import render_campaign

    prepare = Stage(name="prepare", command=("make-data",), partition="batch", time_limit_s=600)
    judge = Stage(name="judge", command=("judge",), partition="batch", time_limit_s=600, after=("train",))
    render_campaign(plans, tmp_path / "staged", stages=(prepare, judge), after=("prepare",))
    monkeypatch.chdir(tmp_path)
    submit(tmp_path / "staged", slurm)
    by_comment = {record.comment.split(":", 2)[2]: record for record in slurm.records.values()}
    assert by_comment["judge:1"].dependency == f"afterok:{by_comment['train:3'].job_id}"
    assert f"afterok:{by_comment['prepare:1'].job_id}" in by_comment["train:1"].dependency
    out = run("status", "staged")[1]
    assert "├ train-01" in out
    assert "└ train-03" in out
    assert "0 of 3 completed" in out
