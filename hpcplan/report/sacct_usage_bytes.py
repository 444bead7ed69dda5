"""``TRESUsageInTot`` of many steps at once: ``cpu=00:22:28,energy=0,fs/disk=2012,mem=356357K,pages=0,vmem=356357K``.

Slurm lists the same resources in the same order for nearly every step of a site, so cells are read by their layout:
the names and their order. Where the names are, is told once for each layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcplan.report import sacct_bytes as read

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Usage", "usage"]

_MOST_MARKS: Final = 63
_LONGEST: Final = 32  # of a name, with its equals sign: there is room for so much behind the text
_MOST_LAYOUTS: Final = 16  # of one length; the others are left
_NAME: Final = re.compile(r"[a-z0-9/_:.-]+")


@dataclass(slots=True)
class Usage:
    """What cells say: memory in bytes (0: none told), GPU per cent (not a number: none told) and CPU seconds (only of
    those asked for); ``good`` says of each cell whether it could be read.
    """

    memory_bytes: NDArray[np.int64]
    gpu_percent: NDArray[np.float64]
    cpu_s: NDArray[np.float64]
    good: NDArray[np.bool_]


def usage(text: read.Bytes, first: NDArray[np.int64], end: NDArray[np.int64], cpu_wanted: NDArray[np.bool_]) -> Usage:
    """Return what the cells between these places say."""
    count = len(first)
    found = Usage(np.zeros(count, np.int64), np.full(count, np.nan), np.zeros(count), np.ones(count, dtype=bool))
    filled = np.flatnonzero(end > first)
    if not len(filled):
        return found
    body = text.raw[first[filled[0]] : end[filled[-1]]]
    marks = np.flatnonzero((body == ord(",")) | (body == ord("="))) + first[filled[0]]
    low = np.searchsorted(marks, first)
    number = np.searchsorted(marks, end) - low
    usual = (number % 2 == 1) & (number <= _MOST_MARKS)
    found.good[filled] = usual[filled]
    filled = filled[usual[filled]]
    for size in np.flatnonzero(np.bincount(number[filled])).tolist():
        rows = filled[number[filled] == size]
        for _ in range(_MOST_LAYOUTS):
            if not len(rows):
                break
            alike = _read_alike(text, first, end, marks, low, size, rows, cpu_wanted, found)
            rows = rows[~alike]
        found.good[rows] = False
    return found


def _read_alike(
    text: read.Bytes, first: NDArray[np.int64], end: NDArray[np.int64], marks: NDArray[np.int64],
    low: NDArray[np.int64], size: int, rows: NDArray[np.int64], cpu_wanted: NDArray[np.bool_], found: Usage,
) -> NDArray[np.bool_]:  # fmt: skip
    """Read those of the rows that have the layout of the first; return which."""
    lead = int(rows[0])
    places = marks[low[lead] : low[lead] + size].tolist()
    begins = [int(first[lead]), *(place + 1 for place in places[1::2])]
    names = [text.raw[begin:equals].tobytes() for begin, equals in zip(begins, places[0::2], strict=True)]
    alike, parts = np.ones(len(rows), dtype=bool), []
    begin, mark = first[rows], low[rows]
    for which, name in enumerate(names):
        equals = marks[mark + 2 * which]
        alike &= (equals - begin == len(name)) & _written(text, begin, name + b"=")
        stop = marks[mark + 2 * which + 1] if 2 * which + 1 < size else end[rows]
        parts.append((equals + 1, stop))
        begin = stop + 1
    words = [name.decode("latin-1") for name in names]
    if not alike[0]:  # it has no such form
        words, alike[0] = [], True
    usual = len(set(words)) == size // 2 + 1  # of a name given twice the first counts
    if not usual or not all(len(word) < _LONGEST and _NAME.fullmatch(word) for word in words):
        found.good[rows[alike]] = False
        return alike
    for word, (begin, stop) in zip(words, parts, strict=True):
        at = alike & cpu_wanted[rows] if word == "cpu" else alike
        if word in ("mem", "cpu", "gres/gpuutil"):
            _take(text, word, begin[at], stop[at], rows[at], found)
    return alike


def _take(text: read.Bytes, name: str, begin: Any, stop: Any, rows: NDArray[np.int64], found: Usage) -> None:
    reader = {"mem": read.memory_bytes, "cpu": read.spans_s, "gres/gpuutil": read.numbers}[name]
    values, fine = reader(text, begin, stop)
    found.good[rows] &= fine
    {"mem": found.memory_bytes, "cpu": found.cpu_s, "gres/gpuutil": found.gpu_percent}[name][rows] = values


def _written(text: read.Bytes, begin: NDArray[np.int64], name: bytes) -> NDArray[np.bool_]:
    """Return where that text stands."""
    found = np.ones(len(begin), dtype=bool)
    for offset in range(0, min(len(name), _LONGEST), 8):
        found &= read.begins_with(text.eight(begin + offset), name[offset : offset + 8].decode("latin-1"))
    return found
