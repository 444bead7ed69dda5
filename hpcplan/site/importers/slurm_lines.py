"""Lines of Slurm's configuration files: ``Key=Value`` pairs, comments, continuations, quotes and ``Include``.

As ``src/common/parse_config.c`` reads them: a backslash at the end of a line joins the next; ``#`` starts a comment
unless a backslash stands before it; keys know no case; blanks may stand around ``=``; a value in double quotes may hold
blanks; ``Include FILE`` reads another file, relative to the folder of the first (slurm.conf(5)). A file included by its
full path that is not there is looked for beside the first, since what is imported is often a copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem
from hpcplan.site.importers.findings import Budget, Place

__all__ = ["ConfLine", "Reader", "conf_line"]

MAX_FILES: Final = 200
MAX_INCLUDE_DEPTH: Final = 16  # deeper is a file that includes itself

_PAIR: Final = re.compile(r'\s*([A-Za-z0-9_.]+)\s*[-*+/]?=\s*(?:"([^"]*)"|(\S+))(?=\s|$)')
_EMPTY: Final = re.compile(r"\s*([A-Za-z0-9_.]+)\s*=\s*$")
_INCLUDE: Final = re.compile(r"\s*include\s+(\S.*?)\s*", re.IGNORECASE)
_COMMENT: Final = re.compile(r"(?<!\\)#.*")


@dataclass(frozen=True, slots=True)
class ConfLine:
    """The pairs of one line, keys in lower case; of a key given twice the last counts, as in Slurm."""

    place: Place
    pairs: dict[str, str]
    spelling: dict[str, str]

    @property
    def first(self) -> str:
        """The key that says what the line is about, such as ``nodename``."""
        return next(iter(self.pairs))

    def get(self, *keys: str) -> str | None:
        """Return the value of the first of ``keys`` (lower case) that the line has."""
        return next((self.pairs[key] for key in keys if key in self.pairs), None)

    def error(self, key: str, message: str) -> InputError:
        """Return an error at this line and key."""
        return InputError(self.place.problem(message, self.spelling.get(key, key)))

    def whole(self, *keys: str) -> int | None:
        """Return the value as a whole number of zero or more.

        Raises:
            InputError: it is something else.
        """
        key = next((key for key in keys if key in self.pairs), None)
        if key is None:
            return None
        if re.fullmatch(r"[0-9]{1,15}", self.pairs[key]) is None:
            raise self.error(key, f"{self.pairs[key]!r} is not a whole number")
        return int(self.pairs[key])


def conf_line(text: str, place: Place) -> ConfLine:
    """Return the pairs of one logical line without comment.

    Raises:
        InputError: a part of the line is not ``Key=Value``.
    """
    pairs: dict[str, str] = {}
    spelling: dict[str, str] = {}
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            rest = text[position:].strip()
            if _EMPTY.fullmatch(rest) and pairs:
                return ConfLine(place, pairs, spelling)  # Slurm warns of `Key=` at the end of a line and goes on
            shown = rest if len(rest) <= 40 else rest[:37] + "..."
            raise InputError(place.problem(f"cannot be read at {shown!r}; a line is made of Key=Value pairs"))
        key = match[1].lower()
        pairs[key] = match[2] if match[2] is not None else match[3]
        spelling[key] = match[1]
        position = match.end()
    return ConfLine(place, pairs, spelling)


@dataclass(slots=True)
class Reader:
    """Reads a file and those it includes; ``problems`` gathers includes that cannot be read."""

    problems: list[Problem] = field(default_factory=list)
    cluster: str | None = None
    budget: Budget = field(default_factory=Budget)
    _files: int = 0

    def read(self, path: Path) -> Iterator[ConfLine]:
        """Yield the lines of ``path``.

        Raises:
            InputError: the file cannot be read (:func:`hpcplan.documents.read_text`), a line is not ``Key=Value``, or
                files include each other without end.
        """
        yield from self._lines(read_text(path), path, path.parent, 0)

    def parse(self, text: str, path: Path) -> Iterator[ConfLine]:
        """Yield the lines of a text that came from ``path``."""
        yield from self._lines(text, path, path.parent, 0)

    def _lines(self, text: str, path: Path, folder: Path, depth: int) -> Iterator[ConfLine]:
        for number, logical in _logical(text.split("\n")):
            place = Place(str(path), number, self.budget)
            include = _INCLUDE.fullmatch(logical)
            if include is not None and "=" not in include[1]:
                yield from self._included(include[1].strip('"'), place, folder, depth)
                continue
            line = conf_line(logical, place)
            if not line.pairs:
                continue
            self.cluster = line.get("clustername") or self.cluster
            yield line

    def _included(self, name: str, place: Place, folder: Path, depth: int) -> Iterator[ConfLine]:
        self._files += 1
        if depth >= MAX_INCLUDE_DEPTH or self._files > MAX_FILES:
            raise InputError(place.problem("files include each other without end", "Include"))
        path = folder / name.replace("%c", self.cluster or "%c")
        if path.is_absolute() and not path.exists() and (folder / path.name).is_file():
            self.problems.append(place.note(f"{path} is not here; {folder / path.name} is read for it", "Include"))
            path = folder / path.name  # the folder is a copy of the site's
        try:
            text = read_text(path)
        except InputError as error:
            reason = "; ".join(problem.message for problem in error.problems)
            self.problems.append(place.problem(f"{path} is not included: {reason}", "Include"))
            return
        yield from self._lines(text, path, folder, depth + 1)


def _logical(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield (number of its first line, text) with continuations joined and comments and empty lines gone."""
    parts: list[str] = []
    start = 0
    for number, raw in enumerate(lines, start=1):
        if not parts:
            start = number
        text = _COMMENT.sub("", raw.rstrip("\r"))
        joins = text.rstrip().endswith("\\") and not raw.lstrip().startswith("#")
        parts.append(text.rstrip()[:-1] if joins else text)
        if joins:
            continue
        whole = "".join(parts).replace("\\#", "#")
        parts = []
        if whole.strip():
            yield start, whole
    whole = "".join(parts).replace("\\#", "#")
    if whole.strip():
        yield start, whole
