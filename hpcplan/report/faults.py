"""What could not be read of the accounting data: counted by kind, and the first ones quoted.

A report is never stopped by a bad row, and never silently without it: every row that was left out and every cell that
was taken as unknown is counted here and shown in the report's appendix.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_QUOTED", "Fault", "Faults"]

MAX_QUOTED: Final = 50
_QUOTE_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that could not be read: ``kind`` is what it was counted as, ``quote`` the start of the text itself."""

    kind: str
    message: str
    file: str
    line: int
    quote: str


@dataclass(slots=True)
class Faults:
    """Collects faults while data are read; ``counts`` has them all, ``quoted`` the first ``MAX_QUOTED``.

    ``notes`` are what the reader should know of how the data were taken.
    """

    rows_read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    quoted: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, message: str, file: str, line: int, text: str) -> None:
        """Count one fault, and quote it while there is room."""
        self.counts[kind] += 1
        if len(self.quoted) < MAX_QUOTED:
            quote = text if len(text) <= _QUOTE_CHARACTERS else text[: _QUOTE_CHARACTERS - 1] + "…"
            self.quoted.append(Fault(kind, message, file, line, quote))

    def include(self, others: Faults) -> None:
        """Add the faults of what followed."""
        self.rows_read += others.rows_read
        self.counts.update(others.counts)
        self.quoted += others.quoted[: max(0, MAX_QUOTED - len(self.quoted))]
        self.notes += others.notes

    def hide_quotes(self) -> None:
        """Forget what the rows said, which may name people; where they stand stays."""
        self.quoted = [Fault(one.kind, "(left out)", one.file, one.line, "") for one in self.quoted]

    @property
    def total(self) -> int:
        """How many faults there are, quoted or not."""
        return sum(self.counts.values())
