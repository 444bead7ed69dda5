"""Made-up traces after the workload model of Lublin and Feitelson.

Lublin & Feitelson, *The Workload on Parallel Supercomputers: Modeling the Characteristics of Rigid Jobs*, Journal of
Parallel and Distributed Computing 63(11), 2003: sizes are serial, powers of two or any, their logarithm two-stage
uniform; the logarithm of run times is hyper-gamma, longer for wider jobs; the logarithm of the time between arrivals is
gamma, under a daily cycle. The constants are those of the authors' own program (``m_lublin99.c``, 1999, Parallel
Workloads Archive) where it makes no distinction between batch and interactive jobs. The paper has no model of time
limits: here people ask for a round time above what they need (after Tsafrir, Etsion & Feitelson, *Modeling User Runtime
Estimates*, JSSPP 2005).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from typing import Final

from hpcplan.errors import InputError
from hpcplan.simulate.traces import Trace, TraceJob

__all__ = ["lublin"]

_SERIAL, _POWER_OF_TWO = 0.244, 0.576
_LOW, _LOW_SHARE, _MIDDLE_BELOW_TOP = 0.8, 0.86, 2.5
_SHORT: Final = (4.2, 0.94)  # shape and scale of the logarithm of run times: the first and the second gamma
_LONG: Final = (312.0, 0.03)
_SHORT_SHARE: Final = (-0.0054, 0.78)  # of the first, by nodes: slope and intercept
_ARRIVALS: Final = (10.2303, 0.4871)
_CYCLE: Final = (8.1737, 3.9631)
_RUSH_TO_MEAN: Final = 1.0225  # on the shape of the gaps of the rush, for gaps of the whole day
_CYCLE_BEGINS: Final = 11  # the cycle's first half hour, in half hours since midnight
_BUCKETS, _BUCKET_S = 48, 1800
_LONGEST, _LONGEST_GAP = 12.0, 13.0  # logarithms
_ROUND_S: Final = (300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 28800, 43200, 64800, 86400, 129600, 172800)


def lublin(jobs: int, procs: int, *, seed: int = 1, load: float | None = None) -> Trace:
    """Return a trace of so many jobs for a machine of ``procs`` processors; the same again for the same seed.

    With ``load`` the arrivals are stretched or pressed so that the jobs would use that share of all processors' time.

    Raises:
        InputError: fewer than one job or processor, or a load that is not above 0.
    """
    if jobs < 1 or procs < 1:
        raise InputError("a made-up trace needs one job and one processor at least")
    if load is not None and load <= 0:
        raise InputError("the load must be above 0: 0.8 is 80 % of all processors' time")
    draw = random.Random(f"lublin/{seed}")
    widths = [_width(draw, procs) for _ in range(jobs)]
    runs = [_run(draw, width) for width in widths]
    arrivals = _arrive(draw, jobs)
    if load is not None:
        work = sum(width * run for width, run in zip(widths, runs, strict=True))
        stretch = work / (procs * load) / max(1.0, arrivals[-1])
        arrivals = [moment * stretch for moment in arrivals]
    made = (
        TraceJob(number, int(moment), run, _limit(draw, run), width, user=f"user{int(30 * draw.random() ** 2) + 1:02d}")
        for number, (moment, run, width) in enumerate(zip(arrivals, runs, widths, strict=True), start=1)
    )
    return Trace(tuple(made), procs, 0)


def _width(draw: random.Random, procs: int) -> int:
    top = math.log2(procs)
    kind = draw.random()  # the shares are of all jobs, serial ones included
    if kind <= _SERIAL or procs == 1:
        return 1
    middle = max(_LOW, top - _MIDDLE_BELOW_TOP)
    low, high = (_LOW, middle) if draw.random() <= _LOW_SHARE else (middle, top)
    logarithm = draw.uniform(min(low, top), min(high, top))
    size = 2 ** round(logarithm) if kind <= _SERIAL + _POWER_OF_TWO else round(2**logarithm)
    return max(1, min(procs, size))


def _run(draw: random.Random, width: int) -> int:
    share = min(1.0, max(0.0, _SHORT_SHARE[0] * width + _SHORT_SHARE[1]))
    while True:
        logarithm = draw.gammavariate(*(_SHORT if draw.random() <= share else _LONG))
        if logarithm <= _LONGEST:
            return max(1, round(math.exp(logarithm)))


def _arrive(draw: random.Random, jobs: int) -> list[float]:
    """Return the moments: gaps are drawn as in the rush, and time passes through them as fast as the hour is busy."""
    weights = _weights()
    moment = 0.0
    found = []
    for _ in range(jobs):
        while (logarithm := draw.gammavariate(_ARRIVALS[0] * _RUSH_TO_MEAN, _ARRIVALS[1])) > _LONGEST_GAP:
            pass
        left = math.exp(logarithm)
        while left > 0:
            bucket = int(moment // _BUCKET_S)
            until = (bucket + 1) * _BUCKET_S - moment
            busy = weights[bucket % _BUCKETS]
            step = min(until, left / busy)
            moment += step if step > 0 else 1e-6
            left -= max(step, 1e-6) * busy
        found.append(moment)
    return found


def _weights() -> list[float]:
    """Return how busy each half hour of the day is, 1 on average: a gamma distribution over the cycle."""
    from scipy.stats import gamma

    weights = [0.0] * _BUCKETS
    for position in range(_CYCLE_BEGINS, _CYCLE_BEGINS + _BUCKETS):
        low, high = gamma.cdf([position - 0.5, position + 0.5], _CYCLE[0], scale=_CYCLE[1])
        weights[(position - 1) % _BUCKETS] = float(high - low)
    mean = sum(weights) / _BUCKETS
    return [max(1e-3, weight / mean) for weight in weights]


def _limit(draw: random.Random, run: int) -> int:
    """Return a round limit that the run does not break."""
    wished = run * (1 + draw.expovariate(0.5))
    position = bisect_left(_ROUND_S, wished)
    return _ROUND_S[position] if position < len(_ROUND_S) else -(-round(wished) // 86400) * 86400
