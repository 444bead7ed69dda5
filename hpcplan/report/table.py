"""The job table: one row an attempt of a job, with fixed columns, whatever it was read from.

Everything behind this point (metrics, advice, pages) reads these columns alone, so that another source of accounting
data need only make this table. ``null`` means unknown, or that it has not happened; never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import polars as pl

from hpcplan.report.sacct_cells import campaign_token, gpu_type
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["SCHEMA", "empty", "from_columns", "from_records", "merge", "never_started", "span"]

SCHEMA: Final[Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "job_id": pl.Int64,  # Slurm's own number, unique until it wraps (sacct: JobIDRaw)
    "label": pl.String,  # as people write it: 7, 7_3, 7+1
    "cluster": pl.String,
    "name": pl.String,
    "user": pl.String,
    "account": pl.String,
    "partition": pl.String,
    "qos": pl.String,
    "state": pl.String,  # a JobState
    "reason": pl.String,
    "submit_time": pl.Int64,  # unix seconds
    "eligible_time": pl.Int64,
    "start_time": pl.Int64,  # null: never started
    "end_time": pl.Int64,  # null: has not ended, or not known when
    "ended": pl.Boolean,  # holds nothing any more and waits for nothing
    "seen_until": pl.Int64,  # when the source last saw a job that has not ended
    "elapsed_s": pl.Int64,  # of an ended attempt, suspended time left out where the source does; of a running one if
    # the source does not tell when it started
    "time_limit_s": pl.Int64,
    "nodes": pl.Int64,
    "cpus": pl.Int64,
    "gpus": pl.Int64,
    "gpu_type": pl.String,  # as Slurm calls it, in gres/gpu:TYPE
    "gpus_asked": pl.Boolean,  # whether the GPUs are those of the submit line, as accounting lists no resources
    "memory_bytes": pl.Int64,  # allocated to (or asked for by) the whole job
    "node_list": pl.String,
    "cpu_used_s": pl.Float64,  # user and system time of all its processes
    "memory_used_bytes": pl.Int64,  # peak, all tasks together
    "gpu_used": pl.Float64,  # mean utilisation of its GPUs, 0 to 1
    "energy_j": pl.Float64,  # of its nodes while it ran, as far as Slurm gathers it
    "restarts": pl.Int64,
    "exit_code": pl.Int64,
    "failed_node": pl.String,
    "comment": pl.String,  # where it names a campaign of hpcplan
    "backfilled": pl.Boolean,
}


def empty() -> pl.DataFrame:
    """Return the table of no jobs."""
    return pl.DataFrame(schema=SCHEMA)


def from_columns(columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Return the table of these columns; those that are not given are unknown."""
    length = len(next(iter(columns.values()), ()))
    full = {name: columns.get(name, [None] * length) for name in SCHEMA}
    return pl.DataFrame(full, schema=SCHEMA, strict=False)


_REQUEUED: Final = frozenset(
    {JobState.REQUEUED, JobState.REQUEUE_FED, JobState.REQUEUE_HOLD, JobState.SPECIAL_EXIT, JobState.RESV_DEL_HOLD}
)


def from_records(records: Iterable[JobRecord]) -> pl.DataFrame:
    """Return the table of a backend's accounting; requeued jobs come as one record an attempt."""
    listed = list(records)
    tracked = any(record.gpus or any("gpu" in name for name in record.tres) for record in listed)
    rows = [_row_of(record, gpus_tracked=tracked) for record in listed]
    return pl.DataFrame(rows, schema=SCHEMA, strict=False) if rows else empty()


