"""The node lists of a job table, each expanded once however many figures ask for it."""

from __future__ import annotations

from typing import Final

from hpcplan.hostlist import MAX_HOSTS, expand

__all__ = ["NodeLists"]

_MOST_KEPT: Final = 2_000_000  # names; what is beyond is expanded anew each time


class NodeLists:
    """The names that lists stand for."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._kept = 0

    def names(self, text: str | None, limit: int = MAX_HOSTS) -> list[str] | None:
        """Return the names of a list, none for no text; ``None`` where it is no list or has more names than that."""
        if not text:
            return []
        found = self._known.get(text)
        if found is not None:
            return found if len(found) <= limit else None
        try:
            found = expand(text, limit=limit)
        except ValueError:
            return None
        if self._kept < _MOST_KEPT:
            self._known[text] = found
            self._kept += len(found)
        return found
