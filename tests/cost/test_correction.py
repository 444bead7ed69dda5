"""Corrections near measured runs: what they move, what they leave alone, and their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.cost.constants import constants_for
from hpcplan.cost.correction import Corrected, Correction, as_json, places, read_correction, trainer_distance
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Shardings
from hpcplan.cost.step import Costs, price
from hpcplan.errors import InputError
from hpcplan.resources import shipped
from hpcplan.workload import load_workload
from tests.cost.test_step import CONSTANTS, selene

SHAPE = Shape.of(load_workload("gpt3-175b").workload.model)
MEASURED = Shardings.of(tp=8, pp=8, dp=4, micro_batch=1, micro_batches=64, zero=1)
TRAINER = ("megatron-lm", "bf16")


def correction(log_factor: float) -> Correction:
    return Correction(places(SHAPE, 2048, MEASURED), (TRAINER,), np.array([log_factor]))


def cost(s: Shardings, corrected: Corrected | None) -> Costs:
    return price(SHAPE, 2048, 256, selene(), CONSTANTS, s, corrected=corrected)


def test_a_measured_sharding_is_corrected_in_full_and_its_terms_still_add_up() -> None:
    plain, moved = cost(MEASURED, None), cost(MEASURED, Corrected(TRAINER, correction(np.log(1.2))))
    assert moved.step_s[0] == pytest.approx(1.2 * plain.step_s[0])
    assert sum(getattr(moved.time, f.name)[0] for f in dataclasses.fields(moved.time)) == pytest.approx(moved.step_s[0])
    assert moved.memory_bytes[0] == plain.memory_bytes[0]


def test_neighbours_are_corrected_less_and_strangers_not_at_all() -> None:
    near, far = (Shardings.of(tp=tp, pp=8, dp=4, micro_batch=mb, micro_batches=64) for tp, mb in ((8, 2), (1, 16)))
    one = correction(0.2)
    at = [float(one.log_factor(places(SHAPE, 2048, s), TRAINER)[0]) for s in (MEASURED, near, far)]
    assert at[0] == pytest.approx(0.2)
    assert 0.01 < at[1] < 0.15
    assert at[2] < 1e-3


def test_another_trainer_learns_less_from_a_run() -> None:
    assert trainer_distance(TRAINER, TRAINER) == 0
    assert trainer_distance(TRAINER, ("nemo", "fp8", "compile")) == 3
    at, one = places(SHAPE, 2048, MEASURED), correction(0.2)
    assert one.log_factor(at, ("nemo", "bf16"))[0] == pytest.approx(0.2 * np.exp(-0.5))


def test_an_interval_is_narrow_by_a_measured_run_and_that_of_an_unseen_site_far_from_all() -> None:
    known = dataclasses.replace(constants_for(), interval=0.05, unseen_interval=0.25)
    one = Corrected(TRAINER, correction(0.2))
    shardings = [Shardings.of(tp=8, pp=8, dp=4, micro_batch=mb, micro_batches=64, zero=1) for mb in (1, 2, 4, 16)]
    widths = [float(known.half_width(one.nearest(SHAPE, 2048, s))[0]) for s in shardings]
    assert widths[0] == pytest.approx(0.05)
    assert widths == sorted(widths)
    assert widths[-1] == pytest.approx(0.25, abs=1e-3)
    other = dataclasses.replace(one, trainer=("nemo", "fp8", "compile"))
    assert known.half_width(other.nearest(SHAPE, 2048, MEASURED))[0] > 0.2, "another trainer at the same place"
    vague = dataclasses.replace(known, interval=0.4)
    assert vague.half_width(0.0) == pytest.approx(0.4), "far from runs nothing is surer than near them"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5), st.sampled_from([-0.4, 0.4]))
def test_doubling_the_replicas_never_more_than_halves_a_corrected_step(
    log_tp: int, log_pp: int, log_dp: int, size: float
) -> None:
    few, many = (
        Shardings.of(tp=2**log_tp, pp=2**log_pp, dp=dp, micro_batch=1, micro_batches=256 // dp, zero=1)
        for dp in (2**log_dp, 2 ** (log_dp + 1))
    )
    corrected = Corrected(TRAINER, correction(size))
    assert cost(many, corrected).step_s[0] >= cost(few, corrected).step_s[0] / 2 * (1 - 1e-9)


def test_a_file_of_corrections_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "mysite.json"
    path.write_text(as_json("mysite", "made up", correction(0.125)))
    read = read_correction(path)
    assert read.trainers == (TRAINER,)
    assert read.weights == pytest.approx([0.125])
    assert read.where == pytest.approx(correction(0.125).where, abs=1e-3)


@pytest.mark.parametrize("text", ["{", "[]", '{"coordinates": 3, "places": []}', '{"coordinates": 14, "places": [1]}'])
def test_a_damaged_file_of_corrections_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"damaged\.json"):
        read_correction(path)


def test_shipped_corrections_are_read_for_their_site_alone() -> None:
    folder = shipped("sites") / "constants" / "corrections"
    names = sorted(path.stem for path in folder.glob("*.json"))
    assert names
    for name in names:
        assert constants_for(framework="nemo", precision="bf16", site=name).corrected is not None
    assert constants_for(framework="nemo", precision="bf16", site="nobody").corrected is None
