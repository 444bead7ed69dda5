"""Columns of sacct's output, whole: what is written the usual way is read by expressions, the rest cell by cell.

Each function gives, for every row, what the parser of :mod:`hpcplan.report.sacct_cells` that it is named after would
give. A cell of another form goes through that very parser, once for each distinct text; rows whose cell it refuses
are marked in :attr:`Columns.odd`, for the reader that goes row by row and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from hpcplan.report import sacct_bytes
from hpcplan.report import sacct_cells as cells
from hpcplan.report.sacct_lines import Cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Reader = Callable[[sacct_bytes.Bytes, NDArray[np.int64], NDArray[np.int64]], tuple[Any, Any]]

__all__ = ["Columns", "Known"]

_DURATION: Final = r"^(?:([0-9]{1,6})-)?(?:([0-9]{2}):)?([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,6})?)$"
_CLOCK: Final = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?$"
_SECONDS: Final = r"^[0-9]{1,10}$"
_MEMORY: Final = r"^[0-9]{1,11}[KMG]?$"
_STAMP: Final = r"^(?:19[7-9]|2[0-9]{2})[0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]$"  # no leap seconds
_EPOCH: Final = r"^[1-9][0-9]{0,10}$"
_QUARTER_S: Final = 900  # clocks change on quarters of an hour
_MOST_BETWEEN: Final = 200_000  # six years
_MOST_KNOWN: Final = 200_000
_UNREAD: Final = ()
Known = dict[Callable[[str], Any], dict[str, tuple[Any, ...] | None]]


class Columns:
    """The cells of some rows by their column's name, as text; ``odd`` marks the rows that must be read one by one."""

    def __init__(
        self, cells: Cells, names: Mapping[str, str], known: Known | None = None, *, figures: frozenset[str]
    ) -> None:  # fmt: skip
        """Take ``cells``; ``names`` maps sacct's names in lower case to the columns of their block.

        ``known`` keeps what distinct texts were read as from one block of a file to the next. The columns ``figures``
        are read from the bytes of their cells, and made text only where that fails.
        """
        padded = cells.block.padded
        self.cells = cells
        self.frame = cells.block.frame(
            cells.rows, [column for name, column in names.items() if padded or name not in figures]
        )
        self.names = names
        self.known: Known = {} if known is None else known
        self.padded = padded
        self._texts: dict[tuple[str, ...], pl.Series] = {}
        self.odd = pl.repeat(False, len(cells.rows), dtype=pl.Boolean, eager=True)

    def __len__(self) -> int:
        return len(self.cells.rows)

    def has(self, name: str) -> bool:
        """Whether the file has this column."""
        return name in self.names

    def text(self, *names: str) -> pl.Series:
        """Return the first of these columns that a row fills, stripped; null where it fills none."""
        if names not in self._texts:
            columns = [self.names[name] for name in names if name in self.names]
            self._load([column for column in columns if column not in self.frame.columns])
            stripped = [pl.col(column).str.strip_chars() for column in columns]
            filled = [pl.when(cell != "").then(cell) for cell in stripped] if self.padded else columns
            text = self.frame.select(pl.coalesce(filled).alias("t") if filled else _nothing(len(self)))
            self._texts[names] = text["t"]
        return self._texts[names]

    def _load(self, columns: list[str]) -> None:
        if columns:
            self.frame = self.frame.hstack(self.cells.block.frame(self.cells.rows, columns))

    def _figures(
        self, names: tuple[str, ...], read: Reader, rest: Callable[[pl.Series], pl.Series], dtype: Any
    ) -> pl.Series:
        """Return what the first of these columns that a row fills says: by ``read``, else by ``rest`` from its text."""
        places = self.cells.places(*names)
        if places is None:
            return pl.repeat(None, len(self), dtype=dtype, eager=True)
        if self.padded:
            return rest(self.text(*names))
        first, end = places
        values, good = read(self.cells.block.bytes, first, end)
        found = pl.select(pl.when(pl.Series(good)).then(pl.Series(values)).cast(dtype)).to_series()
        left = np.flatnonzero(~good & (end > first))
        if not len(left):
            return found
        return pl.select(pl.coalesce(found, rest(self.cells.texts(left, first, end)))).to_series()

    def mark(self, rows: pl.Series) -> None:
        """Mark rows as odd."""
        self.odd = self.odd | rows.fill_null(False)

    def parsed(
        self, text: pl.Series, parse: Callable[[str], tuple[Any, ...]], schema: Mapping[str, Any]
    ) -> pl.DataFrame:
        """Return what ``parse`` makes of each distinct text: one column a part; all null where there is no text."""
        if text.null_count() == len(text):
            return pl.DataFrame(schema=dict(schema)).clear(len(text))
        distinct = text.drop_nulls().unique()
        known = self.known.setdefault(parse, {})
        if len(known) > _MOST_KNOWN:
            known.clear()
        parts: list[tuple[Any, ...]] = []
        refused: list[bool] = []
        for word in distinct:
            found = known.get(word, _UNREAD)
            if found is _UNREAD:
                try:
                    found = parse(word)
                except ValueError:
                    found = None
                known[word] = found
            parts.append((None,) * len(schema) if found is None else found)
            refused.append(found is None)
        table = pl.DataFrame(parts, schema=dict(schema), orient="row") if parts else pl.DataFrame(schema=dict(schema))
        table = table.with_columns(distinct.alias("_text"), pl.Series("_refused", refused, dtype=pl.Boolean))
        joined = text.rename("_text").to_frame().join(table, on="_text", how="left", maintain_order="left")
        if any(refused):
            self.mark(joined["_refused"])
        return joined.select(list(schema))

    def value(self, text: pl.Series, parse: Callable[[str], Any], dtype: Any) -> pl.Series:
        """Return what ``parse`` makes of each distinct text."""
        return self.parsed(text, _single(parse), {"v": dtype})["v"]

    def _rest(self, text: pl.Series, done: pl.Series, parse: Callable[[str], Any], dtype: Any) -> pl.Series:
        """Fill in what the expressions have left, by ``parse``."""
        left = text.is_not_null() & done.is_null()
        if not left.any():
            return done
        others = pl.select(pl.when(left).then(text)).to_series()
        return pl.select(pl.coalesce(done, self.value(others, parse, dtype))).to_series()

    def numbers(self, *names: str) -> tuple[pl.Series, pl.Series]:
        """Return the whole numbers of the first of these columns that a row fills, and which rows have one."""
        places = self.cells.places(*names)
        if places is None or self.padded:
            nothing = pl.repeat(None, len(self), dtype=pl.Int64, eager=True)
            return nothing, nothing.is_not_null()
        values, good = sacct_bytes.in_pieces(sacct_bytes.numbers, self.cells.block.bytes, *places)
        return pl.Series(values), pl.Series(good)

    def spans_s(self, *names: str) -> pl.Series:
        """As cells.duration_s, of the first of these columns that a row fills."""
        return self._figures(names, _spans_s, self.duration_s, pl.Float64)

    def counts(self, *names: str) -> pl.Series:
        """As cells.count, of the first of these columns that a row fills."""
        return self._figures(names, _counts, self.count, pl.Int64)

    def amounts_bytes(self, *names: str) -> pl.Series:
        """As cells.memory_bytes, of the first of these columns that a row fills."""
        return self._figures(names, _amounts, self.memory_bytes, pl.Int64)

    def stamps(self, clock: cells.Clock, name: str) -> pl.Series:
        """As Clock.read; an hour that occurs twice is odd, since only the elapsed time tells which it was."""

        def read(text: sacct_bytes.Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
            naive, good = sacct_bytes.in_pieces(sacct_bytes.stamps, text, first, end)
            quarters, place = _distinct(naive[good] // _QUARTER_S)
            both = [clock.both_of(quarter * _QUARTER_S) for quarter in quarters.tolist()]
            ahead = np.array([a for a, _ in both], dtype=np.int64) - quarters * _QUARTER_S
            twice = np.zeros(len(naive), dtype=bool)
            twice[good] = np.array([a != b for a, b in both], dtype=bool)[place]
            if twice.any():
                self.mark(pl.Series(twice))
            naive[good] += ahead[place]
            return naive, good & (naive >= 0) & (naive < cells.MAX_TIME)

        return self._figures((name,), read, lambda text: self.stamp(text, clock), pl.Int64)

    def duration_s(self, text: pl.Series) -> pl.Series:
        """As cells.duration_s."""
        if text.null_count() == len(text):
            return text.cast(pl.Float64)
        cell = pl.col("t")
        whole = cell.str.slice(0, 2).cast(pl.Int64, strict=False) * 3600
        whole += cell.str.slice(3, 2).cast(pl.Int64, strict=False) * 60
        value = whole.cast(pl.Float64) + cell.str.slice(6).cast(pl.Float64, strict=False)
        found = text.rename("t").to_frame().select(pl.when(cell.str.contains(_CLOCK)).then(value).alias("v"))["v"]
        if found.null_count() > text.null_count():
            others = _longer_s(pl.select(pl.when(found.is_null()).then(text)).to_series())
            found = pl.select(pl.coalesce(found, others)).to_series()
        found = pl.select(pl.when(found <= 1e9).then(found)).to_series()  # the parser knows the limit
        return self._rest(text, found, cells.duration_s, pl.Float64)

    def memory_bytes(self, text: pl.Series) -> pl.Series:
        """As cells.memory_bytes."""
        cell, last = pl.col("t"), pl.col("t").str.slice(-1)
        unit = pl.when(last == "K").then(1024).when(last == "M").then(1024**2).when(last == "G").then(1024**3)
        number = cell.str.strip_chars_end("KMG").cast(pl.Int64, strict=False)
        fits = cell.str.contains(_MEMORY) & (number < 2**28)  # the parser knows the limit
        value = pl.when(fits).then(number * unit.otherwise(1).cast(pl.Int64))
        found = text.rename("t").to_frame().select(value.alias("v"))["v"]
        return self._rest(text, found, cells.memory_bytes, pl.Int64)

    def count(self, text: pl.Series) -> pl.Series:
        """As cells.count."""
        return self.value(text, cells.count, pl.Int64)

    def stamp(self, text: pl.Series, clock: cells.Clock) -> pl.Series:
        """As Clock.read; an hour that occurs twice is odd, since only the elapsed time tells which it was."""
        cell = pl.col("t")
        frame = text.rename("t").to_frame()
        local = pl.when(cell.str.contains(_STAMP)).then(cell).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
        naive = frame.select(local.dt.epoch("s").alias("n"))
        offsets = self._offsets(naive["n"], clock)
        joined = naive.with_columns(pl.col("n") // _QUARTER_S).join(
            offsets, left_on="n", right_on="quarter", how="left", maintain_order="left"
        )
        self.mark(joined["twice"])
        found = naive["n"] - joined["offset"]
        if found.null_count() > text.null_count():
            raw = frame.select(pl.when(cell.str.contains(_EPOCH)).then(cell).cast(pl.Int64).alias("v"))["v"]
            found = pl.select(pl.coalesce(found, raw)).to_series()
        found = pl.select(pl.when((found >= 0) & (found < cells.MAX_TIME)).then(found)).to_series()
        return self._rest(text, found, clock.read, pl.Int64)

    @staticmethod
    def _offsets(naive: pl.Series, clock: cells.Clock) -> pl.DataFrame:
        """Return for each quarter of an hour (local time) how far it is ahead of UTC, and whether there are two."""
        quarters = (naive // _QUARTER_S).drop_nulls().unique()
        rows = []
        for quarter in quarters:
            first, second = clock.both_of(quarter * _QUARTER_S)
            rows.append((quarter, quarter * _QUARTER_S - first, first != second))
        schema = {"quarter": pl.Int64, "offset": pl.Int64, "twice": pl.Boolean}
        return pl.DataFrame(rows, schema=schema, orient="row")


def _distinct(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct values, and of which of them each is; where they lie close together, without sorting."""
    if not len(values):
        return values, values
    low = int(values.min())
    if int(values.max()) - low > _MOST_BETWEEN:
        distinct, place = np.unique(values, return_inverse=True)
        return distinct, place
    seen = np.bincount(values - low)
    distinct = np.flatnonzero(seen)
    spread = np.cumsum(seen > 0) - 1
    return distinct + low, spread[values - low]


def _spans_s(text: sacct_bytes.Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    return sacct_bytes.in_pieces(sacct_bytes.spans_s, text, first, end)


def _amounts(text: sacct_bytes.Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    return sacct_bytes.in_pieces(sacct_bytes.memory_bytes, text, first, end)


def _counts(text: sacct_bytes.Bytes, first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[Any, Any]:
    value, good = sacct_bytes.in_pieces(sacct_bytes.numbers, text, first, end)
    return value, good & (value <= cells.MAX_COUNT)


def _longer_s(text: pl.Series) -> pl.Series:
    """Return seconds of ``[D-][HH:]MM:SS[.mmm]`` and of plain seconds."""
    cell = pl.col("t")
    groups = text.rename("t").to_frame().select(cell.str.extract_groups(_DURATION).alias("g"), "t").unnest("g")
    days, hours, minutes, seconds = (pl.col(str(index)).cast(pl.Float64) for index in range(1, 5))
    value = days.fill_null(0) * 86400 + hours.fill_null(0) * 3600 + minutes * 60 + seconds
    raw = pl.when(cell.str.contains(_SECONDS)).then(cell).cast(pl.Float64)
    return groups.select(pl.coalesce(value, raw).alias("v"))["v"]


@lru_cache(64)
def _single(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda word: (parse(word),)


def _nothing(length: int) -> pl.Expr:
    return pl.repeat(None, length, dtype=pl.String).alias("t")
