"""The engine of a mock cluster that is in use: some of its jobs may really run, and end when their processes do."""

from __future__ import annotations

from typing import Final

from hpcplan.simulate.engine import Engine
from hpcplan.simulate.jobs import Behaviour, Job
from hpcplan.slurm.records import JobState

__all__ = ["REAL", "LiveEngine", "is_real"]

_NEVER_S: Final = 10**12
REAL: Final = Behaviour(_NEVER_S, JobState.RUNNING.value)
"""How a job behaves that really runs: nobody knows when it will end."""


def is_real(job: Job) -> bool:
    """Whether the job's commands are really run, so that time alone does not end it."""
    return job.behaviour.state == JobState.RUNNING.value


class LiveEngine(Engine):
    """An engine that is told when the jobs end that really run."""

    def end_of(self, job: Job) -> tuple[int, tuple[JobState, int, int]]:
        """Return when a running job ends by itself; one that really runs does not."""
        if is_real(job):
            assert job.start_time is not None
            return job.start_time + _NEVER_S, (JobState.TIMEOUT, 0, 0)
        return super().end_of(job)

    def finish(self, job_id: int, state: JobState, exit_code: int = 0, signal: int = 0) -> None:
        """Take note that a live job has ended."""
        self._end(self.jobs[job_id], state, exit_code, signal)
        self._schedule()

    def lose(self, job_id: int) -> None:
        """Take note that a running job's processes are gone without a word, as when a node fails."""
        self._fail_node(self.running[job_id])
        self._schedule()
