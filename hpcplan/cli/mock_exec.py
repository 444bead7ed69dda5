"""``hpcplan mock shell`` and ``hpcplan mock exec``: Slurm's own commands, answered by a mock cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from hpcplan.cli.output import narrate

if TYPE_CHECKING:
    from hpcplan.simulate.store import ClusterStore

__all__ = ["exec_command", "shell_command"]

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_SITE: Final = "mixed-lab"


def _span(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from hpcplan.units import parse_duration

    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _options(function: F) -> F:
    """Add the options that the two commands share."""
    for option in reversed((
        click.option("--name", help="Which mock cluster, where more than one runs."),
        click.option(
            "--site",
            help=f"Start a cluster of this site (a name or a file) for the time of the command, whether or not another "
            f"runs. Without a cluster that runs, {DEFAULT_SITE} is taken.",
        ),
        click.option("--sites", "sites_dir", type=click.Path(path_type=Path), help="Look for SITE here first."),
        click.option("--pretend", is_flag=True, help="Jobs are timed, not run."),
        click.option(
            "--speed", type=click.FloatRange(0, 1e6), help="Virtual seconds in one real second, with --pretend."
        ),
        click.option("--load", type=float, help="Other users' share of all node time, on a cluster that is started."),
        click.option("--policy", help="How a cluster that is started schedules, as of 'hpcplan mock start'."),
        click.option(
            "--account", "accounts", multiple=True, help="An account that sacctmgr knows beside the site's; repeatable."
        ),
        click.option(
            "--kill-wait", "kill_wait_s", callback=_span, default="30s", show_default=True,
            help="From SIGTERM to SIGKILL; slurm.conf's KillWait.",
        ),
        click.option(
            "--requeue-delay", "requeue_delay_s", callback=_span,
            help="How long a requeued job waits; on Slurm AuthInfo's cred_expire and a second.  [default: 121s]",
        ),
    )):  # fmt: skip
        function = option(function)
    return function


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_options
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
def exec_command(words: tuple[str, ...], **options: Any) -> None:
    """Run a command that finds a mock Slurm: sbatch, squeue, sacct, scancel, scontrol, sinfo, srun, salloc and others.

    Jobs really run, on this machine, with the environment that Slurm gives them; with --pretend they are timed only.
    When the command ends, jobs that still run are cancelled, and nothing is left behind. The exit code is that of the
    command.

    \b
    Example:
      hpcplan mock exec -- sbatch --wait --wrap 'srun -N2 hostname'
      hpcplan mock exec --site mixed-lab -- python train_with_submitit.py
      hpcplan mock exec --pretend --speed 600 -- ./submit-everything.sh
    """
    raise SystemExit(_within(list(words), **options))


@click.command("shell")
@_options
def shell_command(**options: Any) -> None:
    """Open a shell that finds a mock Slurm: sbatch, squeue, sacct, scancel, scontrol, sinfo, srun, salloc and others.

    Jobs really run, on this machine, with the environment that Slurm gives them; with --pretend they are timed only.
    When the shell ends, jobs that still run are cancelled, and nothing is left behind.

    \b
    Example:
      hpcplan mock shell --site mixed-lab
    """
    import os

    shell = os.environ.get("SHELL") or "/bin/sh"
    narrate("sbatch, squeue, sinfo and Slurm's other commands are a mock cluster's here; 'exit' ends it")
    raise SystemExit(_within([shell], shell=True, **options))


def _within(
    words: list[str],
    *,
    shell: bool = False,
    name: str | None,
    site: str | None,
    sites_dir: Path | None,
    pretend: bool,
    speed: float | None,
    load: float | None,
    policy: str | None,
    accounts: tuple[str, ...],
    kill_wait_s: float,
    requeue_delay_s: float | None,
) -> int:
    import os

    from hpcplan.simulate.commands.attach import EnterOptions, enter, run_command

    if speed is not None and not pretend:
        raise click.UsageError("jobs that really run need a clock that goes as fast as yours: --speed needs --pretend")
    # Where jobs really run, the clock goes as fast as the wall's from the first second on.
    start = {"name": name, "speed": speed if pretend else 1.0, "load": load, "policy": policy}
    store, ours = _find_or_start(site, sites_dir, start, asked=(speed, load, policy) != (None, None, None))
    delay_s = None if requeue_delay_s is None else round(requeue_delay_s)
    options = EnterOptions(
        pretend=pretend, purge=ours, kill_wait_s=kill_wait_s, requeue_delay_s=delay_s, accounts=accounts
    )
    with enter(store, options) as entered:
        sys.stdout.flush()
        more: dict[str, str] = {}
        if shell:
            words, more = entered.shell(words[0])
        return run_command(words, {**entered.environment(os.environ), **more})


def _find_or_start(
    site: str | None, sites_dir: Path | None, start: dict[str, Any], *, asked: bool
) -> tuple[ClusterStore, bool]:
    """Return the cluster to enter, and whether it was started, with these options, for this command alone."""
    from hpcplan.errors import SlurmUnreachableError
    from hpcplan.simulate.lifecycle import find_store

    if site is None:
        try:
            store = find_store(start["name"])
        except SlurmUnreachableError:
            if start["name"] is not None:
                raise
        else:
            if asked:
                message = (
                    "a cluster runs already; --speed, --load and --policy are for one that is started: give --site"
                )
                raise click.UsageError(message)
            return store, False
    return _start(site or DEFAULT_SITE, sites_dir, start), True


def _start(site: str, sites_dir: Path | None, start: dict[str, Any]) -> ClusterStore:
    import shutil
    import tempfile

    from hpcplan.simulate.lifecycle import StartOptions, start_cluster
    from hpcplan.site.load import load_site

    loaded = load_site(site, sites_dir)
    directory = Path(tempfile.mkdtemp(prefix="hpcplan-mock-"))
    try:
        return start_cluster(loaded, StartOptions(**start), directory=directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
