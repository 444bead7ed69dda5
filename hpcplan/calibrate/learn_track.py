"""Predicted against actual over time, and when they drift apart.

Each finished campaign adds a line. Its error is log(actual / predicted) in units of the spread that the plan itself
promised (its 90 % interval is 1.645 of them). Two charts watch the errors: an exponentially weighted moving average
(Roberts 1959; lambda 0.2, limits of 3 standard deviations) for what changes slowly, and a two-sided cumulative sum
(Page 1954; allowance 0.5, decision interval 5) for what has changed and stays so.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from hpcplan.documents import read_text, write_text
from hpcplan.errors import InputError, Problem

__all__ = ["COLUMNS", "Entry", "Watch", "add_entries", "read_track", "watch"]

_LAMBDA = 0.2
_LIMIT = 3.0
_ALLOWANCE = 0.5
_DECISION = 5.0
_NORMAL_90 = 1.6449
_LEAST_SPREAD = 0.02  # of the logarithm: steps vary by so much whatever a plan promises


@dataclass(frozen=True, slots=True)
class Entry:
    """One campaign: when it ended (unix seconds), its plan's constants, nodes, and step times in seconds."""

    time: int
    campaign: str
    constants: str
    nodes: int
    predicted_s: float
    low_s: float
    high_s: float
    actual_s: float

    @property
    def error(self) -> float:
        """log(actual / predicted) in units of the promised spread."""
        spread = max(_LEAST_SPREAD, math.log(self.high_s / self.predicted_s) / _NORMAL_90)
        return math.log(self.actual_s / self.predicted_s) / spread


COLUMNS = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True)
class Watch:
    """Both charts after an entry: the average with its limit, and the sums upwards and downwards."""

    average: float
    limit: float
    slower: float
    faster: float

    @property
    def drift(self) -> str | None:
        """``slower`` or ``faster`` than predicted, ``None`` while neither chart has left its limits."""
        if self.average > self.limit or self.slower > _DECISION:
            return "slower"
        return "faster" if self.average < -self.limit or self.faster > _DECISION else None


def watch(errors: Sequence[float]) -> list[Watch]:
    """Return the charts after each error; the limits of the average widen to their full width over the first ones."""
    average = slower = faster = 0.0
    found = []
    for number, error in enumerate(errors, start=1):
        average += _LAMBDA * (error - average)
        limit = _LIMIT * math.sqrt(_LAMBDA / (2 - _LAMBDA) * (1 - (1 - _LAMBDA) ** (2 * number)))
        slower = max(0.0, slower + error - _ALLOWANCE)
        faster = max(0.0, faster - error - _ALLOWANCE)
        found.append(Watch(average, limit, slower, faster))
    return found


def read_track(path: Path) -> list[Entry]:
    """Return the entries of a file, oldest first; none where there is no file.

    Raises:
        InputError: a line that is none; with its number.
    """
    if not path.is_file():
        return []
    reader = csv.DictReader(io.StringIO(read_text(path)))
    found = []
    for row in reader:
        try:
            entry = Entry(
                int(row["time"]), row["campaign"], row["constants"], int(row["nodes"]), float(row["predicted_s"]),
                float(row["low_s"]), float(row["high_s"]), float(row["actual_s"]),
            )  # fmt: skip
            if not 0 < entry.low_s <= entry.predicted_s <= entry.high_s or not 0 < entry.actual_s < math.inf:
                raise ValueError("times must be positive, the prediction inside its interval")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(Problem(f"is no line of a track: {error}", file=str(path), line=reader.line_num)) from None
        found.append(entry)
    return sorted(found, key=lambda entry: (entry.time, entry.campaign))


def add_entries(path: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Add campaigns to the file, each once, and return all, oldest first.

    Raises:
        InputError: the file is damaged.
        HpcplanError: it cannot be written.
    """
    old = read_track(path)
    known = {entry.campaign for entry in old}
    every = sorted([*old, *(e for e in entries if e.campaign not in known)], key=lambda e: (e.time, e.campaign))
    if len(every) > len(old):
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in every:
            numbers = [f"{getattr(entry, name):.6g}" for name in ("predicted_s", "low_s", "high_s", "actual_s")]
            writer.writerow([entry.time, entry.campaign, entry.constants, entry.nodes, *numbers])
        write_text(path, stream.getvalue())
    return every
