"""``hpcplan wait``: until a campaign has ended."""

from __future__ import annotations

import time

import click

from hpcplan.cli.output import echo_json, format_option, narrate

__all__ = ["command"]


@click.command()
@click.argument("campaign", required=False)
@click.option("--timeout", "timeout", metavar="TIME", help="Give up after this long, as 8h; exit code 1.")
@format_option
def command(campaign: str | None, timeout: str | None, output_format: str) -> int:
    """Wait until a campaign has ended.

    Exit code 0 if training is done, 1 if it is not or the time is over. Slurm is asked every 15 seconds (a mock
    cluster every second), less often while it does not answer.

    \b
    Examples:
      hpcplan wait llama3-70b && hpcplan report
      hpcplan wait campaign --timeout 8h
    """
    from hpcplan.campaign import watch
    from hpcplan.cli.status import headline, locate

    limit_s = _seconds(timeout)
    directory, backend = locate(campaign)
    if backend is None:
        raise click.UsageError(f"{directory} was never submitted, so there is nothing to wait for")
    deadline = None if limit_s is None else time.monotonic() + limit_s
    for result in watch(directory, backend):
        if deadline is not None and time.monotonic() > deadline and result.moving:
            narrate(f"{timeout} are over")
            break
    if output_format == "json":
        echo_json(result.as_dict())
    else:
        click.echo(headline(result))
    return int(result.state.value != "done")


def _seconds(text: str | None) -> float | None:
    from hpcplan.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from None
