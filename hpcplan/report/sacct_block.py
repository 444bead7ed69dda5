"""A block of sacct's rows, read column by column: the jobs in it and their steps, as two tables.

Rows that are written the usual way are read all at once; the others (a job name that broke the line, a cell that is no
such value, an hour that occurs twice) one by one by :mod:`hpcplan.report.sacct_fields`, whose word counts: both ways
give the same tables, which the tests hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from hpcplan.report import jobstats
from hpcplan.report import sacct_cells as cells
from hpcplan.report.sacct_columns import Columns
from hpcplan.report.sacct_fields import Job, Step
from hpcplan.report.submit_line import asked_gpus
from hpcplan.report.table import SCHEMA
from hpcplan.slurm.records import JobState

__all__ = ["JOBS", "STEPS", "job_columns", "jobs_of_rows", "step_columns", "steps_of_rows"]

_MEASURED: Final = {"m_told": pl.Boolean, "m_cpu": pl.Float64, "m_memory": pl.Int64, "m_gpu": pl.Float64}
_LATER: Final = {"cpu_used_s", "memory_used_bytes", "gpu_used", "gpus"}  # what takes the steps, or the whole file
JOBS: Final[dict[str, Any]] = {
    "_row": pl.Int64,
    **{name: dtype for name, dtype in SCHEMA.items() if name not in _LATER},
    "total_cpu_s": pl.Float64,
    "gpus_told": pl.Int64,
    "tres_listed": pl.Boolean,
    **_MEASURED,
}
STEPS: Final[dict[str, Any]] = {
    "_row": pl.Int64,
    "cluster": pl.String,
    "label": pl.String,
    "extern": pl.Boolean,
    "step_s": pl.Float64,
    "cpu_s": pl.Float64,
    "memory": pl.Int64,
    "percent": pl.Float64,
    **_MEASURED,
}
_JOB_ID: Final = r"^([0-9]{1,18})(?:_(?:[0-9]{1,18}|\[[^\].]*\]?))?(?:\+[0-9]{1,18})?(?:\.[A-Za-z0-9_.+-]+)?$"
_NUMBER: Final = r"^[0-9]{1,18}$"
_TRES: Final = {"listed": pl.Boolean, "cpu": pl.Int64, "node": pl.Int64, "mem": pl.Int64, "told": pl.Boolean,
                "gpu": pl.Int64, "kind": pl.String}  # fmt: skip
_USAGE: Final = r"^[a-z0-9/_:.-]+=[^,= ]*(?:,[a-z0-9/_:.-]+=[^,= ]*)*$"
_MAX_PRODUCT: Final = 2.0**62


def _of_comment(text: str) -> tuple[Any, ...]:
    found = jobstats.read(text)
    if found is None:
        return (None, None, None, None)
    return (True, found.cpu_used_s, found.memory_used_bytes, found.gpu_used)


def _measured(columns: Columns) -> pl.DataFrame:
    """Return what sites' own measuring left in the comments; AdminComment first."""
    found = None
    for name in ("admincomment", "comment"):
        if not columns.has(name):
            continue
        text = columns.text(name)
        likely = text.str.starts_with("JS1:") | (text.str.starts_with("{") & text.str.ends_with("}"))
        parts = columns.parsed(pl.select(pl.when(likely).then(text)).to_series(), _of_comment, _MEASURED)
        if found is None:
            found = parts
        else:
            both = pl.concat([found, parts.rename({key: f"{key}_2" for key in parts.columns})], how="horizontal")
            first = pl.col("m_told").fill_null(False)
            found = both.select(
                pl.when(first).then(pl.col(key)).otherwise(pl.col(f"{key}_2")).alias(key) for key in _MEASURED
            )
    return found if found is not None else pl.DataFrame(schema=_MEASURED).clear(len(columns))


