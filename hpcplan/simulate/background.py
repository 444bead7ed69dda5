"""The other users of a mock cluster: a seeded stream of jobs as an LLM cluster sees them.

The mix (many short small jobs, few long large ones), the round and generous time limits (after Tsafrir, Etsion &
Feitelson, *Modeling User Runtime Estimates*, JSSPP 2005), the daily and weekly rhythm and the shares of jobs that fail
are **assumed** for a plausible picture; they are fitted to no trace. Each job is drawn from its own number, so that a
stream can be saved as a number and a time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

from hpcplan.simulate.jobs import Arrival, Behaviour, JobSpec
from hpcplan.simulate.machine import Machine, PartitionShape
from hpcplan.slurm.records import JobState

__all__ = ["Background"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of job: its share of submissions, and what its jobs are like."""

    name: str
    share: float
    nodes: tuple[int, ...]
    median_s: float
    sigma: float
    gpu_utilisation: float
    timeouts: float
    failures: float


_KINDS: Final = (
    _Kind("debug", 0.40, (1,), 240, 1.3, 0.25, 0.03, 0.25),
    _Kind("evaluate", 0.34, (1, 1, 1, 2), 900, 1.0, 0.55, 0.03, 0.10),
    _Kind("notebook", 0.06, (1,), 7200, 0.8, 0.10, 0.25, 0.02),
    _Kind("finetune", 0.15, (1, 1, 2, 2, 4), 5400, 1.0, 0.75, 0.05, 0.15),
    _Kind("ablation", 0.042, (4, 8, 8, 16), 14400, 0.9, 0.85, 0.08, 0.20),
    _Kind("pretrain", 0.008, (16, 32, 32, 64, 128), 43200, 0.7, 0.92, 0.35, 0.25),
)
_KIND_WEIGHTS: Final = tuple(accumulate(kind.share for kind in _KINDS))
_LIMITS_S: Final = tuple(
    hours * 3600 for hours in (0.25, 0.5, 1, 2, 4, 6, 8, 12, 24, 48, 72, 120, 168)
)  # what people type
_USERS: Final = 24
_TEAMS: Final = ("language", "vision", "speech", "alignment", "infra")
_USER_WEIGHTS: Final = tuple(accumulate(1 / rank for rank in range(1, _USERS + 1)))  # a few users submit most
_DAY_S: Final = 86400
_SWING: Final = 0.6  # the afternoon has 1.6 times the mean rate, the small hours 0.4
_WEEKEND: Final = 0.6
_WEEK_MEAN: Final = (5 + 2 * _WEEKEND) / 7
_SAMPLE: Final = 600
_ACCOUNTING_INTERVAL_S: Final = 30  # slurm.conf(5), JobAcctGatherFrequency: shorter jobs are never sampled


