"""How long the jobs of a chain wait, one after another, in futures of the queue.

The waits of one chain belong together: a queue that is long now is long tomorrow. So a chain is run through one future
of the queue, in which its jobs are submitted as those before them end, as long as that future reaches; what is
submitted later waits as jobs did at ordinary moments of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.finish import Wait
from hpcplan.schedule.forecast.wait import Course, Forecaster, future_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot

__all__ = ["ChainWaits", "drawn_waits"]

_REACH_S: Final = 5 * 86400  # a future of the queue is drawn this far
_MOST_ARRIVALS: Final = (6000, 3000)  # in it, on a pool and on a cluster


def drawn_waits(
    first_s: NDArray[np.int64] | Sequence[float], later_s: NDArray[np.int64] | Sequence[float],
    random: np.random.Generator,
) -> Wait:  # fmt: skip
    """Return waits drawn each for itself: of a job submitted now, and of later ones."""

    def wait(submit_s: float, held_s: float) -> float:
        among = first_s if submit_s <= 0 else later_s
        return float(among[int(random.integers(len(among)))])

    return wait


class ChainWaits:
    """Futures of one queue, each ready to be gone through by a chain of one size once or more."""

    def __init__(
        self, snapshot: QueueSnapshot, forecaster: Forecaster, *, futures: int, reach_s: int = _REACH_S
    ) -> None:
        self._future = future_of(snapshot)
        self._reach_s = reach_s
        most = _MOST_ARRIVALS[snapshot.procs is None]
        self._draws = forecaster.futures(self._future, futures, reach_s, most)
        self.count = futures

    def check(self, target: QueueJob) -> None:
        """Refuse a job that can never start.

        Raises:
            InputError: with the reason.
        """
        self._future.check(target)

    def wait_in(
        self, number: int, target: QueueJob, later_s: NDArray[np.int64] | Sequence[float], random: np.random.Generator
    ) -> Wait:
        """Return the waits of one chain in future ``number``; beyond its reach they are drawn from ``later_s``."""
        course: Course = self._future.course(target, *self._draws[number % self.count])
        now_s = self._future.now_s

        def wait(submit_s: float, held_s: float) -> float:
            if submit_s > self._reach_s:
                return float(later_s[int(random.integers(len(later_s)))])
            return float(course.wait_s(now_s + round(submit_s), max(1, round(held_s))))

        return wait
