"""The whole loop on a real Slurm: what hpcplan planned and rendered runs, and status and report tell the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcplan.cli import main
from tests.slurm.cluster import SlurmCluster

SITE = """\
name: lab
node_groups:
  gpu:
    nodes: n[0-7]
    cpus: 16
    memory: 2000 MiB
    accelerators: {type: H100-SXM5-80GB, count: 8}
    intra_node: {bandwidth: 450 GB/s}
    nics: {count: 8, bandwidth: 400 Gb/s}
partitions:
  batch: {nodes: gpu, default: true, max_time: 1-00:00:00}
fabric:
  switches:
    - {name: leaf0, nodes: "n[0-3]", uplink: 1600 GB/s}
    - {name: leaf1, nodes: "n[4-7]", uplink: 1600 GB/s}
    - {name: spine, switches: [leaf0, leaf1]}
storage: {path: /scratch, read: 50 GB/s, write: 50 GB/s}
slurm: {version: "22.05", gpu_request: gres, topology: true}
"""
WORKLOAD = """\
name: stand-in
model: llama3-8b
training: {tokens: 40M, global_batch: 128, sequence_length: 8192}
request: {nodes: 4, framework: srun, walltime: 6 min}
launch: {command: [python3, trainer.py]}
"""
# Every rank leaves a note of what it sees; rank 0 "trains" up to the segment's last step.
TRAINER = """\
import json, os, pathlib, time
rank, names = int(os.environ["RANK"]), ("WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
    "SLURMD_NODENAME", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "HPCPLAN_TP", "HPCPLAN_DP", "HPCPLAN_FIRST_STEP",
    "HPCPLAN_LAST_STEP")
seen = {name: os.environ.get(name) for name in names}
pathlib.Path(f"rank-{os.environ['HPCPLAN_SEGMENT']}-{rank}.json").write_text(json.dumps(seen))
if rank == 0:
    time.sleep(2)
    pathlib.Path(os.environ["HPCPLAN_STEP_FILE"]).write_text(os.environ["HPCPLAN_LAST_STEP"] + "\\n")
"""


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    out, err = capsys.readouterr()
    assert caught.value.code == 0, err
    return out


def sacct(slurm: SlurmCluster, job_id: int, fields: str) -> list[str]:
    """Return sacct's own words about a job."""
    answer = slurm.run("sacct", "-X", "-n", "-P", "-j", str(job_id), "-o", fields, SLURM_TIME_FORMAT="%s")
    return answer.stdout.strip().split("|")


def test_a_planned_campaign_runs_and_is_told_truly(
    slurm: SlurmCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = slurm.job_folder()
    monkeypatch.chdir(folder)
    Path("site.yaml").write_text(SITE)
    Path("workload.yaml").write_text(WORKLOAD)
    plan = json.loads(
        run(capsys, "plan", "workload.yaml", "--site", "site.yaml", "-o", "plan.json", "--format", "json")
    )
    segments = plan["segments"]
    assert 1 < len(segments) < 6, "the walltime cuts the training into a chain"
    run(capsys, "render", "plan.json", "-o", "campaign")
    campaign = folder / "campaign"
    (campaign / "trainer.py").write_text(TRAINER)
    for script in sorted(campaign.glob("*.sbatch")):
        slurm.run("sbatch", "--test-only", str(script))

    run(capsys, "submit", "campaign", "--backend", "command")

    def state() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(run(capsys, "status", "campaign", "--format", "json"))
        return answer

    slurm.wait_until(lambda: state()["state"] in {"done", "failed"}, "the campaign has ended", patience_s=180)
    final = state()
    assert final["state"] == "done", "".join(path.read_text() for path in campaign.glob("*.out"))
    assert len(final["jobs"]) == len(segments)

    for job, segment in zip(final["jobs"], segments, strict=True):
        check_ranks(campaign, segment, job["job_id"], plan)
        word, seconds, nodes = sacct(slurm, job["job_id"], "State,ElapsedRaw,NNodes")
        assert (job["state"], int(nodes)) == (word, 4)
        assert job["elapsed_s"] == int(seconds)
    starts = [int(sacct(slurm, job["job_id"], "Start")[0]) for job in final["jobs"]]
    ends = [int(sacct(slurm, job["job_id"], "End")[0]) for job in final["jobs"]]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False)), "each waits for the one before"

    report_agrees(slurm, capsys, [job["job_id"] for job in final["jobs"]])


def check_ranks(campaign: Path, segment: dict[str, Any], job_id: int, plan: dict[str, Any]) -> None:
    """What the trainer saw from inside is what the plan says."""
    notes = {
        int(path.stem.rsplit("-", 1)[1]): json.loads(path.read_text())
        for path in campaign.glob(f"rank-{segment['index']}-*.json")
    }
    assert sorted(notes) == list(range(32)), "4 nodes of 8 ranks"
    for rank, seen in notes.items():
        assert seen["WORLD_SIZE"] == "32"
        assert (int(seen["NODE_RANK"]), int(seen["LOCAL_RANK"])) == divmod(rank, 8)
        assert seen["SLURM_JOB_ID"] == str(job_id)
        assert seen["HPCPLAN_TP"] == str(plan["plan"]["tp"])
        assert seen["HPCPLAN_DP"] == str(plan["plan"]["dp"])
        assert (seen["HPCPLAN_FIRST_STEP"], seen["HPCPLAN_LAST_STEP"]) == (
            str(segment["first_step"]), str(segment["last_step"])
        )  # fmt: skip
    nodes = {seen["SLURMD_NODENAME"] for seen in notes.values()}
    assert nodes in ({"n0", "n1", "n2", "n3"}, {"n4", "n5", "n6", "n7"}), "one leaf switch, as the plan asks"
    assert {seen["MASTER_ADDR"] for seen in notes.values()} == {"127.0.0.1"}, "names no resolver knows"
    assert {int(seen["MASTER_PORT"]) for seen in notes.values()} == {10000 + job_id % 20000}


def report_agrees(slurm: SlurmCluster, capsys: pytest.CaptureFixture[str], job_ids: list[int]) -> None:
    """The report's figures are those that sacct gives for the same jobs."""
    # What has just ended reaches the database a moment later.
    slurm.wait_until(lambda: sacct(slurm, job_ids[-1], "State")[0] == "COMPLETED", "the last job is in the database")
    report = json.loads(run(capsys, "report", "--backend", "command", "--since", "1h", "--format", "json"))
    assert report["jobs"]["total"] >= len(job_ids)
    rows = json.loads(run(capsys, "report", "jobs", *map(str, job_ids), "--backend", "command", "--format", "json"))
    assert [int(row["job_id"]) for row in rows] == job_ids
    for row, job_id in zip(rows, job_ids, strict=True):
        state, elapsed, limit, submit, start = sacct(slurm, job_id, "State,ElapsedRaw,TimelimitRaw,Submit,Start")
        assert row["state"] == state
        assert row["elapsed_s"] == int(elapsed)
        assert row["wait_s"] == int(start) - int(submit)
        assert row["time_efficiency"] == pytest.approx(int(elapsed) / (60 * int(limit)), abs=0.001)
