"""The engine of a mock cluster that is in use: some of its jobs may really run, and end when their processes do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from hpcplan.errors import SlurmError
from hpcplan.simulate.begin import begin_time
from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Behaviour, Job, JobSpec
from hpcplan.slurm.records import JobState

__all__ = ["REAL", "LiveEngine", "is_real"]

_NEVER_S: Final = 10**12
REAL: Final = Behaviour(_NEVER_S, JobState.RUNNING.value)
"""How a job behaves that really runs: nobody knows when it will end."""


def is_real(job: Job) -> bool:
    """Whether the job's commands are really run, so that time alone does not end it."""
    return job.behaviour.state == JobState.RUNNING.value


class LiveEngine(Engine):
    """An engine that is told when the jobs end that really run, and whose jobs can be changed."""

    requeue_delay_s: int | None = None
    """How long a requeued job waits, where it is not :data:`~hpcplan.simulate.engine.REQUEUE_DELAY_S`."""

    def end_of(self, job: Job) -> tuple[int, tuple[JobState, int, int]]:
        """Return when a running job ends by itself; one that really runs does not."""
        if is_real(job):
            assert job.start_time is not None
            return job.start_time + _NEVER_S, (JobState.TIMEOUT, 0, 0)
        return super().end_of(job)

    def change(self, job_id: int, spec: JobSpec, *, priority: int | None = None, anew: Collection[str] = ()) -> None:
        """Let a job ask for something else from now on, as ``scontrol update`` does.

        ``anew`` says what is to be settled again: its ``dependency``, its ``begin``.

        Raises:
            SlurmError: the controller would refuse it; nothing has changed.
        """
        job = self.jobs[job_id]
        request = self._admission.resolve(spec, anew=True)
        begin = begin_time(spec.begin, self.now) if "begin" in anew else job.begin_time
        if job.running:
            request = replace(job.request, limit_s=request.limit_s)
        else:
            self._leave_queue(job)
            job.eligible_time = None
        before = job.spec, job.dependency
        job.spec = spec
        try:
            if "dependency" in anew:
                job.dependency = None
                self._dependents.resolve(job, self.now)
        except SlurmError:
            job.spec, job.dependency = before
            raise
        finally:
            self._classify(job)
        self._leave_queue(job)
        job.eligible_time = None if not job.running else job.eligible_time
        job.request, job.begin_time = request, begin
        job.priority = max(1, priority if priority is not None else job.priority + before[0].nice - spec.nice)
        self.array_tasks.limited |= spec.array_limit is not None
        if job.running:
            self._plan_end(job)
        self._dependents.watch(job)
        self._wake(job)
        self._classify(job)
        self.changes += 1
        self._schedule()

    def _requeue_one(self, job: Job, state: JobState) -> None:
        super()._requeue_one(job, state)
        if self.requeue_delay_s is not None:
            job.begin_time = self.now + self.requeue_delay_s
            self._wake(job)
            self._classify(job)

    def finish(self, job_id: int, state: JobState, exit_code: int = 0, signal: int = 0) -> None:
        """Take note that a live job has ended."""
        self._end(self.jobs[job_id], state, exit_code, signal)
        self._schedule()

    def vacate(self, job_id: int, nodes: int) -> None:
        """Give those of a stopped job's nodes to others on which nothing is left of it."""
        job = self.running[job_id]
        if nodes & job.held_nodes:
            self._vacate(job, nodes & job.held_nodes)
            self.changes += 1
            self._schedule()

    def _vacate(self, job: Job, nodes: int) -> None:
        job.vacated |= nodes
        self.busy &= ~nodes

    def lose(self, job_id: int) -> None:
        """Take note that a running job's processes are gone without a word, as when a node fails."""
        self._fail_node(self.running[job_id])
        self._schedule()
