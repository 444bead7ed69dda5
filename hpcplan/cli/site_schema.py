"""``hpcplan site schema``: the JSON Schema of a site file."""

from __future__ import annotations

from pathlib import Path

import click

from hpcplan.cli.output import narrate

__all__ = ["command"]


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file; stdout if not given.")
def command(output: Path | None) -> None:
    """Print the JSON Schema of a site file, with which editors check and complete it.

    \b
    Example:
      hpcplan site schema -o ~/.config/hpcplan/site.schema.json
      # then, as the first line of a site file:
      # yaml-language-server: $schema=/home/me/.config/hpcplan/site.schema.json
    """
    import json

    from hpcplan.documents import write_text
    from hpcplan.site.schema import site_schema

    text = json.dumps(site_schema(), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    narrate(f"wrote {output}")
