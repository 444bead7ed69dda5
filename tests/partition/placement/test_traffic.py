"""What a step sends: the volumes of the cost model, and times tied to its estimate."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hpcplan.partition.fixed import parse_fixed
from hpcplan.partition.placement import Machinery, best_placement, plan_machinery
from hpcplan.plan import Plan
from hpcplan.schedule.planner import make_plan
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import load_workload

CASES = {
    "gpt": ("gpt3-175b", "selene", 128, ("tp=8", "pp=16", "vpp=1")),
    "interleaved": ("gpt3-175b", "selene", 128, ("tp=8", "pp=8", "vpp=2")),
    "experts": ("mixtral-8x7b", "superpod-h100", 16, ("ep=8",)),
    "context": ("llama3-8b", "superpod-h100", 16, ("cp=2", "tp=2")),
    "zero 3": ("llama3-8b", "superpod-h100", 8, ("zero=3",)),
}


@cache
def planned(case: str) -> Plan:
    workload, site, nodes, fixed = CASES[case]
    loaded = load_workload(workload)
    if case == "zero 3":
        request = loaded.workload.request.model_copy(update={"framework": "torchrun"})
        object.__setattr__(loaded, "workload", loaded.workload.model_copy(update={"request": request}))
    return make_plan(loaded, load_site(site), nodes=(nodes, nodes), fixed=parse_fixed(fixed)).plan


def machinery(plan: Plan) -> Machinery:
    site = load_site(plan.provenance.site.path).site
    return plan_machinery(plan, site, build_topology(site))


@pytest.mark.parametrize("case", CASES)
def test_the_predicted_step_is_near_the_estimate_on_a_full_fat_tree(case: str) -> None:
    """These sites have full bisection, so nothing but latencies and rings that share a link can differ."""
    plan = planned(case)
    assert plan.placement.prediction is not None
    assert plan.placement.prediction.step_s == pytest.approx(plan.estimate.iter_time_s, rel=0.06)
    assert plan.placement.traffic is not None
    for term in plan.placement.traffic.terms:
        assert 0.05 < term.scale < 20, f"{term.name}: volumes and estimate belong together"


def test_the_terms_are_those_of_the_sharding() -> None:
    def names(case: str) -> dict[str, list[str]]:
        traffic = planned(case).placement.traffic
        assert traffic is not None
        return {term.name: [f"{one.axis} {one.pattern}" for one in term.exchanges] for term in traffic.terms}

    assert names("gpt") == {
        "tensor_parallel": ["tp ring"], "data_parallel": ["dp ring"], "pipeline_transfer": ["pp chain"],
    }  # fmt: skip
    assert names("interleaved")["pipeline_transfer"] == ["pp loop"]
    assert names("experts")["expert_parallel"] == ["ep all-to-all"]
    assert names("experts")["data_parallel"] == ["dp ring", "edp ring"]
    assert names("context")["context_parallel"] == ["cp ring"]


def test_volumes_are_those_of_the_papers() -> None:
    """Narayanan et al. 2021, section 3: 8 b s h (t-1)/t elements a layer and micro-batch, b s h from stage to stage."""
    plan = planned("gpt")
    s, traffic = plan.plan, plan.placement.traffic
    assert traffic is not None
    sent = {one.axis: one.sent_bytes for term in traffic.terms for one in term.exchanges}
    activation = s.micro_batch * 2048 * 12288 * 2
    passes = 3 / 2 if s.recompute == "full" else 1
    of_layers = 8 * activation * (s.tp - 1) / s.tp * passes * s.micro_batches
    assert sent["tp"] == pytest.approx(of_layers * (96 / 16 + 1), rel=1e-9), "the head counts as a layer"
    assert sent["pp"] == pytest.approx(activation * s.micro_batches / (s.tp if s.sequence_parallel else 1))


def test_a_faster_network_only_makes_steps_shorter() -> None:
    plan = planned("gpt")
    made = machinery(plan)
    hosts = made.hierarchy.numbers(made.topology.nodes(plan.placement.node_group)[: plan.plan.nodes])
    order = ("tp", "cp", "dp", "pp")
    before = made.predictor(order).quality(hosts[None]).step_s[0]
    made.network.rate = made.network.rate * 2
    after = made.predictor(order).quality(hosts[None]).step_s[0]
    assert after < before
    assert after > plan.estimate.breakdown.time.compute_s


def test_the_plan_of_a_published_system_has_the_order_that_its_authors_used() -> None:
    """Megatron-LM on Selene: tensor parallelism in the node, then data parallelism, the pipeline across."""
    plan = planned("gpt")
    assert plan.placement.order == ("tp", "cp", "dp", "pp")
    placed = best_placement(machinery(plan), machinery(plan).topology.nodes(plan.placement.node_group))
    assert placed.step_s <= placed.slurm_step_s
    assert np.isfinite(placed.bound_step_s)
