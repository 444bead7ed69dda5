"""Trainers in rendered jobs on a real Slurm: PyTorch's workers, and words that nobody may touch on the way to one."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcplan.plan import Health
from hpcplan.slurm.command import CommandBackend
from tests.slurm.cluster import SlurmCluster
from tests.slurm.stand_in import campaign_of, job_ids, logs, notes, stand_in_plan, wait_until_over


def torch_python() -> str | None:
    """Return a Python that has PyTorch: this one, or the one that HPCPLAN_TEST_TORCH names."""
    if importlib.util.find_spec("torch") is not None:
        return sys.executable
    return os.environ.get("HPCPLAN_TEST_TORCH")


TORCH_PYTHON = torch_python()  # before a test's environment is cleared


def torch_programs(folder: Path) -> Path:
    """Return a folder with ``python3`` and ``torchrun`` of that Python."""
    folder.mkdir()
    for name, words in (("python3", ""), ("torchrun", "-m torch.distributed.run")):
        (folder / name).write_text(f'#!/bin/sh\nexec {TORCH_PYTHON} {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


# A model of one weight, which every step adds the sum of all ranks to. Who is told to save tells all others. The first
# job trains 12 steps and then waits to be told.
TORCH_TRAINER = """\
import json, os, pathlib, signal, torch, torch.distributed as dist

told, env = [], os.environ
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
for start in range(0, size, 4):
    made = dist.new_group(list(range(start, start + 4)))
    if start == rank // 4 * 4:
        mine = made
part = torch.tensor([float(rank)])
dist.all_reduce(part, group=mine)
note = {"size": size, "group_sum": part.item(), "node": env["SLURMD_NODENAME"], "local": env["LOCAL_RANK"],
        "node_rank": env["GROUP_RANK"]}
pathlib.Path("notes").mkdir(exist_ok=True)
pathlib.Path(f"notes/{env['HPCPLAN_SEGMENT']}-{rank}.json").write_text(json.dumps(note))
checkpoint = pathlib.Path(env["HPCPLAN_CHECKPOINT_DIR"], "model.pt")
state = torch.load(checkpoint) if checkpoint.exists() else {"step": 0, "weight": torch.zeros(1)}
while state["step"] < int(env["HPCPLAN_TOTAL_STEPS"]):
    sums = torch.tensor([float(rank), float(bool(told))])
    dist.all_reduce(sums)
    if sums[1] > 0:
        break
    if env["HPCPLAN_SEGMENT"] == "1" and state["step"] == 12:
        continue
    state = {"step": state["step"] + 1, "weight": state["weight"] + sums[0]}
    if rank == 0:
        with open("steps.log", "a") as stream:
            print(state["step"], file=stream)
if rank == 0:
    torch.save(state, checkpoint.with_suffix(".new"))
    checkpoint.with_suffix(".new").replace(checkpoint)
    pathlib.Path(env["HPCPLAN_STEP_FILE"]).write_text(str(state["step"]))
    pathlib.Path("weight").write_text(str(state["weight"].item()))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.timeout(900)  # 32 processes import PyTorch, twice
@pytest.mark.skipif(TORCH_PYTHON is None, reason="no PyTorch (HPCPLAN_TEST_TORCH names a Python that has it)")
def test_torchrun_and_gloo_make_the_ranks_and_groups_of_the_plan_save_when_told_and_go_on(
    slurm: SlurmCluster, backend: CommandBackend
) -> None:
    folder = slurm.job_folder()
    job = {
        "framework": "torchrun", "command": ("python3", "trainer.py"),
        # All nodes of the test cluster are this one machine, and their names mean nothing to its resolver.
        "setup": (
            f"export PATH='{torch_programs(folder / 'bin')}':$PATH",
            "export GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1",
        ),
        "health": Health(gpus=8, all_reduce_bytes_per_s=1e11),
    }  # fmt: skip
    plan = stand_in_plan((20, 20), job=job)
    minutes = tuple(segment.model_copy(update={"time_limit_s": 600}) for segment in plan.segments)
    campaign = campaign_of(plan.model_copy(update={"segments": minutes}), folder)
    (campaign / "trainer.py").write_text(TORCH_TRAINER)
    ids = list(job_ids(campaign, backend).values())
    log = campaign / "steps.log"
    slurm.wait_until(lambda: log.exists() and len(log.read_text().split()) == 12, "step 12", patience_s=300)
    slurm.run("scancel", "--batch", "--signal=USR1", str(ids[0]))  # as --signal=B:USR1@… has Slurm do
    assert wait_until_over(slurm, ids, patience_s=600) == ["COMPLETED"] * 2, logs(campaign)
    assert "the next job goes on from step 13 of 40" in logs(campaign)
    assert [int(line) for line in log.read_text().split()] == list(range(1, 41)), "every step once, none twice"
    assert float((campaign / "weight").read_text()) == 40 * sum(range(32)), "the model went on where it was saved"
    for segment in (1, 2):
        check_torch_ranks(notes(campaign, segment))
    assert logs(campaign).count("measured all-reduce over pairs of nodes") == 2


def check_torch_ranks(seen: dict[int, dict[str, Any]]) -> None:
    assert sorted(seen) == list(range(32))
    for rank, note in seen.items():
        assert note["size"] == 32
        assert note["group_sum"] == sum(range(rank // 4 * 4, rank // 4 * 4 + 4))
        assert (int(note["node_rank"]), int(note["local"])) == divmod(rank, 8)
        assert note["node"] == seen[rank // 8 * 8]["node"]


HOSTILE = (
    "", "'", '"', "$(touch owned)", "`touch owned`", "a\n#SBATCH --nodes=8\nb", "; touch owned;", "\\", "$HOME",
    "\t\x01\x1b[2J", "日本語 \u202e \U0001f600", "x" * 10_000, "--help", "#SBATCH --account=root", "\r\n", "*",
    "!!", "%j",
)  # fmt: skip
WORDS_TRAINER = """\
import json, os, sys
if os.environ["RANK"] == "0":
    seen = [sys.argv[1:], os.environ["HOSTILE"], os.environ["HPCPLAN_CAMPAIGN"], os.environ["SLURM_JOB_NUM_NODES"]]
    with open("seen.json", "w") as stream:
        json.dump(seen, stream)
    open(os.environ["HPCPLAN_STEP_FILE"], "w").write(os.environ["HPCPLAN_TOTAL_STEPS"])
"""


def test_hostile_text_reaches_the_trainer_through_slurm_and_does_nothing_else(
    slurm: SlurmCluster, backend: CommandBackend
) -> None:
    name = "x" * 10_000 + HOSTILE[5]
    job = {"command": ("python3", "trainer.py", *HOSTILE), "variables": {"HOSTILE": "\n".join(HOSTILE)}}
    campaign = campaign_of(stand_in_plan((10,), name=name, job=job), slurm.job_folder())
    (campaign / "trainer.py").write_text(WORDS_TRAINER)
    ids = list(job_ids(campaign, backend).values())
    assert wait_until_over(slurm, ids) == ["COMPLETED"], logs(campaign)
    assert json.loads((campaign / "seen.json").read_text()) == [list(HOSTILE), "\n".join(HOSTILE), name, "4"]
    assert not list(campaign.rglob("owned"))
