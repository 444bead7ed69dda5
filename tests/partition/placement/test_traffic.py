"""What a step sends: the volumes of the cost model, and times tied to its estimate."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from hpcplan.cost.constants import constants_for
from hpcplan.partition.fixed import parse_fixed
from hpcplan.partition.kinds import kinds_of
from hpcplan.partition.placement import Machinery, best_placement, plan_machinery, traffic_of
from hpcplan.partition.placement.traffic import as_the_cost_model_has_it
from hpcplan.plan import Plan, TimeBreakdown
from hpcplan.schedule.planner import make_plan
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import load_workload
from tests.render import plans

CASES = {
    "gpt": ("gpt3-175b", "selene", 128, ("tp=8", "pp=16", "vpp=1", "sequence_parallel=on")),
    "plain": ("gpt3-175b", "selene", 128, ("tp=8", "pp=16", "vpp=1", "sequence_parallel=off")),
    "interleaved": ("gpt3-175b", "selene", 128, ("tp=8", "pp=8", "vpp=2")),
    "experts": ("mixtral-8x7b", "superpod-h100", 16, ("ep=8",)),
    "context": ("llama3-8b", "superpod-h100", 16, ("cp=2", "tp=2")),
    "gathered": ("llama3-8b", "superpod-h100", 16, ("cp=2", "tp=2", "context_exchange=all_gather")),
    "swapped": ("llama3-8b", "superpod-h100", 16, ("cp=2", "tp=2", "context_exchange=a2a")),
    "zero 3": ("llama3-8b", "superpod-h100", 8, ("zero=3",)),
    "hybrid": ("llama3-8b", "superpod-h100", 8, ("zero=1", "shard_group=8", "tp=1", "pp=1", "cp=1")),
    "some layers": ("llama3-70b", "superpod-h100", 16, ("tp=8", "pp=2", "recompute_layers=4")),
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
    assert names("gathered")["context_parallel"] == ["cp ring"]
    assert names("swapped")["context_parallel"] == ["cp all-to-all"]
    assert names("hybrid")["data_parallel"] == ["dp ring", "rdp ring"]
    assert names("plain")["pipeline_transfer"] == ["pp chain", "tp ring"], "parts are put together"


def sent_bytes(plan: Plan, term: str) -> dict[str, float]:
    assert plan.placement.traffic is not None
    found = next(one for one in plan.placement.traffic.terms if one.name == term)
    return {one.axis: one.sent_bytes for one in found.exchanges}


@pytest.mark.parametrize("case", ["gpt", "plain"])
def test_volumes_are_those_of_the_papers(case: str) -> None:
    """Narayanan et al. 2021, section 3: 8 b s h (t-1)/t elements a layer and micro-batch, b s h / t to the next stage.

    With sequence parallelism inputs are gathered once more (Korthikanti et al. 2022, section 4.2.2).
    """
    plan = planned(case)
    s = plan.plan
    activation = s.micro_batch * 2048 * 12288 * 2
    layers = max(s.layers_of_ranks(96))
    again = (s.recompute_layers or layers) / layers if s.recompute == "full" else 0
    passes = (2 + again) * 4 + (2 if s.sequence_parallel else 0)
    of_layers = passes * activation * (s.tp - 1) / s.tp * s.micro_batches
    expected = pytest.approx(of_layers * (layers + 1), rel=1e-9)
    assert sent_bytes(plan, "tensor_parallel")["tp"] == expected, "the head counts as a layer"
    assert sent_bytes(plan, "pipeline_transfer")["pp"] == pytest.approx(activation * s.micro_batches / s.tp)


def test_groups_of_ranks_exchange_gradients_among_them_and_what_is_left_with_their_copies() -> None:
    plan = planned("hybrid")
    parameters, sent = plan.training.parameters, sent_bytes(plan, "data_parallel")
    gathered = (4 + 2) * parameters * 7 / 8  # gradients in fp32 are reduced, weights in 16 bits gathered
    assert sent["dp"] == pytest.approx(gathered, rel=0.02)
    copies = plan.plan.copies
    assert (plan.plan.shard_group, copies) == (8, plan.plan.gpus // 8)
    assert sent["rdp"] == pytest.approx(2 * 4 * parameters / 8 * (copies - 1) / copies, rel=0.02)


IDEAL = {
    "tensor_exposed": 1.0, "tensor_backward_exposed": 1.0, "expert_exposed": 1.0, "pipeline_exposed": 1.0,
    "gradient_exposed": 1.0, "sharded_exposed": 1.0, "gather_efficiency": 1.0, "straggler": 0.0,
    "link_half_bytes": 0.0, "network_half_bytes": 0.0, "expert_imbalance": 1.0,
}  # fmt: skip
SHARDINGS = {
    "tensor": {"tp": 4, "pp": 4, "recompute": "full", "sequence_parallel": True},
    "some layers": {"tp": 2, "pp": 2, "recompute": "full", "recompute_layers": 3, "sequence_parallel": True},
    "experts": {"ep": 8, "tp": 2, "sequence_parallel": True},
    "zero 3": {"zero": 3},
    "zero 3 in a pipeline": {"zero": 3, "pp": 4},
    "replicas": {"zero": 0, "tp": 2},
    "groups": {"zero": 1, "shard_group": 8},
    "groups of zero 3": {"zero": 3, "shard_group": 8, "ep": 4},
}


@pytest.mark.parametrize("case", SHARDINGS)
@pytest.mark.parametrize("name", ["llama3-8b", "mixtral-8x7b"])
def test_busy_time_is_the_cost_models_own(name: str, case: str) -> None:
    """With constants that hide and slow nothing, each term's exchanges keep the links busy for the term's seconds."""
    changes = {"tp": 1, "pp": 1, "ep": 1, "zero": 1, "recompute": "none", "sequence_parallel": False} | SHARDINGS[case]
    if name == "llama3-8b":
        changes["ep"] = 1
    sharding = plans.sharding(
        **(changes | {"vpp": 1, "dp": 64 // changes["tp"] // changes["pp"], "micro_batches": 8, "nodes": 8, "gpus": 64})
    )
    workload = load_workload(name).workload
    site = load_site("superpod-h100").site
    constants = constants_for(accelerator="H100-SXM5-80GB", framework="megatron-lm", precision="bf16")
    ideal = dataclasses.replace(constants, coefficients=dataclasses.replace(constants.coefficients, **IDEAL))
    kind = kinds_of(workload, site, build_topology(site), ("dgx",), lambda group, precision: ideal)[0]
    s = as_the_cost_model_has_it(sharding, workload.model.layers)
    time = kind.price(workload, s).time
    terms = {f"{field.name}_s": float(getattr(time, field.name)[0]) for field in dataclasses.fields(time)}
    estimate = plans.plan().estimate
    estimate = estimate.model_copy(
        update={"breakdown": estimate.breakdown.model_copy(update={"time": TimeBreakdown(**terms)})}
    )
    found = traffic_of(
        workload.model, workload.training.sequence_length, sharding, estimate, kind.machine, kind.coefficients,
        node_bytes_per_s=1e11, node_latency_s=1e-6,
    )  # fmt: skip
    scales = {term.name: term.scale for term in found.terms}
    assert len(scales) == sum((sharding.tp > 1, sharding.ep > 1, sharding.dp > 1, sharding.pp > 1))
    ways = 1 if sharding.pp == 2 else 2  # two stages exchange both ways at once, others with either neighbour in turn
    fill = ways + 2 * (sharding.pp - 1) / 8  # and the pipeline is filled and drained
    for term, scale in scales.items():
        assert scale == pytest.approx(fill if term == "pipeline_transfer" else 1.0, rel=1e-6), term


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
