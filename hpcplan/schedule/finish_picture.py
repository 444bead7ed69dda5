"""The trade-off of node counts: what of the time to solution is waiting, and how it spreads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcplan.documents import write_figure
from hpcplan.schedule.finish_search import FinishPlan, Option

__all__ = ["best_of_each_size", "draw_tradeoff"]

_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_COLOURS: Final = {"waiting": "#d98c5f", "holding nodes": "#4c78a8"}


def best_of_each_size(options: Sequence[Option], chosen: Option) -> list[Option]:
    """Return, for each node count, the option that is done first at the median; of the chosen one's, the chosen one."""
    best: dict[int, Option] = {}
    for option in options:
        kept = best.get(option.nodes)
        if kept is None or option.finish.quantile_s(0.5) < kept.finish.quantile_s(0.5):
            best[option.nodes] = option
    best[chosen.nodes] = chosen
    return [best[nodes] for nodes in sorted(best)]


def draw_tradeoff(found: FinishPlan, path: Path, title: str) -> None:
    """Draw time to solution over node counts, and cost beside it where there are prices; the chosen one is marked.

    Args:
        found: the options.
        path: where to, ending in .svg, .png or .pdf.
        title: over the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    options = [
        one
        for one in best_of_each_size(found.options, found.best)
        if one is found.best or np.isfinite(one.finish.quantile_s(0.9))
    ]
    priced = all(one.cost is not None for one in options)
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False}):  # fmt: skip
        figure = Figure(figsize=(9.0 if priced else 5.4, 3.9), layout="constrained")
        _times(figure.add_subplot(1, 1 + priced, 1), options, found.best)
        if priced:
            _costs(figure.add_subplot(1, 2, 2), options, found)
        figure.suptitle(title, fontsize=10)
        write_figure(path, figure)


def _unit(options: Sequence[Option]) -> tuple[int, str]:
    """Return the unit of time that suits the options, in seconds, and its name."""
    longest_s = max(one.finish.quantile_s(0.9) for one in options)
    return (_DAY_S, "days") if longest_s > 2 * _DAY_S else (_HOUR_S, "hours")


def _times(axes: Any, options: Sequence[Option], best: Option) -> None:
    """Draw bars of the medians, waiting over holding nodes, and whiskers from P10 to P90 of the finish."""
    longest_s = max(one.finish.quantile_s(0.9) for one in options)
    unit_s, name = _unit(options)
    places = np.arange(len(options))
    middle = np.array([one.finish.quantile_s(0.5) for one in options]) / unit_s
    waited = np.array([float(np.median(one.finish.waited_s)) for one in options]) / unit_s
    waited = np.minimum(waited, middle)
    axes.bar(places, middle - waited, 0.62, color=_COLOURS["holding nodes"], label="holding nodes")
    axes.bar(places, waited, 0.62, bottom=middle - waited, color=_COLOURS["waiting"], label="waiting in the queue")
    low = middle - np.array([one.finish.quantile_s(0.1) for one in options]) / unit_s
    high = np.array([one.finish.quantile_s(0.9) for one in options]) / unit_s - middle
    axes.errorbar(places, middle, [np.maximum(0, low), np.maximum(0, high)], fmt="none", ecolor="#222222", capsize=3,
                  lw=1, label="P10 to P90")  # fmt: skip
    chosen = next(place for place, one in enumerate(options) if one.nodes == best.nodes)
    axes.annotate("chosen", (chosen, middle[chosen] + high[chosen]), xytext=(0, 6), textcoords="offset points",
                  ha="center", fontweight="bold")  # fmt: skip
    axes.set_xticks(places, [str(one.nodes) for one in options])
    axes.set_xlabel("nodes")
    axes.set_ylabel(f"time to solution ({name}, median)")
    axes.set_ylim(0, 1.25 * longest_s / unit_s)
    axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=7.5)


def _costs(axes: Any, options: Sequence[Option], found: FinishPlan) -> None:
    """Draw cost against the time to solution, P50 to P90, one line a node count."""
    unit_s, name = _unit(options)
    ends = [[one.finish.quantile_s(level) / unit_s for level in (0.5, 0.9)] for one in options]
    for one, (middle, high) in zip(options, ends, strict=True):
        chosen = one.nodes == found.best.nodes
        colour = "#c03030" if chosen else "#666666"
        axes.plot([middle, high], [one.cost, one.cost], "-", lw=1, color=colour)
        axes.plot([middle], [one.cost], "o", ms=6, color=colour)
        axes.annotate(f"{one.nodes}", (middle, one.cost), xytext=(0, 6), textcoords="offset points", ha="center",
                      color=colour, fontweight="bold" if chosen else "normal")  # fmt: skip
    currency = found.planned.plan.training.currency or ""
    axes.set_xlabel(f"done after ({name}): median, and line to P90")
    axes.set_ylabel(f"cost at the median ({currency})")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max(one.cost or 0.0 for one in options))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
