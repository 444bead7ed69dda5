"""Step time: limits, monotony, and one published run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.compute import attention_rate
from hpcplan.cost.constants import constants_for, read_prior
from hpcplan.cost.machine import Machine, make_machine, slowest
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import GPIPE, ONE_F_ONE_B, Shardings
from hpcplan.cost.step import Costs, price
from hpcplan.resources import shipped
from hpcplan.site.catalogue import accelerators
from hpcplan.site.topology import Tier
from hpcplan.workload import list_workloads, load_workload

CONSTANTS = constants_for(accelerator="", framework="", precision="", site="").coefficients


def selene(scale: float = 1.0) -> Machine:
    tiers = (Tier("leaf", 20, 200e9 * scale, 4e-6), Tier("spine", 560, 200e9 * scale, 6e-6))
    return make_machine(
        accelerators()["A100-SXM4-80GB"], "bf16", gpus_per_node=8, link_bytes_per_s=300e9 * scale, link_latency_s=2e-6,
        tiers=tiers,
    )  # fmt: skip


def cost(name: str, machine: Machine, batch: int | None = None, **fields: int | list[int]) -> Costs:
    workload = load_workload(name).workload
    run = workload.training
    batch = batch or run.global_batch
    return price(Shape.of(workload.model), run.sequence_length, batch, machine, CONSTANTS, Shardings.of(**fields))


def test_the_terms_add_up() -> None:
    costs = cost("gpt3-175b", selene(), tp=8, pp=8, dp=16, micro_batch=1, micro_batches=96, zero=1)
    terms = [getattr(costs.time, field.name)[0] for field in dataclasses.fields(costs.time)]
    assert sum(terms) == pytest.approx(costs.step_s[0])
    assert min(terms) >= 0


def test_gpt3_on_1024_a100_takes_about_what_was_published() -> None:
    """Narayanan et al. 2021, section 5.1: 175 B on 1,024 A100, batch 1,536, 140 TFLOP/s with recomputation counted."""
    costs = cost("gpt3-175b", selene(), tp=8, pp=16, dp=8, micro_batch=1, micro_batches=192, zero=0, recompute=2)
    flops = 96 * 1536 * 2048 * 96 * 12288**2 * (1 + 2048 / (6 * 12288) + 51200 / (16 * 96 * 12288))
    published = flops / (140e12 * 1024)
    assert costs.step_s[0] == pytest.approx(published, rel=0.25)


@pytest.mark.parametrize(
    ("sequence", "share"), [(512, 0.316), (1024, 0.482), (2048, 0.643), (4096, 0.780), (8192, 0.877), (16384, 0.971)]
)
def test_short_sequences_slow_attention_as_measured_on_an_h100(sequence: int, share: float) -> None:
    """FlashAttention-2 forward and backward, heads of 128: TFLOP/s over the 320.7 at 32,768 tokens."""
    prior = read_prior(shipped("sites") / "constants")
    c = dataclasses.replace(
        CONSTANTS, attention_half_sequence=prior.constants["attention_half_sequence"].value, attention_half_head=32.0
    )
    short, long = (float(attention_rate(128, length, selene(), c)) for length in (sequence, 32768))
    assert short / long == pytest.approx(share, rel=0.04)


def test_attention_without_a_mask_takes_less_than_twice_what_it_takes_with_one() -> None:
    """Twice the scores, at the rate of a sequence that is twice as long."""
    bert = Shape.of(load_workload("bert-large").workload.model)
    s, c = Shardings.of(micro_batch=32), dataclasses.replace(CONSTANTS, kernel_launch_s=1e-12)
    both, masked = (
        price(dataclasses.replace(bert, causal=causal), 512, 32, selene(), c, s).time.compute[0] for causal in (0, 1)
    )
    without = price(dataclasses.replace(bert, score_width=0), 512, 32, selene(), c, s).time.compute[0]
    assert 1.2 < (both - without) / (masked - without) < 2.0


def test_one_gpu_has_no_communication() -> None:
    time = cost("bert-large", selene(), batch=32, micro_batch=32).time
    for name in ("tensor_parallel", "context_parallel", "expert_parallel", "data_parallel", "pipeline_bubble",
                 "pipeline_transfer"):  # fmt: skip
        assert getattr(time, name)[0] == 0


def test_the_bubble_shrinks_with_interleaving_and_with_micro_batches() -> None:
    plain = cost("gpt3-175b", selene(), tp=8, pp=8, dp=16, micro_batches=96, vpp=[1, 2, 6]).time.pipeline_bubble
    assert plain[0] == pytest.approx(2 * plain[1])
    assert plain[0] == pytest.approx(6 * plain[2])
    costs = cost("gpt3-175b", selene(), tp=8, pp=8, dp=16, micro_batches=[24, 96])
    share = costs.time.pipeline_bubble / costs.step_s
    assert share[0] > 2 * share[1]


def test_recomputation_costs_at_most_a_forward_pass() -> None:
    costs = cost("llama3-8b", selene(), dp=8, micro_batches=16, micro_batch=4, recompute=[0, 1, 2])
    again = costs.time.recompute / costs.time.compute
    assert again[0] == 0
    assert 0 < again[1] < again[2] < 0.4


@settings(max_examples=30, deadline=None)
@given(st.floats(1.05, 8.0), st.sampled_from(["llama3-8b", "mixtral-8x7b", "gpt3-175b"]))
def test_more_bandwidth_is_never_slower(factor: float, name: str) -> None:
    fields: dict[str, int | list[int]] = {
        "tp": [1, 2, 8, 8], "pp": [1, 8, 4, 8], "dp": [64, 4, 2, 16], "ep": [1, 4, 2, 1], "micro_batches": 16,
        "zero": [3, 1, 0, 1],
    }  # fmt: skip
    slow, fast = cost(name, selene(), **fields), cost(name, selene(factor), **fields)
    assert np.all(fast.step_s <= slow.step_s * (1 + 1e-12))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4), st.integers(0, 3), st.integers(0, 1))
def test_doubling_the_replicas_never_more_than_halves_the_step(
    log_tp: int, log_pp: int, log_dp: int, log_mb: int, zero: int
) -> None:
    tp, pp, dp, size = 2**log_tp, 2**log_pp, 2**log_dp, 2**log_mb
    count = 4096 // (dp * size)
    costs = cost(
        "llama3-8b", selene(), batch=4096, tp=tp, pp=pp, zero=zero, micro_batch=size, dp=[dp, 2 * dp],
        micro_batches=[count, count // 2],
    )  # fmt: skip
    assert costs.step_s[1] >= 0.5 * costs.step_s[0] * (1 - 1e-9)


@pytest.mark.parametrize("name", sorted(list_workloads()))
def test_every_workload_prices_to_finite_positive_numbers(name: str) -> None:
    layers = load_workload(name).workload.model.layers
    fields: dict[str, int | list[int]] = {
        "tp": [1, 8, 4, 1], "pp": [1, 1, layers, 2], "dp": [1, 64, 2, 16], "micro_batches": [256, 4, 128, 16],
        "zero": [0, 1, 0, 1], "recompute": [0, 1, 2, 0],
    }  # fmt: skip
    costs = cost(name, selene(), batch=256, **fields)
    for values in (costs.step_s, costs.memory_bytes, costs.tokens_per_s, costs.mfu):
        assert np.all(np.isfinite(values))
        assert np.all(values > 0)
    assert np.all(costs.mfu < 1)


def test_many_models_in_one_call_cost_what_each_costs_alone() -> None:
    names = ["llama3-8b", "mixtral-8x7b", "gpt3-175b", "deepseek-v3"]
    shapes = [Shape.of(load_workload(name).workload.model) for name in names]
    s = Shardings.of(tp=[1, 2, 8, 4], pp=[1, 2, 8, 4], dp=[8, 4, 1, 8], ep=[1, 4, 1, 8], micro_batches=16, zero=1)
    sequences = np.array([8192.0, 4096.0, 2048.0, 4096.0])
    batches = np.array([128.0, 64.0, 16.0, 128.0])
    together = price(Shape.stack(shapes), sequences, batches, Machine.stack([selene()] * 4), CONSTANTS, s)
    for i, shape in enumerate(shapes):
        alone = price(shape, sequences[i], batches[i], selene(), CONSTANTS, s.take(np.array([i])))
        assert together.step_s[i] == pytest.approx(alone.step_s[0])
        assert together.memory_bytes[i] == pytest.approx(alone.memory_bytes[0])
        assert together.mfu[i] == pytest.approx(alone.mfu[0])


def test_sequence_parallelism_gathers_once_more_in_the_backward_pass() -> None:
    plain, split = (
        cost("gpt3-175b", selene(), batch=64, tp=8, micro_batch=1, micro_batches=64, sequence_parallel=on).time
        for on in (0, 1)
    )
    hidden = float(np.asarray(CONSTANTS.tensor_backward_exposed))
    assert split.tensor_parallel[0] / plain.tensor_parallel[0] == pytest.approx((3 + 2 * hidden) / (2 + 2 * hidden))


def test_data_that_pass_through_the_host_take_longer() -> None:
    links, host = selene(), dataclasses.replace(selene(), through_host=1.0)
    fields = {"tp": 8, "micro_batch": 1, "micro_batches": 64}
    direct, relayed = (
        cost("gpt3-175b", machine, batch=64, **fields).time.tensor_parallel[0] for machine in (links, host)
    )
    assert relayed / direct == pytest.approx(1 / CONSTANTS.host_path_efficiency, rel=0.02)
    assert relayed > direct


def test_unequal_nodes_are_as_fast_as_the_slowest_in_each_respect() -> None:
    fast, slow = selene(), dataclasses.replace(selene(0.5), peak_flops=1e12, memory_bytes=1e9)
    both = slowest([fast, slow])
    assert (both.peak_flops, both.link_bytes_per_s, both.memory_bytes) == (1e12, 150e9, fast.memory_bytes)
    assert slowest([fast]).peak_flops == fast.peak_flops


@pytest.mark.parametrize(("layers", "pp", "tp"), [(1, 1, 1), (1, 1, 8), (12, 12, 1), (12, 12, 8)])
def test_one_layer_one_gpu_and_a_stage_a_layer_are_priced(layers: int, pp: int, tp: int) -> None:
    shape = dataclasses.replace(Shape.of(load_workload("gpt3-175b").workload.model), layers=layers)
    s = Shardings.of(tp=tp, pp=pp, micro_batch=1, micro_batches=16)
    costs = price(shape, 2048, 16, selene(), CONSTANTS, s)
    terms = [getattr(costs.time, field.name)[0] for field in dataclasses.fields(costs.time)]
    assert np.isfinite(costs.step_s[0])
    assert np.isfinite(costs.memory_bytes[0])
    assert min(terms) >= 0
    assert (costs.time.pipeline_bubble[0] > 0) == (pp > 1)


def test_some_layers_recomputed_cost_their_share() -> None:
    s = {"dp": 8, "micro_batches": 16, "micro_batch": 4, "recompute": 2, "spared_layers": [8, 16, 0]}
    again = cost("llama3-8b", selene(), batch=512, **s).time.recompute
    assert again / again[2] == pytest.approx([0.25, 0.5, 1.0])


def test_a_stated_cut_goes_at_the_pace_of_its_fullest_stage() -> None:
    even, cut = (
        cost(
            "gpt3-175b", selene(), batch=64, tp=8, pp=4, micro_batches=64, fullest_layers=fullest, last_layers=last
        ).time
        for fullest, last in ((0, 0), (30, 22))
    )
    assert cut.compute[0] > 1.2 * even.compute[0]


def test_shards_within_a_node_are_gathered_over_its_links() -> None:
    """Of many micro-batches all gathers stay in the node, and of ZeRO 1 the gathering of what was updated."""
    machine = dataclasses.replace(selene(), tier_bytes_per_s=selene().tier_bytes_per_s / 16)
    run = load_workload("llama3-70b").workload
    s = Shardings.of(dp=512, micro_batches=1, zero=3, shard_group=[0, 8, 512])
    free = dataclasses.replace(CONSTANTS, gradient_bytes=1e-6)
    time = price(Shape.of(run.model), 8192, 512, machine, free, s).time.data_parallel
    assert time[1] < 0.2 * time[0]
    assert time[2] == pytest.approx(time[0])
    whole = price(Shape.of(run.model), 8192, 512, machine, CONSTANTS, s).time.data_parallel
    assert whole[1] > 2 * time[1], "the gradients still cross the network"


def test_a_capacity_factor_stands_in_for_the_imbalance() -> None:
    shape = Shape.of(load_workload("mixtral-8x7b").workload.model)
    s = Shardings.of(dp=8, ep=8, micro_batches=8)
    dropless, one, more = (
        price(dataclasses.replace(shape, capacity=factor), 4096, 64, selene(), CONSTANTS, s)
        for factor in (0.0, 1.0, 4.0)
    )
    assert one.step_s[0] < dropless.step_s[0] < more.step_s[0]
    assert one.memory_bytes[0] == pytest.approx(dropless.memory_bytes[0])
    assert more.memory_bytes[0] > one.memory_bytes[0]
    assert one.mfu[0] > more.mfu[0]


def test_tensor_parallel_ranks_send_their_part_to_the_next_stage() -> None:
    """Narayanan et al. 2021, section 4.1: the whole goes over the network once, not once for each of eight ranks."""
    fields = {"pp": 16, "micro_batch": 1, "micro_batches": 64}
    alone, eight = (cost("gpt3-175b", selene(), batch=64, tp=tp, **fields).time.pipeline_transfer[0] for tp in (1, 8))
    assert eight < alone


@pytest.mark.parametrize(("pp", "vpp", "times"), [(2, 1, 2.0), (2, 2, 1.0), (4, 1, 1.0)])
def test_two_stages_exchange_an_activation_and_a_gradient_at_once(pp: int, vpp: int, times: float) -> None:
    """Under 1F1B; GPipe passes all activations on before any gradient comes."""
    fields = {"tp": 8, "pp": pp, "vpp": vpp, "micro_batches": 1024, "schedule": [ONE_F_ONE_B, GPIPE]}
    transfer = cost("gpt3-175b", selene(), batch=1024, **fields).time.pipeline_transfer
    assert transfer[1] / transfer[0] == pytest.approx(times, rel=0.01)


H100 = make_machine(
    accelerators()["H100-SXM5-80GB"], "bf16", gpus_per_node=8, link_bytes_per_s=450e9, link_latency_s=2e-6,
    tiers=[Tier("leaf", 32, 400e9, 4e-6)],
)  # fmt: skip


def test_an_mlp_that_is_run_again_takes_less_than_all_of_a_layer_and_its_activation_little() -> None:
    shape = Shape.of(load_workload("llama3-70b").workload.model)
    c = constants_for(precision="bf16").coefficients
    s = Shardings.of(
        tp=8, dp=2, micro_batches=8, sequence_parallel=1, recompute=[0, 0, 0, 2], recompute_mlp=[0, 1, 2, 0]
    )
    again = price(shape, 8192, 16, H100, c, s).time.recompute
    compute = price(shape, 8192, 16, H100, c, s).time.compute
    assert again[0] == 0
    assert 0 < again[1] < 0.03 * compute[1]
    assert 0.5 * again[3] < again[2] < again[3]
    tensor = price(shape, 8192, 16, H100, c, s).time.tensor_parallel
    assert np.diff(tensor)[1:] == pytest.approx([np.diff(tensor)[1]] * 2), "one of two forward exchanges, then both"


def test_keys_and_values_that_are_gathered_are_waited_for_and_those_of_a_ring_hidden() -> None:
    """Llama team 2024, arXiv:2407.21783, section 3.3.2; chunks of a ring are shorter, which attention feels."""
    shape = Shape.of(load_workload("llama3-8b").workload.model)
    c = constants_for(precision="bf16").coefficients
    s = Shardings.of(cp=16, micro_batches=8, context_exchange=[0, 1, 2])
    time = price(shape, 131072, 8, H100, c, s).time
    assert time.context_parallel[0] < 0.1 * time.context_parallel[1]
    assert time.context_parallel[2] < time.context_parallel[1], "16 ranks gather 15 parts of others, and swap one"
    assert time.compute[1] == time.compute[2] < time.compute[0]


def test_weights_in_8_bits_and_gradients_in_4_shorten_the_exchange() -> None:
    """Wang et al. 2023, arXiv:2306.10209: over few interfaces up to 2.16 times the throughput with all three parts."""
    shape = Shape.of(load_workload("gpt3-175b").workload.model)
    slow = make_machine(
        accelerators()["V100-SXM2-32GB"], "fp16", gpus_per_node=16, link_bytes_per_s=150e9, link_latency_s=2e-6,
        tiers=[Tier("leaf", 24, 1e11, 4e-6)],
    )  # fmt: skip
    c = constants_for(framework="megatron-deepspeed", precision="fp16", family="V100").coefficients
    s = Shardings.of(dp=384, zero=3, recompute=2, quantized=[0, 1, 2, 3, 3], secondary_group=[0, 0, 0, 0, 16])
    step = price(shape, 1024, 384, slow, c, s).step_s
    assert np.all(np.diff(step)[[0, 2, 3]] < 0)
    assert step[2] < step[0]
    assert 1.5 < step[0] / step[4] < 4
