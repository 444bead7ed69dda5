"""Cutting layers into stages: against every cut there is, and against what the search priced."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.constants import constants_for
from hpcplan.cost.shardings import Shardings
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.stages import BUSY, Layer, cut_layers, layer_costs, stage_layers
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import Workload, load_workload

CONSTANTS = constants_for(accelerator="H100-SXM5-80GB", framework="megatron-lm", precision="bf16")
SITE = load_site("superpod-h100").site
TOPOLOGY = build_topology(SITE)


def kind_for(workload: Workload) -> Kind:
    return kinds_of(workload, SITE, TOPOLOGY, ("dgx",), lambda group, precision: CONSTANTS)[0]


def every_cut(layers: list[Layer], stages: int, in_flight: list[int], free: list[float], first: Layer, last: Layer,
              speeds: list[float]) -> tuple[float, float] | None:  # fmt: skip
    """The best (slowest stage, fullest stage) by trying all, with no code shared."""
    found: list[tuple[float, float]] = []
    for inner in combinations(range(1, len(layers)), stages - 1):
        bounds = [0, *inner, len(layers)]
        times, needs = [], []
        for i in range(stages):
            part = layers[bounds[i] : bounds[i + 1]] + ([first] if i == 0 else []) + ([last] if i == stages - 1 else [])
            times.append(sum(layer.time_s for layer in part) / speeds[i])
            needs.append(sum(layer.state_bytes + layer.kept_bytes * in_flight[i] for layer in part))
        if all(need <= limit for need, limit in zip(needs, free, strict=True)):
            found.append((max(times), max(needs)))
    return min(found, default=None)


WHOLE = st.integers(0, 9).map(float)
LAYER = st.builds(Layer, st.integers(1, 9).map(float), WHOLE, WHOLE)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(LAYER, min_size=1, max_size=9), st.integers(1, 5), LAYER, LAYER,
    st.lists(st.integers(1, 5), min_size=5, max_size=5),
    st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=5, max_size=5),
    st.lists(st.integers(10, 150).map(float), min_size=5, max_size=5),
)  # fmt: skip
def test_no_cut_is_better_than_the_one_found(
    layers: list[Layer], stages: int, first: Layer, last: Layer, in_flight: list[int], speeds: list[float],
    free: list[float],
) -> None:  # fmt: skip
    in_flight, speeds, free = in_flight[:stages], speeds[:stages], free[:stages]
    cut = cut_layers(layers, stages, in_flight=in_flight, first=first, last=last, speeds=speeds, free_bytes_each=free)
    expected = every_cut(layers, stages, in_flight, free, first, last, speeds) if stages <= len(layers) else None
    if cut is None:
        assert expected is None
        return
    assert expected is not None
    assert sum(cut.sizes) == len(layers)
    assert cut.slowest_s == pytest.approx(expected[0])
    assert max(cut.memory_bytes) == pytest.approx(expected[1])


def test_a_heavy_end_leaves_its_stage_fewer_layers() -> None:
    cut = cut_layers([Layer(1.0)] * 14, 4, last=Layer(2.0))
    assert cut is not None
    assert cut.sizes[-1] == 2
    assert cut.slowest_s == 4.0


def test_memory_moves_layers_away_from_the_first_stage() -> None:
    layers = [Layer(1.0, state_bytes=1.0, kept_bytes=1.0)] * 8
    free = cut_layers(layers, 4, in_flight=[4, 3, 2, 1])
    tight = cut_layers(layers, 4, in_flight=[4, 3, 2, 1], free_bytes=9.0)
    assert free is not None
    assert free.sizes == (2, 2, 2, 2)
    assert tight is not None
    assert tight.sizes[0] == 1
    assert max(tight.memory_bytes) <= 9.0
    assert cut_layers(layers, 4, in_flight=[4, 3, 2, 1], free_bytes=4.0) is None


def test_an_encoder_and_a_decoder_are_cut_where_their_costs_say() -> None:
    encoder, decoder = [Layer(1.0)] * 12, [Layer(1.5)] * 12  # cross attention makes decoder layers dearer
    cut = cut_layers([*encoder, *decoder], 5)
    assert cut is not None
    assert cut.slowest_s == 6.0
    assert sum(cut.sizes) == 24


def test_cheap_first_layers_of_a_mixture_of_experts_share_a_stage() -> None:
    workload = load_workload("deepseek-v3").workload
    s = Shardings.of(tp=1, pp=16, dp=4, cp=1, ep=4, micro_batch=1, micro_batches=64, zero=1, last_layers=1)
    layers, _, last = layer_costs(workload, kind_for(workload), s).of(0)
    assert len(layers) == 61
    assert layers[0].time_s != layers[10].time_s
    assert last.time_s > 0
    sizes = stage_layers(workload, kind_for(workload), s)
    assert sum(sizes) == 61
    assert len(sizes) == 16


@pytest.mark.parametrize(("pp", "vpp", "last"), [(16, 1, 6), (16, 4, 7), (16, 8, 7)])
def test_llama_405b_is_cut_as_its_authors_did(pp: int, vpp: int, last: int) -> None:
    workload = load_workload("llama3-405b").workload
    s = Shardings.of(tp=8, pp=pp, vpp=vpp, dp=128, micro_batch=1, micro_batches=16, zero=1, last_layers=last)
    sizes = stage_layers(workload, kind_for(workload), s)
    assert sum(sizes) == 126
    if vpp > 1:
        assert sizes[0] == sizes[-1] == 128 // (pp * vpp) - 1
    else:
        assert max(sizes) == 8
        assert sizes[-1] <= 7


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(1, 8))
def test_the_cut_is_no_slower_than_what_the_search_priced(pp: int, last: int) -> None:
    workload = load_workload("llama3-70b").workload
    kind = kind_for(workload)
    s = Shardings.of(tp=8, pp=pp, dp=1, micro_batch=1, micro_batches=32, last_layers=last)
    layers, first, head = layer_costs(workload, kind, s).of(0)
    cut = cut_layers(layers, pp, first=first, last=head)
    assert cut is not None
    priced = max(float(s.stage_layers(80)[0]) * layers[0].time_s, last * layers[0].time_s + head.time_s)
    assert cut.slowest_s <= priced * (1 + 1e-9)
    assert np.isclose(sum(cut.times_s), 80 * layers[0].time_s + head.time_s)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["llama3-8b", "gpt3-175b", "mixtral-8x7b"]), st.sampled_from([2, 4, 8]), st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 2]), st.integers(0, 3), st.integers(0, 2), st.sampled_from([1, 4, 32]), st.integers(0, 1),
)  # fmt: skip
def test_stages_take_what_the_cost_model_says(
    name: str, pp: int, tp: int, micro_batch: int, zero: int, recompute: int, micro_batches: int, schedule: int
) -> None:
    """The fullest of all stages of an even cut needs the sharding's memory, and the slowest takes its time."""
    workload = load_workload(name).workload
    kind = kind_for(workload)
    s = Shardings.of(tp=tp, pp=pp, dp=4, micro_batch=micro_batch, micro_batches=micro_batches, zero=zero,
                     recompute=recompute, schedule=schedule)  # fmt: skip
    items, first, last = layer_costs(workload, kind, s).of(0)
    once = float(layer_costs(workload, kind, s).once_bytes[0])
    held = [micro_batches if schedule else min(micro_batches, pp - i) for i in range(pp)]
    each = len(items) // pp
    needs = [once + each * (items[0].state_bytes + held[i] * items[0].kept_bytes) for i in range(pp)]
    needs[0] += first.state_bytes
    needs[-1] += last.state_bytes
    costs = kind.price(workload, s)
    tolerance = 0.02 if name == "gpt3-175b" else 1e-9  # the model takes the larger of its two tables for both ends
    assert max(needs) == pytest.approx(float(costs.memory_bytes[0]), rel=tolerance)
    busy = sum(float(getattr(costs.time, term)[0]) for term in BUSY)
    assert micro_batches * (each * items[0].time_s + last.time_s) == pytest.approx(busy, rel=1e-9)


@pytest.mark.parametrize("again", [1, 3, 7])
def test_some_layers_of_each_stage_are_recomputed(again: int) -> None:
    """Against every cut there is, the layers of each stage taken one by one."""
    layers, redone = [Layer(2.0, 1.0, 5.0)] * 10, [Layer(3.0, 1.0, 1.0)] * 10
    in_flight, free = [3, 2, 1], [60.0] * 3
    cut = cut_layers(layers, 3, in_flight=in_flight, free_bytes_each=free, recomputed=(again, redone))
    best = []
    for a, b in combinations(range(1, 10), 2):
        sizes = (a, b - a, 10 - b)
        parts = [redone[: min(again, size)] + layers[: max(0, size - again)] for size in sizes]
        times = [sum(layer.time_s for layer in part) for part in parts]
        needs = [sum(layer.state_bytes + held * layer.kept_bytes for layer in part)
                 for part, held in zip(parts, in_flight, strict=True)]  # fmt: skip
        if all(need <= limit for need, limit in zip(needs, free, strict=True)):
            best.append((max(times), max(needs)))
    assert (cut is None) == (not best)
    assert cut is None or (cut.slowest_s, max(cut.memory_bytes)) == pytest.approx(min(best))
