"""sbatch's options as a table: what each is called, which Slurm brought it, and which fields of a job it sets.

Names and meanings follow sbatch(1). Options without a reader are known and change nothing that the mock cluster does
(mail, binding, file modes); those that would change it, and that it cannot honour, are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from hpcplan.errors import SlurmError
from hpcplan.hostlist import expand
from hpcplan.units import parse_slurm_time

__all__ = ["OPTIONS", "SHORT_OPTIONS", "Option", "fields_of"]

Reader = Callable[[str, str], dict[str, Any]]
"""Given the option's name and its value, the fields of a job specification."""

_MEMORY: Final = {"": 1024**2, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAX_TASKS: Final = 1001  # slurm.conf(5), MaxArraySize: the default


@dataclass(frozen=True, slots=True)
class Option:
    """One option; ``since`` is the first Slurm that knows it, ``None`` for all that are in use."""

    name: str
    short: str | None = None
    argument: Literal["none", "required", "optional"] = "required"
    reader: Reader | None = None
    since: str | None = None
    refused: str | None = None

    def exists_in(self, version: str | None) -> bool:
        """Whether a Slurm of this version (``23.11``, unknown if ``None``) has the option."""
        return self.since is None or version is None or _release(version) >= _release(self.since)


def _release(version: str) -> tuple[int, int]:
    year, month = version.split(".")[:2]
    return int(year), int(month)


def fields_of(option: Option, value: str | None) -> dict[str, Any]:
    """Return the fields that the option sets.

    Raises:
        SlurmError: a value that sbatch refuses, or an option that the mock cluster cannot honour.
    """
    if option.refused is not None:
        raise SlurmError(option.refused)
    return {} if option.reader is None else option.reader(option.name, value or "")


def _invalid(name: str) -> SlurmError:
    return SlurmError(f"sbatch: error: Invalid --{name} specification")


def _text(field: str) -> Reader:
    return lambda name, value: {field: value}


def _flag(**fields: Any) -> Reader:
    return lambda name, value: dict(fields)


def _number(field: str, least: int = 1) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        if not re.fullmatch(r"\d{1,9}", value) or int(value) < least:
            raise SlurmError(f'sbatch: error: Invalid numeric value "{value}" for --{name}.')
        return {field: int(value)}

    return read


def _count(text: str) -> int:
    """Return a node count; ``k`` and ``m`` are binary, as sbatch has them."""
    match = re.fullmatch(r"(\d{1,9})([kKmM]?)", text)
    if match is None:
        raise SlurmError(f'sbatch: error: "{text}" is not a valid node count')
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]


def _nodes(name: str, value: str) -> dict[str, Any]:
    low, _, high = value.partition("-")
    minimum = _count(low)
    maximum = _count(high) if high else minimum
    if maximum < minimum:
        raise SlurmError(f"sbatch: error: Maximum node count {maximum} is less than minimum node count {minimum}")
    return {"nodes_min": minimum, "nodes_max": maximum}


