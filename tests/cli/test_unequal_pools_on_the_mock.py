"""Plans over unequal pools are one heterogeneous job, from plan to end on the mock cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.campaigns import Run
from tests.cli.test_mock_exec import hpcplan

PLAN = (
    "plan", "llama3-8b", "--site", "mixed-lab", "--tokens", "20B", "--global-batch", "128", "--pool", "h100=1",
    "--pool", "a100=2", "--framework", "srun", "-o", "plan.json",
)  # fmt: skip
TRAINER = """\
import os, pathlib
env = os.environ
note = " ".join(env[name] for name in ("NODE_RANK", "LOCAL_RANK", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES"))
pathlib.Path("note-" + env["RANK"]).write_text(note)
if env["RANK"] == "0":
    pathlib.Path(env["HPCPLAN_STEP_FILE"]).write_text(env["HPCPLAN_TOTAL_STEPS"])
"""


def test_a_plan_over_unequal_pools_ends_on_the_mock_cluster_and_its_job_really_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(*words: str) -> str:
        code, out, error = run(*words)
        assert code == 0, error
        return out

    done(*PLAN)
    done("render", "plan.json", "-o", "campaign")
    monkeypatch.setenv("HPCPLAN_MOCK", str(tmp_path / "mock"))
    done("mock", "start", "mixed-lab", "--speed", "0")
    done("submit", "campaign", "--backend", "mock")
    done("mock", "advance", "--until-idle")
    status = json.loads(done("status", "campaign", "--format", "json"))
    assert status["state"] == "done"
    assert {job["state"] for job in status["jobs"]} == {"COMPLETED"}
    done("mock", "stop", "--purge")
    monkeypatch.delenv("HPCPLAN_MOCK")

    again = tmp_path / "again"
    done("render", "plan.json", "-o", str(again))
    (again / "train.py").write_text(TRAINER)
    said = hpcplan(
        "exec", "--site", "mixed-lab", "--", "sh", "-c", "cd again && sbatch -W train-01.sbatch", cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr + "".join(path.read_text() for path in again.glob("*.out"))
    notes = {int(path.name[5:]): path.read_text().split() for path in again.glob("note-*")}
    assert {rank: (*map(int, note[:2]), note[3]) for rank, note in notes.items()} == {
        rank: (rank // 4, rank % 4, "0,1,2,3") for rank in range(12)
    }
    nodes = [note[2] for rank, note in sorted(notes.items()) if rank % 4 == 0]
    assert sorted(nodes) == ["a1", "a2", "h1"]
    assert nodes.index("a2") == nodes.index("a1") + 1
