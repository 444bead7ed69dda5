"""Pruning: what is cut is proven to be no better, held against brute force over the whole space."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpcplan.cost.constants import constants_for
from hpcplan.cost.correction import Corrected, Correction, places
from hpcplan.cost.memory import host_bytes, least_blocks, memory
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import OFFLOAD, RECOMPUTE, SCHEDULES
from hpcplan.errors import InfeasibleError
from hpcplan.frameworks import FRAMEWORKS, Framework, refusals
from hpcplan.partition.candidates import Space
from hpcplan.partition.families import enumerate_families
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.levers import LESS, LEVERS
from hpcplan.partition.prune import needless_levers
from hpcplan.partition.search import search
from hpcplan.plan import Sharding
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import Workload, load_workload
from tests.partition.brute_force import fitting, larger_groups, rules, smaller_groups

CONSTANTS = constants_for(accelerator="H100-SXM5-80GB", framework="megatron-lm", precision="bf16")
SITE = load_site("superpod-h100").site
TOPOLOGY = build_topology(SITE)
MODELS = ("llama3-8b", "gpt3-175b", "mixtral-8x7b", "bert-large")


def changed(name: str, **changes: dict[str, Any]) -> Workload:
    data = load_workload(name).workload.model_dump()
    for part, fields in changes.items():
        data[part] |= fields
    return Workload.model_validate(data)


def kind_for(workload: Workload) -> Kind:
    return kinds_of(workload, SITE, TOPOLOGY, ("dgx",), lambda group, precision: CONSTANTS)[0]


def space_of(workload: Workload, nodes: int) -> Space:
    run = workload.training
    return Space(workload.model, run.sequence_length, run.global_batch, nodes * 8, 8, workload.request.framework, {},
                 host_offload=True)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MODELS), st.sampled_from([3, 6, 8, 12]), st.integers(1, 6), st.sampled_from([16, 24, 64, 96]),
    st.floats(0.0, 0.97), st.sampled_from(["megatron-lm", "srun", "torchtitan", "deepspeed"]),
    st.sampled_from(["step", "cost", "energy"]),
)  # fmt: skip
def test_the_search_finds_what_brute_force_finds(
    name: str, layers: int, nodes: int, batch: int, headroom: float, framework: str, objective: Any
) -> None:
    workload = changed(name, model={"layers": layers}, training={"global_batch": batch, "precision": "bf16"},
                       request={"memory_headroom": headroom, "framework": framework})  # fmt: skip
    kind = kind_for(workload)
    family = enumerate_families(space_of(workload, nodes))
    costs = kind.price(workload, family.shardings)
    fits, fits_host = fitting(workload, kind, family.shardings, costs)
    try:
        outcome = search(workload, [kind], nodes=(nodes, nodes), objective=objective)
    except InfeasibleError:
        assert not (fits & fits_host).any()
        return
    best = costs.step_s[fits & fits_host].min()
    assert outcome.costs.step_s[0] == best, "all objectives agree on one number of equal nodes"
    assert outcome.candidates == len(family.base)
    assert outcome.candidates == outcome.feasible + sum(outcome.pruned.values())
    assert outcome.pruned == rules(workload, kind, family, costs)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(MODELS), st.sampled_from([4, 10]), st.integers(1, 4), st.sampled_from([16, 48]),
    st.sampled_from(["srun", "megatron-lm", "torchtitan"]),
)  # fmt: skip
def test_more_of_a_lever_is_never_faster(name: str, layers: int, nodes: int, batch: int, framework: str) -> None:
    """Of numbers of recomputed layers the one with more is never faster, and needs no more memory."""
    workload = changed(
        name,
        model={"layers": layers},
        training={"global_batch": batch, "precision": "bf16"},
        request={"framework": framework},
    )
    family = enumerate_families(space_of(workload, nodes))
    one_by_one = np.flatnonzero(family.shardings.recompute_block == 0)
    family = dataclasses.replace(
        family, shardings=family.shardings.take(one_by_one), base=family.base[one_by_one],
        lever=family.lever[one_by_one],
    )  # fmt: skip
    costs, some = kind_for(workload).price(workload, family.shardings), family.shardings.spared_layers
    next_ = np.flatnonzero((np.diff(family.base) == 0) & (np.diff(family.lever) == 0))
    assert np.all(np.diff(some)[next_] > 0)
    assert np.all(costs.step_s[next_] <= costs.step_s[next_ + 1] * (1 + 1e-12))
    assert np.all(costs.memory_bytes[next_] >= costs.memory_bytes[next_ + 1] * (1 - 1e-12))
    for last in (False, True):  # of the numbers of layers, the smallest and the largest
        time = np.full((int(family.base[-1]) + 1, len(LEVERS)), np.nan)
        order = np.arange(len(some)) if last else np.arange(len(some))[::-1]
        time[family.base[order], family.lever[order]] = costs.step_s[order]
        for i, j in zip(*np.nonzero(LESS), strict=True):
            both = ~np.isnan(time[:, i]) & ~np.isnan(time[:, j])
            assert np.all(time[both, i] <= time[both, j] * (1 + 1e-12))


def test_levers_are_compared_as_far_as_can_be_said() -> None:
    """All that saves less of everything is less; nothing is said of selective recomputation beside some layers."""
    again = [LEVERS.index((kind, layers, 0, 0)) for kind, layers in ((0, 0), (1, 0), (2, 1), (2, 0))]
    none, selective, some, full = again
    assert LESS[none, selective]
    assert LESS[none, some]
    assert LESS[selective, full]
    assert LESS[some, full]
    assert not LESS[selective, some]
    assert not LESS[some, selective]
    assert not LESS[some, LEVERS.index((2, 1, 1, 0))], "fewer layers may do where states are away"
    assert LESS[selective, LEVERS.index((1, 0, 1, 0))]
    activation, mlp = LEVERS.index((0, 0, 0, 1)), LEVERS.index((0, 0, 0, 2))
    assert LESS[none, activation]
    assert LESS[activation, mlp]
    assert LESS[mlp, full]
    assert not LESS[selective, mlp]
    assert not LESS[mlp, some]
    assert not np.any(LESS & LESS.T)


@pytest.mark.parametrize("framework", ["srun", "megatron-lm"])
@pytest.mark.parametrize(("layers", "nodes"), [(6, 1), (10, 2), (12, 3)])
def test_the_least_blocks_are_those_that_need_least(framework: str, layers: int, nodes: int) -> None:
    """Of the sizes that are searched, in which layers recomputed in full share a checkpoint."""
    workload = changed(
        "llama3-8b",
        model={"layers": layers},
        training={"global_batch": 48, "precision": "bf16"},
        request={"framework": framework},
    )
    kind = kind_for(workload)
    s = enumerate_families(space_of(workload, nodes)).shardings
    s = s.take(np.flatnonzero((s.recompute == RECOMPUTE.index("full")) & (s.spared_layers == 0)))
    shape, length = Shape.of(workload.model), workload.training.sequence_length
    model = (shape, length, kind.machine)
    best = dataclasses.replace(s, recompute_block=least_blocks(*model, s, kind.coefficients, kind.recipe))
    least = memory(*model, best, kind.coefficients, kind.recipe).total
    assert np.all(least <= memory(*model, s, kind.coefficients, kind.recipe).total * (1 + 1e-12))
    assert (best.recompute_block > 0).any()


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["llama3-8b", "mixtral-8x7b"]), st.sampled_from([3, 4]), st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([64, 96]), st.sampled_from(["srun", "megatron-lm", "torchtitan", "deepspeed"]),
)  # fmt: skip
def test_a_smaller_group_that_is_left_out_is_no_better(
    name: str, layers: int, nodes: int, batch: int, framework: str
) -> None:
    """Whatever the micro-batch and the levers, a sharding with a larger group takes no more time and memory."""
    workload = changed(
        name,
        model={"layers": layers},
        training={"global_batch": batch, "precision": "bf16"},
        request={"framework": framework},
    )
    kind = kind_for(workload)
    s = enumerate_families(space_of(workload, nodes)).shardings
    costs, smaller = kind.price(workload, s), smaller_groups(workload, kind, s)
    assert smaller.any() or not (s.shard_group > 0).any()
    for values in (costs.step_s, costs.memory_bytes):
        assert np.all(values[smaller] >= larger_groups(s, values)[smaller] * (1 - 1e-12))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(1, 4),
    st.floats(0.0, 0.5),
    st.lists(st.floats(-0.6, 0.6), min_size=9, max_size=9),
)
def test_measured_runs_that_favour_a_lever_do_not_make_pruning_unsound(
    name: str, nodes: int, headroom: float, weights: list[float]
) -> None:
    workload = changed(
        name, model={"layers": 8}, training={"global_batch": 48}, request={"memory_headroom": headroom}
    )  # fmt: skip
    kind, shape, length = kind_for(workload), Shape.of(workload.model), workload.training.sequence_length
    everything = enumerate_families(space_of(workload, nodes)).shardings
    some = everything.take(np.linspace(0, len(everything) - 1, len(weights)).astype(np.int64))
    trainer = ("megatron-lm", "bf16")
    measured = Correction(places(shape, length, some), (trainer,) * len(weights), np.array(weights))
    corrected = Corrected(trainer, measured)
    kind = dataclasses.replace(kind, constants=dataclasses.replace(CONSTANTS, corrected=corrected))
    costs = kind.price(workload, everything)
    fits = costs.memory_bytes <= kind.free_bytes(headroom)
    fits &= host_bytes(shape, kind.machine, everything, kind.recipe) <= kind.free_host_bytes(headroom)
    assume(fits.any())
    outcome = search(workload, [kind], nodes=(nodes, nodes))
    assert outcome.costs.step_s[0] == pytest.approx(costs.step_s[fits].min(), rel=1e-12)
    assert outcome.candidates == outcome.feasible + sum(outcome.pruned.values())


def test_a_lever_that_measured_runs_favour_is_kept() -> None:
    family = enumerate_families(space_of(changed("llama3-8b", training={"global_batch": 16}), 1))
    fits = np.ones(len(family.base), dtype=bool)
    full = family.shardings.recompute == RECOMPUTE.index("full")
    beaten = needless_levers(family, fits, np.where(full, 0.9, 1.0))
    some = family.shardings.spared_layers > 0
    with_fewer = np.isin(family.base, family.base[some])
    assert not beaten[full & (some | ~with_fewer) & (family.shardings.offload == 0)].any()
    assert beaten[full & ~some & with_fewer].all(), "some layers do"
    assert np.array_equal(needless_levers(family, fits, np.ones(len(fits))), needless_levers(family, fits))


def test_what_fits_without_a_lever_is_not_tried_with_it() -> None:
    family = enumerate_families(space_of(changed("llama3-8b", training={"global_batch": 16}), 1))
    assert not needless_levers(family, np.zeros(len(family.base), dtype=bool)).any()
    beaten = needless_levers(family, np.ones(len(family.base), dtype=bool))
    assert np.array_equal(beaten, family.lever != 0), "if all fit, only those without any lever are left"


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
@pytest.mark.parametrize("name", ["llama3-8b", "mixtral-8x7b"])
def test_rendering_refuses_nothing_that_is_searched(name: str, framework: Framework) -> None:
    workload = changed(
        name, model={"layers": 8}, training={"global_batch": 16}, request={"framework": framework}
    )  # fmt: skip
    s = enumerate_families(space_of(workload, 2)).shardings
    assert len(s) > 0
    names = ("tp", "pp", "vpp", "dp", "cp", "ep", "zero", "shard_group", "recompute", "spared_layers",
             "sequence_parallel", "schedule", "offload", "micro_batches")  # fmt: skip
    words = {"recompute": RECOMPUTE, "schedule": SCHEDULES, "offload": OFFLOAD}
    for key in sorted(set(zip(*(getattr(s, column).tolist() for column in names), strict=True))):
        values: dict[str, Any] = dict(zip(names, key, strict=True))
        values |= {column: texts[values[column]] for column, texts in words.items()}
        values["recompute_layers"] = values.pop("spared_layers") or None
        values["shard_group"] = values["shard_group"] or None
        one = Sharding(**values, precision="bf16", micro_batch=1, nodes=2, gpus=16, gpus_per_node=8)
        assert not [*refusals(framework, one)]


def test_trainers_that_only_split_data_get_nothing_else() -> None:
    for framework in ("torchrun", "tensorflow"):
        s = enumerate_families(space_of(changed("llama3-8b", request={"framework": framework}), 2)).shardings
        assert set(s.tp) == set(s.pp) == set(s.cp) == {1}
    assert capabilities("tensorflow").accumulates is False
