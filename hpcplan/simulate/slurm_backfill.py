"""One pass of Slurm's backfill scheduler (``_attempt_backfill`` of sched/backfill 22.05; slurm.conf(5), ``bf_*``).

It goes down the queue. For each job it asks when enough nodes will have come free of running jobs (which are counted on
to use up their limits), on nodes that no job before it has been promised for that time. A job that could start now is
started; any other is promised its nodes, rounded to ``bf_resolution``, if that is within ``bf_window``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcplan.simulate.profile import Slot

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["BackfillPass"]


@dataclass(slots=True)
class _Span:
    """A stretch of time with the nodes that nobody has been promised in it."""

    begin: int
    end: int
    nodes: int


class BackfillPass:
    """A pass at ``now``; ``running`` holds (end by time limit, nodes) of what runs or is being cleaned up."""

    def __init__(
        self,
        settings: SlurmSettings,
        placement: Placement,
        now: int,
        free: int,
        available: int,
        running: Iterable[tuple[int, int]],
    ) -> None:
        self.settings = settings
        self.placement = placement
        self.now = now
        self.available = available
        self.promises: dict[int, Slot] = {}
        self._free = free
        self._ends = sorted((end, nodes & available) for end, nodes in running)
        self._levels: list[int] = []
        self._spans = [_Span(now, now + settings.bf_window_s, available)]
        self._in_partition: Counter[str] = Counter()

    def run(self, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
        """Look at the jobs in order, calling ``start`` for those that start now; whether any did.

        It ends at the last job that the free nodes would hold: promises to those behind it change nothing now.
        """
        settings = self.settings
        tested: Counter[str] = Counter()
        started = 0
        queue = queue[: settings.bf_max_job_test]
        last = self._last_that_fits(queue, len(queue) - 1)
        for position, job in enumerate(queue):
            if position > last:
                break
            partition, user = f"partition {job.request.partition}", f"user {job.user}"
            tested[partition] += 1
            tested[user] += 1
            if settings.bf_max_job_part and tested[partition] > settings.bf_max_job_part:
                continue
            if settings.bf_max_job_user and tested[user] > settings.bf_max_job_user:
                continue
            slot = self._find(job.request)
            if slot is None:
                continue
            if slot.start > self.now:
                self._promise(job, slot)
                continue
            start(job, slot.nodes)
            self._free &= ~slot.nodes
            self._ends.insert(bisect_left(self._ends, (slot.end, slot.nodes)), (slot.end, slot.nodes))
            self._levels.clear()
            last = self._last_that_fits(queue, last)
            started += 1
            if started == settings.bf_max_job_start:
                break
        return bool(started)

    def _last_that_fits(self, queue: Sequence[Job], last: int) -> int:
        while last >= 0 and (queue[last].request.eligible & self._free).bit_count() < queue[last].request.minimum:
            last -= 1
        return last

    def _find(self, request: Request) -> Slot | None:
        """Return when and where the job can start; ``None`` if not within what is planned for."""
        limit_s, earliest = request.limit_s, self.now
        spans, final, first = self._spans, len(self._spans) - 1, 0
        while True:
            while first < final and spans[first].end <= earliest:
                first += 1
            later = spans[first].end if first < final else None
            nodes, position, latest = self.available, first, earliest + limit_s
            while position <= final and spans[position].begin <= latest:
                nodes &= spans[position].nodes
                position += 1
            found = self._will_run(request, nodes)
            if found is None:
                if later is None:
                    return None
                earliest = later
                continue
            start, pool = max(found[0], earliest), found[1]
            if start > self.now:
                if later is not None and start > later:
                    earliest = later
                    continue
                if start > self.now + self.settings.bf_window_s:
                    return None
            slot = Slot(start, start + limit_s, self.placement.choose(request, pool))
            if start <= self.now or not self._overlaps(self._rounded(slot)):
                return slot
            earliest = max(start, earliest + 1)

    def _rounded(self, slot: Slot) -> Slot:
        resolution = self.settings.bf_resolution_s
        return Slot(slot.start // resolution * resolution, slot.end // resolution * resolution, slot.nodes)

    def _overlaps(self, slot: Slot) -> bool:
        spans = self._spans
        position = bisect_right(spans, slot.start, key=lambda span: span.end)
        while position < len(spans) and spans[position].begin < slot.end:
            if slot.nodes & ~spans[position].nodes:
                return True
            position += 1
        return False

    def _will_run(self, request: Request, nodes: int) -> tuple[int, int] | None:
        """Return when the job would fit on ``nodes`` if the running jobs went one after another, and into what then."""
        usable = nodes & request.eligible
        if usable.bit_count() < request.minimum:
            return None
        fits = self.placement.fits
        if fits(request, usable & self._free):
            return self.now, usable & self._free
        if self.settings.consumable:
            return self._will_run_coarsely(request, usable)
        if not self._levels:
            level = self._free
            for _, given_back in self._ends:
                level |= given_back
                self._levels.append(level)
        levels = self._levels
        first = bisect_left(levels, request.minimum, key=lambda level: (level & usable).bit_count())
        for position in range(first, len(levels)):
            if fits(request, usable & levels[position]):
                return max(self._ends[position][0], self.now + 1), usable & levels[position]
        return None

    def _will_run_coarsely(self, request: Request, usable: int) -> tuple[int, int] | None:
        """The same in select/cons_tres: jobs that end within a widening window go at once (bf_window_linear)."""
        level, window_s, opened = usable & self._free, 30, None
        ends = [(end, given_back) for end, given_back in self._ends if given_back & usable]
        for position, (end, given_back) in enumerate(ends):
            opened = end if opened is None else opened
            level |= given_back & usable
            if position + 1 < len(ends) and ends[position + 1][0] <= opened + window_s:
                continue
            if self.placement.fits(request, level):
                return max(end, self.now + 1), level
            linear_s = self.settings.bf_window_linear_s
            window_s, opened = (window_s + linear_s if linear_s else window_s * 2), None
        return None

    def _promise(self, job: Job, slot: Slot) -> None:
        settings = self.settings
        partition = job.request.partition
        if settings.bf_job_part_count_reserve:
            if self._in_partition[partition] >= settings.bf_job_part_count_reserve:
                return
            self._in_partition[partition] += 1
        if settings.bf_min_prio_reserve and job.priority < settings.bf_min_prio_reserve:
            return
        if self.now - (job.eligible_time or self.now) < settings.bf_min_age_reserve_s:
            return
        self.promises[job.id] = slot
        self._take(self._rounded(slot))

    def _take(self, slot: Slot) -> None:
        """Cut the spans at the slot's ends, and take its nodes out of those between."""
        first, last = self._cut(slot.start), self._cut(slot.end)
        for position in range(first, last):
            self._spans[position].nodes &= ~slot.nodes

    def _cut(self, time: int) -> int:
        """Return the first span that begins at ``time`` or later, after cutting the one that ``time`` lies in."""
        spans = self._spans
        position = bisect_left(spans, time, key=lambda span: span.begin)
        if position and time < spans[position - 1].end:
            before = spans[position - 1]
            spans.insert(position, _Span(time, before.end, before.nodes))
            before.end = time
        return position
