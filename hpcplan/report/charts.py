"""Pictures as numbers: the geometry that the page's templates draw as inline SVG.

Drawn by the page and not by a plotting library, so that colours follow the reader's light or dark theme, the page stays
small, and every picture can be read by a screen reader. Coordinates are in the picture's own units, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from typing import Final

from hpcplan.report import formats
from hpcplan.report.model import Histogram, Report, Usage

__all__ = ["Bar", "BarChart", "Curve", "LineChart", "Tick", "account_chart", "queue_chart", "use_chart", "wait_chart"]

WIDTH: Final = 720
HEIGHT: Final = 240
LEFT: Final = 56
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 34


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One stepped line: ``path`` for SVG, ``kind`` names its colour and dash pattern in the style sheet."""

    name: str
    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Stepped lines over time."""

    title: str
    summary: str
    unit: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, ``part`` of it marked (its length, not a share); ``value`` is written beside it."""

    label: str
    value: str
    at: float
    length: float
    part: float = 0.0


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars of one quantity: upright with ``thickness`` wide bars, or lying where ``lying``."""

    title: str
    summary: str
    bars: tuple[Bar, ...]
    thickness: float
    lying: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM


def _nice_ticks(largest: float, wanted: int = 4) -> list[float]:
    """Return round values from 0 to at least ``largest``."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * index for index in range(math.ceil(largest / step - 1e-9) + 1)]


def use_chart(report: Report, zone: tzinfo | None) -> LineChart:
    """Return what was allocated over time: shares of capacity where that is known, else numbers of CPUs."""
    series, size = report.series, report.capacity
    shares = [
        (name, kind, [value / units for value in values])
        for name, kind, values, units in (
            ("CPUs", "a", series.cpus, size.cpus),
            ("GPUs", "b", series.gpus, size.gpus),
            ("nodes", "c", series.nodes, size.nodes),
        )
        if units
    ]
    if shares:
        top = max(1.0, max((max(values, default=0.0) for _, _, values in shares), default=1.0))
        return _lines("Utilisation over time", "allocated", shares, _nice_ticks(top), report, zone, share=True)
    counts = [("CPUs", "a", list(series.cpus))]
    top = max(series.cpus, default=0.0)
    return _lines("Allocated CPUs over time", "CPUs", counts, _nice_ticks(top), report, zone)


def queue_chart(report: Report, zone: tzinfo | None) -> LineChart:
    """Return how many jobs ran and waited over time."""
    series = report.series
    curves = [("running", "a", list(series.running)), ("pending", "b", list(series.pending))]
    top = max((*series.running, *series.pending), default=0.0)
    return _lines("Jobs over time", "jobs", curves, _nice_ticks(top), report, zone)


def _lines(
    title: str,
    unit: str,
    curves: Sequence[tuple[str, str, Sequence[float]]],
    ticks: Sequence[float],
    report: Report,
    zone: tzinfo | None,
    *,
    share: bool = False,
) -> LineChart:
    form = formats.percent if share else formats.number
    span = report.end - report.start
    edges = [*report.series.start, report.end]
    xs = [LEFT + (edge - report.start) / span * (WIDTH - RIGHT - LEFT) for edge in edges]
    height = HEIGHT - BOTTOM - TOP

    def y(value: float) -> float:
        return TOP + height * (1 - value / ticks[-1])

    drawn = tuple(Curve(name, kind, _steps(xs, [y(value) for value in values])) for name, kind, values in curves)
    means = [f"{name} {form(_mean(values, edges))} on average" for name, _, values in curves]
    labels = tuple(Tick(y(value), f"{value:.0%}" if share else f"{value:,.10g}") for value in ticks)
    return LineChart(title, "; ".join(means), unit, drawn, _time_ticks(report, zone, xs), labels)


def _mean(values: Sequence[float], edges: Sequence[int]) -> float:
    widths = [after - before for before, after in pairwise(edges)]
    return sum(value * width for value, width in zip(values, widths, strict=True)) / sum(widths)


def _steps(xs: Sequence[float], ys: Sequence[float]) -> str:
    parts = [f"M{xs[0]:.1f} {ys[0]:.1f}H{xs[1]:.1f}"]
    parts += [f"V{y:.1f}H{x:.1f}" for x, y in zip(xs[2:], ys[1:], strict=True)]
    return "".join(parts)


def _time_ticks(report: Report, zone: tzinfo | None, xs: Sequence[float]) -> tuple[Tick, ...]:
    starts = report.series.start
    short = report.end - report.start <= 26 * 3600
    stride = max(1, math.ceil(len(starts) / (7 if short else 5)))  # as many as have room beside each other
    form = "%H:%M" if short else "%d %b %H:%M"
    form = "%d %b" if report.end - report.start > 4 * 86400 else form
    return tuple(Tick(xs[i], formats.when(starts[i], zone, form)) for i in range(0, len(starts), stride))


def wait_chart(histogram: Histogram) -> BarChart:
    """Return how many jobs had waited how long."""
    names = histogram.labels
    largest = max(histogram.counts, default=0)
    room = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    tall = HEIGHT - BOTTOM - TOP - 18
    bars = tuple(
        Bar(name, f"{count:,}", LEFT + room * index, tall * count / largest if largest else 0.0)
        for index, (name, count) in enumerate(zip(names, histogram.counts, strict=True))
    )
    total = sum(histogram.counts)
    text = ", ".join(f"{name}: {count:,}" for name, count in zip(names, histogram.counts, strict=True))
    return BarChart("How long jobs had waited", f"{total:,} jobs; {text}", bars, room * 0.8, lying=False)


def account_chart(rows: Sequence[Usage], most: int = 10) -> BarChart:
    """Return the accounts with the most core-hours; the part that was measured as idle is marked."""
    shown = [row for row in rows if row.core_hours][:most]
    largest = max((row.core_hours or 0.0 for row in shown), default=0.0)
    left, room = 150, 26
    wide = WIDTH - left - 150
    bars = tuple(
        Bar(
            row.name if row.name is not None else "(no account)",
            _hours_text(row),
            room * index + 6.0,
            wide * (row.core_hours or 0.0) / largest,
            wide * (row.idle_core_hours or 0.0) / largest,
        )
        for index, row in enumerate(shown)
    )
    text = "; ".join(f"{bar.label}: {bar.value}" for bar in bars)
    return BarChart("Core-hours by account", text, bars, 18.0, True, height=room * len(bars) + 12, left=left)


def _hours_text(row: Usage) -> str:
    idle = "" if row.idle_core_hours is None else f", {formats.number(row.idle_core_hours)} idle"
    return f"{formats.number(row.core_hours)} h{idle}"
