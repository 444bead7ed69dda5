"""The backfill scheduler's pass where jobs share nodes (select/cons_tres of Slurm 22.05).

As :class:`~.slurm_backfill.BackfillPass`, but a node is free for a job if it has the CPUs, GPUs and memory that the job
takes of it. What is promised is still whole nodes: as long as a promise lasts, no later job is planned onto its nodes.

Each job is tried on the nodes that nobody has been promised from now until it would end. If it could start there only
after other nodes than those can be had, or not at all, it is tried again on what is unpromised from then on.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hpcplan.simulate.job_ends import groups_of_ends
from hpcplan.simulate.node_space import NodeSpace
from hpcplan.simulate.profile import Slot
from hpcplan.simulate.slurm_backfill import BackfillPass

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.resources import Holding, Resources
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["SharedBackfillPass"]

_SHORT: Final = 50  # jobs; longer queues are not followed to their ends for the sake of weights alone


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
        self._space = NodeSpace(now, available, settings)
        self._blocks: list[Slot] = []
        self._room: dict[tuple[int, int, int | None, int], int] = {}

    def run(self, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
        """Look at the jobs in order, calling ``start`` for those that start now; whether any did.

        It ends at the last job that could start now, as the other pass does.
        """
        settings = self.settings
        tested: Counter[str] = Counter()
        counted = bool(settings.bf_max_job_part or settings.bf_max_job_user)
        tries = started = reached = 0
        if len(queue) <= _SHORT:  # what jobs with GPUs are looked at for weighs with others: see Resources.weigh
            self.to_the_end |= len({bool(job.request.node_gpus) for job in queue}) > 1
        last = self._last_that_can_start(queue, len(queue) - 1)
        for position, job in enumerate(queue):
            if position > last or tries >= settings.bf_max_job_test:
                break
            reached = position + 1
            if counted and not self._may_test(job, tested):
                continue
            if self.may_start is not None and not self.may_start(job):
                continue
            tried, slot = self._plan(job, now_only=not self._may_reserve(job))
            tries += tried
            if slot is None:
                continue
            if slot.start > self.now:
                self._promise(job, slot)
            else:
                slot = Slot(slot.start, slot.end, self._to_start(job.request, slot))
                start(job, slot.nodes)
                self._started(job, slot)
                started += 1
                if started == settings.bf_max_job_start:
                    break
            last = self._last_that_can_start(queue, last)
        for job in queue[reached:] if tries < settings.bf_max_job_test else ():
            if job.request.node_gpus:  # they are looked at too, which is seen from the weights of nodes alone
                self._resources.weigh(job.request, self._room_for(job.request), ever=True)
        return bool(started)

    def _to_start(self, request: Request, slot: Slot) -> int:
        """Return the nodes that a job is started on: chosen anew, by the nodes' own weights."""
        nodes = self._open_nodes(self.available & request.eligible, self.now, slot.end)[0]
        self._resources.level(request, nodes)
        return self._resources.choose(request, self.placement, nodes) or slot.nodes

    def plan(self, job: Job, not_before: int) -> Slot | None:
        """Promise a job the first nodes that it can have then or later, and return when and where that is."""
        if self.may_start is not None and not self.may_start(job):
            return None
        slot = self._plan(job, now_only=False, not_before=not_before)[1]
        if slot is not None:
            self._promise(job, slot)
        return slot

    def still_fits(self, job: Job, slot: Slot) -> bool:
        """Whether a job can be started on the nodes of a slot as things are now."""
        return self._resources.choose(job.request, self.placement, slot.nodes) == slot.nodes

    def block(self, start: int, end: int, nodes: int) -> None:
        """Promise nodes to nobody for a time."""
        if end > self.now:
            self._blocks.append(Slot(start, end, nodes))

    def _started(self, job: Job, slot: Slot) -> None:
        insort(self._ends, (slot.end, job.id, slot.nodes))
        self._room.clear()
        if job.request.whole:
            self._space.take(Slot(self.now, self._space.rounded(slot.end), slot.nodes))

    def _free_for(self, request: Request) -> int:
        key = (request.node_cpus, request.node_gpus, request.node_memory_bytes, request.jobs_per_resource)  # room's
        found = self._room.get(key)
        if found is None:
            found = self._room[key] = self._resources.room(request, request.jobs_per_resource)
        return found

    def _last_that_can_start(self, queue: Sequence[Job], last: int) -> int:
        """Return the last job, from ``last`` downwards, that enough nodes are free and unpromised for."""
        while last >= 0 and not self.to_the_end:
            request = queue[last].request
            if (self._room_for(request) & self._free_for(request)).bit_count() >= request.minimum:
                break
            last -= 1
        return last

    def _room_for(self, request: Request) -> int:
        """Return the nodes that nobody has been promised for as long as the job might run from now on."""
        return self._open_nodes(self.available & request.eligible, self.now, self.now + request.limit_s)[0]

    def _may_reserve(self, job: Job) -> bool:
        settings = self.settings
        most = settings.bf_job_part_count_reserve
        if most and self._in_partition[job.request.partition] >= most:
            return False
        if settings.bf_min_prio_reserve and job.priority < settings.bf_min_prio_reserve:
            return False
        return self.now - (job.eligible_time or self.now) >= settings.bf_min_age_reserve_s

    def _open_nodes(self, pool: int, start: int, end: int) -> tuple[int, int | None]:
        """Return the nodes of ``pool`` that can be planned onto from ``start`` until ``end``, and when to ask again."""
        free_at = None
        for block in self._blocks:
            if block.start < end and start < block.end:
                pool &= ~block.nodes
                free_at = block.end + 1 if free_at is None else min(free_at, block.end + 1)
        nodes, later = self._space.during(pool, start, end)
        if free_at is not None and free_at < self._space.end and (later is None or free_at < later):
            later = free_at
        return nodes, later

    def _plan(self, job: Job, *, now_only: bool, not_before: int = 0) -> tuple[bool, Slot | None]:
        """Return whether it came to looking at nodes, and when and where the job can start; ``None`` if it is not
        planned for.
        """
        request, now, space = job.request, self.now, self._space
        tried = False
        asked: int | None = max(now, not_before)
        while asked is not None:
            earliest, asked = asked, None
            nodes, later = self._open_nodes(self.available & request.eligible, earliest, earliest + request.limit_s)
            if nodes.bit_count() >= request.minimum and not request.required & ~nodes:
                tried = True
                found = self._will_run(request, nodes, 0)
                if found is not None:
                    start, chosen = max(found[0], earliest), found[1]
                    slot = Slot(start, start + request.limit_s, chosen)
                    if start <= now:
                        return tried, slot
                    if now_only:
                        return tried, None
                    if later is not None and start > later:
                        asked = later
                        continue
                    if start > now + self.settings.bf_window_s:
                        return tried, None
                    if not space.overlaps(Slot(space.rounded(start), space.rounded(slot.end), chosen)):
                        return tried, slot
                    asked = start
                    continue
            if not now_only:
                asked = later
        return tried, None

    def _promise(self, job: Job, slot: Slot) -> None:
        self._in_partition[job.request.partition] += 1
        self.promises[job.id] = slot
        self._space.take(Slot(self._space.rounded(slot.start), self._space.rounded(slot.end), slot.nodes))

    def _will_run(self, request: Request, nodes: int, first_level: int) -> tuple[int, int] | None:
        resources = self._resources
        if (self._free_for(request) & nodes).bit_count() >= request.minimum:
            chosen = resources.choose(request, self.placement, nodes)
            if chosen:
                return self.now, chosen
        state = resources.copy()
        for last, group in groups_of_ends(self._ends, nodes, self.settings):
            for number in group:
                state.give_back(self._holdings[self._ends[number][1]])
            chosen = state.choose(request, self.placement, nodes)
            if chosen:
                return self._expected_end(last), chosen
        return None

    def _expected_end(self, end: int) -> int:
        """Return when a job with this time limit is taken to end, which may have passed."""
        if end > self.now:
            return end
        if not self.settings.consumable:
            return self.now + 1
        return max(self.now + 1, end + self.settings.kill_wait_s + self.settings.over_time_limit_s)
