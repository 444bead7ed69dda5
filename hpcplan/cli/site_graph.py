"""``hpcplan site graph``: a picture of a site's topology, or its graph for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from hpcplan.cli.output import narrate

__all__ = ["command"]


@click.command("graph")
@click.argument("site")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--inside", is_flag=True, help="With the GPUs, interfaces and sockets of every node (not in pictures).")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False),
    help="A picture (svg, png, pdf) or a graph (graphml, json, dot), by the suffix.",
)  # fmt: skip
def command(site: str, sites_dir: Path | None, inside: bool, output: Path) -> None:
    """Draw a site's topology, or write its graph for other programs.

    Pictures show link width by bandwidth; oversubscribed up-links and drained nodes are in colour. Graphs have every
    vertex with its kind and level, every edge with bandwidth_bytes_per_s, latency_s and links.

    \b
    Example:
      hpcplan site graph mixed-lab -o mixed-lab.svg
      hpcplan site graph superpod-h100 --inside -o superpod.graphml
    """
    from hpcplan.documents import write_text
    from hpcplan.errors import InputError
    from hpcplan.site.draw import FORMATS, draw_topology
    from hpcplan.site.export import GRAPHS, graph_as
    from hpcplan.site.inside import with_insides
    from hpcplan.site.load import load_site
    from hpcplan.site.topology import build_topology

    loaded = load_site(site, sites_dir)
    form = output.suffix.lstrip(".").lower()
    if form not in (*FORMATS, *GRAPHS):
        raise InputError(f"{output}: the name must end with .{', .'.join((*FORMATS, *GRAPHS))}")
    if inside and form in FORMATS:
        raise click.UsageError("pictures do not show the insides of nodes; write graphml, json or dot")
    topology = build_topology(loaded.site)
    if form in FORMATS:
        draw_topology(loaded.site, topology, output)
    else:
        graph = with_insides(topology, loaded.site) if inside else topology.graph
        write_text(output, graph_as(graph, form))
    narrate(f"wrote {output}")
