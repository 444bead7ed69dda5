"""Memory of the fullest rank, against published formulas and against common sense."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import make_machine
from hpcplan.cost.memory import (
    by_stage,
    end_parameters,
    gathered_bytes,
    held_parameters,
    layer_activation_bytes,
    memory,
    score_bytes_kept,
)
from hpcplan.cost.recipe import Recipe
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import FULL, GPIPE, NONE, ONE_F_ONE_B, SELECTIVE, ZERO_BUBBLE, Shardings
from hpcplan.site.catalogue import accelerators
from hpcplan.site.topology import Tier
from hpcplan.workload import load_workload
from hpcplan.workload.arithmetic import parameters

CONSTANTS = constants_for(accelerator="", framework="", precision="", site="").coefficients
MACHINE = make_machine(
    accelerators()["H100-SXM5-80GB"], "bf16", gpus_per_node=8, link_bytes_per_s=450e9, link_latency_s=2e-6,
    tiers=[Tier("leaf", 32, 400e9, 4e-6)],
)  # fmt: skip
GPT3 = Shape.of(load_workload("gpt3-175b").workload.model)
LLAMA_MODEL = load_workload("llama3-8b").workload.model
LLAMA = Shape.of(LLAMA_MODEL)


def test_a_gpt_layer_keeps_34_sbh_over_t_with_sequence_parallelism() -> None:
    """Korthikanti et al. 2022, equation 4 without the term of plain attention."""
    s = Shardings.of(tp=8, micro_batch=2, sequence_parallel=1)
    assert layer_activation_bytes(GPT3, 2048, s)[0] == pytest.approx(34 * 2048 * 2 * 12288 / 8, rel=1e-9)


def test_a_gpt_layer_keeps_10_plus_24_over_t_without() -> None:
    """Korthikanti et al. 2022, equation 2 without the term of plain attention."""
    s = Shardings.of(tp=8, micro_batch=1)
    assert layer_activation_bytes(GPT3, 2048, s)[0] == pytest.approx((10 + 24 / 8) * 2048 * 12288, rel=1e-9)


def test_plain_attention_keeps_5_a_s_squared_over_t_more() -> None:
    """Korthikanti et al. 2022, equation 2; selective recomputation drops it (section 5)."""
    s = Shardings.of(tp=8, micro_batch=2, recompute=[NONE, SELECTIVE])
    exact = dataclasses.replace(CONSTANTS, kept_activations=1.0, activation_fragmentation=1.0)
    need = [memory(GPT3, 2048, MACHINE, s, exact, Recipe(flash=flash)).activations for flash in (0.0, 1.0)]
    one_layer = 5 * 96 * 2048**2 * 2 / 8
    assert need[0] - need[1] == pytest.approx(np.array([96 * one_layer, one_layer]))


def test_the_card_holds_what_no_allocator_counts() -> None:
    """CUDA's context on any accelerator, NCCL's buffers where there are several, less of both without links."""
    s = Shardings.of(dp=[1, 8])
    need = memory(LLAMA, 4096, MACHINE, s, CONSTANTS)
    assert need.total - need.reserved == pytest.approx(
        [float(CONSTANTS.context_bytes), float(CONSTANTS.context_bytes) + float(CONSTANTS.nccl_bytes)]
    )
    over_pcie = memory(LLAMA, 4096, dataclasses.replace(MACHINE, through_host=1.0), s, CONSTANTS)
    assert np.all(over_pcie.context < need.context)


@pytest.mark.parametrize("name", ["llama3-8b", "gpt3-175b", "mixtral-8x7b", "deepseek-v3", "bert-large"])
def test_one_rank_holds_the_whole_model(name: str) -> None:
    shape = load_workload(name).workload.model
    held = held_parameters(Shape.of(shape), Shardings.of())
    assert float(held.dense[0] + held.experts[0]) == pytest.approx(parameters(shape), rel=1e-4)


def test_states_are_18_bytes_a_parameter_and_zero_divides_them() -> None:
    s = Shardings.of(dp=8, micro_batches=8, zero=[0, 1, 2, 3])
    exact = dataclasses.replace(CONSTANTS, state_copies=1.0)
    need = memory(LLAMA, 8192, MACHINE, s, exact)
    bytes_ = need.parameters + need.gradients + need.optimizer
    states = bytes_ / parameters(LLAMA_MODEL)
    assert states == pytest.approx(np.array([18, 6 + 12 / 8, 2 + 16 / 8, 18 / 8]), rel=1e-3)


@pytest.mark.parametrize("axis", ["tp", "pp", "cp", "zero"])
def test_memory_falls_with_sharding(axis: str) -> None:
    values = [0, 1, 2, 3] if axis == "zero" else [1, 2, 4, 8]
    fields = {"tp": 1, "pp": 1, "cp": 1, "dp": 8, "zero": 1, "micro_batches": 8, "sequence_parallel": 1, axis: values}
    need = memory(LLAMA, 8192, MACHINE, Shardings.of(**fields), CONSTANTS)
    assert np.all(np.diff(need.total) < 0)


def test_recomputation_keeps_less() -> None:
    need = memory(LLAMA, 8192, MACHINE, Shardings.of(micro_batch=2, recompute=[NONE, FULL]), CONSTANTS)
    assert need.activations[1] < 0.2 * need.activations[0]


def test_fp32_activations_take_twice_the_bytes_but_dropout_masks_one() -> None:
    s = Shardings.of(tp=8, sequence_parallel=1)
    half, full = (layer_activation_bytes(GPT3, 2048, s, width)[0] for width in (2.0, 4.0))
    masks = 2 * 2048 * 12288 / 8
    assert full - masks == pytest.approx(2 * (half - masks))


def test_scores_without_dropout_keep_the_softmax_alone() -> None:
    plain = dataclasses.replace(GPT3, score_dropout=0)
    s = Shardings.of(tp=8)
    assert score_bytes_kept(plain, 2048, s)[0] == pytest.approx(2 * 96 * 2048**2 / 8)
    assert score_bytes_kept(GPT3, 2048, s)[0] == pytest.approx(5 * 96 * 2048**2 / 8)


def test_interleaving_keeps_no_more_micro_batches_than_there_are() -> None:
    """With as many micro-batches as stages, all are in flight in the first stage whatever the interleaving."""
    s = Shardings.of(tp=8, pp=8, vpp=[1, 2, 4], micro_batches=8)
    kept = memory(GPT3, 2048, MACHINE, s, CONSTANTS).activations
    assert kept == pytest.approx([kept[0]] * 3)
    more = memory(GPT3, 2048, MACHINE, Shardings.of(tp=8, pp=8, vpp=[1, 2], micro_batches=64), CONSTANTS).activations
    assert more[1] > 1.3 * more[0]


def test_a_cut_that_is_stated_keeps_what_its_fullest_stage_keeps() -> None:
    """Stages of 6, 9, 9 and 8 layers keep 4, 3, 2 and 1 micro-batches: 27 layers in all at most, not 32."""
    shape = dataclasses.replace(GPT3, layers=32)
    even = Shardings.of(pp=4, micro_batches=16)
    cut = Shardings.of(pp=4, micro_batches=16, fullest_layers=9, last_layers=8, kept_layers=27)
    one, other = (memory(shape, 2048, MACHINE, s, CONSTANTS) for s in (even, cut))
    assert other.activations[0] == pytest.approx(one.activations[0] * 27 / 32, rel=1e-6)
    assert other.parameters[0] > one.parameters[0], "the fullest stage has nine layers"


def test_interleaved_stages_keep_what_runs_ahead_of_them() -> None:
    """Stage i of 8 runs 2 (7 - i) + 8 of its 16 parts a round ahead and one more, each of two layers here."""
    s = Shardings.of(tp=8, pp=8, vpp=2, micro_batches=64)
    assert [float(s.in_flight(stage)[0]) * 2 for stage in range(8)] == [23, 21, 19, 17, 15, 13, 11, 9]
    few = Shardings.of(tp=8, pp=8, vpp=2, micro_batches=8)
    assert [float(few.in_flight(stage)[0]) for stage in (0, 7)] == [8, 4.5]
    plain, gpipe, late = (
        Shardings.of(pp=8, micro_batches=64, schedule=schedule) for schedule in (ONE_F_ONE_B, GPIPE, ZERO_BUBBLE)
    )
    assert [float(x.in_flight(7)[0]) for x in (plain, gpipe)] == [1, 64]
    assert 7 < float(late.in_flight(7)[0]) < 8


def test_a_first_part_without_a_layer_leaves_the_second_stage_fullest() -> None:
    """Llama 3 405B: 126 layers, embedding and head in 16 x 8 parts; stage 1 keeps 2 * 14 + 7 * 16 + 1 = 141 layers."""
    shape = Shape.of(load_workload("llama3-405b").workload.model)
    s = Shardings.of(tp=8, pp=16, vpp=8, micro_batches=[32, 16], last_layers=7, sequence_parallel=1)
    exact = dataclasses.replace(CONSTANTS, kept_activations=1.0)
    kept = memory(shape, 8192, MACHINE, s, exact).activations / layer_activation_bytes(shape, 8192, s)
    assert kept == pytest.approx([141, 128])


def test_of_stages_that_cannot_be_even_the_longer_ones_come_late() -> None:
    """25 layers over three stages before a last one of 7: 8, 8 and 9, which keep 4, 3 and 2 micro-batches."""
    shape = dataclasses.replace(GPT3, layers=32)
    cut = {"pp": 4, "micro_batch": 16, "last_layers": 7}
    eight = Shardings.of(pp=4, micro_batch=16, micro_batches=16, fullest_layers=8, kept_layers=32)
    told = memory(shape, 2048, MACHINE, Shardings.of(**cut, micro_batches=16), CONSTANTS)
    assert told.total[0] == pytest.approx(memory(shape, 2048, MACHINE, eight, CONSTANTS).total[0])
    one = memory(shape, 2048, MACHINE, Shardings.of(**cut, micro_batches=1), CONSTANTS)
    assert one.parameters[0] > told.parameters[0], "of one micro-batch nothing waits, so the 9 layers need most"


def test_logits_take_the_place_of_the_layer_at_work() -> None:
    """While the loss is computed no layer is; with full recomputation the layer at work is larger for a small head."""
    small, large = (dataclasses.replace(LLAMA, vocab=vocab) for vocab in (1000, 400000))
    s = Shardings.of(micro_batch=1, recompute=FULL)
    assert memory(small, 8192, MACHINE, s, CONSTANTS).logits[0] == 0
    assert memory(large, 8192, MACHINE, s, CONSTANTS).logits[0] > 0


def test_stage_3_holds_the_ends_two_layers_and_the_gradients_of_one_whole() -> None:
    s = Shardings.of(dp=8, micro_batches=8, zero=3)
    exact = dataclasses.replace(CONSTANTS, gathered_layers=2.0, gradient_bytes=4.0)
    held = held_parameters(LLAMA, s)
    ends = float(end_parameters(LLAMA, s)[0])
    assert ends == 2 * 128256 * 4096
    layer = (float(held.dense[0]) - ends) / 32
    assert gathered_bytes(LLAMA, s, held, exact)[0] == pytest.approx(2 * ends + layer * (2 * 2 + 2 + 4))
    alone = Shardings.of(zero=3)
    assert gathered_bytes(LLAMA, alone, held_parameters(LLAMA, alone), exact)[0] == 0


def test_hybrid_sharding_divides_states_over_a_group_of_the_replicas() -> None:
    s = Shardings.of(dp=64, micro_batches=1, zero=[1, 1, 1], shard_group=[0, 8, 512])
    states = memory(LLAMA, 8192, MACHINE, s, CONSTANTS).optimizer
    assert states[1] == pytest.approx(8 * states[0])
    assert states[2] == states[0]


def test_the_optimizer_steps_where_activations_were() -> None:
    """What it needs only meanwhile counts as far as it is more than activations, logits and gathered weights."""
    s = Shardings.of(micro_batch=[1, 2, 8], recompute=FULL)
    exact = dataclasses.replace(CONSTANTS, step_bytes=4.0)
    need, none = (
        memory(LLAMA, 8192, MACHINE, s, exact),
        memory(LLAMA, 8192, MACHINE, s, CONSTANTS.scaled({"step_bytes": 1e-9})),
    )
    come_and_go = none.activations + none.logits + none.buffers
    assert need.optimizer_step[0] > need.optimizer_step[1] > need.optimizer_step[2] == 0
    assert need.total - none.total == pytest.approx(
        np.maximum(0.0, 4.0 * parameters(LLAMA_MODEL) - come_and_go), rel=1e-3
    )


def test_relu_keeps_one_tensor_where_gelu_keeps_two() -> None:
    """Its output is what the next product keeps anyway; GELU needs its input too (8sbh of 34 in 16 bits)."""
    relu = Shape.of(load_workload("gpt3-175b").workload.model.model_copy(update={"relu": True}))
    s = Shardings.of(tp=8, micro_batch=2, sequence_parallel=1)
    spared = layer_activation_bytes(GPT3, 2048, s)[0] - layer_activation_bytes(relu, 2048, s)[0]
    assert spared == pytest.approx(8 * 2048 * 2 * 12288 / 8)


def test_what_is_kept_does_not_fragment_and_the_layer_at_work_does() -> None:
    s = Shardings.of(micro_batch=1, recompute=[NONE, FULL])
    kept, at_work = (
        memory(LLAMA, 8192, MACHINE, s, CONSTANTS.scaled({name: 1.5})).activations
        / memory(LLAMA, 8192, MACHINE, s, CONSTANTS).activations
        for name in ("kept_activations", "activation_fragmentation")
    )
    assert (kept[0], at_work[0]) == (pytest.approx(1.5), 1.0)
    assert min(kept[1], at_work[1]) > 1
    assert kept[1] + at_work[1] == pytest.approx(2.5), "the two are all of it"


def test_stage_3_by_the_parameter_holds_a_matrix_at_a_time() -> None:
    s = Shardings.of(dp=8, micro_batches=8, zero=3)
    held = held_parameters(GPT3, s)
    whole, single = (gathered_bytes(GPT3, s, held, CONSTANTS.scaled({"gathered_layers": f})) for f in (1.0, 0.25))
    assert single == pytest.approx(whole / 4)


def test_a_second_partition_of_the_weights_is_two_bytes_over_its_group() -> None:
    """ZeRO++ (Wang et al. 2023, arXiv:2306.10209, section 3.2): 16-bit weights once more, over the ranks of a node."""
    s = Shardings.of(dp=64, micro_batches=4, zero=[3, 3, 3, 2], secondary_group=[0, 8, 16, 8])
    need = memory(LLAMA, 8192, MACHINE, s, CONSTANTS)
    whole = parameters(LLAMA_MODEL)
    assert need.parameters == pytest.approx(
        2 * whole * np.array([1 / 64, 1 / 64 + 1 / 8, 1 / 64 + 1 / 16, 1]), rel=1e-3
    )
    assert len(set(need.gradients[:3])) == len(set(need.optimizer[:3])) == 1


def test_blocks_of_layers_share_a_checkpoint_and_are_at_work_together() -> None:
    """Megatron-LM's --recompute-method uniform --recompute-num-layers N, with ten layers a stage."""
    shape = dataclasses.replace(LLAMA, layers=40, vocab=1000)
    block = [0, 1, 2, 4, 10, 99]
    s = Shardings.of(
        tp=8, pp=4, micro_batch=2, micro_batches=16, recompute=FULL, sequence_parallel=1, recompute_block=block
    )
    exact = dataclasses.replace(CONSTANTS, kept_activations=1.0, activation_fragmentation=1.0)
    entry, whole = 2 * 2 * 8192 * 4096 / 8, layer_activation_bytes(shape, 8192, s)[0]
    need = memory(shape, 8192, MACHINE, s, exact)
    checkpoints, together = np.array([10, 10, 5, 3, 1, 1]), np.array([1, 1, 2, 4, 10, 10])
    assert need.activations == pytest.approx(4 * checkpoints * entry + together * whole)
    parts = Shardings.of(pp=4, vpp=5, micro_batches=16, recompute=FULL, recompute_block=4)
    assert [float(x[0]) for x in parts.blocks(40)] == [0.5, 2.0], "a virtual stage of two layers is one block"
    some = Shardings.of(recompute=[NONE, FULL], spared_layers=[0, 4], recompute_block=4)
    assert some.blocks(40)[1].tolist() == [1, 1], "only where all layers are recomputed"


