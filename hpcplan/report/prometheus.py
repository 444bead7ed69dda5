"""The report's figures in Prometheus' text format, for the node exporter's textfile collector or a push gateway.

Format: Prometheus exposition formats, text format 0.0.4. What is not known is left out, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hpcplan.report.model import Report

__all__ = ["prometheus_text"]

_MEASURES: Final = {
    "core_hours": "Core-hours held", "gpu_hours": "GPU-hours held", "node_hours": "Node-hours held",
    "cpu_utilisation": "Share of CPUs allocated", "gpu_utilisation": "Share of GPUs allocated",
    "node_utilisation": "Share of nodes in use", "cpu_efficiency": "CPU time used over held",
    "memory_efficiency": "Peak memory over allocated", "gpu_efficiency": "Mean utilisation of GPUs held",
    "time_efficiency": "Elapsed over time limit", "idle_core_hours": "Core-hours held and not used",
    "idle_gpu_hours": "GPU-hours held and not used", "idle_gib_hours": "GiB-hours held and not used",
    "backfill_share": "Share of jobs that backfill started", "fragmentation": "Share of idle CPUs in fragments",
    "energy_kwh": "Energy", "cost": "Cost of the node-hours",
}  # fmt: skip
_WAITS: Final = {"wait": "Seconds from submission to start", "eligible_wait": "Seconds from eligible to start",
                 "slowdown": "Bounded slowdown", "turnaround": "Seconds from submission to end"}  # fmt: skip
_JOBS: Final = ("total", "submitted", "started", "ended", "running", "pending", "never_started")


def prometheus_text(report: Report) -> str:
    """Return the figures as gauges; ``hpcplan_report_end_timestamp_seconds`` says how old they are."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    base = {"cluster": report.cluster or ""}
    yield from _gauge("end_timestamp_seconds", "End of the window", [(base, report.end)])
    yield from _gauge("window_seconds", "Length of the window", [(base, report.end - report.start)])
    counts = [({**base, "event": name}, getattr(report.jobs, name)) for name in _JOBS]
    yield from _gauge("jobs", "Attempts of jobs", counts)
    states = [({**base, "state": state}, count) for state, count in report.jobs.by_status.items()]
    yield from _gauge("jobs_by_state", "Attempts by state at the window's end", states)
    for name, text in _MEASURES.items():
        found = getattr(report, name)
        if found is not None:
            yield from _gauge(name, text, [(base, found.value)])
            yield from _gauge(f"{name}_coverage", f"{text}: share that was measured", [(base, found.coverage)])
    for name, text in _WAITS.items():
        found = getattr(report, name)
        yield from _gauge(
            name, text, [({**base, "stat": stat}, getattr(found, stat)) for stat in ("mean", "median", "p95", "max")]
        )
    for name in ("core_hours", "gpu_hours", "idle_core_hours", "lost_core_hours", "median_wait_s"):
        rows = [({**base, "partition": row.name or ""}, getattr(row, name)) for row in report.by_partition]
        yield from _gauge(f"partition_{name}", f"{name.replace('_', ' ')} by partition", rows)
    rejected = sum(report.problems.counts.values())
    yield from _gauge("rows_rejected", "Rows and cells of accounting that could not be read", [(base, rejected)])


def _gauge(name: str, text: str, samples: list[tuple[dict[str, str], Any]]) -> Iterator[str]:
    known = [(labels, value) for labels, value in samples if value is not None]
    if not known:
        return
    full = f"hpcplan_report_{name}"
    yield f"# HELP {full} {text}."
    yield f"# TYPE {full} gauge"
    for labels, value in known:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{full}{{{inside}}} {float(value):.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
