"""One future of a cluster in compiled code, where numba is installed: the same starts as in Python, sooner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from hpcplan.schedule.forecast.pool import NEVER_S
from hpcplan.simulate.compiled.course import CourseDriver
from hpcplan.simulate.compiled.driver import Coming as Submission
from hpcplan.simulate.fast_slurm import clock_at, rules_of, shape_of

if TYPE_CHECKING:
    from hpcplan.schedule.forecast.cluster import ClusterFuture
    from hpcplan.schedule.forecast.pool import Coming
    from hpcplan.schedule.forecast.snapshot import QueueJob
    from hpcplan.simulate.jobs import Request

__all__ = ["CompiledCourse"]

_OWN: Final = 1 << 20  # numbers between one arrival's and the next: those of one's own jobs in between


class CompiledCourse:
    """What :class:`~hpcplan.schedule.forecast.cluster.ClusterCourse` is, for clusters that compiled code can follow."""

    def __init__(
        self, future: ClusterFuture, target: QueueJob, runs_s: Iterable[int], arrivals: Iterable[Coming]
    ) -> None:
        self._future = future
        self._target = target
        request = future.request_of(target)
        assert request is not None
        self._request = request
        machine, settings = future.machine, future.cluster.settings
        self._partitions = {name: number for number, name in enumerate(machine.partitions)}
        self._come = self._own = 0  # submissions of others taken so far, and one's own
        self._driver = CourseDriver(
            rules_of(settings), clock_at(settings, future.now_s), **shape_of(future.cluster),
            available=machine.all_nodes & ~future.unusable, coming=self._coming(arrivals),
        )  # fmt: skip
        live = [
            self._submission(job.id, job.submit_time, run_s, job.request, job.priority)
            for job, run_s in zip(future.templates, runs_s, strict=True)
        ]
        self._driver.take_over(
            live, [job.start_time for job in future.templates], [job.nodes for job in future.templates]
        )

    def wait_s(self, submit_s: int, held_s: int, until_s: int | None = None) -> int:
        """Return how long a job waits that is submitted at ``submit_s``; 400 days if it never starts."""
        submit_s = max(submit_s, self._driver.now)
        self._driver.advance(submit_s)
        return self.wait_now_s(held_s, until_s)

    def wait_now_s(self, held_s: int, until_s: int | None = None) -> int:
        """Return how long a job waits that is submitted before anything else happens."""
        driver, future = self._driver, self._future
        submit_s = driver.now
        priority = future.place_of(self._target)
        if submit_s > future.now_s and (least := driver.least_priority) is not None:
            priority = least - 1
        elif submit_s > future.now_s:
            priority -= 1
        self._own += 1
        job = self._submission(
            (driver.submitted + 1) * _OWN + self._own, submit_s, max(1, held_s), self._request, priority
        )
        start = driver.submit(job, submit_s + NEVER_S if until_s is None else until_s)
        return NEVER_S if start is None else start - submit_s

    def _coming(self, arrivals: Iterable[Coming]) -> Iterator[Submission]:
        """Yield what others submit, as far as the machine takes it; each goes behind those before."""
        future = self._future
        first = future.first_priority
        for number, (at_s, job, run_s) in enumerate(arrivals):
            request = future.request_of(job)
            if request is not None:
                self._come += 1
                yield self._submission((self._come + 1) * _OWN, max(future.now_s, at_s), run_s, request, first - number)

    def _submission(self, number: int, submit_s: int, run_s: int, request: Request, priority: int) -> Submission:
        return Submission(
            number, submit_s, run_s, request.limit_s, request.minimum, request.eligible,
            self._partitions[request.partition], 0, max(1, priority), False, (),
        )  # fmt: skip
