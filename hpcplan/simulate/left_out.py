"""What a slurm.conf asks for that the simulation does not do: said, so that nobody takes its absence for a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.slurm_cluster import SlurmCluster

__all__ = ["left_out"]


def left_out(cluster: SlurmCluster) -> Iterator[str]:
    """Yield a sentence for each setting that schedules on a real Slurm and is passed over here."""
    settings, parts = cluster.settings, cluster.machine.partitions.values()
    if settings.preempt_type in {"partition_prio", "qos"}:
        modes = {part.name: part.preempt_mode or settings.preempt_mode for part in parts}
        if settings.preempt_type == "qos":
            modes |= {one.name: one.preempt_mode or settings.preempt_mode for one in cluster.policy.qos.values()}
        suspended = sorted(name for name, mode in modes.items() if "suspend" in mode)
        if suspended:
            yield f"PreemptMode=SUSPEND of {', '.join(suspended)} is not simulated: its jobs are never preempted"
    if settings.gang:
        yield "PreemptMode=GANG is not simulated: jobs that share CPUs run side by side, without time slices"
