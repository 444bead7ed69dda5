"""One job over unequal nodes: against every way to share on small cases, and the plain search on equal pools."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.constants import constants_for
from hpcplan.errors import InfeasibleError, InputError
from hpcplan.partition import pool_batches, pool_stages
from hpcplan.partition.kinds import kinds_of
from hpcplan.partition.pool_batches import fixed_shares, share_batch
from hpcplan.partition.pool_stages import fixed_layers, share_layers
from hpcplan.partition.pools import Member, members_of, parse_pools
from hpcplan.partition.search import search
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import Workload, load_workload

CONSTANTS = constants_for(framework="megatron-lm", precision="bf16")
SITE = load_site("mixed-lab").site
TOPOLOGY = build_topology(SITE)


def small(layers: int = 8, batch: int = 8, framework: str = "megatron-lm", headroom: float = 0.05) -> Workload:
    data: dict[str, Any] = load_workload("llama3-8b").workload.model_dump()
    data["model"] |= {"layers": layers}
    data["training"] |= {"global_batch": batch}
    data["request"] |= {"framework": framework, "memory_headroom": headroom}
    return Workload.model_validate(data)


def members(workload: Workload, **counts: int) -> list[Member]:
    kinds = kinds_of(workload, SITE, TOPOLOGY, [*counts], lambda group, precision: CONSTANTS)
    return members_of(SITE, TOPOLOGY, kinds, counts)


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 8), st.sampled_from([4, 8]), st.sampled_from([0.05, 0.4]), st.integers(1, 2), st.integers(1, 2))
def test_no_pipeline_over_the_pools_is_faster(layers: int, batch: int, headroom: float, fast: int, slow: int) -> None:
    """Every order, sharding and cut, priced one by one with the model of the step that the module states."""
    workload = small(layers, batch, headroom=headroom)
    pools = members(workload, h100=fast, a100=slow)
    s = pool_stages._shardings(workload, pools)
    assert s is not None
    problem = pool_stages._Problem(workload, pools, s)
    best = np.inf
    for i in range(len(s)):
        pp = sum(int(stages[i]) for stages in problem.stages)
        for order in permutations(range(2)):
            question = pool_stages._Question(order, i, 0.0)
            for inner in combinations(range(1, layers), pp - 1):
                sizes = np.diff([0, *inner, layers])
                step = problem.step_of(question, sizes.tolist())
                assert step >= problem.bounds()[i] * (1 - 1e-9), "the bound holds for every cut"
                best = min(best, step)
    try:
        found = share_layers(workload, pools)
    except InfeasibleError:
        assert not np.isfinite(best)
        return
    assert found.step_s == pytest.approx(best, rel=1e-9)
    assert sum(found.stage_layers) == layers
    assert sum(found.terms.values()) == pytest.approx(found.step_s)
    assert found.bound_s <= found.step_s


def test_the_faster_pool_gets_more_layers_and_no_rule_of_thumb_is_better() -> None:
    workload = small(32, 128)
    plan = share_layers(workload, members(workload, h100=2, a100=4))
    by_pool = {member.kind.group: stages for member, stages in zip(plan.members, plan.stages, strict=True)}
    ends = np.cumsum(plan.stages)
    fast = [member.kind.group for member in plan.members].index("h100")
    mine = plan.stage_layers[ends[fast] - by_pool["h100"] : ends[fast]]
    assert min(mine) > max(set(plan.stage_layers) - set(mine))
    for weights in ([1.0, 1.0], [3.0, 1.0], [1.0, 3.0], [2.0, 1.0]):
        step = fixed_layers(workload, plan, weights)
        assert step is None or step >= plan.step_s * (1 - 1e-12)


def test_two_pools_of_the_same_nodes_do_what_one_does() -> None:
    """A pool cut in two is priced as the search prices the whole, but for the way between the halves."""
    workload = small(32, 64)
    whole = members(workload, a100=4)[0]
    halves = [Member(whole.kind, 2), Member(whole.kind, 2)]
    plan = share_layers(workload, halves)
    fixed = {"tp": plan.tp, "pp": plan.pp, "vpp": 1, "cp": 1, "micro_batch": plan.micro_batch[0], "offload": 0}
    alone = search(workload, [whole.kind], nodes=(4, 4), fixed=fixed, keep=1)
    assert plan.step_s == pytest.approx(float(alone.costs.step_s[0]), rel=0.05)


def test_equal_pools_have_the_price_of_the_whole_term_by_term() -> None:
    workload = small(32, 64)
    whole = members(workload, a100=4)[0]
    halves = [Member(whole.kind, 2), Member(whole.kind, 2)]
    shardings = pool_stages._shardings(workload, halves)
    assert shardings is not None
    problem = pool_stages._Problem(workload, halves, shardings)
    even = np.flatnonzero(32 % problem.s.pp == 0)
    costs = whole.kind.price(workload, problem.s)
    assert len(even) > 50
    for i in even[:: len(even) // 50].tolist():
        pp = int(problem.s.pp[i])
        question = pool_stages._Question((0, 1), i, 0.0)
        needs = [table.memory_bytes[stage * 32 // pp, (stage + 1) * 32 // pp]
                 for stage, table in enumerate(problem.tables(question))]  # fmt: skip
        assert max(needs) == pytest.approx(float(costs.memory_bytes[i]), rel=1e-9)
        if costs.memory_bytes[i] <= whole.kind.free_bytes(0.05):
            step = problem.step_of(question, [32 // pp] * pp)
            assert step == pytest.approx(float(costs.step_s[i]), rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([16, 24, 48, 96]), st.integers(2, 4), st.sampled_from([0.05, 0.3]))
def test_no_shares_of_the_batch_are_faster(batch: int, layers: int, headroom: float) -> None:
    workload = small(layers, batch, framework="torchrun", headroom=headroom)
    pools = members(workload, h100=1, a100=2)
    best = np.inf
    for way in pool_batches._ways(workload, pools):
        prices = pool_batches._prices(workload, pools, way)
        first, second = (member.gpus // way.tp for member in pools)
        for a in range(1, batch):
            rest = batch - way.micro_batches * first * a
            if rest > 0 and rest % (way.micro_batches * second) == 0:
                b = rest // (way.micro_batches * second)
                best = min(best, max(float(prices[0].step_s[a - 1]), float(prices[1].step_s[b - 1])))
    try:
        found = share_batch(workload, pools)
    except InfeasibleError:
        assert not np.isfinite(best)
        return
    assert found.step_s == pytest.approx(best)
    assert found.bound_s <= found.step_s * (1 + 1e-12)
    sequences = sum(member.gpus * size for member, size in zip(pools, found.micro_batch, strict=True))
    assert sequences * found.micro_batches // found.tp == batch
    assert fixed_shares(workload, found, [float(size) for size in found.micro_batch]) == pytest.approx(found.step_s)


def test_a_framework_without_pipelines_cannot_share_layers() -> None:
    workload = small(framework="torchrun")
    with pytest.raises(InfeasibleError, match="no pipeline over these pools with torchrun"):
        share_layers(workload, members(workload, h100=1, a100=1))


def test_what_no_pool_can_hold_is_said() -> None:
    data = load_workload("gpt3-175b").workload
    with pytest.raises(InfeasibleError, match="memory binds"):
        share_layers(data, members(data, h100=1, a100=1))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("h100",), "two or more node groups"),
        (("h100", "b200"), "has no node group 'b200'"),
        (("h100=9", "a100"), "with N from 1 to 2"),
        (("h100=x", "a100"), "write h100=N"),
    ],
)
def test_wrong_pools_are_refused(words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        parse_pools(words, SITE, "gpu")


def test_pools_without_a_number_are_taken_whole() -> None:
    assert parse_pools(("h100", "a100=3"), SITE, "gpu") == {"h100": 2, "a100": 3}
