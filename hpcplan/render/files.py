"""Writing a campaign's files without losing what somebody edited."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcplan.documents import read_text, write_text
from hpcplan.errors import ConflictError, HpcplanError, InputError
from hpcplan.render.manifest import MANIFEST_NAME, Manifest, file_digest, read_manifest

__all__ = ["Written", "changed_files", "differences", "write_campaign"]

_MOST_LINES: Final = 20  # of the diff of a file that nobody edited, or that is not ours


@dataclass(frozen=True, slots=True)
class Written:
    """What writing did, by file name; each in order."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]


def changed_files(files: Mapping[str, str], directory: Path) -> list[str]:
    """Return the names of ``files`` that the directory does not have with this very text."""
    return [name for name, text in files.items() if _current(directory / name) != text]


def differences(files: Mapping[str, str], directory: Path) -> str:
    """Return a diff from the scripts and configuration that are there to those rendered now; ``jobs.json`` left out.

    What is not there yet, or is no text, is left out, too; of each file at most some lines are shown.
    """
    parts: list[str] = []
    for name in changed_files(files, directory):
        current = _current(directory / name)
        if current is not None and name != MANIFEST_NAME:
            parts += _cut(_diff_of(name, current, files[name]))
    return "\n".join(parts)


def write_campaign(files: Mapping[str, str], directory: Path, *, force: bool = False) -> Written:
    """Write rendered files, leaving alone those that already have their text.

    A file that still is what an earlier rendering wrote (``jobs.json`` has the digests) is replaced or, if the new
    rendering has none of that name, removed. ``jobs.json`` comes last: where it is new, all is.

    Raises:
        ConflictError: a file was edited or is not ours, and ``force`` is not given; the message is a diff from what is
            there to what would be written. Nothing was written.
        HpcplanError: the directory cannot be written.
    """
    before = _manifest(directory)
    stale = [name for name in (before.files if before else ()) if name not in files and (directory / name).exists()]
    changed = changed_files(files, directory)
    if not force:
        edited = [name for name in (*changed, *stale) if _is_edited(directory, name, before)]
        if edited:
            raise ConflictError(_diff(files, directory, edited), hint="--force overwrites these edits")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(changed, key=lambda name: name == MANIFEST_NAME):
            write_text(directory / name, files[name])
        for name in stale:
            (directory / name).unlink()
    except OSError as error:
        raise HpcplanError(f"{directory}: cannot be written: {error.strerror or error}") from None
    unchanged = tuple(name for name in files if name not in changed)
    return Written(written=tuple(changed), unchanged=unchanged, removed=tuple(stale))


def _manifest(directory: Path) -> Manifest | None:
    """Return the manifest of an earlier rendering, if it can be trusted to say what was written."""
    try:
        manifest = read_manifest(directory)
    except InputError:
        return None
    return manifest if manifest.untouched else None


def _current(path: Path) -> str | None:
    try:
        return read_text(path)
    except InputError:
        return None


def _is_edited(directory: Path, name: str, before: Manifest | None) -> bool:
    path = directory / name
    if not path.exists() and not path.is_symlink():
        return False
    text = _current(path)
    if text is None:
        return True
    if before is None:
        return True
    return name != MANIFEST_NAME and before.files.get(name) != file_digest(text)


def _diff(files: Mapping[str, str], directory: Path, edited: list[str]) -> str:
    names = ", ".join(edited)
    ours = (directory / MANIFEST_NAME).exists()
    what = f"{names} changed since rendering" if ours else f"holds {names}, which hpcplan render did not write"
    parts = [f"{directory}: {what}; nothing was written"]
    for name in edited:
        current = _current(directory / name)
        if current is None:
            parts.append(f"{name}: is not a readable text file")
            continue
        lines = _diff_of(name, current, files.get(name, ""))
        parts += lines if ours else _cut(lines)
    return "\n".join(parts)


def _diff_of(name: str, current: str, new: str) -> list[str]:
    titles = (f"{name} (as it is)", f"{name} (as rendered now)")
    return list(difflib.unified_diff(current.splitlines(), new.splitlines(), *titles, lineterm=""))


def _cut(lines: list[str]) -> list[str]:
    hidden = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], f"… {hidden} more lines"] if hidden > 0 else lines
