"""The mock cluster's nodes and partitions as the records that every backend gives."""

from __future__ import annotations

from hpcplan.simulate.engine import Engine
from hpcplan.simulate.job_records import node_shares
from hpcplan.simulate.machine import Machine
from hpcplan.slurm.records import NodeRecord, PartitionRecord

__all__ = ["node_records", "partition_records"]


def node_records(engine: Engine) -> list[NodeRecord]:
    """Return every node, by name, with sinfo's word for its state (sinfo(1), NODE STATE CODES)."""
    machine = engine.machine
    used, completing = _used_cpus(engine), 0
    for job_id in engine.ending & engine.running.keys():
        completing |= engine.running[job_id].held_nodes
    records = []
    for group in machine.groups:
        mask = group.mask
        while mask:
            bit = mask & -mask
            mask ^= bit
            name = machine.names[bit.bit_length() - 1]
            cpus = used.get(bit, group.cpus if engine.busy & bit & ~completing else 0)
            state = _state(engine, bit, cpus, group.cpus, completing=bool(completing & bit))
            record = NodeRecord(
                name=name,
                state=_reserved(engine, bit) if state == "idle" else state,
                flags=_flags(engine, bit, completing),
                partitions=tuple(part.name for part in machine.partitions.values() if part.mask & bit),
                cpus=group.cpus,
                cpus_allocated=cpus,
                memory_bytes=group.memory_bytes,
                gres=group.gres,
                gpus=group.gpus,
                features=group.features,
                reason=engine.node_reasons.get(name),
            )
            records.append(record)
    return sorted(records, key=lambda record: record.name)


def _used_cpus(engine: Engine) -> dict[int, int]:
    """Return how many CPUs jobs have on each node that they hold, by its bit."""
    used: dict[int, int] = {}
    for job in engine.running.values():
        if job.id in engine.ending:
            continue  # its nodes are given out again when its processes are gone, and are no longer counted as its own
        nodes = job.nodes
        for share in node_shares(job, engine.machine):
            bit = nodes & -nodes
            nodes ^= bit
            used[bit] = used.get(bit, 0) + share.cpus
    return used


def _flags(engine: Engine, bit: int, completing: int) -> tuple[str, ...]:
    words = {"COMPLETING": completing, "DRAIN": engine.drained}
    return tuple(word for word, mask in words.items() if mask & bit)


def _state(engine: Engine, bit: int, used: int, cpus: int, *, completing: bool) -> str:
    if engine.down & bit:
        return "down"
    if engine.drained & bit:
        return "draining" if used or completing else "drained"
    if completing:
        return "completing"
    return "idle" if not used else "allocated" if used >= cpus else "mixed"


def _reserved(engine: Engine, bit: int) -> str:
    """Return the state of an idle node: whether a reservation has it now."""
    reservations = getattr(engine, "reservations", None)
    flags = [
        one.flags
        for one in (reservations.by_name.values() if reservations else ())
        if one.nodes & bit and one.start_s <= engine.now < one.end_s
    ]
    return "maint" if any("MAINT" in one for one in flags) else "reserved" if flags else "idle"


def partition_records(machine: Machine) -> list[PartitionRecord]:
    """Return every partition, by name."""
    return [
        PartitionRecord(
            name=part.name,
            state=part.state,
            nodes=machine.node_list(part.mask),
            total_nodes=part.mask.bit_count(),
            default=part.default,
            max_time_s=part.max_time_s,
            default_time_s=part.default_time_s,
            max_nodes=part.max_nodes,
        )
        for part in sorted(machine.partitions.values(), key=lambda part: part.name)
    ]