def _tres(word: str) -> tuple[Any, ...]:
    held = cells.tres(word)

    def whole(name: str) -> int | None:
        return cells.count(held[name]) if held.get(name) else None

    told, gpus = True, None
    typed = [cells.count(value) if value else None for name, value in held.items() if name.startswith("gres/gpu:")]
    if "gres/gpu" in held:
        gpus = whole("gres/gpu")
    elif typed:
        gpus = None if None in typed else sum(number or 0 for number in typed)
    else:
        told = False
    memory = cells.memory_bytes(held["mem"]) if held.get("mem") else None
    return bool(held), whole("cpu"), whole("node"), memory, told, gpus, cells.gpu_type(held)


_STATES: Final = {"state": pl.String, "final": pl.Boolean, "active": pl.Boolean, "waiting": pl.Boolean,
                  "may_never": pl.Boolean}  # fmt: skip


def _state(word: str) -> tuple[Any, ...]:
    state = JobState.parse(word)
    if state is JobState.UNKNOWN and word.upper() != "UNKNOWN":
        raise ValueError(word)
    return (state.value, state.final, state.active, state.waiting, state in _MAY_NEVER_START)


_MAY_NEVER_START: Final = frozenset(
    {JobState.CANCELLED, JobState.DEADLINE, JobState.REVOKED, JobState.FAILED, JobState.NODE_FAIL}
)
_WAITING: Final = [state.value for state in JobState if state.waiting]
_NO_NODES: Final = ["", "none assigned", "(null)", "none"]


def job_columns(rows: pl.Series, columns: Columns, clock: cells.Clock) -> pl.DataFrame:
    """Return the jobs (:data:`JOBS`) of rows that are not steps; ``columns.odd`` has those that are not to be taken."""
    label = columns.text("jobid", "jobidraw")
    raw = columns.text("jobidraw")
    base = _numbers_of_jobs(columns, label, raw)
    frame = pl.DataFrame(
        {
            "_row": rows,
            "job_id": base,
            "label": label,
            "name": columns.text("jobname").fill_null(""),
            "node_list": columns.text("nodelist"),
            "restarts": columns.counts("restartcnt"),
            "exit_code": columns.value(columns.text("exitcode"), cells.exit_code, pl.Int64),
            "energy_j": columns.value(columns.text("consumedenergyraw", "consumedenergy"), cells.energy_j, pl.Float64),
            "backfilled": columns.value(columns.text("flags"), cells.backfilled, pl.Boolean),
            "failed_node": columns.value(columns.text("failednode"), cells.node_name, pl.String),
            "comment": _tokens(columns),
            **{key: columns.text(key) for key in ("cluster", "user", "account", "partition", "qos", "reason")},
            "total_cpu_s": columns.spans_s("totalcpu"),
        }
    )
    parts = [frame, _times(columns, clock), _sizes(columns), _measured(columns)]
    wide = _typed(pl.concat(parts, how="horizontal"), columns)
    never = _never_started()
    wide = wide.with_columns(pl.when(never).then(None).otherwise(pl.col("start_time")).alias("start_time"))
    measured_s = pl.col("end_time") - pl.col("start_time")
    so_far = pl.when(pl.col("start_time").is_null() & ~pl.col("state").is_in(_WAITING)).then(pl.col("elapsed_s"))
    elapsed = pl.when(pl.col("ended")).then(pl.coalesce("elapsed_s", measured_s)).otherwise(so_far)
    return wide.with_columns(elapsed.alias("elapsed_s")).select(pl.col(key).cast(kind) for key, kind in JOBS.items())


def _numbers_of_jobs(columns: Columns, label: pl.Series, raw: pl.Series) -> pl.Series:
    """Return Slurm's own number of each job, and mark the rows whose id is none."""
    texts = pl.select(raw=raw, label=label, other=pl.when(label.ne_missing(raw)).then(label))
    columns.mark(label.is_null())
    plain = {name: texts[name].str.contains(_NUMBER) for name in ("raw", "other")}
    for name, told in plain.items():
        if not told.all():
            left = texts.select(pl.when(~told).then(name)).to_series()
            columns.mark(~left.str.contains(_JOB_ID))
    text = texts.select(pl.coalesce("raw", "label")).to_series()
    if not plain["raw"].all() or raw.null_count():
        text = text.str.extract(r"^([0-9]+)", 1)
    return text.cast(pl.Int64, strict=False)


