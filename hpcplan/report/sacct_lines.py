"""A block of whole lines of sacct's output, told apart into those that have every cell and those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report.sacct_bytes import PAD, Bytes
from hpcplan.report.sacct_rows import Header

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "Cells", "Rows"]

_STAND_IN: Final = b"\x1f"
_TAIL_LINES: Final = 20_000
_NEWLINE: Final = 10
_BLANKS: Final = tuple(b"\t\v\f\r")


class Block:
    """Lines of a block by their position; ``regular`` says of each whether it is, ``odd`` are the positions of others.

    A line is regular if it has exactly the header's cells (and, as ``--parsable`` writes, one delimiter more) and
    nothing in it that the two ways of reading could take differently.
    """

    def __init__(self, text: bytes, header: Header) -> None:
        self.text = text
        self.header = header
        self.sep = header.delimiter.encode()
        self.regular: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self.padded = True
        self._cut()
        self.odd: NDArray[np.int64] = np.flatnonzero(~self.regular)

    def __len__(self) -> int:
        return len(self.ends)

    def line(self, at: int) -> str:
        """Return a line's text."""
        return self.text[self.starts[at] : self.ends[at]].decode()

    def length(self, at: int) -> int:
        """Return how many bytes a line takes, its end included."""
        return self.length_until(at + 1) - int(self.starts[at])

    def length_until(self, stop: int) -> int:
        """Return how many bytes the lines before position ``stop`` take."""
        return len(self.text) if stop >= len(self) else int(self.starts[stop])

    def last_job(self, index: Mapping[str, int]) -> int:
        """Return the position of the last line that is a job's, which its steps may follow; 0 if none is seen."""
        position = index.get("jobid", index.get("jobidraw", 0))
        for at in range(len(self) - 1, max(-1, len(self) - _TAIL_LINES), -1):
            found = self.text[self.starts[at] : self.ends[at]].split(self.sep, position + 1)
            if len(found) > position and found[position][:1].isdigit() and b"." not in found[position]:
                return at
        return len(self)

    def first_cut(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the first delimiter of lines at these positions, for :meth:`cells`."""
        return self._first[rows]

    def cells(
        self, rows: NDArray[np.int64], first_cut: NDArray[np.int64], column: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where in :attr:`bytes` the cells of a column begin and end, for regular lines at these positions."""
        cut = first_cut + column
        first = self._cuts[cut - 1] + 1 if column else self._begins[rows]
        return first, self._cuts[cut] if column + 1 < len(self.header.columns) else self._last[rows]

    def picked(self, rows: NDArray[np.int64]) -> Rows:
        """Return regular lines at these positions."""
        text = self.bytes.piece(self._begins[rows], self._stops[rows] + 1)
        return Rows(text, self._sep, len(self.header.columns), len(rows), self.padded)

    def _cut(self) -> None:
        """Find lines and cells."""
        sep, width = self._separator(), len(self.header.columns)
        if sep is None or width < 2:
            self.starts, self.ends = _bounds(self.text)
            self.regular = np.zeros(len(self), dtype=bool)
            return
        self._sep = sep
        self.bytes = Bytes(self.text if sep == self.sep else self.text.replace(self.sep, sep))
        body = self.bytes.raw[PAD : self.bytes.end]
        low = np.flatnonzero(body <= ord(" ")) + PAD
        letters = self.bytes.raw[low]
        is_end = letters == _NEWLINE
        self._stops: NDArray[np.int64] = low[is_end]
        self._begins: NDArray[np.int64] = np.concatenate([[PAD], self._stops[:-1] + 1])
        self._cuts: NDArray[np.int64] = np.flatnonzero(body == sep[0]) + PAD
        self._first: NDArray[np.int64] = np.searchsorted(self._cuts, self._begins)
        count = np.diff(self._first, append=len(self._cuts))
        closed = count == width
        closed[closed] = self.bytes.raw[self._stops[closed] - 1] == sep[0]  # the last cell is empty
        self.regular = (count == width - 1) | closed
        self._last: NDArray[np.int64] = self._stops - closed
        if sep == self.sep:
            self.starts, self.ends = self._begins - PAD, self._stops - PAD
        else:
            self.starts, self.ends = _bounds(self.text)
        inside = ~is_end & (letters != sep[0])
        self._look_at_blanks(sep, low[inside], letters[inside])

    def _separator(self) -> bytes | None:
        """Return one byte that stands between the cells, or can; ``None`` if there is none."""
        if len(self.sep) == 1 and self.sep[0] < 128 and not self.sep.isalnum():
            return self.sep
        return None if _STAND_IN in self.text or self.sep.isalnum() else _STAND_IN

    def _look_at_blanks(self, sep: bytes, low: NDArray[np.int64], letters: NDArray[np.uint8]) -> None:
        """Tell whether some cell may begin or end with a blank: if not, none needs stripping.

        Lines with characters that Python alone takes for blanks, or that may be quoted, are not regular. ``low`` are
        the places of all characters up to the blank that do not stand between cells.
        """
        raw = self.bytes.raw
        self.blanks: NDArray[np.int64] = low[letters == ord(" ")]
        edge = np.zeros(256, dtype=bool)
        edge[[_NEWLINE, sep[0], 0]] = True  # zeros stand before and behind the text
        beside = edge[raw[self.blanks - 1]] | edge[raw[self.blanks + 1]]
        self.padded = not self.text.isascii() or bool(np.isin(letters, _BLANKS).any() or beside.any())
        strange = low[(letters == 0) | ((letters >= 28) & (letters < 32))]
        if sep == b"," and b'"' in self.text:
            strange = np.append(strange, np.flatnonzero(raw == ord('"')))
        self.regular[np.searchsorted(self._stops, strange)] = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Regular lines, one after the other, and the byte between their cells; ``padded``: some may need stripping."""

    text: bytes
    sep: bytes
    width: int
    count: int
    padded: bool

    def __len__(self) -> int:
        return self.count

    @classmethod
    def together(cls, parts: Sequence[Rows]) -> Rows:
        """Return those of several blocks under one header as one."""
        text, count = b"".join([part.text for part in parts]), sum(map(len, parts))
        return cls(text, parts[0].sep, parts[0].width, count, any(part.padded for part in parts))

    def lines(self, delimiter: str) -> list[str]:
        """Return the lines as they stood in the file."""
        return self.text.removesuffix(b"\n").replace(self.sep, delimiter.encode()).decode().split("\n")

    @staticmethod
    def names(index: Mapping[str, int], wanted: Set[str]) -> dict[str, str]:
        """Return the columns of :meth:`frame` that the wanted names stand for."""
        return {name: f"c{position}" for name, position in index.items() if name in wanted}

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return columns (``c0``, ``c1`` …) as text; null where a cell is empty."""
        if not self.count or not columns:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        schema: dict[str, Any] = {f"c{i}": pl.String for i in range(self.width)}
        return pl.read_csv(
            self.sep.join(name.encode() for name in schema) + b"\n" + self.text, separator=self.sep.decode(),
            quote_char=None, schema_overrides=schema, infer_schema=False, truncate_ragged_lines=True,
            raise_if_empty=False, columns=list(columns),
        ).select(columns)  # fmt: skip


class Cells:
    """Regular lines of a block, by which of its columns each of sacct's names stands for."""

    def __init__(self, block: Block, rows: NDArray[np.int64], index: Mapping[str, int]) -> None:
        self.block = block
        self.rows = rows
        self.index = index
        self._first_cut = block.first_cut(rows) if len(rows) else rows

    def places(self, *names: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return where the first of these columns that a line fills begins and ends; ``None``: the file has none."""
        found: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        for name in names:
            if name not in self.index:
                continue
            first, end = self.block.cells(self.rows, self._first_cut, self.index[name])
            if found is None:
                found = first, end
            else:
                filled = found[1] > found[0]
                found = np.where(filled, found[0], first), np.where(filled, found[1], end)
        return found


def _bounds(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where lines begin, and where they end (their newline, or the text's end)."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE).astype(np.int64)
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64), ends
