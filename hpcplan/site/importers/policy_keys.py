"""Partitions and scheduling as slurm.conf(5) writes them and ``scontrol show`` prints them: the keys are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hpcplan.errors import Problem
from hpcplan.site.importers.findings import PartitionFound, SchedulerFound
from hpcplan.site.importers.slurm_lines import ConfLine
from hpcplan.units import parse_slurm_time

__all__ = ["partition_found", "scheduler_found"]

_NO_LIMIT: Final = frozenset({"", "UNLIMITED", "INFINITE", "NONE"})
_STATES: Final = ("up", "down", "drain", "inactive")
_MODES: Final = ("off", "cancel", "requeue", "suspend", "gang")
_CPUS_PER_GPU: Final = re.compile(r"(?:^|,)\s*DefCpuPerGPU\s*=\s*(\d{1,6})", re.IGNORECASE)
_WEIGHT: Final = re.compile(r"\d{1,12}")


def partition_found(line: ConfLine, members: tuple[str, ...] | None, problems: list[Problem]) -> PartitionFound:
    """Return the partition of a line over these nodes (``None`` for all); what is odd is added to ``problems``.

    Raises:
        InputError: a time or number that Slurm could not read either.
    """
    state = (line.get("state") or "UP").lower()
    if state != "up":
        problems.append(line.place.note(f"the partition is {state.upper()}; it is imported all the same", "State"))
    sharing = (line.get("oversubscribe", "shared") or "").upper()
    return PartitionFound(
        line.pairs["partitionname"],
        line.place,
        members,
        default=(line.get("default") or "").upper() in ("YES", "TRUE"),
        max_time_s=_time(line, "maxtime"),
        default_time_s=_time(line, "defaulttime"),
        max_nodes=_limit(line, "maxnodes"),
        min_nodes=_limit(line, "minnodes"),
        qos=_names(line, "allowqos"),
        exclusive=True if sharing.startswith("EXCLUSIVE") else None,
        state=state if state in _STATES else "up",
        partition_qos=line.get("qos"),
        accounts=_names(line, "allowaccounts"),
        priority_tier=line.whole("prioritytier"),
        preempt_mode=_mode(line.get("preemptmode")),
        grace_time_s=_grace(line),
        default_memory_per_cpu_bytes=_mebibytes(line, "defmempercpu"),
        default_memory_per_node_bytes=_mebibytes(line, "defmempernode"),
        default_cpus_per_gpu=_cpus_per_gpu(line),
    )


def _names(line: ConfLine, key: str) -> tuple[str, ...]:
    return tuple(word for word in (line.get(key) or "").split(",") if word and word.upper() != "ALL")


def _limit(line: ConfLine, key: str) -> int | None:
    return None if (line.get(key) or "").upper() in _NO_LIMIT else line.whole(key) or None


def _mebibytes(line: ConfLine, key: str) -> int | None:
    value = _limit(line, key)
    return value * 1024**2 if value else None


def _cpus_per_gpu(line: ConfLine) -> int | None:
    if (direct := line.get("defcpupergpu")) is not None and _WEIGHT.fullmatch(direct):
        return int(direct) or None
    match = _CPUS_PER_GPU.search(line.get("jobdefaults") or "")
    return int(match[1]) or None if match else None


def _grace(line: ConfLine) -> float | None:
    value = line.get("gracetime") or ""
    return float(value) if re.fullmatch(r"\d{1,9}", value) and int(value) else None


def _mode(value: str | None) -> str | None:
    """Return a PreemptMode of the schema; GANG,SUSPEND in any order is one of them."""
    words = [word for word in (value or "").lower().replace(" ", "").split(",") if word in _MODES]
    if {"gang", "suspend"} <= set(words):
        return "suspend,gang"
    return words[0] if words else None


def _time(line: ConfLine, key: str) -> int | None:
    try:
        return parse_slurm_time(line.get(key) or "") or None
    except ValueError as error:
        raise line.error(key, str(error)) from None


def scheduler_found(settings: Mapping[str, str], origin: str) -> SchedulerFound | None:
    """Return how the controller decides, from settings by name in lower case; ``None`` where they say nothing of it."""
    told: dict[str, Any] = {}
    kind = settings.get("schedulertype", "").lower().removeprefix("sched/")
    if kind in ("backfill", "builtin"):
        told["scheduler"] = kind
    priority = settings.get("prioritytype", "").lower().removeprefix("priority/")
    if priority in ("multifactor", "basic"):
        told["priority"] = priority
    preempt = settings.get("preempttype", "").lower().removeprefix("preempt/")
    if preempt in ("none", "qos", "partition_prio"):
        told["preempt_type"] = preempt
    if mode := _mode(settings.get("preemptmode")):
        told["preempt_mode"] = mode
    pairs = [word.strip().partition("=") for word in settings.get("schedulerparameters", "").split(",") if word.strip()]
    if pairs:
        told["parameters"] = tuple((name, value) for name, _, value in pairs)
    weights = [
        (key.removeprefix("priorityweight"), int(value))
        for key, value in settings.items()
        if key.startswith("priorityweight") and _WEIGHT.fullmatch(value) and int(value)
    ]
    if weights:
        told["weights"] = tuple(sorted(weights))
    return SchedulerFound(origin, **told) if told else None
