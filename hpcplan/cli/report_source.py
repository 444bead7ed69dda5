"""Where a report's data come from: dumps, the backend, the history; and what site files and plans add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.learned import evidence_of, tracked_of
from hpcplan.cli.output import narrate
from hpcplan.cli.report_own import own_jobs

if TYPE_CHECKING:
    import polars as pl

    from hpcplan.report.faults import Faults
    from hpcplan.report.model import Report
    from hpcplan.report.rows import Counterfactual
    from hpcplan.report.site_facts import SiteFacts, Tracked
    from hpcplan.site.model import Site
    from hpcplan.slurm.backend import Backend
    from hpcplan.slurm.records import NodeRecord

__all__ = [
    "Accounting",
    "WithFiles",
    "WithFilesGroup",
    "columns_option",
    "from_backend",
    "from_dumps",
    "made",
    "moment",
    "narrate_problems",
    "opened",
    "sacct_option",
    "zone_named",
    "zone_option",
]

sacct_option = click.option(
    "--sacct",
    "dumps",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE...",
    help="Read what sacct --parsable2 or --json wrote (any delimiter, gzip and zstd too; - is standard input).",
)
columns_option = click.option(
    "--columns", metavar="JobID,State,…", help="sacct's --format, for files that were written without a header."
)
zone_option = click.option(
    "--timezone", "zone_name", metavar="ZONE", help="Where sacct ran, such as Europe/Berlin. Default: this machine's."
)


_JOB_IDS = re.compile(r"[\d_+*,%:\[\]-]+(?:\.(?:batch|extern|interactive|\d+))?")  # not files, behind --sacct


class WithFiles(click.Command):
    """A command whose ``--sacct`` takes several files, as a shell's ``--sacct *.txt`` writes them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--sacct`` before each further file."""
        return super().parse_args(ctx, _repeat_option(args))


class WithFilesGroup(click.Group):
    """As :class:`WithFiles`, for the group itself."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--sacct`` before each further file, up to the name of a subcommand."""
        return super().parse_args(ctx, _repeat_option(args, stop=self.commands))


def _repeat_option(args: Sequence[str], stop: Any = ()) -> list[str]:
    repeated: list[str] = []
    in_files = False
    for position, word in enumerate(args):
        if word in stop:
            return [*repeated, *args[position:]]
        follows = in_files and repeated[-1] != "--sacct"
        if follows and not word.startswith("-") and not (_JOB_IDS.fullmatch(word) and not Path(word).exists()):
            repeated.append("--sacct")
        elif follows:
            in_files = False
        in_files = in_files or word == "--sacct"
        repeated.append(word)
    return repeated


def zone_named(name: str | None) -> tzinfo | None:
    """Return the time zone of that name.

    Raises:
        InputError: there is none.
    """
    from zoneinfo import ZoneInfo

    from hpcplan.errors import InputError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise InputError(f"--timezone: {name!r} is not a time zone; write it like Europe/Berlin or UTC") from None