def _tokens(columns: Columns) -> pl.Series:
    text = columns.text("comment")
    if text.null_count() == len(text):
        return text
    ours = pl.select(pl.when(text.str.contains("hpcplan:", literal=True)).then(text)).to_series()
    return columns.value(ours, cells.campaign_token, pl.String)


def _never_started() -> pl.Expr:
    """As table.never_started, for a job that has not run a second."""
    assigned = ~pl.col("node_list").fill_null("").str.to_lowercase().is_in(_NO_NODES)
    same = pl.col("end_time") <= pl.col("start_time")
    return (
        pl.col("ended")
        & (pl.col("elapsed_s").fill_null(0) == 0)
        & pl.col("may_never")
        & same.fill_null(False)
        & ~assigned
    )


def _times(columns: Columns, clock: cells.Clock) -> pl.DataFrame:
    states = columns.parsed(columns.text("state"), _state, _STATES)
    if columns.has("state"):
        columns.mark(columns.text("state").is_null())
    states = states.with_columns(
        pl.col("state").fill_null("UNKNOWN"), pl.col("final", "active", "waiting", "may_never").fill_null(False)
    )
    elapsed = columns.spans_s("elapsed", "elapsedraw")
    columns.mark(elapsed != elapsed.floor())
    start = columns.stamp(columns.text("start"), clock)
    end = columns.stamp(columns.text("end"), clock)
    columns.mark(end < start)
    limit = columns.spans_s("timelimit")
    minutes = columns.spans_s("timelimitraw")
    columns.mark(limit != limit.floor())
    columns.mark(limit.is_null() & (minutes != minutes.floor()))
    times = states.with_columns(
        elapsed.cast(pl.Int64).alias("e"), start.alias("s"), end.alias("x"), limit.alias("limit"),
        (minutes * 60).alias("minutes"),
        columns.stamp(columns.text("submit"), clock).alias("submit_time"),
        columns.stamp(columns.text("eligible"), clock).alias("eligible_time"),
    )  # fmt: skip
    asked = pl.coalesce("limit", "minutes").cast(pl.Int64)
    ended = pl.col("final") | (pl.col("x").is_not_null() & ~pl.col("active"))
    begun = pl.when(ended | ~pl.col("waiting")).then(pl.col("s"))
    after = pl.col("s") + pl.col("e")
    return times.select(
        "state", "may_never", "submit_time", "eligible_time",
        pl.when(asked > 0).then(asked).alias("time_limit_s"),
        begun.alias("start_time"),
        pl.when(ended).then(pl.coalesce(pl.col("x"), after)).alias("end_time"),
        ended.alias("ended"),
        pl.when(~ended).then(begun + pl.col("e")).alias("seen_until"),
        pl.col("e").alias("elapsed_s"),
    )  # fmt: skip


