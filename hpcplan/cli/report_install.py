"""``hpcplan report install``: every night, by cron, scrontab or systemd."""

from __future__ import annotations

from pathlib import Path

import click

from hpcplan.cli.output import narrate

__all__ = ["command"]


@click.command("install", context_settings={"ignore_unknown_options": True})
@click.option("--cron", "kind", flag_value="cron", help="A line in your crontab.")
@click.option("--scrontab", "kind", flag_value="scrontab", help="A line in your scrontab, run by Slurm.")
@click.option("--systemd", "kind", flag_value="systemd", help="A service and a timer of your own systemd.")
@click.option("--at", default="01:30", show_default=True, metavar="HH:MM", help="When, by this machine's clock.")
@click.option("--remove", is_flag=True, help="Take it away again.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF report nightly]")
def command(kind: str | None, at: str, remove: bool, dry_run: bool, arguments: tuple[str, ...]) -> None:
    """Have the nights reported by cron, scrontab or systemd.

    Prints what it will do, then does it. What stands behind -- is given to hpcplan report nightly; --out DIR must be
    there.

    \b
    Example:
      hpcplan report install --cron --at 01:30 -- --out ~/queue --mail me@example.org
      hpcplan report install --systemd --dry-run -- --out /srv/www/queue --site mysite
    """
    from hpcplan.report.install import actions, carry_out

    if kind is None:
        raise click.UsageError("say how: --cron, --scrontab or --systemd")
    words = () if remove else _checked(arguments)
    steps = actions(kind, at, words, remove=remove)  # type: ignore[arg-type]
    for step in steps:
        click.echo(f"{step.what}:" if step.text else step.what)
        for line in step.text.splitlines():
            click.echo(f"    {line}")
    if dry_run:
        narrate("nothing was done: --dry-run")
        return
    for step in steps:
        carry_out(step)
    narrate("removed" if remove else "installed")


def _checked(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Let the command that will run in the night read its options now, and make its paths absolute."""
    from hpcplan.cli.report_nightly import command as nightly

    nightly.make_context("hpcplan report nightly", list(arguments))
    paths = {
        option for parameter in nightly.params if isinstance(parameter.type, click.Path) for option in parameter.opts
    }
    found: list[str] = []
    for word in arguments:
        option, equals, value = word.partition("=")
        if found and found[-1] in paths:
            word = str(Path(word).expanduser().absolute())
        elif equals and option in paths:
            word = f"{option}={Path(value).expanduser().absolute()}"
        elif found and found[-1] == "--site" and Path(word).is_file():
            word = str(Path(word).absolute())
        found.append(word)
    return tuple(found)
