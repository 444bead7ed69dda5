"""Resource-hours: what was held inside the window, by whom, against what there is, and what was lost or left idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import polars as pl

from hpcplan.report.figures import Measure
from hpcplan.report.node_lists import NodeLists
from hpcplan.report.rows import Capacity, Lost, Usage
from hpcplan.report.window import picked
from hpcplan.slurm.records import NodeRecord

__all__ = [
    "capacity",
    "cost",
    "group_of",
    "grouped",
    "hours",
    "idle_hours",
    "lost",
    "per_node_list",
    "priced",
    "usage",
    "usages",
    "utilisation",
]

Resource = Literal["core_s", "gpu_s", "node_s"]
_OF: Final[Mapping[Resource, str]] = {"core_s": "CPUs", "gpu_s": "GPUs", "node_s": "nodes"}
_EFFICIENCY: Final[Mapping[str, str]] = {
    "core_s": "cpu_efficiency", "gpu_s": "gpu_efficiency", "gib_s": "memory_efficiency",
}  # fmt: skip
_SIZE: Final = {"cpu_efficiency": "cpus", "memory_efficiency": "memory_bytes", "gpu_efficiency": "gpus"}


def capacity(nodes: Sequence[NodeRecord] | None) -> Capacity:
    """Return what the cluster has; a total is unknown as soon as one node's part is."""
    if not nodes:
        return Capacity(None, None, None, None)
    cpus = [node.cpus for node in nodes]
    gpus = [node.gpus for node in nodes]
    return Capacity(len(nodes), sum(node.usable for node in nodes), _sum(cpus), _sum(gpus))


def _sum(parts: Sequence[int | None]) -> int | None:
    return None if None in parts else sum(part or 0 for part in parts)


def _held(seen: pl.DataFrame) -> pl.Series:
    """Return which attempts held anything in the window, or may have."""
    return seen["ran_s"].is_null() | (seen["ran_s"] > 0)


def _total(values: pl.Series) -> float | None:
    """Return the sum of what is known, ``None`` if nothing is."""
    known = values.drop_nulls()
    return float(known.sum()) if len(known) or not len(values) else None


def hours(seen: pl.DataFrame, resource: Resource) -> Measure:
    """Resource-hours held inside the window: Σ (part of the run inside it × size) / 3600.

    ``known`` of ``total`` counts the attempts that held anything in it.
    """
    held = seen[resource].filter(_held(seen))
    total = _total(held)
    known = len(held) - held.null_count()
    note = None
    if known < len(held):
        note = f"size or times unknown for {len(held) - known} of {len(held)} attempts, which are not in the sum"
    asked = int((_held(seen) & seen["gpus_asked"].fill_null(False)).sum()) if resource == "gpu_s" else 0
    if asked:
        said = f"of {asked:,} attempts the GPUs that their submit line asked for, as accounting lists none"
        note = f"{note}; {said}" if note else said
    return Measure(None if total is None else total / 3600, known, len(held), note)


def utilisation(held: Measure, size: int | None, window_s: int, resource: Resource) -> Measure:
    """Share of the resource that was allocated: resource-hours / (capacity × window); unknown without a capacity."""
    name = _OF[resource]
    if size is None:
        return Measure(None, held.known, held.total, f"how many {name} the cluster has is not known")
    if size == 0:
        return Measure(None, held.known, held.total, f"the cluster has no {name}")
    if held.value is None or window_s <= 0:
        return Measure(None, held.known, held.total, held.note or "the window is empty")
    share = held.value * 3600 / (size * window_s)
    note = held.note
    if share > 1 + 1e-9:
        note = f"more {name} were allocated than there are now: the cluster was larger, or lends them twice"
    return Measure(share, held.known, held.total, note)


def idle_hours(seen: pl.DataFrame, resource: Literal["core_s", "gpu_s", "gib_s"]) -> Measure:
    """Hours held inside the window and not used: Σ held × (1 − efficiency), over attempts that ended in it.

    ``known`` of ``total`` are hours: those whose efficiency is known, of all that were held.
    """
    efficiency = _EFFICIENCY[resource]
    told = pl.col("ended_in") & pl.col(efficiency).is_not_null() & pl.col(resource).is_not_null()
    judged = picked(seen, told, resource, efficiency)
    total = float(seen[resource].sum()) / 3600
    if judged.is_empty():
        note = None if total == 0 else "no attempt that ended has both its size and its use on record"
        return Measure(0.0 if total == 0 else None, 0, total, note)
    idle = judged.select(_idle(resource, efficiency).sum()).item()
    return Measure(float(idle) / 3600, float(judged[resource].sum()) / 3600, total)


def _idle(resource: str, efficiency: str) -> pl.Expr:
    return pl.col(resource) * (1 - pl.col(efficiency).clip(upper_bound=1.0))


