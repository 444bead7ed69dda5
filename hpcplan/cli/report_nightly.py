"""``hpcplan report nightly``: what cron runs."""

from __future__ import annotations

import logging
from datetime import date, tzinfo
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli import report_source as source
from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import narrate

if TYPE_CHECKING:
    from hpcplan.report.model import Report

__all__ = ["command"]

_LOG_BYTES = 1_000_000
_log = logging.getLogger("hpcplan.nightly")


@click.command("nightly")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where the pages go.")
@click.option("--mail", "recipients", multiple=True, metavar="ADDRESS", help="Mail each night's report there.")
@click.option("--from", "sender", default="hpcplan", show_default=True, metavar="ADDRESS", help="Who the mail is from.")
@click.option("--smtp", metavar="HOST:PORT", help="Send mail through this server. Default: this machine's sendmail.")
@click.option("--webhook", metavar="URL", help="Post each night's figures there as JSON.")
@click.option("--site", "site_name", metavar="SITE", help="Take prices, power and node groups of this site file.")
@click.option("--shares", type=click.Path(path_type=Path), metavar="FILE", help="Fairshare's targets.")
@click.option("--prometheus", type=click.Path(path_type=Path), metavar="FILE", help="Write Prometheus' text here.")
@click.option("--fail-if", "conditions", multiple=True, metavar="FIGURE<NUMBER", help="Leave with 1 if it is so.")
@click.option("--per-user", is_flag=True, help="Also write a page for each user, in DIR/users/DATE.")
@click.option("--anonymize", is_flag=True, help="Put pseudonyms for users, accounts and job names.")
@click.option("--history", type=click.Path(path_type=Path), metavar="DIR", help="Where the history is.")
@click.option("--catch-up", default=7, show_default=True, type=click.IntRange(1, 366), help="Missed nights, at most.")
@click.option("--keep-pages", default=400, show_default=True, type=click.IntRange(0), help="Nights; 0: all of them.")
@click.option("--keep-history", default=0, show_default=True, type=click.IntRange(0), help="Days; 0: all of them.")
@source.zone_option
@backend_option
def command(**options: Any) -> None:
    """Report every night that has not been reported yet.

    A night is a day from midnight to midnight. Writes DATE.html and DATE.json into DIR, latest.html, and nightly.log,
    which is rotated; adds the night to the history. Runs do not overlap. Nights that were missed are caught up.

    Exit codes: 0 done, or nothing was due; 1 a --fail-if holds, mail, webhook or --prometheus failed, or another run
    has not ended; 2 wrong options; 4 Slurm is not reachable, and the night is left to the next run.

    \b
    Example:
      hpcplan report nightly --out /srv/www/queue --site mysite --mail hpc-admins@example.org
    """
    from hpcplan.report.nights import locked

    out: Path = options["out"]
    with locked(out):
        handler = RotatingFileHandler(out / "nightly.log", maxBytes=_LOG_BYTES, backupCount=5, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        _log.addHandler(handler)
        _log.setLevel(logging.INFO)
        try:
            _run(out, options)
        except Exception as error:
            _log.error("%s", error)
            raise
        finally:
            _log.removeHandler(handler)
            handler.close()


def _run(out: Path, options: dict[str, Any]) -> None:
    from hpcplan.errors import HpcplanError
    from hpcplan.report.nights import due, finished, swept
    from hpcplan.report.thresholds import parse_threshold

    zone = source.zone_named(options["zone_name"])
    bounds = [parse_threshold(text) for text in options["conditions"]]
    now = source.opened(options["backend_name"]).now()
    nights = due(out, now, zone, options["catch_up"])
    if not nights:
        narrate("no night is due")
    trouble: list[str] = []
    for night in nights:
        trouble += _one(night, out, options, zone, bounds, last=night == nights[-1])
        finished(out, night)
        _log.info("%s reported", night)
    swept(out, options["keep_pages"])
    if trouble:
        raise HpcplanError("; ".join(trouble))


def _one(
    night: date, out: Path, options: dict[str, Any], zone: tzinfo | None, thresholds: list[Any], *, last: bool
) -> list[str]:  # fmt: skip
    """Report one night; return what monitoring should hear of it."""
    from hpcplan.documents import write_text
    from hpcplan.report import render
    from hpcplan.report.history import History, default_folder
    from hpcplan.report.nights import bounds
    from hpcplan.report.thresholds import crossed

    start, end = bounds(night, zone)
    found = source.from_backend(options["backend_name"], zone, start, end)
    folder = options["history"] or default_folder(found.cluster)
    report = source.made(
        found, zone, options["site_name"], options["shares"], keep=folder, hide=options["anonymize"]
    )  # fmt: skip
    if options["keep_history"]:
        History(folder).forget_before(end - options["keep_history"] * 86400)
    page = render(report, "html", zone=zone)
    write_text(out / f"{night}.html", page)
    write_text(out / f"{night}.json", render(report, "json"))
    if last:
        write_text(out / "latest.html", page)
    if options["per_user"]:
        from hpcplan.report.people import pages

        pages(found.jobs, report, out / "users" / str(night), zone=zone)
    narrate(f"{out / f'{night}.html'}: {report.jobs.total:,} job attempts")
    told = _told(report, page, options, zone, last=last)
    return [f"{night}: {line}" for line in crossed(report, thresholds)] + told


def _told(report: Report, page: str, options: dict[str, Any], zone: tzinfo | None, *, last: bool) -> list[str]:
    """Mail, post and export; what goes wrong is said at the end, since the pages are written and the night is done."""
    from hpcplan.documents import write_text
    from hpcplan.errors import HpcplanError
    from hpcplan.report.mail import message, post, send
    from hpcplan.report.prometheus import prometheus_text

    trouble = []
    try:
        if options["prometheus"] is not None and last:
            write_text(options["prometheus"], prometheus_text(report))
    except HpcplanError as error:
        trouble.append(str(error))
    try:
        if options["recipients"]:
            made = message(report, page, sender=options["sender"], recipients=list(options["recipients"]), zone=zone)
            send(made, options["smtp"])
    except HpcplanError as error:
        trouble.append(str(error))
    try:
        if options["webhook"] is not None:
            post(report, options["webhook"], zone)
    except HpcplanError as error:
        trouble.append(str(error))
    return trouble
