"""What to change, from the evidence of the window: each piece with what was seen, what to write, and what it frees.

A group (one user's jobs of one kind) is judged only with ``FEWEST`` measured jobs or more, and a suggestion keeps
``MARGIN`` above the largest use seen. Pieces that free resources come before those that only let the scheduler plan
better (time limits), and within each the largest share of what was held comes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import polars as pl

from hpcplan.report.formats import percent
from hpcplan.report.rows import Advice, NodeUse
from hpcplan.report.window import picked
from hpcplan.units import format_bytes, format_duration, format_slurm_time

__all__ = ["FEWEST", "MARGIN", "advise"]

FEWEST: Final = 3
MARGIN: Final = 1.25
_MOST_FREEING: Final = 10
_MOST_PLANNING: Final = 5
_READ: Final = (
    "user", "name", "partition", "label", "state", "nodes", "cpus", "gpus", "memory_bytes", "memory_used_bytes",
    "time_limit_s", "elapsed_s", "ran_s", "cpu_used_s", "cpu_efficiency", "memory_efficiency", "gpu_efficiency",
    "time_efficiency", "core_s", "gpu_s",
)  # fmt: skip
_IDLE_GPU: Final = 0.05  # a GPU under 5 % did nothing worth the name
_LOW: Final = 0.5  # below this, asking for half would do
_WORTH: Final = 0.001  # less than a thousandth of what was held is not worth a line
_MANY_LOST: Final = 0.01  # some jobs fail; below a hundredth that is not worth one either


def advise(seen: pl.DataFrame, *, nodes_shared: bool = True, nodes: Sequence[NodeUse] = ()) -> tuple[Advice, ...]:
    """Return the advice for a window (``seen``: see window.see), most worthwhile first, at most 15 pieces.

    Where jobs do not share nodes (``nodes_shared``), asking for less memory or fewer CPUs of a node frees nothing.
    """
    did = pl.col("ended_in") & (pl.col("ran_s") > 0) & pl.col("user").is_not_null()
    ended = _with_kind(picked(seen, did, *_READ))
    freeing = [*_idle_gpus(ended, seen), *_failures(ended, seen), *_bad_nodes(nodes, seen)]
    freeing += [*_memory(ended), *_cpus(ended, seen)] if nodes_shared else _nodes(ended, seen)
    planning = [*_time_limits(ended), *_partitions(seen)]
    ranked = [
        sorted((one for one in found if one.gain_share >= _WORTH), key=lambda one: (-one.gain_share, one.who, one.kind))
        for found in (freeing, planning)
    ]
    return (*ranked[0][:_MOST_FREEING], *ranked[1][:_MOST_PLANNING])


def _with_kind(jobs: pl.DataFrame) -> pl.DataFrame:
    """Add ``kind``, the name without its numbers: run-17 and run-18 are of a kind."""
    name = pl.col("name").fill_null("")
    kinds = jobs.select(name.unique()).with_columns(name.str.replace_all(r"[0-9]+", "#").alias("kind"))
    return jobs.with_columns(name).join(kinds, on="name", how="left", maintain_order="left")


def _groups(table: pl.DataFrame, by: list[str], **columns: pl.Expr) -> Iterator[dict[str, Any]]:
    """Yield the groups of ``FEWEST`` jobs or more; ``columns`` are plain sums and maxima, which polars adds up fast."""
    grouped = table.lazy().group_by(by).agg(pl.len().alias("jobs"), **columns).filter(pl.col("jobs") >= FEWEST)
    yield from grouped.sort(by).collect().iter_rows(named=True)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _where(row: dict[str, Any]) -> str:
    return f"in partition {row['partition']}" if row["partition"] is not None else "in no known partition"


def _jobs(row: dict[str, Any]) -> str:
    count = "1 job" if row["jobs"] == 1 else f"{row['jobs']:,} jobs"
    return f"{count} called {row['kind']}" if row.get("kind") else count


def _idle_gpus(ended: pl.DataFrame, seen: pl.DataFrame) -> Iterator[Advice]:
    held = float(seen["gpu_s"].sum()) / 3600
    idle = picked(ended, (pl.col("gpu_efficiency") < _IDLE_GPU) & (pl.col("gpu_s") > 0), "user", "gpu_s", "label")
    rows = idle.group_by("user").agg(
        pl.len().alias("jobs"), (pl.col("gpu_s").sum() / 3600).alias("hours"), pl.col("label").first().alias("example")
    )
    for row in rows.sort("user").iter_rows(named=True):
        yield Advice(
            kind="idle GPUs",
            who=row["user"],
            finding=f"{_jobs(row)} (job {row['example']}, for one) held GPUs and used less than "
            f"{percent(_IDLE_GPU)} of them",
            action="check that the program finds the GPU (nvidia-smi inside the job), or leave --gres and --gpus out",
            gain=row["hours"],
            unit="GPU-hours",
            gain_share=_share(row["hours"], held),
            jobs=row["jobs"],
        )


def _memory(ended: pl.DataFrame) -> Iterator[Advice]:
    wanted = ("user", "kind", "partition", "memory_bytes", "nodes", "memory_used_bytes", "memory_efficiency", "ran_s")
    sized = picked(ended, pl.col("memory_bytes").is_not_null(), *wanted)
    gib_hours = (pl.col("ran_s") / 3600 * pl.col("memory_bytes")) / 2**30
    held = float(sized.select(gib_hours.sum()).item())
    known = sized.filter(pl.col("memory_efficiency").is_not_null() & (pl.col("nodes") > 0))
    rows = _groups(
        known,
        ["user", "kind", "partition", "memory_bytes", "nodes"],
        used=pl.col("memory_used_bytes").max(),
        ran_s=pl.col("ran_s").sum(),
    )
    for row in rows:
        needed = max(1, math.ceil(row["used"] * MARGIN / row["nodes"] / 2**30)) * row["nodes"] * 2**30
        if needed >= _LOW * row["memory_bytes"]:
            continue
        gain = (row["memory_bytes"] - needed) * row["ran_s"] / 3600 / 2**30
        yield Advice(
            kind="memory",
            who=row["user"],
            finding=f"{_jobs(row)} {_where(row)} asked for {format_bytes(row['memory_bytes'])} and used "
            f"{format_bytes(row['used'])} at most",
            action=f"#SBATCH --mem={needed // row['nodes'] // 2**30}G"
            + (", of each node, if the nodes need alike" if row["nodes"] > 1 else ""),
            gain=gain,
            unit="GiB-hours",
            gain_share=_share(gain, held),
            jobs=row["jobs"],
        )


def _cpus(ended: pl.DataFrame, seen: pl.DataFrame) -> Iterator[Advice]:
    held = float(seen["core_s"].sum()) / 3600
    wanted = ("user", "kind", "partition", "cpus", "cpu_efficiency", "cpu_used_s", "elapsed_s", "ran_s")
    known = picked(ended, pl.col("cpu_efficiency").is_not_null() & (pl.col("cpus") > 1), *wanted).with_columns(
        (pl.col("cpu_efficiency") * pl.col("cpus")).alias("busy"),
        (pl.col("elapsed_s").cast(pl.Float64) * pl.col("cpus")).alias("held_s"),
    )
    rows = _groups(
        known,
        ["user", "kind", "partition", "cpus"],
        busiest=pl.col("busy").max(),
        used_s=pl.col("cpu_used_s").sum(),
        held_s=pl.col("held_s").sum(),
        ran_s=pl.col("ran_s").sum(),
    )
    for row in rows:
        needed = max(1, math.ceil(row["busiest"] * MARGIN))
        if needed > _LOW * row["cpus"]:
            continue
        gain = (row["cpus"] - needed) * row["ran_s"] / 3600
        yield Advice(
            kind="CPUs",
            who=row["user"],
            finding=f"{_jobs(row)} {_where(row)} held {row['cpus']} CPUs each and kept {row['busiest']:.1f} of "
            f"them busy at most ({percent(row['used_s'] / row['held_s'])} on average)",
            action=f"ask for {needed} CPUs in all, as in #SBATCH --cpus-per-task={needed} with one task",
            gain=gain,
            unit="core-hours",
            gain_share=_share(gain, held),
            jobs=row["jobs"],
        )


def _nodes(ended: pl.DataFrame, seen: pl.DataFrame) -> Iterator[Advice]:
    """Name jobs that got more whole nodes than the CPUs and memory they used fill; GPU jobs are left out."""
    held = float(seen["core_s"].sum()) / 3600
    measured = pl.col("cpu_efficiency").is_not_null() & pl.col("memory_efficiency").is_not_null()
    known = ended.filter(measured & (pl.col("nodes") > 1) & (pl.col("gpus").fill_null(0) == 0))
    filled = pl.max_horizontal("cpu_efficiency", "memory_efficiency") * pl.col("nodes")
    rows = _groups(
        known,
        ["user", "kind", "partition", "nodes"],
        fullest=filled.max(),
        hours=pl.col("core_s").sum() / 3600,
    )
    for row in rows:
        needed = max(1, math.ceil(row["fullest"] * MARGIN))
        if needed > _LOW * row["nodes"]:
            continue
        gain = row["hours"] * (1 - needed / row["nodes"])
        yield Advice(
            kind="nodes",
            who=row["user"],
            finding=f"{_jobs(row)} {_where(row)} held {row['nodes']} whole nodes each and used as much as fills "
            f"{row['fullest']:.1f} of them at most",
            action=f"#SBATCH --nodes={needed}, if the program can run so",
            gain=gain,
            unit="core-hours",
            gain_share=_share(gain, held),
            jobs=row["jobs"],
        )


_REMEDY: Final = {
    "TIMEOUT": "ask for more time, or write checkpoints and continue in a second job",
    "OUT_OF_MEMORY": "ask for more memory than the step that was killed had",
    "NODE_FAIL": "report the nodes to the administrators; let jobs be requeued (#SBATCH --requeue)",
    "FAILED": "look at the exit codes of the last runs; try a short run first",
}


def _failures(ended: pl.DataFrame, seen: pl.DataFrame) -> Iterator[Advice]:
    held = float(seen["core_s"].sum()) / 3600
    bad = picked(ended, pl.col("state").is_in(list(_REMEDY)), "user", "state", "core_s")
    for row in _groups(bad, ["user", "state"], hours=pl.col("core_s").sum() / 3600):
        if _share(row["hours"], held) < _MANY_LOST:
            continue
        yield Advice(
            kind="failures",
            who=row["user"],
            finding=f"{_jobs(row)} ended as {row['state']} after they had held {row['hours']:,.1f} core-hours",
            action=_REMEDY[row["state"]],
            gain=row["hours"],
            unit="core-hours",
            gain_share=_share(row["hours"], held),
            jobs=row["jobs"],
        )


def _time_limits(ended: pl.DataFrame) -> Iterator[Advice]:
    told = pl.col("state").is_in(["COMPLETED", "TIMEOUT"]) & pl.col("time_efficiency").is_not_null()
    wanted = ("user", "kind", "partition", "time_limit_s", "elapsed_s", "cpus")
    judged = picked(ended, told & (pl.col("cpus") > 0), *wanted)
    asked = float(judged.select((pl.col("time_limit_s").cast(pl.Float64) * pl.col("cpus")).sum()).item()) / 3600
    rows = _groups(
        judged,
        ["user", "kind", "partition", "time_limit_s"],
        longest=pl.col("elapsed_s").max(),
        cpus=pl.col("cpus").sum(),
    )
    for row in rows:
        limit = math.ceil(row["longest"] * MARGIN / 300) * 300  # people write limits in 5 minutes
        if limit > _LOW * row["time_limit_s"]:
            continue
        gain = (row["time_limit_s"] - limit) * row["cpus"] / 3600
        yield Advice(
            kind="time limit",
            who=row["user"],
            finding=f"{_jobs(row)} {_where(row)} asked for {format_slurm_time(row['time_limit_s'])}; the longest "
            f"took {format_duration(row['longest'])}",
            action=f"#SBATCH --time={format_slurm_time(limit)}, so that backfill can start them earlier",
            gain=gain,
            unit="core-hours of limit",
            gain_share=_share(gain, asked),
            jobs=row["jobs"],
        )


def _bad_nodes(nodes: Sequence[NodeUse], seen: pl.DataFrame) -> Iterator[Advice]:
    held = float(seen["core_s"].sum()) / 3600
    for node in nodes:
        if node.failed < FEWEST or node.failed < 2 * node.expected_failed:
            continue
        yield Advice(
            kind="node",
            who=node.name,
            finding=f"{node.failed:,} of {node.attempts:,} attempts on it failed, where the cluster's own rate gives "
            f"{node.expected_failed:.1f}; {node.node_failures:,} were failures of the node itself",
            action="drain it and look at its memory, GPUs and links (scontrol update state=drain)",
            gain=node.lost_core_hours,
            unit="core-hours",
            gain_share=_share(node.lost_core_hours, held),
            jobs=node.failed,
        )


_UNEVEN: Final = 4.0
_LONG_S: Final = 900.0


def _partitions(seen: pl.DataFrame) -> Iterator[Advice]:
    """Name partitions whose jobs waited far longer than those of the quickest one."""
    known = pl.col("started_in") & pl.col("partition").is_not_null()
    started = picked(seen, known, "partition", "eligible_wait_s", "wait_s")
    waited = pl.coalesce("eligible_wait_s", "wait_s")
    rows = (
        started.group_by("partition").agg(pl.len().alias("jobs"), waited.mean().alias("mean"))
        .filter((pl.col("jobs") >= 10) & pl.col("mean").is_not_null()).sort("mean", "partition").to_dicts()
    )  # fmt: skip
    whole = float(started.select(waited.sum()).item() or 0)
    for row in rows[1:]:
        quick = rows[0]
        if row["mean"] < _UNEVEN * quick["mean"] or row["mean"] < _LONG_S:
            continue
        gain = (row["mean"] - quick["mean"]) * row["jobs"] / 3600
        yield Advice(
            kind="partition",
            who=row["partition"],
            finding=f"its {row['jobs']:,} jobs waited {format_duration(row['mean'])} on average, those of "
            f"{quick['partition']} {format_duration(quick['mean'])}",
            action=f"let the two share nodes, or say in the job script that {quick['partition']} would do too "
            f"(#SBATCH --partition={row['partition']},{quick['partition']})",
            gain=gain,
            unit="wait hours",
            gain_share=_share(gain * 3600, whole),
            jobs=row["jobs"],
        )
