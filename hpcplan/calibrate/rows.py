"""Measured training runs: reading a table of them, and filling in what it does not say.

A table is CSV with any of the columns below; an empty cell means that the source does not say. What is inferred or
defaulted is told, row by row.

site hardware gpus gpus_per_node model model_params_B layers hidden heads kv_heads ffn vocab seq global_batch
micro_batch tp pp vpp cp ep dp zero recompute seq_parallel precision iter_time_s tokens_per_s_per_gpu tflops_per_gpu
mfu_pct hfu_pct mem_GB outcome notes
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcplan.calibrate.row_reader import Reader, Row, Unusable
from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem

__all__ = ["COLUMNS", "Row", "Table", "read_rows"]

COLUMNS = tuple((__doc__ or "").split("\n\n")[2].split())


@dataclass(frozen=True, slots=True)
class Table:
    """A table as read: its header and cells, and for each line a :class:`Row` or the reason why there is none."""

    path: Path
    header: tuple[str, ...]
    cells: tuple[dict[str, str], ...]
    rows: tuple[Row | str, ...]
    lines: tuple[int, ...]


def read_rows(path: Path) -> Table:
    """Read a table of measured runs.

    Raises:
        InputError: not CSV text, or without the columns ``gpus`` and ``site`` or ``hardware``.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(Problem("is empty; the first line must name the columns", file=str(path), line=1))
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header = tuple(name.strip() for name in next(reader, []))
    known = _known_columns(header, path)
    cells: list[dict[str, str]] = []
    rows: list[Row | str] = []
    lines: list[int] = []
    try:
        for values in reader:
            if not values:
                continue
            cell = dict(zip(header, (*(v.strip() for v in values), *[""] * len(header)), strict=False))
            cells.append(cell)
            lines.append(reader.line_num)
            rows.append(_read(cell, values, known, reader.line_num, delimiter == ";"))
    except csv.Error as error:
        raise InputError(Problem(f"is not CSV: {error}", file=str(path), line=reader.line_num)) from None
    return Table(path, header, tuple(cells), tuple(rows), tuple(lines))


def _delimiter(text: str) -> str:
    """Return what stands between the names of the first line: comma, semicolon (as spreadsheets have it), tab."""
    first = next(line for line in text.splitlines() if line.strip())
    return max(",;\t", key=first.count)


def _known_columns(header: tuple[str, ...], path: Path) -> dict[str, str]:
    """Return the table's own name of each column; case and blanks around it do not matter.

    Raises:
        InputError: a name twice, or no ``gpus``, or neither ``site`` nor ``hardware``.
    """
    lower = [name.lower().replace(" ", "_") for name in header]
    plain = {name.lower(): name for name in COLUMNS}
    found = {plain.get(name, name): own for name, own in zip(lower, header, strict=True)}
    twice = next((name for name, own in zip(lower, header, strict=True) if name and lower.count(name) > 1), None)
    if twice is not None:
        raise InputError(Problem(f"has two columns {twice!r}; leave one", file=str(path), line=1))
    if "gpus" not in found or not {"site", "hardware"} & set(found):
        names = ", ".join(COLUMNS)
        raise InputError(Problem("has no columns 'gpus' and 'site'; known columns: " + names, file=str(path), line=1))
    return found


def _read(
    cell: Mapping[str, str], values: list[str], known: Mapping[str, str], line: int, decimal_comma: bool
) -> Row | str:
    if any(value.strip() for value in values[len(cell) :]):
        return f"has {len(values)} cells, the header {len(cell)}: a comma in a cell needs quotes around it"
    try:
        return Reader({name: cell[own] for name, own in known.items()}, line, decimal_comma).row()
    except Unusable as reason:
        return str(reason)
