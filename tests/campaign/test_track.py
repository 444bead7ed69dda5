"""The tracker: many campaigns, one question a round, a clean stop, figures for Prometheus."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import generate_latest

from hpcplan.campaign import Round, Tracker, retry, submit
from hpcplan.campaign.metrics import Metrics
from hpcplan.render import write_campaign
from hpcplan.slurm import JobState


@pytest.fixture
def slurm(fakes: ModuleType) -> Any:
    return fakes.FakeSlurm()


@pytest.fixture
def many(rendered: dict[str, str], tmp_path: Path, slurm: Any) -> list[Path]:
    found = []
    for number in range(3):
        write_campaign(rendered, tmp_path / f"c{number}")
        submit(tmp_path / f"c{number}", slurm)
        found.append(tmp_path / f"c{number}")
    slurm.calls.clear()
    return found


def tracker(many: list[Path], slurm: Any, **options: Any) -> Tracker:
    return Tracker(lambda: many, lambda name: slurm, interval_s=lambda one: 0.01, settle_s=lambda one: 0.0, **options)


def test_a_round_asks_slurm_once_for_all_campaigns(many: list[Path], slurm: Any) -> None:
    found = tracker(many, slurm).round()
    assert slurm.calls == ["jobs"]
    assert [turn.status.state.value for turn in found.turns.values()] == ["waiting"] * 3


def test_it_ends_when_nothing_moves_any_more(many: list[Path], slurm: Any) -> None:
    def finish(found: Round) -> None:
        for job_id, record in list(slurm.records.items()):
            if record.state is JobState.PENDING:
                slurm.run(job_id)
                slurm.end(job_id)

    found = tracker(many, slurm, on_round=finish).run(until_done=True)
    assert [turn.status.state.value for turn in found.turns.values()] == ["done"] * 3


def test_slurm_is_not_asked_again_about_what_has_ended_until_somebody_acts(many: list[Path], slurm: Any) -> None:
    one = tracker(many, slurm)
    for job_id in list(slurm.records):
        slurm.run(job_id)
        slurm.end(job_id, JobState.FAILED if job_id == 102 else JobState.COMPLETED, exit_code=int(job_id == 102))
    states = [[turn.status.state.value for turn in one.round().turns.values()] for _ in range(3)]
    assert states[0] == ["failed", "done", "done"]
    slurm.calls.clear()
    found = one.round()
    assert slurm.calls == []
    assert [turn.status.state.value for turn in found.turns.values()] == ["failed", "done", "done"]
    assert not found.moving
    (many[0] / "policy.yaml").write_text("retry: {application_error: 1}\n")
    retry(many[0], slurm)
    acts = one.round().turns[many[0]].acts
    assert acts == ("submitted train-03",)
    assert one.round().moving


def test_it_stops_when_told_and_leaves_nothing_behind(many: list[Path], slurm: Any, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    one = tracker(many, slurm)
    thread = threading.Thread(target=one.run)
    thread.start()
    one.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_slurm_that_does_not_answer_is_asked_less_often(many: list[Path], slurm: Any) -> None:
    slurm.unreachable = True
    one = tracker(many, slurm)
    pauses = []
    for _ in range(6):
        found = one.round()
        assert found.answers == {"fake": False}
        assert len(found.problems) == 3
        pauses.append(one._pause_s(found))
    assert all(0.75 * 0.01 * 2**n <= pause <= 1.25 * 0.01 * 2**n for n, pause in enumerate(pauses, start=1))
    slurm.unreachable = False
    assert one._pause_s(one.round()) == 0.01


def test_a_broken_campaign_does_not_keep_the_others(many: list[Path], slurm: Any) -> None:
    (many[1] / "journal.jsonl").write_text("{}\n{}\n")
    found = tracker(many, slurm).round()
    assert set(found.problems) == {many[1]}
    assert set(found.turns) == {many[0], many[2]}


def test_two_trackers_at_once_submit_nothing_twice(rendered: dict[str, str], tmp_path: Path, slurm: Any) -> None:
    directory = tmp_path / "one"
    write_campaign(rendered, directory)
    (directory / "policy.yaml").write_text("submit: {max_queued: 1}\n")
    submit(directory, slurm)
    (directory / "policy.yaml").unlink()
    both = [threading.Thread(target=tracker([directory], slurm).round) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(slurm.records) == len({record.comment for record in slurm.records.values()}) == 3


def test_figures_for_prometheus(many: list[Path], slurm: Any) -> None:
    slurm.run(100)
    shown = Metrics()
    shown.observe(tracker(many, slurm).round())
    text = generate_latest(shown.registry).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert sum('state="running"} 1.0' in line and line.startswith("hpcplan_campaign_state{") for line in lines) == 1
    assert sum('state="waiting"} 1.0' in line for line in lines) == 2
    assert any(line.startswith("hpcplan_campaign_jobs{") and 'state="PENDING"} 3.0' in line for line in lines)
    assert 'hpcplan_slurm_up{backend="fake"} 1.0' in lines
    assert "hpcplan_rounds_total 1.0" in lines
