"""``hpcplan status``: how a campaign stands, once or until it has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import open_backend
from hpcplan.cli.output import console, echo_json, format_option, narrate, table
from hpcplan.cli.status_usage import usage_json, usage_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hpcplan.campaign import CampaignStatus, JobStatus
    from hpcplan.slurm.backend import Backend

__all__ = ["command", "headline", "locate"]

_WIDE = 160
# the table's columns, and how wide a window must be for each
_COLUMNS = (
    ("job", 0), (">id", 50), ("state", 0), ("why", 60), (">elapsed", 70), (">limit", 110), (">expected", 110),
    (">nodes", 120), ("where", 100),
)  # fmt: skip
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
            used = usage_line(directory)
            if used is not None:
                console().print(used, markup=False, highlight=False, soft_wrap=True)
    if output_format == "json":
        echo_json({**result.as_dict(), "usage": usage_json(directory)})
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
    steps = f"step {progress.furthest:,} of {progress.total_steps:,}; " if progress.furthest is not None else ""
    return f"{result.campaign}: {result.state}; {steps}{jobs}"


def _show(result: CampaignStatus) -> None:
    out = console()
    out.print(_view(result, out.width))


def _view(result: CampaignStatus, width: int = _WIDE) -> Any:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(headline(result), style="bold")]
    parts += [Text(line) for line in _progress_lines(result)]
    parts.append(_table(result.jobs, width))
    parts += [Text(f"note: {note}") for note in result.notes]
    return Group(*parts)


def _progress_lines(result: CampaignStatus) -> Iterator[str]:
    """Yield how fast training is next to what was planned, and what is left."""
    from hpcplan.units import format_duration

    progress = result.progress
    if progress.step_time_s is not None:
        planned = ""
        if progress.expected_step_time_s is not None and progress.speed is not None:
            low, high = progress.low_s or 0.0, progress.high_s or 0.0
            verdict = "as planned" if low <= progress.step_time_s <= high else f"{progress.speed:.0%} of that speed"
            planned = f", planned {progress.expected_step_time_s:.3g} s ({low:.3g} to {high:.3g}): {verdict}"
        yield f"a step takes {progress.step_time_s:.3g} s by the log{planned}"
    if progress.remaining_s and result.state.moving and progress.furthest is not None:
        pace = "at this pace" if progress.step_time_s is not None else "by the plan"
        yield f"left to compute {pace}: {format_duration(progress.remaining_s)}, without waiting in the queue"


def _table(jobs: Sequence[JobStatus], width: int) -> Any:
    """Return the tree of stages and their jobs as a table; of a campaign with one stage, the jobs alone.

    In a narrow window the columns that matter least are left out.
    """
    kept = [position for position, (_, least) in enumerate(_COLUMNS) if width >= least]
    columns = [_COLUMNS[position][0] for position in kept]
    rows = [[row[position] for position in kept] for row in _tree(jobs)]
    return table(None, columns, rows)


def _tree(jobs: Sequence[JobStatus]) -> Iterator[tuple[object, ...]]:
    stages: dict[str, list[JobStatus]] = {}
    for job in jobs:
        stages.setdefault(job.stage, []).append(job)
    for stage, members in stages.items():
        if len(members) == 1 or len(stages) == 1:
            yield from (_row(group) for group in _groups(members))
            continue
        yield (stage, "", "", _counted(members), "", "", "", "", "")
        groups = list(_groups(members))
        for position, group in enumerate(groups):
            branch = "└ " if position == len(groups) - 1 else "├ "
            yield (branch + str(_row(group)[0]), *_row(group)[1:])


def _counted(jobs: Sequence[JobStatus]) -> str:
    done = sum(job.state == "COMPLETED" for job in jobs)
    return f"{done} of {len(jobs)} completed"


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
        job.key if job.attempt == 1 else f"{job.key} (attempt {job.attempt})",
        job.job_id,
        job.state,
        _why(job),
        "" if job.elapsed_s is None else format_duration(job.elapsed_s),
        "" if job.time_limit_s is None else format_duration(job.time_limit_s),
        "" if job.expected_s is None else format_duration(job.expected_s),
        job.nodes,
        job.node_list,
    )


def _why(job: JobStatus) -> str | None:
    if job.components is not None:
        parts = ", ".join(
            f"{one.offset} {one.state.lower()} on {one.node_list or 'no node yet'}" for one in job.components
        )
        return f"{job.reason + '; ' if job.reason else ''}components: {parts}"
    if job.tasks is None:
        return job.reason
    tasks = ", ".join(f"{count} {state.lower()}" for state, count in sorted(job.tasks.items()))
    return f"{job.reason + '; ' if job.reason else ''}tasks: {tasks}"


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
    """Show a live view. It is drawn anew every second, so that it follows the window's size; a terminal that goes away
    ends the showing and nothing else.
    """
    import contextlib

    from rich.live import Live

    result = next(looks)
    with _terminal_may_go_away(), Live(_Sized(result), console=console(), refresh_per_second=1) as live:
        for result in looks:
            live.update(_Sized(result), refresh=True)
        with contextlib.suppress(OSError):
            live.refresh()
    return result


class _Sized:
    """The view as it is now: what has run since the last look goes on running, and the window may change its size."""

    def __init__(self, result: CampaignStatus) -> None:
        self.result = result

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield _view(self.result, options.max_width)


def _terminal_may_go_away() -> Any:
    """Return a context in which the terminal's end (SIGHUP, EIO) becomes a clean end of this command."""
    import contextlib
    import signal
    from types import FrameType

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(1)

    @contextlib.contextmanager
    def guarded() -> Iterator[None]:
        before = signal.signal(signal.SIGHUP, leave)
        try:
            yield
        except OSError as error:
            raise SystemExit(1) from error
        finally:
            signal.signal(signal.SIGHUP, before)

    return guarded()


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
