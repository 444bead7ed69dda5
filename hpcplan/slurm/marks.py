"""Delimiters that cannot occur in what they delimit: drawn at random for each question.

A job's name, comment and directory may hold any character, also a newline or whatever delimiter a program is known to
use. A delimiter that is made up after they were written is not among them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpcplan.errors import SlurmError

__all__ = ["Marks"]


def _mark() -> str:
    return f"@{secrets.token_hex(8)}@"  # neither ',' nor a leading digit, which squeue's --Format takes for its own


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands after each cell."""

    cell: str = field(default_factory=_mark)

    def rows(self, answer: str, columns: Sequence[str], speaker: str) -> list[dict[str, str]]:
        """Return the rows of an answer in which this mark follows each cell, and a newline the last of a row.

        Raises:
            SlurmError: the answer does not consist of such rows.
        """
        cells = answer.split(self.cell)
        if (len(cells) - 1) % len(columns) or cells[-1].strip():
            raise SlurmError(f"{speaker}: the answer cannot be read: {cells[-1].strip()[:200] or 'cells are missing'}")
        rows = []
        for first in range(0, len(cells) - 1, len(columns)):
            row = dict(zip(columns, cells[first : first + len(columns)], strict=True))
            row[columns[0]] = row[columns[0]].removeprefix("\n")
            rows.append(row)
        return rows
