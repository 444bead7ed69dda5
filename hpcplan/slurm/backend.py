"""The one face that hpcplan has to a Slurm cluster, real or mock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hpcplan.slurm.records import (
    ClusterInfo,
    JobRecord,
    NodeRecord,
    PartitionRecord,
    StartEstimate,
    Submission,
)

__all__ = ["Backend"]


@runtime_checkable
class Backend(Protocol):
    """What a tracker needs of Slurm. Every method asks once; nothing is cached.

    Raises, in every method:
        SlurmUnreachableError: no answer (exit code 4).
        SlurmError: an answer that refuses, in Slurm's own words.
    """

    @property
    def name(self) -> str:
        """``mock``, ``command``, ``pyslurm`` or ``rest``."""
        ...

    def now(self) -> int:
        """Return the cluster's clock in unix seconds (a mock cluster's may run ahead of the laptop's)."""
        ...

    def ping(self) -> ClusterInfo:
        """Return who answers."""
        ...

    def submit(self, submission: Submission) -> int:
        """Submit a script and return its job id."""
        ...

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return the jobs of these ids, or the user's own, in one call a source: those in the queue and, as far as
        accounting can tell, those that ended at or after ``since`` (default: one day ago). A job known to neither is
        simply absent. The newest attempt of each job comes once, ordered by id.
        """
        ...

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel jobs; those that have already ended are not an error."""
        ...

    def hold(self, job_ids: Sequence[int]) -> None:
        """Keep pending jobs from starting."""
        ...

    def release(self, job_ids: Sequence[int]) -> None:
        """Let held jobs start again."""
        ...

    def requeue(self, job_ids: Sequence[int]) -> None:
        """Stop running jobs and put them back into the queue."""
        ...

    def nodes(self) -> list[NodeRecord]:
        """Return every node, by name."""
        ...

    def partitions(self) -> list[PartitionRecord]:
        """Return every partition, by name."""
        ...

    def accounting(self, start: int, end: int) -> list[JobRecord]:
        """Return all users' jobs (where the site lets one see them) that were pending or running between two times."""
        ...

    def estimate_start(self, submission: Submission) -> StartEstimate | None:
        """Return when the controller thinks the script would start (``sbatch --test-only``), ``None`` if it can't say.

        Raises:
            SlurmError: the script would be refused.
        """
        ...
