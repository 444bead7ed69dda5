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
from typing import Final, NamedTuple, Protocol

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.jobs import JobSpec

__all__ = ["SwfJobs", "Trace", "TraceJob", "TraceSource", "read_swf", "text_lines"]

_JOB, _SUBMIT, _RUN, _PROCS, _REQUESTED_PROCS, _REQUESTED_TIME, _USER = 0, 1, 3, 4, 7, 8, 11
_FIELDS: Final = 18
_UNBOUNDED: Final = 2**62
_BLOCK_BYTES: Final = 1 << 18  # of lines read at a time
_MAX_BYTES: Final = 4 * 1024**3  # of text; the largest trace of the archive has about 0.5 GB


class TraceJob(NamedTuple):
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


class TraceSource(Protocol):
    """A trace in a file, whose jobs are read as they are asked for; each iteration reads it anew.

    ``procs`` is the machine's size where the file says it, ``skipped`` how many jobs the last iteration left out,
    ``may_depend`` whether jobs may wait for others, and ``notes`` sentences on what of the file is not read.
    """

    procs: int | None
    skipped: int
    may_depend: bool
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[TraceJob]:
        """Yield the jobs in the order of the file.

        Raises:
            InputError: not readable, or a line is wrong; with file and line.
        """
        ...


def read_swf(path: Path, *, procs: int | None = None) -> Trace:
    """Read a trace as :class:`SwfJobs` does.

    Raises:
        InputError: not readable, or not SWF; with file and line.
    """
    source = SwfJobs(path, procs=procs)
    jobs = tuple(source)
    return Trace(jobs, source.procs, source.skipped)


class SwfJobs:
    """The jobs of a file, read as they are asked for; each iteration reads it anew.

    ``procs`` is the machine's size; without it the header's ``MaxProcs`` (else ``MaxNodes``) counts. Jobs have the
    allocated processors, else those requested, at most the machine's; their limit is the requested time, or the run
    time where none was asked, and they are killed at it. Run times below 1 s count as 1 s; jobs without run time or
    processors are left out, and ``skipped`` counts them.
    """

    may_depend: bool = False
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, *, procs: int | None = None) -> None:
        """Read the header.

        Raises:
            InputError: the file cannot be read.
        """
        self.path = path
        self.skipped = 0
        self.procs = procs
        if procs is None:
            header: dict[str, str] = {}
            for line in _byte_lines(path):
                if line.startswith(b";"):
                    key, _, value = line[1:].decode("utf-8", errors="replace").partition(":")
                    header.setdefault(key.strip(), value.strip())
                elif line.split():
                    break
            self.procs = _machine_size(header)

    def __iter__(self) -> Iterator[TraceJob]:
        """Yield the jobs in the order of the file.

        Raises:
            InputError: not readable, or not SWF; with file and line.
        """
        self.skipped = 0
        empty = True
        procs = _UNBOUNDED if self.procs is None else self.procs
        for number, line in enumerate(_byte_lines(self.path), start=1):
            words = line.split()
            if len(words) != _FIELDS or line.startswith(b";"):
                if not words or line.startswith(b";"):
                    continue
                message = f"has {len(words)} fields; a line of SWF has {_FIELDS}"
                raise InputError(Problem(message, file=str(self.path), line=number))
            try:
                values = list(map(int, words[: _REQUESTED_TIME + 1]))
            except ValueError:
                values = self._rounded(words, number)
            width = values[_PROCS]
            if width <= 0:
                width = values[_REQUESTED_PROCS]
            run_s = values[_RUN]
            empty = False
            if run_s < 0 or width <= 0:
                self.skipped += 1
                continue
            run_s = run_s or 1
            limit_s = values[_REQUESTED_TIME]
            user = words[_USER]
            yield TraceJob(
                values[_JOB], values[_SUBMIT], run_s, limit_s if limit_s > 0 else run_s,
                width if width < procs else procs, None, None, user.decode() if user.isdigit() else None,
            )  # fmt: skip
        if empty:
            raise InputError(Problem("holds no jobs", file=str(self.path)))

    def _rounded(self, words: list[bytes], number: int) -> list[int]:
        try:
            return [int(float(word)) for word in words[: _REQUESTED_TIME + 1]]
        except (ValueError, OverflowError):
            raise InputError(Problem("has a field that is not a number", file=str(self.path), line=number)) from None


def _machine_size(header: dict[str, str]) -> int | None:
    for key in ("MaxProcs", "MaxNodes"):
        if header.get(key, "").isdecimal():
            return int(header[key])
    return None


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a plain or gzipped text file, whatever its name says.

    Raises:
        InputError: it cannot be read, or holds more than 4 GiB of text.
    """
    for line in _byte_lines(path):
        yield line.decode("utf-8", errors="replace")


def _byte_lines(path: Path) -> Iterator[bytes]:
    size = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw, "rb") if packed else raw as stream:
                while lines := stream.readlines(_BLOCK_BYTES):
                    size += sum(map(len, lines))
                    if size > _MAX_BYTES:
                        raise InputError(Problem("holds more than 4 GiB of text", file=str(path)))
                    yield from lines
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(f"cannot be read: {reason}", file=str(path))) from None
