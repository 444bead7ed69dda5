"""What sites measure per job beside Slurm and keep in the job's comments.

Two forms are read. *Jobstats* (Plazonic, Halverson, Comeau: Jobstats, PEARC 2023) puts ``JS1:`` and a JSON summary,
compressed with gzip and coded in base64, into AdminComment; per-job GPU scripts put plain JSON such as
``{"gpu_util": 53.1}`` into Comment. A comment is anybody's text: what is not exactly such a summary is no summary.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Measured", "read"]

_MAX_SUMMARY_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU time in seconds, peak memory in bytes, mean GPU utilisation 0 to 1; ``None`` where the summary lacks it."""

    cpu_used_s: float | None = None
    memory_used_bytes: int | None = None
    gpu_used: float | None = None


def read(text: str) -> Measured | None:
    """Return what a comment measures, ``None`` if it is a comment like any other."""
    word = text.strip()
    if word.startswith("JS1:"):
        summary = _unpacked(word[4:])
        return None if summary is None else _of_nodes(summary)
    if word.startswith("{") and word.endswith("}"):
        return _of_gpu_script(_parsed(word))
    return None


def _unpacked(packed: str) -> Mapping[str, Any] | None:
    try:
        data = base64.b64decode(packed, validate=True)
        unzip = zlib.decompressobj(wbits=31)
        raw = unzip.decompress(data, _MAX_SUMMARY_BYTES)  # bounded: a comment may be a decompression bomb
        return _parsed(raw.decode()) if unzip.eof else None
    except (binascii.Error, zlib.error, UnicodeDecodeError, ValueError):
        return None


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _of_nodes(summary: Mapping[str, Any]) -> Measured | None:
    nodes = summary.get("nodes")
    if not isinstance(nodes, dict) or not nodes or not all(isinstance(node, dict) for node in nodes.values()):
        return None
    utilisations: list[float | None] = []
    for node in nodes.values():
        found = node.get("gpu_utilization")
        utilisations += [_number(value) for value in found.values()] if isinstance(found, dict) else []
    memory = _total([_number(node.get("used_memory")) for node in nodes.values()], 2.0**60)
    gpu = _total(utilisations, 100.0 * len(utilisations))
    return Measured(
        cpu_used_s=_total([_number(node.get("total_time")) for node in nodes.values()], 1e10),
        memory_used_bytes=None if memory is None else round(memory),
        gpu_used=None if gpu is None else gpu / (100 * len(utilisations)),
    )


def _of_gpu_script(summary: Mapping[str, Any] | None) -> Measured | None:
    percent = None if summary is None else _number(summary.get("gpu_util"))
    return Measured(gpu_used=percent / 100) if percent is not None and percent <= 100 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return None
    return float(value) if math.isfinite(value) else None


def _total(values: list[float | None], limit: float) -> float | None:
    """Return the sum if every part is known and it is a figure that can be: a sum of some is no sum of all."""
    known = [value for value in values if value is not None]
    if not values or len(known) < len(values) or sum(known) > limit:
        return None
    return sum(known)
