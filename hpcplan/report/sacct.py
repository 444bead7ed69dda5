"""Reads sacct's text (``sacct --parsable2``) into the job table: steps go to their jobs, every attempt is kept.

A file is read in blocks, column by column (:mod:`hpcplan.report.sacct_block`). :func:`read_by_rows` reads the same row
by row: slower by far, simple, and what the other is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from hpcplan.report.faults import Faults
from hpcplan.report.sacct_cells import Clock
from hpcplan.report.sacct_fields import Fields, Job, Step, job_of, step_of
from hpcplan.report.sacct_rows import Header, Row, rows
from hpcplan.report.sacct_usage import complete

if TYPE_CHECKING:
    import polars as pl

__all__ = ["read_by_rows", "read_dumps"]


def read_dumps(
    paths: Sequence[Path | str], faults: Faults, *, columns: tuple[str, ...] | None = None, zone: tzinfo | None = None
) -> pl.DataFrame:
    """Return the job table of all files; what cannot be read goes into ``faults``.

    ``columns`` names the columns of files that have no header, ``zone`` is where sacct ran (default: this machine's).

    Raises:
        InputError: a file that is missing, unreadable, empty, or not sacct's parsable output.
    """
    from hpcplan.report.sacct_dump import Dump
    from hpcplan.report.sacct_files import Blocks
    from hpcplan.report.sacct_json import is_json, rows_of_json

    def read(file: str) -> pl.DataFrame:
        blocks = Blocks(file, faults)
        pieces = iter(blocks)
        first = next(pieces, (b"", False))
        if not is_json(first[0].removeprefix(b"\xef\xbb\xbf")):
            return Dump(file, faults, Clock(zone), blocks=blocks).read(columns, chain([first], pieces))
        text = b"".join(piece for piece, _ in chain([first], pieces)).decode("utf-8-sig")
        return _Dump(file, faults, Clock(zone)).read_rows(_counted(rows_of_json(text, file, faults), faults))

    return _merged(paths, read)


def _counted(found: Iterable[Row], faults: Faults) -> Iterator[Row]:
    for row in found:
        faults.rows_read += 1
        yield row


def read_by_rows(
    paths: Sequence[Path | str], faults: Faults, *, columns: tuple[str, ...] | None = None, zone: tzinfo | None = None
) -> pl.DataFrame:
    """As :func:`read_dumps`, one row at a time."""
    return _merged(paths, lambda file: _Dump(file, faults, Clock(zone)).read(columns))


def _merged(paths: Sequence[Path | str], read: Callable[[str], pl.DataFrame]) -> pl.DataFrame:
    from hpcplan.report.table import merge

    return merge([read(str(path)) for path in paths])


class _Dump:
    """One file of sacct's output."""

    def __init__(self, file: str, faults: Faults, clock: Clock) -> None:
        self.file = file
        self.faults = faults
        self.clock = clock
        self.jobs: list[Job] = []
        self.newest: dict[tuple[str, str], Job] = {}
        self.orphans: list[tuple[tuple[str, str], Step, Row]] = []

    def read(self, columns: tuple[str, ...] | None) -> pl.DataFrame:
        return self.read_rows(rows(self.file, self.faults, columns))

    def read_rows(self, found: Iterable[Row]) -> pl.DataFrame:
        """Return the job table of these rows."""
        from hpcplan.report.table import SCHEMA, from_columns

        header: Header | None = None
        index: dict[str, int] = {}
        for row in found:
            if row.header is not header:
                header = row.header
                index = {name: position for position, name in reversed(list(enumerate(header.columns)))}
            self._add(Fields(row, index, self.file, self.faults))
        self._place_orphans()
        tracked = any(job.gpus for job in self.jobs)
        for job in self.jobs:
            complete(job, gpus_tracked=tracked)
        return from_columns({name: [job.values.get(name) for job in self.jobs] for name in SCHEMA})

    def _add(self, fields: Fields) -> None:
        name = fields.job_name()
        if name is None:
            return
        key = (fields.text("cluster"), name.label)
        if name.step is None:
            job = job_of(fields, name, self.clock)
            self.jobs.append(job)
            self.newest[key] = job
            return
        step = step_of(fields, name.step)
        if key in self.newest:  # sacct writes each attempt's steps behind it
            self.newest[key].steps.append(step)
        else:
            self.orphans.append((key, step, fields.row))

    def _place_orphans(self) -> None:
        for key, step, row in self.orphans:
            if key in self.newest:
                self.newest[key].steps.append(step)
            else:
                message = "a step whose job is not in the file"
                self.faults.add("row skipped", message, self.file, row.line, row.text)
