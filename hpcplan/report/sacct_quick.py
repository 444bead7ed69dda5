"""Steps that stand behind their job and are written the usual way, read from their bytes: nearly all rows of a dump.

What is not quite so (a name of another form, an amount in other units, a step apart from its job) is left to the reader
of whole columns, and what that refuses to the reader of single rows. What the steps of a job used is added up here, as
in :func:`hpcplan.report.sacct_steps.added_up`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report import sacct_bytes as read
from hpcplan.report.sacct_cells import MAX_COUNT
from hpcplan.report.sacct_lines import Block, Cells
from hpcplan.report.sacct_steps import USED
from hpcplan.report.sacct_usage_bytes import usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Quick", "quick_steps", "quick_used", "told_apart"]

_MOST_BYTES: Final = float(2**53)  # as far as amounts can be multiplied without rounding
_WORK, _SAMPLED, _SAMPLED_WORK, _GPU, _GPU_WORK = 1, 2, 4, 8, 16
_FLAGS: Final = {"any_work": _WORK, "sampled": _SAMPLED, "sampled_work": _SAMPLED_WORK, "gpu": _GPU,
                 "gpu_work": _GPU_WORK}  # fmt: skip


@dataclass(slots=True)
class Quick:
    """What the steps of each job used, and those of them that tell of GPUs, whose weight takes their job to know."""

    steps: int
    job: NDArray[np.int64]
    cpu_s: NDArray[np.float64]
    memory_bytes: NDArray[np.int64]
    flags: NDArray[np.uint8]
    gpu_job: NDArray[np.int64]
    gpu_step_s: NDArray[np.float64]
    gpu_percent: NDArray[np.float64]
    gpu_work: NDArray[np.bool_]

    @classmethod
    def none(cls) -> Quick:
        """Return that of no steps."""
        whole, real = np.zeros(0, dtype=np.int64), np.zeros(0)
        return cls(0, whole, real, whole, np.zeros(0, np.uint8), whole, real, real, np.zeros(0, dtype=bool))

    @classmethod
    def together(cls, parts: Sequence[Quick]) -> Quick:
        """Return those of several blocks as one."""
        names = [one.name for one in fields(cls) if one.name != "steps"]
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
        return cls(sum(part.steps for part in parts), *joined)


def told_apart(cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lines that are jobs', and those that are steps'."""
    places = cells.places("jobid", "jobidraw")
    if places is None:
        return cells.rows, cells.rows[:0]
    is_step = read.has_byte(cells.block.bytes, *places, ".")
    return cells.rows[~is_step], cells.rows[is_step]


def quick_steps(
    block: Block, jobs_at: NDArray[np.int64], steps_at: NDArray[np.int64], index: Mapping[str, int], first_row: int
) -> tuple[Quick, NDArray[np.int64]]:
    """Return what the steps that could be read used, and the other lines.

    ``jobs_at`` are the lines of jobs, and ``first_row`` the number of the block's first line in the file.
    """
    if not len(jobs_at) or not len(steps_at):
        return Quick.none(), steps_at
    text, cells = block.bytes, Cells(block, steps_at, index)
    job, good, extern = _of_job(block, jobs_at, cells)
    good &= _silent(cells)
    step_s, fine = _spans(cells, "elapsed", "elapsedraw")
    good &= fine
    cpu_s, fine = _spans(cells, "totalcpu")
    good &= fine
    untold = ~(cpu_s > 0)
    first, end = _places(cells, "tresusageintot")
    used = usage(text, first, end, untold)
    good &= used.good & ~_blank_within(block, first, end)
    memory = used.memory_bytes
    rest = np.flatnonzero(memory <= 0)
    memory[rest], fine = _bound(cells, rest)
    good[rest] &= fine
    cpu_s = np.where(untold, used.cpu_s, cpu_s)
    if not good.all():
        at = np.flatnonzero(good)
        job, extern, step_s, cpu_s, memory = job[at], extern[at], step_s[at], cpu_s[at], memory[at]
        percent = used.gpu_percent[at]
        left = steps_at[~good]
    else:
        percent, left = used.gpu_percent, steps_at[:0]
    if not len(job):
        return Quick.none(), left
    return _added_up(job + first_row, extern, step_s, cpu_s, memory, percent), left


def _added_up(
    job: NDArray[np.int64], extern: NDArray[np.bool_], step_s: Any, cpu_s: Any, memory: Any, percent: Any
) -> Quick:
    """Return the sums over steps that stand in the order of their jobs."""
    begins = np.flatnonzero(np.diff(job, prepend=-1))
    work, some = ~extern, memory > 0
    seen = some & (percent == percent)
    flags = work * np.uint8(_WORK) + some * np.uint8(_SAMPLED) + (work & some) * np.uint8(_SAMPLED_WORK)
    at = np.flatnonzero(seen)
    if len(at):
        flags += seen * np.uint8(_GPU) + (work & seen) * np.uint8(_GPU_WORK)
    return Quick(
        len(job), job[begins], np.add.reduceat(np.where(cpu_s == cpu_s, cpu_s, 0.0), begins),
        np.maximum.reduceat(memory, begins), np.bitwise_or.reduceat(flags, begins),
        job[at], step_s[at], percent[at], work[at],
    )  # fmt: skip


