"""The chain of jobs and the checkpoint interval."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcplan.errors import InfeasibleError
from hpcplan.schedule.checkpoint import checkpoint_interval_s
from hpcplan.schedule.segments import STARTUP_S, cut_into_segments, warning_s


@settings(max_examples=200)
@given(st.integers(1, 50_000), st.floats(0.05, 300), st.floats(1, 1.5), st.integers(30, 10_000), st.floats(0, 600))
def test_a_chain_covers_every_step_once_and_each_job_fits(
    steps: int, step_s: float, spread: float, limit_minutes: int, write_s: float
) -> None:
    limit = limit_minutes * 60
    try:
        chain = cut_into_segments(steps, step_s, step_s * spread, limit, write_s)
    except InfeasibleError:
        assert (limit - STARTUP_S - warning_s(step_s * spread, write_s)) * 0.97 < step_s
        return
    assert chain[0].first_step == 1
    assert chain[-1].last_step == steps
    for before, after in pairwise(chain):
        assert after.first_step == before.last_step + 1
    for segment in chain:
        assert segment.time_limit_s <= limit
        steps_end = segment.expected_s - write_s
        assert steps_end <= segment.time_limit_s - segment.warning_s + 1e-6, "no job is expected to be cut"
        assert segment.time_limit_s % 60 == 0, "Slurm counts time limits in whole minutes"
    lengths = {segment.last_step - segment.first_step for segment in chain}
    assert max(lengths) - min(lengths) <= 1, "equal jobs"


def test_a_short_run_asks_for_little_more_than_it_needs() -> None:
    (only,) = cut_into_segments(100, 10.0, 12.0, 86400, 30)
    assert only.time_limit_s < 2 * only.expected_s


def simulated_waste(interval: float, write: float, mean: float, seed: int) -> float:
    """Share of time not spent on work that stays, by playing failures out."""
    random.seed(seed)
    work = wall = 0.0
    left = random.expovariate(1 / mean)
    while wall < 4000 * mean:
        need = interval + write
        if left >= need:
            left -= need
            wall += need
            work += interval
        else:
            wall += left
            left = random.expovariate(1 / mean)
    return 1 - work / wall


@pytest.mark.parametrize(("write", "mean"), [(60.0, 20_000.0), (30.0, 3_000.0), (200.0, 8_000.0)])
def test_the_interval_wastes_no_more_than_its_neighbours(write: float, mean: float) -> None:
    """Daly 2006: against a simulation of exponential failures."""
    best = checkpoint_interval_s(write, mean * 4, 4)
    assert best < 3600, "the cap must not be what is tested"
    waste = simulated_waste(best, write, mean, 1)
    for factor in (0.4, 2.5):
        assert waste < simulated_waste(best * factor, write, mean, 1)


def test_the_interval_never_exceeds_an_hour_or_a_hundred_writes_nor_the_time_between_failures() -> None:
    assert checkpoint_interval_s(1.0, None, 1000) == 3600
    assert checkpoint_interval_s(60.0, None, 1000) == 6000
    assert checkpoint_interval_s(1000.0, 400.0 * 10, 10) == pytest.approx(400)


@given(st.floats(0.1, 1e4), st.floats(1e3, 1e8), st.integers(1, 10_000))
def test_the_interval_is_finite_and_positive(write: float, mtbf: float, nodes: int) -> None:
    interval = checkpoint_interval_s(write, mtbf, nodes)
    assert 0 < interval <= max(3600, 100 * write)
    assert math.isfinite(interval)
