"""Intervals corrected by how far off past forecasts were."""

from __future__ import annotations

import numpy as np

from hpcplan.schedule.forecast.calibration import Calibration
from hpcplan.schedule.forecast.snapshot import QueueJob
from hpcplan.schedule.forecast.wait import WaitForecast

TARGET = QueueJob(label="x", width=1, limit_s=100, submit_s=0)


def forecast(low_s: float, high_s: float) -> WaitForecast:
    return WaitForecast(TARGET, np.linspace(low_s, high_s, 101).astype(np.int64))


def test_too_narrow_intervals_are_widened_until_they_hold_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    calibration = Calibration()
    held = []
    for number in range(700):
        middle = random.uniform(5_000, 50_000)
        said = forecast(middle - 500, middle + 500)
        wait = max(1.0, middle + 2_000 * random.standard_normal())
        ends = calibration.quantiles_s(said)
        if number > 100:
            held.append(ends[0.05] <= wait <= ends[0.95])
        calibration.learn(said, wait)
    assert 0.85 <= np.mean(held) <= 0.95


def test_nothing_is_corrected_before_twenty_waits_are_known() -> None:
    calibration = Calibration()
    for _ in range(19):
        calibration.learn(forecast(100, 200), 5000)
    assert not calibration.used
    assert calibration.quantiles_s(forecast(100, 200))[0.95] == forecast(100, 200).quantile_s(0.95)
    calibration.learn(forecast(100, 200), 5000)
    assert calibration.quantiles_s(forecast(100, 200))[0.95] > 1000


def test_jobs_that_did_not_wait_teach_nothing_and_quantiles_stay_in_order() -> None:
    calibration = Calibration()
    for wait in (0.0, 10.0) * 40:
        calibration.learn(forecast(100, 200), wait)
    assert len(calibration.misses) == 40
    ends = calibration.quantiles_s(forecast(0, 50))
    assert sorted(ends.values()) == [ends[level] for level in sorted(ends)]
    assert min(ends.values()) >= 0
