"""Giving back the nodes of a stopped job as on a real cluster: at once those on which nothing is left of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.reaper import places

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpcplan.simulate.commands.runner import Run
    from hpcplan.simulate.jobs import Job
    from hpcplan.simulate.store import Session

__all__ = ["alive", "vacate"]


def vacate(run: Run, job: Job, mark: str, session: Session) -> None:
    """Give back the nodes of a stopped job on which none of its processes is; the last node goes with the job."""
    if job.held_nodes.bit_count() > 1:
        left = session.machine.mask_of(_in_use(run, mark) & set(session.machine.names_of(job.nodes)))
        if left:
            session.engine.vacate(job.id, job.nodes & ~left)


def _in_use(run: Run, mark: str) -> set[str]:
    """Return the nodes of the job's processes, and all nodes of a step that begins, or of a task that does not tell."""
    found = places(mark)
    known = {group for pid in found if (group := _group(pid)) is not None}
    nodes = {run.node} if run.batch is not None and run.batch.ended is None else set()
    unsure = {name for name, groups in run.groups.items() if not groups or not known.issuperset(alive(groups))}
    for step in run.steps:
        if step.name in unsure and step.attempt == run.attempt:
            nodes.update(expand(step.node_list))
    return nodes.union(found.values())


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def alive(groups: Iterable[int]) -> list[int]:
    """Return the process groups that have members."""
    found = []
    for group in groups:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            continue
        found.append(group)
    return found
