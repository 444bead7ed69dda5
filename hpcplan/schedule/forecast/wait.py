"""When a job will start: a forward Monte Carlo over run times and arrivals, through the scheduler's own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from hpcplan.schedule.forecast.arrivals import Arrivals, submissions
from hpcplan.schedule.forecast.cluster import ClusterFuture
from hpcplan.schedule.forecast.pool import Coming, PoolFuture
from hpcplan.schedule.forecast.runtimes import RunTimes
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SAMPLES", "Course", "Forecaster", "Future", "WaitForecast", "future_of", "run_like"]

SAMPLES: Final = 200
_FARTHEST_S: Final = 14 * 86400  # arrivals are looked at this far ahead
_MOST_WORK: Final = 200_000  # jobs looked at in all samples of one forecast: long queues get fewer samples
_FEWEST: Final = 40


class Course(Protocol):
    """One future in which jobs of one's own are submitted one after another."""

    def wait_s(self, submit_s: int, held_s: int, until_s: int | None = None) -> int:
        """Return how long a job waits that is submitted at ``submit_s`` (unix) and then holds nodes ``held_s``.

        It is submitted when the one before has ended, or later. One that has not started by ``until_s`` (unix) need not
        be followed further: it waits :data:`NEVER_S`.
        """
        ...


class Future(Protocol):
    """What happens next on a pool or a cluster; see :class:`~hpcplan.schedule.forecast.pool.PoolFuture`."""

    now_s: int
    live: tuple[QueueJob, ...]
    effort: int  # of a job in a sample, beside 1 of the fastest
    most_arrivals: int  # in a sample that are worth their effort

    def certain(self, target: QueueJob) -> int | None:
        """Return the start, if it does not depend on chance."""
        ...

    def check(self, target: QueueJob) -> None:
        """Refuse a job that can never start."""
        ...

    def start_of(self, target: QueueJob, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> int:
        """Return when the target starts (unix seconds)."""
        ...

    def course(self, target: QueueJob, runs_s: Sequence[int], arrivals: Iterable[Coming]) -> Course:
        """Return a future in which jobs like the target are submitted one after another.

        ``arrivals`` may be without end: they are taken as far as time goes on.
        """
        ...

    def starts(self, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> list[int | None]:
        """Return when each waiting job, and then each arrival, starts (unix seconds); ``None`` if it never does."""
        ...


@dataclass(frozen=True, slots=True)
class WaitForecast:
    """The waits of one job, in seconds from now, sorted; one a sample."""

    target: QueueJob
    waits_s: NDArray[np.int64]

    def quantile_s(self, share: float) -> float:
        """Return the wait that ``share`` of the samples stay within."""
        return float(np.quantile(self.waits_s, share))


def future_of(snapshot: QueueSnapshot) -> Future:
    """Return how the queue of a snapshot goes on."""
    return PoolFuture(snapshot) if snapshot.procs is not None else ClusterFuture(snapshot)


class Forecaster:
    """Forecasts from one site's past: its finished jobs and its submissions."""

    def __init__(
        self,
        history: Sequence[QueueJob] = (),
        live: Sequence[QueueJob] = (),
        *,
        seed: int = 0,
        limit_use: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Learn from what has ended; ``live`` are the jobs that run and wait, which were submitted too."""
        self.seed = seed
        self.runtimes = RunTimes(limit_use)
        for job in sorted(history, key=lambda job: job.end_s or 0):
            self.runtimes.add(job)
        self.arrivals = Arrivals(submissions(history, live))

    def forecast(
        self, snapshot: QueueSnapshot, targets: Sequence[QueueJob], *, samples: int = SAMPLES
    ) -> list[WaitForecast]:
        """Return the wait of each target if it were submitted now, alone; all see the same samples of the future.

        Raises:
            InputError: a target can never start.
        """
        future = future_of(snapshot)
        for target in targets:
            future.check(target)
        certain = [future.certain(target) for target in targets]
        if all(start is not None for start in certain):
            return [WaitForecast(one, np.zeros(samples, dtype=np.int64)) for one in targets]
        work = future.effort * (len(future.live) + future.most_arrivals // 4)
        count = max(min(samples, _FEWEST), min(samples, _MOST_WORK // work))
        draws = self.futures(future, count, self._horizon_s(future, targets))
        found = []
        for target, start in zip(targets, certain, strict=True):
            starts = [start if start is not None else future.start_of(target, *draw) for draw in draws]
            found.append(WaitForecast(target, np.sort(np.array(starts, dtype=np.int64) - future.now_s)))
        return found

    def futures(
        self, future: Future, count: int, horizon_s: int, most: int | None = None
    ) -> list[tuple[list[int], list[Coming]]]:
        """Return ``count`` draws: how long each live job runs, and what others will submit, both in seconds."""
        most = future.most_arrivals if most is None else most
        random = np.random.default_rng((self.seed, future.now_s % 2**32))
        runs = self.runtimes.draw(future.live, future.now_s, count, random)
        position = {job.label: index for index, job in enumerate(future.live)}
        drawn = []
        for sample in range(count):
            runs_s = runs[:, sample].tolist()
            coming = [
                (time, job, run_like(job, future.now_s, position, runs_s, random))
                for time, job in self.arrivals.future(future.now_s, horizon_s, random, most)
            ]
            drawn.append((runs_s, coming))
        return drawn

    def runs_s(self, future: Future, count: int) -> list[list[int]]:
        """Return ``count`` draws of how long each live job runs, in seconds."""
        random = np.random.default_rng((self.seed, future.now_s % 2**32))
        found: list[list[int]] = self.runtimes.draw(future.live, future.now_s, count, random).T.tolist()
        return found

    def coming(self, future: Future, number: int, runs_s: Sequence[int], reach_s: int, most: int) -> Iterator[Coming]:
        """Yield what others will submit in future ``number``, in order, as far as it is asked for.

        The same number gives the same, whatever else is drawn. It ends ``reach_s`` from now, or after ``most`` jobs.
        """
        random = np.random.default_rng((self.seed, future.now_s % 2**32, number))
        position = {job.label: index for index, job in enumerate(future.live)}
        left = most
        for stretch in self.arrivals.stretches(future.now_s, random, horizon_s=reach_s):
            for time, job in stretch[:left]:
                yield time, job, run_like(job, future.now_s, position, runs_s, random)
            left -= len(stretch)
            if left <= 0:
                return

    def _horizon_s(self, future: Future, targets: Sequence[QueueJob]) -> int:
        """Return until when arrivals matter: about when the last target would start if jobs used up their limits."""
        limits = [job.limit_s for job in future.live]
        last = max(future.start_of(target, limits, ()) for target in targets)
        return min(_FARTHEST_S, last - future.now_s)


def run_like(
    job: QueueJob, now_s: int, position: dict[str, int], runs_s: Sequence[int], random: np.random.Generator
) -> int:
    """Return how long a job like a past one runs: as that did; as it was drawn, where that still runs or waits."""
    if job.start_s is not None and job.end_s is not None and job.end_s <= now_s:
        return max(1, job.end_s - job.start_s)
    if job.label in position:
        return runs_s[position[job.label]]
    return max(1, int(random.random() * job.limit_s))
