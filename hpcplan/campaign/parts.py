"""Jobs that Slurm keeps as several records: arrays with their tasks, heterogeneous jobs with their components."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hpcplan.campaign.reasons import explain_reason, explain_state
from hpcplan.hostlist import compress, expand
from hpcplan.slurm.records import JobRecord, JobState

__all__ = ["Component", "by_submitted_id", "components_of", "tasks_of", "whole"]


@dataclass(frozen=True, slots=True)
class Component:
    """One component of a heterogeneous job: its place from 0, its own id, and how it stands."""

    offset: int
    job_id: int
    state: str
    reason: str | None = None
    nodes: int | None = None
    node_list: str | None = None


def by_submitted_id(records: Iterable[JobRecord]) -> Mapping[int, Sequence[JobRecord]]:
    """Return records by the id that their submission was answered with."""
    found: dict[int, list[JobRecord]] = {}
    for record in records:
        found.setdefault(record.submitted_id, []).append(record)
    return found


def whole(found: Sequence[JobRecord]) -> JobRecord | None:
    """Return the record that stands for all: its state is that of a part that runs, else of one that waits, else the
    worst. A heterogeneous job has the nodes of all its components together.
    """
    if len(found) < 2:
        return found[0] if found else None
    ranks: tuple[Callable[[JobRecord], bool], ...] = (
        lambda r: r.state.active, lambda r: r.state.waiting, lambda r: r.state is not JobState.COMPLETED
    )  # fmt: skip
    first = next((record for ranked in ranks for record in found if ranked(record)), found[0])
    starts = [record.start_time for record in found if record.start_time is not None]
    ends = [record.end_time for record in found if record.end_time is not None]
    told = replace(
        first,
        job_id=first.submitted_id,
        start_time=min(starts, default=None),
        end_time=max(ends, default=None) if first.state.final else None,
    )
    if first.het_job_id is None:
        return told
    leader = min(found, key=lambda record: record.het_offset or 0)  # the one with the name, comment and script
    return replace(
        told, name=leader.name, comment=leader.comment, submit_time=leader.submit_time, partition=leader.partition,
        restarts=leader.restarts, nodes=_sum(found, "nodes"), cpus=_sum(found, "cpus"), gpus=_sum(found, "gpus"),
        node_list=_all_nodes(found),
    )  # fmt: skip


def _sum(found: Sequence[JobRecord], name: str) -> int | None:
    values = [getattr(record, name) for record in found]
    return None if None in values else sum(values)


def _all_nodes(found: Sequence[JobRecord]) -> str | None:
    lists = [record.node_list for record in sorted(found, key=lambda one: one.het_offset or 0)]
    if None in lists:
        return None
    try:
        return compress([node for nodes in lists for node in expand(nodes or "")])
    except ValueError:
        return ",".join(nodes for nodes in lists if nodes)


def tasks_of(found: Sequence[JobRecord]) -> dict[str, int] | None:
    """Return an array's tasks by state, ``None`` for a job that is none."""
    if len(found) < 2 or found[0].het_job_id is not None:
        return None
    return dict(Counter(task.state.value for task in found))


def components_of(found: Sequence[JobRecord]) -> tuple[Component, ...] | None:
    """Return a heterogeneous job's components in their order, ``None`` for a job that is none."""
    if len(found) == 1 and found[0].het_job_id is None:
        return None
    parts = sorted((one for one in found if one.het_job_id is not None), key=lambda one: one.het_offset or 0)
    return tuple(_component(one) for one in parts) or None


def _component(one: JobRecord) -> Component:
    reason = explain_reason(one.reason) if one.state.waiting else None
    return Component(
        one.het_offset or 0, one.job_id, one.state.value, reason or explain_state(one.state), one.nodes, one.node_list
    )
