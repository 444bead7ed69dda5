"""The backfill scheduler's pass where jobs share nodes (select/cons_tres of Slurm 22.05).

As :class:`~.slurm_backfill.BackfillPass`, but a node is free for a job if it has the CPUs, GPUs and memory that the job
takes of it. What is promised is still whole nodes: as long as a promise lasts, no later job is planned onto its nodes.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpcplan.simulate.slurm_backfill import BackfillPass, groups_of_ends

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.profile import Slot
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["SharedBackfillPass"]


class SharedBackfillPass(BackfillPass):
    """A pass at ``now``; ``running`` holds (end by time limit, id, nodes) of the jobs that ``holdings`` are of."""

    def __init__(
        self,
        settings: SlurmSettings,
        placement: Placement,
        now: int,
        available: int,
        running: list[tuple[int, int, int]],
        resources: Resources,
        holdings: Mapping[int, Holding],
    ) -> None:
        super().__init__(settings, placement, now, available, available, running)
        self._resources = resources
        self._holdings = holdings
        self._room: dict[tuple[int, int, int | None, int], int] = {}

    def _started(self, job: Job, slot: Slot) -> None:
        insort(self._ends, (slot.end, job.id, slot.nodes))
        insort(self._end_times, slot.end)
        self._room.clear()

    def _free_for(self, request: Request) -> int:
        key = (request.node_cpus, request.node_gpus, request.node_memory_bytes, request.jobs_per_resource)  # room's
        found = self._room.get(key)
        if found is None:
            found = self._room[key] = self._resources.room(request, request.jobs_per_resource)
        return found

    def _first_level(self, eligible: int, need: int) -> int:
        return 0

    def _fits_by(self, time: int, usable: int, need: int) -> bool:
        return True

    def _choose(self, request: Request, pool: int) -> int:
        return pool  # chosen already, when it was found that the job fits

    def _will_run(self, request: Request, nodes: int, first_level: int) -> tuple[int, int] | None:
        usable = nodes & request.eligible
        resources = self._resources
        if (self._free_for(request) & usable).bit_count() >= request.minimum:
            chosen = resources.choose(request, self.placement, usable)
            if chosen:
                return self.now, chosen
        return self._once_jobs_end(request, usable)

    def _once_jobs_end(self, request: Request, usable: int) -> tuple[int, int] | None:
        """Return when and where the job fits.

        In select/cons_tres jobs that end within a widening window go at once (bf_window_linear), in select/linear one
        after another.
        """
        state, ends = self._resources.copy(), self._ends
        for last, group in groups_of_ends(ends, usable, self.settings):
            for number in group:
                state.give_back(self._holdings[ends[number][1]])
            chosen = state.choose(request, self.placement, usable)
            if chosen:
                return max(last, self.now + 1), chosen
        return None
