"""``hpcplan place``: put a plan's ranks on nodes of a site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.partition.placement import Placed
    from hpcplan.plan import Placement, Plan
    from hpcplan.site.model import Site

__all__ = ["command"]

_MOST_ORDERS = 6
_WORTH_ASKING = 1.05


@click.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--site", "site_name", metavar="SITE", help="A site's name or file, if not the one the plan was made for."
)
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--nodes", metavar="HOSTLIST", help="Choose from these nodes, as in 'n[1-8],n12'.")
@click.option("--nodes-from", metavar="FILE", help="Choose from the nodes that this file names; - reads stdin.")
@click.option("--busy", metavar="HOSTLIST", help="Leave these nodes out.")
@click.option("--drained", metavar="HOSTLIST", help="Leave these nodes out, too.")
@click.option(
    "--ask",
    type=click.Choice(["auto", "nodelist", "exclude"]),
    help="How to ask Slurm: by switches or segments (auto), by name, or by leaving all others out. "
    "By name if nodes are given, else auto.",
)  # fmt: skip
@click.option(
    "--links",
    "links_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the load of every link here as CSV.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan with it here.")
@format_option
def command(
    plan_file: Path, site_name: str | None, sites_dir: Path | None, nodes: str | None, nodes_from: str | None,
    busy: str | None, drained: str | None, ask: Any, links_file: Path | None, output: Path | None, output_format: str,
) -> None:  # fmt: skip
    """Put a plan's ranks on nodes of a site.

    Chooses the order of the ranks' axes, the nodes, and the order of the nodes, so that the ranks that send each other
    most are under one switch or in one NVLink domain. Without nodes, the whole machine counts as empty.

    \b
    Examples:
      hpcplan place plan.json
      hpcplan place plan.json --drained 'n[7-8]'
      sinfo -h -t idle -o %N | hpcplan place plan.json --nodes-from - -o placed.json
    """
    from hpcplan.documents import write_text
    from hpcplan.partition.placement import place_on_site, plan_machinery
    from hpcplan.plan import read_plan
    from hpcplan.site.topology import build_topology

    plan = read_plan(plan_file)
    free = _free(nodes, nodes_from)
    unusable = [*_hosts("--busy", busy), *_hosts("--drained", drained)]
    site = _site(plan, site_name, sites_dir)
    topology = build_topology(site)
    machinery = plan_machinery(plan, site, topology)
    with progress("placing"):
        placement, placed = place_on_site(
            site, topology, plan.placement.partition, plan.placement.node_group, machinery,
            free=free, unusable=unusable, way=ask or ("nodelist" if free is not None else "auto"),
        )  # fmt: skip
    if links_file is not None:
        write_text(links_file, _csv(placed))
    if output is not None:
        write_text(output, plan.model_copy(update={"placement": placement}).text())
    if output_format == "json":
        echo_json(_as_dict(placement, placed))
    else:
        _show(plan, placement, placed)
    if output is not None:
        narrate(f"wrote {output}; next: hpcplan render {output} -o DIR")


def _hosts(option: str, text: str | None) -> list[str]:
    from hpcplan.errors import InputError
    from hpcplan.hostlist import expand

    try:
        return [] if text is None else list(dict.fromkeys(expand(text)))
    except ValueError as error:
        raise InputError(f"{option}: {error}") from None


def _free(nodes: str | None, nodes_from: str | None) -> list[str] | None:
    """Return the nodes to choose from; ``None`` for the whole machine.

    Raises:
        InputError: both ways to name them, a hostlist that is none, or a file that names no nodes.
    """
    from hpcplan.documents import read_text
    from hpcplan.errors import InputError

    if nodes is not None and nodes_from is not None:
        raise InputError("give --nodes or --nodes-from, not both")
    if nodes_from is None:
        return None if nodes is None else _hosts("--nodes", nodes)
    text = sys.stdin.read() if nodes_from == "-" else read_text(Path(nodes_from))
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = [host for line in lines for word in line.split() for host in _hosts(f"--nodes-from {nodes_from}", word)]
    if not found:
        raise InputError(
            f"--nodes-from {nodes_from}: names no nodes; one hostlist a line is expected, as in n[1-8],n12"
        )
    return list(dict.fromkeys(found))


def _site(plan: Plan, name: str | None, sites_dir: Path | None) -> Site:
    """Return the site; what differs from the one that the plan was made for is said."""
    from hpcplan.errors import InputError
    from hpcplan.site import load_site

    made_for = plan.provenance.site
    try:
        loaded = load_site(name or made_for.path, sites_dir)
    except InputError as error:
        if name is not None:
            raise
        raise InputError(
            error.problems, hint=f"the plan was made for it; name one with --site, as in --site {made_for.name}"
        ) from None
    if loaded.sha256 != made_for.sha256:
        narrate(
            f"site {loaded.site.name!r} is not the one, or not as it was, when the plan was made; times may not hold"
        )
    return loaded.site


def _csv(placed: Placed) -> str:
    """Return a line for each direction of a link that carries something, the busiest first."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source", "target", "bytes", "busy_s", "mostly"))
    writer.writerows((link.source, link.target, round(link.bytes), link.busy_s, link.mostly) for link in placed.links)
    return text.getvalue()


