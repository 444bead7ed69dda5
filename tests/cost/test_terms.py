"""Single terms beside numbers that others published or measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hpcplan.cost.compute import Arithmetic, product_s
from hpcplan.cost.constants import constants_for, read_prior
from hpcplan.cost.machine import Machine, make_machine
from hpcplan.cost.money import energy_kwh, money
from hpcplan.cost.recipe import PRETRAINING
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import ONE_F_ONE_B, ZERO_BUBBLE, Shardings
from hpcplan.cost.step import price
from hpcplan.plan import Precision
from hpcplan.resources import shipped
from hpcplan.schedule.checkpoint import checkpoint_bytes
from hpcplan.site import load_site
from hpcplan.site.catalogue import accelerators
from hpcplan.site.model import Prices, Site
from hpcplan.site.topology import Tier
from hpcplan.workload import load_workload
from hpcplan.workload.arithmetic import adapter_parameters
from hpcplan.workload.model import ModelShape
from hpcplan.workload.public_models import shape_by_name

CONSTANTS = constants_for().coefficients
PRIOR = read_prior(shipped("sites") / "constants").constants
LLAMA = load_workload("llama3-8b").workload.model


def alone(chip: str, precision: Precision = "bf16") -> Machine:
    return make_machine(accelerators()[chip], precision, gpus_per_node=1, link_bytes_per_s=1e9, link_latency_s=0.0,
                        tiers=[Tier("node", 1, 1e9, 0.0)])  # fmt: skip


def _and_bf16(precision: Precision) -> tuple[Precision, Precision]:
    return precision, "bf16"


def test_adapters_of_rank_16_are_as_many_as_trainers_print() -> None:
    """Llama 3 8B and Llama 2 7B, every projection: 41,943,040 and 39,976,960, as PEFT prints them in public logs."""
    assert adapter_parameters(LLAMA, 16) == 41_943_040
    llama2 = ModelShape(layers=32, hidden=4096, heads=32, ffn=11008, vocab=32000)
    assert adapter_parameters(llama2, 16) == 39_976_960


@pytest.mark.parametrize(("precision", "times"), [("int8", 2.0), ("int4", 4.0), ("fp16", 1.0), ("tf32", 0.5)])
def test_large_products_run_at_the_rate_of_their_precision(precision: Precision, times: float) -> None:
    """An A100's data sheet: 624 and 1,248 TOPS in 8 and 4 bits, 312 TFLOP/s in 16, 156 in TF32."""
    here, usual = (
        float(product_s(8192, 8192, 8192, alone("A100-SXM4-80GB", p), CONSTANTS)) for p in _and_bf16(precision)
    )
    assert usual / here == pytest.approx(times, rel=0.01)


def test_operands_of_8_bit_products_are_cast_in_either_pass() -> None:
    """Llama 3 8B: read in 16 bits and written twice in 8, four inputs of a layer and the gradients of five outputs."""
    narrow = alone("H100-SXM5-80GB", "fp8-delayed")
    spared = dataclasses.replace(narrow, cast_bytes=0.0)
    shape, plain = Shape.of(LLAMA.model_copy(update={"layers": 1})), dataclasses.replace(PRETRAINING, flash=0.0)
    with_, without = (
        float(price(shape, 4096, 4, machine, CONSTANTS, Shardings.of(micro_batch=4), plain).time.compute[0])
        for machine in (narrow, spared)
    )
    inputs, outputs = 4096 + 4096 + 4096 + 14336, (4096 + 2 * 1024) + 4096 + 2 * 14336 + 4096
    moved = 4 * 4096 * (inputs + outputs) * (2 + 1 + 1)
    taken = moved / (narrow.memory_bytes_per_s * CONSTANTS.memory_efficiency)
    assert with_ - without == pytest.approx(taken, rel=0.02)


@pytest.mark.parametrize(
    ("chip", "precision", "operand", "cast"),
    [
        ("H100-SXM5-80GB", "fp8", 1.0, 2 + 2 + 2), ("H100-SXM5-80GB", "fp8-delayed", 1.0, 2 + 2),
        ("GB200-186GB", "fp8", 1.0, 2 + 2 + 1), ("GB200-186GB", "fp8-delayed", 1.0, 2 + 1),
        ("GB200-186GB", "mxfp8", 33 / 32, 2 + 2 * 33 / 32), ("GB200-186GB", "fp4", 9 / 16, 2 + 2 + 2 * 9 / 16),
        ("H100-SXM5-80GB", "bf16", 2.0, 0), ("A100-SXM4-80GB", "fp8", 2.0, 0), ("A100-SXM4-80GB", "tf32", 4.0, 0),
    ],
)  # fmt: skip
def test_a_cast_passes_once_more_for_a_scale_of_its_own_values_and_writes_twice_where_layouts_ask(
    chip: str, precision: Precision, operand: float, cast: float
) -> None:
    """Read in 16 bits, written in the format: twice on Hopper, and where scales are of blocks of a row or a column."""
    machine = alone(chip, precision)
    assert (machine.operand_bytes, machine.cast_bytes) == pytest.approx((operand, cast))


