"""The training data's files and how many tokens each has: from folders, file names, or a table."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from hpcplan.documents import read_text
from hpcplan.errors import InputError, Problem, nearest

__all__ = ["DataFile", "changed_files", "content_digest", "inputs_digest", "read_inputs"]

_TABLE_SUFFIXES = {".csv", ".tsv"}
_MAX_TABLE_BYTES = 1024**3
_CHUNK = 1024**2


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file: where the jobs find it, its tokens, and its size in bytes where that is known."""

    path: str
    tokens: int
    bytes: int | None = None
    sha256: str | None = None


def read_inputs(
    inputs: Sequence[Path], *, bytes_per_token: float | None = None, pattern: str = "*", checksum: bool = False
) -> list[DataFile]:
    """Return the files, sorted by path.

    Args:
        inputs: folders (all files below whose name matches ``pattern``), files, or tables: ``.csv`` or ``.tsv`` with a
            column ``path`` and one of ``tokens`` and ``bytes``; relative paths count from the table.
        bytes_per_token: what turns sizes into tokens: 2 or 4 for most tokenised files.
        pattern: of names in folders, as in ``*.bin``.
        checksum: whether to read every file for its SHA-256.

    Raises:
        InputError: a path that is not there, a table with wrong columns or figures (with its line), sizes without
            ``bytes_per_token``, a file named twice, or no tokens at all.
    """
    if bytes_per_token is not None and not bytes_per_token > 0:
        raise InputError(f"bytes a token: must be more than zero, not {bytes_per_token}")
    files: list[DataFile] = []
    for path in inputs:
        if path.is_dir():
            files += [_by_size(file, bytes_per_token) for file in _below(path, pattern)]
        elif path.suffix in _TABLE_SUFFIXES:
            files += _from_table(path, bytes_per_token)
        else:
            files.append(_by_size(path, bytes_per_token))
    files = [file for file in sorted(files, key=lambda file: file.path) if file.tokens]
    for one, other in pairwise(files):
        if one.path == other.path:
            raise InputError(f"{one.path}: is named twice")
    if not files:
        raise InputError(f"{', '.join(map(str, inputs)) or 'no inputs'}: no files with tokens in them")
    if checksum:
        return [DataFile(f.path, f.tokens, f.bytes, content_digest(Path(f.path))) for f in files]
    return files


def _below(folder: Path, pattern: str) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if fnmatchcase(name, pattern) and not name.startswith("."):
                yield Path(root) / name


def _by_size(path: Path, bytes_per_token: float | None) -> DataFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror or error}", file=str(path))) from None
    return _of_bytes(str(path.resolve()), size, bytes_per_token, Problem("", file=str(path)))


def _of_bytes(path: str, size: int, bytes_per_token: float | None, where: Problem) -> DataFile:
    if bytes_per_token is None:
        message = "only its size is known; say how many bytes a token takes (2 or 4 for most tokenised files)"
        raise InputError(Problem(message, where.file, where.line))
    return DataFile(path, int(size / bytes_per_token), size)


def _from_table(table: Path, bytes_per_token: float | None) -> list[DataFile]:
    rows = csv.DictReader(
        io.StringIO(read_text(table, max_bytes=_MAX_TABLE_BYTES)), delimiter="\t" if table.suffix == ".tsv" else ","
    )
    columns = rows.fieldnames or []
    if "path" not in columns or not {"tokens", "bytes"} & set(columns):
        has = f"has {', '.join(map(str, columns))}" if columns else "is empty"
        message = f"{has}; columns path and tokens (or bytes) are needed" + nearest("path", map(str, columns))
        raise InputError(Problem(message, str(table), 1))
    return [_from_row(table, rows.line_num, row, bytes_per_token) for row in rows]


def _from_row(table: Path, line: int, row: dict[str, str | None], bytes_per_token: float | None) -> DataFile:
    where = Problem("", str(table), line)
    name = row.get("path")
    if not name:
        raise InputError(Problem("is missing", str(table), line, "path"))
    path = str(table.parent.resolve() / name)
    size = _count(where, "bytes", row.get("bytes"))
    tokens = _count(where, "tokens", row.get("tokens"))
    if tokens is not None:
        return DataFile(path, tokens, size)
    if size is None:
        raise InputError(Problem("tokens or bytes are missing", str(table), line))
    return _of_bytes(path, size, bytes_per_token, where)


def _count(where: Problem, field: str, text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise InputError(Problem(f"{text!r} is no number of {field}", where.file, where.line, field))
    return value


def content_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror or error}", file=str(path))) from None
    return digest.hexdigest()


def inputs_digest(files: Sequence[DataFile]) -> str:
    """Return the SHA-256 (hex) of paths, sizes and tokens: a line ``PATH<tab>BYTES<tab>TOKENS`` a file, by path."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        size = "" if file.bytes is None else file.bytes
        digest.update(f"{file.path}\t{size}\t{file.tokens}\n".encode())
    return digest.hexdigest()


def changed_files(files: Sequence[DataFile], *, content: bool = False) -> list[tuple[str, str]]:
    """Return the files that are not as they were, each with what differs.

    Sizes are compared where they are known; with ``content`` also the SHA-256, where it is known.
    """
    found: list[tuple[str, str]] = []
    for file in files:
        why = _difference(file, content)
        if why is not None:
            found.append((file.path, why))
    return found


def _difference(file: DataFile, content: bool) -> str | None:
    path = Path(file.path)
    try:
        size = path.stat().st_size
        if file.bytes is not None and size != file.bytes:
            return f"has {size} bytes, not {file.bytes}"
        if content and file.sha256 is not None and content_digest(path) != file.sha256:
            return "has another content of the same size"
    except OSError as error:
        return error.strerror or str(error)
    except InputError as error:
        return error.problems[0].message
    return None
