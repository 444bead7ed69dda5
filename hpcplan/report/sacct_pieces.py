"""What one block of a dump holds, and many of them together.

A block is small, so that what is read of it from its bytes stays in the processor's cache; the text of its jobs, and of
the steps that are not written the usual way, waits until there is enough for the reader of whole columns, whose calls
cost the same for many rows as for few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from hpcplan.report.faults import MAX_QUOTED, Faults
from hpcplan.report.sacct_block import JOBS, STEPS, job_columns, jobs_of_rows, step_columns, steps_of_rows
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_columns import Columns, Known
from hpcplan.report.sacct_fields import Fields, Job, Step, job_of, step_of
from hpcplan.report.sacct_lines import Block, Cells, Rows
from hpcplan.report.sacct_quick import Quick, quick_steps, quick_used, told_apart
from hpcplan.report.sacct_rows import Header, Lines, is_header, mended, why_not
from hpcplan.report.sacct_steps import USED, added_up, attached

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOOK_AHEAD", "Part", "Piece", "Reader"]

_READ: Final = frozenset(
    {
    "cluster", "jobid", "jobidraw", "jobname", "nodelist", "restartcnt", "exitcode", "user", "account", "partition",
    "qos", "reason", "alloctres", "reqtres", "submitline", "totalcpu", "state", "elapsed", "elapsedraw", "start", "end",
    "submit", "eligible", "timelimit", "timelimitraw", "alloccpus", "ncpus", "reqcpus", "allocnodes", "nnodes",
    "reqnodes", "reqmem", "allocgres", "reqgres", "admincomment", "comment", "tresusageintot", "maxrss", "ntasks",
    "flags", "consumedenergy", "consumedenergyraw", "failednode",
    }
)  # fmt: skip
_READ_OF_STEPS: Final = frozenset(
    {
    "cluster", "jobid", "jobidraw", "elapsed", "elapsedraw", "totalcpu", "tresusageintot", "maxrss", "ntasks",
    "admincomment", "comment",
    }
)  # fmt: skip
LOOK_AHEAD: Final = 21  # lines that a broken row may go on for
_MOST_QUOTES: Final = 2000


@dataclass(slots=True)
class _Slow:
    """The jobs and steps that were read one by one: by their line in the file, with its text."""

    jobs: list[tuple[int, Job]] = field(default_factory=list)
    steps: list[tuple[int, tuple[str, str], Step, str]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)


@dataclass(slots=True)
class Piece:
    """What a block holds: rows of jobs and of other steps as they stand there, by their line in the file."""

    jobs_at: NDArray[np.int64]
    jobs: Rows
    steps_at: NDArray[np.int64]
    steps: Rows
    quick: Quick
    slow: _Slow

    def __len__(self) -> int:
        return len(self.jobs.text) + len(self.steps.text)


@dataclass(slots=True)
class Part:
    """What many blocks hold, and what in them could not be read."""

    jobs: pl.DataFrame
    used: pl.DataFrame
    astray: pl.DataFrame
    quotes: dict[int, str]
    faults: Faults


class Reader:
    """Reads rows that stand under one header."""

    def __init__(self, file: str, header: Header, clock: Clock, known: Known) -> None:
        self.file = file
        self.header = header
        self.index = {name: position for position, name in reversed(list(enumerate(header.columns)))}
        self.clock = clock
        self.known = known

    def piece(self, block: Block, stop: int, lines_read: int) -> Piece:
        """Read the first lines of a block; ``lines_read`` stand before it in the file."""
        first = lines_read + 1
        regular = np.flatnonzero(block.regular[:stop])
        jobs_at, steps_at = told_apart(Cells(block, regular, self.index)) if len(regular) else (regular, regular)
        quick, others = quick_steps(block, jobs_at, steps_at, self.index, first)
        slow = _Slow()
        self._by_row(block, block.odd[block.odd < stop].tolist(), range(first, first + len(block)), slow)
        return Piece(jobs_at + first, block.picked(jobs_at), others + first, block.picked(others), quick, slow)

    def part(self, pieces: Sequence[Piece]) -> Part:
        """Read what blocks that follow one another hold."""
        of_jobs, of_steps, faults = _Slow(), _Slow(), Faults()
        jobs, steps = self._jobs(pieces, of_jobs), self._steps(pieces, of_steps)
        quick = Quick.together([piece.quick for piece in pieces])
        faults.rows_read = len(jobs) + len(steps) + quick.steps
        slow_jobs, slow_steps, quotes = _together([*(piece.slow for piece in pieces), of_jobs, of_steps], faults)
        every = pl.concat([jobs, slow_jobs]).sort("_row") if len(slow_jobs) else jobs
        used = [quick_used(quick, every)] if quick.steps else []
        astray = steps.clear()
        if len(steps) or len(slow_steps):
            here, astray = attached(every, pl.concat([steps, slow_steps]))
            used += [added_up(every, here)] if len(here) else []
        texts = self._quotes(pieces, astray, quotes)
        return Part(every, pl.concat(used) if used else pl.DataFrame(schema=USED), astray, texts, faults)

    def _jobs(self, pieces: Sequence[Piece], slow: _Slow) -> pl.DataFrame:
        at = np.concatenate([piece.jobs_at for piece in pieces])
        if not len(at):
            return pl.DataFrame(schema=JOBS)
        rows = Rows.together([piece.jobs for piece in pieces])
        columns = Columns(rows, rows.names(self.index, _READ), self.known)
        found = job_columns(pl.Series(at), columns, self.clock)
        return self._without_odd(found, columns, rows, at, slow)

    def _steps(self, pieces: Sequence[Piece], slow: _Slow) -> pl.DataFrame:
        at = np.concatenate([piece.steps_at for piece in pieces])
        if not len(at):
            return pl.DataFrame(schema=STEPS)
        rows = Rows.together([piece.steps for piece in pieces])
        columns = Columns(rows, rows.names(self.index, _READ_OF_STEPS), self.known)
        return self._without_odd(step_columns(pl.Series(at), columns), columns, rows, at, slow)

    def _without_odd(
        self, found: pl.DataFrame, columns: Columns, rows: Rows, at: NDArray[np.int64], slow: _Slow
    ) -> pl.DataFrame:
        """Read the rows one by one that the reader of whole columns has left, and return the others."""
        if not columns.odd.any():
            return found
        lines = rows.lines(self.header.delimiter)
        for place in columns.odd.arg_true().to_list():
            if is_header(lines[place]) is None:
                self._one_row(int(at[place]), lines[place], Lines(iter(())), slow)
        return found.filter(~columns.odd)

    def _by_row(self, block: Block, places: Sequence[int], lines: Sequence[int], slow: _Slow) -> None:
        """Read the rows at some places of a block; ``lines`` are the numbers of its lines in the file."""
        after = 0
        for at in places:
            text = block.line(at)
            if at < after or not text.strip() or is_header(text) is not None:
                continue
            ahead = Lines((lines[k], block.line(k)) for k in range(at + 1, min(at + LOOK_AHEAD, len(block))))
            self._one_row(lines[at], text, ahead, slow)
            after = at + 1 + ahead.skipped

    def _one_row(self, number: int, text: str, ahead: Lines, slow: _Slow) -> None:
        """Read a row by itself; ``ahead`` are the lines behind it, of which it takes those that belong to it."""
        row = mended(self.header, number, text, ahead)
        slow.faults.rows_read += 1
        if row is None:
            slow.faults.add("row skipped", why_not(self.header, text), self.file, number, text)
            return
        fields = Fields(row, self.index, self.file, slow.faults)
        name = fields.job_name()
        if name is None:
            return
        if name.step is None:
            slow.jobs.append((number, job_of(fields, name, self.clock)))
        else:
            key = (fields.text("cluster"), name.label)
            slow.steps.append((number, key, step_of(fields, name.step), text))

    def _quotes(self, pieces: Sequence[Piece], astray: pl.DataFrame, known: Mapping[int, str]) -> dict[int, str]:
        """Return the first lines of steps that have not found their job."""
        wanted = set(astray["_row"].head(_MOST_QUOTES).to_list())
        found = {number: text for number, text in known.items() if number in wanted}
        for piece in pieces if wanted - set(found) else ():
            lines = piece.steps.lines(self.header.delimiter)
            found |= {number: lines[place] for place, number in enumerate(piece.steps_at.tolist()) if number in wanted}
        return found


def _together(found: Sequence[_Slow], faults: Faults) -> tuple[pl.DataFrame, pl.DataFrame, dict[int, str]]:
    """Return the jobs and steps as tables, and the texts of steps; faults in the order of their lines."""
    jobs = sorted((job for one in found for job in one.jobs), key=lambda job: job[0])
    steps = sorted((step for one in found for step in one.steps), key=lambda step: step[0])
    for one in found:
        faults.rows_read += one.faults.rows_read
        faults.counts.update(one.faults.counts)
        faults.quoted += one.faults.quoted
    faults.quoted = sorted(faults.quoted, key=lambda fault: fault.line)[:MAX_QUOTED]
    return (
        jobs_of_rows([number for number, _ in jobs], [job for _, job in jobs]) if jobs else pl.DataFrame(schema=JOBS),
        steps_of_rows([one[0] for one in steps], [one[1] for one in steps], [one[2] for one in steps])
        if steps
        else pl.DataFrame(schema=STEPS),
        {number: text for number, _, _, text in steps},
    )