def test_blocks_of_32_values_need_a_chip_with_4_bit_products_and_all_8_bit_formats_run_at_one_rate() -> None:
    hopper, blackwell = (accelerators()[chip] for chip in ("H100-SXM5-80GB", "GB200-186GB"))
    assert blackwell.multiplies("mxfp8")
    assert not hopper.multiplies("mxfp8")
    assert hopper.multiplies("fp8-blockwise")
    assert not accelerators()["A100-SXM4-80GB"].multiplies("fp8-delayed")
    assert {blackwell.peak(name) for name in ("fp8", "fp8-delayed", "fp8-blockwise", "mxfp8")} == {4.9e15}


def test_a_window_takes_attention_away_and_never_adds_any() -> None:
    full = LLAMA.model_copy(update={"layers": 2})
    times = [
        float(price(Shape.of(full.model_copy(update=given)), 8192, 4, alone("H100-SXM5-80GB"), CONSTANTS,
                    Shardings.of(micro_batch=4)).time.compute[0])
        for given in ({}, {"window": 128, "windowed_layers": 1}, {"window": 128, "windowed_layers": 2},
                      {"window": 8192, "windowed_layers": 2})
    ]  # fmt: skip
    assert times[0] > times[1] > times[2]
    assert times[0] - times[1] == pytest.approx(times[1] - times[2])
    assert times[3] == pytest.approx(times[0])


def test_biases_of_experts_are_traffic_of_each_copy_unless_experts_are_one_operator() -> None:
    """Megatron-LM's TEGroupedMLP, of GPT-OSS: 22 elements of 16 bits a copy forward, twice as many backward."""
    plain = shape_by_name("gpt-oss-120b")
    assert plain is not None
    one = plain.model_copy(update={"layers": 1, "windowed_layers": 0})
    machine, still = alone("GB200-186GB"), dataclasses.replace(CONSTANTS, kernel_launch_s=1e-12)

    def compute(shape: ModelShape, fused: float = 0.0) -> float:
        recipe = dataclasses.replace(PRETRAINING, fused_experts=fused)
        return float(
            price(Shape.of(shape), 4096, 4, machine, still, Shardings.of(micro_batch=4), recipe).time.compute[0]
        )

    without = compute(one.model_copy(update={"bias": False}))
    moved = 4 * 4096 * 4 * 2880 * 22 * 3 * 2
    rate = machine.memory_bytes_per_s * CONSTANTS.memory_efficiency
    assert compute(one) - without == pytest.approx(moved / rate, rel=0.01)
    assert compute(one, fused=1.0) == pytest.approx(without)


def test_no_more_of_an_exchange_is_exposed_than_there_is() -> None:
    s = Shardings.of(dp=64, micro_batch=1, micro_batches=[1, 8])
    nodes = make_machine(accelerators()["A100-SXM4-80GB"], "bf16", gpus_per_node=8, link_bytes_per_s=3e11,
                         link_latency_s=0.0, tiers=[Tier("all", 8, 1e9, 0.0)])  # fmt: skip
    whole, beyond = (
        price(Shape.of(LLAMA), 2048, 512, nodes, dataclasses.replace(CONSTANTS, gradient_exposed=share), s).time
        for share in (1.0, 3.0)
    )
    assert beyond.data_parallel == pytest.approx(whole.data_parallel)


def test_an_optimizer_step_takes_as_long_as_measured_on_an_h100() -> None:
    """Fused AdamW over 536,870,912 parameters in fp32: 5.74 ms, 28 bytes each where mixed precision moves 26."""
    c = dataclasses.replace(CONSTANTS, memory_efficiency=PRIOR["memory_efficiency"].value)
    arithmetic = Arithmetic(Shape.of(LLAMA), 4096, alone("H100-SXM5-80GB"), c, Shardings.of(), PRETRAINING)
    assert arithmetic.optimizer(np.array([536_870_912.0]))[0] == pytest.approx(5.74e-3 * 26 / 28, rel=0.10)


@pytest.mark.parametrize(
    ("m", "k", "n", "tflops"),
    [(16384, 2048, 2048, 657), (16384, 4096, 4096, 675), (16384, 8192, 8192, 695),
     (16384, 4096, 14336, 708), (16384, 14336, 4096, 722), (32768, 12288, 12288, 723), (16384, 4096, 128256, 701)],
)  # fmt: skip
def test_products_reach_what_was_measured_on_an_h100(m: int, k: int, n: int, tflops: float) -> None:
    """In bf16, without a pause, PyTorch 2.11. Products of few rows, 1,024, are predicted a ninth slow."""
    c = constants_for(accelerator="H100-SXM5-80GB", family="H100", precision="bf16").coefficients
    reached = 2 * m * k * n / float(product_s(m, k, n, alone("H100-SXM5-80GB"), c))
    assert reached == pytest.approx(tflops * 1e12, rel=0.10)


