"""Jobs that name several partitions (``sbatch --partition=a,b``): tried in each, and run in the first that has room.

Such a job's request is that for its first partition, which names those for the others as ``alternatives``. Whoever
looks at the queue partition by partition sees the job once for each, as slurmctld does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request

__all__ = ["alone", "chosen", "joined", "narrowed", "requests_of", "without_switches"]


def joined(requests: Sequence[Request], tier: Callable[[str], int]) -> Request:
    """Return one request from those for each partition: the highest tier first, only those that can ever start."""
    ordered = sorted(requests, key=lambda one: (one.limit_reason is not None, -tier(one.partition)))
    able = [one for one in ordered if one.limit_reason is None] or ordered[:1]
    return replace(able[0], alternatives=tuple(able[1:]))


def requests_of(request: Request) -> tuple[Request, ...]:
    """Return the request for each partition."""
    return (request, *request.alternatives)


def alone(job: Job) -> list[Job]:
    """Return the job as seen in each of its partitions: itself, and for the others copies of it."""
    return [job, *(replace(job, request=one) for one in job.request.alternatives)]


def chosen(request: Request, partition: str) -> Request:
    """Return what of a request is left once the job is in one of its partitions."""
    one = next((one for one in requests_of(request) if one.partition == partition), request)
    return replace(one, alternatives=()) if one.alternatives else one


def narrowed(job: Job, is_up: Callable[[str], bool]) -> Job | None:
    """Return the job as it is without those of its partitions that are down; ``None``, if all are."""
    found = [one for one in requests_of(job.request) if is_up(one.partition)]
    if not found:
        return None
    if len(found) == len(job.request.alternatives) + 1:
        return job
    return replace(job, request=replace(found[0], alternatives=tuple(found[1:])))


def without_switches(request: Request) -> Request:
    """Return the request of a job that no longer insists on its number of switches."""
    others: Iterable[Request] = (replace(one, switches=0) for one in request.alternatives)
    return replace(request, switches=0, alternatives=tuple(others))
