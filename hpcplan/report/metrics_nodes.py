"""Node by node: how busy each was, which ones eat jobs, and how much of what was idle lay in fragments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from hpcplan.report.figures import Measure
from hpcplan.report.occupancy import Occupancy
from hpcplan.report.rows import NodeUse
from hpcplan.report.window import picked
from hpcplan.slurm.records import NodeRecord

__all__ = ["BINS", "fragmentation", "nodes_used"]

BINS: Final = 24  # columns of the heat map, and moments at which fragmentation is looked at
_BAD: Final = ["NODE_FAIL", "FAILED", "BOOT_FAIL", "OUT_OF_MEMORY"]
_MOST_NODES: Final = 20_000


def nodes_used(
    seen: pl.DataFrame, found: Occupancy, nodes: Sequence[NodeRecord] | None, window_s: int
) -> tuple[NodeUse, ...]:
    """Return every node that ran something, or that the cluster has, by name; none where node lists do not tell."""
    if found.by_node is None:
        return ()
    names = sorted({*found.by_node["_node"].unique(), *(node.name for node in nodes or ())})
    if not names or len(names) > _MOST_NODES:
        return ()
    busy = _busy(found.by_node, names, window_s)
    ends = _ends(seen, found)
    rate = (sum(row[1] for row in ends.values()) / sum(row[0] for row in ends.values())) if ends else 0.0
    rows = []
    for place, name in enumerate(names):
        attempts, failed, own, hours = ends.get(name, (0, 0, 0, 0.0))
        rows.append(NodeUse(name, busy[place], attempts, failed, attempts * rate, own, hours))
    return tuple(rows)


def _busy(by_node: pl.DataFrame, names: Sequence[str], window_s: int) -> list[tuple[float, ...]]:
    """Return the share of each of the window's bins in which each node ran something."""
    import numpy as np

    place = {name: index for index, name in enumerate(names)}
    codes = by_node["_node"].replace_strict(list(place), list(place.values()), return_dtype=pl.Int64).to_numpy()
    first, last = by_node["_from"].to_numpy(), by_node["_to"].to_numpy()
    width = window_s / BINS
    columns = []
    for index in range(BINS):
        overlap = np.clip(np.minimum(last, (index + 1) * width) - np.maximum(first, index * width), 0, None)
        columns.append(np.bincount(codes, weights=overlap, minlength=len(names)) / width)
    return [tuple(round(float(value), 3) for value in row) for row in np.array(columns).T]


def _ends(seen: pl.DataFrame, found: Occupancy) -> dict[str, tuple[int, int, int, float]]:
    """Return of each node the attempts that ended on it, those that failed, its own failures, and core-hours lost."""
    assert found.names is not None
    did = pl.col("ended_in") & (pl.col("ran_s") > 0)
    bad, node_fail = pl.col("state").is_in(_BAD), pl.col("state") == "NODE_FAIL"
    hours = pl.col("core_s") / pl.col("nodes") / 3600
    # of a job on several nodes only the one that failed is to blame, where Slurm names it
    rows = (
        picked(seen, did, "node_list", "state", "failed_node", "core_s", "nodes")
        .group_by("node_list", pl.when(node_fail).then("failed_node").alias("named"))
        .agg(
            pl.len().alias("attempts"), (bad & ~node_fail).sum().alias("failed"), node_fail.sum().alias("own"),
            hours.filter(bad).sum().alias("hours"),
        )
        .join(found.names, on="node_list")
        .with_columns(pl.when(pl.col("named").is_null() | (pl.col("named") == pl.col("_node"))).then("own"))
        .group_by("_node")
        .agg(
            pl.col("attempts").sum(), (pl.col("failed") + pl.col("own").fill_null(0)).sum(), pl.col("own").sum(),
            pl.col("hours").sum(),
        )
    )  # fmt: skip
    return {
        row["_node"]: (row["attempts"], row["failed"], row["own"], float(row["hours"] or 0.0))
        for row in rows.iter_rows(named=True)
    }


def fragmentation(
    seen: pl.DataFrame, found: Occupancy, nodes: Sequence[NodeRecord] | None, start: int, window_s: int
) -> Measure:
    """Share of the idle CPUs that lay on nodes which were partly in use, where a job of whole nodes cannot have them.

    Looked at in the middle of each of 24 equal parts of the window; ``known`` of ``total`` are these moments. A job's
    CPUs count as spread evenly over its nodes.
    """
    size = {node.name: node.cpus for node in nodes or () if node.usable and node.cpus}
    if found.names is None or not size:
        return Measure(None, 0, BINS, "it takes the CPUs of every node, and each job's node list")
    sized = (pl.col("ran_s") > 0) & (pl.col("cpus") > 0) & (pl.col("nodes") > 0)
    ran = picked(seen, sized, "start_time", "ran_s", "node_list", "cpus", "nodes").select(
        "start_time", (pl.max_horizontal("start_time", pl.lit(start)) + pl.col("ran_s")).alias("until"), "node_list",
        (pl.col("cpus") / pl.col("nodes")).alias("each"),
    )  # fmt: skip
    capacity = pl.DataFrame({"_node": list(size), "has": list(size.values())})
    fragments = idle = 0.0
    for index in range(BINS):
        moment = start + (index + 0.5) * window_s / BINS
        now = ran.filter((pl.col("start_time") <= moment) & (pl.col("until") > moment))
        used = now.join(found.names, on="node_list").group_by("_node").agg(pl.col("each").sum())
        left = capacity.join(used, on="_node", how="left").with_columns(
            (pl.col("has") - pl.col("each").fill_null(0.0)).clip(lower_bound=0.0).alias("left")
        )
        idle += float(left["left"].sum())
        fragments += float(left.filter(pl.col("each") > 0)["left"].sum())
    return Measure(fragments / idle if idle > 0 else None, BINS, BINS, None if idle > 0 else "no CPU was idle")
