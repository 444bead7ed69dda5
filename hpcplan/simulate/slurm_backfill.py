"""One pass of Slurm's backfill scheduler (``_attempt_backfill`` of sched/backfill 22.05; slurm.conf(5), ``bf_*``).

This is for whole nodes with select/linear; :mod:`.exact_backfill` has the rest.

It goes down the queue. For each job it asks when enough nodes will have come free of running jobs (which are counted on
to use up their limits), on nodes that no job before it has been promised for that time. A job that could start now is
started; any other is promised its nodes, rounded to ``bf_resolution``, if that is within ``bf_window``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpcplan.simulate.profile import Slot

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request
    from hpcplan.simulate.placement import Placement
    from hpcplan.simulate.slurm_settings import SlurmSettings

__all__ = ["BackfillPass", "waited_s"]


def waited_s(job: Job, now: int) -> int:
    """Return for how long a job has been eligible."""
    return 0 if job.eligible_time is None else now - job.eligible_time


class BackfillPass:
    """A pass at ``now``; ``running`` holds (end by time limit, id, nodes) of what runs or is being cleaned up, sorted.

    The time planned for is cut into spans: the i-th begins at ``_begins[i]`` and ends where the next begins, and nobody
    has been promised ``_unpromised[i]``, which are ``_counts[i]`` nodes, in it. ``_levels[i]`` are the nodes that are
    free once the first i + 1 running jobs have ended; they are worked out as far as they are asked for.
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
        self.settings = settings
        self.placement = placement
        self.now = now
        self.available = available
        self.promises: dict[int, Slot] = {}
        self.may_start: Callable[[Job], bool] | None = None  # who is not skipped, where that is more than numbers
        self.to_the_end = False  # whether jobs that cannot start now are planned for though nobody behind them can
        self.competing = False  # whether a job was promised nodes for when others would have had them
        self.promised_nodes = 0
        self._late = False  # whether what was found last is later than running jobs leave the nodes
        self._tried = False  # whether enough nodes were unpromised for the job at any time that it was tried
        self.completing = 0  # free nodes on which no job may start yet
        self._free = free
        self._ends = running
        self._end_times = [end for end, _, _ in running]
        self._levels: list[int] = []
        self._begins = [now - (now + settings.clock_s) % settings.bf_resolution_s]
        self._made = 1  # spans, also those that are one with others now: slurmctld does not use their places again
        self._unpromised = [available]
        self._counts = [available.bit_count()]
        self._until_end = [available]  # what nobody has been promised from now to the end of each span
        self._last_end = self._down(now + settings.bf_window_s)
        self._in_partition: Counter[str] = Counter()
        self._firsts: dict[tuple[int, int], int] = {}

    def run(self, queue: Sequence[Job], start: Callable[[Job, int], None]) -> bool:
        """Look at the jobs in order, calling ``start`` for those that start now; whether any did.

        It ends at the last job that could start now on nodes that nobody has been promised yet: what those behind it
        would be promised changes nothing now. But it goes on until it is known whether another pass has a reason.
        """
        settings = self.settings
        counted = bool(settings.bf_max_job_part or settings.bf_max_job_user)
        tested: Counter[str] = Counter()
        started = position = 0
        in_sight = min(len(queue), settings.bf_max_job_test)
        last = self._last_that_can_start(queue, len(queue) - 1)
        while position < in_sight and (position <= last or not self.comes_again()):
            job = queue[position]
            position += 1
            self._tried = False
            slot = None
            if not (counted and not self._may_test(job, tested)) and (self.may_start is None or self.may_start(job)):
                slot = self._find(job.request, now_only=not self._may_reserve(job))
            if not self._tried and in_sight < len(queue):  # it does not count towards bf_max_job_test
                in_sight += 1
            if slot is None:
                continue
            if slot.start > self.now:
                if self._made >= settings.spans_at_most:
                    self.competing |= self._late
                    break
                self._promise(job, slot)
                last = self._last_that_can_start(queue, last)
                continue
            start(job, slot.nodes)
            self._started(job, slot)
            last = self._last_that_can_start(queue, last)
            started += 1
            if started == settings.bf_max_job_start:
                break
        return bool(started)

    def comes_again(self) -> bool:
        """Whether what was promised is reason enough for another pass though nothing happens (see :mod:`.threads`)."""
        return self.competing or self.plans_idle()

    def plans_idle(self) -> bool:
        """Whether idle nodes have been promised."""
        return bool(self.promised_nodes & self._idle_nodes())

    def _idle_nodes(self) -> int:
        return self._free

    def plan(self, job: Job, not_before: int) -> Slot | None:
        """Promise a job the first nodes that it can have then or later, and return when and where that is."""
        if self.may_start is not None and not self.may_start(job):
            return None
        slot = self._find(job.request, not_before, now_only=not self._may_reserve(job))
        if slot is not None:
            self._promise(job, slot)
        return slot

    def still_fits(self, job: Job, slot: Slot) -> bool:
        """Whether a job can be started on the nodes of a slot as things are now."""
        return not slot.nodes & (~self._free_for(job.request) | self.completing)

    def _started(self, job: Job, slot: Slot) -> None:
        """Count a job among the running ones."""
        self._free &= ~slot.nodes
        insort(self._ends, (slot.end, job.id, slot.nodes))
        insort(self._end_times, slot.end)
        self._levels.clear()
        self._firsts.clear()

    def _free_for(self, request: Request) -> int:
        """Return the nodes that the request could be given now, promises aside."""
        return self._free

    def _may_test(self, job: Job, tested: Counter[str]) -> bool:
        """Count a job towards ``bf_max_job_part`` and ``bf_max_job_user``; whether it is within them."""
        settings = self.settings
        partition, user = f"partition {job.request.partition}", f"user {job.user}"
        tested[partition] += 1
        tested[user] += 1
        if settings.bf_max_job_part and tested[partition] > settings.bf_max_job_part:
            return False
        return not settings.bf_max_job_user or tested[user] <= settings.bf_max_job_user

    def _last_that_can_start(self, queue: Sequence[Job], last: int) -> int:
        """Return the last job, from ``last`` downwards, that enough nodes are free and unpromised for."""
        if self.to_the_end:
            return last
        if not self._free & self.available:
            return -1
        begins, now, until_end = self._begins, self.now, self._until_end
        while last >= 0:
            request = queue[last].request
            nodes = until_end[max(0, bisect_right(begins, now + request.limit_s) - 1)]
            if (nodes & request.eligible & self._free_for(request)).bit_count() >= request.minimum:
                break
            last -= 1
        return last

    def _find(self, request: Request, not_before: int = 0, *, now_only: bool = False) -> Slot | None:
        """Return when and where the job can start, but ``not_before``; ``None`` if not within what is planned for.

        It is tried from now on, on the nodes that nobody has been promised until it would end. Where it would start
        later than others than those can be had, it is tried again from then on, and so on. Tries that must fail are
        passed over: those before enough nodes are free even without promises, and those that run into a span with too
        few.
        """
        limit_s, need, pool = request.limit_s, request.minimum, request.eligible & self.available
        begins, counts = self._begins, self._counts
        first_level = self._first_level(request.eligible, need)
        if first_level > len(self._ends):
            return None
        bound = self._ends[first_level - 1][0] if first_level else self.now
        final = len(begins) - 1
        asked: int | None = max(self.now, not_before)
        while asked is not None:
            earliest = asked
            first = max(0, bisect_right(begins, earliest) - 1)
            beyond = bisect_right(begins, earliest + limit_s, first)
            later = asked = self._next_gain(pool, first, beyond)
            if now_only:
                asked = None
            elif later is not None and later < bound:
                self._tried = self._tried or self._unpromised_during(pool, first, beyond).bit_count() >= need
                continue
            if min(counts[first:beyond]) < need:  # whatever runs into a span with too few nodes fails
                position = beyond - 1
                while counts[position] >= need:
                    position -= 1
                if asked is not None and position < final:
                    asked = max(asked, begins[position + 1])
                continue
            nodes = self._unpromised_during(pool, first, beyond)
            if nodes.bit_count() < need:
                continue
            self._tried = True
            if later is not None and not self._fits_by(later, nodes, need):
                continue
            found = self._will_run(request, nodes, first_level)
            if found is None or (now_only and found[0] > self.now):
                continue
            start, left = max(found[0], earliest), found[1]
            self._late = start > found[0]
            if start > self.now:
                if later is not None and start > later:
                    continue
                if start > self.now + self.settings.bf_window_s:
                    return None
            planned = self.placement.plan(request, left) if start > self.now or self.completing else 0
            if start <= self.now:
                if not planned & self.completing:
                    nodes = self.placement.choose(request, left & ~self.completing) or planned
                    return Slot(start, start + limit_s, nodes)
                if now_only:
                    return None
                start += 1
            slot = Slot(start, start + limit_s, planned)
            if not self._overlaps(self._rounded(slot)):
                return slot
            asked = max(start, earliest + 1)
        return None

    def _unpromised_during(self, pool: int, first: int, beyond: int) -> int:
        """Return the nodes of ``pool`` that nobody has been promised in any of these spans."""
        for others in self._unpromised[first:beyond]:
            pool &= others
        return pool

    def _next_gain(self, pool: int, first: int, beyond: int) -> int | None:
        """Return the first time after span ``first`` when promises leave nodes that they did not leave before.

        ``None`` if that is not in a span up to the one after ``beyond``, or not at all.
        """
        unpromised = self._unpromised
        for position in range(first, min(beyond + 1, len(unpromised) - 1)):
            if pool & unpromised[position + 1] & ~unpromised[position]:
                return self._begins[position + 1]
        return None

    def _down(self, time: int) -> int:
        """Return the last multiple of the resolution up to ``time``, on the controller's clock."""
        return time - (time + self.settings.clock_s) % self.settings.bf_resolution_s

    def _rounded(self, slot: Slot) -> Slot:
        return Slot(self._down(slot.start), self._down(slot.end), slot.nodes)

    def _overlaps(self, slot: Slot) -> bool:
        begins = self._begins
        if slot.start >= self._last_end:
            return False
        position = max(0, bisect_right(begins, slot.start) - 1)
        while position < len(begins) and begins[position] < slot.end:
            if slot.nodes & ~self._unpromised[position]:
                return True
            position += 1
        return False

    def _first_level(self, eligible: int, need: int) -> int:
        """Return how many running jobs must end before so many nodes are free; more than run, if they never are."""
        key = (eligible, need)
        known = self._firsts.get(key)
        if known is not None:
            return known
        if (self._free & eligible).bit_count() >= need:
            count = 0
        else:
            levels = self._levels
            low, high = 0, len(levels)
            while low < high:
                middle = (low + high) // 2
                if (levels[middle] & eligible).bit_count() >= need:
                    high = middle
                else:
                    low = middle + 1
            while low >= len(levels) and self._next_level():
                low += (levels[-1] & eligible).bit_count() < need
            count = low + 1
        self._firsts[key] = count
        return count

    def _fits_by(self, time: int, usable: int, need: int) -> bool:
        """Whether so many of the usable nodes have come free by then, if the running jobs go one after another."""
        ended = bisect_right(self._end_times, time)
        while ended > len(self._levels):
            self._next_level()
        return ((self._levels[ended - 1] if ended else self._free) & usable).bit_count() >= need

    def _next_level(self) -> bool:
        """Work out one more level; whether there was one."""
        position = len(self._levels)
        if position == len(self._ends):
            return False
        self._levels.append((self._levels[-1] if position else self._free) | self._ends[position][2])
        return True

    def _will_run(self, request: Request, nodes: int, first_level: int) -> tuple[int, int] | None:
        """Return when the job would fit on ``nodes`` if the running jobs went one after another, and into what then.

        Not before the first ``first_level`` of them have. With select/linear, the first place that it would fit into on
        any number of switches decides: if those are more than it asked for, it is not looked further.
        """
        usable = nodes & request.eligible
        fits, scattered = self.placement.fits, self.placement.fits_scattered
        if not first_level and fits(request, usable & self._free):
            return self.now, usable & self._free
        if request.switches and not first_level and scattered(request, usable & self._free):
            return None
        levels, need = self._levels, request.minimum
        low = max(0, first_level - 1)
        while True:
            if low >= len(levels) and not self._next_level():
                return None
            if (levels[low] & usable).bit_count() >= need:
                if fits(request, usable & levels[low]):
                    return max(self._ends[low][0], self.now + 1), usable & levels[low]
                if request.switches and scattered(request, usable & levels[low]):
                    return None
                low += 1
                continue
            low = self._skip(usable, need, low)

    def _skip(self, usable: int, need: int, low: int) -> int:
        """Return a level after ``low``, which has too few nodes; all levels between have too few as well."""
        levels, step = self._levels, 1
        while low + step < len(levels) and (levels[low + step] & usable).bit_count() < need:
            low += step
            step *= 2
        high = min(low + step, len(levels))
        low += 1
        while low < high:
            middle = (low + high) // 2
            if (levels[middle] & usable).bit_count() >= need:
                high = middle
            else:
                low = middle + 1
        return low

    def _may_reserve(self, job: Job) -> bool:
        """Whether nodes are promised to a job; if not, it is tried for now only."""
        settings = self.settings
        most = settings.bf_job_part_count_reserve
        if most and self._in_partition[job.request.partition] >= most:
            return False
        if settings.bf_min_prio_reserve and job.priority < settings.bf_min_prio_reserve:
            return False
        return waited_s(job, self.now) >= settings.bf_min_age_reserve_s

    def _promise(self, job: Job, slot: Slot) -> None:
        self._in_partition[job.request.partition] += 1
        self.competing |= self._late
        self.promised_nodes |= slot.nodes
        self.promises[job.id] = slot
        self._take(self._rounded(slot))

    def _take(self, slot: Slot) -> None:
        """Cut the spans at the slot's ends, and take its nodes out of those between: a resolution's time at least."""
        start = max(slot.start, self._begins[0])
        if start >= self._last_end:
            return
        end = max(slot.end, start + self.settings.bf_resolution_s)
        first, last = self._cut(start), self._cut(end)
        unpromised, counts, others = self._unpromised, self._counts, ~slot.nodes
        for position in range(first, last):
            left = unpromised[position] & others
            unpromised[position], counts[position] = left, left.bit_count()
        until_end = self._until_end
        for position in range(first, len(until_end)):
            until_end[position] &= others
        self._merge(max(0, first - 2), last)

    def _merge(self, first: int, last: int) -> None:
        """Make one of the first two neighbours of these spans that are alike: only one pair, as slurmctld does."""
        for position in range(first, min(last, len(self._begins) - 1)):
            if self._unpromised[position] == self._unpromised[position + 1]:
                for spans in (self._begins, self._unpromised, self._counts, self._until_end):
                    del spans[position + 1]
                return

    def _cut(self, time: int) -> int:
        """Return the first span that begins at ``time`` or later, after cutting the one that ``time`` lies in."""
        begins = self._begins
        position = bisect_left(begins, time)
        if (
            position
            and time < (begins[position] if position < len(begins) else self._last_end)
            and (position == len(begins) or begins[position] != time)
        ):
            self._made += 1
            begins.insert(position, time)
            self._unpromised.insert(position, self._unpromised[position - 1])
            self._counts.insert(position, self._counts[position - 1])
            self._until_end.insert(position, self._until_end[position - 1])
        return position