def _sizes(columns: Columns) -> pl.DataFrame:
    """Return CPUs, nodes, memory and GPUs: allocated if the job has been given any, else asked for."""
    given = columns.parsed(columns.text("alloctres"), _tres, _TRES)
    words = pl.select(given=columns.text("alloctres"), asked=columns.text("reqtres"))
    other = words.select(pl.when(pl.col("asked").ne_missing(pl.col("given"))).then("asked")).to_series()
    asked = columns.parsed(other, _tres, _TRES).rename({key: f"a_{key}" for key in _TRES})  # what is not said twice
    amounts = columns.parsed(columns.text("reqmem"), _requested, {"amount": pl.Int64, "per": pl.String})
    counts = pl.DataFrame(
        {
            "cpus_1": columns.counts("alloccpus", "ncpus"),
            "cpus_2": columns.counts("reqcpus"),
            "nodes_1": columns.counts("allocnodes", "nnodes"),
            "nodes_2": columns.counts("reqnodes"),
            "gres_given": columns.value(columns.text("allocgres"), cells.gpus_of_gres, pl.Int64),
            "gres_asked": columns.value(columns.text("reqgres"), cells.gpus_of_gres, pl.Int64),
        }
    )
    wide = pl.concat([given, asked, amounts, counts], how="horizontal").with_columns(
        pl.col("listed", "a_listed").fill_null(False),
        _first("cpu", "cpus_1", "a_cpu", "cpus_2").alias("cpus"),
        _first("node", "nodes_1", "a_node", "nodes_2").alias("nodes"),
    )
    times = (
        pl.when(pl.col("per") == "cpu").then(pl.col("cpus")).when(pl.col("per") == "node").then(pl.col("nodes"))
        .when(pl.col("per").is_not_null()).then(1)
    )  # fmt: skip
    fits = pl.col("amount").cast(pl.Float64) * times.cast(pl.Float64) <= cells.MAX_BYTES
    requested = pl.when(fits).then(pl.col("amount") * times)
    wide = wide.with_columns(requested.alias("requested"))
    told = pl.when(pl.col("listed")).then(pl.col("told")).otherwise(pl.col("a_told")).fill_null(False)
    of_tres = pl.when(pl.col("listed")).then(pl.col("gpu")).otherwise(pl.col("a_gpu"))
    asked_gres = pl.when(pl.col("nodes") > 0).then(pl.col("gres_asked") * pl.col("nodes"))
    wide = wide.with_columns(asked_gres.alias("gres_asked"))
    return wide.select(
        "cpus", "nodes",
        _first("mem", "requested", "a_mem").alias("memory_bytes"),
        pl.when(told).then(of_tres).otherwise(_first("gres_given", "gres_asked")).alias("gpus_told"),
        pl.when(pl.col("listed")).then(pl.col("kind")).otherwise(pl.col("a_kind")).alias("gpu_type"),
        (pl.col("listed") | pl.col("a_listed")).alias("tres_listed"),
    )  # fmt: skip


