"""The command line. This module imports click and nothing else: a command's file is loaded when it is run.

``COMMANDS`` says where each command lives and repeats its one-line help, so that ``hpcplan --help`` need not import
them; ``tests/cli/test_start_up.py`` holds the two together.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from hpcplan import __version__

__all__ = ["COMMANDS", "hpcplan", "main"]

# name: (module that defines a click command called `command`, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "site": ("hpcplan.cli.site", "List, show, check and draw the sites that hpcplan knows."),
    "workload": ("hpcplan.cli.workload", "List and show the workloads that hpcplan knows by name."),
    "plan": ("hpcplan.cli.plan", "Find the best sharding of a workload on a site."),
    "place": ("hpcplan.cli.place", "Put a plan's ranks on nodes of a site."),
    "partition": ("hpcplan.cli.partition", "Split a graph of layers or operators over devices."),
    "allocate": ("hpcplan.cli.allocate", "Share a site among several workloads."),
    "share": ("hpcplan.cli.share", "Share work that can be cut anywhere, and its data, over unequal nodes."),
    "data": ("hpcplan.cli.data", "Divide training data over ranks and jobs, and say who reads what when."),
    "render": ("hpcplan.cli.render", "Turn a plan into sbatch scripts and launcher arguments."),
    "template": ("hpcplan.cli.template", "List, show, make and check the templates of scripts."),
    "submit": ("hpcplan.cli.submit", "Submit a rendered campaign."),
    "status": ("hpcplan.cli.status", "Show how a campaign stands."),
    "wait": ("hpcplan.cli.wait", "Wait until a campaign has ended."),
    "logs": ("hpcplan.cli.logs", "Show the logs of a campaign's jobs."),
    "history": ("hpcplan.cli.history", "Show what was done with a campaign, and when."),
    "retry": ("hpcplan.cli.retry", "Go on with a campaign that has ended without being done."),
    "replan": ("hpcplan.cli.replan", "Go on with a campaign from its last checkpoint with another plan."),
    "track": ("hpcplan.cli.track", "Keep campaigns going: submit, retry, replan and tell, by their policies."),
    "cancel": ("hpcplan.cli.cancel", "Cancel a campaign's jobs."),
    "list": ("hpcplan.cli.list", "List the campaigns submitted from this account."),
    "mock": ("hpcplan.cli.mock", "Run a mock Slurm cluster of a site on this machine."),
    "simulate": ("hpcplan.cli.simulate", "Schedule a trace of jobs under one policy or several, and compare them."),
    "when": (
        "hpcplan.cli.when",
        "Say when a job would start if it were submitted now, for several node counts at once.",
    ),
    "report": ("hpcplan.cli.report", "Report how well the queue was used."),
    "validate": ("hpcplan.cli.validate", "Predict measured runs and say how far off the predictions are."),
    "calibrate": ("hpcplan.cli.calibrate", "Fit the cost model's constants to measurements."),
    "demo": ("hpcplan.cli.demo", "Run the whole loop on a shipped workload and site."),
    "doctor": ("hpcplan.cli.doctor", "Say what is installed, which backends answer, and what is missing."),
    "completion": ("hpcplan.cli.completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group that lists its commands from a table and imports the one that is run."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the loop, not of the alphabet."""
        return [*self.lazy]  # `list` is a submodule here, once that command was imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or ``None`` for a name that is not in the table."""
        if cmd_name not in self.lazy:
            return None
        command: click.Command = importlib.import_module(self.lazy[cmd_name][0]).command
        command.name = cmd_name  # each is called `command` in its own file
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, naming the nearest when there is none of that name."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            from hpcplan.errors import nearest

            ctx.fail(f"no such command {args[0]!r}" + nearest(args[0], self.lazy))
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def hpcplan() -> None:
    """Plan large training workloads for Slurm clusters, submit and track them, and report how the queue was used.

    \b
    Try:  hpcplan demo
    Exit codes: 0 done, 1 failed, 2 wrong usage or bad input, 3 nothing feasible, 4 Slurm not reachable.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code; errors of hpcplan's own go to stderr as text."""
    try:
        result = hpcplan.main(arguments, prog_name="hpcplan", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        from hpcplan.errors import HpcplanError, SlurmUnreachableError

        if not isinstance(error, HpcplanError):
            raise
        click.echo(f"hpcplan: {error}", err=True)
        if isinstance(error, SlurmUnreachableError) and error.hint is None:
            click.echo("  hpcplan doctor says which backends answer here", err=True)
        sys.exit(int(error.exit_code))
    sys.exit(result if isinstance(result, int) else 0)
