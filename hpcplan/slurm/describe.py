"""What a running Slurm says of its nodes, partitions, topology and scheduling, as text for a site importer.

Where scontrol is installed its text is taken, whose keys have been the same since 20.11, unlike those of ``--json``;
else what sinfo prints, as JSON where it knows how to; else what pyslurm knows, which has no topology.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hpcplan.errors import InputError, SlurmError, SlurmUnreachableError
from hpcplan.slurm.command import CommandBackend
from hpcplan.slurm.pyslurm import connect, probe
from hpcplan.slurm.records import NodeRecord, PartitionRecord
from hpcplan.units import format_slurm_time

__all__ = ["KINDS", "describe", "lines_of"]

KINDS: Final = ("auto", "command", "pyslurm")
_LIMIT_S: Final = 60.0
_SHOW: Final = (
    ("scontrol show config", ("scontrol", "show", "config")),
    ("scontrol show node", ("scontrol", "--all", "--oneliner", "show", "node")),
    ("scontrol show partition", ("scontrol", "--all", "--oneliner", "show", "partition")),
)
_TOPOLOGY: Final = ("scontrol show topology", ("scontrol", "show", "topology"))


def describe(kind: str = "auto", commands: CommandBackend | None = None) -> list[tuple[str, str]]:
    """Return answers, each with what to call it.

    Args:
        kind: ``command``, ``pyslurm``, or ``auto`` for the first of them that works here.
        commands: how Slurm's commands are reached; as this process's environment says if not given.

    Raises:
        InputError: no such kind.
        SlurmUnreachableError: neither answers.
        SlurmError: Slurm refused.
    """
    if kind not in KINDS:
        raise InputError(f"no way to ask Slurm is called {kind!r}; known: {', '.join(KINDS)}")
    backend = CommandBackend() if commands is None else commands
    if kind != "pyslurm" and backend.has("scontrol"):
        return list(_scontrol(backend))
    if kind != "pyslurm" and backend.has("sinfo"):
        return [_sinfo(backend)]
    found = probe()
    if kind == "auto" and not found.works:
        hint = "Run this on a node of the cluster, or import files: hpcplan site import --slurm-conf FILE"
        raise SlurmUnreachableError("neither scontrol nor sinfo is installed here, nor pyslurm", hint=hint)
    reached = connect(found)
    info = reached.ping()
    lines = [f"ClusterName = {info.cluster}", f"SLURM_VERSION = {info.version}"]
    return [("pyslurm", "\n".join([*lines, *lines_of(reached.nodes(), reached.partitions())]) + "\n")]


def _scontrol(backend: CommandBackend) -> Iterator[tuple[str, str]]:
    for label, command in _SHOW:
        yield label, backend.commands.answer(*command, limit_s=_LIMIT_S)
    label, command = _TOPOLOGY
    try:
        text = backend.commands.answer(*command, limit_s=_LIMIT_S)
    except SlurmUnreachableError:
        raise
    except SlurmError:
        return  # the topology plugin that is on has none to show
    if "=" in text:
        yield label, text


def _sinfo(backend: CommandBackend) -> tuple[str, str]:
    try:
        return "sinfo --json", backend.commands.answer("sinfo", "--all", "--json", limit_s=_LIMIT_S)
    except SlurmUnreachableError:
        raise
    except SlurmError:  # before 21.08, or built without a JSON serializer
        return "sinfo", backend.commands.answer("sinfo", "--all", "--Node", "--long", limit_s=_LIMIT_S)


def lines_of(nodes: Iterable[NodeRecord], partitions: Iterable[PartitionRecord]) -> Iterator[str]:
    """Yield records as the lines that scontrol prints of them, as far as they know."""
    for node in nodes:
        state = "+".join([node.state, *node.flags]).upper()
        mebibytes = None if node.memory_bytes is None else node.memory_bytes // 1024**2
        yield _line(NodeName=node.name, CPUTot=node.cpus, RealMemory=mebibytes, Gres=node.gres, State=state,
                    AvailableFeatures=",".join(node.features), Partitions=",".join(node.partitions))  # fmt: skip
    for part in partitions:
        limit = None if part.max_time_s is None else format_slurm_time(part.max_time_s)
        default = None if part.default_time_s is None else format_slurm_time(part.default_time_s)
        yield _line(
            PartitionName=part.name, Default="YES" if part.default else "NO", MaxTime=limit, DefaultTime=default,
            MaxNodes=part.max_nodes, State=part.state.upper(), Nodes=part.nodes,
        )  # fmt: skip


def _line(**pairs: object) -> str:
    return " ".join(f"{key}={value}" for key, value in pairs.items() if value not in (None, ""))
