"""Figures of the report, each with its coverage.

Accounting rarely knows everything: ``value`` is ``null`` where nothing is known, and ``known`` of ``total`` says how
much of what should have been measured was.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Distribution",
    "Efficiency",
    "Histogram",
    "Measure",
    "Series",
]


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: ``value`` in the unit that its key names, from ``known`` of ``total`` jobs or resource-hours.

    ``note`` says why there is no value, or what to keep in mind.
    """

    value: float | None
    known: float
    total: float
    note: str | None = None

    @property
    def coverage(self) -> float | None:
        """The known share, 0 to 1; ``None`` where there was nothing to know."""
        return min(1.0, self.known / self.total) if self.total > 0 else None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, median, 95th percentile (linear interpolation) and largest of ``known`` values out of ``total`` jobs."""

    mean: float | None
    median: float | None
    p95: float | None
    max: float | None
    known: int
    total: int

    @property
    def coverage(self) -> float | None:
        """The share of jobs whose value is known."""
        return self.known / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How much of what jobs held they used, over attempts that ended in the window.

    ``value`` weighs every job by the resource-seconds it held; ``median`` counts each job once. ``known`` and ``total``
    are resource-hours (jobs, for the time limit).
    """

    value: float | None
    median: float | None
    known: float
    total: float
    jobs_known: int
    jobs_total: int
    note: str | None = None

    @property
    def coverage(self) -> float | None:
        """The share of resource-hours whose use is known."""
        return min(1.0, self.known / self.total) if self.total > 0 else None


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many jobs have a value at or above ``edges[i]`` and below ``edges[i + 1]`` (the last bin is open)."""

    edges: tuple[float, ...]
    labels: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Mean over each bin of ``bin_s`` seconds, the first beginning at ``start[0]``; resources in use, jobs by count."""

    bin_s: int
    start: tuple[int, ...]
    nodes: tuple[float, ...]
    cpus: tuple[float, ...]
    gpus: tuple[float, ...]
    running: tuple[float, ...]
    pending: tuple[float, ...]
