"""The whole loop as a user walks it, in an empty home: what ran and was learned is in the next plan and report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcplan.calibrate.learn_track import COLUMNS
from tests.cli.campaigns import Run

PLAN = ("plan", "llama3-8b", "--site", "mixed-lab", "--tokens", "200M")
PORTFOLIO = """\
name: three
workloads:
  - {workload: llama3-8b, name: first, tokens: 100M, global_batch: 64, sequence_length: 4096}
  - {workload: llama3-8b, name: second, tokens: 200M, global_batch: 64, sequence_length: 4096}
  - {workload: bert-large, name: third, tokens: 1B}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[Path]:
    """An empty home with a mock cluster that stands still until it is told to go on."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HPCPLAN_SITES", "HPCPLAN_TEMPLATES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path / "mock"))
    code, _, error = run(
        "mock", "start", "mixed-lab", "--load", "0.5", "--history", "24h", "--seed", "1", "--speed", "0"
    )
    assert code == 0, error
    yield home
    run("mock", "stop")


def answer(run: Run, *words: str) -> Any:
    code, out, error = run(*words, "--format", "json")
    assert code == 0, error
    return json.loads(out)


def done(run: Run, *words: str) -> None:
    code, _, error = run(*words)
    assert code == 0, error


def test_what_was_learned_is_in_the_next_plan_forecast_and_report(run: Run, home: Path, tmp_path: Path) -> None:
    first = answer(run, *PLAN, "--objective", "finish", "--queue", "mock", "-o", "plan.json")
    assert first["finish"]["best"]["finish_s"]["p50"] > 0
    assert "evidence" not in first["provenance"]["constants"]["name"]
    done(run, "render", "plan.json", "-o", "campaign")
    done(run, "submit", "campaign", "--backend", "mock")
    done(run, "mock", "advance", "--until-idle")
    (job,) = answer(run, "report", "--since", "2d", "--backend", "mock", "--site", "mixed-lab")["campaigns"]
    assert job["ratio"] == pytest.approx(1, abs=0.05)

    learned = answer(run, "calibrate", "learn", "--site", "mixed-lab", "--backend", "mock", "--since", "2d")
    assert learned["accounting"]["jobs"] > 30
    (pretended,) = learned["track"]
    assert pretended["actual_s"] == pytest.approx(first["estimate"]["iter_time_s"], rel=0.05)
    assert learned["runs"] == 1
    words = f"accounting {json.loads(Path(learned['accounting']['kept']).read_text())['date']}"
    code, out, _ = run(*PLAN, "--nodes", "2", "-o", "again.json")
    assert code == 0
    assert words in out
    assert words in json.loads(Path("again.json").read_text())["provenance"]["constants"]["name"]
    bare = answer(run, "when", "again.json", "--backend", "mock", "--history-days", "0")
    assert "learned for mixed-lab" in bare["evidence"]
    assert "learned" not in answer(run, "when", "again.json", "--backend", "mock", "--back-tests", "0")["evidence"]

    evidence = home / ".config/hpcplan/sites/evidence/mixed-lab"
    rows = [f"{int(time.time()) - 9 + i},c-{i},abc,2,10,9,11,{15 + i / 10}" for i in range(8)]
    (evidence / "track.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    for site in (("--site", "mixed-lab"), ()):  # by the cluster's name, too
        report = answer(run, "report", "--since", "2d", "--backend", "mock", *site)
        assert [row["campaign"] for row in report["tracked"]] == [f"c-{i}" for i in range(8)]
        assert [piece["who"] for piece in report["advice"] if piece["kind"] == "drift"] == ["hpcplan's predictions"]
    hidden = answer(run, "report", "--since", "2d", "--backend", "mock", "--anonymize")
    assert {row["campaign"] for row in hidden["tracked"]} == {f"campaign {i}" for i in range(1, 9)}


def test_an_allocation_is_campaigns_that_run(run: Run, home: Path) -> None:
    Path("portfolio.yaml").write_text(PORTFOLIO)
    done(run, "calibrate", "learn", "--site", "mixed-lab", "--backend", "mock", "--since", "2d")
    found = answer(run, "allocate", "portfolio.yaml", "--site", "mixed-lab", "-o", "shared")
    assert [word.partition(" ")[0] for word in found["evidence"]] == ["accounting"]
    for one in found["campaigns"]:
        done(run, "submit", one["directory"], "--backend", "mock")
    done(run, "mock", "advance", "--until-idle")
    for one in found["campaigns"]:
        state = answer(run, "status", one["directory"])
        assert {job["state"] for job in state["jobs"]} == {"COMPLETED"}


def test_what_was_learned_and_is_damaged_is_refused_by_name(run: Run, home: Path) -> None:
    evidence = home / ".config/hpcplan/sites/evidence/mixed-lab"
    evidence.mkdir(parents=True)
    (evidence / "learned.json").write_text('{"date": "2026-01-01", "jobs": 5, "failures": {}, "limits": [{}]}')
    code, _, error = run("when", "--backend", "mock", "--site", "mixed-lab", "--history-days", "0", "--nodes", "1")
    assert code == 2
    assert "learned.json" in error
