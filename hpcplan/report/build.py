"""Puts a report together: job table and window in, every metric and the advice out.

What takes long on millions of jobs is worked out beside the rest: polars lets other threads go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, tzinfo
from typing import Final

import polars as pl

from hpcplan.errors import InputError
from hpcplan.report import metrics_efficiency as efficiency
from hpcplan.report import metrics_reasons as reasons
from hpcplan.report import metrics_use as use
from hpcplan.report import metrics_wait as waiting
from hpcplan.report.advice import advise
from hpcplan.report.faults import Faults
from hpcplan.report.metrics_campaigns import predicted
from hpcplan.report.metrics_energy import energy, energy_cost
from hpcplan.report.metrics_nodes import fragmentation, nodes_used
from hpcplan.report.metrics_parts import parts
from hpcplan.report.metrics_queue import beside_measured
from hpcplan.report.metrics_tracking import drifted, ranked, until
from hpcplan.report.model import Report
from hpcplan.report.node_lists import NodeLists
from hpcplan.report.occupancy import node_utilisation, occupancy
from hpcplan.report.rows import JobCounts, Problems
from hpcplan.report.sampled import filled
from hpcplan.report.series import over_time
from hpcplan.report.shares import beside_use
from hpcplan.report.site_facts import SiteFacts
from hpcplan.report.table import from_records, merge
from hpcplan.report.trends import compared, over_days
from hpcplan.report.window import see
from hpcplan.slurm.records import JobRecord, NodeRecord

__all__ = ["TREND_DAYS", "assemble"]

TREND_DAYS: Final = 84


def assemble(
    records: Iterable[JobRecord] | pl.DataFrame,
    *,
    start: int,
    end: int,
    nodes: Sequence[NodeRecord] | None,
    price_per_node_hour: Mapping[str, float] | None,
    currency: str | None,
    cluster: str | None,
    source: str,
    faults: Faults | None,
    zone: tzinfo | None,
    known: SiteFacts,
    history: pl.DataFrame | None,
) -> Report:
    """Return the report; see :func:`hpcplan.report.build_report` for what the parameters mean."""
    if end <= start:
        raise InputError(f"the report's window is empty: it ends at {end}, not after its start {start}")
    table = records if isinstance(records, pl.DataFrame) else merge([from_records(records)])
    lists = NodeLists()
    seen = use.grouped(see(filled(table, known.samples), start, end), known.group_of_node, lists)
    if price_per_node_hour:
        seen = use.priced(seen, price_per_node_hour, lists)
    past = table if history is None else history
    window_s, size = end - start, use.capacity(nodes)
    core, gpu, node = use.hours(seen, "core_s"), use.hours(seen, "gpu_s"), use.hours(seen, "node_s")
    tracked = until(known.tracked, end)
    with ThreadPoolExecutor(2) as beside:
        shared = beside.submit(use.usages, seen, "account", "user", "partition", "gpu_type", "node_group")
        names = beside.submit(use.usage, seen, "name")
        trend, before = beside.submit(over_days, past, end, TREND_DAYS), beside.submit(compared, past, start, end)
        wait, busy = waiting.wait(seen), occupancy(seen, start, lists)
        nodes_seen = nodes_used(seen, busy, nodes, window_s)
        advised = beside.submit(advise, seen, nodes_shared=busy.shared, nodes=nodes_seen)
        divided = beside.submit(parts, seen, busy, nodes, known.group_of_node, start, end)
        of, energy_kwh = shared.result(), energy(seen, known.power_w_per_node, lists)
        return Report(
            cluster=cluster or _only(table["cluster"]),
            source=source,
            start=start,
            end=end,
            timezone=_zone_name(zone, end),
            jobs=_counts(seen),
            wait=wait,
            eligible_wait=waiting.eligible_wait(seen),
            pending_age=waiting.pending_age(seen, end),
            slowdown=waiting.slowdown(seen),
            wait_histogram=waiting.wait_histogram(seen),
            capacity=size,
            core_hours=core,
            gpu_hours=gpu,
            node_hours=node,
            cpu_utilisation=use.utilisation(core, size.cpus, window_s, "core_s"),
            gpu_utilisation=use.utilisation(gpu, size.gpus, window_s, "gpu_s"),
            node_utilisation=node_utilisation(busy, size.nodes, window_s),
            cpu_efficiency=efficiency.by_resource(seen, "cpu_efficiency", "cpus"),
            memory_efficiency=efficiency.by_resource(seen, "memory_efficiency", "memory_bytes"),
            gpu_efficiency=efficiency.by_resource(seen, "gpu_efficiency", "gpus"),
            time_efficiency=efficiency.time_limit(seen),
            idle_core_hours=use.idle_hours(seen, "core_s"),
            idle_gpu_hours=use.idle_hours(seen, "gpu_s"),
            jobs_ended_per_hour=int(seen["ended_in"].sum()) * 3600 / window_s,
            lost=use.lost(seen),
            by_user=of["user"],
            by_account=of["account"],
            by_partition=of["partition"],
            by_name=names.result(),
            by_gpu_type=of["gpu_type"],
            by_node_group=of["node_group"],
            parts=divided.result(),
            turnaround=reasons.turnaround(seen),
            wait_reasons=reasons.wait_reasons(seen, start, end),
            backfill_share=reasons.backfill_share(seen),
            queue_growth=reasons.queue_growth(seen, start),
            fragmentation=fragmentation(seen, busy, nodes, start, window_s),
            idle_gib_hours=use.idle_hours(seen, "gib_s"),
            energy_kwh=energy_kwh,
            energy_cost=energy_cost(energy_kwh, known.price_per_kwh),
            nodes_used=nodes_seen,
            shares=beside_use(of["account"], known.shares),
            campaigns=predicted(seen, known.predicted_s),
            tracked=tracked,
            trend=trend.result(),
            compared=before.result(),
            counterfactual=None,
            series=over_time(seen, busy.intervals, start, end),
            queueing=beside_measured(seen, size, window_s, wait.mean, nodes_shared=busy.shared),
            advice=ranked(advised.result(), drifted(tracked, seen)),
            cost=use.cost(seen),
            currency=currency if price_per_node_hour or known.price_per_kwh is not None else None,
            problems=_problems(faults or Faults()),
            jobs_table=seen,
        )


def _only(clusters: pl.Series) -> str | None:
    names = clusters.drop_nulls().unique().sort().to_list()
    return ", ".join(names) if names else None


def _zone_name(zone: tzinfo | None, moment: int) -> str:
    local = datetime.fromtimestamp(moment, zone).astimezone(zone)
    return str(zone) if zone is not None else local.tzname() or "local time"


def _counts(seen: pl.DataFrame) -> JobCounts:
    statuses = seen.group_by("status").len().sort(["len", "status"], descending=[True, False])
    never = pl.col("ended_in") & pl.col("start_time").is_null() & (pl.col("elapsed_s").fill_null(0) == 0)
    running = pl.col("unfinished") & ~pl.col("pending") & (pl.col("status") != "UNKNOWN")
    return JobCounts(
        total=len(seen),
        submitted=int(seen["submitted_in"].sum()),
        started=int(seen["started_in"].sum()),
        ended=int(seen["ended_in"].sum()),
        running=int(seen.select(running.sum()).item()),
        pending=int(seen["pending"].sum()),
        never_started=int(seen.select(never.sum()).item()),
        by_status=dict(zip(statuses["status"].to_list(), statuses["len"].to_list(), strict=True)),
    )


def _problems(faults: Faults) -> Problems:
    return Problems(faults.rows_read, dict(sorted(faults.counts.items())), tuple(asdict(one) for one in faults.quoted))
