"""When a training will be done: its chain of jobs simulated with waits, checkpoints, failures and restarts.

A job waits, starts up, and trains with a checkpoint every so many steps. If a node fails, or the job is preempted, what
was trained since the last checkpoint is lost, and the job waits again; it then has its whole time limit again. At the
end of its segment, or when its limit draws near, it saves and ends, and the next one waits. Failures are a Poisson
process: the rate of a job is that of a node times its nodes, as in Daly, *A higher order estimate of the optimum
checkpoint interval for restart dumps*, FGCS 22(3), 2006.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.plan import Segment
from hpcplan.schedule.segments import STARTUP_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["REQUEUE_S", "Chain", "Finish", "Wait", "Way", "one_way", "simulate_chain"]

REQUEUE_S: Final = 121  # before a requeued job may start again: Slurm 22.05's credential life time and a second
_NINETY: Final = 1.6449  # standard deviations that hold 90 % of a normal distribution
_MOST_ATTEMPTS: Final = 2000  # of one chain: beyond, it will not be done


Wait = Callable[[float, float], float]  # of a job submitted so long from now, which then holds nodes so long (s)
Way = tuple[float, float, float, float, float]  # finish, waited, held, lost (all in seconds), and attempts


@dataclass(frozen=True, slots=True)
class Chain:
    """What is simulated: the jobs, and what befalls them.

    Args of time are seconds. ``step_high_s`` is the upper end of the 90 % interval of ``step_s``, taken as log-normal;
    ``failure_rate_per_s`` is of the whole job, as is ``preemption_rate_per_s``.
    """

    segments: tuple[Segment, ...]
    step_s: float
    step_high_s: float
    steps_between_checkpoints: int
    write_s: float
    failure_rate_per_s: float = 0.0
    preemption_rate_per_s: float = 0.0
    startup_s: float = STARTUP_S


@dataclass(frozen=True, slots=True)
class Finish:
    """One value a sample: seconds from now to the end, of waiting, of holding nodes, and of work lost; attempts.

    A chain that will never be done (its jobs fail faster than they save), or that was not followed beyond ``cap_s``
    from now, ends at infinity.
    """

    finish_s: NDArray[np.float64]
    waited_s: NDArray[np.float64]
    held_s: NDArray[np.float64]
    lost_s: NDArray[np.float64]
    attempts: NDArray[np.int64]
    cap_s: float = math.inf

    @classmethod
    def of(cls, ways: Sequence[Way], cap_s: float = math.inf) -> Finish:
        """Return what so many ways come to."""
        columns = np.array(ways, dtype=float).reshape(len(ways), 5).T
        return cls(columns[0], columns[1], columns[2], columns[3], columns[4].astype(np.int64), cap_s)

    def quantile_s(self, share: float) -> float:
        """Return the time within which ``share`` of the samples are done."""
        return float(np.quantile(self.finish_s, share, method="inverted_cdf"))

    def later_than(self, other: Finish) -> float:
        """Return by which share this is done later than another, the median over the futures that both went through.

        Quantiles of few and of many futures do not compare: the first ones may have been kind to all.
        """
        both = min(len(self.finish_s), len(other.finish_s))
        reached = np.isfinite(other.finish_s[:both])
        gaps = self.finish_s[:both][reached] / other.finish_s[:both][reached] - 1.0
        return float(np.quantile(gaps, 0.5, method="inverted_cdf")) if len(gaps) else math.nan


def simulate_chain(
    chain: Chain,
    waits: Callable[[int], Wait],
    *,
    samples: int,
    random: np.random.Generator,
) -> Finish:
    """Return how a chain goes, ``samples`` times.

    Args:
        chain: the jobs.
        waits: for the number of a sample, how long its jobs wait.
        samples: how often.
        random: where chance comes from.
    """
    return Finish.of([one_way(chain, waits(sample), random) for sample in range(samples)])


def one_way(chain: Chain, wait: Wait, random: np.random.Generator, *, cap_s: float = math.inf) -> Way:
    """Return one way in which a chain may go. One that is not done ``cap_s`` from now is not followed further."""
    sigma = math.log(max(1.0, chain.step_high_s / chain.step_s)) / _NINETY
    step_s = math.exp(sigma * random.standard_normal()) * chain.step_s
    rate = chain.failure_rate_per_s + chain.preemption_rate_per_s
    total = chain.segments[-1].last_step
    position, done = 0, chain.segments[0].first_step - 1
    time = waited = held = lost = 0.0
    attempts = 0
    while done < total:
        if attempts == _MOST_ATTEMPTS or time > cap_s:
            return math.inf, waited, held, lost, attempts
        segment = chain.segments[min(position, len(chain.segments) - 1)]
        goal = segment.last_step if position < len(chain.segments) else total
        attempts += 1
        usable_s = segment.time_limit_s - segment.warning_s - chain.startup_s
        steps = min(goal - done, _steps_within(chain, step_s, usable_s))
        runs_s = chain.startup_s + _duration_s(chain, step_s, steps)
        fails_s = random.exponential(1 / rate) if rate > 0 else math.inf
        wait_s = wait(time, min(runs_s, fails_s))
        if not math.isfinite(wait_s):
            return math.inf, waited, held, lost, attempts
        time += wait_s
        waited += wait_s
        if fails_s < runs_s:
            saved = min(steps, _saved(chain, step_s, fails_s - chain.startup_s))
            lost += fails_s - _duration_s(chain, step_s, saved)
            done += saved
            time += fails_s + REQUEUE_S
            held += fails_s
            continue
        done += steps
        time += runs_s
        held += runs_s
        if steps == 0:
            return math.inf, waited, held, lost, attempts
        position += 1
    return time, waited, held, lost, attempts


def _cycle_s(chain: Chain, step_s: float) -> float:
    return chain.steps_between_checkpoints * step_s + chain.write_s


def _duration_s(chain: Chain, step_s: float, steps: int) -> float:
    """Return how long so many steps take: with their checkpoints, and the one at the end."""
    if not steps:
        return 0.0
    return steps * step_s + math.ceil(steps / chain.steps_between_checkpoints) * chain.write_s


def _saved(chain: Chain, step_s: float, trained_s: float) -> int:
    """Return the steps that a checkpoint holds after so long."""
    return max(0, math.floor(trained_s / _cycle_s(chain, step_s))) * chain.steps_between_checkpoints


def _steps_within(chain: Chain, step_s: float, usable_s: float) -> int:
    """Return the steps that are done, with their checkpoints, before the job is told to save and stop."""
    cycles, rest_s = divmod(max(0.0, usable_s), _cycle_s(chain, step_s))
    return int(cycles) * chain.steps_between_checkpoints + min(
        chain.steps_between_checkpoints, math.floor(rest_s / step_s)
    )
