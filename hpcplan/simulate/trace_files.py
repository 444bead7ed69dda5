"""Opens a trace of any known kind: SWF, a dump of sacct, or a CSV table of jobs, each plain or gzipped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hpcplan.errors import InputError, Problem
from hpcplan.simulate.sacct_trace import SacctJobs, is_sacct
from hpcplan.simulate.table_trace import TableJobs, is_table
from hpcplan.simulate.traces import SwfJobs, Trace, TraceSource, text_lines

__all__ = ["open_trace", "read_trace"]

_SWF: Final = re.compile(r"\s*-?\d+(\s|$)")  # a job's number


def read_trace(path: Path, *, procs: int | None = None) -> Trace:
    """Read a trace, whose first line tells its kind. ``procs`` is the machine's size, for traces in SWF.

    Raises:
        InputError: not readable, or none of these; with file and line.
    """
    source = open_trace(path, procs=procs)
    return Trace(tuple(source), source.procs, source.skipped)


def open_trace(path: Path, *, procs: int | None = None) -> TraceSource:
    """Return a trace to be read job by job.

    Raises:
        InputError: not readable, or none of these; with file and line.
    """
    first = next((line for line in text_lines(path) if line.strip()), "")
    if is_table(first):
        return TableJobs(path)
    if is_sacct(first):
        return SacctJobs(path)
    if first.lstrip().startswith(";") or _SWF.match(first):
        return SwfJobs(path, procs=procs)
    message = (
        "is no trace: neither SWF, nor sacct's output with its header, nor a table with the columns "
        "job, submit_s, nodes, run_s"
    )
    raise InputError(Problem(message, file=str(path), line=1), hint="sacct leaves its header out with -n: do without")
