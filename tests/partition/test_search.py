"""The search: exhaustive, deterministic, honest about what does not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.constants import constants_for
from hpcplan.cost.memory import host_bytes
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import RECOMPUTE_MLP, Shardings
from hpcplan.errors import InfeasibleError, InputError
from hpcplan.partition.candidates import Space
from hpcplan.partition.explain import why_it_lost, why_it_won
from hpcplan.partition.families import enumerate_families, enumerate_shardings
from hpcplan.partition.fixed import parse_fixed, spelled
from hpcplan.partition.found import describe
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.search import Outcome, search
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import Workload, load_workload
from hpcplan.workload.arithmetic import parameters
from tests.partition.brute_force import rules

CONSTANTS = constants_for(accelerator="H100-SXM5-80GB", framework="megatron-lm", precision="bf16", site="superpod-h100")
SITE = load_site("superpod-h100").site
TOPOLOGY = build_topology(SITE)


def changed(name: str, **changes: dict[str, Any]) -> Workload:
    data = load_workload(name).workload.model_dump()
    for part, fields in changes.items():
        data[part] |= fields
    return Workload.model_validate(data)


def run(name: str, nodes: tuple[int, int], **options: Any) -> Outcome:
    workload = changed(name, **options.pop("changes", {}))
    return search(workload, kinds(workload), nodes=nodes, **options)


def kinds(workload: Workload, *precisions: Any) -> list[Kind]:
    return kinds_of(workload, SITE, TOPOLOGY, ("dgx",), lambda group, precision: CONSTANTS, precisions)


def space(name: str, gpus: int, **fields: Any) -> Space:
    workload = load_workload(name).workload
    return Space(
        shape=workload.model, sequence=workload.training.sequence_length, global_batch=workload.training.global_batch,
        gpus=gpus, gpus_per_domain=8, framework=fields.pop("framework", "megatron-lm"),
        host_offload=fields.pop("host_offload", True), precision=fields.pop("precision", "bf16"), fixed=fields,
    )  # fmt: skip


@pytest.mark.parametrize(("precision", "alone"), [("fp8", True), ("fp8-delayed", False)])
def test_megatron_recomputes_the_activation_alone_but_with_delayed_scaling(precision: str, alone: bool) -> None:
    found = enumerate_shardings(space("mixtral-8x7b", 8, precision=precision)).recompute_mlp
    assert (RECOMPUTE_MLP.index("activation") in found) == alone
    assert RECOMPUTE_MLP.index("all") in found


@pytest.mark.parametrize("name", ["llama3-8b", "gpt3-175b", "mixtral-8x7b"])
@pytest.mark.parametrize("gpus", [8, 64, 96])
def test_every_candidate_can_run(name: str, gpus: int) -> None:
    s = enumerate_shardings(space(name, gpus))
    workload = load_workload(name).workload
    shape, batch = workload.model, workload.training.global_batch
    assert np.all(s.gpus == gpus)
    assert np.all(s.dp * s.micro_batch * s.micro_batches == batch)
    assert np.all(shape.heads % s.tp == 0)
    assert np.all(s.pp <= shape.layers)
    interleaved = s.vpp > 1
    chunks = (s.pp * s.vpp)[interleaved]
    assert np.all((shape.layers % chunks == 0) | ((shape.layers + 2) % chunks == 0))
    assert np.all((s.micro_batches % s.pp)[interleaved] == 0)
    assert np.all((s.dp * s.cp) % s.ep == 0)
    if shape.experts:
        assert np.all(shape.experts.count % s.ep == 0)
    assert np.all((s.sequence_parallel == 0) | (s.tp > 1))


def test_the_space_has_no_gaps_and_no_repeats() -> None:
    """Against a plain enumeration of a small case, written with no shared code."""
    s = enumerate_shardings(space("llama3-8b", 8))
    names = ("tp", "cp", "pp", "vpp", "dp", "micro_batch", "zero", "recompute", "sequence_parallel", "offload",
             "last_layers", "shard_group", "spared_layers", "recompute_mlp", "recompute_block")  # fmt: skip
    found = {tuple(int(getattr(s, n)[i]) for n in names) for i in range(len(s))}
    assert len(found) == len(s)
    sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

    def last_layers(pp: int, vpp: int) -> set[int]:
        if pp == 1 or (vpp > 1 and 32 % (pp * vpp) == 0):
            return {0}
        if vpp > 1:
            return {34 // pp - 1}
        counts = [32 // pp + more for more in range(1, 7)]  # the output layer takes as long as six others
        filled = {max(1, 32 - count * (pp - 1)) for count in counts}
        return {0} | filled | {max(1, min(count - 1, 31 - (count - 1) * (pp - 1))) for count in counts}

    def groups(dp: int, cp: int) -> set[int]:
        return {0} | {size * cp for size in (1, 2, 4) if size < dp and dp % size == 0 and size * cp > 1}

    def some_layers(pp: int, vpp: int, last: int) -> set[int]:
        held = -(-(32 - last) // (pp - 1)) if last else -(-32 // pp)
        return {0} | {count for count in range(1, held) if count % vpp == 0}

    def blocks(pp: int, vpp: int, last: int) -> set[int]:
        part = -(-(-(-(32 - last) // (pp - 1)) if last else -(-32 // pp)) // vpp)
        return {size if size > 1 else 0 for size in range(1, part + 1) if size == -(-part // -(-part // size))}

    expected = {
        (tp, cp, pp, vpp, dp, size, zero, again, split, away, last, group, some, mlp, block)
        for tp in (1, 2, 4, 8) for cp in (1, 2, 4) for pp in (1, 2, 4, 8) for dp in (1, 2, 4, 8)
        if tp * cp * pp * dp == 8
        for vpp in range(1, 33)
        if vpp == 1 or (pp > 1 and (32 % (pp * vpp) == 0 or 34 % (pp * vpp) == 0))
        for size in sizes if size <= 512 // dp and (vpp == 1 or 512 // dp // size % pp == 0)
        for zero in (0, 1, 2, 3) if zero == 0 or (dp * cp > 1 and (zero == 1 or pp == 1))
        for again in (0, 1, 2)
        for split in ((0, 1) if tp > 1 else (0,))
        for away in ((0, 1) if zero else (0,))
        for last in last_layers(pp, vpp)
        for group in (groups(dp, cp) if zero else (0,))
        for some in (some_layers(pp, vpp, last) if again == 2 else (0,))
        for mlp in ((0, 2) if again < 2 else (0,))  # of plain layers Megatron Core recomputes all or nothing
        for block in (blocks(pp, vpp, last) if again == 2 and some == 0 else (0,))
    }  # fmt: skip
    assert found == expected


def test_the_winner_is_the_least_of_all_that_fit() -> None:
    workload = changed("llama3-70b", training={"global_batch": 64})
    outcome = search(workload, kinds(workload), nodes=(8, 8))
    family = enumerate_families(dataclasses.replace(space("llama3-70b", 64), global_batch=64))
    everything = family.shardings
    costs = kinds(workload)[0].price(workload, everything)
    fits = costs.memory_bytes <= outcome.machine.memory_bytes * 0.95
    fits &= host_bytes(Shape.of(workload.model), outcome.machine, everything) <= 2 * 2**40 * 0.95
    assert outcome.candidates == len(everything)
    dropped = rules(workload, kinds(workload)[0], family, costs)
    assert outcome.pruned == dropped
    assert outcome.feasible == len(everything) - sum(dropped.values())
    assert outcome.costs.step_s[0] == pytest.approx(costs.step_s[fits].min())
    assert np.all(np.diff(outcome.costs.step_s) >= 0)


def test_counts_add_up_and_the_same_question_has_the_same_answer() -> None:
    first, second = run("mixtral-8x7b", (2, 6)), run("mixtral-8x7b", (2, 6))
    assert first.candidates == first.feasible + sum(first.pruned.values())
    assert [list(getattr(first.best, n)) for n in ("tp", "pp", "dp", "ep")] == [
        list(getattr(second.best, n)) for n in ("tp", "pp", "dp", "ep")
    ]


def test_fixed_choices_are_kept() -> None:
    outcome = run("llama3-70b", (8, 8), fixed=parse_fixed(("tp=4", "pp=2", "recompute=full", "sequence_parallel=on")))
    assert set(outcome.best.tp) == {4}
    assert set(outcome.best.pp) == {2}
    assert set(outcome.best.recompute) == {2}


@pytest.mark.parametrize("word", ["tp", "tp=", "tp=x", "tensor=8", "recompute=some", "=8"])
def test_a_wrong_fixed_choice_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="--fix"):
        parse_fixed((word,))


@pytest.mark.parametrize(
    ("word", "right"),
    [("recompute_mlp=al", "none or activation or all"), ("zero=x", "a whole number"),
     ("shard_group=some", "a whole number, or all"), ("secondary_group=0", "a whole number, or none")],
)  # fmt: skip
def test_a_wrong_value_is_told_what_would_be_right(word: str, right: str) -> None:
    with pytest.raises(InputError, match=f"write {right}$"):
        parse_fixed((word,))


@given(st.text(max_size=20))
def test_any_fixed_choice_is_read_or_refused(word: str) -> None:
    try:
        fixed = parse_fixed((word,))
    except InputError:
        return
    assert len(fixed) == 1


def test_cost_prefers_fewer_nodes_than_time() -> None:
    fast, cheap = run("llama3-8b", (1, 32)), run("llama3-8b", (1, 32), objective="cost")
    assert fast.nodes[0] > cheap.nodes[0]
    assert cheap.costs.step_s[0] * cheap.nodes[0] <= fast.costs.step_s[0] * fast.nodes[0]


def test_memory_that_binds_says_by_how_much() -> None:
    with pytest.raises(InfeasibleError, match=r"memory binds: of .* none fits.* needs .* GiB.* more than") as caught:
        run("llama3-405b", (1, 1))
    assert caught.value.exit_code == 3


def test_a_deadline_that_binds_says_what_is_possible() -> None:
    with pytest.raises(InfeasibleError, match="the deadline binds: the fastest sharding"):
        run("llama3-8b", (1, 4), changes={"request": {"deadline_s": 3600.0}})


def test_a_budget_that_binds_says_what_it_would_cost() -> None:
    with pytest.raises(InfeasibleError, match=r"the budget binds: the cheapest.*USD, but the budget is 100"):
        run("llama3-8b", (1, 4), changes={"request": {"budget": 100.0}})


def test_nothing_that_divides_says_so() -> None:
    with pytest.raises(InfeasibleError, match="no sharding of 'llama3-8b' divides evenly"):
        run("llama3-8b", (3, 3), changes={"training": {"global_batch": 7}}, fixed={"dp": 3})


def test_the_explanation_names_the_terms_that_differ() -> None:
    outcome = run("llama3-70b", (16, 16))
    assert "shortest step" in why_it_won(outcome)
    for i in range(1, len(outcome.best)):
        assert why_it_lost(outcome, i).startswith("+")


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(1, 300))
def test_any_batch_on_any_nodes_gives_a_plan_or_says_why_not(nodes: int, batch: int) -> None:
    try:
        outcome = run("llama3-8b", (nodes, nodes), changes={"training": {"global_batch": batch}})
    except InfeasibleError:
        return
    assert int((outcome.best.dp * outcome.best.micro_batch * outcome.best.micro_batches)[0]) == batch


def test_where_the_network_is_thin_states_are_divided_inside_nodes() -> None:
    """PyTorch's hybrid sharding: gathered over NVLink, and only a share of the gradients crosses the network."""
    workload = changed("llama3-8b", request={"framework": "torchrun"}, training={"global_batch": 256})
    thin, fixed = kinds(workload)[0].with_network(0.05), {"zero": 3}
    found = search(workload, [thin], nodes=(16, 16), fixed=fixed)
    assert int(found.best.shard_group[0]) == 8
    assert "ZeRO 3 in groups of 8" in describe(found.best, 0)
    whole = search(workload, [thin], nodes=(16, 16), fixed=fixed | {"shard_group": 0})
    assert whole.costs.step_s[0] > 1.2 * found.costs.step_s[0]
    assert whole.costs.memory_bytes[0] < found.costs.memory_bytes[0] or whole.best.micro_batch[0] > 1


