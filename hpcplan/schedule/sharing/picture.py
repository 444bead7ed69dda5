"""Who has which nodes when, policy beside policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.documents import write_figure
from hpcplan.errors import InputError
from hpcplan.schedule.sharing.compare import Outcome
from hpcplan.schedule.sharing.nodes import node_numbers
from hpcplan.schedule.sharing.problem import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_picture", "draw_outcomes"]

_FORMATS: Final = ("svg", "png", "pdf")
_COLOURS: Final = (
    "#4878a8", "#c9a25e", "#5f9270", "#b3616b", "#8d83b5", "#7aa6c9", "#b9802a", "#93b8a0", "#d19a8f", "#6b7280",
)  # fmt: skip
_MOST_NAMED: Final = 24  # workloads; more cannot be told apart by names


def check_picture(path: Path) -> str:
    """Return the format that a picture's name asks for.

    Raises:
        InputError: the name does not end in .svg, .png or .pdf.
    """
    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise InputError(f"{path}: a picture's name must end with .{', .'.join(_FORMATS)}")
    return kind


def draw_outcomes(problem: Problem, outcomes: Sequence[Outcome], path: Path, *, title: str = "") -> None:
    """Write a picture: a panel a policy, nodes upwards (pool above pool), time to the right.

    Raises:
        InputError: the name does not end in .svg, .png or .pdf.
        HpcplanError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    check_picture(path)
    height = 0.9 + len(outcomes) * max(1.5, min(3.2, 0.06 * sum(problem.pools.values()) + 0.35 * len(problem.pools)))
    figure = Figure(figsize=(10, height), layout="constrained")
    panels = figure.subplots(len(outcomes), 1, sharex=True, squeeze=False)[:, 0]
    longest = max(outcome.makespan_s for outcome in outcomes)
    unit_s, unit = next((s, name) for s, name in ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
                        if longest >= 2 * s or s == 1)  # fmt: skip
    for panel, outcome in zip(panels, outcomes, strict=True):
        _panel(panel, problem, outcome, unit_s)
    panels[-1].set_xlabel(f"time ({unit})")
    panels[-1].set_xlim(0, longest / unit_s * 1.01)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    if len(problem.jobs) <= _MOST_NAMED:
        _legend(figure, problem)
    write_figure(path, figure)


def _panel(panel: Axes, problem: Problem, outcome: Outcome, unit_s: float) -> None:
    from matplotlib.collections import PolyCollection

    bases, ticks, base = {}, [], 0
    for pool, nodes in problem.pools.items():
        bases[pool] = base
        ticks.append((base + nodes / 2, f"{pool} ({nodes})"))
        base += nodes
        panel.axhline(base, color="#8a8a8a", linewidth=0.8)
    numbers = node_numbers(problem, outcome.runs)
    boxes: list[list[tuple[float, float]]] = []
    colours: list[str] = []
    for run in outcome.runs:
        for place, piece in enumerate(run.pieces):
            low, high = piece.start_s / unit_s, piece.end_s / unit_s
            for first, last in _spans(numbers[run.job, place]):
                bottom, top = bases[piece.option.pool] + first, bases[piece.option.pool] + last + 1
                boxes.append([(low, bottom), (high, bottom), (high, top), (low, top)])
                colours.append(_COLOURS[run.job % len(_COLOURS)])
    panel.add_collection(PolyCollection(boxes, facecolors=colours, edgecolors="white", linewidths=0.6))
    panel.set_ylim(0, base)
    panel.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
    panel.tick_params(axis="y", length=0)
    panel.set_ylabel("nodes")
    mode = "" if outcome.mode == "static" else f", {outcome.mode}"
    panel.set_title(f"{outcome.policy}{mode}", loc="left", fontsize=10)


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return runs of consecutive numbers."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans


def _legend(figure: object, problem: Problem) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    assert isinstance(figure, Figure)
    patches = [Patch(color=_COLOURS[j % len(_COLOURS)], label=job.name) for j, job in enumerate(problem.jobs)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8, frameon=False)
