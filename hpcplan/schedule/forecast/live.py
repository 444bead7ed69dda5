"""The queue as a backend shows it: every user's running and pending jobs, the nodes, and what ended lately."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from hpcplan.errors import SlurmError, SlurmUnreachableError
from hpcplan.hostlist import compress, expand
from hpcplan.schedule.forecast.snapshot import Policy, QueueJob, QueueSnapshot, Reservation
from hpcplan.simulate.jobs import UNLIMITED_S
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.records import JobRecord, NodeRecord, PartitionRecord

__all__ = ["HISTORY_S", "machine_of_records", "parse_reservations", "past_of_records", "snapshot_of_backend"]

HISTORY_S: Final = 14 * 86400
_LIMIT_S: Final = 30.0  # for scontrol to answer
_SHARED: Final = 0.1  # of the jobs use part of a node, where nodes are shared
_HELD: Final = ("held", "dependency", "begintime", "limit", "down", "inactive", "invalid", "never")


def snapshot_of_backend(backend: Backend, *, history_s: int = HISTORY_S, policy: Policy = "slurm") -> QueueSnapshot:
    """Ask a backend for its queue and for the jobs of the last ``history_s`` seconds.

    Where jobs share nodes, the cluster becomes a pool of its CPUs: a job is as wide as the largest of its shares of
    CPUs and GPUs (its dominant share: Ghodsi et al., NSDI 2011).

    Raises:
        SlurmUnreachableError: no answer.
        SlurmError: an answer that cannot be understood, or no nodes in it.
    """
    now = backend.now()
    nodes, partitions = backend.nodes(), backend.partitions()
    if not nodes or not partitions:
        raise SlurmError("Slurm names no nodes or no partitions")
    records = backend.accounting(now - history_s, now)
    machine = machine_of_records(nodes, partitions)
    unusable = [node.name for node in nodes if not node.usable]
    shared = _shared(machine, records)
    jobs, history, left_out = [], [], 0
    seen: dict[str, int] = {}
    for record in records:
        job = _job(record, machine, shared, seen)
        if job is None:
            continue
        if job.end_s is not None:
            history.append(job)
        elif job.pending and _is_held(record):
            left_out += 1
        elif job.running or record.state.waiting:
            jobs += _tasks_of(job, record)
    info = backend.ping()
    source = f"{info.backend}: {info.cluster}" if info.cluster else info.backend
    if not shared:
        return QueueSnapshot(
            source=source, now_s=now, machine=machine.as_dict(), policy=policy, left_out=left_out, jobs=tuple(jobs),
            unusable=compress(unusable) if unusable else None, history=tuple(history),
            reservations=_reservations(backend),
        )  # fmt: skip
    usable = machine.all_nodes & ~machine.mask_of(unusable)
    held = sum(job.width for job in jobs if job.running)
    procs = max(1, machine.total(usable, "cpus"), held)
    jobs = [job for job in jobs if job.width <= procs]
    return QueueSnapshot(
        source=source,
        now_s=now,
        procs=procs,
        policy="easy",
        left_out=left_out,
        jobs=tuple(jobs),
        history=tuple(history),
    )


def parse_reservations(answer: str) -> tuple[Reservation, ...]:
    """Return the reservations of nodes in the answer of ``scontrol --oneliner show reservation``, in UTC.

    Those that everybody may use while they last (flag FLEX), and those without nodes, keep nobody off.
    """
    found = []
    for line in answer.splitlines():
        pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
        nodes = pairs.get("Nodes", "(null)")
        start, end = _time(pairs.get("StartTime", "")), _time(pairs.get("EndTime", ""))
        usable = nodes not in {"(null)", ""} and "FLEX" not in pairs.get("Flags", "").split(",")
        if usable and start is not None and end is not None and end > start:
            found.append(Reservation(start_s=start, end_s=end, nodes=nodes))
    return tuple(found)


def _time(word: str) -> int | None:
    """Return unix seconds for ``1700000000`` or ``2023-11-14T22:13:20`` (UTC)."""
    from datetime import UTC, datetime

    if word.isdecimal():
        return int(word)
    try:
        return int(datetime.fromisoformat(word).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _reservations(backend: Backend) -> tuple[Reservation, ...]:
    """Return the reservations, from a backend that can tell: through Slurm's commands."""
    if not isinstance(backend, CommandBackend):
        return ()
    try:
        answer = backend.commands.answer("scontrol", "--oneliner", "show", "reservation", limit_s=_LIMIT_S)
    except SlurmUnreachableError:
        raise
    except SlurmError:  # a user who may not see them
        return ()
    return parse_reservations(answer)