def test_where_all_layers_need_not_be_recomputed_some_are() -> None:
    workload = changed("llama3-70b", training={"global_batch": 256}, request={"memory_headroom": 0.5})
    fixed = parse_fixed(("tp=8", "pp=4", "vpp=1", "micro_batch=1", "zero=1", "offload=none", "cp=1"))
    some = search(workload, kinds(workload), nodes=(8, 8), fixed=fixed)
    assert some.best.recompute[0] == 2
    assert 0 < some.best.spared_layers[0] < 20
    assert f"recompute full of {some.best.spared_layers[0]} layers a rank" in describe(some.best, 0)
    everything = search(workload, kinds(workload), nodes=(8, 8), fixed=fixed | parse_fixed(("recompute_layers=all",)))
    assert some.costs.step_s[0] < everything.costs.step_s[0]
    fewer = fixed | {"recompute_layers": int(some.best.spared_layers[0]) - 1}
    with pytest.raises(InfeasibleError, match="memory binds"):
        search(workload, kinds(workload), nodes=(8, 8), fixed=fewer)


def test_a_capacity_factor_is_refused_where_experts_are_given_none() -> None:
    data = load_workload("mixtral-8x7b").workload.model_dump()
    data["model"]["experts"]["capacity_factor"] = 1.0
    data["request"]["framework"] = "torchtitan"
    with pytest.raises(InfeasibleError, match="the framework binds: torchtitan gives experts no capacity"):
        kinds(Workload.model_validate(data))
    data["request"]["framework"] = "megatron-lm"
    capped = Workload.model_validate(data)
    alone = {"tp": 1, "pp": 1}
    fast = search(capped, kinds(capped), nodes=(8, 8), fixed=alone).costs.step_s[0]
    assert fast < run("mixtral-8x7b", (8, 8), fixed=alone).costs.step_s[0]


