"""The memory of four models by recomputation mode, as Korthikanti et al. 2022 give it in figures 1 and 7."""

from __future__ import annotations

import dataclasses

import pytest

from hpcplan.cost.constants import constants_for
from hpcplan.cost.machine import make_machine
from hpcplan.cost.memory import held_parameters, memory, score_bytes_kept
from hpcplan.cost.recipe import Recipe
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import FULL, NONE, SELECTIVE, Shardings
from hpcplan.site.catalogue import accelerators
from hpcplan.site.topology import Tier
from hpcplan.workload.model import ModelShape

# as the paper counts: no copies, nothing lost to fragmentation, selective recomputation drops the scores alone
IDEAL = {"state_copies": 1.0, "selective_kept": 1.0, "activation_fragmentation": 1.0}
CONSTANTS = dataclasses.replace(constants_for().coefficients, **IDEAL)
MACHINE = make_machine(
    accelerators()["A100-SXM4-80GB"], "fp16", gpus_per_node=8, link_bytes_per_s=300e9, link_latency_s=2e-6,
    tiers=[Tier("all", 64, 200e9, 4e-6)],
)  # fmt: skip
GIB = 2.0**30
# name: layers, hidden, heads, stages, virtual stages, micro-batch (table 3 of the paper)
MODELS = {
    "22B": (48, 6144, 64, 1, 1, 4),
    "175B": (96, 12288, 96, 8, 3, 1),
    "530B": (105, 20480, 128, 35, 3, 1),
    "1T": (128, 25600, 160, 64, 1, 1),
}
STATES_GIB = {"22B": 45.5625, "175B": 45.5625, "530B": 31.640625, "1T": 32.958984375}
ACTIVATIONS_GIB = {"22B": 59.25, "175B": 66.84375, "530B": 114.0234375, "1T": 131.25}
SELECTIVE_GIB = {"22B": 9.5625, "175B": 12.3515625, "530B": 23.076171875, "1T": 26.5625}  # with sequence parallelism
SHARE = {  # per cent of the activations without any of the three, read from figure 7
    "22B": {"seq": 66.84, "sel": 49.42, "seqsel": 16.18, "full": 7.64},
    "175B": {"seq": 62.04, "sel": 56.53, "seqsel": 18.49, "full": 8.71},
    "530B": {"seq": 58.31, "sel": 62.04, "seqsel": 20.27, "full": 9.42},
    "1T": {"seq": 58.31, "sel": 62.04, "seqsel": 20.27, "full": 9.42},
}


def case(name: str, recompute: int, sequence_parallel: int) -> tuple[Shape, Shardings]:
    layers, hidden, heads, stages, virtual, size = MODELS[name]
    shape = ModelShape(
        layers=layers, hidden=hidden, heads=heads, ffn=4 * hidden, vocab=51200, gated=False, bias=True,
        norm="layernorm", position="learned", max_positions=2048, tied_embeddings=True, dropout=True,
    )  # fmt: skip
    fields = {"tp": 8, "pp": stages, "vpp": virtual, "micro_batch": size, "micro_batches": 512 // size}
    s = Shardings.of(**fields, recompute=recompute, sequence_parallel=sequence_parallel)
    return Shape.of(shape), s


def kept_gib(name: str, recompute: int, sequence_parallel: int) -> float:
    """Activations that stay, without what one layer's recomputation needs for a moment."""
    shape, s = case(name, recompute, sequence_parallel)
    need = memory(shape, 2048, MACHINE, s, CONSTANTS, Recipe(flash=0.0)).activations[0]
    moment = score_bytes_kept(shape, 2048, s)[0] if recompute == SELECTIVE else 0.0
    return float((need - moment) / GIB)


@pytest.mark.parametrize("name", MODELS)
def test_activations_are_what_the_paper_gives(name: str) -> None:
    assert kept_gib(name, NONE, 0) == pytest.approx(ACTIVATIONS_GIB[name], rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_sequence_parallelism_and_selective_recomputation_keep_what_the_paper_gives(name: str) -> None:
    assert kept_gib(name, SELECTIVE, 1) == pytest.approx(SELECTIVE_GIB[name], rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["seq", "sel", "seqsel"])
def test_each_saving_is_the_share_that_the_paper_gives(name: str, mode: str) -> None:
    recompute = SELECTIVE if "sel" in mode else NONE
    share = 100 * kept_gib(name, recompute, int("seq" in mode)) / ACTIVATIONS_GIB[name]
    assert share == pytest.approx(SHARE[name][mode], abs=0.2)


@pytest.mark.parametrize("name", MODELS)
def test_full_recomputation_keeps_each_layer_s_input_and_one_layer_at_work(name: str) -> None:
    shape, s = case(name, FULL, 0)
    need = memory(shape, 2048, MACHINE, s, CONSTANTS, Recipe(flash=0.0)).activations[0]
    one = ACTIVATIONS_GIB[name] * GIB / _layers_in_flight(name)
    share = 100 * (need - one) / GIB / ACTIVATIONS_GIB[name]
    assert share == pytest.approx(SHARE[name]["full"], abs=0.2)


def _layers_in_flight(name: str) -> float:
    layers, _, _, stages, virtual, _ = MODELS[name]
    return layers * (1 + (stages - 1) / (stages * virtual) if virtual > 1 else 1)


@pytest.mark.parametrize("name", MODELS)
def test_states_are_18_bytes_a_parameter_of_the_layers(name: str) -> None:
    """The paper leaves out embeddings, biases and norms: a thousandth of these models."""
    shape, s = case(name, NONE, 0)
    held = held_parameters(shape, s).dense[0] - (51200 + 2048) * float(shape.hidden) / 8
    assert 18 * held / GIB == pytest.approx(STATES_GIB[name], rel=1e-3)
