"""How long the jobs of a chain wait, one after another, in futures of the queue.

The waits of one chain belong together: a queue that is long now is long tomorrow. So a chain is run through one future
of the queue, in which its jobs are submitted as those before them end, as far as that future reaches; what is submitted
later waits as the later jobs of the chain did in the same future. A future has a number: whatever chain goes through it
meets the same run times and the same submissions of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.schedule.finish import Wait
from hpcplan.schedule.forecast.pool import NEVER_S, Coming
from hpcplan.schedule.forecast.wait import Course, Forecaster, future_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot

__all__ = ["ChainWaits", "drawn_waits"]

_REACH_S: Final = 30 * 86400  # a future of the queue is drawn this far,
_MOST_ARRIVALS: Final = 12_000  # or until so many jobs have come
_KEPT: Final = 8


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
    """Futures of one queue, each ready to be gone through by chains of any size."""

    def __init__(
        self, snapshot: QueueSnapshot, forecaster: Forecaster, *, futures: int, reach_s: int = _REACH_S
    ) -> None:
        self._future = future_of(snapshot)
        self._forecaster = forecaster
        self._reach_s = reach_s if forecaster.arrivals.known else 0  # else nothing is known of later moments
        self._runs_s = forecaster.runs_s(self._future, futures)
        self._drawn: dict[int, list[Coming]] = {}  # of the last few futures: the next chain goes through the same
        self.count = futures

    def check(self, target: QueueJob) -> None:
        """Refuse a job that can never start.

        Raises:
            InputError: with the reason.
        """
        self._future.check(target)

    def wait_in(
        self, number: int, target: QueueJob, random: np.random.Generator, *, cap_s: float = math.inf
    ) -> Wait:  # fmt: skip
        """Return the waits of one chain in future ``number``.

        A job that has not started ``cap_s`` from now waits for ever, as one does that never starts.
        """
        number %= self.count
        coming, now_s = self._coming(number), self._future.now_s
        reach_s = coming[-1][0] - now_s if len(coming) >= _MOST_ARRIVALS else self._reach_s
        course: Course = self._future.course(target, self._runs_s[number], coming)
        until_s = now_s + math.ceil(min(cap_s, NEVER_S))
        seen: list[float] = []

        def wait(submit_s: float, held_s: float) -> float:
            if submit_s > reach_s and seen:
                among = seen[1:] or seen
                return among[int(random.integers(len(among)))]
            found = course.wait_s(now_s + round(submit_s), max(1, round(held_s)), until_s)
            if found >= NEVER_S:
                return math.inf
            seen.append(float(found))
            return float(found)

        return wait

    def _coming(self, number: int) -> list[Coming]:
        """Return what others submit in a future, as far as it reaches."""
        found = self._drawn.get(number)
        if found is None:
            runs_s = self._runs_s[number]
            found = [*self._forecaster.coming(self._future, number, runs_s, self._reach_s, _MOST_ARRIVALS)]
            if len(self._drawn) >= _KEPT:
                self._drawn.pop(next(iter(self._drawn)))
            self._drawn[number] = found
        return found