def _time(name: str, value: str) -> dict[str, Any]:
    try:
        seconds = parse_slurm_time(value)
    except ValueError:
        raise _invalid(name) from None
    return {"time_limit_s": -(-(seconds or 0) // 60) * 60}  # limits count in whole minutes, rounded up (sbatch(1))


def _memory(field: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        match = re.fullmatch(r"(\d{1,15})([KMGT]?)B?", value.upper())
        if match is None:
            raise _invalid(name)
        given = dict.fromkeys(("memory_per_node_bytes", "memory_per_cpu_bytes", "memory_per_gpu_bytes"))
        return {**given, field: int(match[1]) * _MEMORY[match[2]]}

    return read


def _gpu_count(name: str, value: str) -> tuple[str | None, int]:
    kind, _, count = value.rpartition(":")
    if not re.fullmatch(r"\d{1,9}", count):
        if count and not kind:
            return count, 1
        raise _invalid(name)
    return kind or None, int(count)


def _gpus(field: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        kind, count = _gpu_count(name, value.removeprefix("gpu:"))
        return {field: count} if kind is None else {field: count, "gpu_type": kind}

    return read


def _gres(name: str, value: str) -> dict[str, Any]:
    """Read ``gpu:8``, ``gpu:h100:8``, ``gpu`` or ``none``; the nodes of a site file have no other kind."""
    given: dict[str, Any] = {}
    for item in value.removeprefix("gres:").split(","):
        if item in {"", "none"}:
            continue
        kind, _, rest = item.partition(":")
        if kind != "gpu":
            raise SlurmError("sbatch: error: Invalid generic resource (gres) specification")
        gpu_type, count = _gpu_count(name, rest) if rest else (None, 1)
        if given and (gpu_type is None) != ("gpu_type" not in given):
            raise SlurmError("sbatch: error: Invalid GRES specification (with and without type identification)")
        given["gpus_per_node"] = given.get("gpus_per_node", 0) + count
        if gpu_type is not None:
            given["gpu_type"] = gpu_type
    return given


def _hosts(field: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        try:
            expand(value)
        except ValueError as error:
            raise SlurmError(f"sbatch: error: Invalid node list: {value}", hint=str(error)) from None
        return {field: value}

    return read


def _array(name: str, value: str) -> dict[str, Any]:
    """Read ``0-15:4%2``, ``1,3,5-7``; at most ``MaxArraySize`` (1,001, Slurm's default) is the largest index + 1."""
    invalid = SlurmError("sbatch: error: Batch job submission failed: Invalid job array specification")
    indexes, _, limit = value.partition("%")
    tasks: set[int] = set()
    for item in indexes.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?(?::(\d{1,9}))?", item.strip())
        if match is None:
            raise invalid
        low, high, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if high < low or step < 1 or high >= _MAX_TASKS:
            raise invalid
        tasks.update(range(low, high + 1, step))
    if limit and not (limit.isdecimal() and int(limit) > 0):
        raise invalid
    return {"array": tuple(sorted(tasks)), "array_limit": int(limit) if limit else None}


def _kill_on_invalid_dep(name: str, value: str) -> dict[str, Any]:
    if value.lower() not in {"yes", "no"}:
        raise _invalid(name)
    return {"kill_on_invalid_dep": value.lower() == "yes"}


_SIGNALS: Final = frozenset({
    "HUP", "INT", "QUIT", "ABRT", "KILL", "ALRM", "TERM", "USR1", "USR2", "URG", "CONT", "STOP", "TSTP", "TTIN", "TTOU",
    "XCPU",
})  # fmt: skip


def _signal(name: str, value: str) -> dict[str, Any]:
    match = re.fullmatch(r"(?:[RB]{1,2}:)?(\w+)(?:@(\d{1,5}))?", value)
    if match is None or not (match[1].isdecimal() or match[1].upper().removeprefix("SIG") in _SIGNALS):
        raise _invalid(name)
    return {"signal": value}


def _exclusive(name: str, value: str) -> dict[str, Any]:
    if value not in {"", "user", "mcs", "topo"}:
        raise _invalid(name)
    return {"exclusive": True, "exclusive_topo": value == "topo"}


def _open_mode(name: str, value: str) -> dict[str, Any]:
    if value[:1].lower() not in {"a", "t"}:
        raise _invalid(name)
    return {"open_mode": value}


def _switches(name: str, value: str) -> dict[str, Any]:
    count = value.partition("@")[0]
    if not count.isdecimal():
        raise SlurmError(f'sbatch: error: Invalid numeric value "{count}" for --{name}.')
    return {"switches": value}


def _segment(name: str, value: str) -> dict[str, Any]:
    if not re.fullmatch(r"\d{1,9}", value):
        raise _invalid(name)
    return {"segment": int(value) or None}


def _nice(name: str, value: str) -> dict[str, Any]:
    if value and not re.fullmatch(r"[-+]?\d{1,9}", value):
        raise _invalid(name)
    return {"nice": int(value) if value else 100}


def _without(name: str) -> str:
    return f"sbatch: error: the mock cluster does not support --{name}"


_SET: Final = (
    Option("account", "A", reader=_text("account")),
    Option("array", "a", reader=_array),
    Option("begin", "b", reader=_text("begin")),
    Option("chdir", "D", reader=_text("work_dir")),
    Option("consolidate-segments", argument="none", since="25.05", reader=_flag(consolidate_segments=True)),
    Option("comment", reader=_text("comment")),
    Option("constraint", "C", reader=_text("constraint")),
    Option("cpus-per-task", "c", reader=_number("cpus_per_task")),
    Option("dependency", "d", reader=_text("dependency")),
    Option("error", "e", reader=_text("error")),
    Option("exclude", "x", reader=_hosts("exclude")),
    Option("exclusive", argument="optional", reader=_exclusive),
    Option("gpus", "G", reader=_gpus("gpus")),
    Option("gpus-per-node", reader=_gpus("gpus_per_node")),
    Option("gpus-per-task", reader=_gpus("gpus_per_task")),
    Option("gres", reader=_gres),
    Option("hold", "H", "none", reader=_flag(hold=True)),
    Option("job-name", "J", reader=_text("name")),
    Option("kill-on-invalid-dep", reader=_kill_on_invalid_dep),
    Option("licenses", "L", reader=_text("licenses")),
    Option("mem", reader=_memory("memory_per_node_bytes")),
    Option("mem-per-cpu", reader=_memory("memory_per_cpu_bytes")),
    Option("mem-per-gpu", reader=_memory("memory_per_gpu_bytes")),
    Option("nice", argument="optional", reader=_nice),
    Option("no-requeue", argument="none", reader=_flag(requeue=False)),
    Option("nodelist", "w", reader=_hosts("nodelist")),
    Option("nodes", "N", reader=_nodes),
    Option("ntasks", "n", reader=_number("ntasks")),
    Option("ntasks-per-node", reader=_number("ntasks_per_node", least=0)),
    Option("open-mode", reader=_open_mode),
    Option("output", "o", reader=_text("output")),
    Option("partition", "p", reader=_text("partition")),
    Option("priority", reader=_number("priority", least=0)),
    Option("qos", "q", reader=_text("qos")),
    Option("requeue", argument="none", reader=_flag(requeue=True)),
    Option("reservation", reader=_text("reservation")),
    Option("spread-segments", argument="none", since="25.05", reader=_flag(spread_segments=True)),
    Option("segment", since="24.05", reader=_segment),
    Option("signal", reader=_signal),
    Option("switches", reader=_switches),
    Option("time", "t", reader=_time),
)

_REFUSED: Final = (
    Option("clusters", "M", refused=_without("clusters")),
    Option("deadline", refused=_without("deadline")),
    Option("nodefile", "F", refused=_without("nodefile")),
    Option("wrap", refused=_without("wrap")),
)

_WITHOUT_EFFECT: Final = (
    *(Option(name) for name in (
        "bb", "bbf", "batch", "cluster-constraint", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "delay-boot",
        "export", "export-file", "gid", "gpu-bind", "gpu-freq", "gpus-per-socket", "gres-flags", "hint", "mail-type",
        "mail-user", "mcs-label", "mem-bind", "mincpus", "network", "ntasks-per-core", "ntasks-per-gpu",
        "ntasks-per-socket", "power", "profile", "sockets-per-node", "thread-spec", "threads-per-core", "time-min",
        "tmp", "uid", "wait-all-nodes", "wckey",
    )),
    *(Option(name, argument="none") for name in (
        "contiguous", "ignore-pbs", "parsable", "reboot", "spread-job", "test-only", "usage", "use-min-nodes",
    )),
    *(Option(name, argument="optional") for name in ("get-user-env", "propagate")),
    *(Option(name, short) for name, short in (
        ("core-spec", "S"), ("distribution", "m"), ("extra-node-info", "B"), ("input", "i"),
    )),
    *(Option(name, short, "none") for name, short in (
        ("help", "h"), ("overcommit", "O"), ("oversubscribe", "s"), ("quiet", "Q"), ("verbose", "v"), ("version", "V"),
        ("wait", "W"),
    )),
    Option("no-kill", "k", "optional"),
    Option("acctg-freq"),
    Option("container", since="21.08"),
    Option("prefer", since="22.05"),
    Option("container-id", since="23.02"),
    Option("tres-bind", since="23.02"),
    Option("extra", since="23.02"),
    Option("tres-per-task", since="23.11"),
    Option("resv-ports", argument="optional", since="23.11"),
    Option("stepmgr", argument="none", since="24.05"),
    Option("oom-kill-step", argument="optional", since="24.05"),
)  # fmt: skip

OPTIONS: Final = (*_SET, *_REFUSED, *_WITHOUT_EFFECT)
SHORT_OPTIONS: Final = {option.short: option for option in OPTIONS if option.short is not None}
