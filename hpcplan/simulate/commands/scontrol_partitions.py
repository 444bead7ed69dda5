"""``scontrol update partition``: what a partition allows from now on (scontrol(1), PARTITIONS)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from hpcplan.hostlist import expand
from hpcplan.simulate.commands.reply import Refusal
from hpcplan.simulate.machine import Machine
from hpcplan.simulate.store import Session
from hpcplan.units import parse_slurm_time

__all__ = ["create", "delete", "update"]

_STATES: Final = {
    "up": {"up": True, "accepts": True}, "down": {"up": False, "accepts": True},
    "drain": {"up": True, "accepts": False}, "inactive": {"up": False, "accepts": False},
}  # fmt: skip


def update(session: Session, pairs: list[tuple[str, str]]) -> None:
    """Change the partition that is named.

    Raises:
        Refusal: in scontrol's words.
    """
    name = next(value for key, value in pairs if key in {"partition", "partitionname"})
    given = [(key, value) for key, value in pairs if key not in {"partition", "partitionname"}]
    if not given:
        raise Refusal("scontrol: error: No changes specified")
    changes: dict[str, Any] = {}
    for key, value in given:
        changes |= _change(key, value, session.machine)
    parts = session.machine.partitions
    if name not in parts:
        raise Refusal("slurm_update error: Invalid partition name specified")
    if changes.get("default"):
        for other in parts.values():
            if other.default and other.name != name:
                session.engine.set_partition(replace(other, default=False))
    session.engine.set_partition(replace(parts[name], **changes))
    session.machine_changed = True


def create(session: Session, pairs: list[tuple[str, str]]) -> None:
    """Make a partition; what is not given is as for one that slurm.conf says nothing of.

    Raises:
        Refusal: in scontrol's words.
    """
    from hpcplan.simulate.machine import PartitionShape

    name = next(value for key, value in pairs if key in {"partition", "partitionname"})
    if name in session.machine.partitions:
        raise Refusal("Error creating the partition: Duplicate partition name")
    template = next(iter(session.machine.partitions.values()))
    made = PartitionShape(name, 0, exclusive=template.exclusive)
    for key, value in pairs:
        if key not in {"partition", "partitionname"}:
            made = replace(made, **_change(key, value, session.machine))
    session.engine.set_partition(made)
    session.machine_changed = True


def delete(session: Session, word: str, name: str) -> None:
    """Delete a partition that no job names.

    Raises:
        Refusal: in scontrol's words.
    """
    if name not in session.machine.partitions:
        raise Refusal(f"delete_partition {word}: Invalid partition name specified")
    if any(name in (job.spec.partition or job.request.partition).split(",") for job in session.engine.jobs.values()):
        raise Refusal(f"delete_partition {word}: Partition is in use")
    session.engine.drop_partition(name)
    session.machine_changed = True


def _change(key: str, value: str, machine: Machine) -> dict[str, Any]:
    if key == "state":
        if value.lower() not in _STATES:
            raise Refusal(
                f"scontrol: error: Invalid input: state={value}\n"
                "scontrol: error: Acceptable State values are UP, DOWN, DRAIN and INACTIVE\n"
                "slurm_update error: No error"
            )
        return dict(_STATES[value.lower()])
    if key == "nodes":
        try:
            mask = machine.all_nodes if value.upper() == "ALL" else machine.mask_of(expand(value)) if value else 0
        except (KeyError, ValueError):
            raise Refusal("slurm_update error: Invalid node name specified") from None
        return {"mask": mask}
    if key in _FIELDS:
        field, read = _FIELDS[key]
        try:
            return {field: read(value)}
        except ValueError:
            raise Refusal(f"scontrol: error: Invalid input: {key}={value}\nslurm_update error: No error") from None
    raise Refusal(
        f"scontrol: error: Update of this parameter is not supported: {key}={value}\n\n"
        "scontrol: error: Request aborted\nslurm_update error: No error"
    )


def _count(value: str) -> int | None:
    return None if value.upper() in {"UNLIMITED", "INFINITE", "-1"} else int(value)


def _names(value: str) -> tuple[str, ...]:
    return () if value.upper() == "ALL" else tuple(word for word in value.split(",") if word)


def _yes(value: str) -> bool:
    if value.lower() not in {"yes", "no"}:
        raise ValueError(value)
    return value.lower() == "yes"


_FIELDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "allowaccounts": ("accounts", _names), "allowqos": ("qos", _names), "default": ("default", _yes),
    "defaulttime": ("default_time_s", parse_slurm_time), "gracetime": ("grace_time_s", int),
    "maxnodes": ("max_nodes", _count), "maxtime": ("max_time_s", parse_slurm_time), "minnodes": ("min_nodes", _count),
    "priorityjobfactor": ("priority_job_factor", int), "prioritytier": ("priority_tier", int),
    "qos": ("limits_qos", lambda value: value or None), "maxcpuspernode": ("max_cpus_per_node", _count),
}  # fmt: skip
