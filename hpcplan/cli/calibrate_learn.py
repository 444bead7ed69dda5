"""``hpcplan calibrate learn``: from finished campaigns and accounting to better constants of a site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from hpcplan.calibrate.learn import Learned
    from hpcplan.calibrate.learn_track import Entry, Watch
    from hpcplan.cli.calibrate_campaigns import FinishedCampaign
    from hpcplan.site.model import Site

__all__ = ["learn_command"]


@click.command("learn")
@click.argument("campaigns", nargs=-1, metavar="[CAMPAIGN]...")
@click.option("--site", "site_name", required=True, metavar="SITE", help="A site's name or file.")
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), metavar="DIR", help="Look for sites here first.")
@click.option("--runs", "tables", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="CSV",
              help="A table of measured runs, as 'hpcplan validate' takes it.  [repeatable]")  # fmt: skip
@click.option("--sacct", "dumps", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Accounting: output of 'sacct --parsable2' or --json.  [repeatable]")  # fmt: skip
@click.option("--backend", "backend_name", type=click.Choice(["auto", "pyslurm", "command", "rest", "mock"]),
              help="Ask this Slurm for accounting, too.")  # fmt: skip
@click.option("--since", metavar="WHEN", help="From when on accounting counts, as in 30d or 2026-10-01.")
@click.option("--dry-run", is_flag=True, help="Say what would be learned, and keep nothing.")
@format_option
def learn_command(
    campaigns: tuple[str, ...], site_name: str, sites_dir: Path | None, tables: tuple[Path, ...],
    dumps: tuple[Path, ...], backend_name: str | None, since: str | None, dry_run: bool, output_format: str,
) -> None:  # fmt: skip
    """Learn from finished campaigns and from accounting.

    Without CAMPAIGN, every finished one that was submitted from this account and planned for the site. Their step times
    come from the trainers' logs; those of a mock cluster, with --backend mock, from how long their jobs pretended to
    run. The site's own factors on the cost model's constants, and corrections near measured runs, are fitted to all
    runs known so far and kept, with the evidence, beside the user's site files, unless runs that were held out are
    predicted worse with them; every later plan for the site uses and names them. Accounting tells how much of their
    limits jobs use and how often nodes fail. Predictions that drift from what is measured are warned of.

    \b
    Examples:
      hpcplan calibrate learn --site mysite
      hpcplan calibrate learn campaign --site mysite.yaml --sacct sacct.txt
      hpcplan calibrate learn --site mysite --runs measured.csv --dry-run
    """
    from hpcplan.cli.calibrate_campaigns import finished_campaigns
    from hpcplan.site import load_site

    site = load_site(site_name, sites_dir).site
    finished = list(finished_campaigns(campaigns, site.name, pretended=backend_name == "mock"))
    with progress("learning"):
        found = _learn(site, finished, tables, dry_run)
        found |= _accounting(site, dumps, backend_name, since)
    if not dry_run:
        _keep(site, found)
    if output_format == "json":
        echo_json({key: value for key, value in found.items() if not key.startswith("_")})
        _warn(found)
        return
    _show(found)
    _warn(found)


def _learn(site: Site, finished: Sequence[FinishedCampaign], tables: Sequence[Path], dry_run: bool) -> dict[str, Any]:
    """Return what the runs teach, and the track of predictions; runs and track are kept unless this is a dry run."""
    import dataclasses
    import shutil
    import tempfile

    from hpcplan.calibrate.evidence import bench_factors, evidence_folder
    from hpcplan.calibrate.learn import LEAST_RUNS, learn_site, usable_runs
    from hpcplan.calibrate.learn_runs import add_runs, cells_of_plan, cells_of_table, read_runs
    from hpcplan.calibrate.learn_track import Entry, add_entries, watch
    from hpcplan.calibrate.rows import read_rows

    entries = [
        Entry(one.end, one.key, one.plan.provenance.constants.sha256[:12], one.plan.plan.nodes,
              one.plan.estimate.iter_time_s, one.plan.estimate.low, one.plan.estimate.high, one.step_s)
        for one in finished
    ]  # fmt: skip
    new: list[dict[str, str]] = []
    for one in finished:
        cells = cells_of_plan(one.plan, one.step_s, one.key)
        if cells is None:
            model = one.plan.training.model
            narrate(f"{one.directory}: no table can say the shape of {model}; it counts for drift alone")
        else:
            new.append(cells)
    for path in tables:
        of_site = cells_of_table(read_rows(path), site.name)
        if not of_site:
            narrate(f"{path} has no runs of site {site.name!r}")
        new += of_site
    with tempfile.TemporaryDirectory() as scratch:
        home = evidence_folder(site.name)
        folder = Path(scratch) if dry_run else home
        for name in ("runs.csv", "track.csv"):
            if dry_run and (home / name).is_file():
                shutil.copy(home / name, folder / name)
        added = add_runs(folder / "runs.csv", new)
        track = add_entries(folder / "track.csv", entries)
        runs = read_runs(folder / "runs.csv")
    rows = usable_runs(runs)
    result: dict[str, Any] = {"site": site.name, "runs": len(rows), "new_runs": added, "learned": None}
    if len(rows) >= LEAST_RUNS:
        learned = learn_site(rows, known=bench_factors(site.name))
        told = {name: value for name, value in dataclasses.asdict(learned).items() if name != "correction"}
        result |= {"learned": {**told, "better": learned.better}, "_learned": learned}
    watched = watch([entry.error for entry in track])
    result["track"] = [_track_data(entry, seen) for entry, seen in zip(track, watched, strict=True)]
    result["drift"] = watched[-1].drift if watched else None
    return result


def _track_data(entry: Entry, seen: Watch) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(entry), "error": entry.error, **dataclasses.asdict(seen), "drift": seen.drift}


def _accounting(site: Site, dumps: Sequence[Path], backend_name: str | None, since: str | None) -> dict[str, Any]:
    """Return what accounting teaches, nothing where none was given."""
    import dataclasses

    from hpcplan.calibrate.learn_accounting import failures_by_group, limit_use
    from hpcplan.cli.report_source import from_backend, from_dumps

    if not dumps and backend_name is None:
        return {}
    found = (
        from_dumps(dumps, None, None, since, None) if dumps else from_backend(backend_name or "auto", None, since, None)
    )
    jobs: pl.DataFrame = found.jobs
    group_of = {host: name for name, group in site.node_groups.items() for host in group.hostnames()}
    failures = failures_by_group(jobs, group_of)
    return {
        "accounting": {
            "jobs": len(jobs),
            "from": found.start,
            "until": found.end,
            "limits": [dataclasses.asdict(each) for each in limit_use(jobs)],
            "failures": {group: dataclasses.asdict(rate) for group, rate in failures.items()},
        }
    }


def _keep(site: Site, found: dict[str, Any]) -> None:
    """Write the site's factors, and what accounting taught."""
    import time

    from hpcplan.calibrate.evidence import day_of, evidence_folder, keep_accounting, keep_learned
    from hpcplan.documents import write_text
    from hpcplan.site.load import ENOUGH_FAILURES
    from hpcplan.units import format_duration

    today = day_of(time.time())
    learned: Learned | None = found.get("_learned")
    if learned is not None and learned.better:
        found["constants"] = str(keep_learned(site.name, learned, today))
    elif learned is not None:
        narrate(
            "with what these runs teach, runs that were held out are predicted worse; the constants stay as they are"
        )
    if "accounting" in found:
        path = evidence_folder(site.name) / "learned.json"
        write_text(path, json.dumps({"date": today, **found["accounting"]}, indent=1) + "\n")
        used = {
            group: rate for group, rate in found["accounting"]["failures"].items()
            if group in site.node_groups and rate["failures"] >= ENOUGH_FAILURES
        }  # fmt: skip
        told = [f"a node of {group} fails every {format_duration(rate['mtbf_s'])} ({rate['failures']} failures)"
                for group, rate in used.items()]  # fmt: skip
        keep_accounting(
            site.name, f"accounting {today}: {found['accounting']['jobs']:,} jobs" + "".join(f", {t}" for t in told)
        )
        found["accounting"]["kept"] = str(path)


