"""The Pareto front: the shardings that no other beats in step time, cost, energy and nodes at once, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcplan.documents import write_figure
from hpcplan.partition.found import Found, describe, undominated
from hpcplan.partition.search import Outcome
from hpcplan.units import format_count

__all__ = ["AXES", "draw_front", "front_rows"]

AXES: Final = {"cost": "cost of the training", "energy_kwh": "energy of the training (kWh)", "nodes": "nodes"}
_SHORT_S: Final = 4 * 86400.0  # shown in hours
_PALETTE: Final = ("#1f5f99", "#c2571a", "#3a7d44", "#7a4f9a", "#8c6d1f", "#b03a5b")


def front_rows(outcome: Outcome, front: Found) -> list[dict[str, Any]]:
    """Return the front as plain data, by step time; what the site has no figures for is ``None``."""

    def number(value: float, digits: int) -> float | None:
        return None if np.isnan(value) else round(float(value), digits)

    return [
        {
            "node_group": outcome.kinds[int(front.kind[i])].group,
            "precision": outcome.kinds[int(front.kind[i])].precision,
            "nodes": int(front.nodes[i]),
            "sharding": describe(front.shardings, i),
            "iter_time_s": round(float(front.step_s[i]), 6),
            "train_s": round(float(front.train_s[i]), 1),
            "cost": number(front.cost[i], 2),
            "energy_kwh": number(front.energy_kwh[i], 1),
            "memory_bytes": round(float(front.memory_bytes[i])),
        }
        for i in range(len(front))
    ]


def draw_front(outcome: Outcome, front: Found, path: Path, title: str) -> None:
    """Draw training time against each other objective, one panel each; the winner is ringed.

    Args:
        outcome: of the search.
        front: its front.
        path: where to, ending in .svg, .png or .pdf.
        title: over the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [name for name in AXES if name == "nodes" or name in front.objectives()]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False,
                                "axes.spines.right": False}):  # fmt: skip
        figure = Figure(figsize=(4.2 * len(shown), 3.9), layout="constrained")
        for place, name in enumerate(shown):
            axes = figure.add_subplot(1, len(shown), place + 1)
            _panel(axes, outcome, front, name)
            axes.set_ylabel(f"time to train ({_unit(front)[0]})" if place == 0 else "")
            if place == len(shown) - 1:
                axes.legend(frameon=False, loc="upper right")
        figure.suptitle(title, fontsize=10)
        write_figure(path, figure)


def _unit(front: Found) -> tuple[str, float]:
    """Return the unit of training times, and how many seconds it has."""
    return ("days", 86400.0) if front.train_s.max() > _SHORT_S else ("hours", 3600.0)


def _panel(axes: Any, outcome: Outcome, front: Found, name: str) -> None:
    """Draw one objective against time; a line joins what no other beats in these two alone."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values, times = getattr(front, name).astype(float), front.train_s / _unit(front)[1]
    edge = undominated(np.stack([times, values], axis=1))
    axes.plot(values[edge], times[edge], "-", lw=1, color="#999999", drawstyle="steps-post", zorder=1)
    for index, kind in enumerate(outcome.kinds):
        mine = front.kind == index
        if mine.any():
            label = f"{kind.group}, {kind.precision}"
            axes.plot(values[mine], times[mine], "o", ms=4, color=_PALETTE[index % 6], label=label, alpha=0.85)
    _ring(axes, outcome, front, values, times)
    if times.max() > 10 * times.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(AXES[name] + (f" ({outcome.winner.currency})" if name == "cost" else ""))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=name == "nodes"))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0f}" if value < 1e4 else format_count(value))
    )
    axes.grid(alpha=0.25)


def _ring(axes: Any, outcome: Outcome, front: Found, values: Any, times: Any) -> None:
    """Ring the point of the winner of the single objective."""
    mine = np.flatnonzero(front.value(outcome.objective) <= outcome.value * (1 + 1e-12))
    if len(mine):
        axes.plot(values[mine[0]], times[mine[0]], "o", ms=11, mfc="none", mec="#222222",
                  label=f"least {_aim(outcome.objective)}")  # fmt: skip


def _aim(objective: str) -> str:
    return {"step": "step time", "train": "time to train"}.get(objective, objective)
