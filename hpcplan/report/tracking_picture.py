"""Measured over predicted step time, campaign after campaign, as numbers for the page's inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import tzinfo
from typing import Final

from hpcplan.report import formats
from hpcplan.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, LineChart, Tick
from hpcplan.report.site_facts import Tracked

__all__ = ["tracking_chart"]

_MOST: Final = 60  # campaigns that have room beside each other
_SLACK: Final = 1.05


def tracking_chart(tracked: Sequence[Tracked], zone: tzinfo | None) -> LineChart | None:
    """Return measured / predicted with the 90 % interval that the plans promised; none of a single campaign."""
    rows = tracked[-_MOST:]
    if len(rows) < 2:
        return None
    values = {
        "a": ("measured / predicted", [row.ratio for row in rows]),
        "b": ("90 % interval's upper end", [row.high_s / row.predicted_s for row in rows]),
        "c": ("its lower end", [row.low_s / row.predicted_s for row in rows]),
    }
    every = [value for _, each in values.values() for value in each]
    low, high = min(1.0, min(every)) / _SLACK, max(1.0, max(every)) * _SLACK
    room, height = (WIDTH - RIGHT - LEFT) / (len(rows) - 1), HEIGHT - BOTTOM - TOP

    def y(value: float) -> float:  # logarithmic: half the time lies as far off as twice
        return TOP + height * (math.log(high / value) / math.log(high / low))

    xs = [LEFT + room * index for index in range(len(rows))]
    curves = tuple(
        Curve(name, kind, "M" + "L".join(f"{x:.1f} {y(value):.1f}" for x, value in zip(xs, each, strict=True)))
        for kind, (name, each) in values.items()
    )
    stride = math.ceil(len(rows) / 6)
    times = tuple(Tick(xs[i], formats.when(rows[i].time, zone, "%d %b")) for i in range(0, len(rows), stride))
    step = next(one for one in (0.05, 0.1, 0.2, 0.5, 1.0, 5.0, math.inf) if (high - low) / one <= 6)
    marks = {1.0} if math.isinf(step) else {round(n * step, 2) for n in range(1, math.ceil(high / step) + 1)} | {1.0}
    levels = tuple(Tick(y(mark), f"{mark:.4g}") for mark in sorted(marks) if low <= mark <= high)
    last = rows[-1]
    drift = f"drifting: {last.drift} than predicted" if last.drift else "no drift"
    inside = sum(row.low_s <= row.actual_s <= row.high_s for row in rows)
    text = f"{inside} of {len(rows)} campaigns inside their interval, the last at {last.ratio:.2f}; {drift}"
    return LineChart("Predicted against measured steps", text, "measured / predicted", curves, times, levels)