def _show(found: dict[str, Any]) -> None:
    from hpcplan.units import format_duration

    out = console()
    learned = found["learned"]
    if learned is None:
        known = f"{found['runs']} run{'' if found['runs'] == 1 else 's'}"
        out.print(f"{known} of {found['site']} known; two are needed to learn from.", markup=False)
    else:
        factors = [(name, f"{factor:.3f}") for name, factor in sorted(learned["factors"].items())]
        errors = f"mean error {learned['before']:.1%} before, {learned['after']:.1%} after (held out)"
        out.print(f"{found['runs']} runs ({found['new_runs']} new): {errors}", markup=False)
        out.print(table(None, ("constant", ">factor"), factors))
    rows = [
        (e["campaign"][:12], e["nodes"], format_duration(e["predicted_s"]), format_duration(e["actual_s"]),
         f"{e['actual_s'] / e['predicted_s'] - 1:+.1%}", f"{e['average']:+.2f}", e["drift"] or "")
        for e in found["track"][-15:]
    ]  # fmt: skip
    if rows:
        columns = ("campaign", ">nodes", ">predicted step", ">measured", ">off by", ">average", "drift")
        out.print(table("predicted against measured", columns, rows))
    if "accounting" in found:
        _show_accounting(found["accounting"])
    if "constants" in found:
        narrate(f"plans use {found['constants']}")


def _show_accounting(data: dict[str, Any]) -> None:
    from hpcplan.units import format_duration

    rows: list[tuple[object, ...]] = [
        (each["partition"], each["jobs"], *(f"{each[name]:.0%}" for name in ("p10", "p50", "p90", "timed_out")))
        for each in data["limits"]
    ]
    columns = ("partition", ">jobs", ">P10", ">P50", ">P90", ">timed out")
    console().print(table("share of their time limit that jobs use", columns, rows))
    rows = []
    for group, rate in data["failures"].items():
        mean = "" if rate["mtbf_s"] is None else format_duration(rate["mtbf_s"])
        high = "" if rate["high_s"] is None else format_duration(rate["high_s"])
        rows.append((group or "not known", f"{rate['node_s'] / 3600:,.0f}", rate["failures"], mean,
                     format_duration(rate["low_s"]), high))  # fmt: skip
    columns = ("nodes", ">node-hours", ">failures", ">mean time between", ">at least", ">at most")
    console().print(table("how often one node fails (95 %)", columns, rows))


def _warn(found: dict[str, Any]) -> None:
    if found["drift"] is not None:
        narrate(
            f"warning: training has drifted: it is {found['drift']} than predicted, campaign after campaign; has the "
            "software or the site changed? What is learned now follows it; hpcplan calibrate bench looks for slow nodes"
        )
