"""``hpcplan share``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcplan.cli import main

CASE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "three-nodes.yaml"


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["share", *words])
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


def test_the_policies_are_compared_by_when_all_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    found = {entry["policy"]: entry for entry in json.loads(run(capsys, str(CASE), "--format", "json")[0])}
    assert {policy: round(entry["makespan_h"], 2) for policy, entry in found.items()} == {
        "equal": 83.33, "priority": 62.5, "proportional": 50.0, "optimal": 50.0,
    }  # fmt: skip
    assert [pool["work_h"] for pool in found["optimal"]["pools"]] == pytest.approx([400, 400, 200])
    table = run(capsys, str(CASE))[0]
    assert "83.33 h" in table
    assert "+66.7%" in table


def test_too_few_rounds_say_how_many_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "at least 3 rounds are needed" in run(capsys, str(CASE), "--max-rounds", "2", code=3)[1]
    assert "more rounds than allowed" in run(capsys, str(CASE), "--max-rounds", "3")[0]


def test_a_file_that_is_not_valid_is_refused_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text("work: 1000 h\npools:\n  - {name: a, cores: 0, memory: 1 GB}\n")
    assert "pools.yaml:3: pools.0.cores" in run(capsys, str(path), code=2)[1].replace("[0]", ".0")
