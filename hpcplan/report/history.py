"""What was read is kept: the job table as Parquet, a file for each day of submission (UTC), a folder a cluster.

An attempt of a job is known by cluster, job, submission and start, which do not change, so its file is always the same
one: adding a night again, or one that overlaps, changes nothing, and a job that was seen running gives way to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from hpcplan.errors import InputError, Problem
from hpcplan.report.table import SCHEMA, empty, merge
from hpcplan.report.trends import limit_ratios, partition_hours
from hpcplan.resources import data_dir

__all__ = ["History", "default_folder"]

_DAY_S: Final = 86400
_UNDATED: Final = "undated"


def default_folder(cluster: str | None) -> Path:
    """Return where the history of a cluster is kept: ``report/CLUSTER`` in the user's data folder."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", cluster or "").lstrip(".")
    return data_dir() / "report" / (name or "cluster")


class History:
    """The history in a folder, which is made with the first night."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, table: pl.DataFrame) -> int:
        """Keep a job table; return how many attempts are new.

        Raises:
            InputError: the folder cannot be written, or a file in it is not one of ours.
        """
        with self._writing():
            day = (pl.col("submit_time") // _DAY_S).fill_null(-1).alias("_day")
            added = 0
            for (number,), part in (
                table.with_columns(day).partition_by("_day", as_dict=True, include_key=False).items()
            ):
                added += self._add_day(self._path(int(number)), part.select(list(SCHEMA)))
        return added

    def _add_day(self, path: Path, part: pl.DataFrame) -> int:
        before = self._read(path) if path.exists() else empty()
        whole = merge([before, part])
        if not whole.equals(before):
            partial = path.with_suffix(".partial")
            whole.write_parquet(partial, compression="zstd")
            partial.replace(path)
        return len(whole) - len(before)

    def table(self, start: int, end: int) -> pl.DataFrame:
        """Return the attempts that were waiting, running or ended in ``[start, end)``, unix seconds."""
        files = [path for path in self._files() if path.stem == _UNDATED or self._day(path) * _DAY_S < end]
        over = (pl.col("ended") & (pl.col("end_time") < start)).fill_null(False)
        parts = []
        for path in files:
            past = path.stem != _UNDATED and (self._day(path) + 1) * _DAY_S <= start  # as nearly all are after a year
            if past and self._read(path, "ended", "end_time").select(over.all()).item():
                continue
            part = self._read(path).filter(~over & (pl.col("submit_time").fill_null(0) < end))
            if len(part):
                parts.append(part)
        return merge(parts)

    def partition_hours(self, start: int, end: int) -> pl.DataFrame:
        """Return the hourly series of each partition: see :func:`hpcplan.report.trends.partition_hours`."""
        return partition_hours(self.table(start, end), start, end)

    def limit_ratios(self, start: int, end: int) -> pl.DataFrame:
        """Return each user's run time over time limit: see :func:`hpcplan.report.trends.limit_ratios`."""
        return limit_ratios(self.table(start, end), start, end)

    def span(self) -> tuple[int, int] | None:
        """Return the first and the last second of the days that there are files of, ``None`` if there are none."""
        days = [self._day(path) for path in self._files() if path.stem != _UNDATED]
        return (min(days) * _DAY_S, (max(days) + 1) * _DAY_S) if days else None

    def forget_before(self, moment: int) -> int:
        """Remove the files of days that ended before a moment; return how many."""
        old = [path for path in self._files() if path.stem != _UNDATED and (self._day(path) + 1) * _DAY_S <= moment]
        for path in old:
            path.unlink()
        return len(old)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    def _path(self, day: int) -> Path:
        name = _UNDATED if day < 0 else datetime.fromtimestamp(day * _DAY_S, UTC).strftime("%Y-%m-%d")
        return self.folder / f"{name}.parquet"

    @staticmethod
    def _day(path: Path) -> int:
        try:
            return int(datetime.strptime(path.stem, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) // _DAY_S
        except ValueError:
            raise InputError(Problem("is no file of a history, whose names are days", file=str(path))) from None

    @staticmethod
    def _read(path: Path, *names: str) -> pl.DataFrame:
        """Return a file's columns of these names; all, if none are given."""
        try:
            kept = pl.scan_parquet(path)
            wanted = names or tuple(SCHEMA)
            found = kept.select([name for name in wanted if name in kept.collect_schema()]).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            hint = "remove it; reading that day again makes it anew"
            raise InputError(
                Problem(f"cannot be read: {str(error).splitlines()[0]}", file=str(path)), hint=hint
            ) from None
        return found.select(  # an older file may lack a column of today
            (pl.col(name).cast(SCHEMA[name]) if name in found.columns else pl.lit(None, dtype=SCHEMA[name]).alias(name))
            for name in wanted
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        import fcntl

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise InputError(Problem(f"cannot be written: {error.strerror or error}", file=str(self.folder))) from None
