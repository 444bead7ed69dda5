"""Pictures of toruses: rings as circles, two dimensions as a grid, three as grids side by side, one a layer.

A torus too large for the page is drawn in cells that each stand for a box of nodes, and the picture says of how many.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.site.draw_style import DRAINED, LINK, NODE, add_legend, count_of
from hpcplan.site.hierarchy import Ints
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.site.torus import Grid
from hpcplan.units import format_bandwidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_toruses"]

MAX_TORUSES: Final = 6
MAX_SIDE: Final = 12  # cells along one axis
MAX_LAYERS: Final = 6
_FEW: Final = 40  # nodes that still have their names


def draw_toruses(site: Site, topology: Topology) -> Figure:
    """Return the picture."""
    from matplotlib.figure import Figure

    shown = topology.grids[:MAX_TORUSES]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    wide = max(_width(grid) for grid in shown)
    figure = Figure(figsize=(max(4.5, min(15.0, wide)) * columns, 4.8 * rows + 0.6), layout="constrained")
    for number, grid in enumerate(shown):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_aspect("equal")
        axes.set_axis_off()
        _draw_one(axes, topology, grid)
        if number == len(shown) - 1:
            add_legend(axes, topology, [grid.torus.link_bytes_per_s], [])
    title = f"{site.name}: {count_of(len(topology.nodes()), 'node')} in {count_of(len(topology.grids), 'torus')}"
    title = title.replace("toruss", "toruses")
    if len(topology.grids) > len(shown):
        title += f", {len(shown)} drawn"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _width(grid: Grid) -> float:
    layers = min(MAX_LAYERS, _layers(grid))
    return 4.2 if layers == 1 else 2.6 * min(3, layers)


def _squeezed(grid: Grid) -> tuple[int, ...]:
    """Return the dimensions without those of one, at least one of them."""
    return tuple(size for size in grid.torus.dims if size > 1) or (1,)


def _layers(grid: Grid) -> int:
    return math.prod(sorted(_squeezed(grid))[:-2])


def _draw_one(axes: Axes, topology: Topology, grid: Grid) -> None:
    dims = _squeezed(grid)
    out = np.array([topology.hierarchy.names[host] in topology.drained for host in grid.hosts]).reshape(dims)
    order = sorted(range(len(dims)), key=lambda axis: dims[axis])  # the two longest span the grids
    dims, out = tuple(dims[axis] for axis in order), out.transpose(order)
    size = " x ".join(map(str, grid.torus.dims))
    label = f"{grid.torus.name}: {size}, {format_bandwidth(grid.torus.link_bytes_per_s)} a link"
    if len(dims) == 1:
        _draw_ring(axes, topology, grid, out.ravel())
        axes.set_title(label, fontsize=9)
        return
    layers = math.prod(dims[:-2])
    flat = out.reshape(layers, *dims[-2:])
    steps = tuple(math.ceil(size / MAX_SIDE) for size in dims[-2:])
    many = math.ceil(layers / MAX_LAYERS)
    counts = _boxes(flat, (many, *steps))
    gap = counts.shape[2] + 2.2
    for layer in range(counts.shape[0]):
        corner = ((layer % 3) * gap, -(layer // 3) * (counts.shape[1] + 2.6))
        what = f"layers {layer * many + 1}-{min(layers, (layer + 1) * many)}" if many > 1 else f"layer {layer + 1}"
        _draw_grid(axes, counts[layer], corner, what if layers > 1 else "", wraps=dims[-2] > 2)
    cell = many * math.prod(steps)
    if cell > 1:
        label += f"\neach circle stands for up to {many * steps[0] * steps[1]} nodes ({many} x {steps[0]} x {steps[1]})"
    axes.set_title(label, fontsize=9)


def _boxes(out: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], steps: tuple[int, ...]) -> Ints:
    """Return how many are drained in each box of that size."""
    counts: Ints = out.astype(np.int64)
    for axis, step in enumerate(steps):
        starts = np.arange(0, counts.shape[axis], step)
        counts = np.add.reduceat(counts, starts, axis=axis)
    return counts


def _draw_grid(axes: Axes, counts: Ints, corner: tuple[float, float], what: str, *, wraps: bool) -> None:
    height, width = counts.shape
    x0, y0 = corner
    for row in range(height):
        reach = (-0.45, width - 0.55) if wraps else (0, width - 1)
        axes.plot([x0 + reach[0], x0 + reach[1]], [y0 - row, y0 - row], color=LINK, linewidth=1.4, zorder=1)
    for column in range(width):
        reach = (0.45, -(height - 0.55)) if wraps else (0, -(height - 1))
        axes.plot([x0 + column] * 2, [y0 + reach[0], y0 + reach[1]], color=LINK, linewidth=1.4, zorder=1)
    for row in range(height):
        for column in range(width):
            bad = int(counts[row, column])
            axes.scatter(x0 + column, y0 - row, s=70, color=DRAINED if bad else NODE, zorder=2)
            if bad > 1:
                axes.text(
                    x0 + column, y0 - row, str(bad), color="white", fontsize=5.5, ha="center", va="center", zorder=3
                )
    if what:
        axes.text(x0 + (width - 1) / 2, y0 + 0.8, what, ha="center", fontsize=7.5)


def _draw_ring(
    axes: Axes, topology: Topology, grid: Grid, out: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> None:
    count = len(out)
    step = math.ceil(count / 64)
    bad = np.add.reduceat(out.astype(np.int64), np.arange(0, count, step))
    turns = [math.tau * (0.25 - index / len(bad)) for index in range(len(bad))]
    around = [*turns, turns[0]]
    axes.plot(np.cos(around), np.sin(around), color=LINK, linewidth=1.6, zorder=1)
    for index, turn in enumerate(turns):
        x, y = math.cos(turn), math.sin(turn)
        axes.scatter(x, y, s=90, color=DRAINED if bad[index] else NODE, zorder=2)
        if count <= _FEW:
            name = topology.hierarchy.names[grid.hosts[index]]
            axes.text(1.16 * x, 1.16 * y, name, ha="center", va="center", fontsize=7)
    if step > 1:
        axes.text(0, 0, f"{count} nodes,\n{step} a circle", ha="center", va="center", fontsize=8)
    axes.set_xlim(-1.4, 1.4)
    axes.set_ylim(-1.4, 1.4)
