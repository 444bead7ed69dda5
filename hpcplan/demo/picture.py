"""The loop as a picture, with the figures of one turn of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.documents import write_figure
from hpcplan.plan import Plan
from hpcplan.units import format_duration

__all__ = ["Turn", "draw_loop"]

_BOX: Final = {"boxstyle": "round,pad=0.5", "linewidth": 1.4}
_VALUE, _ROOM = "#e9f0f7", "#fdf3e3"
_EDGE = "#33608c"
# name, place, whether it is a value that flows or a room that works
_PLACES: Final[dict[str, tuple[float, float, bool]]] = {
    "workload": (0.09, 0.88, True), "site": (0.09, 0.58, True), "partition": (0.34, 0.73, False),
    "plan": (0.60, 0.73, True), "render": (0.86, 0.73, False), "campaign": (0.86, 0.40, False),
    "cluster": (0.86, 0.08, False), "accounting": (0.60, 0.08, True), "report": (0.34, 0.08, False),
    "calibrate": (0.34, 0.40, False),
}  # fmt: skip
_ARROWS: Final = (
    ("workload", "partition"), ("site", "partition"), ("partition", "plan"), ("plan", "render"), ("render", "campaign"),
    ("campaign", "cluster"), ("cluster", "accounting"), ("accounting", "report"), ("report", "calibrate"),
    ("calibrate", "partition"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """The figures of one turn of the loop."""

    plan: Plan
    scripts: int
    jobs: tuple[int, ...]
    state: str
    waited_s: int
    ran_s: int
    utilisation: float | None


def _texts(turn: Turn) -> dict[str, tuple[str, str]]:
    plan, best = turn.plan, turn.plan.plan
    span = f"{turn.jobs[0]} to {turn.jobs[-1]}" if turn.jobs else "none"
    sharding = f"tp {best.tp}, pp {best.pp}, cp {best.cp}, dp {best.dp}"
    times = f"waited {format_duration(turn.waited_s)},\nran {format_duration(turn.ran_s)}"
    used = "unknown" if turn.utilisation is None else f"{turn.utilisation:.0%}"
    return {
        "workload": ("Workload", f"{plan.training.model}, {plan.training.tokens / 1e9:,.0f} B tokens"),
        "site": ("Site", f"{plan.provenance.site.name}, {best.nodes} nodes asked"),
        "partition": ("partition/", f"{plan.search.candidates:,} shardings\npriced by cost/"),
        "plan": ("Plan", f"{sharding}\n{format_duration(plan.estimate.iter_time_s)} a step"),
        "render": ("render/", f"{turn.scripts} sbatch scripts"),
        "campaign": ("campaign/", f"jobs {span}: {turn.state}"),
        "cluster": ("Slurm, or simulate/", times),
        "accounting": ("Accounting", "one JobRecord a job"),
        "report": ("report/", f"nodes used {used}"),
        "calibrate": ("calibrate/", "better constants"),
    }  # fmt: skip


def draw_loop(turn: Turn, path: Path) -> None:
    """Write the picture as SVG: what flows in blue boxes, what works on it in yellow ones.

    Raises:
        HpcplanError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.04, 1.0)
    axes.set_axis_off()
    texts, boxes = _texts(turn), {}
    for name, (x, y, flows) in _PLACES.items():
        title, figures = texts[name]
        style = {**_BOX, "facecolor": _VALUE if flows else _ROOM, "edgecolor": _EDGE if flows else "#b9802a"}
        label = rf"$\bf{{{title.replace(' ', chr(92) + ' ')}}}$" + f"\n{figures}"
        boxes[name] = axes.text(x, y, label, ha="center", va="center", fontsize=8.6, bbox=style, zorder=2)
    for start, end in _ARROWS:
        axes.annotate(
            "", xy=_PLACES[end][:2], xytext=_PLACES[start][:2], zorder=1,
            arrowprops={
                "arrowstyle": "-|>", "color": "#6b6b6b", "linewidth": 1.6, "shrinkA": 3, "shrinkB": 3,
                "patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch(),
            },
        )  # fmt: skip
    write_figure(path, figure, salt="loop")
