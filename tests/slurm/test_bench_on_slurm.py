"""The benchmark as a job of a real Slurm: its processes find each other, and their figures are taken up."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from hpcplan.cli import main
from hpcplan.slurm.command import CommandBackend


def test_a_job_on_three_nodes_measures_them(
    backend: CommandBackend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = {
        "name": "here",
        "node_groups": {"gpu": {
            "nodes": "n[0-7]", "cpus": 16, "memory": "2000 MiB", "accelerators": {"type": "A100-SXM4-80GB", "count": 8},
            "intra_node": {"bandwidth": "300 GB/s"}, "nics": {"bandwidth": "200 Gb/s"}}},
        "partitions": {"batch": {"nodes": ["gpu"]}},
        "fabric": {"kind": "tree", "levels": [{"name": "leaf", "size": 8, "latency": "1 us"}]},
    }  # fmt: skip
    path = tmp_path / "here.yaml"
    path.write_text(yaml.safe_dump(site))
    folder = tmp_path / "bench"
    with pytest.raises(SystemExit) as caught:
        main(["calibrate", "bench", "--site", str(path), "--nodes", "3", "--device", "cpu", "--quick", "--wait", "-o",
              str(folder), "--storage", str(tmp_path), "--python", sys.executable, "--backend", "command",
              "--format", "json"])  # fmt: skip
    out, err = capsys.readouterr()
    assert caught.value.code == 0, err
    data = json.loads(out)
    assert len(data["nodes"]) == 3
    assert set(data["nodes"]) <= {f"n{i}" for i in range(8)}
    assert {entry["what"].split(" ranks")[0] for entry in data["collectives"]} == {
        "network all_reduce 3", "network all_gather 3"
    }  # fmt: skip
    assert all((rate is None) == (a == b) for a, row in enumerate(data["pairs"]) for b, rate in enumerate(row))
    assert data["storage"]["write_bytes_per_s"] > 0
    assert "CPUs" in data["notes"][0]
