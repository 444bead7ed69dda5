"""How Slurm's commands write times, sizes and columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Final, Generic, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hpcplan.simulate.commands.reply import Call

__all__ = [
    "Clock",
    "Column",
    "Field",
    "at_least",
    "elapsed",
    "first_to",
    "fit",
    "limit",
    "line_of",
    "long_date",
    "mebibytes",
    "read_long",
    "read_percent",
    "release",
    "short_time",
    "spelt_out",
]

Row = TypeVar("Row")
_PERCENT: Final = re.compile(r"%(\.?)(\d*)(.)")


@dataclass(frozen=True, slots=True)
class Field(Generic[Row]):
    """What a format code stands for."""

    header: str
    value: Callable[[Row], str]
    width: int = 20


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a table: a field with the width that was asked for (0 is any), and the text after it."""

    field: Field[Row]
    width: int = 0
    right: bool = False
    after: str = ""
    code: str = ""


class Clock:
    """Writes unix times as the caller's environment asks for (``TZ``, ``SLURM_TIME_FORMAT``)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._format = env.get("SLURM_TIME_FORMAT", "")
        self._zone = _zone(env.get("TZ"))

    def moment(self, when: int | None, unknown: str = "N/A") -> str:
        """Return ``2031-01-20T12:34:56``."""
        if when is None:
            return unknown
        if self._format == "%s":
            return str(when)
        here = datetime.fromtimestamp(when, self._zone)
        if self._format and self._format not in {"standard", "relative"}:
            return here.strftime(self._format)
        return here.strftime("%Y-%m-%dT%H:%M:%S")


def _zone(name: str | None) -> tzinfo | None:
    if name is None:
        return None
    if name.upper() in {"UTC", "UTC0", "GMT", "GMT0", ""}:
        return UTC
    try:
        return ZoneInfo(name.removeprefix(":"))
    except (ZoneInfoNotFoundError, ValueError):
        return None


def release(version: str) -> str:
    """Return a version as commands say it, in three parts: ``22.05`` is ``22.05.0``."""
    return version if version.count(".") > 1 else f"{version}.0"


def at_least(version: str, since: str) -> bool:
    """Whether a version of Slurm is of a release, ``23.11``, or of a later one."""
    have, wanted = (tuple(int(part) for part in text.split(".")[:2]) for text in (version, since))
    return have >= wanted


def long_date(when: int) -> str:
    """Return the date above a long listing: ``Thu Nov 27 20:26:01 2026``."""
    return datetime.fromtimestamp(when).strftime("%a %b %d %H:%M:%S %Y")


def short_time(seconds: int | None) -> str:
    """Return squeue's ``1:05``, ``1:00:05`` or ``1-00:00:05``."""
    if seconds is None:
        return "INVALID"
    days, rest = divmod(max(0, seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02d}:{minutes:02d}:{left:02d}"
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def elapsed(seconds: int | None) -> str:
    """Return sacct's and scontrol's ``00:01:05`` or ``1-00:00:05``."""
    if seconds is None:
        return ""
    days, rest = divmod(max(0, seconds), 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def limit(seconds: int | None, write: Callable[[int | None], str], none: str = "UNLIMITED") -> str:
    """Return a time limit, ``UNLIMITED`` where there is none."""
    return none if seconds is None else write(seconds)


def mebibytes(count: int | None) -> str:
    """Return memory as Slurm writes what was asked for: ``500M``, ``2G``, ``1T``; ``0`` where nothing was."""
    if not count:
        return "0"
    size = count // 1024**2
    for unit in "MGT":
        if size % 1024 or unit == "T":
            return f"{size}{unit}"
        size //= 1024
    return f"{size}T"


def first_to(count: int) -> str:
    """Return the numbers of the first so many of something: ``0-3``."""
    return f"0-{count - 1}" if count > 1 else "0"


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return ``text`` cut or filled to ``width``; 0 leaves it alone."""
    if not width:
        return text
    return text[:width].rjust(width) if right else text[:width].ljust(width)


def spelt_out(text: str, fields: Mapping[str, Field[Row]], *, after_capitals: str = "") -> str:
    """Return a format, for ``%all`` one of every code with bars between."""
    if text.lower() != "%all":
        return text
    codes = sorted((code for code in fields if len(code) == 1), key=str.swapcase)
    return "|".join(f"%{code}{after_capitals if code.isupper() else ''}" for code in codes)


def read_percent(
    text: str, fields: Mapping[str, Field[Row]], invalid: Callable[[str], object]
) -> tuple[str, list[Column[Row]]]:
    """Return the text before the first code of a format like ``%.18i %j``, and its columns.

    A code that no field has is printed as it stands, and ``invalid`` is told of it, as Slurm's commands do.
    """
    columns: list[Column[Row]] = []
    matches = list(_PERCENT.finditer(text))
    before = text[: matches[0].start()] if matches else text
    for index, match in enumerate(matches):
        end = matches[index + 1].start() if index + 1 < len(matches) else len(text)
        after, field = text[match.end() : end], fields.get(match[3])
        if field is None:
            invalid(match[3])
            if columns:
                columns[-1] = replace(columns[-1], after=columns[-1].after + match[0] + after)
            else:
                before += match[0] + after
            continue
        columns.append(Column(field, int(match[2] or 0), bool(match[1]), after, match[3]))
    return before, columns


def read_long(text: str, fields: Mapping[str, Field[Row]], command: str, call: Call) -> list[Column[Row]]:
    """Return the columns of ``--Format``: ``JobID:10,Name:.20``, each 20 wide unless it says otherwise.

    ``:10|`` puts a bar after the column. What no field is called is complained of and left out.
    """
    columns: list[Column[Row]] = []
    for item in text.split(","):
        name, _, size = item.strip().partition(":")
        if not name:
            continue
        field = fields.get(name.lower())
        match = re.fullmatch(r"(\.?)(-?\d*)(.*)", size)
        if field is None or match is None:
            call.reply.complain(f"{command}: error: Invalid job format specification: {item.strip()}")
            continue
        width = int(match[2]) if match[2] not in {"", "-"} else 20
        columns.append(Column(field, width, bool(match[1]), match[3], name.lower()))
    return columns


def line_of(before: str, columns: Sequence[Column[Row]], texts: Sequence[str]) -> str:
    """Return one line of a table."""
    cells = (
        fit(text, column.width, right=column.right) + column.after for column, text in zip(columns, texts, strict=True)
    )
    return before + "".join(cells)
