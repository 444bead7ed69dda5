"""A large dump read by several processes, a range of its lines each: within one process Python works on one core.

``python -m hpcplan.report.sacct_ranges`` is such a process: it takes its task from standard input, leaves what it read
in a folder, and ends when the process that started it does. What it cannot do, that process does itself.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from hpcplan.garbage import without_collection
from hpcplan.report.faults import Fault, Faults
from hpcplan.report.sacct_files import is_plain
from hpcplan.report.sacct_lines import Block, Cells
from hpcplan.report.sacct_pieces import LOOK_AHEAD, Part
from hpcplan.report.sacct_quick import told_apart
from hpcplan.report.sacct_rows import Header

__all__ = ["Found", "Helper", "Task", "cores", "cuts", "shifted", "tasks"]

_LEAST_BYTES: Final = 128 * 1024**2  # below that, to start a process takes longer than it saves
_MOST_PROCESSES: Final = 4
_AHEAD_BYTES: Final = 64 * 1024**2  # which this process has read before the others have started and handed over theirs
_NEAR: Final = 256 * 1024
_TABLES: Final = ("jobs", "used", "astray")
_REST: Final = "rest.pickle"


@dataclass(frozen=True, slots=True)
class Task:
    """The bytes from ``start`` to ``stop`` of a file, which begin with a job's row under that header."""

    file: str
    columns: tuple[str, ...]
    delimiter: str
    zone: tzinfo | None
    start: int
    stop: int

    @property
    def header(self) -> Header:
        """The header under which the range begins."""
        return Header(self.columns, self.delimiter)


@dataclass(frozen=True, slots=True)
class Found:
    """What a range holds, by line within it; how many lines it has, and under which header it ends."""

    part: Part
    lines: int
    header: Header


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuts(path: str, processes: int | None = None, least_bytes: int = _LEAST_BYTES) -> list[int]:
    """Return about where to cut a file for so many processes: nowhere if it is small, packed, or no file."""
    count = min(cores(), _MOST_PROCESSES) if processes is None else processes
    if count < 2 or path == "-" or not sys.executable or not is_plain(path):
        return []
    size = Path(path).stat().st_size
    if size < least_bytes:
        return []
    ahead = min(_AHEAD_BYTES, size // 4)
    each = (size - ahead) / count
    return [round(ahead + each * number) for number in range(1, count)]


def tasks(path: str, near: Sequence[int], header: Header, zone: tzinfo | None) -> list[Task]:
    """Return the ranges behind the first one: from a job's row near each place to the next, the last to the end."""
    found = [place for place in (_begin_of_job(path, one, header) for one in near) if place is not None]
    stops = [*found[1:], Path(path).stat().st_size]
    return [
        Task(path, header.columns, header.delimiter, zone, start, stop)
        for start, stop in zip(found, stops, strict=True)
        if start < stop
    ]


def _begin_of_job(path: str, near: int, header: Header) -> int | None:
    """Return where a row begins that is a job's, after rows enough that no broken one can reach so far."""
    with Path(path).open("rb") as stream:
        stream.seek(near)
        text = stream.read(_NEAR)
    begin, end = text.find(b"\n") + 1, text.rfind(b"\n") + 1
    text = text[begin:end]
    if not text or not text.isascii() or b"\r" in text or b"\0" in text:
        return None
    block = Block(text, header)
    if not block.regular.any():
        return None
    index = {name: position for position, name in reversed(list(enumerate(header.columns)))}
    cells = Cells(block, np.flatnonzero(block.regular), index)
    sound = np.cumsum(~block.regular)
    for at in told_apart(cells)[0].tolist():
        before = at - LOOK_AHEAD
        if before < 0 or sound[at] != sound[before] or not block.regular[before]:
            continue
        if block.text[block.starts[at] : block.starts[at] + 1].isdigit():
            return near + begin + int(block.starts[at])
    return None


class Helper:
    """Another process that reads a range."""

    def __init__(self, task: Task, folder: Path) -> None:
        """Start it; what it reads it leaves in ``folder``.

        Raises:
            OSError: no process can be started.
            Exception: the time zone is none that can be given to another process.
        """
        self.task = task
        self.folder = folder
        order = pickle.dumps((task, str(folder)))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "POLARS_MAX_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hpcplan.report.sacct_ranges"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=env,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(len(order).to_bytes(8, "big") + order)
        self._process.stdin.flush()

    def result(self) -> Found | None:
        """Wait, and return what it read; ``None`` where it could not."""
        try:
            if self._process.wait() != 0:
                return None
            quotes, faults, lines, header = pickle.loads((self.folder / _REST).read_bytes())
            jobs, used, astray = (pl.read_ipc(self.folder / name) for name in _TABLES)
        except (OSError, EOFError, pickle.UnpicklingError, pl.exceptions.PolarsError):
            return None
        return Found(Part(jobs, used, astray, quotes, faults), lines, header)

    def end(self) -> None:
        """End it, if it has not."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def shifted(part: Part, lines: int) -> Part:
    """Return what a range holds by the lines of the whole file, of which so many stand before it."""
    further = pl.col("_row") + lines
    astray = part.astray.with_columns(further)
    quotes = {number + lines: text for number, text in part.quotes.items()}
    moved = Faults(part.faults.rows_read, part.faults.counts, [], part.faults.notes)
    moved.quoted = [Fault(one.kind, one.message, one.file, one.line + lines, one.quote) for one in part.faults.quoted]
    return Part(part.jobs.with_columns(further), part.used.with_columns(further), astray, quotes, moved)


def _serve(read: Callable[[Task], Found]) -> None:
    order = _exactly(int.from_bytes(_exactly(8), "big"))
    task, folder = pickle.loads(order)
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    with without_collection():
        found = read(task)
    for name in _TABLES:
        getattr(found.part, name).write_ipc(Path(folder) / name, compression="uncompressed")
    rest = (found.part.quotes, found.part.faults, found.lines, found.header)
    (Path(folder) / _REST).write_bytes(pickle.dumps(rest))


def _exactly(count: int) -> bytes:
    """Return so many bytes of standard input, without Python's buffer, which a thread could not be taken from."""
    found = b""
    while len(found) < count:
        part = os.read(0, count - len(found))
        if not part:
            os._exit(1)
        found += part
    return found


def _leave_with_parent(folder: str) -> None:
    while os.read(0, 1024):  # which ends when the other end is closed
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    from hpcplan.report import sacct_ranges
    from hpcplan.report.sacct_dump import read_range

    sacct_ranges._serve(read_range)
    os._exit(0)  # all is written