class Background:
    """A stream of arrivals at ``load``: the share of all node time that the jobs would use if none waited."""

    def __init__(self, machine: Machine, *, load: float, seed: int, start: int, state: Mapping[str, Any] | None = None):
        """Begin at ``start`` (unix seconds), or go on from ``state``, what :meth:`as_dict` gave."""
        self.machine = machine
        self.load = load
        self.seed = seed
        self._partitions = tuple(machine.partitions.values())
        self._partition_weights = tuple(accumulate(part.mask.bit_count() for part in self._partitions))
        if state is None:
            self._rate_per_s = self._rate()
            self._index = 0
            self._time = self._following(start)
        else:
            self._rate_per_s = state["rate_per_s"]
            self._index = state["index"]
            self._time = state["time"]

    @property
    def next_time(self) -> int | None:
        """When the next job comes."""
        return self._time

    def pop(self) -> Arrival:
        """Return the next job and go on to the one after."""
        arrival = self._arrival(self._index, self._time)
        self._index += 1
        self._time = self._following(self._time)
        return arrival

    def as_dict(self) -> dict[str, Any]:
        """Return where the stream stands."""
        return {"rate_per_s": self._rate_per_s, "index": self._index, "time": self._time}

    def _rate(self) -> float:
        """Return the mean arrivals a second that make up the load.

        The rare large jobs use most of the time, so each kind is sampled as often as every other and then weighed.
        """
        draw = random.Random(f"{self.seed}/rate")
        mean = 0.0
        nodes = sum(part.mask.bit_count() for part in self._partitions)
        for partition in self._partitions:
            for kind in _KINDS:
                used = 0
                for _ in range(_SAMPLE):
                    spec, behaviour = self._job(draw, partition, kind)
                    used += (spec.nodes_min or 1) * min(behaviour.runtime_s, spec.time_limit_s or 0)
                mean += used / _SAMPLE * kind.share * partition.mask.bit_count() / nodes
        return self.load * len(self.machine.names) / mean

    def _following(self, time: int) -> int:
        """Return the next arrival after ``time``: a Poisson process with a daily and weekly rhythm, by thinning."""
        draw = random.Random(f"{self.seed}/arrival/{self._index}")
        highest = self._rate_per_s * (1 + _SWING) / _WEEK_MEAN
        moment = float(time)
        while True:
            moment += draw.expovariate(highest)
            if draw.random() < _rhythm(moment) / ((1 + _SWING) / _WEEK_MEAN):
                return max(time, math.ceil(moment))

    def _arrival(self, index: int, time: int) -> Arrival:
        draw = random.Random(f"{self.seed}/job/{index}")
        partition = draw.choices(self._partitions, cum_weights=self._partition_weights)[0]
        kind = draw.choices(_KINDS, cum_weights=_KIND_WEIGHTS)[0]
        user = draw.choices(range(_USERS), cum_weights=_USER_WEIGHTS)[0]
        spec, behaviour = self._job(draw, partition, kind)
        return Arrival(time, f"user{user + 1:02d}", replace(spec, account=_TEAMS[user % len(_TEAMS)]), behaviour)

    def _job(self, draw: random.Random, partition: PartitionShape, kind: _Kind) -> tuple[JobSpec, Behaviour]:
        """Return a job of this kind: what it asks for, and how it really goes."""
        nodes = min(draw.choice(kind.nodes), _most_nodes(partition))
        runtime_s = max(5, round(draw.lognormvariate(math.log(kind.median_s), kind.sigma)))
        limit_s, behaviour = self._course(draw, kind, partition, runtime_s)
        groups = [group for group in self.machine.groups if group.mask & partition.mask]
        spec = JobSpec(
            name=f"{kind.name}-{draw.randrange(100):02d}",
            partition=partition.name,
            nodes_min=nodes,
            nodes_max=nodes,
            ntasks_per_node=1,
            time_limit_s=limit_s,
            gpus_per_node=min(group.gpus for group in groups) or None,
            qos=partition.qos[0] if partition.qos else None,
            requeue=False,
        )
        return spec, behaviour

    def _course(
        self, draw: random.Random, kind: _Kind, partition: PartitionShape, runtime_s: int
    ) -> tuple[int, Behaviour]:
        """Return the limit that the user gave, and how the job really goes."""
        most = partition.max_time_s or 7 * _DAY_S
        limits = [int(limit) for limit in _LIMITS_S if limit < most] + [max(60, most // 60 * 60)]
        fate = draw.random()
        if fate < kind.timeouts:
            limit_s = max([limit for limit in limits if limit <= runtime_s], default=limits[0])
            return limit_s, self._behaviour(draw, kind, partition, limit_s + 3600, JobState.COMPLETED)
        runtime_s = min(runtime_s, limits[-1])
        wished = runtime_s * (1 + draw.expovariate(0.5))
        limit_s = (
            limits[-1] if draw.random() < 0.1 else min((one for one in limits if one >= wished), default=limits[-1])
        )
        fate -= kind.timeouts
        for share, state, fraction in (
            (kind.failures, JobState.FAILED, draw.random() ** 2),
            (0.07, JobState.CANCELLED, draw.random()),
            (0.02, JobState.OUT_OF_MEMORY, draw.random() * 0.2),
            (0.0004 * max(kind.nodes), JobState.NODE_FAIL, draw.random()),
        ):
            if fate < share:
                return limit_s, self._behaviour(draw, kind, partition, max(3, round(runtime_s * fraction)), state)
            fate -= share
        return limit_s, self._behaviour(draw, kind, partition, runtime_s, JobState.COMPLETED)

    def _behaviour(
        self, draw: random.Random, kind: _Kind, partition: PartitionShape, runtime_s: int, state: JobState
    ) -> Behaviour:
        exit_code, signal = {
            JobState.FAILED: (draw.choice((1, 1, 1, 2, 127)), 0),
            JobState.OUT_OF_MEMORY: (0, 125),
            JobState.NODE_FAIL: (1, 0),
        }.get(state, (0, 0))
        memory = min(group.memory_bytes for group in self.machine.groups if group.mask & partition.mask)
        has_gpus = any(group.gpus for group in self.machine.groups if group.mask & partition.mask)
        share = 0.99 if state is JobState.OUT_OF_MEMORY else draw.betavariate(2, 5)
        spread = draw.betavariate(kind.gpu_utilisation * 12, (1 - kind.gpu_utilisation) * 12)
        sampled = runtime_s >= _ACCOUNTING_INTERVAL_S
        return Behaviour(
            runtime_s=runtime_s,
            state=state.value,
            exit_code=exit_code,
            signal=signal,
            cpu_fraction=round(draw.betavariate(2, 6), 3),
            max_rss_bytes=round(memory * share) if sampled else None,
            gpu_utilisation=round(spread, 3) if sampled and has_gpus else None,
        )


def _most_nodes(partition: PartitionShape) -> int:
    """Return the widest job that others submit: half of a partition, within its limit."""
    half = max(1, partition.mask.bit_count() // 2)
    return min(half, partition.max_nodes or half)


def _rhythm(time: float) -> float:
    """Return the arrival rate at ``time`` over its mean: highest at 15:00 UTC, low at night and at the weekend."""
    hour = time % _DAY_S / 3600
    weekday = (int(time // _DAY_S) + 3) % 7  # 1 January 1970 was a Thursday
    daily = 1 + _SWING * math.cos(2 * math.pi * (hour - 15) / 24)
    return daily * (_WEEKEND if weekday >= 5 else 1.0) / _WEEK_MEAN
