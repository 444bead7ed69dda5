"""``hpcplan demo``: the whole loop once, narrated."""

from __future__ import annotations

from pathlib import Path

import click

from hpcplan.cli.output import echo_json, format_option

__all__ = ["command"]


@click.command()
@click.option(
    "-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
    help="Where its files go; ./hpcplan-demo (or the next free number) if absent.",
)  # fmt: skip
@format_option
def command(directory: Path | None, output_format: str) -> None:
    """Run the whole loop on a shipped workload and site.

    Plans Llama 3 8B for a DGX H100 cluster, renders the scripts, starts a mock cluster with other users on it, submits
    there, tracks the jobs to their end and writes the report. Each step says what to type to do it yourself.

    \b
    Example:
      hpcplan demo
      hpcplan demo --directory /tmp/try
    """
    import dataclasses

    from hpcplan.demo.run import demo_folder, run_demo

    folder = directory or demo_folder(Path.cwd())
    steps = []
    for number, step in enumerate(run_demo(folder), start=1):
        steps.append(step)
        if output_format == "table":
            click.echo(click.style(f"{number}. {step.title}", bold=True))
            click.echo(click.style(f"   $ {step.command}", fg="cyan"))
            for line in step.lines:
                click.echo(f"   {line}")
            click.echo()
    if output_format == "json":
        echo_json({"directory": str(folder), "steps": [dataclasses.asdict(step) for step in steps]})
    else:
        click.echo(f"All files are in {folder}. To remove everything: rm -r {folder}")