def test_groups_that_keep_weights_once_more_gather_them_near() -> None:
    """Half of what is gathered stays in a node, for a copy of the weights over its eight accelerators."""
    workload = changed("llama3-70b", training={"global_batch": 64}, request={"framework": "deepspeed"})
    fixed = parse_fixed(("zero=3", "tp=1", "pp=1", "ep=1", "micro_batch=1", "recompute=full", "shard_group=all"))
    plain, copied = (
        search(workload, kinds(workload), nodes=(8, 8), fixed=fixed | parse_fixed((word, "offload=none")))
        for word in ("secondary_group=none", "secondary_group=8")
    )
    assert copied.best.secondary_group[0] == 8
    assert copied.costs.time.data_parallel[0] < plain.costs.time.data_parallel[0]
    tried = search(workload, kinds(workload), nodes=(8, 8), fixed=fixed)
    assert tried.best.secondary_group[0] > 0, "it is tried without being asked for"
    assert tried.costs.step_s[0] <= copied.costs.step_s[0]
    more = copied.costs.memory_bytes[0] - plain.costs.memory_bytes[0]
    assert more == pytest.approx(2 * parameters(workload.model) / 8, rel=0.01)
    assert "ZeRO 3 with hpZ in 8s" in describe(copied.best, 0)
    megatron = changed("llama3-70b", training={"global_batch": 64})
    with pytest.raises(InfeasibleError, match="secondary_group"):
        search(megatron, kinds(megatron), nodes=(8, 8), fixed=parse_fixed(("secondary_group=8",)))


