"""One file of sacct's output, block by block: what is regular goes to the columns' reader, the rest row by row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from hpcplan.errors import InputError, Problem
from hpcplan.report.faults import Faults
from hpcplan.report.sacct_block import JOBS, job_columns, jobs_of_rows, step_columns, steps_of_rows
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_columns import Columns, Known
from hpcplan.report.sacct_fields import Fields, Job, Step, job_of, step_of
from hpcplan.report.sacct_files import Blocks
from hpcplan.report.sacct_lines import Block
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


class Dump:
    """The jobs of one file, and the steps that have not found theirs."""

    def __init__(self, file: str, faults: Faults, clock: Clock, blocks: Blocks | None = None) -> None:
        self.file = file
        self.faults = faults
        self.clock = clock
        self.blocks = blocks or Blocks(file, faults)
        self.header: Header | None = None
        self.index: dict[str, int] = {}
        self.lines_read = 0
        self.jobs: list[pl.DataFrame] = []
        self.used: list[pl.DataFrame] = []
        self.astray: list[pl.DataFrame] = []
        self.quotes: dict[int, str] = {}
        self.known: Known = {}

    def read(self, columns: tuple[str, ...] | None, pieces: Iterable[tuple[bytes, bool]] | None = None) -> pl.DataFrame:
        """Return the job table of the file; ``pieces`` are those of its blocks, if they have been begun.

        Raises:
            InputError: see sacct.read_dumps.
        """
        started = False
        for block, more in self.blocks if pieces is None else pieces:
            text = block if started else without_mark(block, self.file)
            started = True
            if self.header is None:
                text = text[self._find_header(text, columns) :]
            while text and self.header is not None:
                taken = self._take(text, self.header, more)
                text = text[taken:]
                if taken == 0:
                    self.blocks.give_back(text)
                    break
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

    def _take(self, text: bytes, header: Header, more: bool) -> int:
        """Read what can be read of a block, and return how many bytes that were: none if the rest must be seen."""
        block = Block(text, header)
        stop = block.last_job(self.index) if more else len(block)
        if more:
            awaiting = block.odd[block.odd >= len(block) - _LOOK_AHEAD]
            stop = min(stop, int(awaiting[0]) if len(awaiting) else stop)
        if stop == 0:
            if more and len(text) <= 2 * self.blocks.block_bytes:
                return 0
            stop = len(block)
        return self._read(block, stop)

    def _read(self, block: Block, stop: int) -> int:
        names = block.names(self.index, _READ)
        at = pl.Series("_row", block.filled)
        taken = pl.Series(block.regular[block.filled]) & (at < stop)
        ids = Columns(block.cells, names).text("jobid", "jobidraw")
        is_step = ids.str.contains(".", literal=True).fill_null(False)
        jobs_at, steps_at = at.filter(taken & ~is_step), at.filter(taken & is_step)
        of_jobs = Columns(block.cells.filter(taken & ~is_step), names, self.known)
        needed = {name: column for name, column in names.items() if name in _READ_OF_STEPS}
        of_steps = Columns(block.cells.select(set(needed.values())).filter(taken & is_step), needed, self.known)
        jobs = job_columns(jobs_at, of_jobs, self.clock).filter(~of_jobs.odd)
        steps = step_columns(steps_at, of_steps).filter(~of_steps.odd)
        broken = [int(place) for place in block.odd[block.odd < stop]]
        odd = sorted([*broken, *jobs_at.filter(of_jobs.odd), *steps_at.filter(of_steps.odd)])
        for place in odd:
            found = is_header(block.line(place))
            if found is not None and found != block.header:  # what follows has other columns
                before = self._read(block, place) if place else 0
                self._use(found)
                self.lines_read += 1
                return before + block.length(place)
        slow_jobs, slow_steps = self._by_row(block, odd)
        self.faults.rows_read += len(jobs) + len(steps)
        first = self.lines_read + 1
        self._add(
            block,
            pl.concat([jobs, slow_jobs]).with_columns(pl.col("_row") + first),
            pl.concat([steps, slow_steps]).with_columns(pl.col("_row") + first),
            first,
        )
        self.lines_read += stop
        return block.length_until(stop)

    def _by_row(self, block: Block, odd: list[int]) -> tuple[pl.DataFrame, pl.DataFrame]:
        jobs: list[tuple[int, Job]] = []
        steps: list[tuple[int, tuple[str, str], Step]] = []
        after = 0
        for at in odd:
            line = block.line(at)
            if at < after or not line.strip() or is_header(line) is not None:
                continue
            number = self.lines_read + at + 1
            lines = Lines((number + k, block.line(at + k)) for k in range(1, min(_LOOK_AHEAD, len(block) - at)))
            row = mended(block.header, number, line, lines)
            after = at + 1 + lines.skipped
            self.faults.rows_read += 1
            if row is None:
                self.faults.add("row skipped", why_not(block.header, line), self.file, number, line)
                continue
            fields = Fields(row, self.index, self.file, self.faults)
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

    def _add(self, block: Block, jobs: pl.DataFrame, steps: pl.DataFrame, first: int) -> None:
        jobs = jobs.sort("_row")
        self.jobs.append(jobs)
        here, astray = attached(jobs, steps)
        if len(here):
            self.used.append(added_up(jobs, here))
        if len(astray):
            self.astray.append(astray)
            for number in astray["_row"].head(max(0, _MOST_QUOTES - len(self.quotes))):
                self.quotes[number] = block.line(number - first)

    def _finished(self) -> pl.DataFrame:
        jobs = pl.concat(self.jobs) if self.jobs else pl.DataFrame(schema=JOBS)
        if self.astray:
            steps = pl.concat(self.astray)
            here, others = attached(jobs, steps)
            last = jobs.group_by(pl.col("cluster").fill_null("").alias("_cluster"), "label").agg(
                pl.col("_row").max().alias("job")
            )
            others = others.with_columns(pl.col("cluster").fill_null("").alias("_cluster")).join(
                last, on=["_cluster", "label"], how="left", maintain_order="left"
            )
            homeless = others.filter(pl.col("job").is_null())
            for number in homeless["_row"]:
                text = self.quotes.get(number, "")
                self.faults.add("row skipped", "a step whose job is not in the file", self.file, number, text)
            found = pl.concat([here, others.filter(pl.col("job").is_not_null()).select(here.columns)])
            self.used.append(added_up(jobs, found.sort("_row")))
        used = pl.concat(self.used) if self.used else pl.DataFrame(schema=USED)
        self.jobs, self.used = [], []
        return completed(jobs, used)
