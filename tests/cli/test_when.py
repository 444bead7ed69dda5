"""``hpcplan when`` and ``hpcplan plan --objective finish`` as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.campaigns import Run

SWF = "; MaxProcs: 8\n" + "".join(
    f"{job} {job * 60} -1 {300 + job % 7 * 60} {1 + job % 4} -1 -1 -1 900 -1 1 {job % 3} 1 -1 1 -1 -1 -1\n"
    for job in range(1, 120)
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.swf"
    path.write_text(SWF)
    return path


def test_several_sizes_are_answered_at_once(run: Run, trace: Path) -> None:
    code, out, _ = run(
        "when", "--trace", str(trace), "--at", "5000", "--nodes", "1,8", "--time", "10m", "--format", "json"
    )
    assert code == 0
    found = json.loads(out)
    assert [size["nodes"] for size in found["sizes"]] == [1, 8]
    for size in found["sizes"]:
        waits = [size["wait_s"][name] for name in ("p05", "p10", "p50", "p90", "p95")]
        assert waits == sorted(waits)
        assert size["start"]["p50"] == found["now"] + size["wait_s"]["p50"]
    assert found["sizes"][0]["wait_s"]["p50"] <= found["sizes"][1]["wait_s"]["p50"]


def test_a_saved_queue_gives_the_same_answer(run: Run, trace: Path) -> None:
    asked = ("--nodes", "4", "--format", "json", "--back-tests", "30")
    _, first, _ = run("when", "--trace", str(trace), "--at", "4000", "--save", "queue.json", *asked)
    code, second, _ = run("when", "--snapshot", "queue.json", *asked)
    assert code == 0
    assert json.loads(first)["sizes"] == json.loads(second)["sizes"]


def test_changes_and_demand_are_told_beside(run: Run, trace: Path) -> None:
    code, out, _ = run(
        "when", "--trace", str(trace), "--at", "5000", "--what-if", "nodes=+8", "--what-if", "limits", "--demand", "2",
        "--format", "json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert [one["change"] for one in found["what_if"]] == ["nodes=+8", "limits"]
    assert found["what_if"][0]["saved_hours"]["p50"] > 0
    assert len(found["demand"][0]["days"]) == 2
    code, out, _ = run("when", "--trace", str(trace), "--at", "5000", "--what-if", "nodes=+8", "--demand", "1")
    assert code == 0
    assert "saved h" in out
    assert "load of the next days" in out


def test_a_script_says_what_it_asks_for(run: Run, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text("#!/bin/sh\n#SBATCH --nodes=3 --time=20\ntrue\n")
    code, out, _ = run("when", "job.sbatch", "--trace", str(trace), "--at", "5000", "--format", "json")
    assert code == 0
    size = json.loads(out)["sizes"][0]
    assert (size["nodes"], size["time_limit_s"]) == (3, 1200)


def test_the_components_of_a_heterogeneous_script_are_asked_for_together(run: Run, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text("#!/bin/sh\n#SBATCH -N3 -t 20\n#SBATCH hetjob\n#SBATCH -N2\ntrue\n")
    code, out, _ = run("when", "job.sbatch", "--trace", str(trace), "--at", "5000", "--format", "json")
    assert code == 0
    assert [one["nodes"] for one in json.loads(out)["sizes"]] == [5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "5"), "--trace and --at go together"),
        (("--nodes", "0"), "--nodes: '0' is not like"),
        (("--nodes", "9"), "9 processors were asked for; there are 8"),
        (("--time", "soon"), "--time"),
        (("--what-if", "magic"), "--what-if: 'magic' is no change"),
    ],
)
def test_wrong_usage_is_said(run: Run, trace: Path, words: tuple[str, ...], said: str) -> None:
    where = () if "--at" in words else ("--trace", str(trace), "--at", "5000")
    code, _, err = run("when", *where, *words)
    assert code == 2
    assert said in err


def test_the_mock_cluster_is_asked_like_any_other(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path / "mock"))
    run("mock", "start", "mixed-lab", "--load", "1.2", "--history", "12h", "--speed", "0", "--seed", "3")
    words = ("when", "--backend", "mock", "--nodes", "1", "--back-tests", "0", "--samples", "20")
    code, out, _ = run(*words, "--time", "1h", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert found["history"] > 0
    assert found["running"] > 0
    code, _, err = run(*words, "--partition", "nowhere")
    assert code == 2
    assert "invalid partition" in err.lower()


def test_a_plan_for_the_finish_says_why_and_draws_it(run: Run, trace: Path, tmp_path: Path) -> None:
    words = ("plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "16:32", "--partition", "batch",
             "--tokens", "5B", "--objective", "finish")  # fmt: skip
    code, out, _ = run(*words, "--plot", "t.svg", "-o", "plan.json")
    assert code == 0
    assert "nothing is known of the queue" in out
    assert "time to solution" in out
    assert (tmp_path / "t.svg").stat().st_size > 2000
    assert json.loads((tmp_path / "plan.json").read_text())["search"]["objective"] == "finish"
    code, out, _ = run(*words, "--history", str(trace), "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert {option["nodes"] for option in found["finish"]["options"]} == {16, 32}
    assert any("ordinary moments of the history" in note for note in found["notes"])
    code, _, err = run("plan", "llama3-8b", "--site", "superpod-h100", "--queue", "auto")
    assert code == 2
    assert "--objective finish" in err
