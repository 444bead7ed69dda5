"""Pictures of fabrics with levels: nodes in a row, switches in rows above them.

Up to ``MAX_DRAWN`` vertices a row are drawn one by one; a longer row shows the first and last few of what hangs under
the drawn ones above, and says how many there are in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hpcplan.site.draw_style import DRAINED, NODE, SWITCH, add_legend, count_of, link_width, ratios, tightness
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.units import format_bandwidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MAX_DRAWN", "draw_levels"]

MAX_DRAWN: Final = 16
_MAX_DRAINED: Final = 4  # of a long row, shown beside its first and last


def draw_levels(site: Site, topology: Topology) -> Figure:
    """Return the picture."""
    from matplotlib.figure import Figure

    rows = _rows(topology)
    widest = max(len(shown) for shown in rows)
    figure = Figure(figsize=(max(6.0, 0.62 * widest + 3.2), 1.6 * len(rows) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    places = _places(rows)
    rates, colours = _draw_links(axes, topology, places)
    _draw_vertices(axes, topology, places, widest)
    _draw_labels(axes, site, topology, rows)
    add_legend(axes, topology, rates, colours)
    nodes, switches = count_of(len(topology.nodes()), "node"), count_of(len(topology.switches()), "switch")
    kind = "" if topology.kind == "tree" else f" ({topology.kind})"
    axes.set_title(f"{site.name}: {nodes}, {switches}{kind}", loc="left")
    axes.set_axis_off()
    return figure


def _rows(topology: Topology) -> list[list[str | None]]:
    """Return the vertices to draw by level, nodes first; ``None`` stands for those left out.

    Only neighbours of drawn switches are drawn, so that no link hangs in the air.
    """
    levels = len(topology.levels())
    drawn: list[list[str | None]] = [_shortened(topology, topology.switches(levels), None)]
    for level in range(levels - 1, -1, -1):
        everyone = topology.switches(level) if level else topology.nodes()
        above = {name for row in drawn for name in row if name is not None}
        drawn.insert(0, _shortened(topology, everyone, above))
    return drawn


def _shortened(topology: Topology, names: list[str], above: set[str] | None) -> list[str | None]:
    if len(names) <= MAX_DRAWN:
        return list(names)
    if above is not None:
        names = [name for name in names if not above.isdisjoint(topology.graph[name])]
    if len(names) <= MAX_DRAWN:
        return list(names)
    out = [name for name in names if name in topology.drained][:_MAX_DRAINED]
    half = (MAX_DRAWN - len(out)) // 2
    first, last = names[:half], names[-half:]
    between: list[str | None] = [name for name in out if name not in first and name not in last]
    return [*first, None, *between, *([None] if between else []), *last]


def _places(rows: list[list[str | None]]) -> dict[str, tuple[float, float]]:
    places: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        for index, name in enumerate(row):
            if name is not None:
                places[name] = ((index + 0.5) / len(row), float(level))
    return places


def _draw_links(
    axes: Axes, topology: Topology, places: dict[str, tuple[float, float]]
) -> tuple[list[float], list[str]]:
    edges = [(a, b, data["bandwidth_bytes_per_s"]) for a, b, data in topology.graph.edges(places, data=True)]
    edges = [(a, b, rate) for a, b, rate in edges if a in places and b in places]
    slowest = min((rate for _, _, rate in edges), default=1.0)
    ratio, vertices = ratios(topology), topology.graph.nodes
    colours = []
    for a, b, rate in edges:
        low = a if vertices[a]["level"] < vertices[b]["level"] else b
        colour = tightness(ratio.get(vertices[low].get("bundle", low)))
        (xa, ya), (xb, yb) = places[a], places[b]
        axes.plot([xa, xb], [ya, yb], color=colour, linewidth=link_width(rate, slowest), zorder=1,
                  solid_capstyle="round", alpha=0.9 if len(edges) < _DENSE else 0.45)  # fmt: skip
        colours.append(colour)
    return [rate for _, _, rate in edges], colours


_DENSE: Final = 120
_CROWDED: Final = 8  # vertices in a row; the names of more are tilted


def _crowded(rows: list[list[str | None]]) -> bool:
    return max(len(row) for row in rows) > _CROWDED


def _draw_vertices(axes: Axes, topology: Topology, places: dict[str, tuple[float, float]], widest: int) -> None:
    for name, (x, y) in places.items():
        switch = topology.graph.nodes[name]["kind"] == "switch"
        colour = SWITCH if switch else DRAINED if name in topology.drained else NODE
        axes.scatter([x], [y], s=170, marker="s" if switch else "o", color=colour, zorder=2)
        crowded = widest > _CROWDED
        if switch:
            tilted: dict[str, Any] = {"rotation": 35, "ha": "left"} if crowded and len(name) > 5 else {"ha": "center"}
        else:
            tilted = {"rotation": 50, "ha": "right"} if crowded else {"ha": "center"}
        below = -0.17 if not switch else 0.14
        axes.text(x, y + below, name, va="top" if below < 0 else "bottom", fontsize=7.5, zorder=3, **tilted,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.6, "pad": 0.8})  # fmt: skip


def _draw_labels(axes: Axes, site: Site, topology: Topology, rows: list[list[str | None]]) -> None:
    levels = topology.levels()
    for y, row in enumerate(rows):
        lines = [count_of(len(topology.nodes()), "node") if y == 0 else count_of(levels[y - 1].switches, "switch")]
        if y == 0:
            groups = site.node_groups.items()
            lines += [f"{name}: {format_bandwidth(group.node_bandwidth_bytes_per_s)} each" for name, group in groups]
            domains = {group.intra_node.domain_nodes for _, group in groups if group.intra_node} - {1}
            lines += [f"{nodes} nodes an NVLink domain" for nodes in sorted(domains)]
            if len(lines) > _MAX_GROUPS:
                lines = [*lines[:_MAX_GROUPS], f"and {len(lines) - _MAX_GROUPS} more groups"]
        else:
            ratio = levels[y - 1].oversubscription
            lines += [f"oversubscribed {ratio:.2g} : 1" if ratio > 1.05 else "full bisection"] if ratio else []
        axes.text(1.03, y, "\n".join(lines), va="center", fontsize=8, transform=axes.get_yaxis_transform())
        for index, name in enumerate(row):
            if name is None:
                axes.text((index + 0.5) / len(row), y, "…", ha="center", va="center", fontsize=14)
    axes.set_xlim(0, 1)
    longest = max((len(name) for name in rows[-1] if name is not None), default=0)
    tilted = len(rows[-1]) > 8 and longest > 5
    below = max((len(name) for name in rows[0] if name is not None), default=0) if _crowded(rows) else 0
    axes.set_ylim(
        min(-0.65, -0.3 - 0.033 * min(below, 30)), len(rows) - 0.55 + (0.03 * min(longest, 24) if tilted else 0.0)
    )


_MAX_GROUPS: Final = 6
