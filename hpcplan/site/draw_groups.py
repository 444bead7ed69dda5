"""Pictures of dragonflies: groups on a circle, routers on a small circle in each, global links across.

Of many groups each becomes one vertex; of many more, some are left out, and the picture says how many.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

from hpcplan.site.draw_style import DRAINED, NODE, SWITCH, add_legend, count_of, link_width, ratios, tightness
from hpcplan.site.hierarchy import Bundle
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.units import format_bandwidth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_dragonfly"]

MAX_GROUPS: Final = 24
MAX_ROUTERS: Final = 96  # drawn one by one
MAX_NODES: Final = 128

Place = tuple[float, float]


def draw_dragonfly(site: Site, topology: Topology) -> Figure:
    """Return the picture."""
    from matplotlib.figure import Figure

    groups = [bundle for bundle in topology.bundles() if any(child.physical for child in _children(topology, bundle))]
    routers = topology.bundles(1)
    figure = Figure(figsize=(8.4, 8.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.35, 1.35)
    axes.set_ylim(-1.35, 1.35)
    shown = groups[:MAX_GROUPS]
    if len(routers) <= MAX_ROUTERS and len(groups) > 1:
        rates, colours = _draw_routers(axes, topology, shown)
    else:
        rates, colours = _draw_groups(axes, topology, shown)
    title = f"{site.name}: {count_of(len(topology.nodes()), 'node')}, {count_of(len(routers), 'router')} in "
    title += count_of(len(groups), "group")
    if len(groups) > len(shown):
        title += f", {len(shown)} drawn"
    axes.set_title(title, loc="left")
    axes.text(0, 0, _middle(topology), ha="center", va="center", fontsize=8, zorder=5,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    add_legend(axes, topology, rates, colours)
    return figure


def _children(topology: Topology, bundle: Bundle) -> list[Bundle]:
    return [topology.hierarchy.bundles[name] for name in bundle.children]


def _middle(topology: Topology) -> str:
    lines = []
    for level, what in zip(topology.levels(), ("router", "group"), strict=False):
        ratio = level.oversubscription
        if ratio:
            tight = f"oversubscribed {ratio:.2g} : 1" if ratio > 1.05 else "no oversubscription"
            lines.append(f"out of each {what}: {format_bandwidth(level.up_bytes_per_s / level.switches)}, {tight}")
    return "\n".join(lines)


def _circle(count: int, radius: float, centre: Place = (0.0, 0.0)) -> list[Place]:
    if count == 1:
        return [centre]
    turns = [math.tau * (0.25 - index / count) for index in range(count)]
    return [(centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn)) for turn in turns]


def _draw_routers(axes: Axes, topology: Topology, groups: list[Bundle]) -> tuple[list[float], list[str]]:
    places: dict[str, Place] = {}
    size = min(0.3, 0.75 * math.pi / max(3, len(groups)))
    for group, centre in zip(groups, _circle(len(groups), 0.95), strict=True):
        names = [name for child in _children(topology, group) for name in child.switches]
        places |= dict(zip(names, _circle(len(names), size * 0.62, centre), strict=True))
        out = (centre[0] * 1.33, centre[1] * 1.33)
        axes.text(*out, group.name, ha="center", va="center", fontsize=9, weight="bold")
    edges = [(a, b, d["bandwidth_bytes_per_s"]) for a, b, d in topology.graph.edges(places, data=True)]
    edges = [(a, b, rate) for a, b, rate in edges if a in places and b in places]
    colours = _lines(axes, topology, places, edges)
    with_nodes = len(topology.nodes()) <= MAX_NODES
    for name, place in places.items():
        axes.scatter(*place, s=90, marker="s", color=SWITCH, zorder=3)
        hosts = [host for host in topology.graph[name] if topology.graph.nodes[host]["kind"] == "node"]
        if with_nodes:
            for host, (x, y) in zip(hosts, _circle(len(hosts), size * 0.2, place), strict=True):
                axes.scatter(x, y, s=14, color=DRAINED if host in topology.drained else NODE, zorder=4)
        else:
            axes.text(
                place[0], place[1], str(len(hosts)), color="white", ha="center", va="center", fontsize=6, zorder=4
            )
    return [rate for _, _, rate in edges], colours


def _lines(axes: Axes, topology: Topology, places: dict[str, Place], edges: list[tuple[str, str, float]]) -> list[str]:
    slowest = min((rate for _, _, rate in edges), default=1.0)
    ratio = ratios(topology)
    colours = []
    for a, b, rate in edges:
        ends = [topology.ancestors(name)[:1] for name in (a, b)]
        inside = ends[0] == ends[1]
        worst = ratio.get(a) if inside else max((ratio.get(end[0], 0.0) for end in ends if end), default=None)
        colours.append(tightness(worst))
        axes.plot(*zip(places[a], places[b], strict=True), color=colours[-1], zorder=1,
                  linewidth=0.6 * link_width(rate, slowest), alpha=0.7)  # fmt: skip
    return colours


def _draw_groups(axes: Axes, topology: Topology, groups: list[Bundle]) -> tuple[list[float], list[str]]:
    """Draw each group as one vertex, and all global links between two as one."""
    places = dict(zip([group.name for group in groups], _circle(len(groups), 1.0), strict=True))
    rates, colours = [], []
    of = {name: group.name for group in groups for child in _children(topology, group) for name in child.switches}
    between: dict[frozenset[str], float] = {}
    for a, b, data in topology.graph.edges(data=True):
        if a in of and b in of and of[a] != of[b]:
            pair = frozenset((of[a], of[b]))
            between[pair] = between.get(pair, 0.0) + data["bandwidth_bytes_per_s"]
    slowest = min(between.values(), default=1.0)
    ratio = ratios(topology)
    for a, b in combinations(places, 2):
        rate = between.get(frozenset((a, b)))
        if rate is not None:
            colours.append(tightness(max(ratio.get(a, 0.0), ratio.get(b, 0.0))))
            rates.append(rate)
            axes.plot(*zip(places[a], places[b], strict=True), color=colours[-1], zorder=1, alpha=0.5,
                      linewidth=0.6 * link_width(rate, slowest))  # fmt: skip
    for group in groups:
        hosts = [host for child in _children(topology, group) for host in child.hosts]
        out = sum(host in topology.drained for host in hosts)
        x, y = places[group.name]
        axes.scatter(x, y, s=260, marker="s", color=SWITCH, zorder=2)
        label = f"{group.name}\n{count_of(len(hosts), 'node')}"
        axes.text(x * 1.2, y * 1.2, label, ha="center", va="center", fontsize=7)
        if out:
            axes.text(x, y, str(out), color="white", ha="center", va="center", fontsize=7, zorder=3,
                      bbox={"facecolor": DRAINED, "edgecolor": "none", "pad": 1.5})  # fmt: skip
    return rates, colours
