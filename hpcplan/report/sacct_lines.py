"""A block of whole lines of sacct's output, told apart into those that have every cell and those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report.sacct_bytes import PAD, Bytes
from hpcplan.report.sacct_rows import Header

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block", "Cells"]

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

    def names(self, index: Mapping[str, int], wanted: Set[str]) -> dict[str, str]:
        """Return the columns of :meth:`frame` that the wanted names stand for."""
        return {name: f"c{position}" for name, position in index.items() if name in wanted}

    def last_job(self, index: Mapping[str, int]) -> int:
        """Return the position of the last line that is a job's, which its steps may follow; 0 if none is seen."""
        position = index.get("jobid", index.get("jobidraw", 0))
        for at in range(len(self) - 1, max(-1, len(self) - _TAIL_LINES), -1):
            found = self.text[self.starts[at] : self.ends[at]].split(self.sep, position + 1)
            if len(found) > position and found[position][:1].isdigit() and b"." not in found[position]:
                return at
        return len(self)

    def cells(self, rows: NDArray[np.int64], column: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where in :attr:`bytes` the cells of a column begin and end, for regular lines at these positions."""
        event = self._first_event[rows] + column
        first = self._events[event - 1] + 1 if column else self._begins[rows]
        return first, self._events[event]

    def frame(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pl.DataFrame:
        """Return columns of regular lines at these positions (which ascend) as text; null where a cell is empty."""
        if not len(rows) or not columns:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
        begins, stops = self._begins[rows], self._stops[rows] + 1
        whole = len(rows) == len(self)
        data = self.bytes.piece(begins[:1], stops[-1:]) if whole else self.bytes.piece(begins, stops)
        schema: dict[str, Any] = {f"c{i}": pl.String for i in range(len(self.header.columns))}
        return pl.read_csv(
            self._sep.join(name.encode() for name in schema) + b"\n" + data, separator=self._sep.decode(),
            quote_char=None, schema_overrides=schema, infer_schema=False, truncate_ragged_lines=True,
            raise_if_empty=False, columns=list(columns),
        ).select(columns)  # fmt: skip

    def _cut(self) -> None:
        """Find lines and cells."""
        sep, width = self._separator(), len(self.header.columns)
        if sep is None or width < 2:
            self.starts, self.ends = _bounds(self.text)
            self.regular = np.zeros(len(self), dtype=bool)
            return
        self._sep = sep
        self.bytes = Bytes(self.text if sep == self.sep else self.text.replace(self.sep, sep))
        raw = self.bytes.raw
        self._events: NDArray[np.int64] = np.flatnonzero((raw == sep[0]) | (raw == _NEWLINE))
        newlines = np.flatnonzero(raw[self._events] == _NEWLINE)
        self._stops: NDArray[np.int64] = self._events[newlines]
        self._begins: NDArray[np.int64] = np.concatenate([[PAD], self._stops[:-1] + 1])
        self._first_event: NDArray[np.int64] = np.concatenate([[0], newlines[:-1] + 1])
        cuts = newlines - self._first_event
        closed = self._events[newlines - 1] == self._stops - 1  # the last cell is empty
        self.regular = (cuts == width - 1) | ((cuts == width) & closed)
        if sep == self.sep:
            self.starts, self.ends = self._begins - PAD, self._stops - PAD
        else:
            self.starts, self.ends = _bounds(self.text)
        self._look_at_blanks(sep)

    def _separator(self) -> bytes | None:
        """Return one byte that stands between the cells, or can; ``None`` if there is none."""
        if len(self.sep) == 1 and self.sep[0] < 128 and not self.sep.isalnum():
            return self.sep
        return None if _STAND_IN in self.text or self.sep.isalnum() else _STAND_IN

    def _look_at_blanks(self, sep: bytes) -> None:
        """Tell whether some cell may begin or end with a blank: if not, none needs stripping.

        Lines with characters that Python alone takes for blanks, or that may be quoted, are not regular.
        """
        raw = self.bytes.raw
        low = np.flatnonzero(raw <= ord(" "))[PAD:]  # the zeros before and behind are no part of the text
        low = low[: np.searchsorted(low, self._stops[-1], side="right")]
        low = low[(raw[low] != _NEWLINE) & (raw[low] != sep[0])]
        letters = raw[low]
        self.blanks: NDArray[np.int64] = low[letters == ord(" ")]
        edge = np.zeros(256, dtype=bool)
        edge[[_NEWLINE, sep[0], 0]] = True  # zeros stand before and behind the text
        beside = edge[raw[self.blanks - 1]] | edge[raw[self.blanks + 1]]
        self.padded = not self.text.isascii() or bool(np.isin(letters, _BLANKS).any() or beside.any())
        strange = low[(letters == 0) | ((letters >= 28) & (letters < 32))]
        if sep == b"," and b'"' in self.text:
            strange = np.append(strange, np.flatnonzero(raw == ord('"')))
        self.regular[np.searchsorted(self._stops, strange)] = False


class Cells:
    """Regular lines of a block, by which of its columns each of sacct's names stands for."""

    def __init__(self, block: Block, rows: NDArray[np.int64], index: Mapping[str, int]) -> None:
        self.block = block
        self.rows = rows
        self.index = index

    def places(self, *names: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Return where the first of these columns that a line fills begins and ends; ``None``: the file has none."""
        found: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        for name in names:
            if name not in self.index:
                continue
            first, end = self.block.cells(self.rows, self.index[name])
            if found is None:
                found = first, end
            else:
                filled = found[1] > found[0]
                found = np.where(filled, found[0], first), np.where(filled, found[1], end)
        return found

    def texts(self, at: NDArray[np.int64], first: NDArray[np.int64], end: NDArray[np.int64]) -> pl.Series:
        """Return the texts between places of the lines numbered ``at`` here; null elsewhere, and where empty."""
        places = zip(first[at].tolist(), end[at].tolist(), strict=True)
        found = pl.Series([self.block.bytes.text(begin, stop) or None for begin, stop in places], dtype=pl.String)
        spread = np.full(len(self.rows), -1, dtype=np.int64)
        spread[at] = np.arange(len(at))
        return found.gather(pl.Series(spread).replace(-1, None))


def _bounds(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where lines begin, and where they end (their newline, or the text's end)."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE).astype(np.int64)
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64), ends
