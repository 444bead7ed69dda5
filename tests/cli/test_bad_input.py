"""Bad input, as a user meets it: one clear error with file, line and field, exit code 2, nothing written."""

# ruff: noqa: E501 - tables of cases read better with a case a line

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcplan.cli import main

SITE = """\
name: tiny
node_groups:
  gpu:
    nodes: n[0-7]
    cpus: 16
    memory: 64 GiB
    accelerators: {type: A100-SXM4-80GB, count: 8}
    intra_node: {bandwidth: 300 GB/s}
    nics: {count: 4, bandwidth: 200 Gb/s}
partitions:
  batch: {nodes: gpu, max_time: 1-00:00:00}
fabric:
  levels:
    - {name: leaf, size: 8}
"""
WORKLOAD = """\
name: mine
model: llama3-8b
training: {tokens: 1B, global_batch: 256, sequence_length: 8192}
"""


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join(lines + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)])


def huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(100 * 1024**2)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


# what is wrong: how to make the file, and what the message must say beside the file's name
SITES = {
    "misspelt key": (text(SITE.replace("    memory:", "    memroy:")), ":6: node_groups.gpu.memroy: unknown key; did you mean 'memory'"),
    "wrong unit": (text(SITE.replace("200 Gb/s", "200 GHz")), ":9: node_groups.gpu.nics.bandwidth: 'GHz' is not a unit of bandwidth"),
    "no unit": (text(SITE.replace("200 Gb/s", "200")), ":9: node_groups.gpu.nics.bandwidth: 200 has no unit"),
    "negative number": (text(SITE.replace("cpus: 16", "cpus: -16")), ":5: node_groups.gpu.cpus: input should be greater than 0"),
    "missing node group": (text(SITE.replace("{nodes: gpu,", "{nodes: gpus,")), "no node group is called 'gpus'; did you mean 'gpu'"),
    "yaml syntax": (text(SITE.replace("[0-7]", "[0-7]: [")), ":4: "),
    "empty": (text(""), ": the file is empty"),
    "directory": (lambda path: path.mkdir(), ": is a directory"),
    "100 MB": (huge, ": is 100 MiB large; at most 32 MiB"),
    "alias bomb": (text(bomb()), "aliases expand this file"),
    "binary": (lambda path: path.write_bytes(b"\x7fELF\x00\x01"), ": is a binary file"),
    "missing": (lambda path: None, ": no such file"),
}  # fmt: skip
WORKLOADS = {
    "misspelt key": (text(WORKLOAD.replace("tokens:", "tokns:")), ":3: training.tokns: unknown key; did you mean 'tokens'"),
    "wrong unit": (text(WORKLOAD.replace("1B,", "1 TiB,")), ":3: training.tokens: 'TiB' is not a multiplier"),
    "negative number": (text(WORKLOAD.replace("256", "-256")), ":3: training.global_batch"),
    "unknown model": (text(WORKLOAD.replace("llama3-8b", "lama3-8b")), ":2: model: no model is called 'lama3-8b'; did you mean 'llama3-8b'"),
    "yaml syntax": (text(WORKLOAD.replace("{tokens", "{{tokens")), ":3"),
    "empty": (text("\n\n"), ": the file is empty"),
    "directory": (lambda path: path.mkdir(), ": is a directory"),
    "100 MB": (huge, ": is 100 MiB large"),
    "alias bomb": (text(bomb()), "aliases expand this file"),
    "a list": (text("- 1\n- 2\n"), ":1: must be a mapping of keys, not a list"),
}  # fmt: skip


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == "", "stdout is for results"
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("case", sorted(SITES))
def test_a_bad_site_file(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = SITES[case]
    path = tmp_path / "bad.yaml"
    make(path)
    before = sorted(tmp_path.iterdir())
    message = fails(capsys, "site", "check", str(path))
    assert f"{path}" in message
    assert expected in message
    message = fails(capsys, "plan", "llama3-8b", "--site", str(path), "-o", str(tmp_path / "plan.json"))
    assert expected in message
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


@pytest.mark.parametrize("case", sorted(WORKLOADS))
def test_a_bad_workload_file(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = WORKLOADS[case]
    path = tmp_path / "bad.yaml"
    make(path)
    before = sorted(tmp_path.iterdir())
    message = fails(capsys, "plan", str(path), "--site", "superpod-h100", "-o", str(tmp_path / "plan.json"))
    assert str(path) in message
    assert expected in message
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(SITE)
    path.chmod(0)
    assert "cannot be read: Permission denied" in fails(capsys, "site", "check", str(path))


def test_a_damaged_plan_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(SystemExit) as caught:
        main(["plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "2", "--tokens", "1B", "-o", str(path)])
    assert caught.value.code == 0
    capsys.readouterr()
    data = json.loads(path.read_text())
    data["plan"]["tpp"] = data["plan"].pop("tp")
    path.write_text(json.dumps(data, indent=2))
    message = fails(capsys, "render", str(path), "-o", str(tmp_path / "out"))
    assert "plan.tpp: unknown key; did you mean 'tp'" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plan", "llama3-9b", "--site", "superpod-h100"], "no workload is called 'llama3-9b'; did you mean 'llama3-8b'"),
        (["plan", "llama3-8b", "--site", "superpod"], "no site is called 'superpod'; did you mean"),
        (["plan", "llama3-8b", "--site", "superpod-h100", "--nodes", "8:4"], "--nodes: '8:4' is not a range"),
        (["plan", "llama3-8b", "--site", "superpod-h100", "--tokens", "many"], "--tokens: 'many'"),
        (["plan", "llama3-8b", "--site", "superpod-h100", "--fix", "tq=8"], "--fix 'tq=8': write NAME=VALUE; known: context_exchange, cp, dp,"),
        (["plan", "llama3-8b", "--site", "superpod-h100", "--walltime", "12:30"], "--walltime: '12:30' could be"),
        (["pan"], "no such command 'pan'; did you mean 'plan'"),
        (["plan", "llama3-8b"], "Missing option '--site'"),
        (["site", "graph", "mixed-lab", "-o", "picture.gif"], "picture.gif: the name must end with .svg"),
    ],
)  # fmt: skip
def test_a_wrong_word_on_the_command_line(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capsys, *words)
    assert not list(tmp_path.iterdir())
