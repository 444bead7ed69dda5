"""What a campaign's jobs sampled of themselves, for ``hpcplan status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcplan.campaign.samples import JobSamples

__all__ = ["usage_json", "usage_line"]


def usage_json(directory: Path) -> list[dict[str, Any]]:
    """Return the samples of each job by its id, as plain data; shares from 0 to 1, null where not measured."""
    from dataclasses import asdict

    from hpcplan.campaign.samples import read_samples

    return [asdict(one) for _, one in sorted(read_samples(directory).items())]


def usage_line(directory: Path) -> str | None:
    """Return in one line what the job used that was sampled last, ``None`` if none was."""
    from hpcplan.campaign.samples import read_samples

    found = read_samples(directory)
    return _told(max(found.values(), key=lambda one: (one.last, one.job_id))) if found else None


def _told(one: JobSamples) -> str | None:
    from hpcplan.units import format_bytes

    parts = []
    if one.gpu_used is not None:
        idle = f", {one.idle_gpus} of {one.gpus} idle" if one.idle_gpus else ""
        parts.append(f"GPUs {one.gpu_used:.0%} busy{idle}")
    if one.gpu_memory_bytes is not None:
        parts.append(f"up to {format_bytes(one.gpu_memory_bytes)} of a GPU's memory")
    if one.gpu_power_w is not None:
        parts.append(f"{one.gpu_power_w / 1000:.1f} kW of GPUs")
    if one.cpu_used is not None:
        parts.append(f"CPUs {one.cpu_used:.0%}")
    if one.memory_bytes is not None:
        parts.append(f"up to {format_bytes(one.memory_bytes)} of a node's memory")
    return f"job {one.job_id} uses: {', '.join(parts)}" if parts else None
