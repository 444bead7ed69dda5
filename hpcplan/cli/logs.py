"""``hpcplan logs``: what the jobs wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from hpcplan.cli.output import narrate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_LOOK_S = 1.0


@click.command()
@click.argument("campaign", required=False)
@click.option("--job", "key", metavar="KEY", help="A job, as train-02; else the newest with a log.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(min=0), help="How many last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is written, until Ctrl-C.")
@click.option("--path", "only_path", is_flag=True, help="Print the log's path alone.")
def command(campaign: str | None, key: str | None, lines: int, follow: bool, only_path: bool) -> None:
    """Show the logs of a campaign's jobs.

    CAMPAIGN is its directory or its name; without it, the current directory if that is one, else the newest. Slurm is
    not asked.

    \b
    Examples:
      hpcplan logs llama3-70b -f
      hpcplan logs campaign --job train-02 -n 200
    """
    from pathlib import Path

    from hpcplan.campaign import find_campaign

    directory, note = find_campaign(campaign, Path.cwd())
    if note is not None:
        narrate(note)
    path = _find(directory, key)
    if only_path:
        click.echo(path)
        return
    narrate(f"{path}:")
    with path.open("rb") as stream:
        for line in _last_lines(path, lines):
            click.echo(line)
        stream.seek(0, 2)
        while follow:
            data = stream.read()
            if data:
                click.echo(data.decode("utf-8", "replace"), nl=False)
            else:
                time.sleep(_LOOK_S)


def _find(directory: Path, key: str | None) -> Path:
    from hpcplan.campaign.layout import current_manifest, log_path
    from hpcplan.campaign.ledger import base_key, read_ledger
    from hpcplan.errors import InputError, nearest

    ledger = read_ledger(directory)
    known = current_manifest(directory, ledger).jobs
    jobs = [job for job in known if key in (None, job.key, base_key(job.key))]
    if not jobs:
        raise InputError(f"the campaign has no job {key!r}" + nearest(key or "", [job.key for job in known]))
    for job in reversed(jobs):
        job_id = ledger.job(job.key).job_id
        path = log_path(directory, job, job_id) if job_id is not None else None
        if path is not None and path.is_file():
            return path
        tasks = sorted(directory.glob(f"{job.job_name}-{job_id}_*.out")) if job_id is not None else []
        if tasks:
            return tasks[-1]
    which = "no job of the campaign has" if key is None else f"{key} has not"
    raise InputError(f"{which} written a log yet in {directory}", hint="hpcplan status says how the jobs stand")


def _last_lines(path: Path, count: int) -> list[str]:
    from hpcplan.campaign.causes import log_end

    return log_end(path).splitlines()[-count:] if count else []
