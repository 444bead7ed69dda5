"""``hpcplan partition``: the best split of any layer graph over devices."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.partition.graph import LayerGraph, Split

__all__ = ["command"]


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--devices", type=click.IntRange(0, 100_000), metavar="K", help="Accelerators, instead of maxFPGAs.")
@click.option("--cpus", type=click.IntRange(0, 100_000), metavar="N", help="CPUs, instead of maxCPUs.")
@click.option("--memory", metavar="SIZE", help="Of one accelerator, as in '16 GiB', instead of maxSizePerFPGA.")
@click.option(
    "--mode",
    type=click.Choice(["throughput"]),
    default="throughput",
    show_default=True,
    help="What to make best: samples a second, when they stream through the devices.",
)
@click.option(
    "--time-limit",
    default="60",
    show_default=True,
    metavar="SECONDS",
    help="Stop then, with the best split so far and a bound on how much better one could be.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the split here as JSON.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw the split here as SVG.")
@format_option
def command(
    graph: Path,
    devices: int | None,
    cpus: int | None,
    memory: str | None,
    mode: str,
    time_limit: str,
    output: Path | None,
    picture: Path | None,
    output_format: str,
) -> None:
    """Split a graph of layers or operators over devices.

    GRAPH is a JSON file with maxSizePerFPGA, maxFPGAs, maxCPUs, nodes and edges. The busiest device is made as little
    busy as can be; gap 0 means that no split is better.

    \b
    Examples:
      hpcplan partition graph.json
      hpcplan partition graph.json --devices 8 --memory '16 GiB' --picture split.svg
      hpcplan partition graph.json --time-limit 10 --format json -o split.json
    """
    import json

    from hpcplan.documents import write_text
    from hpcplan.partition.graph import draw_split, partition_graph, read_graph

    seconds = _seconds(time_limit)
    layers = _override(read_graph(graph), devices, cpus, memory)
    start = time.monotonic()
    with progress("splitting"):
        split = partition_graph(layers, time_limit_s=seconds)
    took = time.monotonic() - start
    if output is not None:
        write_text(output, json.dumps(split.as_dict(), indent=2) + "\n")
    if picture is not None:
        write_text(picture, draw_split(layers, split, graph.name))
    if output_format == "json":
        echo_json(split.as_dict())
    else:
        _show(layers, split, graph.name)
    narrate(f"{_verdict(split)}; {took:.2f} s" + "".join(f"; wrote {path}" for path in (output, picture) if path))


def _seconds(text: str) -> float:
    from hpcplan.errors import InputError
    from hpcplan.units import parse_duration

    try:
        seconds = float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)
    except ValueError as error:
        raise InputError(f"--time-limit: {error}") from None
    if not 0 < seconds < math.inf:
        raise InputError("--time-limit: must be more than no time")
    return seconds


def _override(graph: LayerGraph, devices: int | None, cpus: int | None, memory: str | None) -> LayerGraph:
    import dataclasses

    from hpcplan.errors import InputError
    from hpcplan.units import parse_bytes

    try:
        memory_bytes = (
            graph.memory_bytes if memory is None else float(memory if _plain(memory) else parse_bytes(memory))
        )
    except ValueError as error:
        raise InputError(f"--memory: {error}") from None
    return dataclasses.replace(
        graph,
        accelerators=graph.accelerators if devices is None else devices,
        cpus=graph.cpus if cpus is None else cpus,
        memory_bytes=memory_bytes,
    )


def _plain(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()


def _verdict(split: Split) -> str:
    if split.gap == 0:
        return "proven optimal: no split has a less busy busiest device"
    return f"stopped early: no split is better by more than {split.gap:.2%}"


def _show(graph: LayerGraph, split: Split, name: str) -> None:
    from hpcplan.units import format_bytes

    members: dict[str, list[int]] = {device: [] for device in split.loads}
    for i, node in enumerate(graph.nodes):
        members[split.assignment[node.id]].append(i)
    rows: list[tuple[object, ...]] = []
    for device, load in split.loads.items():
        nodes = [graph.nodes[i] for i in members[device]]
        work = math.fsum(n.cpu_time if device.startswith("cpu") else n.accelerator_time for n in nodes)
        size = format_bytes(math.fsum(n.size_bytes for n in nodes))
        ids = _ranges(sorted(n.id for n in nodes))
        rows.append((device, f"{load:.6g}", f"{work:.6g}", f"{load - work:.6g}", size, len(nodes), ids))
    out = console()
    out.print(table(name, ("device", ">load", ">work", ">transfers", ">memory", ">nodes", "node ids"), rows))
    out.print(f"Busiest: {split.objective:.6g}. Bound: {split.bound:.6g}. Gap: {split.gap:.2%}.", markup=False)


def _ranges(ids: list[int], most: int = 8) -> str:
    """Return ``1-4, 7, 9-12`` for ascending ids, cut off after ``most`` parts."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in parts[:most]]
    return ", ".join(words) + (", ..." if len(parts) > most else "")
