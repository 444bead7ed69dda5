"""``hpcplan report jobs``: how efficient single jobs were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli import report_source as source
from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table
from hpcplan.cli.report_own import own_jobs

if TYPE_CHECKING:
    import polars as pl

    from hpcplan.slurm.backend import Backend

__all__ = ["command"]


@click.command("jobs", cls=source.WithFiles)
@click.argument("job_ids", nargs=-1, metavar="[JOBID]...")
@source.sacct_option
@source.columns_option
@source.zone_option
@backend_option
@click.option("--user", metavar="NAME", help="Only this user's jobs.")
@click.option("--since", metavar="24h|7d|DATE", help="Without job ids: how far back to look. Default: a day.")
@format_option
@click.pass_obj
def command(
    outer: dict[str, Any], job_ids: tuple[str, ...], dumps: tuple[Path, ...], columns: str | None,
    zone_name: str | None, backend_name: str, user: str | None, since: str | None, output_format: str,
) -> None:  # fmt: skip
    """Show how efficient single jobs were.

    Fractions from 0 to 1 in JSON, null where unknown: while a job runs, and where Slurm recorded no use.

    \b
    Example:
      hpcplan report jobs 4711 4712_3 4713_[1-8]
      hpcplan report jobs --sacct sacct.txt --user alice --format json
    """
    from hpcplan.errors import HpcplanError
    from hpcplan.report import jobs_of, read_sacct
    from hpcplan.report.job_ids import chosen, parse_job_ids

    files = (*outer["dumps"], *dumps)
    zone = source.zone_named(zone_name or outer["zone_name"])
    with progress("reading accounting"):
        if files:
            found, faults = read_sacct(files, columns=columns or outer["columns"], zone=zone)
            source.narrate_problems(faults, appendix=False)
            now: int | None = None
        else:
            name = backend_name if backend_name != "auto" else outer["backend_name"]
            found, now = _live(source.opened(name), job_ids, since or outer["since"], zone)
        rows = jobs_of(found, job_ids, user=user, now=now, samples=own_jobs().samples)
    absent = chosen(found, parse_job_ids(job_ids))[1]
    if job_ids and not rows:
        raise HpcplanError(f"accounting knows no job {', '.join(job_ids)}" + (f" of {user}" if user else ""))
    if absent:
        narrate(f"accounting knows no job {', '.join(absent)}")
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
    start = default if since is None else source.moment(since, zone, now, "--since")
    return job_table(backend.accounting(max(0, start), now + 1)), now


def _print_jobs(rows: Sequence[dict[str, Any]]) -> None:
    from hpcplan.report import formats

    headings = ("job", "user", "state", ">wait", ">elapsed", ">CPU eff.", ">memory eff.", ">GPU eff.", ">time used")
    shown = [
        (
            row["job_id"], row["user"], row["state"], formats.duration(row["wait_s"]),
            formats.duration(row["elapsed_s"]), formats.percent(row["cpu_efficiency"]),
            formats.percent(row["memory_efficiency"]),
            formats.percent(row["gpu_efficiency"]) + (" (sampled)" if row["gpu_sampled"] else ""),
            formats.percent(row["time_efficiency"]),
        )
        for row in rows
    ]  # fmt: skip
    console().print(table(None, headings, shown))
