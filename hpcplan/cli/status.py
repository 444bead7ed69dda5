"""``hpcplan status``: how a campaign stands, once or until it has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import open_backend
from hpcplan.cli.output import console, echo_json, format_option, narrate, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hpcplan.campaign import CampaignStatus, JobStatus
    from hpcplan.slurm.backend import Backend

__all__ = ["command", "headline", "locate"]

_LIKE_NEIGHBOURS = 4  # that many jobs in the same state and for the same reason are shown as one line


@click.command()
@click.argument("campaign", required=False)
@click.option("--watch", "watching", is_flag=True, help="Go on until the campaign has ended; exit code 1 if not well.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.1), metavar="SECONDS",
    help="Time between two looks with --watch.  [default: 15 on a real cluster, 1 on a mock]",
)  # fmt: skip
@format_option
def command(campaign: str | None, watching: bool, interval_s: float | None, output_format: str) -> int:
    """Show how a campaign stands.

    CAMPAIGN is its directory or its name; without it, the current directory if that is one, else the newest. With
    --watch and --format json, the one document printed is the status with which the campaign ended.

    \b
    Examples:
      hpcplan status
      hpcplan status llama3-70b --watch
      hpcplan status campaign --format json
    """
    from hpcplan.campaign import status

    directory, backend = locate(campaign)
    if watching and backend is not None:
        result = _watch(directory, backend, interval_s, quiet=output_format == "json")
    else:
        result = status(directory, backend)
        if output_format != "json":
            _show(result)
    if output_format == "json":
        echo_json(result.as_dict())
    return int(watching and result.state.value != "done")


def locate(campaign: str | None) -> tuple[Path, Backend | None]:
    """Return a campaign's directory and the backend it was submitted with, ``None`` if it never was."""
    from hpcplan.campaign import find_campaign, read_ledger

    directory, note = find_campaign(campaign, Path.cwd())
    if note is not None:
        narrate(note)
    recorded = read_ledger(directory).backend
    return directory, None if recorded is None else open_backend(recorded)


def headline(result: CampaignStatus) -> str:
    """Return a campaign in one line: its state, how far training is, and its jobs by state."""
    from collections import Counter

    counts = Counter(job.state for job in result.jobs)
    jobs = ", ".join(f"{count} {state.lower().replace('_', ' ')}" for state, count in counts.items())
    progress = result.progress
    steps = f"step {progress.step:,} of {progress.total_steps:,}; " if progress.step is not None else ""
    return f"{result.campaign}: {result.state}; {steps}{jobs}"


def _show(result: CampaignStatus) -> None:
    out = console()
    out.print(_view(result))


def _view(result: CampaignStatus) -> Any:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(headline(result), style="bold"), _table(result.jobs)]
    parts += [Text(f"note: {note}") for note in result.notes]
    return Group(*parts)


def _table(jobs: Sequence[JobStatus]) -> Any:
    columns = ("job", ">id", "state", "why", ">elapsed", ">limit", ">expected", ">nodes", "where")
    return table(None, columns, [_row(group) for group in _groups(jobs)])


def _groups(jobs: Iterable[JobStatus]) -> Iterator[list[JobStatus]]:
    """Yield jobs one by one, and long stretches of like ones together."""
    from itertools import groupby

    for _, like in groupby(jobs, key=lambda job: (job.state, job.reason)):
        group = list(like)
        if len(group) <= _LIKE_NEIGHBOURS:
            yield from ([job] for job in group)
        else:
            yield [group[0]]
            yield group[1:-1]
            yield [group[-1]]


def _row(group: Sequence[JobStatus]) -> tuple[object, ...]:
    from hpcplan.units import format_duration

    job = group[0]
    if len(group) > 1:
        return (f"… {len(group)} more", "", job.state, job.reason, "", "", "", "", "")
    return (
        job.key,
        job.job_id,
        job.state,
        job.reason,
        "" if job.elapsed_s is None else format_duration(job.elapsed_s),
        "" if job.time_limit_s is None else format_duration(job.time_limit_s),
        "" if job.expected_s is None else format_duration(job.expected_s),
        job.nodes,
        job.node_list,
    )


def _watch(directory: Path, backend: Backend, interval_s: float | None, *, quiet: bool) -> CampaignStatus:
    from hpcplan.campaign import watch

    looks = watch(directory, backend, interval_s=interval_s)
    if quiet:
        return _last(looks)
    return _watch_live(looks) if sys.stdout.isatty() else _watch_lines(looks)


def _last(looks: Iterator[CampaignStatus]) -> CampaignStatus:
    result = next(looks)
    for result in looks:  # noqa: B007 - the last one is wanted
        pass
    return result


def _watch_live(looks: Iterator[CampaignStatus]) -> CampaignStatus:
    from rich.live import Live

    result = next(looks)
    with Live(_view(result), console=console(), auto_refresh=False) as live:
        for result in looks:
            live.update(_view(result), refresh=True)
    return result


def _watch_lines(looks: Iterator[CampaignStatus]) -> CampaignStatus:
    """Print a line whenever it differs from the last one, for logs and pipes."""
    result, shown = next(looks), ""
    while True:
        line = "; ".join((headline(result), *result.notes))
        if line != shown:
            click.echo(line)
            shown = line
        following = next(looks, None)
        if following is None:
            return result
        result = following
