"""The values that Slurm's commands print, one at a time: times, exit codes, trackable resources.

What Slurm prints for *not known* or *not set* (``Unknown``, ``N/A``, ``None``, ``(null)``) becomes ``None`` everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

__all__ = ["cpu_seconds", "exit_status", "gpu_count", "gres_gpus", "number", "size_bytes", "stamp", "text", "tres"]

_NOTHING: Final = frozenset({"", "(null)", "n/a", "none", "unknown", "none assigned", "invalid", "not_set", "not set"})
_LONGEST_NOTHING: Final = max(map(len, _NOTHING))
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)", re.IGNORECASE)
_POWER: Final[dict[str, int]] = {unit: 1024**power for power, unit in enumerate(["", "K", "M", "G", "T", "P", "E"])}
_CPU: Final = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_GRES: Final = re.compile(r"(?:gres[:/])?gpu(?::(?P<type>[^:,=()]+))??(?:[:=](?P<count>\d+))?(?:\([^)]*\))?")


def text(word: str) -> str | None:
    """Return the word, or ``None`` for one of those that mean that there is none."""
    found = word.strip()
    return None if len(found) <= _LONGEST_NOTHING and found.lower() in _NOTHING else found


def number(word: str) -> int | None:
    """Return a whole number, ``None`` for a word that means none.

    Raises:
        ValueError: neither.
    """
    if word.isdecimal():  # nearly always; thousands of jobs have a dozen each
        return int(word)
    found = text(word)
    return None if found is None else int(found)


def stamp(word: str) -> int | None:
    """Return a time in unix seconds, as ``SLURM_TIME_FORMAT=%s`` has it printed; zero stands for none."""
    return number(word) or None


def size_bytes(word: str, *, unit: str = "") -> int | None:
    """Return bytes for ``2000M``, ``4108K`` or ``1.5T``, powers of 1,024; ``unit`` is that of a bare number."""
    found = text(word)
    if found is None:
        return None
    match = _SIZE.fullmatch(found)
    if match is None:
        raise ValueError(f"{word!r} is not an amount of memory")
    return round(float(match[1]) * _POWER[match[2].upper() or unit])


def cpu_seconds(word: str) -> float | None:
    """Return seconds for sacct's ``[D-][HH:]MM:SS[.mmm]`` (sacct(1), TotalCPU)."""
    found = text(word)
    if found is None:
        return None
    match = _CPU.fullmatch(found)
    if match is None:
        raise ValueError(f"{word!r} is not a time span")
    days, hours, minutes, seconds = match.groups()
    return int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


def exit_status(word: str) -> tuple[int | None, int | None]:
    """Return exit code and signal: ``1:0`` is (1, 0); a bare number is the status that wait(2) gives, 256 is (1, 0)."""
    found = text(word)
    if found is None:
        return None, None
    code, colon, signal = found.partition(":")
    if colon:
        return int(code), int(signal)
    status = int(code)
    return (status >> 8) & 0xFF, status & 0x7F


def tres(words: str) -> dict[str, int]:
    """Return trackable resources by name, memory in bytes: ``cpu=8,mem=2000M,gres/gpu=64`` (slurm.conf(5)).

    What is no amount, such as the CPU time in a step's usage, is left out.
    """
    return dict(_tres(words))


@lru_cache(maxsize=1024)  # thousands of jobs of one campaign ask for the same
def _tres(words: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in (text(words) or "").split(","):
        name, equals, amount = part.partition("=")
        match = _SIZE.fullmatch(amount) if equals else None
        if match is not None:
            found[name.strip()] = round(float(match[1]) * _POWER[match[2].upper()])
    return found


def gpu_count(resources: Mapping[str, int]) -> int | None:
    """Return the GPUs among trackable resources, ``None`` where Slurm does not track them (AccountingStorageTRES)."""
    if "gres/gpu" in resources:
        return resources["gres/gpu"]
    typed = [amount for name, amount in resources.items() if name.startswith("gres/gpu:")]
    return sum(typed) if typed else None


def gres_gpus(words: str) -> int:
    """Return the GPUs in a list of generic resources: ``gpu:8``, ``gpu:h100:8(S:0-1),nic:2``; a bare ``gpu`` is one."""
    total = 0
    for part in re.split(r",(?![^(]*\))", text(words) or ""):
        match = _GRES.fullmatch(part.strip())
        if match is not None:
            total += int(match["count"] or 1)
    return total
