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
_LONGEST: Final = 32  # of a name: there is room for so much before the text
_MOST_LAYOUTS: Final = 16  # of one length; the others are left
_NAME: Final = re.compile(rb"[a-z0-9/_:.-]+")
_READERS: Final = {b"mem": read.memory_bytes, b"cpu": read.spans_s, b"gres/gpuutil": read.numbers}


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
    places = marks[low[rows[0]] : low[rows[0]] + size].tolist()
    begins = [int(first[rows[0]]), *(place + 1 for place in places[1::2])]
    names = [text.raw[begin:equals].tobytes() for begin, equals in zip(begins, places[0::2], strict=True)]
    mark = low[rows]
    equals = [marks[mark + which] for which in range(0, size, 2)]
    alike: NDArray[np.bool_] = equals[0] - first[rows] == len(names[0])
    alike &= read.ends_with(text, equals[0], names[0] + b"=")
    for place, name in zip(equals[1:], names[1:], strict=True):
        alike &= read.ends_with(text, place, b"," + name + b"=")  # so that the other mark is the comma before the name
    fit = bool(alike[0]) and len(set(names)) == len(names)  # of a name given twice the first counts
    alike[0] = True
    if not fit or not all(len(name) < _LONGEST and _NAME.fullmatch(name) for name in names):
        found.good[rows[alike]] = False
        return alike
    stops = [place - len(name) - 1 for place, name in zip(equals[1:], names[1:], strict=True)] + [end[rows]]
    for name, place, stop in zip(names, equals, stops, strict=True):
        if name in _READERS:
            at = alike & cpu_wanted[rows] if name == b"cpu" else alike
            whole = slice(None) if at.all() else at
            _take(text, name, place[whole] + 1, stop[whole], rows[whole], found)
    return alike


def _take(text: read.Bytes, name: bytes, begin: Any, stop: Any, rows: NDArray[np.int64], found: Usage) -> None:
    values, fine = _READERS[name](text, begin, stop)
    found.good[rows] &= fine
    {b"mem": found.memory_bytes, b"cpu": found.cpu_s, b"gres/gpuutil": found.gpu_percent}[name][rows] = values