def lost(seen: pl.DataFrame) -> tuple[Lost, ...]:
    """Return what went to attempts that ran, ended in the window and did not complete, the largest loss first."""
    rows = (
        picked(seen, _is_lost(), "state", "core_s", "gpu_s", "node_s")
        .group_by("state")
        .agg(
            pl.len().alias("jobs"),
            *(_known_hours(name).alias(name) for name in _OF),
        )
        .sort(["core_s", "state"], descending=[True, False], nulls_last=True)
    )
    return tuple(
        Lost(row["state"], row["jobs"], row["core_s"], row["gpu_s"], row["node_s"])
        for row in rows.iter_rows(named=True)
    )


def _is_lost() -> pl.Expr:
    ran = pl.col("ran_s").is_null() | (pl.col("ran_s") > 0)
    return pl.col("ended_in") & ran & (pl.col("state") != "COMPLETED")


def _known_hours(name: str) -> pl.Expr:
    """Return the sum in hours of the rows that are known, ``null`` if there are rows and none is."""
    values = pl.col(name)
    return pl.when((values.count() > 0) | (values.len() == 0)).then(values.sum() / 3600).otherwise(None)


def _known(total: str, *, or_none: pl.Expr | None = None) -> pl.Expr:
    """Return a sum in hours, ``null`` where no part of it is known (unless there was none to know)."""
    some = pl.col(f"n_{total}") > 0
    return pl.when(some if or_none is None else some | or_none).then(pl.col(total) / 3600)


def _prepared(seen: pl.LazyFrame, keys: Sequence[str], priced: bool) -> pl.LazyFrame:
    """Return what :func:`usages` adds up, each figure only where it counts: group by group that takes far longer."""
    held = pl.col("ran_s").is_null() | (pl.col("ran_s") > 0)  # what held nothing does not make the others' sum known
    columns = [*map(pl.col, keys), (pl.col("gpus") > 0).alias("with_gpus"), held.alias("held")]
    columns += [pl.when(held).then(name).alias(name) for name in _OF]
    for name, efficiency in _EFFICIENCY.items():
        judged = pl.col("ended_in") & pl.col(efficiency).is_not_null() & pl.col(name).is_not_null()
        columns.append(pl.when(judged).then(_idle(name, efficiency)).alias(f"idle_{name}"))
    for efficiency, size in _SIZE.items():
        weight = pl.col("elapsed_s").cast(pl.Float64) * pl.col(size)
        known = pl.col("ended_in") & pl.col(efficiency).is_not_null()
        columns.append(pl.when("ended_in").then(weight).alias(f"total_{size}"))
        columns.append(pl.when(known).then(weight).alias(f"weight_{size}"))
        columns.append(pl.when(known).then(pl.col(efficiency) * weight).alias(f"used_{size}"))
    columns += [_is_lost().alias("lost"), pl.when(_is_lost()).then("core_s").alias("lost_core_s")]
    columns += [pl.col("cost")] if priced else [pl.lit(None, dtype=pl.Float64).alias("cost")]
    return seen.select(columns)


_SUMS: Final = (*_OF, *(f"idle_{name}" for name in _EFFICIENCY), "lost_core_s", "cost")
_WEIGHTS: Final = tuple(f"{part}_{size}" for part in ("total", "weight", "used") for size in _SIZE.values())


def usages(seen: pl.DataFrame, *keys: str) -> dict[str, tuple[Usage, ...]]:
    """Return for each of these columns (user, account, partition …) a row for each of its values, as :func:`usage`.

    Attempts are added up once, by all the columns together, and those sums once more by each.
    """
    flags = [pl.col("held").any(), pl.col("lost").any()]
    fine = (
        _prepared(seen.lazy(), keys, "cost" in seen.columns)
        .group_by(*keys, "with_gpus")
        .agg(
            pl.len().alias("jobs"), *flags, pl.col(_SUMS).sum(), pl.col(_WEIGHTS).sum(),
            pl.col(_SUMS).count().name.prefix("n_"),
        )
        .collect()
    )  # fmt: skip
    counted = pl.col("jobs", *_SUMS, *_WEIGHTS, *(f"n_{name}" for name in _SUMS)).sum()
    found = {}
    for by in keys:
        of = pl.col("gpus") > 0 if by == "gpu_type" else pl.lit(True)
        waits = picked(seen, of, by, "started_in", "wait_s").group_by(by).agg(
            pl.col("wait_s").filter("started_in").median().alias("median_wait_s")
        )  # fmt: skip
        rows = fine.filter("with_gpus") if by == "gpu_type" else fine
        found[by] = _rows(rows.group_by(by).agg(counted, *flags).join(waits, on=by, how="left", nulls_equal=True), by)
    return found


