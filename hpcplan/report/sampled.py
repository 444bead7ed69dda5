"""What hpcplan's own jobs sampled of themselves stands in where accounting has no figure, and says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from hpcplan.report.site_facts import Sampled

__all__ = ["filled"]

_LEAST_SHARE: Final = 0.5  # of a run that samples must span to stand for it
_SLACK_S: Final = 120
_ADDED: Final = {"sampled_gpu_used": pl.Float64, "sampled_gpu_w": pl.Float64}


def filled(table: pl.DataFrame, samples: Mapping[tuple[str, int], Sampled] | None) -> pl.DataFrame:
    """Return the job table with ``gpu_used`` of hpcplan's jobs where it was null, and two columns more.

    ``sampled_gpu_used`` says where that was done; ``sampled_gpu_w`` is the mean power of all GPUs of the job.
    ``samples`` go by the campaign's id (from the job's comment) and Slurm's job id. They count for an attempt that ran
    while they were taken, if they span half of it and are of all its nodes and GPUs.
    """
    ours = table.filter(pl.col("comment").is_not_null()) if samples else table.clear()
    keys = ["comment", "job_id", "start_time"]
    rows = []
    for row in ours.select(*keys, "end_time", "elapsed_s", "nodes", "gpus").unique().iter_rows(named=True):
        found = (samples or {}).get((_campaign(row["comment"]), row["job_id"]))
        if found is not None and _stands_for(found, row):
            rows.append((*(row[key] for key in keys), found.gpu_used, found.gpu_power_w))
    schema: dict[str, Any] = {key: table.schema[key] for key in keys} | _ADDED
    if not rows:
        return table.with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in _ADDED.items())
    found_for = pl.DataFrame(rows, schema=schema, orient="row")
    wide = table.join(found_for, on=keys, how="left", maintain_order="left")
    untold = pl.when(pl.col("gpu_used").is_null()).then(pl.col("sampled_gpu_used"))
    return wide.with_columns(untold.alias("sampled_gpu_used")).with_columns(
        pl.coalesce("gpu_used", "sampled_gpu_used").alias("gpu_used")
    )


def _campaign(comment: str) -> str:
    """Return the campaign's id of ``hpcplan:ID:STAGE:SEGMENT``."""
    parts = comment.split(":")
    return parts[1] if len(parts) > 1 else ""


def _stands_for(found: Sampled, row: Mapping[str, Any]) -> bool:
    start, end, ran = row["start_time"], row["end_time"], row["elapsed_s"]
    if start is None or end is None or not ran:
        return False
    inside = found.first >= start - _SLACK_S and found.last <= end + _SLACK_S
    whole = (found.nodes, found.gpus) == (row["nodes"], row["gpus"])
    return inside and whole and found.last - found.first >= _LEAST_SHARE * ran