def test_layers_spared_of_keeping_their_activations_make_room() -> None:
    s = Shardings.of(micro_batch=2, recompute=FULL, spared_layers=[1, 16, 32, 0])
    kept = memory(LLAMA, 8192, MACHINE, s, CONSTANTS).activations
    assert (kept[0] - kept[1]) / (kept[1] - kept[2]) == pytest.approx(15 / 16)
    assert kept[2] < 0.2 * kept[0]
    assert kept[3] == kept[2]


def test_what_is_formed_again_of_a_feed_forward_layer_is_not_kept() -> None:
    """Of 34 sbh of a GPT layer GELU reads and writes 8 each; one of three wide tensors of a gated one is the product.

    The layer at work holds them all again.
    """
    s = Shardings.of(recompute_mlp=[0, 1, 2], micro_batch=2, tp=8, sequence_parallel=1)
    unit = 2048 * 2 * 12288 / 8
    assert layer_activation_bytes(GPT3, 2048, s) / unit == pytest.approx([34, 26, 18])
    wide = 8192 * 2 * 14336 * 2 / 8
    dropped = -np.diff(layer_activation_bytes(LLAMA, 8192, s)) / wide
    assert dropped == pytest.approx([1, 2])
    need = memory(LLAMA, 8192, MACHINE, s, CONSTANTS).activations
    kept = float(CONSTANTS.kept_activations) * 32 * wide
    at_work = float(CONSTANTS.activation_fragmentation) * wide
    assert need[0] - need == pytest.approx([0, kept - at_work, 3 * (kept - at_work)])
    full = Shardings.of(recompute_mlp=[0, 2], recompute=FULL)
    assert len(set(memory(LLAMA, 8192, MACHINE, full, CONSTANTS).total)) == 1, "all of a layer is run again anyway"