def quick_used(quick: Quick, jobs: pl.DataFrame) -> pl.DataFrame:
    """Return sacct_steps.USED of each job; ``jobs``, in order of their rows, tells how long each ran."""
    busy: Any = np.zeros(len(quick.job))
    busy_work: Any = busy
    if len(quick.gpu_job):
        ran = jobs["elapsed_s"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        ran_s = ran[np.searchsorted(jobs["_row"].to_numpy(), quick.gpu_job)]
        lasted = np.fmin(np.where(quick.gpu_step_s > 0, quick.gpu_step_s, ran_s), ran_s)
        share = np.nan_to_num(quick.gpu_percent * lasted, nan=0.0, posinf=np.inf)
        place = np.searchsorted(quick.job, quick.gpu_job)
        busy = np.bincount(place, share, len(quick.job))
        busy_work = np.bincount(place, share * quick.gpu_work, len(quick.job))
    columns = {
        "_row": quick.job, "cpu_sum": quick.cpu_s, "memory_max": quick.memory_bytes, "busy": busy,
        "busy_work": busy_work, **{name: (quick.flags & bit) != 0 for name, bit in _FLAGS.items()},
    }  # fmt: skip
    found = pl.DataFrame(columns).with_columns(
        pl.when(pl.col("memory_max") > 0).then(pl.col("memory_max")).alias("memory_max")
    )
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in USED.items() if name not in columns]
    return found.with_columns(missing).select(list(USED))


def _of_job(block: Block, jobs_at: NDArray[np.int64], cells: Cells) -> tuple[Any, Any, Any]:
    """Return the line of each step's job, whether that is certain, and whether it is the step ``extern``."""
    text, steps_at = block.bytes, cells.rows
    place = np.searchsorted(jobs_at, steps_at) - 1
    good = place >= 0
    place = np.maximum(place, 0)
    job = jobs_at[place]
    good &= _nothing_between(job, steps_at)
    of_jobs = Cells(block, jobs_at, cells.index)
    for name in ("cluster",) if "cluster" in cells.index else ():
        (first, end), (other, other_end) = _places(cells, name), _places(of_jobs, name)
        good &= end - first == (other_end - other)[place]
        good &= read.same(text, first, other[place], end - first)
    column = "jobid" if "jobid" in cells.index else "jobidraw"
    (first, end), (other, other_end) = _places(cells, column), _places(of_jobs, column)
    known = read.job_ids(text, other, other_end)
    length = (other_end - other)[place]
    good &= known[place] & (end - first > length + 1)
    good &= read.same(text, first, other[place], length)
    good &= text.raw[first + length] == ord(".")
    named, extern = _step_names(text, first + length + 1, end)
    return job, good & named, extern


def _step_names(text: read.Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return which cells are a step's name as Slurm gives them, and which are ``extern``."""
    length, begin = end - first, text.eight(first)
    extern = (length == 6) & read.begins_with(begin, "extern")
    named = extern | ((length == 5) & read.begins_with(begin, "batch"))
    at = np.flatnonzero(~named)
    if len(at):
        _, numbered = read.numbers(text, first[at], end[at])
        within = read.begins_with(begin[at], "interact") & read.begins_with(text.eight(first[at] + 8), "ive")
        named[at] = numbered | ((length[at] == 11) & within)
    return named, extern


def _nothing_between(job: NDArray[np.int64], steps_at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether between a job and its step are steps alone, and no line that may be another job's."""
    known = np.zeros(int(max(steps_at[-1], job.max())) + 1, dtype=np.int64)
    known[steps_at] = 1
    known = np.cumsum(known)
    found: NDArray[np.bool_] = known[steps_at] - known[job] == steps_at - job
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


def _bound(cells: Cells, at: NDArray[np.int64]) -> tuple[Any, Any]:
    """Return MaxRSS times tasks of some lines, zero where it is not told, and whether the cells could be read."""
    text, some = cells.block.bytes, Cells(cells.block, cells.rows[at], cells.index)
    (first, end), (from_, to) = _places(some, "maxrss"), _places(some, "ntasks")
    largest, good = read.memory_bytes(text, first, end)
    tasks, fine = read.numbers(text, from_, to)
    fine &= tasks <= MAX_COUNT
    largest, tasks = np.where(good, largest, 0), np.where(fine, tasks, 1)
    times = np.maximum(tasks, 1)
    exact = largest.astype(np.float64) * times <= _MOST_BYTES
    return np.where(exact, largest * times, 0), (good | (first == end)) & (fine | (from_ == to)) & exact


def _blank_within(block: Block, first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which cells may hold a blank, or what Python takes for one."""
    raw = block.bytes.raw
    blanks = np.flatnonzero((raw <= ord(" ")) | (raw > 126)) if block.padded else block.blanks
    if not len(blanks):
        return np.zeros(len(first), dtype=bool)
    found: NDArray[np.bool_] = np.searchsorted(blanks, first) < np.searchsorted(blanks, end)
    return found
