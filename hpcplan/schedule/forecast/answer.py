"""What is told to a person: starts of one job at several sizes, with corrected intervals, and how they came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hpcplan.schedule.forecast.backtest import backtest, moments
from hpcplan.schedule.forecast.calibration import Calibration
from hpcplan.schedule.forecast.demand import PartitionDemand, demand_reasons, demand_words, predict_demand
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import SAMPLES, Forecaster, WaitForecast

__all__ = ["BACKTESTS", "Answer", "SizeAnswer", "answer", "calibrate", "from_history_alone"]

BACKTESTS: Final = 200  # past submissions that are forecast again, to see how far off the forecasts are
_SAMPLES_OF_ONE: Final = 40  # of each of those
_ON_NODES: Final = (60, 16)  # back-tests, and samples of each, where each sample is a cluster's
_MOMENTS: Final = 60  # at which a history without a queue is looked at


@dataclass(frozen=True, slots=True)
class SizeAnswer:
    """When a job of one size would start: waits in seconds by level, and the samples behind them."""

    target: QueueJob
    quantiles_s: dict[float, float]
    forecast: WaitForecast
    now_s: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``wait_s`` and ``start`` have the keys p05, p10, p50, p90 and p95."""
        waits = {f"p{round(100 * level):02d}": round(wait) for level, wait in sorted(self.quantiles_s.items())}
        return {
            "nodes": self.target.width,
            "time_limit_s": self.target.limit_s,
            "partition": self.target.partition,
            "wait_s": waits,
            "start": {name: self.now_s + wait for name, wait in waits.items()},
            "starts_at_once": round(float((self.forecast.waits_s <= 0).mean()), 3),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for each size; ``notes`` say what it rests on, ``demand`` what others were drawn to submit."""

    snapshot: QueueSnapshot
    sizes: tuple[SizeAnswer, ...]
    backtests: int
    notes: tuple[str, ...]
    demand: tuple[PartitionDemand, ...] = ()

    @property
    def evidence(self) -> str | None:
        """What others are drawn from, their run times and submissions; ``None`` where nothing is known of them."""
        count = len(self.snapshot.history)
        words = [f"{count:,} job{'s' if count > 1 else ''} that ended before"] if count else []
        words += [self.snapshot.limit_source or "limit_use of the snapshot"] if self.snapshot.limit_use else []
        coming = demand_words(self.demand, "node" if self.snapshot.procs is None else "processor")
        words += [f"others submit in the next day {coming}"] if coming else []
        return "; ".join(words) or None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        queue = self.snapshot
        return {
            "source": queue.source,
            "now": queue.now_s,
            "running": len(queue.running),
            "pending": len(queue.pending),
            "history": len(queue.history),
            "calibrated_on": self.backtests,
            "evidence": self.evidence,
            "sizes": [size.as_dict() for size in self.sizes],
            "demand": [one.as_dict() for one in self.demand],
            "notes": [*self.notes],
        }


def answer(
    snapshot: QueueSnapshot,
    targets: Sequence[QueueJob],
    *,
    samples: int = SAMPLES,
    backtests: int = BACKTESTS,
    demand_days: int = 1,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
) -> Answer:
    """Return when each target would start if it were submitted now.

    Args:
        snapshot: the queue and its history.
        targets: jobs, each for itself.
        samples: futures that are drawn.
        backtests: past submissions to correct by, at most; 0 for none.
        demand_days: days of the demand to tell of.
        seed: of the random numbers.
        each: called after each past submission.

    Raises:
        InputError: a target can never start.
    """
    forecaster = Forecaster(snapshot.history, snapshot.jobs, seed=seed, limit_use=snapshot.limit_use)
    forecasts = forecaster.forecast(snapshot, targets, samples=samples)
    surprising = any(one.waits_s[-1] > 0 for one in forecasts)
    calibration = calibrate(snapshot, backtests, seed=seed, each=each) if surprising and backtests else Calibration()
    sizes = tuple(SizeAnswer(one.target, calibration.quantiles_s(one), one, snapshot.now_s) for one in forecasts)
    used = len(calibration.misses) if calibration.used else 0
    demand = predict_demand(forecaster.arrivals, snapshot.now_s, demand_days, seed=seed)
    notes = [
        *_notes(snapshot, calibration, surprising and backtests > 0), *demand_reasons(forecaster.arrivals, demand)
    ]  # fmt: skip
    return Answer(snapshot, sizes, used, tuple(notes), demand)


def calibrate(
    snapshot: QueueSnapshot, backtests: int = BACKTESTS, *, seed: int = 0, each: Callable[[], None] = lambda: None
) -> Calibration:
    """Forecast past submissions, most of them of jobs that waited, and return how far off that was."""
    samples = _SAMPLES_OF_ONE
    if snapshot.procs is None:
        backtests, samples = min(backtests, _ON_NODES[0]), _ON_NODES[1]
    past = sorted(snapshot.history, key=lambda job: job.submit_s)
    live = [job for job in snapshot.running if job.submit_s < snapshot.now_s]
    waited = [number for number, job in enumerate(past) if job.start_s is not None and job.start_s > job.submit_s]
    first = len(past) // 10  # the earliest meet an empty machine, as what ran then is not in the history
    waited = [number for number in waited if number >= first]
    kept = set(waited[:: max(1, -(-len(waited) // backtests))]) if waited else set()
    if not kept:
        return Calibration()
    empty = snapshot.model_copy(update={"jobs": (), "history": (), "reservations": ()})
    still = [job.model_copy(update={"end_s": snapshot.now_s + 1}) for job in live]
    order = {job.label: number for number, job in enumerate(sorted((*past, *still), key=lambda job: job.submit_s))}
    chosen = {order[past[number].label] for number in kept}
    _, calibration = backtest([*past, *still], empty, chosen.__contains__, samples=samples, seed=seed, each=each)
    return calibration


def from_history_alone(
    snapshot: QueueSnapshot, targets: Sequence[QueueJob], *, samples: int = SAMPLES, seed: int = 0
) -> list[WaitForecast]:
    """Return the waits of each target at ordinary moments of a history, where the present queue is not known."""
    past = sorted(snapshot.history, key=lambda job: job.submit_s)
    first = len(past) // 5
    span = len(past) - first
    count = min(_MOMENTS, span, samples)
    chosen = {first + number * span // count for number in range(count)}
    empty = snapshot.model_copy(update={"jobs": (), "history": (), "reservations": ()})
    forecaster = Forecaster(seed=seed)
    waits: list[list[np.ndarray[Any, np.dtype[np.int64]]]] = [[] for _ in targets]
    each = max(1, samples // max(1, len(chosen)))
    seen = moments(past, empty, chosen.__contains__, ended=forecaster.runtimes.add, submitted=forecaster.arrivals.add)
    for moment in seen:
        for found, one in zip(waits, forecaster.forecast(moment.snapshot, targets, samples=each), strict=True):
            found.append(one.waits_s[:: max(1, len(one.waits_s) // each)])
    return [
        WaitForecast(target, np.sort(np.concatenate(found)) if found else np.zeros(1, dtype=np.int64))
        for target, found in zip(targets, waits, strict=True)
    ]


def _notes(snapshot: QueueSnapshot, calibration: Calibration, wanted: bool) -> list[str]:
    said = []
    if not snapshot.history:
        source = (
            f"jobs use their limits as {snapshot.limit_source or 'given'} says"
            if snapshot.limit_use
            else ("run times are taken to lie anywhere up to their limits")
        )
        said.append(f"no history: {source}")
    if wanted and not calibration.used:
        said.append(
            f"the intervals are not corrected: the history has {len(calibration.misses)} jobs that waited to check "
            "forecasts against, and 20 are needed"
        )
    if snapshot.left_out:
        said.append(f"{snapshot.left_out:,} jobs that are held, or wait for others, are left out")
    return said