def usage(seen: pl.DataFrame, by: str) -> tuple[Usage, ...]:
    """Return one row for each value of the column ``by``, most core-hours first; of kinds of GPU, of jobs with GPUs."""
    return usages(seen, by)[by]


def _rows(sums: pl.DataFrame, by: str) -> tuple[Usage, ...]:
    def mean(size: str) -> pl.Expr:  # of attempts that ended in the window, weighed by elapsed × size
        return pl.when(pl.col(f"weight_{size}") > 0).then(pl.col(f"used_{size}") / pl.col(f"weight_{size}"))

    def coverage(size: str) -> pl.Expr:  # how much of what was held by attempts that ended has its use on record
        share = (pl.col(f"weight_{size}") / pl.col(f"total_{size}")).clip(upper_bound=1.0)
        return pl.when(pl.col(f"total_{size}") > 0).then(share)

    rows = sums.select(
        pl.col(by).alias("name"), "jobs",
        *(_known(name, or_none=~pl.col("held")).alias(f"{name.removesuffix('_s')}_hours") for name in _OF),
        *(_known(f"idle_{name}").alias(f"idle_{name.removesuffix('_s')}_hours") for name in _EFFICIENCY),
        _known("lost_core_s", or_none=~pl.col("lost")).alias("lost_core_hours"),
        *(mean(size).alias(efficiency) for efficiency, size in _SIZE.items()),
        *(coverage(size).alias(name.replace("efficiency", "coverage")) for name, size in _SIZE.items()),
        "median_wait_s",
        pl.when(pl.col("n_cost") > 0).then("cost"),
    ).sort(["core_hours", "jobs", "name"], descending=[True, True, False], nulls_last=True)  # fmt: skip
    return tuple(Usage(**row) for row in rows.iter_rows(named=True))


def per_node_list(seen: pl.DataFrame, of_node: Mapping[str, float], lists: NodeLists | None = None) -> pl.Series:
    """Return for each attempt the sum of ``of_node`` over its nodes, ``null`` where one is unknown or not in it."""
    known = lists or NodeLists()

    def total(node_list: str | None) -> float | None:
        values = [of_node.get(name) for name in known.names(node_list) or ()]
        return sum(one or 0.0 for one in values) if values and None not in values else None

    distinct: list[Any] = seen["node_list"].unique().to_list()
    table = pl.DataFrame(
        {"node_list": distinct, "_sum": [total(text) for text in distinct]},
        schema={"node_list": pl.String, "_sum": pl.Float64},
    )
    return seen.select("node_list").join(table, on="node_list", how="left", nulls_equal=True, maintain_order="left")[
        "_sum"
    ]


def priced(
    seen: pl.DataFrame, price_per_node_hour: Mapping[str, float], lists: NodeLists | None = None
) -> pl.DataFrame:  # fmt: skip
    """Add ``cost``: what the attempt's nodes cost while it held them; ``null`` where a node has no price.

    ``price_per_node_hour`` maps host names to the price of one hour of the whole node.
    """
    held = pl.col("ran_s") / 3600 * per_node_list(seen, price_per_node_hour, lists)
    return seen.with_columns(pl.when(pl.col("ran_s") == 0).then(0.0).otherwise(held).alias("cost"))


def grouped(
    seen: pl.DataFrame, group_of_node: Mapping[str, str] | None, lists: NodeLists | None = None
) -> pl.DataFrame:  # fmt: skip
    """Add ``node_group``: the site's group of its nodes (``mixed`` if several), else what their names share."""
    known = lists or NodeLists()

    def group(node_list: str | None) -> str | None:
        groups = {group_of(name, group_of_node) for name in known.names(node_list) or ()}
        return groups.pop() if len(groups) == 1 else "mixed" if groups else None

    distinct: list[Any] = seen["node_list"].unique().to_list()
    table = pl.DataFrame(
        {"node_list": distinct, "node_group": [group(text) for text in distinct]},
        schema={"node_list": pl.String, "node_group": pl.String},
    )
    return seen.join(table, on="node_list", how="left", nulls_equal=True, maintain_order="left")


def group_of(node: str, group_of_node: Mapping[str, str] | None) -> str:
    """Return a node's group: the site's, else its name without the number."""
    return (group_of_node or {}).get(node) or node.rstrip("0123456789") or node


def cost(seen: pl.DataFrame) -> Measure | None:
    """Return the sum of ``cost`` over the attempts that held anything, ``None`` where no prices were given."""
    if "cost" not in seen.columns:
        return None
    held = seen["cost"].filter(_held(seen))
    known = len(held) - held.null_count()
    note = None if known == len(held) else "attempts whose nodes are unknown, or have no price, are not in the sum"
    return Measure(_total(held), known, len(held), note)
