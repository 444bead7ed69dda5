"""``hpcplan report``: how well the queue was used, and job by job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    import polars as pl

    from hpcplan.report.faults import Faults
    from hpcplan.report.model import Report
    from hpcplan.slurm.backend import Backend
    from hpcplan.slurm.records import NodeRecord

__all__ = ["command"]

_sacct_option = click.option(
    "--sacct",
    "dumps",
    multiple=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE...",
    help="Read what sacct --parsable2 wrote (any delimiter, gzip too; - is standard input) instead of asking.",
)
_columns_option = click.option(
    "--columns", metavar="JobID,State,…", help="sacct's --format, for files that were written without a header."
)
_zone_option = click.option(
    "--timezone", "zone_name", metavar="ZONE", help="Where sacct ran, such as Europe/Berlin. Default: this machine's."
)


class _WithFiles(click.Command):
    """A command whose ``--sacct`` takes several files, as a shell's ``--sacct *.txt`` writes them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat ``--sacct`` before each further file."""
        return super().parse_args(ctx, _repeat_option(args))


class _WithFilesGroup(click.Group):
    """As :class:`_WithFiles`, for the group itself."""

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
        if follows and not word.startswith("-") and not re.fullmatch(r"[\d_+]+", word):
            repeated.append("--sacct")
        elif follows:
            in_files = False
        in_files = in_files or word == "--sacct"
        repeated.append(word)
    return repeated


