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

from hpcplan.report import sacct_cells as cells
from hpcplan.report.sacct_lines import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Columns", "Known"]

_CLOCK: Final = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?$"
_DAYS: Final = r"^[0-9]{1,6}-[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?$"
_SHORT_CLOCK: Final = r"^[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?$"
_SECONDS: Final = r"^[0-9]{1,10}$"
_COUNT: Final = r"^[0-9]{1,9}$"
_MEMORY: Final = r"^[0-9]{1,11}[KMG]?$"
_STAMP: Final = r"^(?:19[7-9]|2[0-9]{2})[0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]$"  # no leap seconds
_EPOCH: Final = r"^[1-9][0-9]{0,10}$"
_FORM: Final = "%Y-%m-%dT%H:%M:%S"
_QUARTER_S: Final = 900  # clocks change on quarters of an hour
_MOST_BETWEEN: Final = 200_000  # six years
_MOST_KNOWN: Final = 200_000
_UNREAD: Final = ()
Known = dict[Callable[[str], Any], dict[str, tuple[Any, ...] | None]]


class Columns:
    """The cells of some rows by their column's name, as text; ``odd`` marks the rows that must be read one by one."""

    def __init__(self, rows: Rows, names: Mapping[str, str], known: Known | None = None) -> None:
        """Take ``rows``; ``names`` maps sacct's names in lower case to the columns of their frame.

        ``known`` keeps what distinct texts were read as from one block of a file to the next.
        """
        self.frame = rows.frame(list(names.values()))
        self.names = names
        self.known: Known = {} if known is None else known
        self.padded = rows.padded
        self._texts: dict[tuple[str, ...], pl.Series] = {}
        self.odd = pl.repeat(False, len(rows), dtype=pl.Boolean, eager=True)

    def __len__(self) -> int:
        return len(self.odd)

    def has(self, name: str) -> bool:
        """Whether the file has this column."""
        return name in self.names

    def text(self, *names: str) -> pl.Series:
        """Return the first of these columns that a row fills, stripped; null where it fills none."""
        if names not in self._texts:
            columns = [self.names[name] for name in names if name in self.names]
            stripped = [pl.col(column).str.strip_chars() for column in columns]
            filled = [pl.when(cell != "").then(cell) for cell in stripped] if self.padded else columns
            text = self.frame.select(pl.coalesce(filled).alias("t") if filled else _nothing(len(self)))
            self._texts[names] = text["t"]
        return self._texts[names]

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

    def spans_s(self, *names: str) -> pl.Series:
        """As cells.duration_s, of the first of these columns that a row fills."""
        return self.duration_s(self.text(*names))

    def counts(self, *names: str) -> pl.Series:
        """As cells.count, of the first of these columns that a row fills."""
        return self.count(self.text(*names))

    def duration_s(self, text: pl.Series) -> pl.Series:
        """As cells.duration_s."""
        if text.null_count() == len(text):
            return text.cast(pl.Float64)
        cell = pl.col("t")
        usual = pl.when(cell.str.contains(_CLOCK)).then(_clock_s(cell))
        found = text.rename("t").to_frame().select(usual.alias("v"))["v"]
        if found.null_count() > text.null_count():
            at = (text.is_not_null() & found.is_null()).arg_true()
            found = found.scatter(at, _longer_s(text.gather(at)))
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
        cell = pl.col("t")
        usual = pl.when(cell.str.contains(_COUNT)).then(cell).cast(pl.Int64, strict=False)
        return self._rest(text, text.rename("t").to_frame().select(usual.alias("v"))["v"], cells.count, pl.Int64)

    def stamp(self, text: pl.Series, clock: cells.Clock) -> pl.Series:
        """As Clock.read; an hour that occurs twice is odd, since only the elapsed time tells which it was."""
        cell = pl.col("t")
        frame = text.rename("t").to_frame()
        local = pl.when(cell.str.contains(_STAMP)).then(cell).str.to_datetime(_FORM, time_unit="ms", strict=False)
        found = self._unix(frame.select(local.dt.epoch("s").alias("n"))["n"], clock)
        if found.null_count() > text.null_count():
            raw = frame.select(pl.when(cell.str.contains(_EPOCH)).then(cell).cast(pl.Int64).alias("v"))["v"]
            found = pl.select(pl.coalesce(found, raw)).to_series()
        found = pl.select(pl.when((found >= 0) & (found < cells.MAX_TIME)).then(found)).to_series()
        return self._rest(text, found, clock.read, pl.Int64)

    def _unix(self, naive: pl.Series, clock: cells.Clock) -> pl.Series:
        """Return unix seconds of seconds by the clock on the wall, and mark those that there are twice."""
        told = naive.is_not_null().to_numpy()
        values = naive.fill_null(0).to_numpy()
        quarters, place = _distinct(values[told] // _QUARTER_S)
        both = [clock.both_of(quarter * _QUARTER_S) for quarter in quarters.tolist()]
        behind = np.zeros(len(naive), dtype=np.int64)
        behind[told] = (quarters * _QUARTER_S - np.array([first for first, _ in both], dtype=np.int64))[place]
        if any(first != second for first, second in both):
            twice = np.zeros(len(naive), dtype=bool)
            twice[told] = np.array([first != second for first, second in both], dtype=bool)[place]
            self.mark(pl.Series(twice))
        return naive - pl.Series(behind)


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


def _clock_s(cell: pl.Expr) -> pl.Expr:
    """Return seconds of ``HH:MM:SS[.mmm]``."""
    whole = cell.str.slice(0, 2).cast(pl.Int64, strict=False) * 3600
    whole += cell.str.slice(3, 2).cast(pl.Int64, strict=False) * 60
    return whole.cast(pl.Float64) + cell.str.slice(6).cast(pl.Float64, strict=False)


def _longer_s(text: pl.Series) -> pl.Series:
    """Return seconds of ``D-HH:MM:SS[.mmm]``, ``MM:SS[.mmm]`` and of plain seconds."""
    cell = pl.col("t")
    parts = pl.col("t").str.splitn("-", 2).struct
    days = parts.field("field_0").cast(pl.Int64, strict=False) * 86400
    clock = parts.field("field_1")
    whole = days + clock.str.slice(0, 2).cast(pl.Int64, strict=False) * 3600
    whole += clock.str.slice(3, 2).cast(pl.Int64, strict=False) * 60
    of_days = whole.cast(pl.Float64) + clock.str.slice(6).cast(pl.Float64, strict=False)
    minutes = (cell.str.slice(0, 2).cast(pl.Int64, strict=False) * 60).cast(pl.Float64)
    short = minutes + cell.str.slice(3).cast(pl.Float64, strict=False)
    value = (
        pl.when(cell.str.contains(_DAYS)).then(of_days)
        .when(cell.str.contains(_SHORT_CLOCK)).then(short)
        .when(cell.str.contains(_SECONDS)).then(cell.cast(pl.Float64, strict=False))
    )  # fmt: skip
    return text.rename("t").to_frame().select(value.alias("v"))["v"]


@lru_cache(64)
def _single(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda word: (parse(word),)


def _nothing(length: int) -> pl.Expr:
    return pl.repeat(None, length, dtype=pl.String).alias("t")
