"""scontrol's one-line records of nodes and partitions, and the controller's own settings.

Every record is one line of ``Key=value`` pairs (scontrol(1), ``--oneliner``). A value may hold spaces, and what people
write (Reason, Comment, Extra) comes after everything that is read here, so the first of two equal keys is the true one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hpcplan.errors import SlurmError
from hpcplan.slurm import values
from hpcplan.slurm.records import NodeRecord, PartitionRecord
from hpcplan.units import parse_slurm_time

__all__ = ["natural", "node_state", "nodes", "partitions", "settings"]

_KEY: Final = re.compile(r"(?:^| )([A-Za-z][A-Za-z0-9_/:]*)=")
_FLAG_OF_SUFFIX: Final = {
    "*": "not_responding", "~": "powered_down", "#": "powering_up", "%": "powering_down", "!": "power_down",
    "$": "maint", "@": "reboot_requested", "^": "reboot_issued", "-": "planned",
}  # fmt: skip
_WORD: Final = {"maintenance": "maint"}


def _pairs(line: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    keys = list(_KEY.finditer(line))
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        pairs.setdefault(key[1], line[key.end() : following.start() if following else len(line)].strip())
    return pairs


def _records(answer: str, key: str) -> list[dict[str, str]]:
    return [_pairs(line) for line in answer.splitlines() if line.startswith(f"{key}=")]


def node_state(word: str) -> tuple[str, tuple[str, ...]]:
    """Return base state and flags, in lower case: ``DOWN*+DRAIN`` is ``("down", ("not_responding", "drain"))``.

    The suffixes are those of sinfo(1), section "NODE STATE CODES".
    """
    base, *flags = (_WORD.get(part, part) for part in word.lower().split("+"))
    found: list[str] = []
    while base and base[-1] in _FLAG_OF_SUFFIX:
        found.append(_FLAG_OF_SUFFIX[base[-1]])
        base = base[:-1]
    return base, tuple(dict.fromkeys([*found, *flags]))


def nodes(answer: str) -> list[NodeRecord]:
    """Return the nodes in the answer to ``scontrol show node --oneliner``, by name.

    Raises:
        SlurmError: the answer cannot be read.
    """
    try:
        found = [_node(pairs) for pairs in _records(answer, "NodeName")]
    except (ValueError, KeyError) as error:
        raise SlurmError(f"scontrol: the nodes cannot be read: {error}") from None
    return sorted(found, key=lambda node: natural(node.name))


def _node(pairs: Mapping[str, str]) -> NodeRecord:
    state, flags = node_state(pairs["State"])
    gres = values.text(pairs.get("Gres", ""))
    return NodeRecord(
        name=pairs["NodeName"],
        state=state,
        flags=flags,
        partitions=_list(pairs.get("Partitions", "")),
        cpus=values.number(pairs.get("CPUTot", "")),
        cpus_allocated=values.number(pairs.get("CPUAlloc", "")),
        memory_bytes=values.size_bytes(pairs.get("RealMemory", ""), unit="M"),
        gres=gres,
        gpus=values.gres_gpus(gres or ""),
        features=_list(pairs.get("ActiveFeatures", "")),
        reason=values.text(pairs.get("Reason", "")),
    )


def partitions(answer: str) -> list[PartitionRecord]:
    """Return the partitions in the answer to ``scontrol show partition --oneliner``, by name.

    Raises:
        SlurmError: the answer cannot be read.
    """
    try:
        found = [_partition(pairs) for pairs in _records(answer, "PartitionName")]
    except (ValueError, KeyError) as error:
        raise SlurmError(f"scontrol: the partitions cannot be read: {error}") from None
    return sorted(found, key=lambda partition: partition.name)


def _partition(pairs: Mapping[str, str]) -> PartitionRecord:
    max_nodes = values.text(pairs.get("MaxNodes", "")) or "UNLIMITED"
    return PartitionRecord(
        name=pairs["PartitionName"],
        state=pairs["State"].lower(),
        nodes=values.text(pairs.get("Nodes", "")) or "",
        total_nodes=values.number(pairs.get("TotalNodes", "")),
        default=pairs.get("Default", "").upper() == "YES",
        max_time_s=parse_slurm_time(pairs.get("MaxTime", "")),
        default_time_s=parse_slurm_time(pairs.get("DefaultTime", "")),
        max_nodes=None if max_nodes.upper() in ("UNLIMITED", "INFINITE") else int(max_nodes),
    )


def settings(answer: str) -> dict[str, str]:
    """Return the settings in the answer to ``scontrol show config``, without those that have no value."""
    lines = (line.partition("=") for line in answer.splitlines())
    return {key.strip(): found for key, equals, value in lines if equals and (found := values.text(value)) is not None}


def _list(words: str) -> tuple[str, ...]:
    return tuple(word for word in (values.text(words) or "").split(",") if word)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts n2 before n10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name) if part]
