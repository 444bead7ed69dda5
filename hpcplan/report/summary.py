"""The report's figures as lines of text: name, value, what they were measured on, and a note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcplan.report import formats
from hpcplan.report.figures import Distribution, Efficiency, Measure
from hpcplan.report.model import Report

__all__ = ["Line", "headline", "lines"]


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: ``coverage`` says how much of what should have been measured was, ``basis`` of what."""

    name: str
    value: str
    coverage: str
    basis: str
    note: str = ""


def headline(report: Report) -> list[Line]:
    """Return the handful of figures to read first."""
    picked = {"GPU utilisation": report.capacity.gpus != 0, "GPU efficiency": bool(report.gpu_hours.value)}
    wanted = [
        "Jobs that ended", "Median wait", "CPU utilisation", "GPU utilisation", "Node utilisation", "CPU efficiency",
        "Memory efficiency", "GPU efficiency",
    ]  # fmt: skip
    by_name = {line.name: line for line in lines(report)}
    return [by_name[name] for name in wanted if picked.get(name, True)]


def lines(report: Report) -> list[Line]:
    """Return every figure of the report that is one number."""
    jobs = report.jobs
    found = [
        Line("Jobs seen", formats.number(jobs.total), "all", "attempts in the window", _seen(report)),
        Line(
            "Jobs that ended",
            formats.number(jobs.ended),
            "all",
            "attempts that ended in the window",
            f"{jobs.never_started} never started",
        ),
        Line("Throughput", f"{formats.number(report.jobs_ended_per_hour)} jobs/h", "all", "attempts that ended"),
        *_waits("wait", "jobs that started", report.wait),
        *_waits("wait once eligible", "jobs that started", report.eligible_wait),
        _distribution("Mean bounded slowdown", "jobs that ended", report.slowdown, "mean", formats.number),
        _distribution(
            "Median time from submission to end", "jobs that ended", report.turnaround, "median", formats.duration
        ),
        _distribution("Longest pending", "jobs still pending", report.pending_age, "max", formats.duration),
        _measure("Core-hours", report.core_hours, formats.number),
        _measure("GPU-hours", report.gpu_hours, formats.number),
        _measure("Node-hours", report.node_hours, formats.number),
        _measure("CPU utilisation", report.cpu_utilisation, formats.percent),
        _measure("GPU utilisation", report.gpu_utilisation, formats.percent),
        _measure("Node utilisation", report.node_utilisation, formats.percent),
        _efficiency("CPU efficiency", "core-hours", report.cpu_efficiency),
        _efficiency("Memory efficiency", "GiB-hours", report.memory_efficiency),
        _efficiency("GPU efficiency", "GPU-hours", report.gpu_efficiency),
        _efficiency("Time limit used", "jobs", report.time_efficiency),
        _measure("Idle core-hours", report.idle_core_hours, formats.number, "core-hours"),
        _measure("Idle GPU-hours", report.idle_gpu_hours, formats.number, "GPU-hours"),
        _measure("Idle GiB-hours", report.idle_gib_hours, formats.number, "GiB-hours"),
        _measure("Started by backfill", report.backfill_share, formats.percent),
        _measure("Idle CPUs in fragments", report.fragmentation, formats.percent, "moments"),
        Line("Queue growth", _growth(report), "all", "jobs that waited", _asked(report)),
        _measure("Energy, kWh", report.energy_kwh, formats.number, "node-hours"),
    ]
    if report.energy_cost is not None:
        found.append(_measure(f"Energy cost ({report.currency})", report.energy_cost, formats.number, "node-hours"))
    if report.cost is not None:
        found.append(_measure(f"Cost ({report.currency})", report.cost, formats.number))
    return found


def _growth(report: Report) -> str:
    growth = report.queue_growth
    return f"{growth.pending_at_end - growth.pending_at_start:+,} jobs"


def _asked(report: Report) -> str:
    growth = report.queue_growth
    before, after = growth.asked_core_hours_at_start, growth.asked_core_hours_at_end
    counts = f"from {growth.pending_at_start:,} to {growth.pending_at_end:,}"
    if before is None or after is None:
        return counts
    return f"{counts}; asked for {formats.number(before)} and {formats.number(after)} core-hours"


def _seen(report: Report) -> str:
    return f"{report.jobs.running:,} running and {report.jobs.pending:,} pending at the end"


def _waits(name: str, basis: str, found: Distribution) -> list[Line]:
    return [
        _distribution(f"{label} {name}", basis, found, key, formats.duration)
        for label, key in (("Mean", "mean"), ("Median", "median"), ("95th percentile of", "p95"))
    ]


def _distribution(
    name: str, basis: str, found: Distribution, key: str, form: Callable[[float | None], str]
) -> Line:  # fmt: skip
    value: float | None = getattr(found, key)
    return Line(name, form(value), formats.coverage(found.coverage), f"{found.total:,} {basis}")


def _measure(name: str, found: Measure, form: Callable[[float | None], str], basis: str = "attempts") -> Line:
    total = f"{formats.number(round(found.total) if basis == 'attempts' else found.total)} {basis}"
    return Line(name, form(found.value), formats.coverage(found.coverage), total, found.note or "")


def _efficiency(name: str, basis: str, found: Efficiency) -> Line:
    total = f"{formats.number(found.total if basis != 'jobs' else round(found.total))} {basis} that ended"
    note = "" if found.median is None else f"median job {formats.percent(found.median)}"
    return Line(name, formats.percent(found.value), formats.coverage(found.coverage), total, note)
