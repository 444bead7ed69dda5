"""Placement on a real Slurm: the job puts the nodes that it is given in the order that the plan's traffic asks for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hpcplan.campaign import submit
from hpcplan.plan import Exchange, Neighbourhood, Placement, Plan, Traffic, TrafficTerm
from hpcplan.render import render_plan, write_campaign
from hpcplan.site.model import Environment
from hpcplan.slurm.command import CommandBackend
from tests.render import plans
from tests.slurm.cluster import SlurmCluster

# Every rank says who it is by the script's variables, who by Slurm's, and where.
TRAINER = """\
import os
env = os.environ
hosts = env["HPCPLAN_HOSTS"].replace(" ", ",")
print("RANK", env["RANK"], env["SLURM_PROCID"], env["SLURMD_NODENAME"], hosts, flush=True)
if env["RANK"] == "0":
    with open(env["HPCPLAN_STEP_FILE"], "w") as stream:
        stream.write(env["HPCPLAN_LAST_STEP"] + "\\n")
"""


def traffic() -> Traffic:
    """Return traffic of rings over two nodes each, which want to be neighbours."""
    ring = Exchange(axis="dp", pattern="ring", sent_bytes=1e10, rounds=2)
    light = Exchange(axis="pp", pattern="chain", sent_bytes=1e6, rounds=2)
    terms = [TrafficTerm(name=one.axis, exposed=1, hidden_s=0, scale=1, exchanges=(one,)) for one in (ring, light)]
    return Traffic(
        fixed_s=1, node_bytes_per_s=4e11, node_latency_s=2e-6, network_efficiency=0.8, link_bytes_per_s=4e11,
        link_latency_s=2e-6, terms=tuple(terms),
    )  # fmt: skip


def plan(framework: str, **placement: Any) -> Plan:
    """Return a plan for 4 nodes of 8 GPUs: dp 16 (two nodes) x pp 2, on a fabric whose leaves alternate by name."""
    where = Placement(
        partition="batch", node_group="gpu", distribution="arbitrary", traffic=traffic(),
        fabric=(
            Neighbourhood(name="even", parent="top", nodes="n0,n2,n4,n6", uplink_bytes_per_s=1e10),
            Neighbourhood(name="odd", parent="top", nodes="n1,n3,n5,n7", uplink_bytes_per_s=1e10),
            Neighbourhood(name="top"),
        ), **placement,
    )  # fmt: skip
    job = plans.job(
        framework=framework, gres="gpu:8", gpu_request="gres", slurm_version="22.05", account="research",
        cpus_per_node=16, environment=Environment(), command=("python3", "trainer.py"), checkpoint_dir="checkpoints",
        data=(), model_arguments={},
    )  # fmt: skip
    sharding = plans.sharding(
        tp=1, pp=2, vpp=1, dp=16, micro_batches=2, zero=0, nodes=4, gpus=32, gpus_per_node=8,
        sequence_parallel=False, recompute="none",
    )  # fmt: skip
    return plans.plan(
        name="placed", plan=sharding, training=plans.training(global_batch=32, steps=5), placement=where,
        segments=plans.segments(5, time_limit_s=120, expected_s=10.0), job=job,
    )  # fmt: skip


def ranks(slurm: SlurmCluster, backend: CommandBackend, placed: Plan) -> dict[int, tuple[int, str]]:
    """Run a plan; return the rank that Slurm gave each rank, and its node."""
    campaign = slurm.job_folder() / "campaign"
    write_campaign(render_plan(placed), campaign)
    (campaign / "trainer.py").write_text(TRAINER)
    ids = [step.job_id for step in submit(campaign, backend) if step.job_id is not None]

    def over() -> bool:
        answer = slurm.run("scontrol", "--oneliner", "show", "job", str(ids[0]), check=False).stdout
        return bool(re.search(r"JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT)", answer))

    slurm.wait_until(over, f"job {ids[0]} is over", patience_s=90)
    log = "\n".join(path.read_text() for path in campaign.glob("*.out"))
    found = re.findall(r"^RANK (\d+) (\d+) (\w+) (\S+)$", log, flags=re.MULTILINE)
    assert len(found) == 32, log
    hosts = found[0][3].split(",")
    assert all(hosts[int(rank) // 8] == node for rank, _, node, _ in found)
    assert "s a step predicted" in log or placed.placement.node_order
    return {int(rank): (int(procid), node) for rank, procid, node, _ in found}


@pytest.mark.parametrize("framework", ["srun", "mpi"])
def test_nodes_of_one_leaf_get_neighbouring_ranks(slurm: SlurmCluster, backend: CommandBackend, framework: str) -> None:
    seen = ranks(slurm, backend, plan(framework, exclude="n[4-7]"))
    sides = [{int(node[1:]) % 2 for rank, (_, node) in seen.items() if rank // 16 == group} for group in (0, 1)]
    assert {node for _, node in seen.values()} == {"n0", "n1", "n2", "n3"}
    assert sorted(map(tuple, sides)) == [(0,), (1,)], "each data-parallel group is under one leaf"
    if framework == "mpi":
        assert all(procid == rank for rank, (procid, _) in seen.items()), "Slurm numbers them in the same order"


def test_the_plans_own_order_is_kept_where_it_names_nodes(slurm: SlurmCluster, backend: CommandBackend) -> None:
    order = ("n6", "n1", "n4", "n3")
    seen = ranks(slurm, backend, plan("mpi", node_order=order))
    assert [seen[rank][1] for rank in (0, 8, 16, 24)] == list(order)
    assert all(procid == rank for rank, (procid, _) in seen.items())
