"""Job traces in the Standard Workload Format, plain or gzipped.

The format: Feitelson, *The Standard Workload Format*, Parallel Workloads Archive,
https://www.cs.huji.ac.il/labs/parallel/workload/swf.html.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcplan.errors import InputError, Problem

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import JobSpec

__all__ = ["Trace", "TraceJob", "read_swf", "text_lines"]

_JOB, _SUBMIT, _RUN, _PROCS, _REQUESTED_PROCS, _REQUESTED_TIME, _USER = 0, 1, 3, 4, 7, 8, 11
_FIELDS: Final = 18
_MAX_BYTES: Final = 4 * 1024**3  # of text; the largest trace of the archive has about 0.5 GB


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job of a trace; times in seconds. It would run ``run_s``, and is killed at its limit.

    ``label`` is what the trace calls it where that is no number, ``ask`` what it asks for beyond processors and limit,
    ``user`` whose it is, where the trace says so.
    """

    id: int
    submit_s: int
    run_s: int
    limit_s: int
    procs: int
    label: str | None = None
    ask: JobSpec | None = None
    user: str | None = None

    @property
    def priority(self) -> int:
        """The priority that the trace gives it, 0 where it gives none."""
        return 0 if self.ask is None or self.ask.priority is None else self.ask.priority

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return str(self.id) if self.label is None else self.label


@dataclass(frozen=True, slots=True)
class Trace:
    """The jobs of a trace in its order, the machine's processors as the header has them, and how many were skipped."""

    jobs: tuple[TraceJob, ...]
    procs: int | None
    skipped: int


def read_swf(path: Path, *, procs: int | None = None) -> Trace:
    """Read a trace. ``procs`` is the machine's size; without it the header's ``MaxProcs`` (else ``MaxNodes``) counts.

    Jobs have the allocated processors, else those requested, at most the machine's; their limit is the requested time,
    or the run time where none was asked, and they are killed at it. Run times below 1 s count as 1 s; jobs without run
    time or processors are skipped.

    Raises:
        InputError: not readable, or not SWF; with file and line.
    """
    header: dict[str, str] = {}
    jobs: list[TraceJob] = []
    skipped = 0
    for number, line in enumerate(text_lines(path), start=1):
        if line.startswith(";"):
            key, _, value = line[1:].partition(":")
            header.setdefault(key.strip(), value.strip())
            continue
        words = line.split()
        if not words:
            continue
        if procs is None:
            procs = _machine_size(header)
        job = _job(words, procs, path, number)
        if job is None:
            skipped += 1
        else:
            jobs.append(job)
    if not jobs and not skipped:
        raise InputError(Problem("holds no jobs", file=str(path)))
    return Trace(tuple(jobs), procs, skipped)


def _machine_size(header: dict[str, str]) -> int | None:
    for key in ("MaxProcs", "MaxNodes"):
        if header.get(key, "").isdecimal():
            return int(header[key])
    return None


def _job(words: list[str], procs: int | None, path: Path, number: int) -> TraceJob | None:
    if len(words) != _FIELDS:
        message = f"has {len(words)} fields; a line of SWF has {_FIELDS}"
        raise InputError(Problem(message, file=str(path), line=number))
    try:
        values = [int(float(word)) for word in words[: _REQUESTED_TIME + 1]]
    except (ValueError, OverflowError):
        raise InputError(Problem("has a field that is not a number", file=str(path), line=number)) from None
    width = values[_PROCS] if values[_PROCS] > 0 else values[_REQUESTED_PROCS]
    if values[_RUN] < 0 or width <= 0:
        return None
    run_s = max(1, values[_RUN])
    limit_s = values[_REQUESTED_TIME] if values[_REQUESTED_TIME] > 0 else run_s
    width = width if procs is None else min(width, procs)
    user = words[_USER] if words[_USER].isdecimal() else None  # -1 where it is not known
    return TraceJob(values[_JOB], values[_SUBMIT], run_s, limit_s, width, user=user)


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a plain or gzipped text file, whatever its name says.

    Raises:
        InputError: it cannot be read, or holds more than 4 GiB of text.
    """
    size = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw, "rb") if packed else raw as stream:
                for line in stream:
                    size += len(line)
                    if size > _MAX_BYTES:
                        raise InputError(Problem("holds more than 4 GiB of text", file=str(path)))
                    yield line.decode("utf-8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(f"cannot be read: {reason}", file=str(path))) from None
