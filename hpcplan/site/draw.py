"""A picture of a site's topology: levels as rows, link width by bandwidth, oversubscribed up-links in colour.

Up to ``MAX_DRAWN`` vertices a row are drawn one by one; a longer row shows its first and last few and says how many lie
between, so that ten nodes and ten thousand both fit a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcplan.documents import write_bytes
from hpcplan.errors import InputError
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.units import format_bandwidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MAX_DRAWN", "draw_topology"]

MAX_DRAWN = 16
_FORMATS = ("svg", "png", "pdf")
_SWITCH, _NODE, _LINK, _TIGHT = "#33608c", "#4d8f5b", "#8a8a8a", "#c2571a"


def draw_topology(site: Site, topology: Topology, path: Path) -> None:
    """Write the picture to ``path``; its suffix says the format (svg, png, pdf).

    Raises:
        InputError: another suffix.
        HpcplanError: the file cannot be written.
    """
    import io

    import matplotlib
    from matplotlib.figure import Figure

    kind = path.suffix.lstrip(".").lower()
    if kind not in _FORMATS:
        raise InputError(f"{path}: a picture's name must end with .{', .'.join(_FORMATS)}")
    rows = _rows(topology)
    widest = max(len(shown) for shown in rows)
    figure = Figure(figsize=(max(6.0, 0.62 * widest + 3.2), 1.5 * len(rows) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    places = _places(rows)
    _draw_links(axes, topology, places)
    _draw_vertices(axes, topology, places, widest)
    _draw_labels(axes, site, topology, rows)
    axes.set_title(f"{site.name}: {len(topology.nodes())} nodes, {len(topology.switches())} switches", loc="left")
    axes.set_axis_off()
    buffer = io.BytesIO()
    # No date and no random ids in the file: the same site gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": site.name}):
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_bytes(path, buffer.getvalue())


def _rows(topology: Topology) -> list[list[str | None]]:
    """Return the vertices to draw by level, nodes first; ``None`` stands for those left out.

    Only children of drawn switches are drawn, so that no link hangs in the air.
    """
    levels = len(topology.levels())
    drawn = [_shortened(topology.switches(levels))]
    for level in range(levels - 1, -1, -1):
        above = {name for name in drawn[0] if name is not None}
        everyone = topology.switches(level) if level else topology.nodes()
        drawn.insert(0, _shortened(everyone, above, topology))
    return drawn


def _shortened(names: list[str], above: set[str] | None = None, topology: Topology | None = None) -> list[str | None]:
    if len(names) <= MAX_DRAWN:
        return list(names)
    if above is not None and topology is not None:
        names = [name for name in names if topology.ancestors(name)[:1] and topology.ancestors(name)[0] in above]
    if len(names) <= MAX_DRAWN:
        return list(names)
    half = MAX_DRAWN // 2
    return [*names[:half], None, *names[-half:]]


def _places(rows: list[list[str | None]]) -> dict[str, tuple[float, float]]:
    places: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        for index, name in enumerate(row):
            if name is not None:
                places[name] = ((index + 0.5) / len(row), float(level))
    return places


def _draw_links(axes: Axes, topology: Topology, places: dict[str, tuple[float, float]]) -> None:
    import math

    edges = [(a, b, data) for a, b, data in topology.graph.edges(data=True) if a in places and b in places]
    slowest = min(data["bandwidth_bytes_per_s"] for _, _, data in edges)
    tight = {level.level for level in topology.levels() if (level.oversubscription or 0) > 1.05}
    level_of: dict[str, int] = {name: data["level"] for name, data in topology.graph.nodes(data=True)}
    for a, b, data in edges:
        low = min(level_of[a], level_of[b])
        width = 0.8 + 0.7 * math.log2(data["bandwidth_bytes_per_s"] / slowest + 1)
        colour = _TIGHT if low in tight else _LINK
        (xa, ya), (xb, yb) = places[a], places[b]
        axes.plot([xa, xb], [ya, yb], color=colour, linewidth=width, zorder=1, solid_capstyle="round")


def _draw_vertices(axes: Axes, topology: Topology, places: dict[str, tuple[float, float]], widest: int) -> None:
    for name, (x, y) in places.items():
        switch = topology.graph.nodes[name]["kind"] == "switch"
        axes.scatter([x], [y], s=170, marker="s" if switch else "o", color=_SWITCH if switch else _NODE, zorder=2)
        tilted: dict[str, Any] = {"rotation": 50, "ha": "right"} if not switch and widest > 8 else {"ha": "center"}
        below = -0.17 if not switch else 0.14
        axes.text(x, y + below, name, va="top" if below < 0 else "bottom", fontsize=7.5, zorder=3, **tilted)


def _draw_labels(axes: Axes, site: Site, topology: Topology, rows: list[list[str | None]]) -> None:
    levels = topology.levels()
    for y, row in enumerate(rows):
        total = len(topology.nodes()) if y == 0 else levels[y - 1].switches
        what = "nodes" if y == 0 else "switches"
        lines = [f"{total} {what}" if total != 1 else f"1 {what.rstrip('s')}" if y == 0 else "1 switch"]
        if y == 0:
            groups = site.node_groups.items()
            lines += [f"{name}: {format_bandwidth(group.node_bandwidth_bytes_per_s)} each" for name, group in groups]
        else:
            ratio = levels[y - 1].oversubscription
            lines += [f"oversubscribed {ratio:.2g} : 1" if ratio > 1.05 else "full bisection"] if ratio else []
        axes.text(1.03, y, "\n".join(lines), va="center", fontsize=8, transform=axes.get_yaxis_transform())
        if None in row:
            gap = (row.index(None) + 0.5) / len(row)
            axes.text(gap, y, "…", ha="center", va="center", fontsize=14)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.65, len(rows) - 0.65)
