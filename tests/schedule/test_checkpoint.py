"""The checkpoint interval against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from hpcplan.schedule.checkpoint import checkpoint_interval_s


def time_to_solution(intervals_s: np.ndarray, write_s: float, mean_s: float, restart_s: float) -> np.ndarray:
    """Return the time that a second of work takes, for each interval: 200,000 failures, the same for all."""
    between_s = np.random.default_rng(1).exponential(mean_s, 200_000)
    saved_s = [np.floor(np.maximum(0, between_s - restart_s) / (tau + write_s)).sum() * tau for tau in intervals_s]
    return between_s.sum() / np.maximum(1e-9, np.array(saved_s))


@pytest.mark.parametrize("write_s", [5.0, 30.0, 120.0, 600.0])
@pytest.mark.parametrize("mean_s", [3_600.0, 20_000.0, 86_400.0, 1_000_000.0])
@pytest.mark.parametrize("restart_s", [0.0, 180.0])
def test_the_interval_is_within_two_percent_of_the_best_that_brute_force_finds(
    write_s: float, mean_s: float, restart_s: float
) -> None:
    ours = checkpoint_interval_s(write_s, mean_s * 16, 16)
    grid = np.geomspace(max(1.0, write_s / 4), 4 * mean_s, 60)
    times = time_to_solution(np.append(grid, ours), write_s, mean_s, restart_s)
    assert times[-1] <= 1.02 * times.min()
