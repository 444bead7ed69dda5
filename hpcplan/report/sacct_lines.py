"""A block of whole lines of sacct's output, told apart into those that have every cell and those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report.sacct_rows import Header

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Block"]

_STAND_IN: Final = b"\x1f"
_TAIL_LINES: Final = 20_000


class Block:
    """Lines of a block by their position; ``regular`` says of each whether it is, ``odd`` are the positions of others.

    ``cells`` are those of the lines at the positions ``filled``, where they are regular.

    A line is regular if it has exactly the header's cells (and, as ``--parsable`` writes, one delimiter more) and
    nothing in it that the two ways of reading could take differently.
    """

    def __init__(self, text: bytes, header: Header) -> None:
        self.text = text
        self.header = header
        self.starts, self.ends = _bounds(text)
        self.cells = pl.DataFrame(schema={f"c{i}": pl.String for i in range(len(header.columns))})
        self.filled: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.sep = header.delimiter.encode()
        self.padded = self._has_padded_cells()
        self.regular = self._tell()
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
        """Return the columns of ``cells`` that the wanted names stand for."""
        return {name: f"c{position}" for name, position in index.items() if name in wanted}

    def last_job(self, index: Mapping[str, int]) -> int:
        """Return the position of the last line that is a job's, which its steps may follow; 0 if none is seen."""
        position = index.get("jobid", index.get("jobidraw", 0))
        for at in range(len(self) - 1, max(-1, len(self) - _TAIL_LINES), -1):
            found = self.text[self.starts[at] : self.ends[at]].split(self.sep, position + 1)
            if len(found) > position and found[position][:1].isdigit() and b"." not in found[position]:
                return at
        return len(self)

    def _has_padded_cells(self) -> bool:
        """Whether some cell may begin or end with a blank; if not, none needs stripping."""
        if not self.text.isascii() or any(blank in self.text for blank in (b"\t", b"\v", b"\f", b"\r")):
            return True
        sep = self.sep
        return any(pair in self.text for pair in (sep + b" ", b" " + sep, b"\n ", b" \n")) or (
            self.text[:1] == b" " or self.text[-1:] == b" "
        )

    def _tell(self) -> NDArray[np.bool_]:
        sep = self._separator()
        width = len(self.header.columns)
        if sep is None or width < 2:
            return np.zeros(len(self), dtype=bool)
        data = self.text if sep == self.sep else self.text.replace(self.sep, sep)
        starts, ends = (self.starts, self.ends) if data is self.text else _bounds(data)
        lengths = ends - starts
        filled = np.flatnonzero(lengths > 0)
        if len(filled) < len(lengths):
            data = b"".join(data[starts[at] : ends[at] + 1] for at in filled)
        if not len(filled):
            return np.zeros(len(self), dtype=bool)
        cells = _cells(data, sep, width)
        if len(cells) != len(filled):
            return np.zeros(len(self), dtype=bool)
        self.cells, self.filled = cells, filled
        used = (
            cells.select(pl.sum_horizontal(pl.all().str.len_bytes().cast(pl.Int64).fill_null(0))).to_series().to_numpy()
            + width
            - 1
        )
        short = lengths[filled] - used
        raw = np.frombuffer(data, np.uint8)
        new_ends = np.cumsum(lengths[filled] + 1) - 1
        whole = (short == 0) | ((short == 1) & (raw[new_ends - 1] == sep[0]))
        regular = np.zeros(len(self), dtype=bool)
        regular[filled] = whole
        regular[self._strange(sep)] = False
        return regular

    def _separator(self) -> bytes | None:
        """Return one byte that stands between the cells, or can; ``None`` if there is none."""
        if len(self.sep) == 1 and self.sep[0] < 128 and not self.sep.isalnum():
            return self.sep
        return None if _STAND_IN in self.text or self.sep.isalnum() else _STAND_IN

    def _strange(self, sep: bytes) -> NDArray[np.int64]:
        """Return the lines with characters that Python takes for blanks alone, or that may be quoted."""
        raw = np.frombuffer(self.text, np.uint8)
        wanted = np.zeros(256, dtype=bool)
        if np.count_nonzero(raw < 32) > len(self):
            wanted[[0, *range(28, 32)]] = True
        if self.sep == b"," and b'"' in self.text:
            wanted[ord('"')] = True
        wanted[sep[0]] = False
        if not wanted.any():
            return np.zeros(0, dtype=np.int64)
        places = np.flatnonzero(wanted[raw])
        return np.unique(np.searchsorted(self.ends, places))


def _bounds(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where lines begin, and where they end (their newline, or the text's end)."""
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 10).astype(np.int64)
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64), ends


def _cells(data: bytes, sep: bytes, width: int) -> pl.DataFrame:
    schema: dict[str, Any] = {f"c{i}": pl.String for i in range(width)}
    return pl.read_csv(
        sep.join(name.encode() for name in schema) + b"\n" + data, separator=sep.decode(), quote_char=None,
        schema_overrides=schema, infer_schema=False, truncate_ragged_lines=True, raise_if_empty=False,
    )  # fmt: skip