@click.group(cls=_WithFilesGroup, invoke_without_command=True)
@click.option(
    "--since", metavar="24h|7d|DATE", help="Start of the window. Default: a day ago; with --sacct, all of it."
)
@click.option("--until", metavar="DATE", help="End. Default: now; with --sacct, its last moment.")
@_sacct_option
@_columns_option
@_zone_option
@backend_option
@click.option("--site", "site_name", metavar="SITE", help="Take the prices of this site file, for the cost.")
@click.option("--templates", type=click.Path(path_type=Path), metavar="DIR", help="Look for templates here first.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "html", "md", "json", "csv"]),
    help="Default: by the ending of -o's file, else a table. csv has one row a job.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Report how well the queue was used.

    Wait, utilisation and efficiency from the cluster's accounting, and what to change. What is not on record is
    unknown, never zero: every figure says how much of what it should cover was measured.

    \b
    Example:
      hpcplan report --since 7d -o week.html
      sacct -a -P --format=ALL --starttime=now-1day | hpcplan report --sacct - --format md
      hpcplan report jobs 4711 --format json
    """
    ctx.obj = options
    if ctx.invoked_subcommand is None:
        _night(**options)


def _night(
    since: str | None, until: str | None, dumps: tuple[Path, ...], columns: str | None, zone_name: str | None,
    backend_name: str, site_name: str | None, templates: Path | None, output_format: str | None, output: Path | None,
) -> None:  # fmt: skip
    from hpcplan.documents import write_text
    from hpcplan.report import render

    form = _form(output_format, output)
    zone = _zone(zone_name)
    with progress("reading accounting"):
        report = _report(since, until, dumps, columns, zone, backend_name, site_name)
        text = "" if form == "table" else render(report, form, zone=zone, templates=templates)  # type: ignore[arg-type]
    _narrate_problems(report.problems.counts)
    if form == "table":
        _print(report)
    elif output is None or str(output) == "-":
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        narrate(f"{output}: {report.jobs.total:,} job attempts")


def _form(output_format: str | None, output: Path | None) -> str:
    from hpcplan.errors import InputError

    if output is None or str(output) == "-":
        return output_format or "table"
    ending = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".csv": "csv"}.get(output.suffix.lower())
    form = output_format or ending
    if form is None:
        raise InputError(f"-o {output}: the format cannot be told from its ending; give --format html, md, json or csv")
    if form == "table":
        raise InputError("--format table is for the terminal; give -o a file of format html, md, json or csv")
    return form


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    from hpcplan.errors import InputError

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        raise InputError(f"--timezone: {name!r} is not a time zone; write it like Europe/Berlin or UTC") from None


def _report(
    since: str | None, until: str | None, dumps: tuple[Path, ...], columns: str | None, zone: tzinfo | None,
    backend_name: str, site_name: str | None,
) -> Report:  # fmt: skip
    from hpcplan.report import build_report, job_table

    prices, currency = _prices(site_name)
    faults: Faults | None = None
    nodes: list[NodeRecord] | None = None
    if dumps:
        jobs, faults = _read(dumps, columns, zone)
        start, end = _window_of_dump(jobs, since, until, zone)
        source, cluster = ", ".join(path.name or str(path) for path in dumps), None
    else:
        backend = _open(backend_name)
        now = backend.now()
        end = _moment(until, zone, now, "--until") if until is not None else now + 1  # what ended just now has ended
        start = _moment(since, zone, end, "--since") if since is not None else end - 86400
        _check(start, end)
        info, nodes = backend.ping(), backend.nodes()
        jobs = job_table(backend.accounting(start, end))
        source, cluster = f"the {info.backend} backend", info.cluster
    return build_report(
        jobs, start=start, end=end, nodes=nodes, price_per_node_hour=prices, currency=currency, cluster=cluster,
        source=source, faults=faults, zone=zone,
    )  # fmt: skip


def _open(name: str) -> Backend:
    from hpcplan.cli.backends import open_backend

    return open_backend(name)


def _read(dumps: Sequence[Path], columns: str | None, zone: tzinfo | None) -> tuple[pl.DataFrame, Faults]:
    from hpcplan.report import read_sacct

    return read_sacct(dumps, columns=columns, zone=zone)


def _prices(site_name: str | None) -> tuple[dict[str, float] | None, str | None]:
    if site_name is None:
        return None, None
    from hpcplan.errors import InputError
    from hpcplan.site.load import load_site

    site = load_site(site_name).site
    prices = {
        host: group.price_per_hour
        for group in site.node_groups.values()
        if group.price_per_hour is not None
        for host in group.hostnames()
    }
    if not prices:
        raise InputError(f"--site: {site.name} gives no price_per_hour for any node group")
    return prices, site.prices.currency


def _window_of_dump(
    jobs: pl.DataFrame, since: str | None, until: str | None, zone: tzinfo | None
) -> tuple[int, int]:  # fmt: skip
    """Return the window: what the data span, unless it was given; times are relative to the data's last moment."""
    from hpcplan.report.table import span

    first, last = span(jobs)
    end = _moment(until, zone, last, "--until") if until is not None else last + 1
    start = _moment(since, zone, end, "--since") if since is not None else min(first, end - 1)
    _check(start, end)
    return start, end


def _check(start: int, end: int) -> None:
    from hpcplan.errors import InputError

    if start >= end:
        raise InputError("the window is empty: --since is not before --until")


def _moment(text: str, zone: tzinfo | None, now: int, option: str) -> int:
    """Return unix seconds for ``24h`` (before ``now``) or an ISO date or time."""
    from hpcplan.errors import InputError
    from hpcplan.units import parse_duration

    try:
        moment = datetime.fromisoformat(text)
        stamp = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError, OSError):
        try:
            stamp = now - round(parse_duration(text))
        except (ValueError, OverflowError):
            hint = "write it like 24h, 7d, 2024-05-01 or 2024-05-01T12:00:00"
            raise InputError(f"{option}: {text!r} is neither a time span nor a date; {hint}") from None
    if not 0 <= stamp < 2**35:
        raise InputError(f"{option}: {text!r} is out of range")
    return stamp


def _narrate_problems(counts: dict[str, int]) -> None:
    if counts:
        what = ", ".join(f"{number:,} × {kind}" for kind, number in counts.items())
        narrate(f"not everything could be read: {what}; the report's appendix quotes them")


