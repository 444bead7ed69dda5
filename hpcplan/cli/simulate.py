"""``hpcplan simulate``: a trace under scheduling policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.simulate.trace_run import Schedule

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("trace", type=_FILE)
@click.option("--procs", type=click.IntRange(1), help="That many equal processors.  [default: what an SWF trace says]")
@click.option("--site", help="The nodes of this site (a name or a file).")
@click.option("--slurm-conf", type=_FILE, help="The nodes and the scheduling of this slurm.conf.")
@click.option("--topology", type=_FILE, help="The topology.conf to go with --slurm-conf.  [default: the one beside it]")
@click.option("--sites", "sites_dir", type=_FILE, help="Look for the site in this folder first.")
@click.option(
    "--policy", "policies", multiple=True, required=True, metavar="POLICY",
    help="fcfs, sjf, priority, easy, conservative or slurm; give several to compare them.",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["submit", "sjf"]), default="submit", show_default=True,
    help="How the queue is sorted: by submission, or shortest time limit first.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the schedule as CSV.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw it: PNG, SVG or PDF.")
@format_option
def command(
    trace: Path,
    procs: int | None,
    site: str | None,
    slurm_conf: Path | None,
    topology: Path | None,
    sites_dir: Path | None,
    policies: tuple[str, ...],
    order: str,
    output: Path | None,
    picture: Path | None,
    output_format: str,
) -> None:
    """Schedule a trace of jobs under one policy or several, and compare them.

    TRACE is SWF, the output of sacct -P with its header, or CSV with the columns job, submit_s, nodes, run_s,
    time_limit_min (and partition, user, priority, dependency, ... where there are any); each plain or gzipped.

    The policy slurm does what slurmctld would with the slurm.conf given; on a site, with Slurm's defaults. The other
    policies are those of the literature.

    \b
    Example:
      hpcplan simulate trace.swf.gz --policy fcfs --policy easy --policy conservative
      hpcplan simulate jobs.csv --slurm-conf /etc/slurm/slurm.conf --policy slurm -o schedule.csv
    """
    from hpcplan.documents import write_text
    from hpcplan.errors import InputError
    from hpcplan.simulate.outcome import to_csv
    from hpcplan.simulate.trace_files import read_trace
    from hpcplan.simulate.trace_run import check_policy, on_nodes, on_processors

    if sum(given is not None for given in (procs, site, slurm_conf)) > 1:
        raise click.UsageError("say once what the machine is: --procs, --site or --slurm-conf")
    if topology is not None and slurm_conf is None:
        raise click.UsageError("--topology goes with --slurm-conf")
    if len({*policies}) > 1 and (output is not None or picture is not None):
        raise InputError("-o and --picture take the schedule of one policy; give one, or leave them out")
    policies = tuple(dict.fromkeys(policies))
    for policy in policies:
        check_policy(policy)
    cluster = _cluster(site, sites_dir, slurm_conf, topology)
    with progress("reading the trace"):
        read = read_trace(trace, procs=procs)
    schedules = []
    for policy in policies:
        with progress(f"scheduling {len(read.jobs):,} jobs: {policy}"):
            if cluster is not None:
                schedules.append(on_nodes(read, cluster, policy, order))
            else:
                schedules.append(on_processors(read, procs or read.procs, policy, order))
    if output is not None:
        write_text(output, to_csv(schedules[0].rows))
        narrate(f"wrote {output}")
    if picture is not None:
        from hpcplan.simulate.picture import draw_schedule

        draw_schedule(schedules[0], picture)
        narrate(f"wrote {picture}")
    _show(trace, read.skipped, schedules, output_format)


def _cluster(
    site: str | None, sites_dir: Path | None, slurm_conf: Path | None, topology: Path | None
) -> SlurmCluster | None:
    if slurm_conf is not None:
        from hpcplan.simulate.slurm_cluster import read_slurm_cluster

        return read_slurm_cluster(slurm_conf, topology)
    if site is not None:
        from hpcplan.simulate.slurm_cluster import cluster_of_site
        from hpcplan.site.load import load_site

        return cluster_of_site(load_site(site, sites_dir).site)
    return None


def _show(trace: Path, skipped: int, schedules: list[Schedule], output_format: str) -> None:
    figures = [(schedule, schedule.metrics()) for schedule in schedules]
    if skipped:
        narrate(f"{skipped:,} jobs of the trace did not run, or say no size, and are left out")
    for name, reason in schedules[0].refused.items():
        narrate(f"job {name} would be refused: {reason.splitlines()[-1]}")
    if output_format == "json":
        results = [
            {"policy": schedule.policy, "order": schedule.order, "procs": schedule.procs, **found.as_dict()}
            for schedule, found in figures
        ]
        echo_json({"trace": str(trace), "skipped": skipped, "results": results})
        return
    rows = [
        (
            schedule.policy, found.jobs, found.never_started or "", _number(found.mean_wait_s),
            _number(found.median_wait_s), _number(found.p95_wait_s), _number(found.mean_bounded_slowdown, 2),
            _share(found.utilisation), _number(found.makespan_s), _share(found.backfilled_share),
        )
        for schedule, found in figures
    ]  # fmt: skip
    columns = ("policy", ">jobs", ">never started", ">mean wait s", ">median", ">P95", ">bounded slowdown",
               ">utilisation", ">makespan s", ">backfilled")  # fmt: skip
    console().print(table(f"{trace.name} on {schedules[0].procs:,} processors", columns, rows))


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
