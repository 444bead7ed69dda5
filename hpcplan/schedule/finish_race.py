"""Racing: few futures for all ways to ask, more for those that could still be the best.

All go through the same futures (common random numbers), so that what is compared is the way to ask and not the luck.
After each round, those are dropped that the futures so far show to be worse than the leader: on the logarithms of the
times to the end, by a paired *t*-test at one per cent (Hoeffding races: Maron & Moore, NIPS 1993; with paired tests:
Birattari et al., GECCO 2002). What was dropped is told as far as it was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np

from hpcplan.schedule.finish_option import Candidate
from hpcplan.schedule.finish_queue import KnownQueue
from hpcplan.schedule.workers import Workers

__all__ = ["Criterion", "Race", "level_of"]

Criterion = Literal["p50", "p90", "cost"]
_SURE: Final = 0.01  # how often a way to ask may be dropped that is as good as the leader
_SPREAD: Final = 1.2  # by P90, what is not later than the leader by more than this at the middle stays in
_ENOUGH: Final = 16  # ways that tell whether a deadline is kept
_CAP: Final = 2.5  # times the leader's P90: nobody who chooses wants to know more of what takes longer


def level_of(criterion: Criterion) -> float:
    """Return the share of futures within which the criterion wants to be done."""
    return 0.5 if criterion == "p50" else 0.9


class Race:
    """Ways to ask, and how far each has come."""

    def __init__(
        self, known: KnownQueue, criterion: Criterion, deadline_s: float | None, workers: Workers[KnownQueue],
        each: Callable[[], None],
    ) -> None:  # fmt: skip
        self.candidates: list[Candidate] = []
        self.running: list[Candidate] = []
        self.leading: Candidate | None = None  # after the last round
        self.done = 0  # ways gone through
        self._known = known
        self._criterion = criterion
        self._deadline_s = deadline_s
        self._workers = workers
        self._each = each

    @property
    def leader(self) -> Candidate | None:
        """The way to ask that looks best so far."""
        level = level_of(self._criterion)
        return min(self.running, key=lambda one: (self._order(one), one.quantile_s(level), one.nodes), default=None)

    def _order(self, one: Candidate) -> tuple[bool, float]:
        late = self._deadline_s is not None and one.quantile_s(0.9) > self._deadline_s
        return late, (one.cost() or 0.0) if self._criterion == "cost" else 0.0

    def cap_s(self) -> float:
        """Return how far from now, in seconds, a future is worth following."""
        leader = self.leader
        if leader is None or self._criterion == "cost":
            return math.inf
        return max(_CAP * leader.quantile_s(0.9), self._deadline_s or 0.0)

    def worth_looking_at_s(self, hopeless: float) -> float:
        """Return the time to train beyond which a size cannot be chosen, nor tell anybody much, in seconds."""
        if self._criterion == "cost":
            return math.inf if self._deadline_s is None else self._deadline_s
        return hopeless * min((one.quantile_s(0.5) for one in self.candidates), default=math.inf)

    def enter(self, one: Candidate) -> None:
        """Take one more way to ask through the futures of the first round."""
        one.cap_s = self.cap_s()
        self._run([one], self._known.rounds[0])
        self.candidates.append(one)
        self.running.append(one)

    def go_on(self) -> None:
        """Go through the other rounds, dropping what cannot win; the last is for whoever leads, and still does then."""
        self.drop()
        *middle, last = self._known.rounds[1:]
        for count in middle:
            self._run(self.running, count)
            self.drop()
        while (leader := self.leader) is not None and len(leader.ways) < last:
            self._run([leader], last)

    def _run(self, those: Sequence[Candidate], count: int) -> None:
        pieces: list[tuple[Any, ...]] = []
        owners = []
        for number in range(count):
            for one in those:
                if number >= len(one.ways):
                    pieces.append((one.entrant, number, one.cap_s))
                    owners.append(one)
        for one, (way, first_s) in zip(owners, self._workers.each(KnownQueue.way, pieces), strict=True):
            one.ways.append(way)
            one.firsts_s.append(first_s)
            self.done += 1
            self._each()
        self.leading = self.leader

    def drop(self) -> None:
        """Leave those behind that are surely worse than the leader."""
        leader = self.leader
        if leader is None or len(leader.ways) < 3:
            return
        self.running = [one for one in self.running if one is leader or not self._hopeless(one, leader)]

    def _hopeless(self, one: Candidate, leader: Candidate) -> bool:
        if self._deadline_s is not None and _keeps(leader, self._deadline_s) and _misses(one, self._deadline_s):
            return True
        if self._criterion == "cost":
            if self._deadline_s is not None and not _keeps(leader, self._deadline_s):
                return False
            mine, best = one.cost(), leader.cost()
            return mine is not None and best is not None and len(one.ways) >= _ENOUGH and mine > 1.05 * best
        ahead = math.log(_SPREAD) if self._criterion == "p90" else 0.0
        return _later(one.finish_s(), leader.finish_s(), ahead, one.cap_s)


def _keeps(one: Candidate, deadline_s: float) -> bool:
    """Whether enough ways show a way to ask to be done in time nine times in ten."""
    return len(one.ways) >= _ENOUGH and one.quantile_s(0.9) <= deadline_s


def _misses(one: Candidate, deadline_s: float) -> bool:
    """Whether more ways are late than nine in ten in time would give in one of a hundred cases."""
    from scipy.stats import binom

    late = int((one.finish_s() > deadline_s).sum())
    return bool(binom.sf(late - 1, len(one.ways), 0.1) < _SURE)


def _later(mine_s: np.ndarray[Any, Any], best_s: np.ndarray[Any, Any], ahead: float, cap_s: float) -> bool:
    """Whether the paired test shows the one to be done later, by more than ``ahead`` on the logarithm."""
    from scipy.stats import t

    count = min(len(mine_s), len(best_s))
    mine, best = mine_s[:count], best_s[:count]
    if not np.isfinite(best).all():
        return False
    mine = np.minimum(mine, cap_s)  # not followed further: at least so late
    if not np.isfinite(mine).all():
        return not np.isfinite(mine).any()
    gaps = np.log(mine / best)
    spread = float(gaps.std(ddof=1)) / math.sqrt(count)
    return bool(gaps.mean() - t.ppf(1 - _SURE, count - 1) * spread > ahead)
