"""Traces from accounting: the text of ``sacct --parsable2`` (or ``--parsable``) with its header, any delimiter.

Needed columns: ``JobID``, ``Submit``, ``Elapsed`` (or ``Start`` and ``End``), and ``NNodes`` or ``NCPUS`` (also as
``AllocNodes``, ``AllocCPUS``); used where present: ``Timelimit``, ``Partition``, ``QOS``, ``User``, ``Account``,
``Priority`` is not: what a job's priority was when it started says nothing about another schedule (sacct(1)).
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from time import strptime
from typing import Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.traces import Trace, TraceJob, text_lines
from hpcplan.slurm import values
from hpcplan.units import parse_slurm_time

__all__ = ["SacctJobs", "is_sacct", "read_sacct"]

_HEADER: Final = re.compile(
    r"(?:[A-Za-z]+)(?P<delimiter>[^A-Za-z%]+?)(?:[A-Za-z]+(?P=delimiter))*[A-Za-z]+(?P=delimiter)?"
)
_WIDTHS: Final = frozenset(("nnodes", "allocnodes", "ncpus", "alloccpus"))
_REMEMBERED: Final = 4096  # different requests
_Kind = tuple[str | None, int | None, int | None, int | None, str | None, str | None, str | None]
_seconds = lru_cache(1024)(parse_slurm_time)
_NEVER_RAN: Final = frozenset({"PENDING", "RUNNING", "REQUEUED", "SUSPENDED"})


def _columns(line: str) -> tuple[list[str], str] | None:
    """Return the lower-case columns of a header and what stands between them, ``None`` if the line is none."""
    line = line.strip().lstrip("\ufeff")
    match = _HEADER.fullmatch(line)
    if match is None:
        return None
    columns = [name.lower() for name in line.split(match["delimiter"])]
    return (columns, match["delimiter"]) if {"jobid", "submit"} <= {*columns} else None


def is_sacct(first_line: str) -> bool:
    """Whether a line is the header of such a dump."""
    return _columns(first_line) is not None


def read_sacct(path: Path) -> Trace:
    """Read a trace as :class:`SacctJobs` does.

    Raises:
        InputError: not readable, or a needed column is missing; with file and line.
    """
    source = SacctJobs(path)
    return Trace(tuple(source), None, source.skipped)


class SacctJobs:
    """The jobs of a dump that ran and ended, read as they are asked for; each iteration reads it anew.

    Steps are passed over, other jobs left out, and ``skipped`` counts those. Times are as if in UTC.
    """

    procs: int | None = None
    may_depend: bool = False
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        """Read the names of the columns.

        Raises:
            InputError: not readable, or a needed column is missing; with file and line.
        """
        self.path = path
        self.skipped = 0
        columns, self._delimiter = _columns(next(text_lines(path), "")) or ([], "|")
        if not {"elapsed", "elapsedraw", "end"} & {*columns} or not _WIDTHS & {*columns}:
            message = "needs the columns JobID, Submit, Elapsed, Timelimit, NNodes and NCPUS"
            raise InputError(
                Problem(message, file=str(path), line=1),
                hint="sacct -aXP -o "
                "JobID,User,Account,Partition,QOS,Submit,Start,End,Elapsed,Timelimit,NNodes,NCPUS,State",
            )
        self._columns = columns

    def __iter__(self) -> Iterator[TraceJob]:
        """Yield the jobs in the order of the file.

        Raises:
            InputError: not readable, or no job in it ran.
        """
        self.skipped = 0
        columns, delimiter = self._columns, self._delimiter
        known: dict[_Kind, JobSpec] = {}
        position = 0
        lines = text_lines(self.path)
        next(lines, None)
        for line in lines:
            cells = line.rstrip("\r\n").split(delimiter)
            if len(cells) == len(columns) + 1 and not cells[-1]:
                cells.pop()
            row = dict(zip(columns, cells, strict=False))
            if "." in row.get("jobid", ""):
                continue  # a step
            job = _job(row, position, known) if len(cells) == len(columns) else None
            if job is None:
                self.skipped += bool(line.strip())
            else:
                position += 1
                yield job
        if not position:
            raise InputError(Problem("holds no job that ran", file=str(self.path)))


def _job(row: Mapping[str, str], position: int, known: dict[_Kind, JobSpec]) -> TraceJob | None:
    try:
        submit_s = _stamp(row["submit"])
        run_s = _elapsed(row)
        limit_s = _limit(row)
        nodes = _count(row, "nnodes", "allocnodes", "reqnodes")
        cpus = _count(row, "alloccpus", "ncpus", "reqcpus")
    except (ValueError, KeyError):
        return None
    state = row.get("state", "").split(" ")[0].upper()
    if submit_s is None or not run_s or not (nodes or cpus) or state in _NEVER_RAN:
        return None
    name = row["jobid"].strip()
    het = name.partition("+")[0] if "+" in name else None
    kind = (het, limit_s, nodes, cpus, row.get("partition"), row.get("qos"), row.get("account"))
    ask = known.get(kind)
    if ask is None:
        words = {key: values.text(row.get(key, "")) for key in ("partition", "qos", "account")}
        width = {"nodes_min": nodes, "nodes_max": nodes} if nodes else {"ntasks": cpus}
        if len(known) >= _REMEMBERED:
            known.clear()
        ask = known[kind] = JobSpec(name=name, het_group=het, time_limit_s=limit_s, **width, **words)  # type: ignore[arg-type]
    return TraceJob(
        int(name) if name.isdecimal() else position + 1, submit_s, run_s, limit_s or run_s, cpus or nodes or 1,
        name, ask, values.text(row.get("user", "")),
    )  # fmt: skip


def _limit(row: Mapping[str, str]) -> int | None:
    limit_s = _seconds(row.get("timelimit") or "")
    if limit_s is None and row.get("timelimitraw", "").isdecimal():
        return int(row["timelimitraw"]) * 60
    return limit_s


def _elapsed(row: Mapping[str, str]) -> int | None:
    if row.get("elapsedraw", "").isdecimal():
        return int(row["elapsedraw"])
    if row.get("elapsed"):
        return round(values.cpu_seconds(row["elapsed"]) or 0)
    start_s, end_s = _stamp(row.get("start", "")), _stamp(row.get("end", ""))
    return end_s - start_s if start_s is not None and end_s is not None else None


def _count(row: Mapping[str, str], *columns: str) -> int | None:
    for column in columns:
        if row.get(column, "").isdecimal() and int(row[column]):
            return int(row[column])
    return None


def _stamp(word: str) -> int | None:
    found = values.text(word)
    if found is None:
        return None
    if found.isdecimal():
        return int(found)
    day, _, time = found.partition("T")
    hour, minute, second = map(int, time.split(":"))
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 62):
        raise ValueError(found)
    return _midnight(day) + 3600 * hour + 60 * minute + second


@lru_cache(1024)
def _midnight(day: str) -> int:
    return timegm(strptime(day, "%Y-%m-%d"))
