"""How long jobs run, as a share of their time limits: what users' finished jobs say of those that run and wait.

People ask for more time than they need, each in their own way, and repeat themselves (Tsafrir, Etsion & Feitelson,
*Backfilling Using System-Generated Predictions Rather than User Runtime Estimates*, IEEE TPDS 18(6), 2007). So the
share of its limit that a job uses is drawn from what came before, at the most telling level that knows enough: jobs of
the same user, name, size and limit; of the user and name; of the user and limit; of that name and about that size,
whoever's they are; of the user; of all; and failing that anything between nothing and all. Level by level, a history of
weight *n* is believed with n / (n + k), and the rest is passed on (the predictive rule of a hierarchical Dirichlet
process: Teh et al., JASA 101(476), 2006).

Jobs of one user are not independent: a batch of a hundred like jobs ends soon or late together. So jobs are drawn one
after another, and each may repeat what was drawn for another live job (Pólya's urn: Blackwell & MacQueen, Ann. Stat.
1(2), 1973). Running jobs, which are drawn first and longest-running first, are known to last longer than they have
lasted; through the urn that also tells about the jobs of theirs that still wait.

Few jobs run exactly as long as another one: what is drawn is blurred by as much as it is from the nearest other share
that its level knows (a variable kernel: Breiman, Meisel & Purcell, Technometrics 19(2), 1977), within limits, but
where jobs use up their limits. How much, and how far levels are believed, was chosen by the continuous ranked
probability score (Gneiting & Raftery, JASA 102, 2007) and by how often intervals hold, on traces and the mock cluster.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.schedule.forecast.snapshot import QueueJob

__all__ = ["RunTimes"]

# Per level: how much history it takes to be believed half, how many of the newest jobs count, and how fast they age.
_BELIEF: Final = (3.5, 5.0, 7.0, 14.0, 14.0, 14.0)
_NEWEST: Final = (8, 10, 12, 60, 30, 200)
_AGEING: Final = (0.85, 0.85, 0.85, 1.0, 0.85, 1.0)
_URN: Final = (True, True, True, False, True, False)  # whether live jobs count: like jobs of one user end alike
_LIVE_WEIGHT: Final = 2.0  # of a live job in the urn, beside 1 for the newest finished one
_BASE: Final = np.arange(1, 11) / 10  # what is drawn from where nothing is known
_BLUR: Final = 0.3  # of the logarithm of a share of the limit, at most
_DIGITS: Final = re.compile(r"\d+")


class RunTimes:
    """The finished jobs of a site, in the order of their ends."""

    def __init__(self, usual: Mapping[str, Sequence[float]] | None = None) -> None:
        """Begin with nothing seen; ``usual`` are shares of the limit by partition that are known from elsewhere.

        A partition without any of its own has those of all partitions together.
        """
        self._usual = {name: np.array(shares) for name, shares in (usual or {}).items()}
        self._base = np.concatenate([*self._usual.values()]) if self._usual else _BASE
        self._levels: list[dict[Hashable, list[float]]] = [{} for _ in _BELIEF]
        self.count = 0

    def add(self, job: QueueJob) -> None:
        """Take note of a job that ran; one that did not, or has not ended, tells nothing."""
        if job.start_s is None or job.end_s is None:
            return
        self.count += 1
        ratio = min(1.0, max(0, job.end_s - job.start_s) / job.limit_s)
        for level, key, newest in zip(self._levels, _keys(job), _NEWEST, strict=True):
            if key is not None:
                known = level.setdefault(key, [])
                known.append(ratio)
                if len(known) > 2 * newest:
                    del known[:-newest]

    def draw(
        self, jobs: Sequence[QueueJob], now_s: int, samples: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return run times in seconds, one row a job and one column a sample.

        Those of running jobs are longer than they have run by ``now_s``, except where that is past their limit.
        """
        live: list[dict[Hashable, list[NDArray[np.float64]]]] = [{} for _ in _BELIEF]
        found = np.empty((len(jobs), samples), dtype=np.int64)
        gone = [0 if job.start_s is None else max(0, now_s - job.start_s) for job in jobs]
        for position in sorted(range(len(jobs)), key=lambda i: -gone[i] / jobs[i].limit_s):
            job, lasted = jobs[position], gone[position] / jobs[position].limit_s
            keys = _keys(job)
            ratio = self._ratios(keys, self._usual.get(job.partition or "", self._base), live, lasted, samples, random)
            for level, key, shared in zip(live, keys, _URN, strict=True):
                if key is not None and shared:
                    level.setdefault(key, []).append(ratio)
            least = gone[position] + 1 if job.start_s is not None else 1
            found[position] = np.maximum(least, np.rint(ratio * job.limit_s))
        return found

    def _ratios(
        self,
        keys: Sequence[Hashable],
        base: NDArray[np.float64],
        live: Sequence[dict[Hashable, list[NDArray[np.float64]]]],
        lasted: float,
        samples: int,
        random: np.random.Generator,
    ) -> NDArray[np.float64]:
        values: list[NDArray[np.float64]] = []
        weights: list[NDArray[np.float64]] = []
        blurs: list[NDArray[np.float64]] = []
        left = 1.0
        for number, key in enumerate(keys):
            if key is None:
                continue
            past = self._levels[number].get(key, [])[-_NEWEST[number] :]
            others = live[number].get(key, [])[-_NEWEST[number] :]
            if not past and not others:
                continue
            aged = _AGEING[number] ** np.arange(len(past))[::-1]
            weight = np.concatenate([aged, np.full(len(others), _LIVE_WEIGHT)])
            total = float(weight.sum())
            share = left * total / (total + _BELIEF[number])
            left -= share
            weights.append(weight * (share / total))
            shares = np.array(past)
            values.append(np.broadcast_to(shares[:, None], (len(past), samples)))
            values += [other[None, :] for other in others]
            blurs += [_blurs(shares), np.full(len(others), _BLUR if not past else 0.0)]
        values.append(np.broadcast_to(base[:, None], (len(base), samples)))
        weights.append(np.full(len(base), left / len(base)))
        blurs.append(np.zeros(len(base)))
        return _pick(np.concatenate(values), np.concatenate(weights), np.concatenate(blurs), lasted, samples, random)