def moment(text: str | int, zone: tzinfo | None, now: int, option: str) -> int:
    """Return unix seconds for ``24h`` (before ``now``), an ISO date or time, or unix seconds themselves."""
    from hpcplan.errors import InputError
    from hpcplan.units import parse_duration

    if isinstance(text, int):
        return text
    try:
        found = datetime.fromisoformat(text)
        stamp = int((found if found.tzinfo is not None else found.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError, OSError):
        try:
            stamp = now - round(parse_duration(text))
        except (ValueError, OverflowError):
            hint = "write it like 24h, 7d, 2024-05-01 or 2024-05-01T12:00:00"
            raise InputError(f"{option}: {text!r} is neither a time span nor a date; {hint}") from None
    if not 0 <= stamp < 2**35:
        raise InputError(f"{option}: {text!r} is out of range")
    return stamp


@dataclass(slots=True)
class Accounting:
    """The jobs of a window ``[start, end)``, and where they came from."""

    jobs: pl.DataFrame
    start: int
    end: int
    source: str
    cluster: str | None = None
    faults: Faults | None = None
    nodes: list[NodeRecord] | None = None
    history: pl.DataFrame | None = None


def opened(name: str) -> Backend:
    """Return the backend of that name."""
    from hpcplan.cli.backends import open_backend

    return open_backend(name)


def from_dumps(
    dumps: Sequence[Path], columns: str | None, zone: tzinfo | None, since: str | None, until: str | None
) -> Accounting:
    """Read files; the window is what they span, unless it was given. Times are relative to the data's last moment."""
    from hpcplan.report import read_sacct
    from hpcplan.report.table import span

    jobs, faults = read_sacct(dumps, columns=columns, zone=zone)
    first, last = span(jobs)
    end = moment(until, zone, last, "--until") if until is not None else last + 1
    start = moment(since, zone, end, "--since") if since is not None else min(first, end - 1)
    _check(start, end)
    return Accounting(jobs, start, end, ", ".join(path.name or str(path) for path in dumps), faults=faults)


def from_backend(
    name: str, zone: tzinfo | None, since: str | int | None, until: str | int | None
) -> Accounting:  # fmt: skip
    """Ask Slurm; by default for the last day. Bounds are as people write them, or unix seconds."""
    from hpcplan.report import job_table

    backend = opened(name)
    now = backend.now()
    end = moment(until, zone, now, "--until") if until is not None else now + 1  # what ended just now has ended
    start = moment(since, zone, end, "--since") if since is not None else end - 86400
    _check(start, end)
    info, nodes = backend.ping(), backend.nodes()
    jobs = job_table(backend.accounting(start, end))
    return Accounting(jobs, start, end, f"the {info.backend} backend", info.cluster, nodes=nodes)


def _check(start: int, end: int) -> None:
    from hpcplan.errors import InputError

    if start >= end:
        raise InputError("the window is empty: --since is not before --until")


def made(
    found: Accounting, zone: tzinfo | None, site_name: str | None, shares: Path | None, *, keep: Path | None,
    hide: bool, counterfactual: bool = False, slurm_conf: Path | None = None,
) -> Report:  # fmt: skip
    """Return the report of what was found, its history kept where asked."""
    import dataclasses

    from hpcplan.report import build_report

    if keep is not None:
        _kept(found, keep)
    if hide:
        _hidden(found)
    site = _site(site_name)
    tracked = tracked_of(evidence_of(None if site is None else site.name, _cluster(found)), hide=hide)
    prices, currency = _prices(site, needed=not tracked)
    report = build_report(
        found.jobs, start=found.start, end=found.end, nodes=found.nodes or _nodes_of(site),
        price_per_node_hour=prices, currency=currency,
        cluster=found.cluster, source=found.source, faults=found.faults, zone=zone, known=_facts(site, shares, tracked),
        history=found.history,
    )  # fmt: skip
    if counterfactual:
        report = dataclasses.replace(report, counterfactual=_replayed(report, site, slurm_conf))
    return report


def _kept(found: Accounting, folder: Path) -> None:
    from hpcplan.report.build import TREND_DAYS
    from hpcplan.report.history import History

    history = History(folder)
    added = history.add(found.jobs)
    found.history = history.table(found.start - TREND_DAYS * 86400, found.end)
    narrate(f"{folder}: {added:,} attempts are new in the history")


def _hidden(found: Accounting) -> None:
    from hpcplan.report.privacy import anonymized, secret_in
    from hpcplan.resources import data_dir

    secret = secret_in(data_dir() / "report")
    found.jobs = anonymized(found.jobs, secret)
    if found.history is not None:
        found.history = anonymized(found.history, secret)
    if found.faults is not None:
        found.faults.hide_quotes()


def _site(name: str | None) -> Site | None:
    if name is None:
        return None
    from hpcplan.site.load import load_site

    return load_site(name).site


def _cluster(found: Accounting) -> str | None:
    if found.cluster is not None or "cluster" not in found.jobs.columns:
        return found.cluster
    names = found.jobs["cluster"].drop_nulls().unique().to_list()
    return names[0] if len(names) == 1 else None


def _nodes_of(site: Site | None) -> list[NodeRecord] | None:
    """Return the nodes of a site file, for where no controller tells: how large the parts of the cluster are."""
    if site is None:
        return None
    from hpcplan.hostlist import expand
    from hpcplan.slurm.records import NodeRecord

    drained = set(expand(site.drained)) if site.drained else set()
    found = []
    for name, group in site.node_groups.items():
        held = group.accelerators
        kind = None if held is None else held.gres or held.type
        partitions = tuple(key for key, partition in site.partitions.items() if name in partition.nodes)
        found += [
            NodeRecord(
                host, "drained" if host in drained else "idle", partitions=partitions, cpus=group.cpus,
                memory_bytes=int(group.memory_bytes), gres=None if held is None else f"gpu:{kind}:{held.count}",
                gpus=0 if held is None else None if held.mig else held.count,
            )
            for host in group.hostnames()
        ]  # fmt: skip
    return found


def _prices(site: Site | None, *, needed: bool) -> tuple[dict[str, float] | None, str | None]:
    if site is None:
        return None, None
    from hpcplan.errors import InputError

    prices = {
        host: group.price_per_hour
        for group in site.node_groups.values()
        if group.price_per_hour is not None
        for host in group.hostnames()
    }
    powered = any(group.power_w is not None for group in site.node_groups.values())
    if needed and not prices and not (powered or site.prices.energy_per_kwh is not None):
        raise InputError(f"--site: {site.name} gives no price_per_hour for any node group")
    return prices or None, site.prices.currency


def _facts(site: Site | None, shares: Path | None, tracked: tuple[Tracked, ...]) -> SiteFacts:
    from hpcplan.report.shares import read_shares
    from hpcplan.report.site_facts import SiteFacts

    targets = None if shares is None else read_shares(shares)
    own = own_jobs()
    if site is None:
        return SiteFacts(shares=targets, predicted_s=own.predicted_s, samples=own.samples, tracked=tracked)
    groups = [(name, group, host) for name, group in site.node_groups.items() for host in group.hostnames()]
    price = site.prices.energy_per_kwh
    return SiteFacts(
        power_w_per_node={host: group.power_w for _, group, host in groups if group.power_w is not None} or None,
        price_per_kwh=None if price is None else price * site.prices.pue,
        group_of_node={host: name for name, _, host in groups},
        shares=targets,
        predicted_s=own.predicted_s,
        samples=own.samples,
        tracked=tracked,
    )


def _replayed(report: Report, site: Site | None, slurm_conf: Path | None) -> Counterfactual:
    import polars as pl

    from hpcplan.errors import InputError
    from hpcplan.report.occupancy import occupancy
    from hpcplan.report.rightsizing import MOST_JOBS, requests
    from hpcplan.report.rows import Counterfactual
    from hpcplan.schedule.counterfactual import Asked, PastJob, replay
    from hpcplan.simulate.slurm_cluster import cluster_of_site, read_slurm_cluster

    if slurm_conf is not None:
        cluster = read_slurm_cluster(slurm_conf)
    elif site is not None:
        cluster = cluster_of_site(site)
    else:
        raise InputError("--counterfactual needs the cluster: --slurm-conf FILE, or --site SITE")
    rows = requests(report.jobs_table, report.start)
    if len(rows) > MOST_JOBS:
        raise InputError(
            f"--counterfactual replays {MOST_JOBS:,} jobs at most, and the window has {len(rows):,}; shorten it"
        )
    jobs = [PastJob(**{**row, "asked": Asked(**row["asked"]), "needed": Asked(**row["needed"])}) for row in rows]
    shared = occupancy(report.jobs_table, report.start).shared
    result = replay(jobs, cluster, nodes_shared=shared)
    counted = {row["label"] for row in rows if row["counted"]}
    table = report.jobs_table
    labels = table["label"] + "@" + table["start_time"].cast(pl.String)
    measured = float(table.filter(labels.is_in(sorted(counted)))["wait_s"].sum() or 0) / 3600
    note = (
        "Jobs share nodes: EASY backfill over CPUs, each job as wide as its dominant share."
        if shared
        else ("Jobs get whole nodes: Slurm's rules on the cluster's nodes, where only time limits make a difference.")
    )
    note += f" {result.left_out:,} jobs that this cluster would refuse are left out." if result.left_out else ""
    return Counterfactual(
        jobs=result.jobs, changed=result.changed, left_out=result.left_out, measured_wait_hours=measured,
        replayed_wait_hours=result.asked_wait_hours, right_sized_wait_hours=result.needed_wait_hours,
        sized_wait_hours=result.sized_wait_hours, replayed_core_hour_wait_s=result.asked_core_hour_s,
        right_sized_core_hour_wait_s=result.needed_core_hour_s, note=note,
    )  # fmt: skip


def narrate_problems(faults: Faults | None, *, appendix: bool = True) -> None:
    """Say on stderr what could not be read; where no report has an appendix for it, with its first lines."""
    if faults is None:
        return
    for note in faults.notes:
        narrate(note)
    if faults.counts:
        what = ", ".join(f"{number:,} × {kind}" for kind, number in faults.counts.items())
        narrate(f"not everything could be read: {what}" + ("; the report's appendix quotes them" if appendix else ""))
    for fault in faults.quoted[:3] if not appendix else []:
        narrate(f"  {fault.file}:{fault.line}: {fault.message}")