def test_blocks_are_tried_where_one_checkpoint_a_layer_does_not_fit() -> None:
    """80 layers on one stage keep 80 inputs, or 9 and the tensors of 9 layers that are at work together."""
    fixed = parse_fixed(("tp=8", "pp=1", "cp=1", "zero=1", "offload=none", "recompute=full", "recompute_layers=all"))
    workload = changed("llama3-70b", training={"global_batch": 2048})
    one = search(workload, kinds(workload), nodes=(32, 32), fixed=fixed | {"recompute_block": 1})
    tried = search(workload, kinds(workload), nodes=(32, 32), fixed=fixed)
    largest = enumerate_shardings(space("llama3-70b", 256, **fixed)).recompute_block.max()
    assert one.best.recompute_block[0] == 0
    assert tried.best.micro_batch[0] >= one.best.micro_batch[0]
    assert 0 <= tried.best.recompute_block[0] <= largest
    tight = one.best.micro_batch[0] * 2
    with pytest.raises(InfeasibleError):
        search(workload, kinds(workload), nodes=(32, 32), fixed=fixed | {"recompute_block": 1, "micro_batch": tight})


def test_blocks_of_recomputed_layers_are_kept_where_they_are_given() -> None:
    workload = changed("llama3-70b", training={"global_batch": 256})
    fixed = parse_fixed(("tp=8", "pp=4", "vpp=1", "micro_batch=2", "zero=1", "offload=none", "cp=1", "recompute=full"))
    one, four = (
        search(workload, kinds(workload), nodes=(8, 8), fixed=fixed | parse_fixed((word, "recompute_layers=all")))
        for word in ("recompute_block=1", "recompute_block=4")
    )
    assert (one.best.recompute_block[0], four.best.recompute_block[0]) == (0, 4)
    assert four.costs.step_s[0] == pytest.approx(one.costs.step_s[0]), "as much is run again"
    assert four.costs.memory.activations[0] != one.costs.memory.activations[0]
    assert "recompute full in blocks of 4" in describe(four.best, 0)
    titan = changed("llama3-70b", request={"framework": "torchtitan"})
    with pytest.raises(InfeasibleError, match="recompute_block"):
        search(titan, kinds(titan), nodes=(8, 8), fixed=parse_fixed(("recompute_block=4",)))


