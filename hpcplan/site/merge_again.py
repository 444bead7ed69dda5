"""Importing a site again: what changed comes in, what a person edited stays.

Beside ``site.yaml`` the import keeps a copy of what it wrote, ``.site.yaml.imported``. The next import compares three
texts by lines, as ``diff3`` does: that copy, the file as it is now, and what is imported now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from pathlib import Path

from hpcplan.documents import read_text, write_text
from hpcplan.errors import ConflictError, InputError
from hpcplan.site.merge_write import read_back

__all__ = ["Again", "merge_edits", "write_site"]


@dataclass(frozen=True, slots=True)
class Again:
    """What happened to a file that was there: the difference to what it held, and lines kept against the import."""

    difference: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def merge_edits(base: str, mine: str, new: str) -> tuple[str, list[str]]:
    """Return ``mine`` with the changes from ``base`` to ``new``, and the lines of ``mine`` kept where both changed.

    Lines are compared without their comments, since those change with the line numbers of the imported files.
    """
    a, b, c = base.splitlines(), mine.splitlines(), new.splitlines()
    in_mine, in_new = _matches(a, b), _matches(a, c)
    result: list[str] = []
    kept: list[str] = []
    i = j = k = 0
    for line in sorted(in_mine.keys() & in_new.keys()):
        there, now = in_mine[line], in_new[line]
        result += _chunk(a[i:line], b[j:there], c[k:now], kept)
        result.append(c[now] if b[there] == a[line] else b[there])
        i, j, k = line + 1, there + 1, now + 1
    result += _chunk(a[i:], b[j:], c[k:], kept)
    return "\n".join(result) + "\n", kept


def _matches(base: Sequence[str], other: Sequence[str]) -> dict[int, int]:
    matcher = SequenceMatcher(None, _figures(base), _figures(other), autojunk=False)
    return {block.a + step: block.b + step for block in matcher.get_matching_blocks() for step in range(block.size)}


def _chunk(base: list[str], mine: list[str], new: list[str], kept: list[str]) -> list[str]:
    """Return what comes of lines between two that all three texts have."""
    if _figures(mine) == _figures(base):
        return new
    if len(base) == len(mine) == len(new) > 1:  # neighbours changed, one by the person, one by the import
        lines: list[str] = []
        for old, edited, imported in zip(base, mine, new, strict=True):
            lines += _chunk([old], [edited], [imported], kept)
        return lines
    if _figures(new) not in (_figures(base), _figures(mine)):
        kept += [line.strip() for line in mine if line not in base]
    return mine


def _figures(lines: Sequence[str]) -> list[str]:
    """Return lines without the comments that the import writes after two blanks."""
    return [line.split("  #")[0].rstrip() for line in lines]


def write_site(output: Path, text: str, *, force: bool = False) -> Again:
    """Write an imported site file, keeping what a person edited since the last import.

    Raises:
        ConflictError: the file is there, differs, and was not written by an import (no copy beside it), or what comes
            of the three texts is no valid site; nothing is written.
        InputError: the file that is there cannot be read as text.
        HpcplanError: it cannot be written.
    """
    copy = output.with_name(f".{output.name}.imported")
    result, kept, old = text, list[str](), None
    if output.exists() and not force:
        old = read_text(output)
        if old != text:
            result, kept = _merged(output, copy, old, text)
    write_text(output, result)
    write_text(copy, text)
    return Again(_difference(output, old, result) if old is not None else (), tuple(kept))


def _merged(output: Path, copy: Path, old: str, text: str) -> tuple[str, list[str]]:
    if not copy.is_file():
        difference = "\n".join(_difference(output, old, text))
        message = f"{difference}\n{output}: exists and is not from an import; it was not changed"
        raise ConflictError(message, hint="write to another file, or overwrite this one with --force")
    result, kept = merge_edits(read_text(copy), old, text)
    try:
        read_back(result)
    except InputError as error:
        message = f"{output}: its edits and the import do not fit together, so it was not changed: {error}"
        raise ConflictError(message, hint="import into another file, or overwrite this one with --force") from None
    return result, kept


def _difference(output: Path, old: str, new: str) -> tuple[str, ...]:
    return tuple(unified_diff(old.splitlines(), new.splitlines(), str(output), "imported now", n=1, lineterm=""))
