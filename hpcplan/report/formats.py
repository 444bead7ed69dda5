"""How figures are written for people: one place, so that page, Markdown and terminal say the same."""

from __future__ import annotations

from datetime import datetime, tzinfo

from hpcplan.units import format_duration

__all__ = ["UNKNOWN", "change", "coverage", "duration", "figure", "number", "percent", "saved", "step", "when"]

UNKNOWN = "–"


def percent(share: float | None) -> str:
    """Return ``41.3 %`` for 0.413; a share that is not quite nothing, or not quite all, does not round to it."""
    if share is None:
        return UNKNOWN
    value = share * 100
    if 0 < value < 0.05:
        return "< 0.1 %"
    return "99.9 %" if 99.95 <= value < 100 else f"{value:.1f} %"


def number(value: float | None) -> str:
    """Return ``12,345`` or, below 100, one decimal, below 1 three significant digits."""
    if value is None:
        return UNKNOWN
    if value == 0 or abs(value) >= 100 or (isinstance(value, int)):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Return ``2 h 05 min``; whole seconds below a minute."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 0.5:
        return "< 1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    return format_duration(seconds)


def step(seconds: float) -> str:
    """Return the time of a training step: ``3.42 s``, ``850 ms``."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def saved(hours: float) -> str:
    """Return what became of hours waited: ``12 wait hours saved``, ``3.5 wait hours more``."""
    return f"{number(abs(hours))} wait hours {'saved' if hours >= 0 else 'more, as other jobs came first'}"


def when(moment: int | None, zone: tzinfo | None, form: str = "%Y-%m-%d %H:%M") -> str:
    """Return a point in time in ``zone`` (the machine's own if ``None``)."""
    if moment is None:
        return UNKNOWN
    try:
        return datetime.fromtimestamp(moment, zone).strftime(form)
    except (ValueError, OverflowError, OSError):
        return str(moment)


def coverage(share: float | None) -> str:
    """Return how much of what should be known is: ``all``, ``83.2 %``, ``none``; ``–`` where there was nothing."""
    if share is None:
        return UNKNOWN
    if share >= 1 - 1e-9:
        return "all"
    return "none" if share <= 0 else percent(share)


def figure(value: float | None, key: str) -> str:
    """Return a figure as its key's unit asks: seconds, a share, or a number."""
    if key.endswith("_s"):
        return duration(value)
    return percent(value) if key.endswith("efficiency") else number(value)


def change(pair: tuple[float | None, float | None]) -> str:
    """Return by how much the first is above the second: ``+12 %``; ``–`` where that says nothing."""
    now, then = pair
    if now is None or not then:
        return UNKNOWN
    return f"{(now - then) / then:+.0%}".replace("%", " %")
