"""Energy of what ran in the window: as Slurm gathered it, else from the power of the nodes that the site file gives."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from hpcplan.report.figures import Measure
from hpcplan.report.metrics_use import per_node_list
from hpcplan.report.node_lists import NodeLists
from hpcplan.report.window import picked

__all__ = ["energy", "energy_cost"]

_J_PER_KWH = 3.6e6


def energy(
    seen: pl.DataFrame, power_w_per_node: Mapping[str, float] | None, lists: NodeLists | None = None
) -> Measure:  # fmt: skip
    """Return kWh; ``known`` of ``total`` are node-hours.

    Measured: ConsumedEnergyRaw × the part of the run that lies in the window. Where that is not on record, and power is
    given: Σ power of the attempt's nodes × its time in the window, which counts a shared node once for each job. Else,
    for hpcplan's own jobs, the sampled power of their GPUs × that time.
    """
    wanted = ["ran_s", "elapsed_s", "energy_j", "node_s", "node_list", *({"sampled_gpu_w"} & set(seen.columns))]
    held = picked(seen, pl.col("ran_s").is_null() | (pl.col("ran_s") > 0), *wanted)
    part = (pl.col("ran_s") / pl.col("elapsed_s")).clip(upper_bound=1.0)
    measured = pl.when((pl.col("elapsed_s") > 0) & pl.col("energy_j").is_not_null()).then(pl.col("energy_j") * part)
    found = held.with_columns(measured.alias("_j"))
    note = None
    if power_w_per_node:
        estimated = per_node_list(found, power_w_per_node, lists) * found["ran_s"]
        told = int(found["_j"].is_not_null().sum())
        found = found.with_columns(pl.coalesce("_j", estimated).alias("_j"))
        if told < len(found):
            note = f"measured for {told:,} attempts; the others by the site file's power of their nodes"
    if "sampled_gpu_w" in found.columns:
        alone = int((found["_j"].is_null() & found["sampled_gpu_w"].is_not_null()).sum())
        found = found.with_columns(pl.coalesce("_j", pl.col("sampled_gpu_w") * pl.col("ran_s")).alias("_j"))
        of_gpus = f"of {alone:,} attempts the GPUs' alone, from the samples of hpcplan's own jobs" if alone else None
        note = "; ".join(one for one in (note, of_gpus) if one) or None
    known = found.filter(pl.col("_j").is_not_null())
    hours, total = float(known["node_s"].sum()) / 3600, float(held["node_s"].sum()) / 3600
    if known.is_empty():
        why = "Slurm gathers no energy here (AcctGatherEnergyType), and no site file gives the nodes' power"
        return Measure(None if len(held) else 0.0, 0, total, why if len(held) else None)
    return Measure(float(known["_j"].sum()) / _J_PER_KWH, hours, total, note)


def energy_cost(found: Measure, price_per_kwh: float | None) -> Measure | None:
    """Return what the energy cost, PUE included, ``None`` where there is no price."""
    if price_per_kwh is None:
        return None
    return Measure(None if found.value is None else found.value * price_per_kwh, found.known, found.total, found.note)
