"""Steps that stand behind their job and are written the usual way, read from their bytes: nearly all rows of a dump.

What is not quite so (a name of another form, an amount in other units, a step apart from its job) is left to the reader
of whole columns, and what that refuses to the reader of single rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report import sacct_bytes as read
from hpcplan.report.sacct_block import STEPS
from hpcplan.report.sacct_lines import Block, Cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["quick_steps", "told_apart"]

_MOST_BYTES: Final = float(2**53)  # as far as amounts can be multiplied without rounding
_MOST_MARKS: Final = 63
_NAMES: Final = {"mem": read.memory_bytes, "cpu": read.spans_s, "gres/gpuutil": read.numbers}


def told_apart(cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lines that are jobs', and those that are steps'."""
    places = cells.places("jobid", "jobidraw")
    if places is None:
        return cells.rows, cells.rows[:0]
    is_step = read.has_byte(cells.block.bytes, *places, ".")
    return cells.rows[~is_step], cells.rows[is_step]


def quick_steps(
    block: Block, jobs_at: NDArray[np.int64], steps_at: NDArray[np.int64], index: Mapping[str, int]
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Return the steps (sacct_block.STEPS, without names, and ``job``) that could be read, and the other lines.

    ``jobs_at`` are the lines of jobs that have been read.
    """
    schema = {**STEPS, "job": pl.Int64}
    if not len(jobs_at) or not len(steps_at):
        return pl.DataFrame(schema=schema), steps_at
    text, cells = block.bytes, Cells(block, steps_at, index)
    job, good, extern = _of_job(block, jobs_at, cells)
    good &= _silent(cells)
    step_s, fine = _spans(cells, "elapsed", "elapsedraw")
    good &= fine
    cpu_s, fine = _spans(cells, "totalcpu")
    good &= fine
    untold = ~(cpu_s > 0)
    memory, percent, cpu_told, fine = _usage(text, cells, untold)
    good &= fine
    bound, fine = _bound(cells)
    good &= fine
    cpu_s = np.where(untold, cpu_told, cpu_s)
    at = np.flatnonzero(good)
    values: dict[str, Any] = {
        "_row": steps_at[at], "extern": extern[at], "step_s": step_s[at], "cpu_s": cpu_s[at],
        "memory": np.where(memory > 0, memory, bound)[at], "percent": percent[at], "job": job[at],
    }  # fmt: skip
    frame = pl.DataFrame(values).with_columns(
        pl.col("step_s", "percent").fill_nan(None), pl.when(pl.col("memory") > 0).then(pl.col("memory")).alias("memory")
    )
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    frame = frame.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in schema.items())
    return frame, steps_at[~good]


def _of_job(block: Block, jobs_at: NDArray[np.int64], cells: Cells) -> tuple[Any, Any, Any]:
    """Return the line of each step's job, whether that is certain, and whether it is the step ``extern``."""
    text, steps_at = block.bytes, cells.rows
    place = np.searchsorted(jobs_at, steps_at) - 1
    good = place >= 0
    job = jobs_at[np.maximum(place, 0)]
    good &= _nothing_between(job, steps_at)
    of_jobs = Cells(block, job, cells.index)
    for name in ("cluster",) if "cluster" in cells.index else ():
        (first, end), (other, other_end) = _places(cells, name), _places(of_jobs, name)
        good &= end - first == other_end - other
        good &= read.same(text, first, other, end - first)
    column = "jobid" if "jobid" in cells.index else "jobidraw"
    (first, end), (other, other_end) = _places(cells, column), _places(of_jobs, column)
    length = other_end - other
    digit = text.raw[first] - ord("0")
    good &= (digit <= 9) & (length > 0) & (text.raw[other_end - 1] > ord(" ")) & (end - first > length + 1)
    good &= read.same(text, first, other, length)
    good &= text.raw[first + length] == ord(".")
    name_at = first + length + 1
    _, numbered = read.numbers(text, name_at, end)
    extern = _is(text, name_at, end, "extern")
    good &= numbered | extern | _is(text, name_at, end, "batch")
    return job, good, extern


def _nothing_between(job: NDArray[np.int64], steps_at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether between a job and its step are steps alone, and no line that may be another job's."""
    known = np.zeros(int(max(steps_at[-1], job.max())) + 1, dtype=np.int64)
    known[steps_at] = 1
    known = np.cumsum(known)
    found: NDArray[np.bool_] = known[steps_at] - known[job] == steps_at - job
    return found


def _is(text: read.Bytes, first: NDArray[np.int64], end: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    shift = np.uint64(8 * (8 - len(name)))
    found: NDArray[np.bool_] = (end - first == len(name)) & (text.eight(first) << shift == read.word(name) << shift)
    return found


def _places(cells: Cells, *names: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found = cells.places(*names)
    nowhere = np.full(len(cells.rows), read.PAD, dtype=np.int64)
    return (nowhere, nowhere) if found is None else found


def _silent(cells: Cells) -> NDArray[np.bool_]:
    """Return which lines have no comment that could be a site's own measuring."""
    good = np.ones(len(cells.rows), dtype=bool)
    for name in {"admincomment", "comment"} & set(cells.index):
        first, end = _places(cells, name)
        letter = cells.block.bytes.raw[first]
        good &= (first == end) | ((letter > ord(" ")) & (letter < 128) & (letter != ord("J")) & (letter != ord("{")))
    return good


def _spans(cells: Cells, *names: str) -> tuple[Any, Any]:
    """Return seconds, not a number where the cell is empty, and whether the cell could be read."""
    first, end = _places(cells, *names)
    value, good = read.spans_s(cells.block.bytes, first, end)
    return np.where(good, value, np.nan), good | (first == end)


def _bound(cells: Cells) -> tuple[Any, Any]:
    """Return MaxRSS times tasks, zero where it is not told, and whether the cells could be read."""
    text = cells.block.bytes
    (first, end), (from_, to) = _places(cells, "maxrss"), _places(cells, "ntasks")
    largest, good = read.memory_bytes(text, first, end)
    tasks, fine = read.numbers(text, from_, to)
    largest, tasks = np.where(good, largest, 0), np.where(fine, tasks, 1)
    times = np.maximum(tasks, 1)
    exact = largest.astype(np.float64) * times <= _MOST_BYTES
    return np.where(exact, largest * times, 0), (good | (first == end)) & (fine | (from_ == to)) & exact


def _usage(text: read.Bytes, cells: Cells, cpu_untold: NDArray[np.bool_]) -> tuple[Any, Any, Any, Any]:
    """Return memory in bytes (0: none told), GPU per cent (not a number: none told) and CPU seconds of TRESUsageInTot,
    and whether it could be read; CPU time only where it is told nowhere else.
    """
    count = len(cells.rows)
    memory, percent, cpu_s = np.zeros(count, dtype=np.int64), np.full(count, np.nan), np.zeros(count)
    first, end = _places(cells, "tresusageintot")
    filled = np.flatnonzero(end > first)
    if not len(filled):
        return memory, percent, cpu_s, np.ones(count, dtype=bool)
    raw, good = text.raw, np.ones(count, dtype=bool)
    marks = np.flatnonzero((raw == ord(",")) | (raw == ord("=")))
    low = np.searchsorted(marks, first)
    number = np.searchsorted(marks, end) - low
    good[filled] = (number[filled] % 2 == 1) & (number[filled] <= _MOST_MARKS)
    good &= ~_blank_within(cells.block, first, end)
    told = np.zeros((len(_NAMES), count), dtype=bool)
    for size in np.unique(number[filled][good[filled]]).tolist():  # lists of so many parts, part by part
        rows = filled[(number[filled] == size) & good[filled]]
        for part in range(0, size, 2):
            equals = marks[low[rows] + part]
            begin = marks[low[rows] + part - 1] + 1 if part else first[rows]
            stop = marks[low[rows] + part + 1] if part + 1 < size else end[rows]
            good[rows] &= (raw[equals] == ord("=")) & (raw[begin - 1] != ord("=")) & (equals > begin)
            for which, (name, reader) in enumerate(_NAMES.items()):
                near = np.flatnonzero(equals - begin == len(name))
                if not len(near):
                    continue
                like, exact = _named(text, begin[near], name)
                good[rows[near[like & ~exact]]] = False
                near = near[exact]
                good[rows[near]] &= ~told[which, rows[near]]  # of a name given twice the first counts
                told[which, rows[near]] = True
                near = near[cpu_untold[rows[near]]] if name == "cpu" else near
                values, fine = reader(text, equals[near] + 1, stop[near])
                good[rows[near]] &= fine
                (memory, cpu_s, percent)[which][rows[near]] = values
    return memory, percent, cpu_s, good


def _named(text: read.Bytes, begin: NDArray[np.int64], name: str) -> tuple[Any, Any]:
    """Return where a name of that length stands, in whatever letters, and where as it is written."""
    like, exact = np.ones(len(begin), dtype=bool), np.ones(len(begin), dtype=bool)
    for offset in range(0, len(name), 8):
        part = name[offset : offset + 8]
        shift = np.uint64(8 * (8 - len(part)))
        found = text.eight(begin + offset) << shift
        exact &= found == read.word(part) << shift
        small = found | read.word(" " * 8)  # capitals become small letters
        like &= small == (read.word(part) << shift) | read.word(" " * 8)
    return like, exact


def _blank_within(block: Block, first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which cells may hold a blank, or what Python takes for one."""
    raw = block.bytes.raw
    blanks = np.flatnonzero((raw <= ord(" ")) | (raw > 126)) if block.padded else block.blanks
    found: NDArray[np.bool_] = np.searchsorted(blanks, first) < np.searchsorted(blanks, end)
    return found