def _row_of(record: JobRecord, *, gpus_tracked: bool) -> dict[str, Any]:
    start, end = record.start_time, record.end_time
    ended = record.state.final or (record.state in _REQUEUED and start is not None and end is not None)
    if record.state is JobState.UNKNOWN:
        ended = end is not None
    if not ended:
        end = None  # squeue shows when a running job's time limit will be up
        start = None if record.state.waiting else start
    if ended and never_started(record.state, start, end, record.node_list):
        start = None
    gpus = record.gpus
    if gpus is None and gpus_tracked and record.tres:
        gpus = 0  # Slurm counts GPUs here, and counted none for this job
    row = {
        "job_id": record.job_id, "label": _label(record), "cluster": record.cluster, "name": record.name,
        "user": record.user, "account": record.account, "partition": record.partition, "qos": record.qos,
        "state": record.state.value, "reason": record.reason, "submit_time": record.submit_time,
        "eligible_time": record.eligible_time, "start_time": start, "end_time": end, "ended": ended,
        "elapsed_s": max(0, end - start) if ended and start is not None and end is not None else None,
        "time_limit_s": record.time_limit_s, "nodes": record.nodes, "cpus": record.cpus, "gpus": gpus,
        "memory_bytes": record.memory_bytes, "node_list": record.node_list, "cpu_used_s": record.total_cpu_s,
        "memory_used_bytes": record.max_rss_bytes, "gpu_used": record.gpu_utilisation, "restarts": record.restarts,
        "exit_code": record.exit_code, "backfilled": record.backfilled,
        "gpu_type": gpu_type({name: str(count) for name, count in record.tres.items()}),
        "energy_j": float(record.tres.get("energy", 0)) or None, "comment": campaign_token(record.comment or ""),
    }  # fmt: skip
    return {name: _writable(value) if isinstance(value, str) else value for name, value in row.items()}


def _writable(text: str) -> str:
    """Return text that can be written as UTF-8: names from JSON may hold halves of characters."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode("utf-8")


def _label(record: JobRecord) -> str:
    if record.array_job_id is not None and record.array_task_id is not None:
        return f"{record.array_job_id}_{record.array_task_id}"
    return str(record.job_id)


def never_started(state: JobState, start: int | None, end: int | None, node_list: str | None) -> bool:
    """Whether a job ended while it waited: Slurm then writes its end as its start, and no nodes (sacct(1), Start)."""
    if state not in (JobState.CANCELLED, JobState.DEADLINE, JobState.REVOKED, JobState.FAILED, JobState.NODE_FAIL):
        return False
    assigned = (node_list or "").strip().lower() not in ("", "none assigned", "(null)", "none")
    return start is not None and end is not None and end <= start and not assigned


def merge(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return all rows once: what was read twice, or seen earlier while it waited or ran, gives way to the last state.

    An attempt is the same where cluster, job and submission time agree, and its start, once it has one.
    """
    if not tables:
        return empty()
    whole = pl.concat(tables)
    if _in_order(whole):
        return whole
    key = ["cluster", "label", "job_id", "submit_time"]
    undated = whole.filter(pl.col("submit_time").is_null()).unique(maintain_order=True)
    dated = whole.filter(pl.col("submit_time").is_not_null()) if len(undated) else whole
    if dated.select(key).is_duplicated().any():
        dated = _latest(dated, key)
    found = pl.concat([dated, undated]) if len(undated) else dated
    return found.sort("submit_time", "job_id", "start_time", "label")


def _in_order(table: pl.DataFrame) -> bool:
    """Whether the rows are sorted by submission and number, and no two are alike in both, as sacct writes them."""
    times, ids = table["submit_time"], table["job_id"]
    if times.null_count() or ids.null_count():
        return False
    later = times.diff().drop_nulls()
    return bool(((later > 0) | ((later == 0) & (ids.diff().drop_nulls() > 0))).all())


def _latest(dated: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    seen = dated.with_columns(
        pl.col("seen_until").fill_null(0).alias("_seen"),
        pl.col("start_time").is_not_null().any().over(key).alias("_any_start"),
    )
    return (
        seen.filter(pl.col("start_time").is_not_null() | ~pl.col("_any_start"))
        .sort("ended", "_seen", maintain_order=True)
        .unique(subset=[*key, "start_time"], keep="last", maintain_order=True)
        .select(list(SCHEMA))
    )


def span(table: pl.DataFrame) -> tuple[int, int]:
    """Return the first and the last moment that the table knows of: ``(0, 0)`` if it knows none."""
    times = [name for name in SCHEMA if name.endswith("_time")] + ["seen_until"]
    first, last = table.select(
        pl.min_horizontal(times).min().alias("a"), pl.max_horizontal(times).max().alias("b")
    ).row(0)
    return (int(first), int(last)) if first is not None and last is not None else (0, 0)
