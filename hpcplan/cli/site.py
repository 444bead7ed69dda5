"""``hpcplan site``: what hpcplan knows of sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli import site_ask, site_export, site_graph, site_import, site_schema
from hpcplan.cli.output import console, echo_json, format_option, narrate, table

if TYPE_CHECKING:
    from hpcplan.site.load import LoadedSite
    from hpcplan.site.topology import Topology

__all__ = ["command"]

_sites_option = click.option(
    "--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first."
)


@click.group()
def command() -> None:
    """List, show, check and draw the sites that hpcplan knows.

    Sites are looked for in --sites DIR, ~/.config/hpcplan/sites, /etc/hpcplan/sites, then among those shipped.

    \b
    Example:
      hpcplan site list
      hpcplan site show superpod-h100
      hpcplan site check mysite.yaml
    """


@command.command("list")
@_sites_option
@format_option
def list_command(sites_dir: Path | None, output_format: str) -> None:
    """List the sites, each with where it came from.

    \b
    Example:  hpcplan site list --format json
    """
    from hpcplan.errors import InputError
    from hpcplan.site.load import list_sites, read_site

    entries: list[dict[str, Any]] = []
    for name, found in list_sites(sites_dir).items():
        try:
            site = read_site(found.path)
            what, error = site.description, None
        except InputError as problem:
            what, error = "not valid", str(problem)
        entries.append(
            {"name": name, "description": what, "origin": found.origin, "path": str(found.path), "error": error}
        )
    if output_format == "json":
        echo_json(entries)
        return
    rows = [(e["name"], e["description"], e["origin"], e["path"]) for e in entries]
    console().print(table(None, ("site", "what it is", "from", "file"), rows))
    for entry in entries:
        if entry["error"]:
            narrate(entry["error"])


@command.command()
@click.argument("site")
@_sites_option
@format_option
def show(site: str, sites_dir: Path | None, output_format: str) -> None:
    """Show one site: its nodes, partitions, accelerators and where the bandwidth is.

    \b
    Example:  hpcplan site show superpod-h100
    """
    from hpcplan.site.load import load_site
    from hpcplan.site.topology import build_topology

    loaded = load_site(site, sites_dir)
    topology = build_topology(loaded.site)
    if output_format == "json":
        echo_json(_as_dict(loaded, topology))
    else:
        _print_site(loaded, topology)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@format_option
def check(file: Path, output_format: str) -> None:
    """Check a site file; every mistake is named with its line and field (exit code 2).

    \b
    Example:  hpcplan site check mysite.yaml
    """
    from hpcplan.site.load import LoadedSite, read_site
    from hpcplan.site.topology import build_topology

    loaded = LoadedSite(read_site(file), file, "file")
    topology = build_topology(loaded.site)
    summary = {
        "file": str(file),
        "site": loaded.site.name,
        "valid": True,
        "nodes": len(topology.nodes()),
        "switches": len(topology.switches()),
        "sha256": loaded.sha256,
    }
    if output_format == "json":
        echo_json(summary)
    else:
        nodes, switches = summary["nodes"], summary["switches"]
        click.echo(f"{file}: site {loaded.site.name!r} is valid: {nodes} nodes, {switches} switches")


command.add_command(site_ask.command)
command.add_command(site_graph.command)
command.add_command(site_schema.command)
command.add_command(site_import.command)
command.add_command(site_export.command)


def _as_dict(loaded: LoadedSite, topology: Topology) -> dict[str, Any]:
    import dataclasses

    return {
        "site": loaded.site.model_dump(mode="json"),
        "path": str(loaded.path),
        "origin": loaded.origin,
        "sha256": loaded.sha256,
        "topology": {
            "kind": topology.kind,
            "bisection_bytes_per_s": _bisection(topology),
            "drained": sorted(topology.drained),
            "nodes": len(topology.nodes()),
            "switches": len(topology.switches()),
            "levels": [
                {**dataclasses.asdict(level), "oversubscription": level.oversubscription} for level in topology.levels()
            ],
        },
    }


def _bisection(topology: Topology) -> float | None:
    from hpcplan.site.bisection import bisection_bytes_per_s

    return bisection_bytes_per_s(topology) if len(topology.nodes()) > 1 else None


def _print_site(loaded: LoadedSite, topology: Topology) -> None:
    from hpcplan.site.load import accelerator_of
    from hpcplan.units import format_bandwidth, format_bytes, format_duration, format_slurm_time

    site, out = loaded.site, console()
    out.print(f"[bold]{site.name}[/bold]  {site.description}\n{loaded.path} ({loaded.origin})")
    rows: list[tuple[object, ...]] = []
    for name, group in site.node_groups.items():
        chip = accelerator_of(site, name)
        accelerators = group.accelerators
        inside = format_bandwidth(group.intra_node.bandwidth_bytes_per_s) if group.intra_node else ""
        nics = f"{group.nics.count} x {format_bandwidth(group.nics.bandwidth_bytes_per_s)}"
        kind = f"{accelerators.count} x {accelerators.type}" if accelerators else "none"
        memory = format_bytes(chip.memory_bytes) if chip else ""
        count, hosts = len(group.hostnames()), group.nodes
        rows.append((name, count, hosts, group.cpus, format_bytes(group.memory_bytes), kind, memory, inside, nics))
    columns = ("node group", ">nodes", "names", ">CPUs", ">memory", "accelerators", ">each", ">inside", ">NICs")
    out.print(table(None, columns, rows))
    limits = [
        (name, ", ".join(p.nodes), format_slurm_time(p.max_time_s) if p.max_time_s else "none", p.max_nodes or "all",
         "default" if name == site.default_partition() else "")
        for name, p in site.partitions.items()
    ]  # fmt: skip
    out.print(table(None, ("partition", "node groups", ">time limit", ">nodes a job", ""), limits))
    reach: list[tuple[object, ...]] = []
    for name in site.node_groups:
        for tier in topology.tiers(topology.nodes(name)):
            reach.append((name, f"{tier.nodes} nodes", format_bandwidth(tier.bandwidth_bytes_per_s),
                          format_duration(tier.latency_s)))  # fmt: skip
    out.print(table(None, ("node group", "all talking among", ">each node gets", ">latency"), reach))
    bisection = _bisection(topology)
    if bisection is not None:
        out.print(f"fabric: {topology.kind}; bisection bandwidth {format_bandwidth(bisection)}")
    if site.drained:
        out.print(f"drained: {site.drained}", markup=False)
    for source in site.sources:
        out.print(f"source: {source}", markup=False)
