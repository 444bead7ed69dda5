"""A stand-in for a trainer, plans for it on the test cluster, and what its jobs leave behind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcplan.campaign import read_ledger, submit
from hpcplan.campaign.own_word import OwnWords
from hpcplan.plan import Placement, Plan
from hpcplan.render import render_plan, write_campaign
from hpcplan.render.manifest import read_manifest
from hpcplan.slurm.command import CommandBackend
from tests.render import plans
from tests.slurm.cluster import SlurmCluster

__all__ = [
    "TRAINER", "campaign_of", "job_ids", "logs", "notes", "own_ends", "stand_in_plan", "states", "wait_until_over",
]  # fmt: skip

# A stand-in for a trainer. Every rank notes what it sees; rank 0 counts steps: a burst of 20 from where the last job
# left off, or should have, then one in ten seconds, so that jobs of a minute are cut while it is at work.
TRAINER = """\
import json, os, pathlib, signal, sys, time

rank, env = int(os.environ["RANK"]), os.environ
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
         "SLURMD_NODENAME", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "HPCPLAN_HOSTS", "HPCPLAN_STAGED_DATA",
         "HPCPLAN_MICRO_BATCH")
note = {name: env.get(name) for name in names} | {"words": sys.argv[1:]}
# The groups that a trainer would make: ranks that differ in one axis alone, in the plan's order of axes.
left, at = rank, {}
for axis in env["HPCPLAN_RANK_ORDER"].split("-"):
    if axis != "ep":
        size = int(env["HPCPLAN_" + axis.upper()])
        at[axis], left = left % size, left // size
note["coordinates"] = at
pathlib.Path("notes").mkdir(exist_ok=True)
pathlib.Path(f"notes/{env['HPCPLAN_SEGMENT']}-{rank}.json").write_text(json.dumps(note))
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
signal.signal(signal.SIGTERM, lambda *_: told.append(True))
state, total = pathlib.Path(env["HPCPLAN_STEP_FILE"]), int(env["HPCPLAN_TOTAL_STEPS"])
if env.get("TEST_END_EARLY"):  # as a trainer that stops by itself where its segment ends
    total = int(env["HPCPLAN_LAST_STEP"])
step = int(state.read_text()) if state.exists() else 0
burst = max(step, int(env["HPCPLAN_FIRST_STEP"]) - 1) + 20
log = pathlib.Path("steps.log")


def save():
    if rank == 0:
        new = state.with_suffix(".new")
        new.write_text(f"{step}\\n")
        new.replace(state)


while step < total and not told:
    time.sleep(0.05 if step < burst else 10)
    if not told or step < burst:
        step += 1
        if rank == 0:
            with log.open("a") as stream:
                stream.write(f"{step}\\n")
    if env.get("TEST_SAVE_EACH"):
        save()
save()
"""


def campaign_of(plan: Plan, folder: Path, templates: Path | None = None) -> Path:
    write_campaign(render_plan(plan, templates), folder / "campaign")
    (folder / "campaign" / "trainer.py").write_text(TRAINER)
    return folder / "campaign"


def stand_in_plan(steps: Sequence[int], **changes: Any) -> Plan:
    """Return a plan for 4 nodes of 8 GPUs under srun, in segments of so many steps and a minute each."""
    job = {
        "framework": "srun", "gres": "gpu:8", "gpu_request": "gres", "slurm_version": "22.05", "account": "research",
        "cpus_per_node": 16, "environment": type(plans.H100_ENVIRONMENT)(), "command": ("python3", "trainer.py"),
        "checkpoint_dir": "checkpoints", "data": (), "model_arguments": {}, **changes.pop("job", {}),
    }  # fmt: skip
    segments = tuple(
        segment.model_copy(update={"warning_s": 20})
        for segment in plans.segments(*steps, time_limit_s=60, expected_s=50.0)
    )
    fields: dict[str, Any] = {
        "name": "stand in",
        "plan": plans.sharding(
            tp=4, pp=2, vpp=1, dp=4, micro_batches=2, zero=0, nodes=4, gpus=32, gpus_per_node=8,
            sequence_parallel=False, recompute="none",
        ),
        "training": plans.training(global_batch=8, steps=sum(steps)),
        "placement": Placement(partition="batch", node_group="gpu", switches=1),
        "segments": segments,
        "job": plans.job(**job),
    }  # fmt: skip
    return plans.plan(**(fields | changes))


def job_ids(campaign: Path, backend: CommandBackend) -> dict[str, int]:
    steps = submit(campaign, backend)
    return {step.job.key: step.job_id for step in steps if step.job_id is not None}


def states(slurm: SlurmCluster, ids: Sequence[int]) -> list[str]:
    answer = slurm.run("scontrol", "--oneliner", "show", "job", check=False).stdout
    found = dict(re.findall(r"JobId=(\d+) .*? JobState=(\w+)", answer))
    return [found.get(str(job_id), "GONE") for job_id in ids]


def wait_until_over(slurm: SlurmCluster, ids: Sequence[int], patience_s: float = 240) -> list[str]:
    over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "GONE"}
    slurm.wait_until(lambda: set(states(slurm, ids)) <= over, f"jobs {ids} are over", patience_s=patience_s)
    return states(slurm, ids)


def logs(campaign: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(campaign.glob("*.out")))


def own_ends(campaign: Path) -> dict[str, str]:
    """Return how each job has ended by its own word, which counts where Slurm forgets it."""
    ledger, words = read_ledger(campaign), OwnWords(campaign)
    found = {job.key: words.ended(job, ledger.job(job.key)) for job in read_manifest(campaign).jobs}
    return {key: word.record.state.value for key, word in found.items() if word is not None and word.record is not None}


def notes(campaign: Path, segment: int) -> dict[int, dict[str, Any]]:
    found = {}
    for path in (campaign / "notes").glob(f"{segment}-*.json"):
        found[int(path.stem.split("-")[1])] = json.loads(path.read_text())
    return found
