"""The tasks of arrays: which of them have one job id between them, and how many of an array may run at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from hpcplan.simulate.jobs import Job

__all__ = ["ArrayTasks"]


class ArrayTasks:
    """The tasks among ``jobs``, the live jobs of an engine by what they are known by; ``running`` are those that run.

    A submission takes one job id. The tasks that wait together share it; one that starts, or is changed by itself,
    gets the next one, and the last of them has the array's own. ``limited`` tells whether there was one of which only
    so many may run at once.
    """

    def __init__(self, jobs: dict[int, Job], running: Mapping[int, Job]) -> None:
        self._jobs = jobs
        self._running = running
        self.limited = False
        self._waiting: Counter[int] = Counter()  # of each array, the tasks that have no job id of their own

    def add(self, job: Job) -> None:
        """Take note of a new job."""
        self.limited |= job.spec.array_limit is not None
        if job.pooled:
            self._waiting[job.number] += 1

    def gone(self, job: Job) -> None:
        """Take note that a job has ended."""
        if job.pooled:
            self._waiting[job.number] -= 1

    def pool(self, job: Job) -> list[Job]:
        """Return the tasks that share the job id of one, itself among them, in their order; none if it has its own."""
        if not job.pooled:
            return []
        found = [one for one in self._jobs.values() if one.pooled and one.number == job.number]
        return sorted(found, key=lambda one: one.id)

    def corresponding(self, job: Job) -> list[Job]:
        """Return the tasks that share a job's id if one of them may start for itself by now (``aftercorr``)."""
        return self.pool(job) if job.dependency is not None and job.dependency.corresponding else []

    def split(self, job: Job, next_id: int) -> int:
        """Give a task a job id of its own, ``next_id`` or that of the array, and return the id that is next then."""
        array = job.number
        del self._jobs[job.id]
        self._waiting[array] -= 1
        left = self._waiting[array]
        job.id = next_id if left else array
        self._jobs[job.id] = job
        if left == 1:
            for other in self._jobs.values():
                if other.pooled and other.number == array:
                    other.left_over = True
        return next_id + (left > 0)

    def within_limits(self, queue: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs that do not wait for other tasks of their array (sbatch(1), ``--array=…%N``)."""
        room: dict[int | None, int] = {}
        for job in queue:
            if job.spec.array_limit is not None:
                if job.array_job_id not in room:
                    running = sum(other.array_job_id == job.array_job_id for other in self._running.values())
                    room[job.array_job_id] = job.spec.array_limit - running
                room[job.array_job_id] -= 1
                if room[job.array_job_id] < 0:
                    continue
            yield job
