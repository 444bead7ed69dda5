"""How full each part of the cluster was, over the window and bin by bin: partitions, node groups, kinds of GPU.

A part's size comes from the nodes' records (the controller's, or the site file's). Without them utilisation is unknown,
and the mean of what was in use stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from hpcplan.report.metrics_use import group_of
from hpcplan.report.occupancy import Occupancy
from hpcplan.report.rows import Part
from hpcplan.report.series import area_between, bin_width_s
from hpcplan.report.window import picked
from hpcplan.slurm.records import NodeRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["parts"]

_MOST: Final = 60  # of one kind; the largest
_GPU_KIND: Final = re.compile(r"(?:^|,)(?:gres[/:])?gpu:([^:,(=]+):(\d+)")


@dataclass(slots=True)
class _Size:
    """What a part has; ``None`` as soon as one node does not tell."""

    nodes: set[str] = field(default_factory=set)
    cpus: int | None = 0
    gpus: int | None = 0

    def add(self, node: NodeRecord, gpus: int | None) -> None:
        self.nodes.add(node.name)
        self.cpus = None if self.cpus is None or node.cpus is None else self.cpus + node.cpus
        self.gpus = None if self.gpus is None or gpus is None else self.gpus + gpus


def parts(
    seen: pl.DataFrame, busy: Occupancy, nodes: Sequence[NodeRecord] | None, group_of_node: Mapping[str, str] | None,
    start: int, end: int,
) -> tuple[Part, ...]:  # fmt: skip
    """Return a row for each partition, node group and kind of GPU that ran something or that the cluster has.

    A partition's use is that of its own jobs; its nodes may serve others as well. Resource-hours as in
    metrics_use.hours, over size × window.
    """
    import numpy as np

    sizes = _sizes(nodes or (), group_of_node)
    runs = _runs(seen, start)
    edges = np.append(np.arange(start, end, bin_width_s(end - start), dtype=np.float64), float(end)) - start
    found: list[Part] = []
    for kind, column in (("partition", "partition"), ("node group", "node_group"), ("GPU kind", "gpu_type")):
        known = runs.select("_from", "_to", "ran_s", "cpus", "gpus", column).filter(pl.col(column).is_not_null())
        if kind == "GPU kind":
            known = known.filter(pl.col("gpus") > 0)
        by_name = {str(key[0]): table for key, table in known.partition_by(column, as_dict=True).items()}
        rows = [
            _part(kind, name, by_name.get(name, known.clear()), sizes[kind].get(name), busy, edges)
            for name in sorted({*by_name, *sizes[kind]})
        ]
        found += sorted(rows, key=lambda row: (-(row.cpus_in_use or 0.0), -(row.gpus_in_use or 0.0), row.name))[:_MOST]
    return tuple(found)


def _sizes(nodes: Iterable[NodeRecord], group_of_node: Mapping[str, str] | None) -> dict[str, dict[str, _Size]]:
    sizes: dict[str, dict[str, _Size]] = {"partition": {}, "node group": {}, "GPU kind": {}}
    for node in nodes:
        for partition in node.partitions:
            sizes["partition"].setdefault(partition, _Size()).add(node, node.gpus)
        sizes["node group"].setdefault(group_of(node.name, group_of_node), _Size()).add(node, node.gpus)
        for kind, count in _GPU_KIND.findall((node.gres or "").lower()):
            sizes["GPU kind"].setdefault(kind, _Size()).add(node, int(count))
    return sizes


def _runs(seen: pl.DataFrame, start: int) -> pl.DataFrame:
    first = (pl.col("start_time").clip(lower_bound=start) - start).cast(pl.Float64)
    return (
        picked(seen, pl.col("ran_s") > 0, "start_time", "ran_s", "cpus", "gpus", "partition", "node_group", "gpu_type")
        .with_columns(first.alias("_from"), pl.col("gpu_type").str.to_lowercase())
        .filter(pl.col("_from").is_not_null())
        .select("_from", (pl.col("_from") + pl.col("ran_s")).alias("_to"), "ran_s", "cpus", "gpus", "partition",
                "node_group", "gpu_type")
    )  # fmt: skip


def _part(
    kind: str, name: str, runs: pl.DataFrame, size: _Size | None, busy: Occupancy, edges: NDArray[np.float64]
) -> Part:
    window_s = float(edges[-1])
    of_gpus = kind == "GPU kind"
    cpus = None if size is None or of_gpus else size.cpus
    gpus = None if size is None else size.gpus
    cpus_used, gpus_used = (_mean_in_use(runs, column, window_s) for column in ("cpus", "gpus"))
    weight, total = ("gpus", gpus) if of_gpus else ("cpus", cpus)
    return Part(
        kind=kind,
        name=name,
        nodes=None if size is None else len(size.nodes),
        cpus=cpus,
        gpus=gpus,
        cpus_in_use=None if of_gpus else cpus_used,
        gpus_in_use=gpus_used,
        cpu_utilisation=_share(None if of_gpus else cpus_used, cpus),
        gpu_utilisation=_share(gpus_used, gpus),
        node_utilisation=None if size is None else _nodes_busy(busy, size.nodes, window_s),
        over_time=_over_time(runs, weight, total, edges),
    )


def _mean_in_use(runs: pl.DataFrame, column: str, window_s: float) -> float | None:
    """Return the mean in use over the window; unknown where some run's size is not on record."""
    if runs[column].null_count():
        return None
    return float(runs.select((pl.col(column) * pl.col("ran_s")).sum()).item() or 0.0) / window_s


def _share(used: float | None, size: int | None) -> float | None:
    return None if used is None or not size else used / size


def _nodes_busy(busy: Occupancy, names: set[str], window_s: float) -> float | None:
    """Return the share of the nodes' time in which at least one job, of whatever partition, was on them."""
    if busy.by_node is None or not names:
        return None
    here = busy.by_node.filter(pl.col("_node").is_in(list(names)))
    return float((here["_to"] - here["_from"]).sum()) / (window_s * len(names))


def _over_time(
    runs: pl.DataFrame, column: str, size: int | None, edges: NDArray[np.float64]
) -> tuple[float, ...] | None:
    """Return the share in use in each bin; ``None`` where it is not known."""
    import numpy as np

    if not size or runs[column].null_count():
        return None
    weights: Any = runs[column].to_numpy().astype(np.float64)
    area = area_between(runs["_from"].to_numpy(), runs["_to"].to_numpy(), weights, edges)
    return tuple(round(float(value), 6) for value in np.diff(area) / np.diff(edges) / size)
