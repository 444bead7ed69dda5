"""``hpcplan plan --objective finish``: the queue counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hpcplan.cli.output import console, echo_json, narrate, progress_of, table

if TYPE_CHECKING:
    from hpcplan.schedule.finish_search import FinishPlan, Option, Queue
    from hpcplan.site.load import LoadedSite
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["finish_options", "show_finish"]

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)


def finish_options(command: F) -> F:
    """Add the options of ``--objective finish``."""
    for option in (
        click.option("--finish-by", "criterion", type=click.Choice(["p50", "p90", "cost"]), default="p50",
                     show_default=True, help="With --objective finish: least P50 or P90 of the finish, or least cost."),
        click.option("--queue", "queue_name", metavar="FILE|BACKEND",
                     help="With --objective finish: a queue from 'hpcplan when --save', or mock, command, …, auto."),
        click.option("--history", "histories", multiple=True, type=_FILE, metavar="FILE",
                     help="With --objective finish: what ended before, as sacct's output or a trace."),
    ):  # fmt: skip
        command = option(command)
    return command


def show_finish(
    loaded: LoadedWorkload, site: LoadedSite, given: dict[str, Any], *, plot: Path | None, output: Path | None,
    output_format: str, **how: Any,
) -> None:  # fmt: skip
    """Plan for the earliest finish, and show the plan with what other node counts would come to."""
    import dataclasses

    from hpcplan.cli.learned import learned_failures
    from hpcplan.cli.plan import show
    from hpcplan.documents import write_text
    from hpcplan.schedule.finish_search import Stand, plan_for_finish
    from hpcplan.schedule.forecast.cluster import compiles_first
    from hpcplan.schedule.workers import processors

    queue = _queue(given, site)
    if queue is not None and queue.present and compiles_first(queue.snapshot):
        narrate("compiling the scheduler, once for this version: some ten seconds to half a minute")
    deadline_s = loaded.workload.request.deadline_s
    with progress_of("weighing node counts, queue and chains of jobs") as show_stand:

        def each(stand: Stand) -> None:
            if stand.done % 4 == 0:
                show_stand(stand.done, stand.most, f"best so far: {stand.best}" if stand.best else "")

        found = plan_for_finish(
            loaded, site, queue, criterion=given["criterion"], deadline_s=deadline_s, processes=processors(),
            each=each, **how,
        )  # fmt: skip
    failures = learned_failures(site.site.name, found.planned.plan.placement.node_group)
    if failures is not None:
        planned = dataclasses.replace(found.planned, notes=(*found.planned.notes, failures))
        found = dataclasses.replace(found, planned=planned)
    if plot is not None:
        from hpcplan.schedule.finish_picture import draw_tradeoff

        plan = found.planned.plan
        draw_tradeoff(found, plot, f"{plan.name} on {plan.provenance.site.name}: time to solution")
        narrate(f"drew {plot}")
    if output is not None:
        write_text(output, found.planned.plan.text())
    if output_format == "json":
        echo_json(found.as_dict())
    else:
        show(found.planned)
        console().print(_table(found))
    if output is not None:
        narrate(f"wrote {output}; next: hpcplan render {output} -o DIR")


def _queue(given: dict[str, Any], site: LoadedSite) -> Queue | None:
    """Return what the options say of the queue; ``None`` where they say nothing."""
    from hpcplan.cli.backends import KINDS, open_backend
    from hpcplan.cli.learned import with_learned_limits
    from hpcplan.cli.when_sources import past_of_files, queue_of_backend
    from hpcplan.schedule.finish_search import Queue
    from hpcplan.schedule.forecast.snapshot import QueueSnapshot, read_snapshot
    from hpcplan.simulate.machine import Machine

    name, histories = given["queue_name"], given["histories"]
    if name is not None:
        snapshot = queue_of_backend(open_backend(name), 14) if name in KINDS else read_snapshot(Path(name))
        if histories:
            past = tuple(past_of_files(histories, snapshot.now_s))
            snapshot = snapshot.model_copy(update={"history": past})
        return Queue(with_learned_limits(snapshot, site.site.name))
    if not histories:
        return None
    past = tuple(past_of_files(histories, 2**62))
    last = max((job.end_s or 0 for job in past), default=0)
    machine = Machine.from_site(site.site)
    known = tuple(
        job if job.partition in machine.partitions else job.model_copy(update={"partition": None}) for job in past
    )
    snapshot = QueueSnapshot(source="history", now_s=last, machine=machine.as_dict(), policy="slurm", history=known)
    return Queue(snapshot, present=False)


def _table(found: FinishPlan) -> Any:
    columns = (">nodes", "partition", "QoS", ">jobs", ">each at most", ">first wait", ">waits in all", ">lost",
               ">done P50", ">done P90", ">futures", ">done later by", ">cost", "")  # fmt: skip
    places = {(one.partition, one.qos) for one in found.options}
    rows = [_row(one, found, len(places) > 1) for one in found.options]
    return table("time to solution, from now", columns, rows)


def _later(one: Option, best: Option) -> str:
    import math

    later = one.finish.later_than(best.finish)
    return f"{later:+.0%}" if math.isfinite(later) else ""


def _row(one: Option, found: FinishPlan, several: bool) -> tuple[object, ...]:
    import math

    import numpy as np

    from hpcplan.units import format_duration

    finish = one.finish

    def told(seconds: float) -> str:
        if not math.isfinite(seconds):
            return f"> {format_duration(finish.cap_s)}" if math.isfinite(finish.cap_s) else "never"
        return format_duration(seconds) if seconds >= 1 else "0 s"

    return (
        one.nodes, one.partition if several else "", (one.qos or "") if several else "",
        len(one.planned.plan.segments), format_duration(one.limit_s), told(float(np.median(one.first_waits_s))),
        told(float(np.median(finish.waited_s))), told(float(np.mean(finish.lost_s))), told(finish.quantile_s(0.5)),
        told(finish.quantile_s(0.9)), len(finish.finish_s), "" if one is found.best else _later(one, found.best),
        "" if one.cost is None else f"{one.cost:,.0f}", "chosen" if one is found.best else "",
    )  # fmt: skip