def test_experts_that_are_run_again_keep_no_copies_of_tokens() -> None:
    mixtral = Shape.of(load_workload("mixtral-8x7b").workload.model)
    s = Shardings.of(recompute_mlp=[0, 1, 2], ep=8, dp=8)
    kept = layer_activation_bytes(mixtral, 4096, s)
    wide, copies = 2 * 4096 * 2 * 14336, 2 * 4096 * 2 * 4096
    assert -np.diff(kept) == pytest.approx([wide, 2 * wide + copies])


def test_llama_405b_fits_where_it_ran_when_products_of_swiglu_are_formed_again() -> None:
    """Llama team 2024, arXiv:2407.21783, table 4: 8,192 H100 of 80 GB, tp 8, pp 16, 32 micro-batches a step."""
    shape = Shape.of(load_workload("llama3-405b").workload.model)
    c = constants_for(accelerator="H100-SXM5-80GB", family="H100", precision="bf16").coefficients
    s = Shardings.of(tp=8, pp=16, vpp=8, dp=64, micro_batches=32, zero=2, sequence_parallel=1, recompute_mlp=[0, 1])
    kept, formed = memory(shape, 8192, MACHINE, s, c).total
    assert kept > float(MACHINE.memory_bytes) > 1.1 * formed


def test_what_zero_sends_in_fewer_bits_is_there_beside() -> None:
    s = Shardings.of(dp=64, zero=3, quantized=[0, 1, 2, 3])
    held = held_parameters(LLAMA, s)
    more = gathered_bytes(LLAMA, s, held, CONSTANTS) - gathered_bytes(LLAMA, s, held, CONSTANTS)[0]
    layer = (held.dense - end_parameters(LLAMA, s))[0] / 32
    assert more / layer == pytest.approx([0, 1, 0.5, 1.5])


