"""What of a site a job is told: its interfaces for NCCL, and what its nodes must show."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpcplan.plan import Job
from hpcplan.schedule.assemble import job
from hpcplan.schedule.planner import make_plan
from hpcplan.site import load_site
from hpcplan.site.model import Site
from hpcplan.workload import load_workload


def job_on(name: str, *groups: str, **changes: Any) -> Job:
    """Return the job of llama3-8b on one node of a shipped site, with keys of the site's file changed."""
    loaded = load_site(name)
    data = loaded.site.model_dump()
    for key, value in changes.items():
        data[key] = value if not isinstance(value, dict) else {**(data[key] or {}), **value}
    site = Site.model_validate(data)
    plan = make_plan(load_workload("llama3-8b"), dataclasses.replace(loaded, site=site), nodes=(1, 1)).plan
    first, *others = groups or (plan.placement.node_group,)
    return job(load_workload("llama3-8b").workload, site, first, plan.plan, others)


def test_nccl_is_told_the_interfaces_exactly_and_to_stay_on_its_rail() -> None:
    variables = job_on("superpod-h100", environment={"variables": {}}).environment.variables
    assert variables["NCCL_IB_HCA"].startswith("=mlx5_0,mlx5_3,")
    assert variables["NCCL_CROSS_NIC"] == "0"


def test_what_the_site_says_itself_comes_first() -> None:
    own = {"NCCL_IB_HCA": "mlx5_0", "NCCL_CROSS_NIC": "1"}
    assert job_on("superpod-h100", environment={"variables": own}).environment.variables == own


def test_a_site_that_names_no_interfaces_leaves_them_to_nccl() -> None:
    assert "NCCL_IB_HCA" not in job_on("mixed-lab").environment.variables


def test_unequal_nodes_must_show_what_the_least_of_them_has() -> None:
    checks = {"checks": {"gpus": True, "links": True, "all_reduce": True, "spare_nodes": 1}}
    alone, together = job_on("mixed-lab", "h100", **checks).health, job_on("mixed-lab", "h100", "a100", **checks).health
    assert alone is not None
    assert together is not None
    assert (alone.interface_bytes_per_s, together.interface_bytes_per_s) == (25e9, 12.5e9)
    assert together.gpus == 4
    assert (alone.spare_nodes, together.spare_nodes) == (1, 0), "a spare node of which kind?"
