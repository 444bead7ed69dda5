"""``hpcplan site export``: a site's topology in the formats of others."""

from __future__ import annotations

from pathlib import Path

import click

from hpcplan.cli.output import narrate

__all__ = ["command"]


@click.command("export")
@click.argument("site")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["topology.conf", "topology.yaml", "graphml", "json", "dot"]),
    default="topology.conf",
    show_default=True,
    help="What to write.",
)
@click.option(
    "--plugin",
    type=click.Choice(["auto", "tree", "block"]),
    default="auto",
    show_default=True,
    help="Slurm's topology plugin to write for; auto takes the one that fits the fabric.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; stdout if not given.")
def command(site: str, sites_dir: Path | None, output_format: str, plugin: str, output: Path | None) -> None:
    """Write a site's topology as Slurm's topology.conf or topology.yaml, or as a graph.

    \b
    Example:  hpcplan site export superpod-h100 --format topology.conf -o topology.conf
    """
    from hpcplan.documents import write_text
    from hpcplan.site.export import FORMATS
    from hpcplan.site.load import load_site

    text = FORMATS[output_format](load_site(site, sites_dir).site, plugin)
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    narrate(f"wrote {output}")
