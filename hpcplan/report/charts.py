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
from hpcplan.report.figures import Histogram
from hpcplan.report.model import Report
from hpcplan.report.rows import Usage

__all__ = [
    "Bar",
    "BarChart",
    "Curve",
    "HeatMap",
    "LineChart",
    "Tick",
    "account_chart",
    "node_map",
    "part_map",
    "queue_chart",
    "trend_chart",
    "use_chart",
    "wait_chart",
]

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


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows of cells shaded by level: ``levels`` has one path for each of the shades 1 to 5 (0 is left empty)."""

    title: str
    summary: str
    labels: tuple[Tick, ...]
    levels: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    width: int
    height: int
    left: int


def _nice_ticks(largest: float, wanted: int = 4) -> list[float]:
    """Return round values from 0 to at least ``largest``."""
    if largest <= 0:
        return [0.0, 1.0]
    rough = largest / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return [step * index for index in range(math.ceil(largest / step - 1e-9) + 1)]


def _axis_number(value: float) -> str:
    """Return a value as short as the room beside an axis wants it: ``2,500``, ``80 k``, ``1.5 M``."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= max(unit, 1e4):
            return f"{value / unit:,.10g}{name}"
    return f"{value:,.10g}"


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
    labels = tuple(Tick(y(value), f"{value:.0%}" if share else _axis_number(value)) for value in ticks)
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
    longest = max((len(_hours_text(row)) for row in shown), default=0)
    wide = max(60.0, WIDTH - left - 14 - 8.4 * longest)  # the text behind the longest bar fits, at a phone's size too
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


_SHADES: Final = 5
_MOST_ROWS: Final = 60


def node_map(report: Report, zone: tzinfo | None) -> HeatMap | None:
    """Return how busy each node was over time; of a large cluster each row is the mean of some nodes, by name."""
    rows = report.nodes_used
    if not rows:
        return None
    each = math.ceil(len(rows) / _MOST_ROWS)
    groups = [rows[first : first + each] for first in range(0, len(rows), each)]
    tall, left = (12 if len(groups) > 20 else 18), 96
    bins = len(rows[0].busy)
    wide = (WIDTH - left - RIGHT) / bins
    paths = [""] * _SHADES
    for row, group in enumerate(groups):
        for column in range(bins):
            mean = sum(node.busy[column] for node in group) / len(group)
            level = min(_SHADES, math.ceil(mean * _SHADES - 1e-9))
            if level > 0:
                paths[level - 1] += (
                    f"M{left + column * wide:.1f} {row * tall}h{wide - 1:.1f}v{tall - 1}h-{wide - 1:.1f}z"
                )
    stride = max(1, math.ceil(len(groups) / 30))
    names = [group[0].name if len(group) == 1 else f"{group[0].name}…" for group in groups]
    labels = tuple(Tick(row * tall + tall - 3, names[row]) for row in range(0, len(groups), stride))
    ticks = _map_ticks(report, zone, left)
    busy = sum(sum(node.busy) for node in rows) / (bins * len(rows))
    never = sum(not any(node.busy) for node in rows)
    text = f"{len(rows):,} nodes, in use {formats.percent(busy)} of the time; {never:,} of them never"
    if each > 1:
        text += f"; each row is the mean of {each} nodes"
    return HeatMap("Use of the nodes", text, labels, tuple(paths), ticks, WIDTH, len(groups) * tall + 24, left)


def part_map(report: Report, zone: tzinfo | None) -> HeatMap | None:
    """Return how full each part of the cluster was over time; only of parts whose size is known."""
    rows = [part for part in report.parts if part.over_time][:_MOST_PARTS]
    if not rows:
        return None
    bins = len(rows[0].over_time or ())
    most = max(1, WIDTH // 8)  # columns that can be told apart
    each = math.ceil(bins / most)
    tall, left = 18, 150
    columns = math.ceil(bins / each)
    wide = (WIDTH - left - RIGHT) / columns
    paths = [""] * _SHADES
    for row, part in enumerate(rows):
        values = part.over_time or ()
        for column in range(columns):
            some = values[column * each : (column + 1) * each]
            level = min(_SHADES, math.ceil(sum(some) / len(some) * _SHADES - 1e-9))
            if level > 0:
                paths[level - 1] += (
                    f"M{left + column * wide:.1f} {row * tall}h{wide - 0.6:.1f}v{tall - 1}h-{wide - 0.6:.1f}z"
                )
    labels = tuple(
        Tick(row * tall + tall - 5, _short(part.name) + f" ({_OF_PART[part.kind]})") for row, part in enumerate(rows)
    )
    hours = report.series.bin_s * each / 3600
    text = f"the share of a part's CPUs in use (of a kind of GPU: its GPUs), each column {formats.number(hours)} h"
    ticks = _map_ticks(report, zone, left)
    return HeatMap("Use by part of the cluster", text, labels, tuple(paths), ticks, WIDTH, len(rows) * tall + 24, left)


_MOST_PARTS: Final = 40
_OF_PART: Final = {"partition": "partition", "node group": "nodes", "GPU kind": "GPUs"}


def _short(name: str) -> str:
    return name if len(name) <= 11 else name[:10] + "…"


def _map_ticks(report: Report, zone: tzinfo | None, left: int) -> tuple[Tick, ...]:
    span = report.end - report.start
    form = "%H:%M" if span <= 26 * 3600 else "%d %b"
    return tuple(
        Tick(left + part * (WIDTH - left - RIGHT) / 6, formats.when(int(report.start + part * span / 6), zone, form))
        for part in range(6)
    )


def trend_chart(report: Report, zone: tzinfo | None) -> LineChart | None:
    """Return core-hours and jobs of each day, each as a share of its largest; none of a single day."""
    days = report.trend
    if len(days) < 2:
        return None
    figures = (
        ("core-hours", "a", [day.core_hours for day in days]),
        ("jobs ended", "b", [float(day.ended) for day in days]),
        ("mean jobs waiting", "c", [day.mean_pending for day in days]),
    )
    room = WIDTH - RIGHT - LEFT
    edges = [LEFT + index / len(days) * room for index in range(len(days) + 1)]
    height = HEIGHT - BOTTOM - TOP
    curves, texts = [], []
    for name, kind, values in figures:
        top = max(values)
        ys = [TOP + height * (1 - (value / top if top else 0.0)) for value in values]
        curves.append(Curve(name, kind, _steps(edges, ys)))
        texts.append(f"{name} at most {formats.number(top)}, on the last day {formats.number(values[-1])}")
    stride = math.ceil(len(days) / 6)
    ticks = tuple(Tick(edges[i], formats.when(days[i].start, zone, "%d %b")) for i in range(0, len(days), stride))
    levels = tuple(Tick(TOP + height * (1 - part), f"{part:.0%}") for part in (0.0, 0.5, 1.0))
    return LineChart("Trend by day", "; ".join(texts), "of each one's largest day", tuple(curves), ticks, levels)