def past_of_records(records: Iterable[JobRecord]) -> list[QueueJob]:
    """Return the jobs that ran to an end, sized in nodes."""
    seen: dict[str, int] = {}
    found = (_job(record, None, False, seen) for record in records)
    return [job for job in found if job is not None and job.end_s is not None]


def machine_of_records(nodes: Sequence[NodeRecord], partitions: Sequence[PartitionRecord]) -> Machine:
    """Return the machine of a backend's nodes and partitions."""
    names = tuple(node.name for node in nodes)
    kinds: dict[tuple[int, int, int, tuple[str, ...]], int] = {}
    masks: dict[str, int] = {partition.name: 0 for partition in partitions}
    for index, node in enumerate(nodes):
        kind = (node.cpus or 1, node.memory_bytes or 1, node.gpus or 0, node.features)
        kinds[kind] = kinds.get(kind, 0) | 1 << index
        for name in node.partitions:
            if name in masks:
                masks[name] |= 1 << index
    position = {name: 1 << index for index, name in enumerate(names)}
    for partition in partitions:
        for name in expand(partition.nodes) if partition.nodes and not masks[partition.name] else ():
            masks[partition.name] |= position.get(name, 0)
    groups = tuple(
        NodeGroupShape(mask=mask, cpus=cpus, memory_bytes=memory, gpus=gpus, features=features)
        for (cpus, memory, gpus, features), mask in kinds.items()
    )
    shapes = {
        part.name: PartitionShape(
            name=part.name, mask=masks[part.name], default=part.default, max_time_s=part.max_time_s,
            default_time_s=part.default_time_s, max_nodes=part.max_nodes, up=part.state.lower() in {"up", "drain"},
        )
        for part in partitions
    }  # fmt: skip
    return Machine(names, groups, shapes)


def _shared(machine: Machine, records: Sequence[JobRecord]) -> bool:
    """Whether jobs get parts of nodes: more than a tenth of those seen have fewer CPUs than their nodes have."""
    least = min((group.cpus for group in machine.groups), default=1)
    sized = [record for record in records if record.start_time is not None and record.cpus and record.nodes]
    partial = sum((record.cpus or 0) < (record.nodes or 0) * least for record in sized)
    return bool(sized) and partial > _SHARED * len(sized)


def _tasks_of(job: QueueJob, record: JobRecord) -> list[QueueJob]:
    """Return a job; of tasks of an array that wait together, one for each of those that may run at once."""
    if not job.pending:
        return [job]
    more = [job.model_copy(update={"label": f"{job.label}.task{n}"}) for n in range(2, record.jobs_waiting + 1)]
    return [job, *more]


def _is_held(record: JobRecord) -> bool:
    reason = (record.reason or "").lower()
    return record.priority == 0 or any(word in reason for word in _HELD)


def _job(record: JobRecord, machine: Machine | None, shared: bool, seen: dict[str, int]) -> QueueJob | None:
    """Return a record as a job, ``None`` for one that never ran, or whose size or times are not known."""
    ended = record.state.final or (
        record.start_time is not None and record.end_time is not None and not record.state.active
    )
    start = None if record.state.waiting and not ended else record.start_time
    end = record.end_time if ended else None
    if (
        record.submit_time is None
        or (ended and (start is None or end is None))
        or (record.state.active and start is None)
    ):
        return None
    width = record.nodes or 1
    if shared and machine is not None:
        cpus = machine.total(machine.all_nodes, "cpus")
        gpus = machine.total(machine.all_nodes, "gpus")
        width = max(record.cpus or 1, -(-(record.gpus or 0) * cpus // gpus) if gpus else 0)
    where = record.node_list if start is not None and end is None and not shared else None
    label = str(record.job_id)
    seen[label] = seen.get(label, 0) + 1
    return QueueJob(
        label=label if seen[label] == 1 else f"{label}.{seen[label]}",
        width=width, limit_s=max(1, record.time_limit_s or UNLIMITED_S), submit_s=record.submit_time, start_s=start,
        end_s=None if end is None or start is None else max(start, end), user=record.user, name=record.name or None,
        partition=record.partition if machine is None or record.partition in machine.partitions else None,
        priority=record.priority or 0, qos=record.qos, state=record.state.value if ended else None, nodes=where,
    )  # fmt: skip
