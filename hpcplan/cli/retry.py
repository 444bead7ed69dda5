"""``hpcplan retry``: go on with a campaign that has ended without being done."""

from __future__ import annotations

import click

from hpcplan.cli.backends import settle_s
from hpcplan.cli.output import echo_json, format_option, narrate, progress

__all__ = ["command"]


@click.command()
@click.argument("campaign", required=False)
@click.option("--why", default="asked for", help="What the journal is to say.")
@format_option
def command(campaign: str | None, why: str, output_format: str) -> None:
    """Go on with a campaign that has ended without being done.

    The jobs that did not complete are submitted once more and go on from the newest checkpoint. If a job stopped the
    chain (state/failed), mend the cause first; the marker is put aside. A cancelled campaign goes on, too.

    \b
    Examples:
      hpcplan retry llama3-70b
      hpcplan retry campaign --why "the data set is back"
    """
    from hpcplan.campaign import retry, submit
    from hpcplan.cli.status import locate

    directory, backend = locate(campaign)
    if backend is None:
        raise click.UsageError(f"{directory} was never submitted; hpcplan submit does that")
    with progress("going on"):
        keys = retry(directory, backend, why=why)
        steps = submit(directory, backend, settle_s=settle_s(backend))
    again = [step for step in steps if step.job.key in keys]
    if output_format == "json":
        echo_json({"directory": str(directory.resolve()), "jobs": [
            {"key": step.job.key, "job_id": step.job_id, "action": step.action} for step in again]})  # fmt: skip
        return
    for step in again:
        click.echo(f"{step.job.key}: {step.action}{f' as job {step.job_id}' if step.job_id else ''}")
    narrate(f"next: hpcplan status {directory} --watch")
