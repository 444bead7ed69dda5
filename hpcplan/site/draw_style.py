"""Colours, line widths and the legend that all pictures of topologies share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from hpcplan.site.topology import Topology
from hpcplan.units import format_bandwidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DRAINED", "LINK", "NODE", "SWITCH", "add_legend", "count_of", "link_width", "ratios", "tightness"]

SWITCH: Final = "#33608c"
NODE: Final = "#4d8f5b"
DRAINED: Final = "#b8282e"
LINK: Final = "#8a8a8a"
_TIGHT: Final = ((1.05, "#e0a030", "oversubscribed up to 2 : 1"), (2.0001, "#c2571a", "oversubscribed more than 2 : 1"))


def ratios(topology: Topology) -> dict[str, float]:
    """Return what enters each bundle from below over what leaves it upwards, for those that have an up-link."""
    h = topology.hierarchy
    found: dict[str, float] = {}
    enters = [0.0] * len(h.names)
    for number in range(len(h.names)):
        if number >= h.host_count and h.up_bytes_per_s[number] > 0:
            found[h.names[number]] = enters[number] / float(h.up_bytes_per_s[number])
        if h.parent[number] >= 0:
            enters[int(h.parent[number])] += float(h.up_bytes_per_s[number])
    return found


def tightness(ratio: float | None) -> str:
    """Return the colour of an up-link with that oversubscription."""
    colour = LINK
    for least, shade, _ in _TIGHT:
        if ratio is not None and ratio > least:
            colour = shade
    return colour


def link_width(bytes_per_s: float, slowest: float) -> float:
    """Return a line width in points: 1.5 for the slowest link drawn, 0.7 more for each doubling, 7 at most."""
    return min(7.0, 0.8 + 0.7 * math.log2(bytes_per_s / slowest + 1))


def count_of(number: int, what: str) -> str:
    """Return ``1 node``, ``8 nodes``, ``2 switches``."""
    ending = "" if number == 1 else "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{ending}"


def add_legend(axes: Axes, topology: Topology, rates: Iterable[float], colours: Iterable[str]) -> None:
    """Say what colours and widths mean, as far as they are in the picture."""
    from matplotlib.lines import Line2D

    used = set(colours)
    entries: list[Any] = []
    if topology.drained:
        label = f"drained: {count_of(len(topology.drained), 'node')}"
        entries.append(Line2D([], [], marker="o", linestyle="", color=DRAINED, label=label))
    entries += [Line2D([], [], color=shade, linewidth=2.5, label=label) for _, shade, label in _TIGHT if shade in used]
    several = sorted(set(rates))
    for rate in dict.fromkeys([several[0], several[-1]] if several else []):
        entries.append(Line2D([], [], color=LINK, linewidth=link_width(rate, several[0]), label=format_bandwidth(rate)))
    if entries:
        axes.legend(
            handles=entries, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=7.5, frameon=False
        )