def _pick(
    values: NDArray[np.float64], weights: NDArray[np.float64], blurs: NDArray[np.float64], lasted: float, samples: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Return one value of each column by weight, blurred, among those above ``lasted``."""
    columns = np.arange(samples)
    if lasted <= 0:
        summed = weights.cumsum()
        picked = np.searchsorted(summed, random.random(samples) * summed[-1], side="right")
        picked = np.minimum(picked, len(weights) - 1)
        return _blurred(values[picked, columns], blurs[picked], random)
    values = _blurred(values, blurs[:, None], random)
    left = ((values > lasted) * weights[:, None]).cumsum(axis=0)
    total = left[-1]
    picked = np.minimum((left <= random.random(samples) * total).sum(axis=0), len(weights) - 1)
    uniform = lasted + max(0.0, 1.0 - lasted) * random.random(samples)  # it has outlasted all that is known
    return np.where(total > 0, values[picked, columns], uniform)


def _blurs(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each share is from the nearest other one, of their logarithms, at most :data:`_BLUR`."""
    found = np.full(len(shares), _BLUR)
    if len(shares) > 1:
        order = np.argsort(shares)
        gaps = np.diff(np.log(np.maximum(shares[order], 1e-9)))
        nearest = np.minimum(np.append(gaps, np.inf), np.append(np.inf, gaps))
        found[order] = np.minimum(_BLUR, nearest)
    return found


def _blurred(
    values: NDArray[np.float64], blurs: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return shares of the limit a little off; those that are all of it stay so."""
    moved = np.minimum(1.0, values * np.exp(blurs * random.standard_normal(values.shape)))
    blurred: NDArray[np.float64] = np.where(values < 1.0, moved, values)
    return blurred


def _keys(job: QueueJob) -> tuple[Hashable, ...]:
    """Return what the levels know a job by; ``None`` where it does not say."""
    name = _DIGITS.sub("#", job.name) if job.name else None
    alike = None if name is None else (name, job.width.bit_length())
    if job.user is None:
        return (None, None, None, alike, None, "all")
    return (
        (job.user, name, job.width, job.limit_s),
        None if name is None else (job.user, name),
        (job.user, job.limit_s),
        alike,
        job.user,
        "all",
    )
