"""``hpcplan simulate``: a trace under scheduling policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, progress_bar, table

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.simulate.sweep import Case
    from hpcplan.simulate.trace_stream import Outcome

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
    "--accounting",
    type=_FILE,
    multiple=True,
    help="QOS, shares and limits: 'sacctmgr dump CLUSTER', 'sacctmgr -P show qos'.",
)
@click.option("--reservations", type=_FILE, help="What 'scontrol show reservation' prints.")
@click.option(
    "--policy", "policies", multiple=True, metavar="POLICY",
    help="fcfs, sjf, priority, easy, conservative or slurm; give several to compare them.",
)  # fmt: skip
@click.option(
    "--generate", metavar="MODEL", help="Make the trace up and write it to TRACE: lublin (.swf), or llm (.csv)."
)
@click.option(
    "--jobs", "job_count", type=click.IntRange(1), default=5000, show_default=True, help="How many to make up."
)
@click.option("--load", "loads", type=float, multiple=True, help="Share of the machine's time that made-up jobs use.")
@click.option("--seed", type=int, default=1, show_default=True, help="What made-up jobs are drawn from.")
@click.option("--seeds", type=click.IntRange(1), help="Monte Carlo: that many seeds from --seed on, on all cores.")
@click.option("--workers", type=click.IntRange(1), help="Processes for it.  [default: one a core]")
@click.option("--dask", metavar="ADDRESS", help="Do it on a Dask cluster: tcp://host:8786, or slurm:8 for eight jobs.")
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
    accounting: tuple[Path, ...],
    reservations: Path | None,
    policies: tuple[str, ...],
    generate: str | None,
    job_count: int,
    loads: tuple[float, ...],
    seed: int,
    seeds: int | None,
    workers: int | None,
    dask: str | None,
    order: str,
    output: Path | None,
    picture: Path | None,
    output_format: str,
) -> None:
    """Schedule a trace of jobs under one policy or several, and compare them.

    TRACE is SWF, the output of sacct -P with its header, or CSV with the columns job, submit_s, nodes, run_s,
    time_limit_min (and partition, user, priority, dependency, ... where there are any); each plain or gzipped.

    The policy slurm does what slurmctld would with the slurm.conf given; on a site, as the site file says. The other
    policies are those of the literature.

    With --generate the trace is made up first: after Lublin and Feitelson (2003), or as on a cluster where language
    models are trained. With --seeds, or several --load, many are made up and nothing is written: means with their 95 %
    confidence intervals.

    \b
    Example:
      hpcplan simulate trace.swf.gz --policy fcfs --policy easy --policy conservative
      hpcplan simulate jobs.csv --slurm-conf /etc/slurm/slurm.conf --policy slurm -o schedule.csv
      hpcplan simulate made.swf --generate lublin --procs 256 --load 0.8 --policy easy
      hpcplan simulate - --generate lublin --procs 256 --load 0.7 --load 0.9 --seeds 20 --policy fcfs --policy easy
    """
    from hpcplan.errors import InputError
    from hpcplan.simulate.trace_files import open_trace
    from hpcplan.simulate.trace_run import check_policy
    from hpcplan.simulate.trace_stream import Target, schedule_trace

    if sum(given is not None for given in (procs, site, slurm_conf)) > 1:
        raise click.UsageError("say once what the machine is: --procs, --site or --slurm-conf")
    if not policies and generate is None:
        raise click.UsageError("Missing option '--policy'.")
    if generate is None and (loads or seeds):
        raise click.UsageError("--load and --seeds go with --generate")
    if topology is not None and slurm_conf is None:
        raise click.UsageError("--topology goes with --slurm-conf")
    if len({*policies}) > 1 and (output is not None or picture is not None):
        raise InputError("-o and --picture take the schedule of one policy; give one, or leave them out")
    policies = tuple(dict.fromkeys(policies))
    for policy in policies:
        check_policy(policy)
    cluster = _cluster(site, sites_dir, slurm_conf, topology, accounting, reservations)
    if generate is not None:
        if (seeds or len(loads) > 1) and policies:
            cases = _cases(
                generate, job_count, policies, order, loads, range(seed, seed + (seeds or 1)), procs, cluster
            )
            _monte_carlo(cases, workers, dask, output_format)
            return
        from hpcplan.simulate.made_traces import make_trace, write_trace

        machine = cluster.machine if cluster is not None else None
        load = loads[0] if loads else None
        made = make_trace(generate, job_count, procs=procs, machine=machine, seed=seed, load=load)
        write_trace(made, trace)
        narrate(f"wrote {trace}: {len(made.jobs):,} jobs")
        if not policies:
            return
    with progress("reading the trace"):
        source = open_trace(trace, procs=procs)
    for sentence in source.notes:
        narrate(sentence)
    if cluster is not None and "slurm" in policies:
        from hpcplan.simulate.left_out import left_out

        for sentence in left_out(cluster):
            narrate(sentence)
    target = Target(procs, cluster, output, picture)
    outcomes = []
    with progress_bar("scheduling", len(policies)) as step:
        for policy in policies:
            outcomes.append(schedule_trace(source, target, policy, order, tell=narrate))
            step()
    for written in filter(None, (output, picture)):
        narrate(f"wrote {written}")
    _show(trace, outcomes, output_format)


def _cluster(
    site: str | None,
    sites_dir: Path | None,
    slurm_conf: Path | None,
    topology: Path | None,
    accounting: tuple[Path, ...],
    reservations: Path | None,
) -> SlurmCluster | None:
    from dataclasses import replace

    if slurm_conf is not None:
        from hpcplan.simulate.slurm_cluster import read_slurm_cluster

        found = read_slurm_cluster(slurm_conf, topology)
    elif site is not None:
        from hpcplan.simulate.slurm_cluster import cluster_of_site
        from hpcplan.site.load import load_site

        found = cluster_of_site(load_site(site, sites_dir).site)
    elif accounting or reservations is not None:
        raise click.UsageError("--accounting and --reservations go with --site or --slurm-conf")
    else:
        return None
    if accounting:
        from hpcplan.simulate.sacctmgr_files import read_accounting

        found = replace(found, policy=read_accounting(*accounting))
    if reservations is not None:
        from hpcplan.simulate.reservations import read_reservations

        held = read_reservations(reservations, found.machine)
        found = replace(found, reservations=tuple(held.by_name.values()))
    return found


def _cases(
    model: str,
    jobs: int,
    policies: tuple[str, ...],
    order: str,
    loads: tuple[float, ...],
    seeds: range,
    procs: int | None,
    cluster: SlurmCluster | None,
) -> list[Case]:
    from hpcplan.simulate.sweep import Case

    return [
        Case(model, jobs, policy, order, one, load, procs, cluster)
        for load in loads or (None,)
        for one in seeds
        for policy in policies
    ]


def _monte_carlo(cases: list[Case], workers: int | None, dask: str | None, output_format: str) -> None:
    from hpcplan.simulate.sweep import run_cases, spreads

    results = []
    with progress_bar(f"{len(cases)} simulations", len(cases)) as step:
        for result in run_cases(cases, workers=workers, dask=dask):
            results.append(result)
            step()
    found = spreads(results)
    if output_format == "json":
        rows = [
            {
                "policy": policy,
                "load": load,
                **{name: None if one is None else [one.mean, one.half_width] for name, one in figures.items()},
            }
            for (policy, load), figures in found.items()
        ]
        echo_json(
            {"model": cases[0].model, "jobs": cases[0].jobs, "seeds": len({c.seed for c in cases}), "results": rows}
        )
        return
    shown = ("mean_wait_s", "median_wait_s", "p95_wait_s", "mean_bounded_slowdown", "utilisation")
    lines = []
    for (policy, load), figures in found.items():
        cells = []
        for name in shown:
            one, digits = figures[name], 3 if name == "utilisation" else 2 if "slowdown" in name else 0
            both = "" if one is None or one.half_width is None else f" ± {_number(one.half_width, digits)}"
            cells.append("" if one is None else _number(one.mean, digits) + both)
        lines.append((policy, "" if load is None else f"{load:g}", *cells))
    columns = ("policy", ">load", ">mean wait s", ">median", ">P95", ">bounded slowdown", ">utilisation")
    title = f"{cases[0].jobs:,} jobs of {cases[0].model}, {len({case.seed for case in cases})} seeds"
    console().print(table(title, columns, lines))


def _show(trace: Path, outcomes: list[Outcome], output_format: str) -> None:
    skipped = outcomes[0].skipped
    if skipped:
        narrate(f"{skipped:,} jobs of the trace did not run, or say no size, and are left out")
    for name, reason in outcomes[0].refused.items():
        narrate(f"job {name} would be refused: {reason.splitlines()[-1]}")
    if output_format == "json":
        results = [
            {"policy": one.policy, "order": one.order, "procs": one.procs, **one.metrics.as_dict()} for one in outcomes
        ]
        echo_json({"trace": str(trace), "skipped": skipped, "results": results})
        return
    rows = [
        (
            one.policy, found.jobs, found.never_started or "", _number(found.mean_wait_s),
            _number(found.median_wait_s), _number(found.p95_wait_s), _number(found.mean_bounded_slowdown, 2),
            _share(found.utilisation), _number(found.makespan_s), _share(found.backfilled_share),
            _share(found.fragmentation),
        )
        for one, found in ((one, one.metrics) for one in outcomes)
    ]  # fmt: skip
    columns = ("policy", ">jobs", ">never started", ">mean wait s", ">median", ">P95", ">bounded slowdown",
               ">utilisation", ">makespan s", ">backfilled", ">fragmentation")  # fmt: skip
    console().print(table(f"{trace.name} on {outcomes[0].procs:,} processors", columns, rows))


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
