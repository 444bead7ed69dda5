"""What is said of a choice by finish: one sentence, and times as people say them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from hpcplan.schedule.finish_option import Option
from hpcplan.schedule.finish_race import Criterion
from hpcplan.units import format_duration

__all__ = ["moment", "why"]


def why(
    best: Option, options: Sequence[Option], now_s: int | None, criterion: Criterion, deadline_s: float | None
) -> str:
    """Return one sentence: when the chosen nodes start and are done, and what the most telling other would do."""
    wait = _about(float(np.median(best.first_waits_s)))
    said = (
        f"{_nodes(best.nodes)} start {wait} and finish {moment(best.finish.quantile_s(0.5), now_s)} "
        f"(P90 {moment(best.finish.quantile_s(0.9), now_s)})"
    )
    if criterion == "cost" and best.cost is not None:
        within = f" that are done within {format_duration(deadline_s)}" if deadline_s is not None else ""
        said += f", for the least money of all{within}"
    others = [one for one in options if one.nodes != best.nodes]
    if not others:
        return said
    level = 0.9 if criterion == "p90" else 0.5
    wider = [one for one in others if one.nodes > best.nodes] or others
    other = min(wider, key=lambda one: one.finish.quantile_s(level))
    waits_s, finish_s = float(np.median(other.first_waits_s)), other.finish.quantile_s(level)
    ends = moment(finish_s, now_s) if math.isfinite(finish_s) else f"not {moment(other.finish.cap_s, now_s)}"
    if waits_s > 2 * float(np.median(best.first_waits_s)) + 60:
        return f"{said}; {_nodes(other.nodes)} would wait {_about(waits_s, prefix='')} and finish {ends}"
    return f"{said}; {_nodes(other.nodes)} would finish {ends}"


def moment(seconds: float, now_s: int | None) -> str:
    """Return ``by Tue 09:00`` where the present is a date, else ``after 3 d``."""
    if not math.isfinite(seconds):
        return "never"
    if now_s is None or now_s < 10**9 // 2:
        return f"after {format_duration(seconds)}"
    return datetime.fromtimestamp(now_s + seconds, UTC).strftime("by %a %d %b %H:%M UTC")


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _about(seconds: float, prefix: str = "in ") -> str:
    return (f"{prefix}~{format_duration(seconds)}") if seconds >= 60 else ("at once" if prefix else "not at all")