def _as_dict(placement: Placement, placed: Placed) -> dict[str, Any]:
    from hpcplan.partition.placement import options_of

    data = placement.model_dump(mode="json", exclude={"traffic", "fabric"})
    return {
        "step_s": placed.step_s,
        "order": list(placement.order),
        "hosts": list(placed.hosts),
        "slurm_options": options_of(placement),
        "prediction": data["prediction"],
        "orders": [{"order": list(order), "step_s": step} for order, step in placed.orders.items()],
        "slurm_hosts": list(placed.slurm_hosts),
        "placement": {key: value for key, value in data.items() if key != "prediction"},
    }


def _show(plan: Plan, placement: Placement, placed: Placed) -> None:
    from hpcplan.hostlist import compress
    from hpcplan.partition.placement import options_of
    from hpcplan.units import format_bytes, format_duration

    out = console()
    best = placed.step_s
    assert placement.prediction is not None  # place_on_site makes one
    times = [
        ("this placement", best),
        ("the best on the whole machine, empty", placement.prediction.ideal_step_s),
        ("Slurm's choice of the same free nodes, in its order", placed.slurm_step_s),
        ("that choice, put in order by the job as it starts", placement.prediction.reordered_step_s),
        ("random nodes in random order, the median of 20", placed.random_step_s),
        ("what no placement can beat", placed.bound_step_s),
    ]
    rows = [(name, format_duration(step), _against(step, best)) for name, step in times]
    out.print(table(f"{plan.name}: predicted step", ("placement", ">step", ">against this"), rows))
    links = [
        (
            f"{link.source} -> {link.target}" + (f" and {link.alike - 1:,} more" if link.alike > 1 else ""),
            format_bytes(link.bytes),
            format_duration(link.busy_s),
            link.mostly.replace("_", " "),
        )
        for link in placed.busiest
    ]
    if links:
        out.print(table("Busiest links", ("link", ">a step", ">busy", "mostly"), links))
    if len(placed.orders) > 1:
        ranked = sorted(placed.orders.items(), key=lambda item: item[1])[:_MOST_ORDERS]
        rows = [("-".join(order), format_duration(step), _against(step, best)) for order, step in ranked]
        out.print(table("Orders of the axes, the fastest first", ("order", ">step", ">against this"), rows))
    proof = {
        "bound": "No placement is better: it reaches the bound.",
        "exhaustive": "No placement is better: all were tried.",
    }
    out.print(
        f"Ranks vary {', '.join(placement.order)}, the first fastest. {proof.get(placed.proof, '')}".rstrip(),
        markup=False,
    )
    out.print(f"Nodes, in the order of the ranks: {compress(placed.hosts)}", markup=False)
    out.print(
        f"Slurm is asked with: {' '.join(options_of(placement)) or '(nothing more than the nodes it takes)'}",
        markup=False,
    )
    if placement.distribution == "arbitrary" and not placement.node_order:
        out.print("The job puts the nodes that it is given in order itself, as it starts.", markup=False)
    left_alone = not (placement.node_order or placement.exclude or placement.segment)
    if left_alone and placement.prediction.reordered_step_s > best * _WORTH_ASKING:
        out.print(
            "The nodes matter: --ask nodelist or --ask exclude gets these, or some that are as near.", markup=False
        )


def _against(step_s: float, best_s: float) -> str:
    share = round(step_s / best_s - 1, 3)
    return f"{share:+.1%}" if share else "0.0%"
