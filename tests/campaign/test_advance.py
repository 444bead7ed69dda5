"""Turns of a campaign: what its policy does by itself, and that a turn cut short anywhere loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.campaign import advance, read_ledger, retry, submit
from hpcplan.campaign.journal import read_journal
from hpcplan.errors import ConflictError, InputError
from hpcplan.plan import Alternative, read_plan
from hpcplan.render import render_plan, write_campaign
from hpcplan.render.manifest import Manifest
from hpcplan.slurm import JobState, NodeRecord

LAST = 102


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


@pytest.fixture
def turn(directory: Path, slurm: Any) -> Callable[[], Any]:
    return lambda: advance(directory, slurm, settle_s=0, sleep=lambda seconds: None)


def events(directory: Path) -> list[str]:
    return [entry.event for entry in read_journal(directory)]


def chain_ends(slurm: Any, *states: JobState, **changes: Any) -> list[int]:
    """End the newest three jobs so."""
    ids = sorted(slurm.records)[-3:]
    for job_id, state in zip(ids, states, strict=True):
        slurm.run(job_id)
        slurm.end(job_id, state, **({"exit_code": 1} if state is JobState.FAILED else {}) | changes)
    return ids


def test_a_turn_of_a_campaign_that_runs_does_nothing(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    before = events(directory)
    found = turn()
    assert (found.status.state.value, found.acts) == ("waiting", ())
    assert events(directory) == before


def test_a_turn_submits_what_is_missing(directory: Path, slurm: Any, turn: Any) -> None:
    (directory / "policy.yaml").write_text("submit: {max_queued: 2}\n")
    submit(directory, slurm)
    assert turn().acts == ()
    slurm.run(100)
    slurm.end(100)
    assert turn().acts == ("submitted train-03",)


def test_a_turn_submits_what_is_missing_also_while_a_job_runs(directory: Path, slurm: Any, turn: Any) -> None:
    (directory / "policy.yaml").write_text("submit: {max_queued: 1}\n")
    submit(directory, slurm)
    slurm.run(100)
    (directory / "policy.yaml").unlink()
    found = turn()
    assert found.acts == ("submitted train-02, train-03",)
    assert (found.status.state.value, found.status.due) == ("running", ())


def test_a_job_that_needs_a_success_that_did_not_come_is_not_waited_for(directory: Path, slurm: Any, turn: Any) -> None:
    manifest = json.loads((directory / "jobs.json").read_text())
    manifest["jobs"][2] |= {"after": [], "after_ok": [manifest["jobs"][1]["key"]]}
    del manifest["sha256"]
    (directory / "jobs.json").write_text(Manifest.model_validate(manifest).text())
    (directory / "policy.yaml").write_text("submit: {max_queued: 2}\n")
    submit(directory, slurm)
    assert turn().status.due == ("train-03",)
    slurm.run(100)
    slurm.end(100)
    slurm.run(101)
    slurm.end(101, JobState.FAILED, exit_code=1)
    found = turn()
    assert found.status.due == ()
    assert found.status.state.value == "failed"
    assert found.acts[0].startswith("stopped: train-02")


@pytest.mark.parametrize(
    ("state", "cause"),
    [(JobState.NODE_FAIL, "node failure"), (JobState.PREEMPTED, "preemption"), (JobState.TIMEOUT, "timeout")],
)
def test_what_is_nobodys_fault_is_gone_on_with(
    directory: Path, slurm: Any, turn: Any, state: JobState, cause: str
) -> None:
    submit(directory, slurm)
    chain_ends(slurm, JobState.COMPLETED, JobState.COMPLETED, state)
    found = turn()
    assert found.acts == (f"retries train-03 after {cause}", "submitted train-03")
    assert found.status.jobs[-1].attempt == 2
    assert slurm.records[103].comment == f"{slurm.records[LAST].comment}r2"
    chain_ends(slurm, *[JobState.COMPLETED] * 3)
    assert turn().status.state.value == "done"


def test_an_application_error_stops_the_campaign_and_is_said_once(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    ids = chain_ends(slurm, JobState.COMPLETED, JobState.FAILED, JobState.FAILED)
    (directory / "state").mkdir()
    (directory / "state" / "failed").write_text(f"train 2 (job {ids[1]}): the trainer left with code 1\n")
    found = turn()
    assert found.acts == (f"stopped: train-02 (job {ids[1]}): application error; not retried",)
    assert turn().acts == ()
    assert events(directory).count("stopped") == 1
    assert any("no longer goes on" in note for note in turn().status.notes)
    assert retry(directory, slurm) == ["train-02", "train-03"]
    assert (directory / "state" / "failed-1").exists()
    assert [step.action for step in submit(directory, slurm, settle_s=0)] == ["already", "submitted", "submitted"]
    assert slurm.dependencies[104] == "afterany:103"


def test_a_timeout_without_progress_is_not_retried_for_ever(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    step_file = directory / "checkpoints" / "latest_checkpointed_iteration.txt"
    step_file.parent.mkdir()
    step_file.write_text("7\n")
    chain_ends(slurm, JobState.COMPLETED, JobState.COMPLETED, JobState.TIMEOUT)
    assert turn().acts[0].startswith("retries train-03")
    slurm.run(103)
    slurm.end(103, JobState.TIMEOUT)
    assert "no step was saved since" in turn().acts[0]
    step_file.write_text("8\n")
    retry(directory, slurm)
    submit(directory, slurm, settle_s=0)
    slurm.run(104)
    slurm.end(104, JobState.TIMEOUT)
    step_file.write_text("9\n")
    assert turn().acts[0].startswith("retries train-03")


def test_retries_are_counted_by_cause(directory: Path, slurm: Any, turn: Any) -> None:
    (directory / "policy.yaml").write_text("retry: {preemption: 2}\n")
    submit(directory, slurm)
    chain_ends(slurm, JobState.COMPLETED, JobState.COMPLETED, JobState.PREEMPTED)
    for job_id in (103, 104):
        assert turn().acts[0].startswith("retries")
        slurm.run(job_id)
        slurm.end(job_id, JobState.PREEMPTED)
    assert turn().acts[0].endswith("preemption; gone on with 2 times already")


def less_memory(plans: ModuleType, factor: float = 0.5, **changes: Any) -> Alternative:
    base = plans.plan()
    estimate = base.estimate.model_copy(update={"memory_bytes": int(4e10 * factor), "iter_time_s": 2 * 90.4})
    return Alternative(plan=plans.sharding(recompute="full", **changes), estimate=estimate, why="slower")


@pytest.fixture
def with_alternatives(plans: ModuleType, tmp_path: Path) -> Path:
    others = (less_memory(plans, 1.5), less_memory(plans, 0.5, micro_batches=256))
    plan = plans.plan(job=plans.job(checkpoint_dir="checkpoints"), alternatives=others)
    write_campaign(render_plan(plan), tmp_path / "other")
    return tmp_path / "other"


def out_of_memory(directory: Path, job_id: int, key: str) -> None:
    (directory / "state").mkdir(exist_ok=True)
    (directory / "state" / "failed").write_text(f"train 2 (job {job_id}): the trainer left with code 1\n")
    (directory / f"llama3-70b-{key}-{job_id}.out").write_text("torch.OutOfMemoryError: CUDA out of memory.\n")


def test_out_of_memory_takes_the_plans_next_sharding_that_needs_less(with_alternatives: Path, slurm: Any) -> None:
    directory = with_alternatives
    submit(directory, slurm)
    step_file = directory / "checkpoints" / "latest_checkpointed_iteration.txt"
    step_file.parent.mkdir()
    step_file.write_text("1000\n")
    ids = chain_ends(slurm, JobState.COMPLETED, JobState.FAILED, JobState.FAILED)
    out_of_memory(directory, ids[1], "train-02")
    found = advance(directory, slurm, settle_s=0)
    assert found.acts[0].startswith("follows plan 2 after train-02")
    ledger = read_ledger(directory)
    assert (ledger.generation, ledger.folder, len(ledger.earlier)) == (2, "plan-02", 3)
    new = read_plan(directory / "plan-02" / "plan.json")
    assert (new.plan.recompute, new.estimate.memory_bytes, new.alternatives) == ("full", 20_000_000_000, ())
    # 1,500 steps are left, of which a job of 950 steps now holds 475, since each takes twice as long
    assert [(one.first_step, one.last_step) for one in new.segments] == [
        (1001, 1375), (1376, 1750), (1751, 2125), (2126, 2500)
    ]  # fmt: skip
    assert [job.key for job in found.status.jobs] == [f"train-0{number}@2" for number in range(1, 5)]
    newest = max(slurm.records)
    assert slurm.scripts[newest].startswith(str(directory / "plan-02"))
    assert slurm.records[newest].work_dir == str(directory)
    assert slurm.records[newest].comment.endswith(":train:4p2")
    assert (directory / "state" / "failed-1").exists()
    chain_of_four = sorted(slurm.records)[-4:]
    for job_id in chain_of_four:
        slurm.run(job_id)
        slurm.end(job_id, JobState.OUT_OF_MEMORY)
    assert "no sharding left that needs less memory" in advance(directory, slurm, settle_s=0).acts[0]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 9))
def test_a_replanning_that_dies_anywhere_is_made_good_by_the_next(
    moment: str, call: int, with_alternatives: Path, slurm: Any, fakes: ModuleType
) -> None:
    directory = with_alternatives
    submit(directory, slurm)
    ids = chain_ends(slurm, JobState.COMPLETED, JobState.FAILED, JobState.FAILED)
    out_of_memory(directory, ids[1], "train-02")
    setattr(slurm, moment, fakes.on_call(call, fakes.die))
    with contextlib.suppress(fakes.Died):
        advance(directory, slurm, settle_s=0)
    slurm.before = slurm.after = lambda name: None
    for _ in range(3):
        found = advance(directory, slurm, settle_s=0)
    assert (found.status.state.value, found.status.generation) == ("waiting", 2)
    comments = [record.comment for record in slurm.records.values()]
    assert len(comments) == len(set(comments)) == 3 + len(found.status.jobs)


def node(name: str, state: str) -> NodeRecord:
    return NodeRecord(name=name, state=state)


def test_a_node_that_fails_twice_is_not_used_any_more(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    slurm.nodes = lambda: [node("n1", "idle"), node("n7", "down"), node("n99", "down")]
    chain_ends(slurm, JobState.COMPLETED, JobState.COMPLETED, JobState.NODE_FAIL)
    turn()
    assert read_ledger(directory).node_failures == {"n7": 1}
    turn()
    assert read_ledger(directory).node_failures == {"n7": 1}
    slurm.run(103)
    slurm.end(103, JobState.NODE_FAIL)
    turn()
    assert read_ledger(directory).node_failures == {"n7": 2}
    assert slurm.excluded[-1] == "n7"


def test_a_budget_that_is_used_up_cancels_what_is_left(directory: Path, slurm: Any, turn: Any) -> None:
    (directory / "policy.yaml").write_text("budget: {node_hours: 16}\n")
    submit(directory, slurm)
    slurm.run(100, seconds=3500)
    assert turn().acts == ()
    slurm.clock += 200
    found = turn()
    assert found.acts[0].startswith("stopped: the budget is used up: 16.")
    assert found.status.state.value == "cancelled"
    assert slurm.cancelled == [102, 101, 100]
    assert turn().acts == ()


def test_a_command_is_told_once_what_happened(directory: Path, slurm: Any, turn: Any) -> None:
    told = directory / "told.jsonl"
    code = "import os,sys;open('told.jsonl','a').write(os.environ['HPCPLAN_EVENT']+' '+sys.stdin.read()+'\\n')"
    policy = {"notify": {"command": [sys.executable, "-c", code], "on": ["done", "retry"]}}
    (directory / "policy.yaml").write_text(json.dumps(policy))
    submit(directory, slurm)
    chain_ends(slurm, JobState.COMPLETED, JobState.COMPLETED, JobState.PREEMPTED)
    turn()
    chain_ends(slurm, *[JobState.COMPLETED] * 3)
    turn()
    turn()
    lines = told.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["retry", "done"]
    message = json.loads(lines[1].split(" ", 1)[1])
    assert (message["event"], message["campaign"]) == ("done", "llama3-70b")


def test_a_webhook_gets_the_document_and_a_broken_one_stops_nothing(directory: Path, slurm: Any, turn: Any) -> None:
    got: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/secret-path"
    (directory / "policy.yaml").write_text(f"notify: {{webhook: '{url}', on: [done]}}\n")
    submit(directory, slurm)
    chain_ends(slurm, *[JobState.COMPLETED] * 3)
    turn()
    server.shutdown()
    server.server_close()
    assert [message["event"] for message in got] == ["done"]
    (directory / "policy.yaml").write_text(f"notify: {{webhook: '{url}', on: [failed], command: [/no/such/thing]}}\n")
    slurm.set(LAST, JobState.FAILED, exit_code=1)
    turn()
    failed = [entry.data["message"] for entry in read_journal(directory) if entry.event == "notify-failed"]
    assert len(failed) == 2
    assert all("secret-path" not in text for text in failed)


def test_a_wrong_policy_names_file_line_and_field(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    (directory / "policy.yaml").write_text("retry:\n  timeout: often\n")
    with pytest.raises(InputError, match=r"policy\.yaml:2: retry\.timeout"):
        turn()


def test_what_runs_or_is_done_is_not_retried(directory: Path, slurm: Any) -> None:
    submit(directory, slurm)
    with pytest.raises(ConflictError, match="has not ended"):
        retry(directory, slurm)
    chain_ends(slurm, *[JobState.COMPLETED] * 3)
    with pytest.raises(ConflictError, match="nothing to retry"):
        retry(directory, slurm)


def test_a_job_that_the_controller_lost_in_a_crash_is_submitted_anew(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    slurm.forget(101)
    assert turn().acts == ()  # too fresh to tell
    slurm.clock += 100
    found = turn()
    assert found.acts[0] == "found that Slurm has lost train-02"
    assert [job.state for job in found.status.jobs] == ["PENDING"] * 3
    assert found.status.jobs[1].attempt == 2
    assert turn().acts == ()


def test_a_job_whose_begin_could_not_be_seen_is_not_submitted_anew(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm, run_in="/scratch/elsewhere")
    slurm.forget(101)
    slurm.clock += 100
    found = turn()
    assert (found.acts, found.status.jobs[1].state) == ((), "UNKNOWN")


def test_a_job_that_was_lost_after_it_had_begun_is_not_started_again(directory: Path, slurm: Any, turn: Any) -> None:
    submit(directory, slurm)
    name = json.loads((directory / "jobs.json").read_text())["jobs"][1]["job_name"]
    log = directory / f"{name}-101.out"
    log.write_text("training begins\n")
    os.utime(log, (slurm.clock, slurm.clock))
    slurm.forget(101)
    slurm.clock += 100
    found = turn()
    assert found.acts == ()
    assert found.status.jobs[1].state == "UNKNOWN"


def test_a_job_that_slurm_holds_after_a_failed_launch_is_released_so_many_times(
    directory: Path, slurm: Any, turn: Any
) -> None:
    (directory / "policy.yaml").write_text("retry: {node_failure: 2}\n")
    submit(directory, slurm)
    slurm.set(100, JobState.PENDING, reason="launch failed requeued held")
    for _ in range(2):
        assert turn().acts == ("released train-01, which a node could not launch",)
    assert slurm.calls.count("release") == 2
    assert turn().acts == ()
    slurm.set(101, JobState.PENDING, reason="JobHeldUser")  # a person's own hold is respected
    assert turn().acts == ()
    assert events(directory).count("release") == 2


def test_without_accounting_nothing_is_taken_for_lost(directory: Path, slurm: Any, turn: Any) -> None:
    slurm.accounting_on = False
    submit(directory, slurm)
    slurm.forget(101)
    slurm.clock += 1000
    found = turn()
    assert found.acts == ()
    assert any("accounting does not answer" in note for note in found.status.notes)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 9))
def test_a_turn_that_dies_anywhere_is_made_good_by_the_next(
    moment: str, call: int, directory: Path, slurm: Any, turn: Any, fakes: ModuleType
) -> None:
    submit(directory, slurm)
    chain_ends(slurm, JobState.COMPLETED, JobState.NODE_FAIL, JobState.NODE_FAIL)
    hook = fakes.on_call(call, fakes.die)
    if moment == "before":
        slurm.before = hook
    else:
        slurm.after = hook
    with contextlib.suppress(fakes.Died):
        turn()
    slurm.before = slurm.after = lambda name: None
    for _ in range(3):
        found = turn()
    assert found.status.state.value == "waiting"
    comments = [record.comment for record in slurm.records.values()]
    assert len(comments) == len(set(comments)) == 5
    assert read_ledger(directory).retries == {"node failure": 1}
