"""The backfill scheduler's pass where jobs share nodes (select/cons_tres of Slurm 22.05).

A node is free for a job if it has the CPUs, GPUs and memory that the job takes of it. What is promised is still whole
nodes: as long as a promise lasts, no later job is planned onto its nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.exact_backfill import ExactBackfillPass
from hpcplan.simulate.job_ends import groups_of_ends

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.profile import Slot
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["SharedBackfillPass"]

_SHORT: Final = 50  # jobs; longer queues are not followed to their ends for the sake of weights alone


class SharedBackfillPass(ExactBackfillPass):
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
        self._room: dict[object, int] = {}

    def run(self, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
        """Look at the jobs in order, calling ``start`` for those that start now; whether any did."""
        if len(queue) <= _SHORT:  # what jobs with GPUs are looked at for weighs with others: see Resources.weigh
            self.to_the_end |= len({bool(job.request.gres_a_node) for job in queue}) > 1
        return super().run(queue, start)

    def _left_out(self, queue: Sequence[Job]) -> None:
        for job in queue:
            if job.request.gres_a_node:  # they are looked at too, which is seen from the weights of nodes alone
                self._resources.weigh(job.request, self._room_for(job), ever=True)

    def _to_start(self, job: Job, slot: Slot) -> int:
        nodes = self._room_for(job) & ~self.completing
        self._resources.level(job.request, nodes)
        return self._fitting(job.request, nodes) or slot.nodes

    def still_fits(self, job: Job, slot: Slot) -> bool:
        """Whether a job can be started on the nodes of a slot as things are now."""
        nodes = slot.nodes & ~self.completing
        return self._resources.choose(job.request, self.placement, nodes) == slot.nodes

    def _started(self, job: Job, slot: Slot) -> None:
        self._room.clear()
        super()._started(job, slot)

    def _free_for(self, request: Request) -> int:
        key = (  # room's
            request.node_cpus, request.node_gpus, request.node_memory_bytes, request.node_gres,
            request.memory_per_cpu_bytes, request.jobs_per_resource,
        )  # fmt: skip
        found = self._room.get(key)
        if found is None:
            found = self._room[key] = self._resources.room(request, request.jobs_per_resource)
        return found

    def _idle_nodes(self) -> int:
        return self.available & self._resources.idle()

    def _fitting(self, request: Request, nodes: int) -> int:
        return self._resources.choose(request, self.placement, nodes)

    def _once_jobs_end(self, request: Request, nodes: int) -> tuple[int, int] | None:
        state = self._resources.copy()
        for last, group in groups_of_ends(self._ends, nodes, self.settings):
            state.give_back(*(self._holdings[self._ends[number][1]] for number in group))
            chosen = state.choose(request, self.placement, nodes)
            if chosen:
                return self._expected_end(last), chosen
        return None
