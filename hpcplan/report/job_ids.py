"""Job ids as people write them, ``7``, ``7_3``, ``7_[1-3,8]``, ``7+1``, ``7-12``, ``7.batch``: which jobs they name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from hpcplan.errors import InputError

__all__ = ["FORM", "JobId", "chosen", "parse_job_ids"]

_SET: Final = r"\d+(?:-\d+(?::\d+)?)?"
_SETS: Final = rf"{_SET}(?:,{_SET})*"
FORM: Final = re.compile(
    rf"(?P<first>\d{{1,18}})(?:-(?P<last>\d{{1,18}})|(?P<kind>[_+])(?:(?P<one>\d{{1,18}}|\*)|\[(?P<many>{_SETS})(?:%\d+)?\]))?"
    r"(?:\.[\w.+-]+)?"
)
_LABEL: Final = r"^(\d+)(?:([_+])(?:(\d+)|\[([^\]]*)\]?))?"


@dataclass(frozen=True, slots=True)
class JobId:
    """What a text names: jobs ``first`` to ``last``; with ``kind`` only some tasks (``_``) or components (``+``)."""

    text: str
    first: int
    last: int
    kind: str | None = None
    parts: tuple[range, ...] = ()

    def names(self, base: int, kind: str | None, parts: tuple[range, ...]) -> bool:
        """Whether the job of a label is meant; a label of several tasks if any of them is."""
        if not self.first <= base <= self.last:
            return False
        return self.kind is None or (kind == self.kind and any(_meet(a, b) for a in self.parts for b in parts))


def _meet(a: range, b: range) -> bool:
    if len(a) > len(b):
        a, b = b, a
    return any(number in b for number in a) if len(a) <= 10_000 else a[0] <= b[-1] and b[0] <= a[-1]


def parse_job_ids(texts: Iterable[str]) -> list[JobId]:
    """Return what each text names; several may stand in one, with commas between.

    Raises:
        InputError: a text that names no job.
    """
    words = [word for text in texts for word in re.split(r",(?![^\[]*\])", text) if word.strip()]
    return [_parsed(word.strip()) for word in words]


def _parsed(word: str) -> JobId:
    match = FORM.fullmatch(word)
    if match is None:
        raise InputError(f"{word!r} is no job id; write it like 4711, 4711_3, 4711_[1-3], 4711+1 or 4711-4720")
    first, kind = int(match["first"]), match["kind"]
    if kind is None or match["one"] == "*":
        return JobId(word, first, int(match["last"] or first))
    return JobId(word, first, first, kind, _ranges(match["one"] or match["many"]))


def _ranges(text: str) -> tuple[range, ...]:
    found = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18})(?::(\d{1,9}))?)?", part.strip())
        if match is not None:
            found.append(range(int(match[1]), int(match[2] or match[1]) + 1, max(1, int(match[3] or 1))))
    return tuple(one for one in found if len(one))


def chosen(table: pl.DataFrame, wanted: list[JobId]) -> tuple[pl.DataFrame, list[str]]:
    """Return the rows of a job table that are meant, and the texts that name none of its jobs.

    A single number is also taken as Slurm's own number of one task of an array or component of a job (JobIDRaw).
    """
    labels = table["label"].fill_null("")
    parts = pl.DataFrame({"label": labels.unique()}).with_columns(pl.col("label").str.extract_groups(_LABEL).alias("g"))
    hits: dict[str, set[int]] = {}
    for position, one in enumerate(wanted):
        base = pl.col("g").struct.field("1").cast(pl.Int64, strict=False)
        near = parts.filter(base.is_between(one.first, one.last).fill_null(False))
        for label, group in near.iter_rows():
            tasks = _ranges(group["3"] or group["4"] or "")
            if one.names(int(group["1"]), group["2"], tasks):
                hits.setdefault(label, set()).add(position)
    by_number = {
        one.first: position for position, one in enumerate(wanted) if one.kind is None and one.first == one.last
    }
    taken = labels.is_in(list(hits)) | table["job_id"].is_in(list(by_number))
    met = {position for found in hits.values() for position in found}
    met |= {by_number[number] for number in table["job_id"].unique().to_list() if number in by_number}
    return table.filter(taken), [one.text for position, one in enumerate(wanted) if position not in met]
