"""hpcplan's own jobs: what the plan expected each to take, beside what it took."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from hpcplan.report.rows import Campaign
from hpcplan.report.window import picked

__all__ = ["predicted"]


def predicted(seen: pl.DataFrame, expected_s: Mapping[str, float] | None) -> tuple[Campaign, ...]:
    """Return the campaigns' jobs that completed in the window and whose plan is known, by the token in their comment.

    One that was cut short (timed out, preempted, requeued) did not do its part, so its time says nothing.
    """
    completed = pl.col("ended_in") & (pl.col("state") == "COMPLETED") & (pl.col("elapsed_s") > 0)
    done = picked(seen, pl.col("comment").is_not_null() & completed, "comment", "label", "state", "elapsed_s")
    rows = []
    for row in done.iter_rows(named=True):
        seconds = (expected_s or {}).get(row["comment"])
        if seconds:
            rows.append(Campaign(row["comment"], row["label"], row["state"], seconds, float(row["elapsed_s"])))
    return tuple(rows)
