"""What a job does before training, run by bash: looking at its nodes, leaving bad ones out, copying data nearer."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcplan.plan import Health, Plan, Staging
from hpcplan.render import render_plan

# One task a node: a step of its own for each, as the node that it stands for.
SRUN = """#!/bin/bash
nodes="n1 n2"
while [[ $1 == --* ]]; do
  [[ $1 != --nodelist=* ]] || nodes=$(tr , ' ' <<<"${1#--nodelist=}")
  shift
done
status=0
for SLURMD_NODENAME in $nodes; do
  export SLURMD_NODENAME SLURM_PROCID=0 SLURM_LOCALID=0
  "$@" || status=$?
done
exit "$status"
"""
SCONTROL = """#!/bin/bash
echo "$*" >>"$STAGE/scontrol.log"
case "$*" in
  "show hostnames"*) printf '%s\\n' n1 n2 ;;
  "show job"*) echo "JobState=RUNNING Restarts=0 ReqNodeList=(null) ExcNodeList=n[7-8] NodeList=n[1-2]" ;;
esac
"""
SQUEUE = """#!/bin/bash
echo "70124 $STAGE"
echo "70125 /somebody/else"
"""
TRAINER = 'echo 20 >"$HPCPLAN_STEP_FILE"; touch "$STAGE/ran"'


@pytest.fixture
def nodes(stage: Any) -> Any:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("squeue", SQUEUE), ("sinfo", "#!/bin/bash\n")):
        stage.executable(stage.bin / name, text)
    return stage


def write_files(plan: Plan, stage: Any) -> str:
    """Put what the script starts beside it; return the script."""
    files = render_plan(plan)
    for name in ("check-node.sh", "stage-data.sh"):
        if name in files:
            (stage.directory / name).write_text(files[name], encoding="utf-8")
    return files["train-01.sbatch"]


def plan_with(plans: ModuleType, **changes: Any) -> Plan:
    job = plans.srun_plan().job.model_copy(update={"command": ("bash", "-c", TRAINER), **changes})
    plan: Plan = plans.srun_plan(job=job)
    return plan


def asked_of_scontrol(stage: Any) -> list[str]:
    lines = (stage.directory / "scontrol.log").read_text().splitlines()
    return [line for line in lines if not line.startswith("show")]


def sick(stage: Any, node: str, what: str) -> None:
    """Make one node fail its check, or hang in it."""
    code = {"bad": "echo 'GPU 0: broken' >/dev/null; exit 0", "hangs": "sleep 60"}[what]
    stage.executable(
        stage.bin / "nvidia-smi",
        f"#!/bin/bash\n[[ $SLURMD_NODENAME != {node} ]] || {{ {code}; }}\n"
        "[[ $1 != --list-gpus ]] || printf 'GPU %d: H100\\n' 0 1\n",
    )


def test_training_starts_where_all_nodes_are_well(plans: ModuleType, nodes: Any) -> None:
    sick(nodes, "none", "bad")
    status, output = nodes.run(write_files(plan_with(plans, health=Health(gpus=2)), nodes))
    assert (status, (nodes.directory / "ran").exists()) == (0, True), output
    assert "bad" not in output
    assert asked_of_scontrol(nodes) == []


def test_a_bad_node_is_named_and_the_job_goes_back_into_the_queue_without_it(plans: ModuleType, nodes: Any) -> None:
    sick(nodes, "n2", "bad")
    status, output = nodes.run(write_files(plan_with(plans, health=Health(gpus=2)), nodes))
    assert status == 0, output
    assert "n2 bad 0 GPUs, 2 expected" in output
    assert not (nodes.directory / "ran").exists()
    assert asked_of_scontrol(nodes) == [
        "update JobId=70124 ExcNodeList=n2,n[7-8]",  # this campaign's job that waits; somebody else's is left alone
        "requeuehold 70123",
        "update JobId=70123 ExcNodeList=n2,n[7-8]",
        "release 70123",
    ]
    assert nodes.state("failed") is None
    assert "how=requeued" in str(nodes.state("jobs/train-01-70123.ended")).splitlines(), "it has not ended for good"


def test_a_node_that_hangs_in_its_check_is_bad_and_not_waited_for(
    plans: ModuleType, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcplan.render.context._CHECK_LIMIT_S", 1)
    sick(nodes, "n2", "hangs")
    status, output = nodes.run(write_files(plan_with(plans, health=Health(gpus=2)), nodes))
    assert status == 0, output
    assert "n2 does not answer" in output
    assert "requeuehold 70123" in asked_of_scontrol(nodes)


def test_a_job_that_is_cancelled_while_it_looks_at_its_nodes_blames_none(plans: ModuleType, nodes: Any) -> None:
    nodes.executable(
        nodes.bin / "nvidia-smi",
        "#!/bin/bash\n[[ $1 == --list-gpus ]] || exit 0\n"
        "touch $STAGE/looking\nwhile [[ ! -e $STAGE/stop ]]; do sleep 0.02; done\nexit 1\n",
    )
    process = nodes.start(write_files(plan_with(plans, health=Health(gpus=2)), nodes))
    deadline = time.monotonic() + 30
    while not (nodes.directory / "looking").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (nodes.directory / "stop").touch()  # Slurm ends the step as well
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, nodes.state("failed")) == (143, None), output
    assert asked_of_scontrol(nodes) == []
    assert "bad" not in output
    assert not (nodes.directory / "ran").exists()


def test_a_job_that_meets_bad_nodes_again_and_again_stops_the_chain(plans: ModuleType, nodes: Any) -> None:
    sick(nodes, "n1", "bad")
    script = write_files(plan_with(plans, health=Health(gpus=2)), nodes)
    status, _ = nodes.run(script, SLURM_RESTART_COUNT="3")
    assert status == 1
    assert "after 3 requeues these nodes are not well: n1" in str(nodes.state("failed"))
    assert asked_of_scontrol(nodes) == []


def test_a_spare_node_stands_in_for_a_bad_one(plans: ModuleType, nodes: Any) -> None:
    sick(nodes, "n1", "bad")
    plan = plan_with(plans, health=Health(gpus=2, spare_nodes=1))
    sharding = plan.plan.model_copy(update={"nodes": 1, "gpus": 2, "dp": 2, "micro_batches": 16})
    script = write_files(plan.model_copy(update={"plan": sharding}), nodes)
    assert "#SBATCH --nodes=2\n" in script
    status, output = nodes.run(script)
    assert (status, (nodes.directory / "ran").exists()) == (0, True), output
    assert "going on without n1" in output
    assert "ranks meet at n2:" in output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data $(x)"
    folder.mkdir()
    for index in range(4):
        (folder / f"shard {index}.bin").write_bytes(b"x" * (index + 1))
    return folder


def test_data_is_copied_by_the_nodes_together_and_only_once(plans: ModuleType, nodes: Any, data: Path) -> None:
    fast = nodes.directory / "fast"
    staging = Staging(sources=(str(data),), target=str(fast), split=True)
    script = write_files(plan_with(plans, staging=staging), nodes)
    status, output = nodes.run(script)
    assert status == 0, output
    copies = sorted(path.name for path in fast.rglob("*.bin"))
    assert copies == sorted(path.name for path in data.iterdir())
    assert "n1: 2 files copied" in output
    assert "n2: 2 files copied" in output
    _, again = nodes.run(script)
    assert again.count(": 0 files copied") == 2


def test_copies_that_were_killed_half_way_are_cleared_away_but_not_those_under_way(
    plans: ModuleType, nodes: Any, data: Path
) -> None:
    fast = nodes.directory / "fast"
    script = write_files(plan_with(plans, staging=Staging(sources=(str(data),), target=str(fast))), nodes)
    nodes.run(script)
    old, new = (next(fast.rglob("*.bin")).parent / f"x.hpcplan-part.{name}" for name in ("1.1", "2.2"))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    nodes.run(script)
    assert (old.exists(), new.exists()) == (False, True)


def test_data_that_cannot_be_copied_stops_the_chain_and_is_said_so(plans: ModuleType, nodes: Any, data: Path) -> None:
    (nodes.directory / "file").touch()
    staging = Staging(sources=(str(data),), target=f"{nodes.directory}/file/below")
    status, output = nodes.run(write_files(plan_with(plans, staging=staging), nodes))
    assert status != 0
    assert "copying data to" in str(nodes.state("failed")), output
    assert not (nodes.directory / "ran").exists()


def test_a_script_started_somewhere_else_says_so_and_leaves_nothing_there(plans: ModuleType, stage: Any) -> None:
    (stage.directory / "jobs.json").unlink()
    status, output = stage.run(render_plan(plans.srun_plan())["train-01.sbatch"])
    assert status == 1
    assert "is no campaign's directory" in output
    assert not (stage.directory / "state").exists()
