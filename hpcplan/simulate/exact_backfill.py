"""The backfill scheduler's pass step by step as slurmctld goes about it (sched/backfill of Slurm 22.05).

Each job is tried on the nodes that nobody has been promised from now until it would end. If it could start there only
after other nodes than those can be had, or not at all, it is tried again on what is unpromised from then on. Nodes
that are reserved (scontrol(1)) are for the jobs of their reservation while it lasts, and for no other job that would
run into it. A job that could start if others were preempted has them preempted, and is promised their nodes.

:class:`~.slurm_backfill.BackfillPass` comes to the same for whole nodes, faster; this is for what it leaves out.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpcplan.simulate.job_ends import groups_of_ends
from hpcplan.simulate.node_space import NodeSpace
from hpcplan.simulate.profile import Slot
from hpcplan.simulate.slurm_backfill import BackfillPass

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.reservations import Reservation
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["ExactBackfillPass", "WholeNodesPass"]


class ExactBackfillPass(BackfillPass):
    """A pass at ``now``; ``running`` holds (end by time limit, id, nodes) of the jobs that run.

    ``preempt`` stops running jobs for one that waits, on some of the nodes given, and returns those that it is to have,
    0 if it stops none.
    """

    def __init__(
        self,
        settings: SlurmSettings,
        placement: Placement,
        now: int,
        free: int,
        available: int,
        running: list[tuple[int, int, int]],
    ) -> None:
        super().__init__(settings, placement, now, free, available, running)
        self.reservations: tuple[Reservation, ...] = ()
        self.preempt: Callable[[Job, int], int] | None = None
        self._space = NodeSpace(now, available, settings)

    @abstractmethod
    def _fitting(self, request: Request, nodes: int) -> int:
        """Return the nodes of ``nodes`` that the job would be given now, 0 if it does not fit."""

    @abstractmethod
    def _to_start(self, job: Job, slot: Slot) -> int:
        """Return the nodes that a job is started on: chosen anew, by the nodes' own weights."""

    @abstractmethod
    def _once_jobs_end(self, request: Request, nodes: int) -> tuple[int, int] | None:
        """Return when the job would fit on ``nodes``, and on which then, if running jobs used up their limits."""

    def run(self, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
        """Look at the jobs in order, calling ``start`` for those that start now; whether any did.

        It ends at the last job that could start now, as the other pass does.
        """
        settings = self.settings
        tested: Counter[str] = Counter()
        counted = bool(settings.bf_max_job_part or settings.bf_max_job_user)
        tries = started = reached = 0
        self.to_the_end |= self.preempt is not None
        last = self._last_that_can_start(queue, len(queue) - 1)
        for position, job in enumerate(queue):
            if (position > last and self.comes_again()) or tries >= settings.bf_max_job_test:
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
                if self._space.made >= settings.spans_at_most:
                    return bool(started)
                self._promise(job, slot)
            else:
                slot = Slot(slot.start, slot.end, self._to_start(job, slot))
                start(job, slot.nodes)
                self._started(job, slot)
                started += 1
                if started == settings.bf_max_job_start:
                    break
            last = self._last_that_can_start(queue, last)
        if tries < settings.bf_max_job_test:
            self._left_out(queue[reached:])
        return bool(started)

    def _left_out(self, queue: Sequence[Job]) -> None:
        """Note the jobs behind the last one that could start."""

    def plan(self, job: Job, not_before: int) -> Slot | None:
        """Promise a job the first nodes that it can have then or later, and return when and where that is."""
        if self.may_start is not None and not self.may_start(job):
            return None
        slot = self._plan(job, now_only=False, not_before=not_before)[1]
        if slot is not None:
            self._promise(job, slot)
        return slot

    def _started(self, job: Job, slot: Slot) -> None:
        insort(self._ends, (slot.end, job.id, slot.nodes))
        if job.request.whole and self.settings.consumable:  # as jobs that run with select/linear are not
            self._space.take(Slot(self.now, self._space.rounded(slot.end), slot.nodes))

    def _last_that_can_start(self, queue: Sequence[Job], last: int) -> int:
        """Return the last job, from ``last`` downwards, that enough nodes are free and unpromised for."""
        while last >= 0 and not self.to_the_end:
            request = queue[last].request
            if (self._room_for(queue[last]) & self._free_for(request)).bit_count() >= request.minimum:
                break
            last -= 1
        return last

    def _room_for(self, job: Job) -> int:
        """Return the nodes that nobody has been promised for as long as the job might run from now on."""
        return self._open_nodes(job, self.now)[0]

    def _open_nodes(self, job: Job, start: int) -> tuple[int, int | None]:
        """Return the nodes that a job can be planned onto from ``start`` on, and when to ask again."""
        end = start + job.request.limit_s
        pool = self.available & job.request.eligible
        free_at = None
        for one in self.reservations:
            if one.name == job.spec.reservation:
                if not one.start_s <= start < one.end_s:
                    return 0, None
                pool &= one.nodes
            elif one.start_s < end and start < one.end_s:
                pool &= ~one.nodes
                free_at = one.end_s + 1 if free_at is None else min(free_at, one.end_s + 1)
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
            nodes, later = self._open_nodes(job, earliest)
            if nodes.bit_count() >= request.minimum and not request.required & ~nodes:
                tried = True
                found = self._will_run(request, nodes, 0)
                if earliest <= now and self.preempt is not None and (found is None or found[0] > now):
                    taken = self.preempt(job, nodes)
                    if taken:  # it starts once they are gone; until then nobody else has the nodes
                        return tried, Slot(now + 1, now + request.limit_s, taken)
                if found is not None:
                    start, chosen = max(found[0], earliest), found[1]
                    self.competing |= start > found[0]
                    slot = Slot(start, start + request.limit_s, chosen)
                    if start <= now:
                        if not chosen & self.completing:
                            return tried, slot
                        start, later = now + 1, None
                        slot = Slot(start, start + request.limit_s, chosen)
                    if now_only:
                        return tried, None
                    if later is not None and start > later:
                        asked = later
                        continue
                    if start > now + self.settings.bf_window_s:
                        return tried, None
                    if not space.overlaps(Slot(space.rounded(start), space.rounded(slot.end), chosen)):
                        return tried, slot
                    asked = max(start, earliest + 1)
                    continue
            if not now_only:
                asked = later
        return tried, None

    def _promise(self, job: Job, slot: Slot) -> None:
        self._in_partition[job.request.partition] += 1
        self.promised_nodes |= slot.nodes
        self.promises[job.id] = slot
        self._space.take(Slot(self._space.rounded(slot.start), self._space.rounded(slot.end), slot.nodes))

    def _will_run(self, request: Request, nodes: int, first_level: int) -> tuple[int, int] | None:
        if (self._free_for(request) & nodes).bit_count() >= request.minimum:
            chosen = self._fitting(request, nodes)
            if chosen:
                return self.now, chosen
        return self._once_jobs_end(request, nodes)

    def _expected_end(self, end: int) -> int:
        """Return when a job with this time limit is taken to end, which may have passed."""
        if end > self.now:
            return end
        if not self.settings.consumable:
            return self.now + 1
        return max(self.now + 1, end + self.settings.kill_wait_s + self.settings.over_time_limit_s)


class WholeNodesPass(ExactBackfillPass):
    """Where every job has whole nodes."""

    def still_fits(self, job: Job, slot: Slot) -> bool:
        """Whether a job can be started on the nodes of a slot as things are now."""
        return not slot.nodes & (~self._free | self.completing)

    def _started(self, job: Job, slot: Slot) -> None:
        self._free &= ~slot.nodes
        super()._started(job, slot)

    def _fitting(self, request: Request, nodes: int) -> int:
        return self.placement.plan(request, nodes & self._free)

    def _to_start(self, job: Job, slot: Slot) -> int:
        return self.placement.choose(job.request, self._room_for(job) & self._free & ~self.completing) or slot.nodes

    def _once_jobs_end(self, request: Request, nodes: int) -> tuple[int, int] | None:
        level = nodes & self._free
        scattered = self.placement.fits_scattered
        linear = request.switches and not self.settings.consumable  # see BackfillPass._will_run
        if linear and scattered(request, level):
            return None
        for last, group in groups_of_ends(self._ends, nodes, self.settings):
            for number in group:
                level |= self._ends[number][2] & nodes
            chosen = self.placement.plan(request, level) if level.bit_count() >= request.minimum else 0
            if chosen:
                return self._expected_end(last), chosen
            if linear and scattered(request, level):
                return None
        return None
