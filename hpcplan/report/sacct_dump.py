"""One file of sacct's output, block by block: what is regular goes to the columns' reader, the rest row by row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import polars as pl

from hpcplan.errors import InputError, Problem
from hpcplan.report.allocator import freed_memory_kept
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_block import JOBS
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_columns import Known
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.sacct_lines import Block, Cells
from hpcplan.report.sacct_pieces import LOOK_AHEAD, Part, Piece, Reader
from hpcplan.report.sacct_ranges import Found, Helper, Task, cuts, shifted, tasks
from hpcplan.report.sacct_rows import HOW, SAMPLE, Header, first_header, is_header, without_mark
from hpcplan.report.sacct_steps import USED, added_up, attached, completed

__all__ = ["Dump", "read_range"]

_THREADS: Final = 2
_WAITING: Final = 4
_PART_BYTES: Final = 24 * 1024**2  # of rows that wait for the reader of whole columns


class _Here(Executor):
    """Does what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the result as one that is there."""
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def read_range(task: Task) -> Found:
    """Return what a range of a file holds."""
    faults = Faults()
    blocks = Blocks(task.file, faults, start=task.start, stop=task.stop)
    return Dump(task.file, faults, Clock(task.zone), blocks).read_under(task.header)


class Dump:
    """The jobs of one file, and the steps that have not found theirs.

    Blocks are cut one after the other, and read by a few threads beside it: polars and NumPy let them run at once.
    """

    def __init__(self, file: str, faults: Faults, clock: Clock, blocks: Blocks | None = None) -> None:
        self.file = file
        self.faults = faults
        self.clock = clock
        self.blocks = blocks or Blocks(file, faults)
        self.reader: Reader | None = None
        self.lines_read = 0
        self.known: Known = {}
        self._pieces: deque[Future[Piece]] = deque()
        self._gathered: list[Piece] = []
        self._parts: list[Future[Part]] = []
        self._tasks: list[Task] = []
        self._helpers: list[Helper | None] = []
        self.near: Sequence[int] | None = None  # where to cut the file for other processes; None: where it pays

    def read(self, columns: tuple[str, ...] | None, pieces: Iterable[tuple[bytes, bool]] | None = None) -> pl.DataFrame:
        """Return the job table of the file; ``pieces`` are those of its blocks, if they have been begun.

        Raises:
            InputError: see sacct.read_dumps.
        """
        near = cuts(self.file) if self.near is None else self.near
        with freed_memory_kept(), ExitStack() as stack:
            pool = stack.enter_context(_Here() if near else ThreadPoolExecutor(_THREADS))
            started = False
            for block, more in self.blocks if pieces is None else pieces:
                text = block if started else without_mark(block, self.file)
                started = True
                if self.reader is None:
                    text = text[self._find_header(text, columns) :]
                    if self.reader is not None and near:
                        self._share(near, self.reader.header, stack)
                if text and self.reader is not None:
                    self._read_block(pool, text, more)
            self._gather(pool, 0)
            self._submit(pool)
            parts = [one.result() for one in self._parts]
            self._parts = []
            if self.reader is not None:
                parts += self._of_others(self.reader.header)
        if self.reader is None:
            raise InputError(Problem("the file is empty", file=self.file), hint=HOW)
        return self._finished(parts)

    def read_under(self, header: Header) -> Found:
        """Return what the blocks hold, which begin with a row under that header; without joining far steps to jobs."""
        self._use(header)
        with freed_memory_kept(), _Here() as pool:
            for text, more in self.blocks:
                self._read_block(pool, text, more)
            self._gather(pool, 0)
            self._submit(pool)
        assert self.reader is not None
        parts, faults = [one.result() for one in self._parts], Faults()
        for part in parts:
            faults.include(part.faults)
        faults.notes += self.faults.notes
        quotes = {number: text for part in parts for number, text in part.quotes.items()}
        tables = [pl.concat([getattr(part, name) for part in parts]) for name in ("jobs", "used", "astray")]
        return Found(Part(tables[0], tables[1], tables[2], quotes, faults), self.lines_read, self.reader.header)

    def _share(self, near: Sequence[int], header: Header, stack: ExitStack) -> None:
        """Have other processes read what stands behind the first of these places."""
        ranges = tasks(self.file, near, header, self.clock.zone)
        self._tasks = [one for one in ranges if one.start >= self.blocks.at]  # what has been read is not read again
        if not self._tasks:
            return
        self.blocks.stop = self._tasks[0].start
        for task in self._tasks:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="hpcplan-")))
            try:
                helper = Helper(task, folder)
            except Exception:  # whatever stands in the way: this process can read it as well
                self._helpers.append(None)
                continue
            stack.callback(helper.end)
            self._helpers.append(helper)

    def _of_others(self, header: Header) -> list[Part]:
        """Return what the other processes read, or this one in their stead."""
        parts = []
        for task, helper in zip(self._tasks, self._helpers, strict=True):
            found = None if helper is None or header != task.header else helper.result()
            if found is None:
                found = read_range(replace(task, columns=header.columns, delimiter=header.delimiter))
            parts.append(shifted(found.part, self.lines_read))
            self.lines_read += found.lines
            header = found.header
        return parts

    def _read_block(self, pool: Executor, text: bytes, more: bool) -> None:
        """Have the lines of a text read, and give back the last ones if what follows may belong to them."""
        while text and self.reader is not None:
            reader = self.reader
            found, last = self._cut(text, reader, more)
            stop, following = self._one_header(found, last)
            if stop:
                self._pieces.append(pool.submit(reader.piece, found, stop, self.lines_read))
                self.lines_read += stop
            if following is None:
                self.blocks.give_back(text[found.length_until(last) :])
                break
            self._gather(pool, 0)  # what follows has other columns
            self._submit(pool)
            self._use(following)
            text = text[found.length_until(stop + 1) :]
            self.lines_read += 1
        self._gather(pool, _WAITING)

    def _gather(self, pool: Executor, waiting: int) -> None:
        """Take what has been read of blocks, until no more than so many are waited for."""
        while len(self._pieces) > waiting:
            self._gathered.append(self._pieces.popleft().result())
            if sum(map(len, self._gathered)) >= _PART_BYTES:
                self._submit(pool)

    def _submit(self, pool: Executor) -> None:
        if self._gathered and self.reader is not None:
            self._parts.append(pool.submit(self.reader.part, self._gathered))
            self._gathered = []

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
        self.reader = Reader(self.file, header, self.clock, self.known)

    def _cut(self, text: bytes, reader: Reader, more: bool) -> tuple[Block, int]:
        """Return the block of a text, and how many of its lines can be read: none if the rest must be seen."""
        block = Block(text, reader.header)
        stop = block.last_job(reader.index) if more else len(block)
        if more:
            awaiting = block.odd[block.odd >= len(block) - LOOK_AHEAD]
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
        if len(at) and self.reader is not None:
            cells = Cells(block, at, self.reader.index)
            for name in {"jobid", "jobidraw"} & set(self.reader.index):
                first, end = cells.places(name) or (at, at)
                letter = block.bytes.raw[first]
                other = (first < end) & ((letter < ord("0")) | (letter > ord("9")))  # perhaps a column's name
                likely |= set(at[other].tolist())
        for place in sorted(one for one in likely if one < stop):
            found = is_header(block.line(place))
            if found is not None and found != block.header:
                return place, found
        return stop, None

    def _finished(self, parts: list[Part]) -> pl.DataFrame:
        for part in parts:
            self.faults.include(part.faults)
        quotes = {number: text for part in parts for number, text in part.quotes.items()}
        jobs = pl.concat([part.jobs for part in parts]) if parts else pl.DataFrame(schema=JOBS)
        used = [part.used for part in parts]
        astray = [part.astray for part in parts if len(part.astray)]
        parts.clear()
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
