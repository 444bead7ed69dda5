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
        if self._threads is not None:
            self._threads[0]._turn_us = 1000  # the main loop has a turn whenever there is something to do

    def _know_partitions(self) -> None:
        super()._know_partitions()
        self._tiers = {name: part.priority_tier for name, part in self.machine.partitions.items()}
        self._one_tier = len(set(self._tiers.values())) == 1

    def _give_back(self, job: Job, state: JobState) -> None:
        super()._give_back(job, state)
        self._see_ends(self.now * 1000 + 2000)

    def _note_changes(self, now: int) -> None:
        """Arm what is due after a change, whatever it is.

        Backfill is due soon where a heterogeneous job waits, which nobody else starts.
        """
        changed = self.changes != self._seen_changes
        super()._note_changes(now)
        if changed and now <= self.now:
            self._batch_due = now
        if changed and self._het_job_waits():
            soon = max(now, self._last_backfill + 1)
            self._backfill_due = soon if self._backfill_due is None else min(self._backfill_due, soon)

    def _tell(self, at_ms: int) -> None:
        """Do the same where jobs share nodes."""
        changed = self.changes != self._seen_changes
        self._triggered |= changed
        super()._tell(at_ms)
        if changed and self._threads is not None and self._het_job_waits():
            backfill = self._threads[1]
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
            before = (job.limit_end, job.id, job.nodes)
            super().change(job_id, spec, priority=priority, anew=anew)
            if (job.limit_end, job.id, job.nodes) != before:
                del self._promised[bisect_left(self._promised, before)]
                insort(self._promised, (job.limit_end, job.id, job.nodes))
        else:
            super().change(job_id, spec, priority=priority, anew=anew)
