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
from hpcplan.cost.memory import host_bytes
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import OFFLOAD, RECOMPUTE, SCHEDULES
from hpcplan.errors import InfeasibleError
from hpcplan.frameworks import FRAMEWORKS, Framework, refusals
from hpcplan.partition.candidates import LEVERS, Space, enumerate_families
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.prune import needless_levers
from hpcplan.partition.search import search
from hpcplan.plan import Sharding
from hpcplan.site import load_site
from hpcplan.site.topology import build_topology
from hpcplan.workload import Workload, load_workload

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
    st.sampled_from(MODELS), st.integers(1, 6), st.sampled_from([16, 24, 64, 96]), st.floats(0.0, 0.6),
    st.sampled_from(["megatron-lm", "srun", "torchtitan", "deepspeed"]), st.sampled_from(["step", "cost", "energy"]),
)  # fmt: skip
def test_the_search_finds_what_brute_force_finds(
    name: str, nodes: int, batch: int, headroom: float, framework: str, objective: Any
) -> None:
    workload = changed(name, training={"global_batch": batch, "precision": "bf16"},
                       request={"memory_headroom": headroom, "framework": framework})  # fmt: skip
    kind = kind_for(workload)
    everything = enumerate_families(space_of(workload, nodes)).shardings
    costs = kind.price(workload, everything)
    fits = costs.memory_bytes <= kind.free_bytes(headroom)
    fits &= host_bytes(Shape.of(workload.model), kind.machine, everything, kind.recipe) <= kind.free_host_bytes(
        headroom
    )
    try:
        outcome = search(workload, [kind], nodes=(nodes, nodes), objective=objective)
    except InfeasibleError:
        assert not fits.any()
        return
    assert outcome.costs.step_s[0] == costs.step_s[fits].min(), "all objectives agree on one number of equal nodes"
    assert outcome.candidates == len(everything)
    assert outcome.candidates == outcome.feasible + sum(outcome.pruned.values())
    assert outcome.pruned["memory"] + outcome.pruned["host_memory"] == (~fits).sum()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 4), st.sampled_from([16, 48]), st.sampled_from(["srun", "megatron-lm"]))
def test_more_of_a_lever_is_never_faster(name: str, nodes: int, batch: int, framework: str) -> None:
    workload = changed(name, training={"global_batch": batch}, request={"framework": framework})
    family = enumerate_families(space_of(workload, nodes))
    time = np.full((int(family.base[-1]) + 1, len(LEVERS)), np.nan)
    time[family.base, family.lever] = kind_for(workload).price(workload, family.shardings).step_s
    for i, less in enumerate(LEVERS):
        for j, more in enumerate(LEVERS):
            if less != more and less[0] <= more[0] and less[1] <= more[1]:
                both = ~np.isnan(time[:, i]) & ~np.isnan(time[:, j])
                assert np.all(time[both, i] <= time[both, j] * (1 + 1e-12))


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
    workload = changed(name, training={"global_batch": 48}, request={"memory_headroom": headroom})
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
    assert not beaten[full & (family.shardings.offload == 0)].any()
    assert np.array_equal(needless_levers(family, fits, np.ones(len(fits))), needless_levers(family, fits))


def test_what_fits_without_a_lever_is_not_tried_with_it() -> None:
    family = enumerate_families(space_of(changed("llama3-8b", training={"global_batch": 16}), 1))
    assert not needless_levers(family, np.zeros(len(family.base), dtype=bool)).any()
    beaten = needless_levers(family, np.ones(len(family.base), dtype=bool))
    assert np.array_equal(beaten, family.lever != 0), "if all fit, only those without any lever are left"


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
@pytest.mark.parametrize("name", ["llama3-8b", "mixtral-8x7b"])
def test_rendering_refuses_nothing_that_is_searched(name: str, framework: Framework) -> None:
    workload = changed(name, training={"global_batch": 16}, request={"framework": framework})
    s = enumerate_families(space_of(workload, 2)).shardings
    assert len(s) > 0
    seen: set[tuple[int, ...]] = set()
    names = ("tp", "pp", "vpp", "dp", "cp", "ep", "zero", "recompute", "sequence_parallel", "schedule", "offload")
    for i in range(len(s)):
        key = tuple(int(getattr(s, column)[i]) for column in names)
        if key in seen:
            continue
        seen.add(key)
        values: dict[str, Any] = dict(zip(names, key, strict=True))
        words = {"recompute": RECOMPUTE, "schedule": SCHEDULES, "offload": OFFLOAD}
        values |= {column: texts[values[column]] for column, texts in words.items()}
        one = Sharding(**values, precision="bf16", micro_batch=int(s.micro_batch[i]),
                       micro_batches=int(s.micro_batches[i]), nodes=2, gpus=16, gpus_per_node=8)  # fmt: skip
        assert not [*refusals(framework, one)]


def test_trainers_that_only_split_data_get_nothing_else() -> None:
    for framework in ("torchrun", "tensorflow"):
        s = enumerate_families(space_of(changed("llama3-8b", request={"framework": framework}), 2)).shardings
        assert set(s.tp) == set(s.pp) == set(s.cp) == {1}
    assert capabilities("tensorflow").accumulates is False
