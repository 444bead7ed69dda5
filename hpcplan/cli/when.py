"""``hpcplan when``: when a job would start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.backends import backend_option
from hpcplan.cli.output import console, echo_json, format_option, narrate, progress_bar, table

if TYPE_CHECKING:
    from hpcplan.schedule.forecast.answer import Answer
    from hpcplan.schedule.forecast.snapshot import QueueJob
    from hpcplan.schedule.forecast.whatif import Saved

__all__ = ["command"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("what", required=False, type=_FILE, metavar="[PLAN|SCRIPT]")
@click.option("--nodes", metavar="A,B,…", help="How many nodes (or processors of a pool): one number or several.")
@click.option("--time", "time_limit", metavar="TIME", help="The job's time limit.  [default: the plan's, or 1 hour]")
@click.option("--partition", help="Where to.  [default: the plan's, or the cluster's default]")
@backend_option
@click.option("--snapshot", type=_FILE, help="A queue that --save wrote, instead of asking Slurm.")
@click.option("--trace", type=_FILE, help="The queue of a trace under EASY backfill, at the moment --at.")
@click.option("--at", "at_s", type=int, metavar="SECONDS", help="The moment, on the trace's clock.")
@click.option("--procs", type=click.IntRange(1), help="The trace's processors.  [default: what it says]")
@click.option("--history", "histories", multiple=True, type=_FILE, metavar="FILE",
              help="What ended before: sacct's output, or a trace.  [default: the last --history-days]")  # fmt: skip
@click.option(
    "--history-days", type=click.IntRange(0), default=14, show_default=True, help="Of accounting, to learn from."
)
@click.option("--site", "site_name", metavar="SITE",
              help="Whose learned use of limits counts where no history is.  [default: the cluster's]")  # fmt: skip
@click.option("--save", type=_FILE, help="Write the queue and its history here, for --snapshot.")
@click.option("--samples", type=click.IntRange(20, 5000), default=200, show_default=True, help="Futures to draw.")
@click.option("--back-tests", "backtests", type=click.IntRange(0, 5000), default=200, show_default=True,
              help="Past starts to check forecasts against, and to correct the intervals by; 0 for none.")  # fmt: skip
@click.option("--what-if", "changes", multiple=True, metavar="CHANGE",
              help="What a change would save: limits (right-sized), merge=A+B, nodes=+8, policy=easy.")  # fmt: skip
@click.option("--demand", "demand_days", type=click.IntRange(1, 28), metavar="DAYS",
              help="Also say what load the next days will bring, by partition.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random numbers: the same gives the same.")
@format_option
def command(what: Path | None, nodes: str | None, output_format: str, **options: Any) -> None:
    """Say when a job would start if it were submitted now, for several node counts at once.

    The queue is run forward many times by the scheduler of the mock cluster: each time the running and waiting jobs use
    another share of their limits, as their users' jobs did before, and others submit what they submitted at such times.
    Of those starts come the median and the interval. Past starts are forecast in the same way, and the interval is
    corrected by how far off that was.

    \b
    Examples:
      hpcplan when plan.json --nodes 8,16,32
      hpcplan when train.sbatch --save queue.json
      hpcplan when --snapshot queue.json --nodes 1,4,16 --time 12:00:00 --partition batch
      hpcplan when --trace trace.swf.gz --at 2000000 --nodes 16,64 --time 4h
      hpcplan when --what-if limits --what-if nodes=+8
    """
    from hpcplan.cli.when_sources import asked_jobs, queue_asked
    from hpcplan.schedule.forecast.answer import answer
    from hpcplan.schedule.forecast.cluster import compiles_first
    from hpcplan.schedule.forecast.snapshot import write_snapshot
    from hpcplan.schedule.forecast.whatif import parse_change, what_if

    changes = [parse_change(text) for text in options["changes"]]
    snapshot = queue_asked(options)
    if options["save"] is not None:
        write_snapshot(options["save"], snapshot)
        narrate(f"wrote {options['save']}")
    if compiles_first(snapshot):
        narrate("compiling the scheduler, once for this version: some ten seconds to half a minute")
    targets: list[QueueJob] = asked_jobs(what, nodes, options, snapshot)
    with progress_bar("checking past forecasts", options["backtests"]) as advance:
        found = answer(
            snapshot, targets, samples=options["samples"], backtests=options["backtests"], seed=options["seed"],
            demand_days=options["demand_days"] or 1, each=advance,
        )  # fmt: skip
    saved = what_if(snapshot, changes, seed=options["seed"]) if changes else []
    if output_format == "json":
        echo_json({**found.as_dict(), "what_if": [one.as_dict() for one in saved]})
    else:
        _show(found)
        if saved:
            _show_saved(saved)
        if options["demand_days"]:
            _show_demand(found)


def _show(found: Answer) -> None:
    from hpcplan.units import format_duration

    queue = found.snapshot
    unit = "nodes" if queue.procs is None else "processors"
    rows = []
    for size in found.sizes:
        waits = [size.quantiles_s[level] for level in (0.1, 0.5, 0.9)]
        rows.append((size.target.width, format_duration(size.target.limit_s), *(_wait(wait) for wait in waits),
                     *(_moment(queue.now_s + wait, queue.now_s) for wait in waits[1:])))  # fmt: skip
    title = f"{queue.source or 'the queue'}: {len(queue.running):,} jobs run, {len(queue.pending):,} wait"
    columns = (f">{unit}", ">limit", ">wait P10", ">P50", ">P90", "start P50", "start P90")
    out = console()
    out.print(table(title, columns, rows))
    if found.evidence is not None:
        out.print(f"Evidence: {found.evidence}.", markup=False)
    if found.backtests:
        out.print(f"Intervals corrected by {found.backtests:,} past starts.", markup=False)
    for note in found.notes:
        out.print(f"Note: {note}.", markup=False)


def _show_saved(saved: list[Saved]) -> None:
    rows = []
    for one in saved:
        found = one.as_dict()
        hours = found["saved_hours"]
        interval = f"{hours['p05']:,.1f} to {hours['p95']:,.1f}"
        rows.append((one.change.text, one.jobs, f"{found['wait_hours']:,.1f}", f"{hours['p50']:,.1f}", interval,
                     f"{one.cut_share:.1%}" if one.cut_share else "",
                     f"{one.stopped:,.1f}" if one.stopped else ""))  # fmt: skip
    columns = ("what if", ">jobs of a day", ">wait h", ">saved h", ">90 %", ">cut short", ">never start")
    console().print(table("hours of waiting, of all jobs together", columns, rows))


def _show_demand(found: Answer) -> None:
    from hpcplan.schedule.forecast.demand import interval_words

    queue = found.snapshot
    unit = "node" if queue.procs is None else "processor"
    rows = [
        (one.partition or "", _moment(day.start_s, queue.now_s), f"{day.expected:,.0f}",
         interval_words(day), one.method, f"{one.error:.0%} on {one.checked_days}" if one.error is not None else "")
        for one in found.demand
        for day in one.days
    ]  # fmt: skip
    columns = ("partition", "24 h from", f">{unit}-hours", ">80 %", "by", ">error on past days")
    console().print(table("load of the next days, as others were drawn to submit it", columns, rows))


def _wait(seconds: float) -> str:
    from hpcplan.units import format_duration

    return "0 s" if seconds < 1 else format_duration(seconds)


def _moment(time: float, now: int) -> str:
    """Return a date and time of day; seconds on the clock of a trace, which has none."""
    from datetime import datetime

    if now < 10**9 // 2:
        return f"{time:,.0f} s"
    return datetime.fromtimestamp(time).astimezone().strftime("%a %d %b %H:%M")
