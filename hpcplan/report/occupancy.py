"""Which nodes were in use when: the union of the runs on each node, so that jobs sharing a node count it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from hpcplan.report.figures import Measure
from hpcplan.report.node_lists import NodeLists
from hpcplan.report.window import picked

__all__ = ["Occupancy", "node_utilisation", "occupancy"]

_MOST_PLACES: Final = 20_000_000  # runs × nodes; beyond it the sum of node counts must do


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Intervals ``_from`` to ``_to`` (seconds after the window's start) in which ``_nodes`` nodes were in use.

    ``exact`` says that they come from node lists; else every job counts its nodes for itself. ``shared``: jobs were
    seen together on one node, or it cannot be ruled out that they were. Where it is exact, ``by_node`` has the same
    intervals with their ``_node``, and ``names`` has a row for each node (``_node``) of each ``node_list``.
    """

    intervals: pl.DataFrame
    exact: bool
    shared: bool
    known: int
    total: int
    by_node: pl.DataFrame | None = None
    names: pl.DataFrame | None = None

    @property
    def node_s(self) -> float:
        """Node-seconds in use."""
        return float(self.intervals.select(((pl.col("_to") - pl.col("_from")) * pl.col("_nodes")).sum()).item())


def occupancy(seen: pl.DataFrame, start: int, lists: NodeLists | None = None) -> Occupancy:
    """Return when nodes were in use in the window that begins at ``start`` (``seen``: see window.see)."""
    some = pl.col("ran_s").is_null() | (pl.col("ran_s") > 0)
    held = picked(seen, some, "ran_s", "start_time", "node_list", "nodes")
    first = (pl.col("start_time").clip(lower_bound=start) - start).cast(pl.Float64)
    runs = (
        held.filter(pl.col("ran_s") > 0)
        .with_columns(first.alias("_from"))
        .with_columns((pl.col("_from") + pl.col("ran_s")).alias("_to"))
    )
    names = _names(runs["node_list"], lists or NodeLists())
    if names is None or runs.is_empty():
        counted = runs.filter(pl.col("nodes") > 0).select("_from", "_to", pl.col("nodes").alias("_nodes"))
        return Occupancy(counted, exact=False, shared=True, known=len(counted), total=len(held))
    nodes = names["_node"].unique().sort()
    codes = pl.DataFrame({"_node": nodes}).with_row_index("_code")
    coded = names.join(codes, on="_node").select("node_list", "_code")
    placed = runs.select("_from", "_to", "node_list").join(coded, on="node_list")
    merged = _union(placed, nodes)
    union_s = float((merged["_to"] - merged["_from"]).sum())
    sum_s = float((placed["_to"] - placed["_from"]).sum())
    intervals = merged.select("_from", "_to", "_nodes")
    shared = sum_s > 1.001 * union_s
    return Occupancy(intervals, True, shared, known=len(runs), total=len(held), by_node=merged, names=names)


def _names(lists: pl.Series, known: NodeLists) -> pl.DataFrame | None:
    """Return the nodes of every distinct list, ``None`` if there is one that does not tell."""
    counted = lists.value_counts(name="runs")
    texts: list[str] = []
    nodes: list[str] = []
    room = _MOST_PLACES
    for text, runs in counted.iter_rows():
        names = known.names(text, limit=max(1, room // runs))
        if not names:
            return None
        texts += [text] * len(names)
        nodes += names
        room -= len(names) * runs
    return pl.DataFrame({"node_list": texts, "_node": nodes}, schema={"node_list": pl.String, "_node": pl.String})


def _union(placed: pl.DataFrame, nodes: pl.Series) -> pl.DataFrame:
    """Return the intervals of each node with overlaps joined.

    All nodes lie one behind the other on one axis. Starts and ends are sorted each for themselves: an interval begins
    where as many runs have ended as had begun before, and the last of those ends is where the one before it stopped.
    """
    import numpy as np

    span = float(placed["_to"].max() or 0.0) + 1.0  # type: ignore[arg-type]
    offset = placed["_code"].to_numpy() * span
    first, last = (pl.Series(offset + placed[moment].to_numpy()).sort().to_numpy() for moment in ("_from", "_to"))
    begins = np.flatnonzero(np.searchsorted(last, first) == np.arange(len(first)))
    begin, end = first[begins], last[np.append(begins[1:], len(first)) - 1]
    code = np.floor(begin / span).astype(np.int64)
    return pl.DataFrame(
        {
            "_node": nodes.gather(code), "_from": begin - code * span, "_to": end - code * span,
            "_nodes": np.ones(len(code), dtype=np.int32),
        }
    )  # fmt: skip


def node_utilisation(found: Occupancy, size: int | None, window_s: int) -> Measure:
    """Share of node time with at least one job on the node: node-seconds in use / (nodes × window)."""
    if size is None:
        return Measure(None, found.known, found.total, "how many nodes the cluster has is not known")
    if size == 0 or window_s <= 0:
        return Measure(None, found.known, found.total, "the cluster has no nodes")
    share = found.node_s / (size * window_s)
    if found.exact:
        note = None if share <= 1 + 1e-9 else "more nodes were in use than there are now"
        return Measure(share, found.known, found.total, note)
    if share > 1 + 1e-9 or found.known == 0 < found.total:
        return Measure(None, found.known, found.total, "jobs share nodes, and not every job's node list is on record")
    return Measure(share, found.known, found.total, "without node lists, a node that jobs share counts once a job")
