"""`hpcplan partition` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcplan.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["partition", *map(str, arguments)])
        captured = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, captured.out, captured.err

    return run


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    nodes = [
        {"id": i, "supportedOnFpga": 1, "cpuLatency": 90, "fpgaLatency": time, "isBackwardNode": 0, "size": 1024}
        for i, time in enumerate([3, 3, 2, 4])
    ]
    edges = [{"sourceId": i, "destId": i + 1, "cost": 0.5} for i in range(3)]
    data = {"maxSizePerFPGA": 8192, "maxFPGAs": 2, "maxCPUs": 0, "nodes": nodes, "edges": edges}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(data))
    return path


def test_json_is_the_split_and_nothing_else(run, graph: Path) -> None:
    code, out, err = run(graph, "--format", "json")
    assert code == 0
    assert json.loads(out) == {
        "objective": 6.5,
        "bound": 6.5,
        "gap": 0.0,
        "assignment": {"0": "acc0", "1": "acc0", "2": "acc1", "3": "acc1"},
        "loads": {"acc0": 6.5, "acc1": 6.5},
    }
    assert "proven optimal" in err


def test_the_table_shows_every_device(run, graph: Path) -> None:
    code, out, _ = run(graph)
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines() if line.strip().startswith("acc")] == [
        ["acc0", "6.5", "6", "0.5"],
        ["acc1", "6.5", "6", "0.5"],
    ]
    assert "Busiest: 6.5. Bound: 6.5. Gap: 0.00%." in out


def test_options_stand_in_for_what_the_file_says(run, graph: Path) -> None:
    def objective(*options: object) -> float:
        code, out, _ = run(graph, "--format", "json", *options)
        assert code == 0
        return json.loads(out)["objective"]

    assert objective("--devices", 1) == 12
    assert objective("--devices", 4) == 4.5
    assert objective("--devices", 0, "--cpus", 4) == 90
    assert objective("--devices", 2, "--memory", "2 KiB") == 6.5
    assert objective("--memory", "2048") == 6.5


def test_files_are_written_when_asked_for(run, graph: Path, tmp_path: Path) -> None:
    code, out, err = run(graph, "-o", tmp_path / "split.json", "--picture", tmp_path / "split.svg", "--format", "json")
    assert code == 0
    assert json.loads((tmp_path / "split.json").read_text()) == json.loads(out)
    assert (tmp_path / "split.svg").read_text().startswith("<svg")
    assert "split.svg" in err


def test_too_little_memory_is_infeasible_and_says_what_would_do(run, graph: Path, tmp_path: Path) -> None:
    code, out, err = run(graph, "--memory", "1 KiB", "-o", tmp_path / "split.json")
    assert code == 3
    assert out == ""
    assert "memory binds" in err
    assert "--devices 4, or --memory 2048" in err
    assert not (tmp_path / "split.json").exists()


def test_a_bad_graph_is_bad_input(run, graph: Path) -> None:
    graph.write_text(graph.read_text().replace('"destId": 3', '"destId": 33'))
    code, _, err = run(graph)
    assert code == 2
    assert f"{graph}:1: edges[2].destId: 33 is not the id of any node" in err


@pytest.mark.parametrize(
    "options", [("--time-limit", "0"), ("--time-limit", "soon"), ("--memory", "much"), ("--devices", "-1")]
)
def test_a_bad_option_is_bad_input_and_named(run, graph: Path, options: tuple[str, str]) -> None:
    code, _, err = run(graph, *options)
    assert code == 2
    assert options[0] in err
