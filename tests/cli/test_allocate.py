"""``hpcplan allocate``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcplan.cli import main
from hpcplan.plan import read_plan
from hpcplan.schedule.sharing import Pricing, read_portfolio
from hpcplan.site import load_site

CASE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "three-nodes.yaml"
PORTFOLIO = """\
name: spring
workloads:
  - {workload: bert-large, name: encoder, priority: 3, tokens: 20B}
  - {workload: bert-large, name: late, tokens: 10B, arrival: 2 h, weight: 5}
  - {workload: llama3-8b, name: chat, tokens: 1B, global_batch: 64, sequence_length: 4096, priority: 2}
"""


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["allocate", *words])
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def written(tmp_path: Path, text: str = PORTFOLIO) -> str:
    path = tmp_path / "portfolio.yaml"
    path.write_text(text)
    return str(path)


def test_all_policies_are_simulated_and_campaigns_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [written(tmp_path), "--site", "mixed-lab", "--format", "json", "-o", str(tmp_path / "out")]
    out, err = run(capsys, *words, "--plot", str(tmp_path / "who.svg"))
    data = json.loads(out)
    assert [entry["policy"] for entry in data["policies"]] == ["equal", "priority", "proportional", "optimal"]
    best = data["policies"][-1]
    assert best["optimum"]["proved"]
    assert all(best["value"] <= entry["value"] * (1 + 1e-9) for entry in data["policies"])
    assert json.loads((tmp_path / "out" / "allocation.json").read_text())["campaigns"] == data["campaigns"]
    assert (tmp_path / "who.svg").read_text().startswith("<?xml")
    for allocation in best["allocations"]:
        folder = tmp_path / "out" / allocation["workload"]
        plan = read_plan(folder / "plan.json")
        (piece,) = allocation["pieces"]
        assert (plan.placement.node_group, plan.plan.nodes) == (piece["pool"], piece["nodes"])
        assert plan.training.time_to_train_s == pytest.approx(allocation["end_s"] - allocation["start_s"], rel=1e-3)
        assert (folder / "train-01.sbatch").is_file()
    assert err.count("hpcplan submit") == 3


def test_several_policies_are_compared_and_the_last_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [written(tmp_path), "--site", "mixed-lab", "--policy", "optimal", "--policy", "equal", "--format", "json"]
    out, _ = run(capsys, *words, "-o", str(tmp_path / "out"))
    data = json.loads(out)
    assert [entry["policy"] for entry in data["policies"]] == ["optimal", "equal"]
    for allocation in data["policies"][-1]["allocations"]:
        plan = read_plan(tmp_path / "out" / allocation["workload"] / "plan.json")
        assert plan.plan.nodes == allocation["pieces"][0]["nodes"]


def test_campaigns_that_were_submitted_are_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "workloads:\n  - {workload: bert-large, tokens: 1B}\n"
    words = [written(tmp_path, text), "--site", "mixed-lab", "--policy", "equal", "-o", str(tmp_path / "out")]
    run(capsys, *words)
    run(capsys, *words)
    (tmp_path / "out" / "bert-large" / "journal.jsonl").write_text("")
    assert "was submitted" in run(capsys, *words, code=1)[1]


def test_curves_are_kept_and_fit_what_the_planner_says(tmp_path: Path) -> None:
    portfolio, wanted = read_portfolio(Path(written(tmp_path)))
    first = Pricing(load_site("mixed-lab"), cache=tmp_path / "curves")
    problem = first.problem(portfolio, wanted)
    assert first.asked > 0
    again = Pricing(load_site("mixed-lab"), cache=tmp_path / "curves")
    assert again.problem(portfolio, wanted) == problem
    assert again.asked == 0
    for job in problem.jobs:
        for pool in problem.pools:
            runs = [option.run_s for option in job.at(pool)]
            assert runs == sorted(runs, reverse=True), "more nodes are in the curve only where they are faster"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{workload: bert-large, deadline: 1 h}", ["deadline binds", "what would do: bert-large: a deadline of"]),
        ("{workload: bert-large, budget: 3}", ["budget binds", "the cheapest way"]),
        ("{workload: gpt3-175b}", ["gpt3-175b runs on no pool", "memory binds"]),
    ],
)
def test_what_no_allocation_can_give_says_what_binds_and_what_would_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, words: list[str]
) -> None:
    _, err = run(capsys, written(tmp_path, f"workloads:\n  - {line}\n"), "--site", "mixed-lab", code=3)
    for word in words:
        assert word in err


def test_a_workload_that_fits_nowhere_is_told_why_pool_by_pool_each_time(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    portfolio = written(tmp_path, "workloads:\n  - {workload: gpt3-175b}\n")
    _, first = run(capsys, portfolio, "--site", "mixed-lab", code=3)
    _, again = run(capsys, portfolio, "--site", "mixed-lab", code=3)
    assert first == again, "the second answer comes from the cache of curves"
    assert [line.split(":")[0] for line in first.splitlines()[1:] if "binds" in line] == ["h100", "a100", "rtx"]


def test_a_deadline_before_the_arrival_is_an_error_of_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = "{workload: bert-large, arrival: 3 d, deadline: 2 d}"
    _, err = run(capsys, written(tmp_path, f"workloads:\n  - {line}\n"), "--site", "mixed-lab", code=2)
    assert "workloads[0].deadline: must be after 'arrival'" in err


def test_one_wrong_workload_does_not_make_the_list_too_short(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, err = run(capsys, written(tmp_path, "workloads:\n  - {workload: x, priority: -1}\n"), "--site", "mixed-lab",
                 code=2)  # fmt: skip
    assert "priority" in err
    assert "at least" not in err
    _, err = run(capsys, written(tmp_path, "workloads: []\n"), "--site", "mixed-lab", code=2)
    assert "workloads: needs at least 1, and has 0" in err


def test_deadlines_that_cannot_be_kept_together_are_told_apart_from_each_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    one = "{{workload: bert-large, name: w{}, node_group: h100, deadline: 44 h, nodes: 2}}"
    text = "workloads:\n" + "".join(f"  - {one.format(i)}\n" for i in range(2))
    _, err = run(capsys, written(tmp_path, text), "--site", "mixed-lab", "--policy", "optimal", code=3)
    assert "no schedule keeps all deadlines together" in err
    assert "what would do: a deadline of" in err


def test_the_textbook_case_needs_no_site(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(run(capsys, str(CASE), "--format", "json")[0])
    hours = {entry["policy"]: round(entry["makespan_s"] / 3600, 2) for entry in data["policies"]}
    assert hours == {"equal": 83.33, "priority": 62.5, "proportional": 50.0, "optimal": 50.0}
    assert "does not apply" in run(capsys, str(CASE), "--site", "selene", code=2)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workloads:\n  - {workload: bert-lerge}\n", "portfolio.yaml:2: workloads[0].workload"),
        ("workloads:\n  - {workload: bert-large}\n  - {workload: bert-large}\n", "are called 'bert-large'"),
        ("workloads:\n  - {workload: bert-large, arrival: 5}\n", "has no unit"),
        ("workloads:\n  - {workload: bert-large, priorty: 5}\n", "did you mean 'priority'"),
        ("workloads: []\n", "portfolio.yaml:1"),
        ("workloads:\n  - {workload: bert-large, node_group: h200}\n", "no node group 'h200'"),
    ],
)
def test_a_portfolio_that_is_not_valid_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str
) -> None:
    assert said in run(capsys, written(tmp_path, text), "--site", "mixed-lab", code=2)[1]


def test_a_table_says_how_sure_the_optimum_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = run(capsys, written(tmp_path), "--site", "mixed-lab", "--mode", "dynamic", "--spread", "0.1")
    assert "The optimum is proved" in out
    assert "worst rho" in out
    assert "by when" in run(capsys, written(tmp_path), "--site", "mixed-lab", "--objective", "throughput", code=2)[1]