def _print(report: Report) -> None:
    from hpcplan.report import formats, summary

    screen = console()
    title = f"Queue report: {report.source}"
    screen.print(
        table(
            title,
            ("figure", ">value", "coverage", "of", "note"),
            [(line.name, line.value, line.coverage, line.basis, line.note) for line in summary.lines(report)],
        )
    )
    rows = [
        (
            "(none on record)" if row.name is None else row.name, row.jobs, formats.number(row.core_hours),
            formats.number(row.gpu_hours), formats.number(row.idle_core_hours), formats.percent(row.cpu_efficiency),
            formats.percent(row.gpu_efficiency), formats.duration(row.median_wait_s),
        )
        for row in report.by_user[:20]
    ]  # fmt: skip
    headings = ("user", ">jobs", ">core-hours", ">GPU-hours", ">idle core-h", ">CPU eff.", ">GPU eff.", ">median wait")
    screen.print(table("By user", headings, rows))
    if report.advice:
        pieces = [(one.who, one.kind, one.finding, one.action) for one in report.advice[:10]]
        screen.print(table("What to change", ("who", "what", "evidence", "do"), pieces))


@command.command("jobs", cls=_WithFiles)
@click.argument("job_ids", nargs=-1, metavar="[JOBID]...")
@_sacct_option
@_columns_option
@_zone_option
@backend_option
@click.option("--user", metavar="NAME", help="Only this user's jobs.")
@click.option("--since", metavar="24h|7d|DATE", help="Without job ids: how far back to look. Default: a day.")
@format_option
@click.pass_obj
def jobs_command(
    outer: dict[str, Any], job_ids: tuple[str, ...], dumps: tuple[Path, ...], columns: str | None,
    zone_name: str | None, backend_name: str, user: str | None, since: str | None, output_format: str,
) -> None:  # fmt: skip
    """Show how efficient single jobs were.

    Fractions from 0 to 1 in JSON, null where unknown: while a job runs, and where Slurm recorded no use.

    \b
    Example:
      hpcplan report jobs 4711 4712_3
      hpcplan report jobs --sacct sacct.txt --user alice --format json
    """
    from hpcplan.errors import HpcplanError
    from hpcplan.report import jobs_of

    files = (*outer["dumps"], *dumps)
    zone = _zone(zone_name or outer["zone_name"])
    with progress("reading accounting"):
        if files:
            found, faults = _read(files, columns or outer["columns"], zone)
            _narrate_problems(dict(faults.counts))
            now: int | None = None
        else:
            name = backend_name if backend_name != "auto" else outer["backend_name"]
            found, now = _live(_open(name), job_ids, since or outer["since"], zone)
        rows = jobs_of(found, job_ids, user=user, now=now)
    if job_ids and not rows:
        raise HpcplanError(f"accounting knows no job {', '.join(job_ids)}" + (f" of {user}" if user else ""))
    if output_format == "json":
        echo_json(rows)
        return
    _print_jobs(rows)


def _live(
    backend: Backend, job_ids: Sequence[str], since: str | None, zone: tzinfo | None
) -> tuple[pl.DataFrame, int]:  # fmt: skip
    """Return the accounting of the jobs named (a year back, unless told otherwise), or of the last day."""
    from hpcplan.report import job_table

    now = backend.now()
    default = now - (365 * 86400 if job_ids else 86400)
    start = default if since is None else _moment(since, zone, now, "--since")
    return job_table(backend.accounting(max(0, start), now + 1)), now


def _print_jobs(rows: Sequence[dict[str, Any]]) -> None:
    from hpcplan.report import formats

    headings = ("job", "user", "state", ">wait", ">elapsed", ">CPU eff.", ">memory eff.", ">GPU eff.", ">time used")
    shown = [
        (
            row["job_id"], row["user"], row["state"], formats.duration(row["wait_s"]),
            formats.duration(row["elapsed_s"]), formats.percent(row["cpu_efficiency"]),
            formats.percent(row["memory_efficiency"]), formats.percent(row["gpu_efficiency"]),
            formats.percent(row["time_efficiency"]),
        )
        for row in rows
    ]  # fmt: skip
    console().print(table(None, headings, shown))
