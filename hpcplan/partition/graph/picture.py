"""A picture of a split: how busy each device is, and the graph with each node in its device's colour, as SVG."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from html import escape
from typing import Final

from hpcplan.partition.graph.model import LayerGraph, Split

__all__ = ["draw_split"]

WIDTH: Final = 1120.0
MARGIN: Final = 24.0
BAR: Final = 26.0
LABEL: Final = 90.0
LEAST, MOST = 2.0, 12.0  # of a node's radius
NAMED: Final = 40  # graphs of at most so many nodes get their ids written


def draw_split(graph: LayerGraph, split: Split, title: str) -> str:
    """Return an SVG document, the same for the same split: bars above, the graph below, data flowing to the right."""
    devices = list(split.loads)
    color = dict(zip(devices, _colors(devices), strict=True))
    bars, top = _bars(split, color)
    dots, height = _graph(graph, split, color, top)
    gap = "proven optimal" if split.gap == 0 else f"the optimum is at most {split.gap:.2%} lower"
    head = f"{title}: the busiest device takes {split.objective:.6g}, {gap}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="13" role="img">\n'
        f"<title>{escape(head)}</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{MARGIN}" y="{MARGIN + 6}" font-size="16" font-weight="bold">{escape(head)}</text>\n'
        + "\n".join([*bars, *dots])
        + "\n</svg>\n"
    )


def _colors(devices: Sequence[str]) -> list[str]:
    """Return a colour for each device: hues around the circle, CPUs in greys."""
    accelerators = [name for name in devices if not name.startswith("cpu")]
    colors = []
    for name in devices:
        if name in accelerators:
            at = accelerators.index(name)
            lightness = (0.46, 0.62)[at % 2]
            red, green, blue = colorsys.hls_to_rgb(at / len(accelerators) * 0.92, lightness, 0.62)
        else:
            red = green = blue = 0.35 + 0.3 * ((devices.index(name) - len(accelerators)) % 2)
        colors.append(f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}")
    return colors


def _bars(split: Split, color: dict[str, str]) -> tuple[list[str], float]:
    room = WIDTH - 2 * MARGIN - LABEL - 90
    largest = max(split.objective, 1e-300)
    lines = []
    y = 2 * MARGIN
    for device, load in split.loads.items():
        width = room * load / largest
        nodes = sum(name == device for name in split.assignment.values())
        plural = "" if nodes == 1 else "s"
        lines.append(f'<text x="{MARGIN}" y="{y + BAR * 0.62:.1f}">{device}</text>')
        lines.append(
            f'<rect x="{LABEL:.0f}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 6:.0f}" rx="2" '
            f'fill="{color[device]}">'
            f"<title>{device}: {load:.6g}, {nodes} node{plural}</title></rect>"
        )
        lines.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + BAR * 0.62:.1f}" fill="#444">{load:.6g}</text>')
        y += BAR
    x = LABEL + room * split.bound / largest
    lines.insert(
        0,
        f'<line x1="{x:.1f}" y1="{2 * MARGIN - 4:.1f}" x2="{x:.1f}" y2="{y:.1f}" stroke="#000" '
        'stroke-dasharray="4 3"/>',
    )
    lines.append(
        f'<text x="{x:.1f}" y="{y + 12:.1f}" text-anchor="middle" font-size="11">bound {split.bound:.6g}</text>'
    )
    return lines, y + 2 * MARGIN


def _graph(graph: LayerGraph, split: Split, color: dict[str, str], top: float) -> tuple[list[str], float]:
    place, bottom = _places(graph, top)
    busiest = max((max(n.accelerator_time, 0.0) for n in graph.nodes), default=0.0) or 1.0
    edges = []
    for source, target in graph.edges:
        (x1, y1), (x2, y2) = place[source], place[target]
        same = split.assignment[graph.nodes[source].id] == split.assignment[graph.nodes[target].id]
        look = 'stroke="#c8c8c8"' if same else 'stroke="#222" stroke-width="1.3"'
        bend = (x2 - x1) / 2
        edges.append(
            f'<path d="M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}" '
            f'fill="none" {look}/>'
        )
    dots = []
    for i, node in enumerate(graph.nodes):
        x, y = place[i]
        device = split.assignment[node.id]
        radius = LEAST + (MOST - LEAST) * (node.accelerator_time / busiest) ** 0.5
        name = f" {node.name}" if node.name else ""
        stroke = ' stroke="#000" stroke-dasharray="2 2"' if node.backward else ""
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{color[device]}"{stroke}>'
            f"<title>{escape(f'{node.id}{name} on {device}')}</title></circle>"
        )
        if len(graph.nodes) <= NAMED:
            dots.append(
                f'<text x="{x:.1f}" y="{y - radius - 3:.1f}" text-anchor="middle" font-size="9">{node.id}</text>'
            )
    return [*edges, *dots], bottom + MARGIN


def _places(graph: LayerGraph, top: float) -> tuple[list[tuple[float, float]], float]:
    """Return where each node is drawn: to the right of all it needs, in rows that wrap like text."""
    depth = _depths(graph)
    columns: dict[int, list[int]] = {}
    for i, d in enumerate(depth):
        columns.setdefault(d, []).append(i)
    step = max(14.0, min(40.0, (WIDTH - 2 * MARGIN) / max(1, len(columns))))
    a_row = max(1, int((WIDTH - 2 * MARGIN) / step))
    place = [(0.0, 0.0)] * len(graph.nodes)
    y = top
    ordered = sorted(columns)
    for start in range(0, len(ordered), a_row):
        row = ordered[start : start + a_row]
        height = max(len(columns[d]) for d in row) * 26.0
        for at, d in enumerate(row):
            for position, i in enumerate(columns[d]):
                offset = (position + 0.5) * height / len(columns[d])
                place[i] = (MARGIN + (at + 0.5) * step, y + offset)
        y += height + 14.0
    return place, y


def _depths(graph: LayerGraph) -> list[int]:
    before: list[int] = [0] * len(graph.nodes)
    after: list[list[int]] = [[] for _ in graph.nodes]
    for source, target in graph.edges:
        after[source].append(target)
        before[target] += 1
    depth = [0] * len(graph.nodes)
    ready = [i for i, count in enumerate(before) if not count]
    for i in ready:  # grows while it is walked
        for target in after[i]:
            depth[target] = max(depth[target], depth[i] + 1)
            before[target] -= 1
            if not before[target]:
                ready.append(target)
    return depth
