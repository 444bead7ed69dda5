"""The files by which a job puts its nodes in order, and the variables that name its data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from hpcplan.errors import InputError
from hpcplan.plan import DataShards, Exchange, Neighbourhood, Placement, Plan, Staging, Traffic, TrafficTerm
from hpcplan.rank_map import best_order
from hpcplan.render import render_plan
from hpcplan.render.placement import PROGRAM_NAME, RANK_MAP_NAME

RING = Exchange(axis="dp", pattern="ring", sent_bytes=1e10, rounds=2)
TRAFFIC = Traffic(
    fixed_s=1, node_bytes_per_s=4e11, node_latency_s=2e-6, network_efficiency=0.8, link_bytes_per_s=4e11,
    link_latency_s=2e-6, terms=(TrafficTerm(name="data_parallel", exposed=1, hidden_s=0, scale=1, exchanges=(RING,)),),
)  # fmt: skip
FABRIC = (
    Neighbourhood(name="leaf 'a'", parent="top", nodes="d[1-2],d5", uplink_bytes_per_s=1e10),
    Neighbourhood(name="$(leaf b)", parent="top", nodes="d[3-4],d6", uplink_bytes_per_s=1e10),
    Neighbourhood(name="top"),
)


def placed(plans: ModuleType, **changes: object) -> Plan:
    placement = Placement(
        partition="batch",
        node_group="dgx",
        distribution="arbitrary",
        traffic=TRAFFIC,
        fabric=FABRIC,
        **changes,  # type: ignore[arg-type]
    )
    plan: Plan = plans.srun_plan(placement=placement)
    return plan


def test_a_job_that_orders_its_nodes_has_the_program_and_its_map(plans: ModuleType) -> None:
    files = render_plan(placed(plans))
    spec = json.loads(files[RANK_MAP_NAME])
    assert spec["nodes"] == 2
    assert spec["switches"][0]["nodes"] == ["d1", "d2", "d5"]
    assert best_order(spec, ["d3", "d1"])[1] > 1
    assert "rank_map.py" in files["train-01.sbatch"]
    assert json.loads(files["jobs.json"])["files"].keys() >= {PROGRAM_NAME, RANK_MAP_NAME}


@pytest.mark.parametrize("framework", ["mpi", "jax"])
def test_a_step_has_a_number_of_nodes_or_a_file_of_hosts_never_both(plans: ModuleType, framework: str) -> None:
    """As srun of Slurm 25.11 wants it; data is copied before the file of hosts is written, so without it."""
    plan = placed(plans)
    staging = Staging(sources=("/data/a",), target="/local")
    job = plan.job.model_copy(update={"framework": framework, "staging": staging})
    plan = plan.model_copy(update={"job": job})
    lines = render_plan(plan)["train-01.sbatch"].splitlines()
    (run,) = [line for line in lines if "--distribution=arbitrary" in line]
    assert "--nodes=" not in run
    (copy,) = [line for line in lines if line.strip().startswith("run_step srun --kill-on-bad-exit")]
    assert "--nodes=2" in copy


def test_a_job_that_does_not_order_them_has_neither(plans: ModuleType) -> None:
    files = render_plan(plans.srun_plan())
    assert not {PROGRAM_NAME, RANK_MAP_NAME} & set(files)
    assert "rank_map" not in files["train-01.sbatch"]


def test_the_script_takes_the_order_and_keeps_slurms_where_the_program_fails(plans: ModuleType, tmp_path: Path) -> None:
    files = render_plan(placed(plans, node_order=("d3", "d1")))
    script = files["train-01.sbatch"]
    begin = script.index("# Slurm chose the nodes; which of them")
    part = script[begin : script.index("export HPCPLAN_HOSTS", begin)]
    (tmp_path / RANK_MAP_NAME).write_text(files[RANK_MAP_NAME])
    (tmp_path / PROGRAM_NAME).write_text(files[PROGRAM_NAME])

    def order() -> list[str]:
        code = f'set -euo pipefail; HPCPLAN_FILES_DIR="$PWD"; hosts=(d1 d3)\n{part}\necho "${{hosts[@]}}"'
        return subprocess.run(
            ["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()

    assert order() == ["d3", "d1"]
    (tmp_path / RANK_MAP_NAME).write_text("no JSON")
    assert order() == ["d1", "d3"]


def test_a_hostlist_that_is_none_is_refused_with_its_field(plans: ModuleType) -> None:
    plan = placed(plans)
    wrong = (*FABRIC[:1], Neighbourhood(name="b", parent="top", nodes="d[1-999999999]"), *FABRIC[2:])
    plan = plan.model_copy(update={"placement": plan.placement.model_copy(update={"fabric": wrong})})
    with pytest.raises(InputError, match=r"placement.fabric\[1\].nodes: .* names more than"):
        render_plan(plan)


def test_jobs_know_the_manifest_of_their_data(plans: ModuleType) -> None:
    data = DataShards(manifest="/data/sh ards.jsonl", sha256="0" * 64, files=3, lanes=4, tokens=100, imbalance=0.0)
    script = render_plan(plans.srun_plan(data_shards=data))["train-01.sbatch"]
    assert "export HPCPLAN_DATA_MANIFEST='/data/sh ards.jsonl'" in script
    assert "export HPCPLAN_DATA_LANES=4" in script
    assert "DATA_MANIFEST" not in render_plan(plans.srun_plan())["train-01.sbatch"]
