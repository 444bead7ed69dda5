"""``hpcplan cancel``: stop a campaign."""

from __future__ import annotations

import sys

import click

from hpcplan.cli.backends import settle_s
from hpcplan.cli.output import echo_json, format_option, narrate, progress

__all__ = ["command"]


@click.command()
@click.argument("campaign")
@click.option("--yes", is_flag=True, help="Do not ask.")
@format_option
def command(campaign: str, yes: bool, output_format: str) -> None:
    """Cancel a campaign's jobs.

    CAMPAIGN is its directory or its name. Jobs that run are stopped, those that wait are taken out of the queue, and no
    more are submitted. What was trained stays in the checkpoints.

    \b
    Examples:
      hpcplan cancel llama3-70b
      hpcplan cancel campaign --yes
    """
    from hpcplan.campaign import cancel
    from hpcplan.cli.status import headline, locate

    directory, backend = locate(campaign)
    if backend is None:
        narrate(f"{directory}: nothing was submitted, so there is nothing to cancel")
        if output_format == "json":
            echo_json({"directory": str(directory.resolve()), "cancelled": [], "ended": []})
        return
    if not yes:
        from hpcplan.campaign import status

        _ask(headline(status(directory, backend)))
    with progress("cancelling"):
        result = cancel(directory, backend, settle_s=settle_s(backend))
    if output_format == "json":
        echo_json(
            {"directory": str(directory.resolve()), "cancelled": list(result.job_ids), "ended": list(result.ended)}
        )
        return
    ids = ", ".join(str(job_id) for job_id in result.job_ids)
    click.echo(f"cancelled {len(result.job_ids)} jobs: {ids}" if result.job_ids else "no job was left to cancel")


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here; say --yes")
    click.confirm(f"{what}\nCancel it?", abort=True, err=True)
