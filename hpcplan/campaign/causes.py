"""Why a job ended badly, from what Slurm says of it and, where Slurm only says FAILED, from the end of its log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

from hpcplan.hostlist import expand
from hpcplan.slurm.records import JobRecord, JobState, NodeRecord

__all__ = ["Cause", "cause_of", "failed_nodes", "log_end"]

_LOG_END_BYTES: Final = 256 * 1024


class Cause(StrEnum):
    """What a policy tells apart."""

    NODE_FAILURE = "node failure"
    PREEMPTION = "preemption"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out of memory"
    APPLICATION_ERROR = "application error"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


_OF_STATE: Final = {
    JobState.BOOT_FAIL: Cause.NODE_FAILURE,
    JobState.LAUNCH_FAILED: Cause.NODE_FAILURE,
    JobState.NODE_FAIL: Cause.NODE_FAILURE,
    JobState.RECONFIG_FAIL: Cause.NODE_FAILURE,
    JobState.PREEMPTED: Cause.PREEMPTION,
    JobState.TIMEOUT: Cause.TIMEOUT,
    JobState.DEADLINE: Cause.TIMEOUT,
    JobState.OUT_OF_MEMORY: Cause.OUT_OF_MEMORY,
    JobState.CANCELLED: Cause.CANCELLED,
    JobState.REVOKED: Cause.CANCELLED,
}
# What a trainer's log holds, most telling first. Slurm itself sees only a program that left with an error.
_IN_LOG: Final = (
    (Cause.OUT_OF_MEMORY, re.compile(
        r"CUDA out of memory|OutOfMemoryError|HIP out of memory|CUDA_ERROR_OUT_OF_MEMORY|oom[-_]kill|Out Of Memory"
    )),
    (Cause.NODE_FAILURE, re.compile(
        r"Node failure on |DUE TO NODE FAILURE|uncorrectable ECC error|CUDA error: unspecified launch failure"
        r"|fallen off the bus|Xid \(PCI:|requeued \d+ times"
    )),
    (Cause.PREEMPTION, re.compile(r"DUE TO PREEMPTION")),
    (Cause.TIMEOUT, re.compile(r"DUE TO TIME LIMIT|was the last job of the chain, and training stands at step")),
)  # fmt: skip
_NODE_IN_LOG: Final = re.compile(r"Node failure on ([\w.\[\],-]+)")


def log_end(path: Path, *, limit_bytes: int = _LOG_END_BYTES) -> str:
    """Return the end of a log, empty where there is none to read."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - limit_bytes))
            return stream.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return ""


def cause_of(record: JobRecord, log: str = "") -> Cause:
    """Return why a job ended that did not complete. ``log`` is the end of its log."""
    said = _OF_STATE.get(record.state)
    if said is not None:
        return said
    if record.state is not JobState.FAILED:
        return Cause.UNKNOWN
    for cause, pattern in _IN_LOG:
        if pattern.search(log):
            return cause
    return Cause.APPLICATION_ERROR


def failed_nodes(record: JobRecord, nodes: Iterable[NodeRecord], log: str = "") -> list[str]:
    """Return which of a job's nodes failed: those that its log names, else those that are down now, else, where it had
    one node alone, that. Of many nodes none is blamed for what another did.
    """
    try:
        own = expand(record.node_list or "")
        named = [node for found in _NODE_IN_LOG.findall(log) for node in expand(found) if node in own]
    except ValueError:
        return []
    if named:
        return sorted(set(named))
    down = [
        node.name for node in nodes if node.name in own and (node.state in ("down", "error") or "fail" in node.flags)
    ]
    return sorted(down) or (list(own) if len(own) == 1 else [])
