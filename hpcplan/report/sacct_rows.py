"""sacct's parsable output as rows of cells: finds the header and the delimiter, and mends rows that a job name broke.

``sacct --parsable`` and ``--parsable2`` write one row a line and do not quote (sacct(1)), so a delimiter or a newline
inside a job name or a comment breaks the row. Such a row is put together again only where exactly one way of doing so
leaves every typed cell readable; else it is a fault.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.errors import InputError, Problem
from hpcplan.report import sacct_cells as cells
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.sacct_layouts import LAYOUTS, fitting
from hpcplan.slurm.records import JobState

__all__ = [
    "HOW",
    "SAMPLE",
    "Header",
    "Lines",
    "Row",
    "first_header",
    "is_header",
    "mended",
    "rows",
    "split_columns",
    "why_not",
    "without_mark",
]

# sacct(1), --helpformat, releases 19.05 to 25.05
_FIELDS: Final = """
    account admincomment alloccpus allocgres allocnodes alloctres associd avecpu avecpufreq avediskread avediskwrite
    avepages averss avevmsize blockid cluster comment constraints consumedenergy consumedenergyraw container cputime
    cputimeraw dbindex derivedexitcode elapsed elapsedraw eligible end exitcode extra failednode flags gid group jobid
    jobidraw jobname layout licenses maxdiskread maxdiskreadnode maxdiskreadtask maxdiskwrite maxdiskwritenode
    maxdiskwritetask maxpages maxpagesnode maxpagestask maxrss maxrssnode maxrsstask maxvmsize maxvmsizenode
    maxvmsizetask mcslabel mincpu mincpunode mincputask ncpus nnodes nodelist ntasks partition planned plannedcpu
    plannedcpuraw priority qos qosraw qosreq reason reqcpufreq reqcpufreqgov reqcpufreqmax reqcpufreqmin reqcpus reqgres
    reqmem reqnodes reqreservation reqtres reservation reservationid reserved restartcnt resvcpu resvcpuraw segmentsize
    sluid start state stderr stdin stdout steps stepid submit submitline suspended systemcomment systemcpu timelimit
    timelimitraw totalcpu tresusageinave tresusageinmax tresusageinmaxnode tresusageinmaxtask tresusageinmin
    tresusageinminnode tresusageinmintask tresusageintot tresusageoutave tresusageoutmax tresusageoutmaxnode
    tresusageoutmaxtask tresusageoutmin tresusageoutminnode tresusageoutmintask tresusageouttot uid user usercpu wckey
    wckeyid workdir
    """
_KNOWN: Final = frozenset(re.findall(r"\w+", _FIELDS))
_FREE_TEXT: Final = frozenset(
    {
        "jobname", "comment", "admincomment", "systemcomment", "submitline", "workdir", "constraints", "extra",
        "stdout", "stderr", "stdin",
    }
)  # fmt: skip
_MAX_JOINED_LINES: Final = 20
SAMPLE: Final = 40  # rows that tell whose columns a file without a header has


def _state(text: str) -> None:
    if text and JobState.parse(text) is JobState.UNKNOWN and text.strip().upper() != "UNKNOWN":
        raise ValueError(text)


_CLOCK: Final = cells.Clock()
_TYPED: Final[dict[str, Callable[[str], object]]] = {
    "jobid": cells.job_name, "jobidraw": cells.job_name, "state": _state,
    "elapsed": cells.duration_s, "timelimit": cells.duration_s, "totalcpu": cells.duration_s,
    "cputime": cells.duration_s, "submit": _CLOCK.read, "start": _CLOCK.read, "end": _CLOCK.read,
    "eligible": _CLOCK.read, "alloctres": cells.tres, "reqtres": cells.tres, "alloccpus": cells.count,
    "ncpus": cells.count, "nnodes": cells.count,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a file, in lower case, and what stands between them."""

    columns: tuple[str, ...]
    delimiter: str

    def split(self, line: str) -> list[str]:
        """Return the cells of a line; the empty one behind ``--parsable``'s last delimiter is dropped."""
        quoted = self.delimiter == "," and '"' in line and len(line) < csv.field_size_limit()
        found = next(csv.reader([line]), []) if quoted else line.split(self.delimiter)
        if len(found) == len(self.columns) + 1 and not found[-1].strip():
            found.pop()
        return found

    def typed(self, row: Sequence[str]) -> tuple[str, ...]:
        """Return the cells that are not free text: those that figures and names are taken from."""
        return tuple(cell for name, cell in zip(self.columns, row, strict=True) if name not in _FREE_TEXT)

    def readable(self, row: Sequence[str]) -> bool:
        """Whether every typed cell of the row is of the form that its column has."""
        for name, cell in zip(self.columns, row, strict=True):
            check = _TYPED.get(name)
            if check is None:
                continue
            try:
                check(cell)
            except ValueError:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row under their header, and where they stand."""

    header: Header
    cells: Sequence[str]
    line: int
    text: str


def is_header(line: str) -> Header | None:
    """Return the header that a line is, ``None`` if it is a row: its words are fields of sacct, with one delimiter."""
    if "jobid" not in line.lower():
        return None
    text = line.strip("\r\n")
    names = tuple(word.lower() for word in re.findall(r"[A-Za-z]+", text))
    known = sum(name in _KNOWN for name in names)
    if len(names) < 2 or not {"jobid", "jobidraw"} & set(names) or known < 0.7 * len(names):  # a release may add some
        return None
    lead, *between, tail = re.split(r"[A-Za-z]+", text)
    delimiter = between[0]
    if lead or set(between) != {delimiter} or tail not in ("", delimiter) or delimiter.strip(" ") == "":
        return None
    return Header(names, delimiter)


def split_columns(text: str) -> tuple[str, ...]:
    """Return the columns named as for sacct's ``--format``: ``JobID,State,Elapsed%20``.

    Raises:
        InputError: a name that no release of sacct has, or neither JobID nor JobIDRaw among them.
    """
    from hpcplan.errors import nearest

    names = tuple(word.partition("%")[0].strip().lower() for word in text.split(",") if word.strip())
    for name in names:
        if name not in _KNOWN:
            raise InputError(f"--columns: sacct has no field {name!r}" + nearest(name, _KNOWN))
    if not {"jobid", "jobidraw"} & set(names):
        raise InputError("--columns: JobID or JobIDRaw must be among them")
    return names


def rows(path: Path | str, faults: Faults, columns: tuple[str, ...] | None = None) -> Iterator[Row]:
    """Yield the rows of one file (plain or gzip; ``-`` is standard input), with its header or with ``columns``.

    Raises:
        InputError: the file is missing, a directory, not readable, binary, empty, or has no header that sacct writes.
    """
    name = str(path)
    header: Header | None = None
    lines = Lines(_lines(path, faults))
    for number, line in lines:
        if not line.strip():
            continue
        found = is_header(line)
        if found is not None:
            header = found
            continue
        if header is None:
            ahead = (lines.peek(index) for index in range(SAMPLE))
            header = first_header(line, number, name, columns, [text for text in ahead if text is not None], faults)
        row = mended(header, number, line, lines)
        faults.rows_read += 1
        if row is None:
            faults.add("row skipped", why_not(header, line), name, number, line)
        else:
            yield row
    if header is None:
        raise InputError(Problem("the file is empty", file=name), hint=HOW)


def why_not(header: Header, line: str) -> str:
    """Return why a row cannot be used."""
    expected, got = len(header.columns), len(header.split(line))
    return f"{got} cells where the header has {expected}" if got != expected else "cells cannot be read"


HOW: Final = (
    "make one with: sacct --allusers --duplicates --parsable2 --format=JobID,JobIDRaw,JobName,User,Account,Partition,"
    "QOS,State,Submit,Eligible,Start,End,Elapsed,Timelimit,NNodes,AllocCPUS,NTasks,ReqMem,ReqTRES,AllocTRES,TotalCPU,"
    "MaxRSS,TRESUsageInTot,NodeList --starttime=…"
)


def first_header(
    line: str, number: int, name: str, columns: tuple[str, ...] | None, ahead: Sequence[str], faults: Faults
) -> Header:
    """Return the header of a file that begins with a row; ``ahead`` are some of the rows behind it."""
    if columns is None:
        return _usual_header([line, *ahead], number, name, faults)
    delimiter = _delimiter(line, len(columns))
    if delimiter is None:
        raise InputError(Problem(f"cannot be split into the {len(columns)} columns named", file=name, line=number))
    return Header(columns, delimiter)


def _usual_header(sample: Sequence[str], number: int, name: str, faults: Faults) -> Header:
    def cells_of(columns: tuple[str, ...], delimiter: str, line: str) -> Sequence[str] | None:
        header = Header(columns, delimiter)
        found = header.split(line)
        return found if len(found) == len(columns) and header.readable(found) else None

    fits = fitting(sample, _delimiter, cells_of)
    if len(fits) == 1:
        ((whose, delimiter),) = fits
        columns = LAYOUTS[whose]
        faults.notes.append(f"{name} has no header; its columns are taken to be {whose}: {','.join(columns)}")
        return Header(columns, delimiter)
    message = "no header with sacct's field names, JobID among them"
    line = sample[0]
    if re.search(r"\bJobID\b.*\bState\b", line) or re.fullmatch(r"[-\s]+", line):
        message = "this is sacct's output for people, which cuts long values; use --parsable2"
    hint = f"{HOW}\n  or name the columns of a file without a header: --columns JobID,State,…"
    raise InputError(Problem(message, file=name, line=number), hint=hint)


def _delimiter(line: str, columns: int) -> str | None:
    """Return the longest text without letters or digits that splits the line into that many cells."""
    runs = set(re.findall(r"[^A-Za-z0-9]+", line))
    pieces = {
        run[a:b] for run in runs for a in range(min(len(run), 64)) for b in range(a + 1, min(a + 4, len(run)) + 1)
    }
    fitting = [text for text in pieces if len(Header(("",) * columns, text).split(line)) == columns]
    return max(fitting, key=lambda text: (len(text), text), default=None)


def mended(header: Header, number: int, line: str, lines: Lines) -> Row | None:
    found = header.split(line)
    expected = len(header.columns)
    if len(found) == expected:
        return Row(header, found, number, line)
    if len(found) > expected:
        return _without_extra(header, found, number, line)
    joined, taken = line, 0
    while len(found) < expected and taken < _MAX_JOINED_LINES:
        following = lines.peek(taken)
        if following is None or len(header.split(following)) == expected or is_header(following):
            return None
        joined, taken = f"{joined}\n{following}", taken + 1
        found = header.split(joined)
    row = _without_extra(header, found, number, joined)
    if row is None or not header.readable(row.cells):
        return None
    lines.skip(taken)
    return row


def _without_extra(header: Header, found: list[str], number: int, text: str) -> Row | None:
    """Return the row with surplus cells put back into the one free-text column that makes the others readable."""
    surplus = len(found) - len(header.columns)
    if surplus == 0:
        return Row(header, found, number, text)
    ways: dict[tuple[str, ...], list[str]] = {}
    for index, name in enumerate(header.columns):
        if surplus > 0 and name in _FREE_TEXT:
            whole = header.delimiter.join(found[index : index + surplus + 1])
            way = [*found[:index], whole, *found[index + surplus + 1 :]]
            if header.readable(way):
                ways.setdefault(header.typed(way), way)
    return Row(header, next(iter(ways.values())), number, text) if len(ways) == 1 else None


class Lines:
    """Numbered lines, with a look at those that follow."""

    def __init__(self, source: Iterator[tuple[int, str]]) -> None:
        self.source = source
        self.skipped = 0
        self.ahead: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while True:
            if self.ahead:
                yield self.ahead.pop(0)
                continue
            following = next(self.source, None)
            if following is None:
                return
            yield following

    def peek(self, index: int) -> str | None:
        while len(self.ahead) <= index:
            following = next(self.source, None)
            if following is None:
                return None
            self.ahead.append(following)
        return self.ahead[index][1]

    def skip(self, count: int) -> None:
        del self.ahead[:count]
        self.skipped += count


def _lines(path: Path | str, faults: Faults) -> Iterator[tuple[int, str]]:
    number = 0
    for block, _ in Blocks(path, faults):
        if number == 0:
            block = without_mark(block, str(path))
        for line in block.removesuffix(b"\n").split(b"\n"):
            number += 1
            yield number, line.decode()


def without_mark(block: bytes, name: str) -> bytes:
    """Return a file's first block without the byte order mark.

    Raises:
        InputError: the file is binary.
    """
    if b"\0" in block.partition(b"\n")[0]:
        raise InputError(Problem("is a binary file", file=name, line=1))
    return block.removeprefix(b"\xef\xbb\xbf")
