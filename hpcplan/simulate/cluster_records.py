"""The mock cluster's nodes and partitions as the records that every backend gives."""

from __future__ import annotations

from hpcplan.simulate.engine import Engine
from hpcplan.simulate.machine import Machine
from hpcplan.slurm.records import NodeRecord, PartitionRecord

__all__ = ["node_records", "partition_records"]


def node_records(engine: Engine) -> list[NodeRecord]:
    """Return every node, by name, with sinfo's word for its state (sinfo(1), NODE STATE CODES)."""
    machine = engine.machine
    records = []
    for group in machine.groups:
        mask = group.mask
        while mask:
            bit = mask & -mask
            mask ^= bit
            name = machine.names[bit.bit_length() - 1]
            allocated = bool(engine.busy & bit)
            record = NodeRecord(
                name=name,
                state=_state(engine, bit, allocated),
                flags=("DRAIN",) if engine.drained & bit else (),
                partitions=tuple(part.name for part in machine.partitions.values() if part.mask & bit),
                cpus=group.cpus,
                cpus_allocated=group.cpus if allocated else 0,
                memory_bytes=group.memory_bytes,
                gres=group.gres,
                gpus=group.gpus,
                features=group.features,
                reason=engine.node_reasons.get(name),
            )
            records.append(record)
    return sorted(records, key=lambda record: record.name)


def _state(engine: Engine, bit: int, allocated: bool) -> str:
    if engine.down & bit:
        return "down"
    if engine.drained & bit:
        return "draining" if allocated else "drained"
    return "allocated" if allocated else "idle"


def partition_records(machine: Machine) -> list[PartitionRecord]:
    """Return every partition, by name."""
    return [
        PartitionRecord(
            name=part.name,
            state="up" if part.up else "down",
            nodes=machine.node_list(part.mask),
            total_nodes=part.mask.bit_count(),
            default=part.default,
            max_time_s=part.max_time_s,
            default_time_s=part.default_time_s,
            max_nodes=part.max_nodes,
        )
        for part in sorted(machine.partitions.values(), key=lambda part: part.name)
    ]
