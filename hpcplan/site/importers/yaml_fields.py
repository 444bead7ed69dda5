"""Reading fields of a YAML document of others' making, with errors that name file, line and field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpcplan.documents import Document, Loc
from hpcplan.errors import InputError, nearest
from hpcplan.site.importers.findings import Budget, Place

__all__ = ["At"]


@dataclass(frozen=True, slots=True)
class At:
    """A value in a document, and where it stands."""

    document: Document
    value: Any
    loc: Loc = ()
    budget: Budget = field(default_factory=Budget)

    @property
    def place(self) -> Place:
        """File and line."""
        return Place(self.document.source, self.document.line(self.loc), self.budget)

    def error(self, message: str) -> InputError:
        """Return an error at this value."""
        return InputError(self.document.problem(self.loc, message))

    def mapping(self, known: Iterable[str] | None = None, what: str = "") -> dict[str, At]:
        """Return the fields.

        Raises:
            InputError: not a mapping, or a key that is not ``known``.
        """
        if not isinstance(self.value, dict):
            raise self.error(f"must be a mapping{what and f' of {what}'}, not {_kind(self.value)}")
        fields = {key: At(self.document, value, (*self.loc, key), self.budget) for key, value in self.value.items()}
        for key in fields:
            if known is not None and key not in known:
                raise fields[key].error("unknown key" + nearest(key, known))
        return fields

    def items(self, what: str) -> list[At]:
        """Return the items of a list; a mapping stands for a list of one, as Slurm's parser has it.

        Raises:
            InputError: it is neither.
        """
        if isinstance(self.value, dict):
            return [self]
        if not isinstance(self.value, list):
            raise self.error(f"must be a list of {what}, not {_kind(self.value)}")
        return [At(self.document, value, (*self.loc, index), self.budget) for index, value in enumerate(self.value)]

    def word(self) -> str:
        """Return a name.

        Raises:
            InputError: empty, or not a plain value.
        """
        if isinstance(self.value, bool) or not isinstance(self.value, str | int | float) or self.value == "":
            raise self.error(f"must be a name, not {_kind(self.value)}")
        return str(self.value)

    def words(self) -> list[str]:
        """Return a name, or a list of names."""
        if isinstance(self.value, list):
            return [At(self.document, value, (*self.loc, i)).word() for i, value in enumerate(self.value)]
        return [] if self.value is None else [self.word()]

    def flag(self) -> bool:
        """Return true or false; Slurm takes yes, no, on, off and 0, 1 for them as well."""
        word = str(self.value).lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0", "none"):
            return False
        raise self.error(f"must be true or false, not {self.value!r}")

    def whole(self) -> int:
        """Return a whole number above zero."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 1:
            raise self.error(f"must be a whole number above 0, not {self.value!r}")
        return self.value

    def hosts(self) -> tuple[str, ...]:
        """Return the names of a hostlist, or of a list of hostlists."""
        names: list[str] = []
        for word in self.words():
            names += self.place.hosts(word, ".".join(str(part) for part in self.loc))
        return tuple(names)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {"dict": "a mapping", "list": "a list"}.get(type(value).__name__, repr(value)[:60])
