"""One file of sacct's output, block by block: what is regular goes to the columns' reader, the rest row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from hpcplan.errors import InputError, Problem
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_block import FIGURES, JOBS, job_columns, jobs_of_rows, step_columns, steps_of_rows
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_columns import Columns, Known
from hpcplan.report.sacct_fields import Fields, Job, Step, job_of, step_of
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.sacct_lines import Block, Cells
from hpcplan.report.sacct_quick import quick_steps, told_apart
from hpcplan.report.sacct_rows import HOW, SAMPLE, Header, Lines, first_header, is_header, mended, why_not, without_mark
from hpcplan.report.sacct_steps import USED, added_up, attached, completed

__all__ = ["Dump"]

_READ: Final = frozenset(
    [
        "cluster",
        "jobid",
        "jobidraw",
        "jobname",
        "nodelist",
        "restartcnt",
        "exitcode",
        "user",
        "account",
        "partition",
        "qos",
        "reason",
        "alloctres",
        "reqtres",
        "totalcpu",
        "state",
        "elapsed",
        "elapsedraw",
        "start",
        "end",
        "submit",
        "eligible",
        "timelimit",
        "timelimitraw",
        "alloccpus",
        "ncpus",
        "reqcpus",
        "allocnodes",
        "nnodes",
        "reqnodes",
        "reqmem",
        "allocgres",
        "reqgres",
        "admincomment",
        "comment",
        "tresusageintot",
        "maxrss",
        "ntasks",
        "flags",
        "consumedenergy",
        "consumedenergyraw",
        "failednode",
    ]
)
_READ_OF_STEPS: Final = frozenset(
    [
        "cluster",
        "jobid",
        "jobidraw",
        "elapsed",
        "elapsedraw",
        "totalcpu",
        "tresusageintot",
        "maxrss",
        "ntasks",
        "admincomment",
        "comment",
    ]
)
_LOOK_AHEAD: Final = 21  # lines that a broken row may go on for
_MOST_QUOTES: Final = 2000
_THREADS: Final = 2


@dataclass(slots=True)
class _Part:
    """What a piece of a file holds, and what in it could not be read."""

    jobs: pl.DataFrame
    used: pl.DataFrame
    astray: pl.DataFrame
    quotes: dict[int, str]
    faults: Faults


class Dump:
    """The jobs of one file, and the steps that have not found theirs.

    Pieces are cut one after the other, and read by a few threads beside it: polars leaves them to run at once.
    """

    def __init__(self, file: str, faults: Faults, clock: Clock, blocks: Blocks | None = None) -> None:
        self.file = file
        self.faults = faults
        self.clock = clock
        self.blocks = blocks or Blocks(file, faults)
        self.header: Header | None = None
        self.index: dict[str, int] = {}
        self.lines_read = 0
        self.parts: list[_Part] = []
        self.known: Known = {}

    def read(self, columns: tuple[str, ...] | None, pieces: Iterable[tuple[bytes, bool]] | None = None) -> pl.DataFrame:
        """Return the job table of the file; ``pieces`` are those of its blocks, if they have been begun.

        Raises:
            InputError: see sacct.read_dumps.
        """
        started = False
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[Future[_Part]] = deque()
            for block, more in self.blocks if pieces is None else pieces:
                text = block if started else without_mark(block, self.file)
                started = True
                if self.header is None:
                    text = text[self._find_header(text, columns) :]
                while text and self.header is not None:
                    found, stop = self._cut(text, self.header, more)
                    if stop == 0:
                        self.blocks.give_back(text)
                        break
                    stop, following = self._one_header(found, stop)
                    if stop:
                        waiting.append(pool.submit(self._read, found, stop, dict(self.index), self.lines_read))
                    text = text[found.length_until(stop) :]
                    self.lines_read += stop
                    if following is not None:  # what follows has other columns
                        self._use(following)
                        text = text[found.length(stop) :]
                        self.lines_read += 1
                    while len(waiting) > _THREADS:
                        self.parts.append(waiting.popleft().result())
            self.parts += [one.result() for one in waiting]
        if self.header is None:
            raise InputError(Problem("the file is empty", file=self.file), hint=HOW)
        return self._finished()

    def _find_header(self, text: bytes, columns: tuple[str, ...] | None) -> int:
        """Set the header, and return where its rows begin."""
        place = 0
        while place < len(text):
            end = text.find(b"\n", place)
            end = len(text) if end < 0 else end
            line = text[place:end].decode()
            if line.strip():
                header = is_header(line)
                if header is None:
                    ahead = [row.decode() for row in text[end + 1 :].split(b"\n", SAMPLE)[:SAMPLE]]
                    self._use(first_header(line, self.lines_read + 1, self.file, columns, ahead, self.faults))
                    return place
                self._use(header)
                self.lines_read += 1
                return end + 1
            self.lines_read += 1
            place = end + 1
        return len(text)

    def _use(self, header: Header) -> None:
        self.header = header
        self.index = {name: position for position, name in reversed(list(enumerate(header.columns)))}

    def _cut(self, text: bytes, header: Header, more: bool) -> tuple[Block, int]:
        """Return the block of a text, and how many of its lines can be read: none if the rest must be seen."""
        block = Block(text, header)
        stop = block.last_job(self.index) if more else len(block)
        if more:
            awaiting = block.odd[block.odd >= len(block) - _LOOK_AHEAD]
            stop = min(stop, int(awaiting[0]) if len(awaiting) else stop)
        if stop == 0:
            if more and len(text) <= 2 * self.blocks.block_bytes:
                return block, 0
            stop = len(block)
        return block, stop

    def _one_header(self, block: Block, stop: int) -> tuple[int, Header | None]:
        """Return how many of the lines stand under the block's header, and the other header that follows them."""
        likely = {int(place) for place in block.odd[block.odd < stop]}
        at = np.flatnonzero(block.regular[:stop])
        for name in {"jobid", "jobidraw"} & set(self.index) if len(at) else ():
            first, end = block.cells(at, self.index[name])
            letter = block.bytes.raw[first]
            other = (first < end) & ((letter < ord("0")) | (letter > ord("9")))  # no job's id: perhaps a column's name
            likely |= set(at[other].tolist())
        for place in sorted(one for one in likely if one < stop):
            found = is_header(block.line(place))
            if found is not None and found != block.header:
                return place, found
        return stop, None

    def _read(self, block: Block, stop: int, index: dict[str, int], lines_read: int) -> _Part:
        """Read the first lines of a block; ``lines_read`` stand before it in the file."""
        faults = Faults()
        regular = np.flatnonzero(block.regular[:stop])
        jobs_at, steps_at = told_apart(Cells(block, regular, index)) if len(regular) else (regular, regular)
        of_jobs = Columns(Cells(block, jobs_at, index), block.names(index, _READ), self.known, figures=FIGURES)
        jobs = job_columns(pl.Series(jobs_at), of_jobs, self.clock).filter(~of_jobs.odd)
        done, steps_at = quick_steps(block, jobs["_row"].to_numpy(), steps_at, index)
        of_steps = Columns(
            Cells(block, steps_at, index), block.names(index, _READ_OF_STEPS), self.known, figures=FIGURES
        )
        steps = step_columns(pl.Series(steps_at), of_steps).filter(~of_steps.odd)
        broken = [int(place) for place in block.odd[block.odd < stop]]
        odd = sorted([*broken, *jobs_at[of_jobs.odd.to_numpy()], *steps_at[of_steps.odd.to_numpy()]])
        slow_jobs, slow_steps = self._by_row(block, odd, index, lines_read, faults)
        faults.rows_read += len(jobs) + len(steps) + len(done)
        first = lines_read + 1
        every = pl.concat([jobs, slow_jobs]).with_columns(pl.col("_row") + first).sort("_row")
        here, astray = attached(every, pl.concat([steps, slow_steps]).with_columns(pl.col("_row") + first))
        here = pl.concat([here, done.with_columns(pl.col("_row", "job") + first)])
        used = added_up(every, here) if len(here) else pl.DataFrame(schema=USED)
        quotes = {number: block.line(number - first) for number in astray["_row"].head(_MOST_QUOTES)}
        return _Part(every, used, astray, quotes, faults)

    def _by_row(
        self, block: Block, odd: list[int], index: dict[str, int], lines_read: int, faults: Faults
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        jobs: list[tuple[int, Job]] = []
        steps: list[tuple[int, tuple[str, str], Step]] = []
        after = 0
        for at in odd:
            line = block.line(at)
            if at < after or not line.strip() or is_header(line) is not None:
                continue
            number = lines_read + at + 1
            lines = Lines((number + k, block.line(at + k)) for k in range(1, min(_LOOK_AHEAD, len(block) - at)))
            row = mended(block.header, number, line, lines)
            after = at + 1 + lines.skipped
            faults.rows_read += 1
            if row is None:
                faults.add("row skipped", why_not(block.header, line), self.file, number, line)
                continue
            fields = Fields(row, index, self.file, faults)
            name = fields.job_name()
            if name is None:
                continue
            if name.step is None:
                jobs.append((at, job_of(fields, name, self.clock)))
            else:
                steps.append((at, (fields.text("cluster"), name.label), step_of(fields, name.step)))
        return (
            jobs_of_rows([at for at, _ in jobs], [job for _, job in jobs]),
            steps_of_rows([at for at, _, _ in steps], [key for _, key, _ in steps], [step for _, _, step in steps]),
        )

    def _finished(self) -> pl.DataFrame:
        for part in self.parts:
            self.faults.include(part.faults)
        quotes = {number: text for part in self.parts for number, text in part.quotes.items()}
        jobs = pl.concat([part.jobs for part in self.parts]) if self.parts else pl.DataFrame(schema=JOBS)
        used = [part.used for part in self.parts]
        astray = [part.astray for part in self.parts if len(part.astray)]
        self.parts = []
        if astray:
            steps = pl.concat(astray)
            here, others = attached(jobs, steps)
            last = jobs.group_by(pl.col("cluster").fill_null("").alias("_cluster"), "label").agg(
                pl.col("_row").max().alias("job")
            )
            others = others.with_columns(pl.col("cluster").fill_null("").alias("_cluster")).join(
                last, on=["_cluster", "label"], how="left", maintain_order="left"
            )
            homeless = others.filter(pl.col("job").is_null())
            for number in homeless["_row"]:
                text = quotes.get(number, "")
                self.faults.add("row skipped", "a step whose job is not in the file", self.file, number, text)
            found = pl.concat([here, others.filter(pl.col("job").is_not_null()).select(here.columns)])
            used.append(added_up(jobs, found.sort("_row")))
        return completed(jobs, pl.concat(used) if used else pl.DataFrame(schema=USED))
