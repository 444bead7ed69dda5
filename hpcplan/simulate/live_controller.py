"""The engine of a mock cluster that is scheduled as by slurmctld, in which some jobs may really run."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpcplan.simulate.controller import Controller
from hpcplan.simulate.live import LiveEngine

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, JobSpec
    from hpcplan.simulate.slurm_cluster import SlurmCluster
    from hpcplan.slurm.records import JobState

__all__ = ["LiveController", "at_once"]


def at_once(cluster: SlurmCluster) -> SlurmCluster:
    """Return the cluster with a controller that looks at its queue as soon as something has changed.

    A real one lets up to three seconds pass; whoever tries things out on a laptop would wait for nothing. Nor does it
    take time to clean up nodes: which one is given out next must not hang on the laptop's pace.
    """
    return replace(cluster, settings=replace(cluster.settings, batch_sched_delay_s=0))


class LiveController(LiveEngine, Controller):
    """A :class:`~.controller.Controller` that is told when the jobs end that really run."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._main.has_turns_at_once()

    def _know_partitions(self) -> None:
        super()._know_partitions()
        self._tiers = {name: part.priority_tier for name, part in self.machine.partitions.items()}
        self._one_tier = len(set(self._tiers.values())) == 1

    def _time_has_come(self) -> None:
        """Look at once, as after any other change."""

    def _give_back(self, job: Job, state: JobState) -> None:
        super()._give_back(job, state)
        self._see_ends(self.now * 1000 + 2000)
        self._completing.look(self.now * 1000 + 2000)

    def _vacate(self, job: Job, nodes: int) -> None:
        del self._promised[bisect_left(self._promised, (job.limit_end, job.id, job.held_nodes))]
        super()._vacate(job, nodes)
        if self._resources is not None:
            self._holdings[job.id], gone = self._holdings[job.id].split(nodes)
            self._resources.give_back(gone)
            self.busy = self._resources.full()
        insort(self._promised, (job.limit_end, job.id, job.held_nodes))
        self._triggered = True

    def _tell(self, at_ms: int, *, batch: bool) -> None:
        """Have the main scheduler look after any change, and backfill where a heterogeneous job waits for it."""
        super()._tell(at_ms, batch=True)
        if self._het_job_waits():
            backfill = self._backfill
            backfill.due_ms = at_ms if backfill.due_ms is None else min(backfill.due_ms, at_ms)

    def _het_job_waits(self) -> bool:
        return self._het_jobs and any(job.het_id is not None for job in self.queue)

    def change(self, job_id: int, spec: JobSpec, *, priority: int | None = None, anew: Collection[str] = ()) -> None:
        """Let a job ask for something else from now on, as ``scontrol update`` does.

        Raises:
            SlurmError: the controller would refuse it; nothing has changed.
        """
        job = self.jobs[job_id]
        if job.running:
            before = (job.limit_end, job.id, job.held_nodes)
            super().change(job_id, spec, priority=priority, anew=anew)
            if (job.limit_end, job.id, job.held_nodes) != before:
                del self._promised[bisect_left(self._promised, before)]
                insort(self._promised, (job.limit_end, job.id, job.held_nodes))
        else:
            super().change(job_id, spec, priority=priority, anew=anew)