def test_gathered_keys_and_values_are_those_of_all_ranks() -> None:
    s = Shardings.of(cp=8, context_exchange=[0, 1, 2])
    need = memory(LLAMA, 65536, MACHINE, s, CONSTANTS).buffers
    spread = float(CONSTANTS.activation_fragmentation)
    key_values = 2 * 65536 * 2 * 8 * 128  # and as much of gradients
    assert need[1] - need[0] == pytest.approx(2 * key_values * spread)
    assert need[2] - need[0] == pytest.approx(2 * 8192 * (4096 + 2 * 1024 + 4096) * spread)


def test_no_stage_of_an_uneven_cut_needs_more_than_the_fullest_rank() -> None:
    """Under a zero-bubble schedule the second of 11, 12 and 1 layers keeps parts of a layer more than the first."""
    shape = dataclasses.replace(GPT3, layers=24)
    s = Shardings.of(pp=3, micro_batches=4, last_layers=1, schedule=ZERO_BUBBLE)
    each = by_stage(
        shape, 2048, MACHINE, s.take(np.zeros(3, dtype=np.int64)), CONSTANTS, Recipe(flash=0.0), np.arange(3),
        np.array([11, 12, 1]),
    )  # fmt: skip
    assert each.total.argmax() == 1
    assert each.total.max() <= memory(shape, 2048, MACHINE, s, CONSTANTS, Recipe(flash=0.0)).total[0]
