"""hpcplan data: from files to a manifest, and who reads what when."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.cli import main
from hpcplan.plan import read_plan
from hpcplan.render import render_plan


def run(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert caught.value.code == code, err
    return out, err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 200 files of uneven length."""
    path = tmp_path / "files.csv"
    rows = "".join(f"part-{number:03d}.bin,{100_000 + number * 7919 % 50_000}\n" for number in range(200))
    path.write_text("path,tokens\n" + rows)
    return path


@pytest.fixture
def manifest(tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "shards.jsonl"
    run(capsys, "data", "shard", table, "--global-batch", "64", "--sequence-length", "128", "--dp", "8", "-o", path)
    return path


def test_a_manifest_is_written_and_shown(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "data", "show", manifest)
    assert "200 in 215 pieces" in out
    assert "data-parallel sizes" in out
    data = json.loads(run(capsys, "data", "show", manifest, "--format", "json")[0])
    assert (data["files"], data["lanes"], data["dp"]) == (200, 16, [1, 2, 4, 8, 16])
    assert 0 <= data["gap"] <= data["imbalance"] + 1e-9 < 0.1
    assert data["passes"] is None
    assert len(data["sha256"]) == 64


def test_ranks_of_a_step_read_what_any_other_number_of_ranks_would(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(dp: int) -> list[dict[str, object]]:
        words = ("--step", "500", "--dp", str(dp), "--format", "json")
        return [
            one for rank in range(dp)
            for one in json.loads(run(capsys, "data", "where", manifest, "--rank", str(rank), *words)[0])["ranges"]
        ]  # fmt: skip

    assert read(8) == read(2)
    out, _ = run(capsys, "data", "where", manifest, "--step", "500", "--dp", "8", "--rank", "3")
    assert "Rank 3 of 8, step 500" in out


def test_a_plan_gives_the_figures_and_gets_the_manifest(
    plans: ModuleType, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "plan.json", tmp_path / "with-data.json"
    before.write_text(plans.plan().text())
    path = tmp_path / "shards.jsonl"
    out, err = run(capsys, "data", "shard", table, "--plan", before, "-o", path, "--plan-output", after)
    assert "3 jobs" in out
    assert "hpcplan render" in err
    field = read_plan(after).data_shards
    assert field is not None
    assert (field.manifest, field.lanes % 4) == (str(path.resolve()), 0)
    assert f"export HPCPLAN_DATA_MANIFEST={path.resolve()}" in render_plan(read_plan(after))["train-02.sbatch"]
    words = ("--segment", "2", "--dp", "4", "--rank", "0", "--format", "json")
    data = json.loads(run(capsys, "data", "where", path, *words)[0])
    assert (data["first_step"], data["last_step"]) == (951, 1900)
    assert sum(one["stop"] - one["start"] for one in data["ranges"]) == 950 * 1024 // 4 * 8192


def test_files_that_changed_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.bin").write_bytes(b"12" * 500)
    path = tmp_path / "shards.jsonl"
    words = (
        "--bytes-per-token",
        "2",
        "--pattern",
        "*.bin",
        "--checksum",
        "--global-batch",
        "4",
        "--sequence-length",
        "10",
    )
    run(capsys, "data", "shard", folder, *words, "-o", path)
    assert "4 files, 0 changed" in run(capsys, "data", "check", path, "--content")[0]
    (folder / "b.bin").write_bytes(b"21" * 500)
    out, err = run(capsys, "data", "check", path, "--content", code=1)
    assert "1 changed" in out
    assert "b.bin: has another content" in err
    data = json.loads(run(capsys, "data", "check", path, "--content", "--format", "json", code=1)[0])
    assert [one["path"] for one in data["changed"]] == [str(folder.resolve() / "b.bin")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--global-batch is missing"),
        (("--global-batch", "64"), "--sequence-length is missing"),
        (("--global-batch", "64", "--sequence-length", "128", "--dp", "7"), "dp 7 does not divide"),
        (
            ("--global-batch", "64", "--sequence-length", "128", "--lanes", "6", "--dp", "4"),
            "6 lanes cannot be read by dp 4",
        ),
        (("--global-batch", "64", "--sequence-length", "128", "--lanes", "48"), "48 lanes do not divide"),
        (("--global-batch", "64", "--sequence-length", "128", "--plan-output", "x"), "give the plan with --plan"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "out.jsonl"
    out, err = run(capsys, "data", "shard", table, *words, "-o", path, code=2)
    assert message in err
    assert out == ""
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dp", "8", "--rank", "0"), "--step or --segment"),
        (("--dp", "8", "--rank", "9", "--step", "1"), "ranks are 0 to 7"),
        (("--dp", "3", "--rank", "0", "--step", "1"), "what divides them: 1, 2, 4, 8, 16"),
        (("--dp", "8", "--rank", "0", "--segment", "1"), "was written without a plan"),
    ],
)
def test_what_nobody_reads_is_said(
    manifest: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert message in run(capsys, "data", "where", manifest, *words, code=2)[1]
