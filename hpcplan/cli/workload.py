"""``hpcplan workload``: what hpcplan knows of models."""

from __future__ import annotations

from typing import Any

import click

from hpcplan.cli.output import console, echo_json, format_option, table

__all__ = ["command"]


@click.group()
def command() -> None:
    """List and show the workloads that hpcplan knows by name.

    \b
    Example:
      hpcplan workload list
      hpcplan workload show llama3-70b
    """


@command.command("list")
@format_option
def list_command(output_format: str) -> None:
    """List the workloads, with their size and training run.

    \b
    Example:  hpcplan workload list
    """
    from hpcplan.units import format_count
    from hpcplan.workload import list_workloads, load_workload

    entries = [_summary(load_workload(name)) for name in list_workloads()]
    if output_format == "json":
        echo_json(entries)
        return
    rows = [
        (e["name"], e["description"], format_count(e["parameters"]), format_count(e["active_parameters"]),
         e["sequence_length"], e["global_batch"], format_count(e["tokens"]))
        for e in entries
    ]  # fmt: skip
    columns = ("workload", "what it is", ">parameters", ">active", ">sequence", ">batch", ">tokens")
    console().print(table(None, columns, rows))


@command.command()
@click.argument("workload")
def show(workload: str) -> None:
    """Show one workload, a file's or a config.json's too, as JSON in base units.

    \b
    Example:  hpcplan workload show mixtral-8x7b
    """
    from hpcplan.workload import load_workload

    loaded = load_workload(workload)
    echo_json({**_summary(loaded), "workload": loaded.workload.model_dump(mode="json"), "path": str(loaded.path)})


def _summary(loaded: Any) -> dict[str, Any]:
    from hpcplan.workload.arithmetic import active_parameters, parameters

    workload, run = loaded.workload, loaded.workload.training
    return {
        "name": workload.name,
        "description": workload.description,
        "parameters": parameters(workload.model),
        "active_parameters": active_parameters(workload.model),
        "sequence_length": run.sequence_length,
        "global_batch": run.global_batch,
        "tokens": run.tokens,
        "assumed": list(loaded.assumed),
        "sources": list(workload.sources),
    }
