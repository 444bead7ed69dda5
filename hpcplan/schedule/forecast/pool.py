"""The future of a pool of equal processors under EASY or FCFS, one sample at a time."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence

from hpcplan.errors import InputError
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot, Reservation
from hpcplan.simulate.replay import TracePolicy, replay, start_of
from hpcplan.simulate.traces import TraceJob

__all__ = ["NEVER_S", "Coming", "PoolCourse", "PoolFuture"]

NEVER_S = 400 * 86400  # the wait of what does not start: nodes that are down, limits, or nobody looked so far ahead

Coming = tuple[int, QueueJob, int]  # when a job will be submitted (unix seconds), what it is like, how long it runs (s)
_AHEAD_S = 86400  # arrivals are looked at so far behind a submission, and further if it waits longer


class PoolFuture:
    """What happens next on a pool: the rules are those of :mod:`hpcplan.simulate.replay`, the same engine's.

    Running jobs are replayed as jobs that start together a second ago, with what is left of their limits; reservations
    that have begun as jobs that run to their end. A reservation that has still to begin is not seen by the pool.
    """

    def __init__(self, snapshot: QueueSnapshot) -> None:
        """Take over a snapshot.

        Raises:
            InputError: it is not of a pool.
        """
        if snapshot.procs is None:
            raise InputError("the snapshot is of a cluster of nodes, not of a pool of processors")
        self.now_s = snapshot.now_s
        self.procs = snapshot.procs
        self.effort = 1
        self.most_arrivals = 400
        self.policy: TracePolicy = "easy" if snapshot.policy in {"slurm", "backfill"} else snapshot.policy  # type: ignore[assignment]
        self.live = (*snapshot.running, *snapshot.pending)
        self._waiting = len(snapshot.pending)
        self._held = [_held(one, snapshot.now_s) for one in snapshot.reservations if one.start_s <= snapshot.now_s]
        self._jobs = [*(job for job in self._held if job is not None), *(self._trace_job(job) for job in self.live)]
        self._free = self.procs - sum(job.procs for job in self._jobs if job.submit_s < self.now_s)

    def _trace_job(self, job: QueueJob) -> TraceJob:
        if job.start_s is None:
            return TraceJob(0, self.now_s, job.limit_s, job.limit_s, job.width)
        left_s = max(1, job.start_s + job.limit_s - self.now_s)
        return TraceJob(0, self.now_s - 1, left_s + 1, left_s + 1, job.width)

    def certain(self, target: QueueJob) -> int | None:
        """Return the start, if it does not depend on chance: nothing waits and there is room."""
        return self.now_s if not self._waiting and target.width <= self._free else None

    def check(self, target: QueueJob) -> None:
        """Refuse a job that can never start.

        Raises:
            InputError: it is wider than the pool.
        """
        if target.width > self.procs:
            raise InputError(f"{target.width} processors were asked for; there are {self.procs}")

    def start_of(self, target: QueueJob, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> int:
        """Return when the target, submitted now, starts (unix seconds).

        Args:
            target: the job.
            runs_s: how long each live job runs, from its start.
            arrivals: what others submit later, in order.
        """
        position = len(self._jobs)
        if target.priority > 0:
            behind = [job for job in self.live if job.start_s is None and job.priority < target.priority]
            position -= len(behind)
        jobs, runs = self._line_up(runs_s, arrivals)
        jobs.insert(position, self._trace_job(target))
        runs.insert(position, target.limit_s)
        if self.policy == "conservative":
            return replay(_with(jobs, runs), self.procs, policy="conservative")[position]
        return start_of(jobs, self.procs, position, runs=runs, backfill=self.policy == "easy")

    def course(self, target: QueueJob, runs_s: Sequence[int], arrivals: Iterable[Coming]) -> PoolCourse:
        """Return a future in which jobs like the target are submitted one after another."""
        return PoolCourse(self, target, runs_s, arrivals)

    def start_later(
        self, target: QueueJob, submit_s: int, held_s: int, runs_s: Sequence[int], arrivals: Sequence[Coming]
    ) -> int:
        """Return when the target starts if it is submitted at ``submit_s``, behind those that come until then."""
        before = [one for one in arrivals if one[0] <= submit_s and one[1].width <= self.procs]
        jobs, runs = self._line_up(runs_s, [*before, (submit_s, target, held_s), *arrivals[len(before) :]])
        position = len(self._jobs) + len(before)
        return start_of(jobs, self.procs, position, runs=runs, backfill=self.policy != "fcfs")

    def starts(self, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> list[int | None]:
        """Return when each waiting job, and then each arrival, starts (unix seconds); ``None`` if it never can."""
        jobs, runs = self._line_up(runs_s, arrivals)
        found = iter(replay(_with(jobs, runs), self.procs, policy=self.policy)[len(self._jobs) - self._waiting :])
        waiting: list[int | None] = [next(found) for _ in range(self._waiting)]
        return waiting + [next(found) if job.width <= self.procs else None for _, job, _ in arrivals]

    def _line_up(self, runs_s: Sequence[int], arrivals: Sequence[Coming]) -> tuple[list[TraceJob], list[int]]:
        """Return everything in the order of submission, and how long it runs."""
        runs = [job.run_s for job in self._jobs[: len(self._jobs) - len(self.live)]]
        for job, run_s in zip(self.live, runs_s, strict=True):
            runs.append(run_s if job.start_s is None else max(1, job.start_s + run_s - self.now_s) + 1)
        jobs = self._jobs.copy()
        for submit_s, job, run_s in arrivals:
            if job.width <= self.procs:
                jobs.append(TraceJob(0, max(self.now_s, submit_s), job.limit_s, job.limit_s, job.width))
                runs.append(run_s)
        return jobs, runs


class PoolCourse:
    """One future of a pool, replayed from now for each job of one's own; those before are known by then."""

    def __init__(self, future: PoolFuture, target: QueueJob, runs_s: Sequence[int], arrivals: Iterable[Coming]) -> None:
        self._future = future
        self._target = target
        self._runs_s = runs_s
        self._arrivals: list[Coming] = []
        self._left: Iterator[Coming] = iter(arrivals)
        self._next: Coming | None = next(self._left, None)

    def wait_s(self, submit_s: int, held_s: int, until_s: int | None = None) -> int:
        """Return how long a job waits that is submitted at ``submit_s``."""
        submit_s = max(submit_s, self._future.now_s)
        ahead_s = _AHEAD_S
        while True:
            # Nobody is submitted after what is known of the arrivals: a start beyond that is not one yet.
            known_s = submit_s + ahead_s
            self._look_ahead(known_s)
            start = self._future.start_later(self._target, submit_s, held_s, self._runs_s, self._arrivals)
            if start <= known_s or self._next is None:
                break
            if until_s is not None and known_s >= until_s:
                return NEVER_S
            ahead_s *= 2
        insort(self._arrivals, (submit_s, self._target, held_s), key=lambda one: one[0])
        return start - submit_s

    def _look_ahead(self, time: int) -> None:
        """Take the arrivals up to a time."""
        while self._next is not None and self._next[0] <= time:
            if self._next[1].width <= self._future.procs:
                insort(self._arrivals, self._next, key=lambda one: one[0])
            self._next = next(self._left, None)


def _held(reservation: Reservation, now_s: int) -> TraceJob | None:
    left_s = reservation.end_s - now_s
    if left_s <= 0 or reservation.width is None:
        return None
    return TraceJob(0, now_s - 1, left_s + 1, left_s + 1, reservation.width)


def _with(jobs: Sequence[TraceJob], runs: Sequence[int]) -> list[TraceJob]:
    return [
        TraceJob(job.id, job.submit_s, max(1, run_s), job.limit_s, job.procs)
        for job, run_s in zip(jobs, runs, strict=True)
    ]
