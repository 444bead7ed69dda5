"""``hpcplan mock``: start, stop, look at and move the clock of a mock Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.mock_exec import exec_command, shell_command
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress, table

if TYPE_CHECKING:
    from hpcplan.simulate.backend import Status

__all__ = ["command"]


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return whole seconds for a time span as people write it: ``24h``, ``30 min``, ``1-12:00:00``."""
    from hpcplan.units import parse_duration

    if value is None:
        return None
    try:
        return round(parse_duration(value))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


name_option = click.option("--name", help="Which mock cluster, where more than one runs.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Run a mock Slurm cluster of a site on this machine.

    It needs neither root nor Slurm. Jobs are pretended: each lasts as long as the script's line
    '# hpcplan: expected-runtime-s=SECONDS' says, else half of its time limit. The state is kept in the user's data
    folder ($HPCPLAN_MOCK names another directory), so that separate commands see one cluster.

    \b
    Example:
      hpcplan mock start superpod-h100 --load 0.7
      hpcplan submit campaign --backend mock
      hpcplan mock advance --until-idle
      hpcplan mock stop --purge
    """


command.add_command(shell_command)
command.add_command(exec_command)


@command.command()
@click.argument("site")
@click.option("--name", help="What to call the cluster; the site's name unless given.")
@click.option("--speed", type=float, help="Virtual seconds in one real second; 0 stops the clock.  [default: 60]")
@click.option("--load", type=float, help="Other users: the share of all node time that their jobs use, as 0.7.")
@click.option("--seed", type=int, help="Makes the other users' jobs the same again.  [default: 1]")
@click.option("--history", "history_s", callback=_seconds, help="How much of their past to make up.  [default: 24h]")
@click.option(
    "--policy", help="slurm (as slurmctld does), or fcfs, easy, backfill of the literature.  [default: slurm]"
)
@click.option("--sites", "sites_dir", type=click.Path(path_type=Path), help="Look for SITE in this folder first.")
@format_option
def start(site: str, sites_dir: Path | None, output_format: str, **options: Any) -> None:
    """Start a mock cluster of SITE (a name or a file), or go on with the one that was stopped.

    A stopped cluster goes on where it was, with its jobs and its accounting; to begin anew, first
    'hpcplan mock stop --purge'.

    \b
    Example:
      hpcplan mock start mixed-lab --speed 600 --load 0.7 --seed 1 --history 3d
    """
    from hpcplan.simulate.backend import MockBackend
    from hpcplan.simulate.lifecycle import StartOptions, start_cluster
    from hpcplan.site.load import load_site

    loaded = load_site(site, sites_dir)
    with progress("making up the history"):
        store = start_cluster(loaded, StartOptions(**options))
    status_ = MockBackend(store).status()
    narrate(f"mock cluster {status_.name} runs; its files are in {status_.directory}")
    _show(status_, output_format)


@command.command()
@name_option
@click.option(
    "--purge", is_flag=True, help="Delete it with its jobs and its accounting; also if it was stopped before."
)
def stop(name: str | None, purge: bool) -> None:
    """Stop the mock cluster: its clock stands still, its jobs and its accounting stay.

    'hpcplan report' can still read the accounting, and 'hpcplan mock start' goes on from there.

    \b
    Example:
      hpcplan mock stop --purge
    """
    from hpcplan.simulate.commands.attach import stop_controller
    from hpcplan.simulate.lifecycle import find_store

    store = find_store(name, stopped=purge)
    called = store.settings().name
    stop_controller(store)
    if purge:
        store.purge()
        narrate(f"mock cluster {called} is gone")
    else:
        store.stop()
        narrate(f"mock cluster {called} has stopped; its accounting is kept in {store.directory}")


@command.command()
@name_option
@format_option
def status(name: str | None, output_format: str) -> None:
    """Show the nodes, the jobs and the clock of the mock cluster.

    \b
    Example:
      hpcplan mock status --format json
    """
    from hpcplan.simulate.backend import MockBackend

    _show(MockBackend(name=name).status(), output_format)


@command.command()
@click.argument("duration", callback=_seconds, required=False)
@click.option("--until-idle", is_flag=True, help="Until none of your own jobs can still start or end by itself.")
@name_option
@format_option
def advance(duration: int | None, until_idle: bool, name: str | None, output_format: str) -> None:
    """Move the mock cluster's clock on by DURATION, or until your own jobs have ended.

    Jobs that are held, or that wait for what will never happen, are not waited for.

    \b
    Example:
      hpcplan mock advance 2h
      hpcplan mock advance --until-idle
    """
    from hpcplan.simulate.backend import MockBackend
    from hpcplan.units import format_duration

    if (duration is None) == (not until_idle):
        raise click.UsageError("give either a DURATION, such as 2h, or --until-idle")
    with progress("the mock cluster's clock is running"):
        result = MockBackend(name=name).advance(duration, until_idle=until_idle)
    if output_format == "json":
        echo_json(
            {
                "now": result.now,
                "advanced_s": result.advanced_s,
                "ended": result.ended,
                "pending": result.pending,
                "running": result.running,
            }
        )
        return
    ended = ", ".join(f"{count} {state}" for state, count in result.ended.items()) or "none"
    rows = [
        ("passed", format_duration(result.advanced_s)),
        ("your jobs that ended", ended),
        ("your jobs that wait", result.pending),
        ("your jobs that run", result.running),
    ]
    console().print(table(None, ("clock", _clock(result.now)), rows))


def _clock(now: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(now).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def _show(status_: Status, output_format: str) -> None:
    from dataclasses import asdict

    if output_format == "json":
        echo_json(asdict(status_))
        return
    others = "nobody else" if status_.load is None else f"{status_.load:.0%} of all node time, by others"
    use = "no node is usable" if status_.utilisation is None else f"{status_.utilisation:.0%} of the usable nodes"
    rows = [
        ("answers as", f"{status_.cluster}, Slurm {status_.slurm_version} (pretended), policy {status_.policy}"),
        ("state", "running" if status_.running else "stopped"),
        ("clock", f"{_clock(status_.now)}, {status_.speed:g} times as fast as the wall clock"),
        ("load", others),
        ("in use now", use),
        ("nodes", _counts(status_.nodes)),
        ("all jobs", _counts(status_.jobs)),
        ("your jobs", _counts(status_.own_jobs)),
    ]
    console().print(table(None, ("mock cluster", status_.name), rows))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