def test_zero_bubble_leaves_one_third_where_all_passes_are_equal() -> None:
    """Qi et al. 2023, table 1: (p-1)(F + B - W) of (p-1)(F + B + W); F = B = W leaves a third."""
    shape = Shape.of(LLAMA.model_copy(update={"vocab": 1024}))
    # products alone count: nothing is launched, streamed or attended to
    c = dataclasses.replace(CONSTANTS, kernel_launch_s=1e-12, stream_elements=1e-9, activation_elements=1e-9,
                            attention_efficiency=1e9, memory_efficiency=1e3, loss_elements=1e-9)  # fmt: skip
    s = Shardings.of(pp=8, micro_batches=16, schedule=[ONE_F_ONE_B, ZERO_BUBBLE])
    bubble = price(shape, 4096, 16, alone("A100-SXM4-80GB"), c, s).time.pipeline_bubble
    assert bubble[1] / bubble[0] == pytest.approx(1 / 3, abs=0.01)


def test_a_bubble_is_the_share_of_the_steady_state_that_narayanan_gives() -> None:
    """Narayanan et al. 2021, section 2.2: (p-1)/m, and (p-1)/(vm) with v virtual stages."""
    c = dataclasses.replace(CONSTANTS, bubble=1.0, straggler=1e-12)
    shape = Shape.of(LLAMA.model_copy(update={"vocab": 128}))
    s = Shardings.of(pp=8, micro_batches=32, vpp=[1, 4])
    time = price(shape, 4096, 32, alone("A100-SXM4-80GB"), c, s).time
    assert time.pipeline_bubble / (time.compute + time.tensor_parallel) == pytest.approx([7 / 32, 7 / 128], rel=0.01)


def test_a_ring_of_keys_and_values_hides_behind_long_sequences_and_not_behind_slow_links() -> None:
    """Liu et al. 2023, section 3: a ring overlaps where blocks are longer than the ratio of FLOP/s to bandwidth."""
    shape, s = Shape.of(LLAMA), Shardings.of(cp=8)

    def exposed(link: float) -> float:
        machine = make_machine(accelerators()["A100-SXM4-80GB"], "bf16", gpus_per_node=8, link_bytes_per_s=link,
                               link_latency_s=0.0, tiers=[Tier("node", 1, 1e9, 0.0)])  # fmt: skip
        return float(price(shape, 131072, 1, machine, CONSTANTS, s).time.context_parallel[0])

    keys_values = 2 * 8 * 128 * 2 * 131072  # bytes of a layer: 8 heads of 128, keys and values, 16 bits
    slow = 3 * 32 * 7 / 8 * keys_values / (1e8 * CONSTANTS.link_efficiency)  # thrice a layer: forward, backward twice
    assert exposed(300e9) == pytest.approx(0.0, abs=1e-3)
    assert exposed(1e8) == pytest.approx(slow, rel=0.2)


def test_bloom_used_the_energy_that_was_published() -> None:
    """Luccioni et al. 2022, arXiv:2211.02001, table 1: 1,082,990 GPU-hours at 400 W are 433,196 kWh."""
    site = load_site("jean-zay-a100").site
    group = next(name for name, node in site.node_groups.items() if node.accelerators)
    bare = site.model_copy(update={
        "prices": Prices(), "node_groups": {group: site.node_groups[group].model_copy(update={"power_w": None})},
    })  # fmt: skip
    assert energy_kwh(bare, group, 1_082_990 / 8) == pytest.approx(433_196, rel=1e-3)


def test_node_hours_cost_their_price_or_else_their_energy() -> None:
    site = load_site("jean-zay-a100").site
    group = next(name for name, node in site.node_groups.items() if node.accelerators)

    def priced(prices: Prices, per_hour: float | None) -> Site:
        node = site.node_groups[group].model_copy(update={"price_per_hour": per_hour, "power_w": 5000.0})
        return site.model_copy(update={"prices": prices, "node_groups": {group: node}})

    assert money(priced(Prices(), 24.0), group, 10) == 240.0
    assert money(priced(Prices(energy_per_kwh=0.2, pue=1.5), None), group, 10) == pytest.approx(15.0)
    assert money(priced(Prices(), None), group, 10) is None


def test_a_checkpoint_of_bloom_is_as_large_as_its_authors_say() -> None:
    """BigScience, The technology behind BLOOM training, 2022: 2.3 TB with optimizer states."""
    assert checkpoint_bytes(load_workload("bloom-176b").workload.model) == pytest.approx(2.3e12, rel=0.08)