def _typed(wide: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Fill in GPUs from the submit line where accounting lists no resources."""
    untold = pl.col("gpus_told").is_null() & ~pl.col("tres_listed")
    wide = wide.with_columns(pl.lit(None, dtype=pl.Boolean).alias("gpus_asked"))
    if not columns.has("submitline") or not wide.select(untold.any()).item():
        return wide
    lines = wide.select("nodes", pl.when(untold).then(columns.text("submitline")).alias("line"))
    likely = lines.select(pl.when(pl.col("line").str.contains(r"gpu|-[a-zA-Z]*G")).then("line"), "nodes")
    found = [(None, None) if line is None else asked_gpus(line, nodes) or (None, None) for line, nodes in likely.rows()]
    schema = {"count": pl.Int64, "typed": pl.String}
    parts = pl.concat([wide, pl.DataFrame(found, schema=schema, orient="row")], how="horizontal")
    typed = pl.col("count").is_not_null()
    return parts.with_columns(
        pl.when(typed).then("count").otherwise("gpus_told").alias("gpus_told"),
        pl.when(typed).then("typed").otherwise("gpu_type").alias("gpu_type"),
        pl.when(typed).then(True).alias("gpus_asked"),
    )


def _requested(word: str) -> tuple[int | None, str | None]:
    return cells.requested_memory(word) or (None, None)


def _thousands(word: str) -> float | None:
    return cells.amount(word, step=1000)


def _first(*names: str) -> pl.Expr:
    """Return the first of these columns that is more than zero."""
    return pl.coalesce([pl.when(pl.col(name) > 0).then(pl.col(name)) for name in names])


def step_columns(rows: pl.Series, columns: Columns) -> pl.DataFrame:
    """Return the steps (:data:`STEPS`) of rows that are steps; ``columns.odd`` has those that are not to be taken."""
    name = columns.text("jobid", "jobidraw")
    columns.mark(~name.str.contains(_JOB_ID) | name.str.contains("[", literal=True))
    parts = name.rename("n").to_frame().select(pl.col("n").str.splitn(".", 2).struct.unnest())
    usage = columns.text("tresusageintot")
    columns.mark(~usage.str.contains(_USAGE))
    cpu = columns.spans_s("totalcpu")
    none = cpu.fill_null(0) == 0
    if none.any():
        used = columns.duration_s(_part(pl.select(pl.when(none).then(usage)).to_series(), "cpu"))
        cpu = pl.select(pl.when(none).then(used.fill_null(0)).otherwise(cpu)).to_series()
    memory = columns.memory_bytes(_part(usage, "mem"))
    largest, tasks = columns.memory_bytes(columns.text("maxrss")), columns.counts("ntasks")
    times = pl.select(pl.when(tasks > 0).then(tasks).otherwise(1)).to_series()
    total = largest.cast(pl.Float64) * times.cast(pl.Float64)
    columns.mark(total > _MAX_PRODUCT)
    bound = pl.select(pl.when((largest > 0) & (total <= _MAX_PRODUCT)).then(largest * times)).to_series()
    on_gpus = usage.str.contains("gres/gpuutil=", literal=True)
    percent = columns.value(
        _part(pl.select(pl.when(on_gpus).then(usage)).to_series(), "gres/gpuutil"),
        _thousands,
        pl.Float64,
    )
    frame = pl.DataFrame(
        {
            "_row": rows,
            "cluster": columns.text("cluster"),
            "label": parts["field_0"],
            "extern": parts["field_1"] == "extern",
            "step_s": columns.spans_s("elapsed", "elapsedraw"),
            "cpu_s": cpu,
            "memory": pl.select(pl.when(memory > 0).then(memory).otherwise(bound)).to_series(),
            "percent": percent,
        }
    )
    wide = pl.concat([frame, _measured(columns)], how="horizontal")
    return wide.select(pl.col(key).cast(kind) for key, kind in STEPS.items())


def _part(usage: pl.Series, name: str) -> pl.Series:
    """Return one amount of a list such as ``cpu=00:00:01,mem=4K``; of a name given twice, the first."""
    return usage.str.extract(rf"(?:^|,){name}=([^,]+)", 1)


def jobs_of_rows(numbers: Sequence[int], jobs: Sequence[Job]) -> pl.DataFrame:
    """Return the jobs that were read one by one, as :func:`job_columns` does."""
    rows = []
    for number, job in zip(numbers, jobs, strict=True):
        values = {"_row": number, "total_cpu_s": job.total_cpu_s, "gpus_told": job.gpus, "tres_listed": job.tres_listed}
        rows.append({**{key: job.values.get(key) for key in JOBS}, **values, **_told(job.measured)})
    return pl.DataFrame(rows, schema=JOBS, strict=False)


def steps_of_rows(numbers: Sequence[int], keys: Sequence[tuple[str, str]], steps: Sequence[Step]) -> pl.DataFrame:
    """Return the steps that were read one by one, as :func:`step_columns` does; ``keys``: cluster and job of each."""
    rows = []
    for number, (cluster, label), step in zip(numbers, keys, steps, strict=True):
        values = {
            "_row": number, "cluster": cluster or None, "label": label, "extern": step.name == "extern",
            "step_s": step.elapsed_s, "cpu_s": step.cpu_s,
            "memory": None if step.memory_bytes is None else min(step.memory_bytes, cells.MAX_BYTES),
            "percent": step.gpu_percent,
        }  # fmt: skip
        rows.append({**values, **_told(step.measured)})
    return pl.DataFrame(rows, schema=STEPS, strict=False)


def _told(found: jobstats.Measured | None) -> dict[str, Any]:
    if found is None:
        return dict.fromkeys(_MEASURED)
    return {"m_told": True, "m_cpu": found.cpu_used_s, "m_memory": found.memory_used_bytes, "m_gpu": found.gpu_used}