@pytest.mark.parametrize(
    "word",
    [
        "shard_group=all",
        "recompute_layers=all",
        "shard_group=8",
        "recompute_layers=3",
        "recompute_block=2",
        "secondary_group=8",
        "secondary_group=none",
        "recompute_mlp=activation",
        "context_exchange=all_gather",
        "quantized=both",
    ],
)
def test_groups_and_layers_are_fixed_and_spelled_alike(word: str) -> None:
    name, _, value = word.partition("=")
    assert spelled(name, parse_fixed((word,))[name]) == value


@pytest.mark.parametrize("word", ["shard_group=0", "recompute_layers=-1", "recompute_layers=some"])
def test_no_group_and_no_layers_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="cannot be"):
        parse_fixed((word,))


def test_groups_that_cannot_be_are_told_from_those_that_can() -> None:
    with pytest.raises(InfeasibleError, match="divides evenly") as caught:
        run("llama3-8b", (2, 2), fixed=parse_fixed(("shard_group=7", "tp=1", "pp=1", "cp=1", "zero=1")))
    assert "shard_group can be all, 2, 4 or 8" in str(caught.value.hint)


def test_shardings_of_scalars_and_lists() -> None:
    s = Shardings.of(tp=[1, 2], dp=4)
    assert len(s) == 2
    assert list(s.gpus) == [4, 8]


def test_a_winner_that_offloads_by_a_hair_is_shown_with_the_simpler_run() -> None:
    outcome = run("llama3-70b", (4, 4), fixed={"offload": 1}, keep=8)
    assert "simpler" not in why_it_won(outcome)
    count = np.arange(len(outcome.best))
    plain = dataclasses.replace(outcome.best, offload=np.where(count == 2, 0, 1))
    near = dataclasses.replace(outcome.costs, step_s=outcome.costs.step_s[0] * (1 + 0.005 * count))
    said = why_it_won(dataclasses.replace(outcome, best=plain, costs=near))
    assert f"{describe(plain, 2)} does without offload and takes 1.0% more" in said
    far = dataclasses.replace(outcome.costs, step_s=outcome.costs.step_s[0] * (1 + 0.02 * count))
    assert "simpler" not in why_it_won(dataclasses.replace(outcome, best=plain, costs=far))


def test_a_chip_without_a_precision_is_left_out_and_said() -> None:
    workload = changed("llama3-8b")
    assert [kind.precision for kind in kinds(workload, "bf16", "fp4", "fp8")] == ["bf16", "fp8"]
    with pytest.raises(InfeasibleError, match="the precision binds: the accelerators of dgx"):
        kinds(workload, "fp4")
    with pytest.raises(InfeasibleError, match="the framework binds: deepspeed does not train in fp8"):
        kinds(changed("llama3-8b", request={"framework": "deepspeed"}), "fp8")
