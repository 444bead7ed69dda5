"""The values in slurmrestd's JSON, whose shape changes with the API's version (0.0.38 to 0.0.44).

A number is a number, ``null``, or since 0.0.39 an object that says whether it is set; a state is a word or, since
0.0.40, a list of words. Anything that cannot be understood is *unknown* (``None``), never an error: a new release of
Slurm must not stop a tracker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hpcplan.slurm import values
from hpcplan.slurm.records import JobState

__all__ = [
    "MIB",
    "amount",
    "count",
    "exit_status",
    "flag_words",
    "job_state",
    "mapping",
    "microseconds",
    "minutes",
    "rows",
    "stamp",
    "tres_list",
    "word",
]  # fmt: skip

_UNSET: Final = 1 << 31  # what Slurm's own "not set" and "infinite" become where a release does not say so in words
MIB: Final = 1024**2

# Flags that Slurm's commands show in the place of a base state, in their order (squeue(1), JOB STATE CODES).
_SHOWN_FLAGS: Final = (
    JobState.COMPLETING, JobState.STAGE_OUT, JobState.CONFIGURING, JobState.POWER_UP_NODE, JobState.RESIZING,
    JobState.REQUEUED, JobState.REQUEUE_FED, JobState.REQUEUE_HOLD, JobState.SPECIAL_EXIT, JobState.STOPPED,
    JobState.REVOKED, JobState.RECONFIG_FAIL, JobState.RESV_DEL_HOLD, JobState.SIGNALING,
)  # fmt: skip


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def rows(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, none for anything else."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def amount(value: Any) -> float | None:
    """Return a number however it is wrapped, ``None`` where it is not set, infinite, or no number at all."""
    if isinstance(value, Mapping):
        if value.get("infinite") or value.get("set") is False:
            return None
        value = value.get("number")
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value == value and abs(value) != float("inf") else None


def count(value: Any) -> int | None:
    """Return a whole number that cannot be negative; Slurm's markers for "none" are ``None``."""
    found = amount(value)
    return None if found is None or found < 0 else int(found)


def stamp(value: Any) -> int | None:
    """Return a time in unix seconds; zero stands for none."""
    return count(value) or None


def minutes(value: Any) -> int | None:
    """Return seconds for a limit in minutes, ``None`` where there is none or it is not known."""
    found = count(value)
    return None if found is None or found >= _UNSET else found * 60


def microseconds(value: Any) -> float | None:
    """Return seconds for ``{"seconds": 1, "microseconds": 5}``."""
    parts = mapping(value)
    whole = amount(parts.get("seconds"))
    return None if whole is None else whole + (amount(parts.get("microseconds")) or 0) / 1e6


def word(value: Any) -> str | None:
    """Return a word that says something, else ``None``."""
    return values.text(value) if isinstance(value, str) else None


def flag_words(value: Any) -> tuple[str, ...]:
    """Return the words of a list, or of a text with commas."""
    found = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ()
    return tuple(part.strip() for part in found if isinstance(part, str) and part.strip())


def job_state(value: Any) -> JobState:
    """Return what Slurm's commands would show for a job's state: the base state, or the flag that stands before it."""
    found = [JobState.parse(part) for part in flag_words(value)]
    for shown in _SHOWN_FLAGS:
        if shown in found:
            return shown
    return found[0] if found else JobState.UNKNOWN


def exit_status(value: Any) -> tuple[int | None, int | None]:
    """Return exit code and signal of wait(2)'s status, bare or wrapped, or of an object with the two in it."""
    parts = mapping(value)
    if "return_code" in parts or "signal" in parts or "status" in parts:
        signal = mapping(parts.get("signal"))
        number = count(signal.get("id", signal.get("signal_id"))) or 0
        code = count(parts.get("return_code"))
        return (code if code is not None else 0 if number else None), number
    status = count(value)
    return (None, None) if status is None else ((status >> 8) & 0xFF, status & 0x7F)


def tres_list(value: Any) -> dict[str, int]:
    """Return trackable resources by name, memory in bytes, of slurmdb's list of ``{type, name, count}``."""
    found: dict[str, int] = {}
    for row in rows(value):
        kind, name, number = word(row.get("type")), word(row.get("name")), count(row.get("count"))
        if kind is None or number is None:
            continue
        found[f"{kind}/{name}" if name else kind] = number * MIB if kind == "mem" else number
    return found
