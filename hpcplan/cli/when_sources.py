"""Which queue and which jobs a forecast is about: options of ``hpcplan when`` and ``hpcplan plan``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcplan.cli.learned import with_learned_limits

if TYPE_CHECKING:
    from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
    from hpcplan.slurm.backend import Backend

__all__ = ["asked_jobs", "past_of_files", "queue_asked", "queue_of_backend"]

_HOUR_S = 3600


def queue_asked(options: Mapping[str, Any]) -> QueueSnapshot:
    """Return the queue that the options name: a snapshot, a trace at a moment, or what the backend says."""
    snapshot, trace = options["snapshot"], options["trace"]
    if snapshot is not None and trace is not None:
        raise click.UsageError("say once where the queue is from: --snapshot or --trace")
    if (trace is None) != (options["at_s"] is None):
        raise click.UsageError("--trace and --at go together")
    if snapshot is not None:
        from hpcplan.schedule.forecast.snapshot import read_snapshot

        queue = read_snapshot(snapshot)
    elif trace is not None:
        from hpcplan.schedule.forecast.traces import snapshot_of_trace
        from hpcplan.simulate.trace_files import read_trace

        queue = snapshot_of_trace(read_trace(trace, procs=options["procs"]), options["at_s"], options["procs"])
        queue = queue.model_copy(update={"source": f"{trace.name} at {options['at_s']:,} s"})
    else:
        from hpcplan.cli.backends import open_backend

        queue = queue_of_backend(open_backend(options["backend_name"]), options["history_days"])
    if options["histories"]:
        past = past_of_files(options["histories"], queue.now_s)
        queue = queue.model_copy(update={"history": tuple(past)})
    return with_learned_limits(queue, options["site_name"])


def queue_of_backend(backend: Backend, history_days: int) -> QueueSnapshot:
    """Return the queue as a backend shows it; a mock cluster also says by which policy it goes."""
    from hpcplan.schedule.forecast.live import snapshot_of_backend
    from hpcplan.simulate.backend import MockBackend

    policy: Any = backend.status().policy if isinstance(backend, MockBackend) else "slurm"
    return snapshot_of_backend(backend, history_s=history_days * 86400, policy=policy)


def past_of_files(paths: tuple[Path, ...], now_s: int) -> list[QueueJob]:
    """Return the jobs of dumps of sacct and of traces that had ended by ``now_s``."""
    from hpcplan.report import read_sacct
    from hpcplan.schedule.forecast.snapshot import QueueJob
    from hpcplan.schedule.forecast.traces import past_of_trace
    from hpcplan.simulate.sacct_trace import is_sacct
    from hpcplan.simulate.trace_files import read_trace
    from hpcplan.simulate.traces import text_lines

    found: list[QueueJob] = []
    for path in paths:
        first = next((line for line in text_lines(path) if line.strip()), "")
        if not (is_sacct(first) or first.lstrip().startswith("{")):
            found += past_of_trace(read_trace(path))
            continue
        columns = [
            "label",
            "name",
            "user",
            "partition",
            "submit_time",
            "start_time",
            "end_time",
            "time_limit_s",
            "nodes",
        ]
        rows = read_sacct([path])[0].filter(_ran()).select(columns).iter_rows(named=True)
        for number, row in enumerate(rows):
            start, end = row["start_time"], row["end_time"]
            found.append(
                QueueJob(
                    label=f"{row['label']}@{number}", width=max(1, row["nodes"] or 1), user=row["user"],
                    name=row["name"], limit_s=max(1, row["time_limit_s"] or end - start), submit_s=row["submit_time"],
                    start_s=start,
                    end_s=max(start, end), partition=row["partition"],
                )
            )  # fmt: skip
    return [job for job in found if job.end_s is not None and job.end_s <= now_s]


def _ran() -> Any:
    import polars as pl

    return (
        pl.col("ended")
        & pl.col("start_time").is_not_null()
        & pl.col("end_time").is_not_null()
        & pl.col("submit_time").is_not_null()
    )


def asked_jobs(
    what: Path | None, nodes: str | None, options: Mapping[str, Any], snapshot: QueueSnapshot
) -> list[QueueJob]:
    """Return the jobs asked about, one for each number of nodes."""
    from hpcplan.errors import InputError
    from hpcplan.schedule.forecast.snapshot import QueueJob
    from hpcplan.units import parse_duration

    given = _described(what) if what is not None else {}
    if options["time_limit"] is not None:
        try:
            given["limit_s"] = max(1, round(parse_duration(options["time_limit"])))
        except (ValueError, OverflowError) as error:
            raise InputError(f"--time: {error}") from None
    if options["partition"] is not None:
        given["partition"] = options["partition"]
    widths = _widths(nodes) if nodes is not None else [given.get("width", 1)]
    if snapshot.procs is not None:
        given["partition"] = None
    job = {"limit_s": _HOUR_S, **given}
    return [QueueJob(label=f"asked-{width}", submit_s=snapshot.now_s, **{**job, "width": width}) for width in widths]


def _widths(text: str) -> list[int]:
    from hpcplan.errors import InputError

    words = text.split(",")
    if not all(word.strip().isdecimal() and 0 < int(word) < 10**9 for word in words):
        raise InputError(f"--nodes: {text!r} is not like 8 or 4,8,16")
    return list(dict.fromkeys(int(word) for word in words))


def _described(path: Path) -> dict[str, Any]:
    """Return what a plan's first job, or a batch script, asks for."""
    from hpcplan.documents import read_text
    from hpcplan.plan import read_plan
    from hpcplan.simulate.script import parse_components

    if path.suffix == ".json":
        plan = read_plan(path)
        return {
            "width": plan.plan.nodes, "limit_s": plan.segments[0].time_limit_s, "name": plan.name,
            "partition": plan.placement.partition,
        }  # fmt: skip
    components = parse_components(read_text(path), name=path.name)  # all nodes of a heterogeneous job start together
    spec, width = components[0], sum(one.nodes_min or 1 for one in components)
    found: dict[str, Any] = {"width": width, "name": spec.name, "partition": spec.partition}
    return found | ({"limit_s": spec.time_limit_s} if spec.time_limit_s else {})
