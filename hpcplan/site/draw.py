"""A picture of a site's topology, readable for ten nodes as for ten thousand.

Trees, rails, Clos networks and blocks are drawn level by level, dragonflies as a circle of groups, toruses as grids.
What would not fit a page is left out or drawn as one, and the picture says how many it stands for. Link width is
bandwidth; colour tells up-links that are oversubscribed and nodes that are drained.
"""

from __future__ import annotations

from pathlib import Path

from hpcplan.documents import write_figure
from hpcplan.errors import InputError
from hpcplan.site.draw_levels import MAX_DRAWN, draw_levels
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology

__all__ = ["FORMATS", "MAX_DRAWN", "draw_topology"]

FORMATS = ("svg", "png", "pdf")


def draw_topology(site: Site, topology: Topology, path: Path) -> None:
    """Write the picture to ``path``; its suffix says the format (svg, png, pdf).

    Raises:
        InputError: another suffix.
        HpcplanError: the file cannot be written.
    """
    from hpcplan.site.draw_groups import draw_dragonfly
    from hpcplan.site.draw_torus import draw_toruses

    form = path.suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise InputError(f"{path}: a picture's name must end with .{', .'.join(FORMATS)}")
    if topology.kind == "torus":
        figure = draw_toruses(site, topology)
    elif topology.kind == "dragonfly":
        figure = draw_dragonfly(site, topology)
    else:
        figure = draw_levels(site, topology)
    write_figure(path, figure, salt=site.name)
