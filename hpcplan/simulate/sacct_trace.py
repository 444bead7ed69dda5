"""Traces from accounting: the text of ``sacct --parsable2`` (or ``--parsable``) with its header, any delimiter.

Needed columns: ``JobID``, ``Submit``, ``Elapsed`` (or ``Start`` and ``End``), and ``NNodes`` or ``NCPUS`` (also as
``AllocNodes``, ``AllocCPUS``); used where present: ``Timelimit``, ``Partition``, ``QOS``, ``User``, ``Account``,
``Priority`` is not: what a job's priority was when it started says nothing about another schedule (sacct(1)).
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from pathlib import Path
from time import strptime
from typing import Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.jobs import JobSpec
from hpcplan.simulate.traces import Trace, TraceJob, text_lines
from hpcplan.slurm import values
from hpcplan.units import parse_slurm_time

__all__ = ["is_sacct", "read_sacct"]

_HEADER: Final = re.compile(
    r"(?:[A-Za-z]+)(?P<delimiter>[^A-Za-z%]+?)(?:[A-Za-z]+(?P=delimiter))*[A-Za-z]+(?P=delimiter)?"
)
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
    """Read a trace: every job that ran and ended; steps and the rest are skipped, jobs counted. Times as if in UTC.

    Raises:
        InputError: not readable, or a needed column is missing; with file and line.
    """
    lines = text_lines(path)
    columns, delimiter = _columns(next(lines, "")) or ([], "|")
    if not {"elapsed", "elapsedraw", "end"} & {*columns} or not {"nnodes", "allocnodes", "ncpus", "alloccpus"} & {
        *columns
    }:
        message = "needs the columns JobID, Submit, Elapsed, Timelimit, NNodes and NCPUS"
        raise InputError(
            Problem(message, file=str(path), line=1),
            hint="sacct -aXP -o JobID,User,Account,Partition,QOS,Submit,Start,End,Elapsed,Timelimit,NNodes,NCPUS,State",
        )
    jobs: list[TraceJob] = []
    skipped = 0
    for line in lines:
        cells = line.rstrip("\r\n").split(delimiter)
        if len(cells) == len(columns) + 1 and not cells[-1]:
            cells.pop()
        row = dict(zip(columns, cells, strict=False))
        if "." in row.get("jobid", ""):
            continue  # a step
        job = _job(row, len(jobs)) if len(cells) == len(columns) else None
        if job is None:
            skipped += bool(line.strip())
        else:
            jobs.append(job)
    if not jobs:
        raise InputError(Problem("holds no job that ran", file=str(path)))
    return Trace(tuple(jobs), None, skipped)


def _job(row: Mapping[str, str], position: int) -> TraceJob | None:
    try:
        submit_s = _stamp(row["submit"])
        run_s = _elapsed(row)
        limit = row.get("timelimit") or ""
        limit_s = parse_slurm_time(limit)
        if limit_s is None and row.get("timelimitraw", "").isdecimal():
            limit_s = int(row["timelimitraw"]) * 60
        nodes = _count(row, "nnodes", "allocnodes", "reqnodes")
        cpus = _count(row, "alloccpus", "ncpus", "reqcpus")
    except (ValueError, KeyError):
        return None
    state = row.get("state", "").split(" ")[0].upper()
    if submit_s is None or not run_s or not (nodes or cpus) or state in _NEVER_RAN:
        return None
    words = {key: values.text(row.get(key, "")) for key in ("partition", "qos", "account")}
    width = {"nodes_min": nodes, "nodes_max": nodes} if nodes else {"ntasks": cpus}
    name = row["jobid"].strip()
    return TraceJob(
        id=int(name) if name.isdecimal() else position + 1,
        label=name,
        submit_s=submit_s,
        run_s=run_s,
        limit_s=limit_s or run_s,
        procs=cpus or nodes or 1,
        ask=JobSpec(name=name, time_limit_s=limit_s, **width, **words),  # type: ignore[arg-type]
        user=values.text(row.get("user", "")),
    )


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
    return int(found) if found.isdecimal() else timegm(strptime(found, "%Y-%m-%dT%H:%M:%S"))
