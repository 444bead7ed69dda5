"""Heterogeneous jobs: components that wait, start and end together (sbatch(1), Heterogeneous Job Support).

Each component is a job of its own with the next id; the first one's stands for all. Scripts part them by ``#SBATCH
hetjob``, command lines by a colon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import SlurmError

if TYPE_CHECKING:
    from hpcplan.simulate.engine import Engine
    from hpcplan.simulate.jobs import Behaviour, Job, JobSpec, Request
    from hpcplan.simulate.profile import Profile, Slot

__all__ = [
    "as_components",
    "earliest_together",
    "fit_together",
    "groups_of",
    "inherited",
    "new_components",
    "refuse_part",
    "whole",
]

_OF_ONE_COMPONENT: Final = frozenset({
    "partition", "nodes_min", "nodes_max", "ntasks", "ntasks_per_node", "cpus_per_task", "gpus", "gpus_per_node",
    "gpus_per_task", "gpu_type", "memory_per_gpu_bytes", "constraint", "exclusive", "nodelist", "switches",
    "segment", "licenses",
})  # fmt: skip
PART: Final = "Operation not permitted on individual component of heterogeneous job"


def inherited(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that hold for the next component too, as tried on Slurm 22.05: limits, names, memory, but not
    what says how large a component is or on which nodes.
    """
    return {name: value for name, value in given.items() if name not in _OF_ONE_COMPONENT}


def whole(jobs: Mapping[int, Job], job: Job) -> list[Job]:
    """Return the live jobs that a job stands for: all components if it is the first of a heterogeneous job, or one of
    them, else itself.
    """
    if job.het_id is None:
        return [job]
    return [one for one in jobs.values() if one.het_id == job.het_id]


def refuse_part(job: Job) -> None:
    """Refuse to take a component out of a job that waits.

    Raises:
        SlurmError: it is a component other than the first.
    """
    if job.het_id not in (None, job.id) and not job.running:
        raise SlurmError(PART)


def new_components(engine: Engine, components: Sequence[tuple[JobSpec, Behaviour]], user: str) -> list[Job]:
    """Return the jobs that a heterogeneous submission comes to; each counts as a submission of its own.

    Raises:
        SlurmError: the controller would refuse one of them, or it is an array.
    """
    from hpcplan.simulate.admission import refusal

    if any(spec.array for spec, _ in components):
        raise refusal("Invalid job array specification")
    return as_components([engine.preview(spec, behaviour, user) for spec, behaviour in components])


def as_components(jobs: list[Job]) -> list[Job]:
    """Make new jobs, of which each thinks that it is the next, the components of one."""
    first = jobs[0].id
    for offset, job in enumerate(jobs):
        job.id, job.het_id, job.het_offset, job.het_size = first + offset, first, offset, len(jobs)
        if job.spec.priority is None:
            job.priority = max(1, job.priority - offset)
    return jobs


def groups_of(queue: Iterable[Job]) -> dict[int, list[Job]]:
    """Return the components in the queue of each heterogeneous job that has all of them there, by its id."""
    found: dict[int, list[Job]] = {}
    for job in queue:
        if job.het_id is not None:
            found.setdefault(job.het_id, []).append(job)
    return {het_id: members for het_id, members in found.items() if len(members) == members[0].het_size}


def fit_together(
    members: Sequence[Job], free: Callable[[Job], int], choose: Callable[[Request, int], int]
) -> dict[int, int] | None:
    """Return nodes for each component, by its id, with no node given twice; ``None`` if they do not fit.

    The component that has the fewest nodes to choose from goes first. ``free`` is what each may have.
    """
    taken: int = 0
    found: dict[int, int] = {}
    for job in sorted(members, key=lambda one: (one.request.eligible.bit_count(), one.het_offset)):
        usable = free(job) & ~taken
        nodes = choose(job.request, usable) or choose(replace(job.request, maximum=job.request.minimum), usable)
        if not nodes:
            return None
        found[job.id] = nodes
        taken |= nodes
    return found


def earliest_together(profile: Profile, members: Sequence[Job]) -> tuple[Profile, int, list[Slot]] | None:
    """Return the first time at which all components fit for as long as their limits: the profile without their nodes,
    the time, and the slot of each; ``None`` if there is none.
    """
    start: int | None = None
    while True:
        trial = profile.copy()
        slots: dict[int, Slot] = {}
        for job in sorted(members, key=lambda one: (one.request.eligible.bit_count(), one.het_offset)):
            slot = trial.earliest(replace(job.request, maximum=job.request.minimum), not_before=start)
            if slot is None:
                return None
            trial.take(slot)
            slots[job.id] = slot
        latest = max((slot.start for slot in slots.values()), default=0)
        if all(slot.start == latest for slot in slots.values()):
            return (trial, latest, [slots[job.id] for job in members]) if slots else None
        if start is not None and start >= profile.times[-1]:
            return None  # nothing more comes free
        start = latest
