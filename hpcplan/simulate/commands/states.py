"""Job states as people type them, and as Slurm abbreviates them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hpcplan.simulate.commands.reply import Refusal
from hpcplan.slurm.records import JobState

__all__ = ["compact", "read_states"]

_COMPACT: Final = {
    "BOOT_FAIL": "BF", "CANCELLED": "CA", "COMPLETED": "CD", "CONFIGURING": "CF", "COMPLETING": "CG",
    "DEADLINE": "DL", "FAILED": "F", "NODE_FAIL": "NF", "OUT_OF_MEMORY": "OOM", "PENDING": "PD", "PREEMPTED": "PR",
    "RUNNING": "R", "RESV_DEL_HOLD": "RD", "REQUEUE_FED": "RF", "REQUEUE_HOLD": "RH", "REQUEUED": "RQ",
    "RESIZING": "RS", "REVOKED": "RV", "SIGNALING": "SI", "SPECIAL_EXIT": "SE", "STAGE_OUT": "SO", "STOPPED": "ST",
    "SUSPENDED": "S", "TIMEOUT": "TO",
}  # fmt: skip
_VALID: Final = (
    "PENDING,RUNNING,SUSPENDED,COMPLETED,CANCELLED,FAILED,TIMEOUT,NODE_FAIL,PREEMPTED,BOOT_FAIL,DEADLINE,OUT_OF_MEMORY,"
    "COMPLETING,CONFIGURING,RESIZING,RESV_DEL_HOLD,REQUEUED,REQUEUE_FED,REQUEUE_HOLD,REVOKED,SIGNALING,SPECIAL_EXIT,"
    "STAGE_OUT,STOPPED"
)


def compact(state: JobState) -> str:
    """Return ``PD`` for PENDING."""
    return _COMPACT.get(state.value, state.value[:2])


def read_states(command: str, words: Iterable[str]) -> set[JobState] | None:
    """Return the states named, ``None`` where none is.

    Raises:
        Refusal: a word that is no state.
    """
    found: set[JobState] = set()
    for word in words:
        if not word.strip():
            continue
        if word.lower() == "all":
            return set(JobState)
        state = JobState.parse(word.strip())
        if state is JobState.UNKNOWN:
            problem = f"{command}: error: Invalid job state specified: {word}"
            if command == "squeue":
                problem += f"\n{command}: error: Valid job states include: {_VALID}\n"
            raise Refusal(problem)
        found.add(state)
    return found or None
