"""Forecasts of the past: what would have been said at each submission, and what came of it.

Nothing is known at a submission but what had happened until then: which jobs ran and waited, and what had ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from hpcplan.schedule.forecast.calibration import Calibration
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster, WaitForecast

__all__ = ["Backtested", "Moment", "backtest", "moments"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One submission: the job as it was submitted, the queue that it met, and how long it waited."""

    target: QueueJob
    snapshot: QueueSnapshot
    wait_s: int


@dataclass(frozen=True, slots=True)
class Backtested:
    """What was forecast at one moment, the corrected quantiles (seconds by level), and the wait that came."""

    forecast: WaitForecast
    quantiles_s: dict[float, float]
    wait_s: int


def moments(
    jobs: Sequence[QueueJob],
    empty: QueueSnapshot,
    chosen: Callable[[int], bool],
    *,
    ended: Callable[[QueueJob], None] = lambda job: None,
    submitted: Callable[[QueueJob], None] = lambda job: None,
) -> Iterator[Moment]:
    """Yield the submissions whose number (from 0, in order) is ``chosen``.

    Args:
        jobs: with starts and ends; those without are left out.
        empty: the pool or cluster, without jobs.
        chosen: which submissions.
        ended: told of each job that has ended by the next moment, in order.
        submitted: told of each job once it has been submitted; when it started and ended is still to come.
    """
    arrivals = sorted((job for job in jobs if job.end_s is not None), key=lambda job: job.submit_s)
    live: dict[int, QueueJob] = {}
    ends: list[tuple[int, int]] = []
    for number, job in enumerate(arrivals):
        now = job.submit_s
        while ends and ends[0][0] <= now:
            ended(live.pop(heappop(ends)[1]))
        if chosen(number):
            seen = tuple(_as_known(other, now) for other in live.values())
            target = _as_known(job, now - 1)
            wait_s = (job.start_s or now) - now
            yield Moment(target, empty.model_copy(update={"now_s": now, "jobs": seen}), wait_s)
        submitted(job)
        live[number] = job
        assert job.end_s is not None
        heappush(ends, (job.end_s, number))


def _as_known(job: QueueJob, now: int) -> QueueJob:
    """Return a job without what was still to come: at one instant jobs end and are submitted before any starts."""
    started = job.start_s is not None and job.start_s < now
    return job.model_copy(update={"end_s": None} if started else {"end_s": None, "start_s": None, "nodes": None})


def backtest(
    jobs: Sequence[QueueJob],
    empty: QueueSnapshot,
    chosen: Callable[[int], bool],
    *,
    samples: int,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
) -> tuple[list[Backtested], Calibration]:
    """Forecast past submissions, each with what was known then; corrections are learnt from those that had started.

    ``each`` is called after each forecast. The calibration is what all of them teach.
    """
    forecaster = Forecaster(seed=seed)
    calibration = Calibration()
    open_forecasts: list[tuple[int, int, WaitForecast, int]] = []  # (start, number, forecast, wait)
    found = []
    past = moments(jobs, empty, chosen, ended=forecaster.runtimes.add, submitted=forecaster.arrivals.add)
    for number, moment in enumerate(past):
        while open_forecasts and open_forecasts[0][0] < moment.snapshot.now_s:
            _, _, forecast, wait_s = heappop(open_forecasts)
            calibration.learn(forecast, wait_s)
        forecast = forecaster.forecast(moment.snapshot, [moment.target], samples=samples)[0]
        found.append(Backtested(forecast, calibration.quantiles_s(forecast), moment.wait_s))
        heappush(open_forecasts, (moment.snapshot.now_s + moment.wait_s, number, forecast, moment.wait_s))
        each()
    for _, _, forecast, wait_s in sorted(open_forecasts, key=lambda one: one[:2]):
        calibration.learn(forecast, wait_s)
    return found, calibration
