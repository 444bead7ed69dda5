"""``hpcplan report``: how well the queue was used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hpcplan.cli import report_source as source
from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import console, narrate, progress, table
from hpcplan.garbage import without_collection

if TYPE_CHECKING:
    from hpcplan.report.model import Report

__all__ = ["command"]

_FORMATS: Final = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".csv": "csv", ".prom": "prom",
                   ".txt": "txt"}  # fmt: skip
_COMMANDS: Final = {
    "jobs": "Show how efficient single jobs were.",
    "nightly": "Report every night that has not been reported yet.",
    "install": "Have the nights reported by cron, scrontab or systemd.",
}


class _Group(source.WithFilesGroup):
    """The subcommands are in files of their own, loaded when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands."""
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a subcommand's file."""
        if name not in _COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"hpcplan.cli.report_{name}").command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As WithFilesGroup, whose subcommands these are."""
        self.commands = dict.fromkeys(_COMMANDS, click.Command(None))
        return super().parse_args(ctx, args)


@click.group(cls=_Group, invoke_without_command=True)
@click.option(
    "--since", metavar="24h|7d|DATE", help="Start of the window. Default: a day ago; with --sacct, all of it."
)
@click.option("--until", metavar="DATE", help="End. Default: now; with --sacct, its last moment.")
@source.sacct_option
@source.columns_option
@source.zone_option
@backend_option
@click.option("--site", "site_name", metavar="SITE", help="Take prices, power and node groups of this site file.")
@click.option(
    "--shares", type=click.Path(path_type=Path), metavar="FILE",
    help="Fairshare's targets: what sshare -a -l -P wrote, or lines of account,share.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Add what was read to the history, and show the trend from it.")
@click.option("--history", type=click.Path(path_type=Path), metavar="DIR", help="Where the history is (with --keep).")
@click.option("--user", metavar="NAME", help="Only this user's jobs: a page to send to one person.")
@click.option("--per-user", type=click.Path(path_type=Path), metavar="DIR", help="Also write a page for each user.")
@click.option("--anonymize", is_flag=True, help="Put pseudonyms for users, accounts and job names.")
@click.option(
    "--counterfactual", is_flag=True,
    help="Replay the window on the mock cluster of --slurm-conf or --site with right-sized requests.",
)  # fmt: skip
@click.option("--slurm-conf", type=click.Path(path_type=Path), metavar="FILE", help="The cluster for --counterfactual.")
@click.option(
    "--fail-if", "conditions", multiple=True, metavar="FIGURE<NUMBER",
    help="Leave with exit code 1 if a figure of the JSON is so, such as cpu_efficiency<0.4 or wait.p95>86400.",
)  # fmt: skip
@click.option("--templates", type=click.Path(path_type=Path), metavar="DIR", help="Look for templates here first.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "html", "md", "json", "csv", "txt", "prom"]),
    help="Default: by the ending of -o's file, else a table. csv has one row a job; prom is Prometheus' text format.",
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
      hpcplan report install --systemd -- --out /srv/www/queue
    """
    ctx.obj = options
    if ctx.invoked_subcommand is None:
        _window(**options)


def _window(
    since: str | None, until: str | None, dumps: tuple[Path, ...], columns: str | None, zone_name: str | None,
    backend_name: str, site_name: str | None, shares: Path | None, keep: bool, history: Path | None, user: str | None,
    per_user: Path | None, anonymize: bool, counterfactual: bool, slurm_conf: Path | None, conditions: tuple[str, ...],
    templates: Path | None, output_format: str | None, output: Path | None,
) -> None:  # fmt: skip
    from hpcplan.report.thresholds import crossed, parse_threshold

    form, zone = _form(output_format, output), source.zone_named(zone_name)
    bounds = [parse_threshold(text) for text in conditions]
    with progress("reading accounting"), without_collection():
        found = (
            source.from_dumps(dumps, columns, zone, since, until)
            if dumps
            else source.from_backend(backend_name, zone, since, until)
        )
        if user is not None:
            _only(found, user)
        kept = _history(found, keep, history) if user is None else None
        report = source.made(
            found, zone, site_name, shares, keep=kept, hide=anonymize, counterfactual=counterfactual,
            slurm_conf=slurm_conf,
        )  # fmt: skip
        text = "" if form == "table" else _text(report, form, zone, templates)
    source.narrate_problems(found.faults)
    _write(report, form, text, output)
    if per_user is not None:
        _pages(found, report, per_user, zone, templates)
    _check(crossed(report, bounds))


def _history(found: source.Accounting, keep: bool, folder: Path | None) -> Path | None:
    from hpcplan.report.history import default_folder

    if folder is not None:
        return folder
    if not keep:
        return None
    clusters = found.jobs["cluster"].drop_nulls().unique().to_list()
    return default_folder(found.cluster or (clusters[0] if len(clusters) == 1 else None))


def _only(found: source.Accounting, user: str) -> None:
    import polars as pl

    from hpcplan.errors import HpcplanError

    found.jobs = found.jobs.filter(pl.col("user") == user)
    if found.jobs.is_empty():
        raise HpcplanError(f"accounting knows no job of {user} in this window")
    found.source += f", jobs of {user} alone"


def _pages(found: source.Accounting, report: Report, folder: Path, zone: Any, templates: Path | None) -> None:
    from hpcplan.report.people import pages

    written = pages(found.jobs, report, folder, zone=zone, templates=templates)
    narrate(f"{folder}: {written:,} pages, one a user")


def _check(found: list[str]) -> None:
    from hpcplan.errors import HpcplanError

    if found:
        raise HpcplanError("; ".join(found))


def _form(output_format: str | None, output: Path | None) -> str:
    from hpcplan.errors import InputError

    if output is None or str(output) == "-":
        return output_format or "table"
    form = output_format or _FORMATS.get(output.suffix.lower())
    if form is None:
        raise InputError(f"-o {output}: the format cannot be told from its ending; give --format html, md, json or csv")
    if form == "table":
        raise InputError("--format table is for the terminal; give -o a file of format html, md, json or csv")
    return form


def _text(report: Report, form: Any, zone: Any, templates: Path | None) -> str:
    from hpcplan.report import render

    if form == "prom":
        from hpcplan.report.prometheus import prometheus_text

        return prometheus_text(report)
    if form == "txt":
        from hpcplan.report.mail import plain_text

        return plain_text(report, zone)
    return render(report, form, zone=zone, templates=templates)


def _write(report: Report, form: str, text: str, output: Path | None) -> None:
    from hpcplan.documents import write_text

    if form == "table":
        _print(report)
    elif output is None or str(output) == "-":
        click.echo(text, nl=False)
    else:
        write_text(output, text)
        narrate(f"{output}: {report.jobs.total:,} job attempts")


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
    if report.counterfactual is not None:
        saved = formats.saved(report.counterfactual.saved_wait_hours)
        screen.print(f"Replayed with right-sized requests: {saved}", highlight=False)
