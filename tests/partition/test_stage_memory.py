"""What a GPU of each stage holds: never more than the search took the fullest to hold, and the fullest is named."""

from __future__ import annotations

import dataclasses

import pytest

from hpcplan.cost.shardings import Shardings
from hpcplan.partition.stage_memory import fullest, stage_memory
from hpcplan.workload import load_workload
from tests.partition.test_stages import kind_for

CASES = [
    ("llama3-70b", {"pp": 4, "micro_batches": 16}, (20, 20, 20, 20), 0),
    ("llama3-70b", {"pp": 4, "micro_batches": 16, "last_layers": 17}, (21, 21, 21, 17), 0),
    ("llama3-70b", {"pp": 4, "vpp": 5, "micro_batches": 8}, (20, 20, 20, 20), 0),
    ("llama3-70b", {"pp": 4, "micro_batches": 16, "schedule": 1}, (20, 20, 20, 20), 3),
    ("llama3-405b", {"pp": 16, "vpp": 8, "micro_batches": 32, "last_layers": 7}, (7, *[8] * 14, 7), 1),
]


@pytest.mark.parametrize(("name", "cut", "layers", "most"), CASES)
def test_the_fullest_stage_is_named(name: str, cut: dict[str, int], layers: tuple[int, ...], most: int) -> None:
    """The first keeps most; under GPipe all keep as much and the last has logits; a first part of an embedding alone
    leaves the second fullest.
    """
    workload = load_workload(name).workload
    kind = kind_for(workload)
    s = Shardings.of(tp=8, dp=2, micro_batch=1, zero=1, sequence_parallel=1, **cut)
    held = stage_memory(workload, kind, s, layers)
    assert [one.layers for one in held] == list(layers)
    assert [(one.first_rank, one.last_rank) for one in held][:2] == [(0, 15), (16, 31)]
    assert fullest(held).stage == most
    assert [bool(one.terms_bytes["logits"]) for one in held] == [False] * (len(held) - 1) + [True]
    need = float(kind.price(workload, s).memory_bytes[0])
    assert 0.9 * need < fullest(held).total_bytes <= 1.0001 * need


def test_every_gpu_of_one_stage_has_both_ends() -> None:
    workload = load_workload("llama3-8b").workload
    kind = kind_for(workload)
    s = Shardings.of(tp=8, dp=2, micro_batch=1, micro_batches=4)
    (one,) = stage_memory(workload, kind, s, (32,))
    assert one.total_bytes == pytest.approx(float(kind.price(workload, s).memory_bytes[0]), rel=1e-6)
    assert (one.first_rank, one.last_rank, one.in_flight) == (0, 15, 1)
    assert one.total_bytes == sum(dataclasses.asdict(one)["terms_bytes"].values())
