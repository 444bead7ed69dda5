"""What accounting does not know: what the site file tells of nodes, and what hpcplan's own jobs planned and sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Sampled",
    "SiteFacts",
    "Tracked",
]


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a job of hpcplan's sampled of itself from ``first`` to ``last`` (unix seconds), on so many nodes and GPUs.

    ``gpu_used`` is the mean over its GPUs, 0 to 1, ``gpu_power_w`` their mean power together.
    """

    first: int
    last: int
    nodes: int
    gpus: int
    gpu_used: float | None
    gpu_power_w: float | None


@dataclass(frozen=True, slots=True)
class Tracked:
    """The steps of one finished campaign: when it ended (unix seconds), predicted with its 90 % interval, and measured.

    ``average`` and ``limit`` are of the control chart after it, in units of the spread that plans promise; ``drift`` is
    ``slower`` or ``faster`` where it, or the cumulative sum beside it, has left its limits.
    """

    time: int
    campaign: str
    nodes: int
    predicted_s: float
    low_s: float
    high_s: float
    actual_s: float
    average: float
    limit: float
    drift: str | None

    @property
    def ratio(self) -> float:
        """Actual over predicted."""
        return self.actual_s / self.predicted_s


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What accounting does not know; ``None`` where it is not given.

    ``power_w_per_node`` and ``group_of_node`` map host names; ``price_per_kwh`` includes the PUE; ``shares`` maps
    accounts to the share that fairshare promises them, ``predicted_s`` the tokens of hpcplan's own jobs to what the
    plan expected them to take, ``samples`` the campaign's id and Slurm's job id of such jobs to what they sampled;
    ``tracked`` are the finished campaigns whose steps were predicted and measured.
    """

    power_w_per_node: Mapping[str, float] | None = None
    price_per_kwh: float | None = None
    group_of_node: Mapping[str, str] | None = None
    shares: Mapping[str, float] | None = None
    predicted_s: Mapping[str, float] | None = None
    samples: Mapping[tuple[str, int], Sampled] | None = None
    tracked: tuple[Tracked, ...] = ()
