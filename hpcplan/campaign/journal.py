"""The journal of a campaign: append-only, one JSON object a line, intent before action and result after.

Each line carries a sequence number, the time, and the CRC-32 of the rest of the line, and is on disk (fsync) before
the action that it announces begins. A line that the end of a process cut short has no line break; it is ignored on
reading and cut off by the next writer. Any other damage is an error that names the line.

Nothing here relies on more than ``write``, ``fsync`` and ``ftruncate`` by one writer at a time (:mod:`hpcplan.campaign.
lock`), which NFS and Lustre keep.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from hpcplan.errors import HpcplanError, InputError, Problem

__all__ = ["JOURNAL_NAME", "Entry", "JournalWriter", "format_entry", "parse_journal", "read_journal"]

JOURNAL_NAME: Final = "journal.jsonl"
_LINE: Final = re.compile(rb'(\{.*),"crc32":"([0-9a-f]{8})"\}', re.DOTALL)
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: its number from 1, when it was written (UTC, ISO 8601), what happened, and the details."""

    seq: int
    time: str
    event: str
    data: Mapping[str, Any] = field(default_factory=dict)


def format_entry(entry: Entry) -> str:
    """Return the line, with its checksum and its line break."""
    content = {"seq": entry.seq, "time": entry.time, "event": entry.event, **entry.data}
    body = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return f'{body[:-1]},"crc32":"{zlib.crc32(body.encode()):08x}"}}\n'


def parse_journal(data: bytes, source: str) -> tuple[list[Entry], int]:
    """Return the entries, and how many bytes of ``data`` they take; what follows is a line cut short.

    Raises:
        InputError: a line is damaged or missing; the message names it.
    """
    entries: list[Entry] = []
    length = 0
    *lines, _torn = data.split(b"\n")
    for line in lines:
        try:
            entry = _parse_line(line)
            if entry.seq != len(entries) + 1:
                raise ValueError(f"is entry {entry.seq} where entry {len(entries) + 1} was expected; lines were lost")
        except ValueError as error:
            problem = Problem(str(error), file=source, line=len(entries) + 1)
            raise InputError(problem, hint="the journal is damaged; restore it from a backup") from None
        entries.append(entry)
        length += len(line) + 1
    return entries, length


def _parse_line(line: bytes) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("is not a journal line")
    body = match[1] + b"}"
    if zlib.crc32(body) != int(match[2], 16):
        raise ValueError("does not have the checksum that it says it has")
    data, end = _DECODER.raw_decode(body.decode("ascii"))
    if end != len(body):
        raise ValueError("is not a journal line")
    return Entry(seq=data.pop("seq"), time=data.pop("time"), event=data.pop("event"), data=data)


def read_journal(directory: Path) -> list[Entry]:
    """Return the entries of a campaign's journal; none where there is no journal.

    Raises:
        InputError: the journal is damaged, with file and line, or cannot be read.
    """
    path = directory / JOURNAL_NAME
    return parse_journal(_read(path), str(path))[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror or error}", file=str(path))) from None


class JournalWriter:
    """The journal, open for appending. Hold the campaign's lock as long as it is open."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open the journal, creating it if need be, and cut off a torn last line.

        Raises:
            InputError: the journal is damaged.
            HpcplanError: it cannot be written.
        """
        self.path = directory / JOURNAL_NAME
        self._clock = clock
        is_new = not self.path.exists()
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._error(error) from None
        try:
            data = _read(self.path)
            self.entries, self._length = parse_journal(data, str(self.path))
            if self._length < len(data):
                self._cut()
            if is_new:
                _sync_directory(directory)
        except OSError as error:
            os.close(self._descriptor)
            raise self._error(error) from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, event: str, **data: Any) -> Entry:
        """Write one entry and return it once it is on disk.

        Raises:
            HpcplanError: it cannot be written (disk full, quota); the journal is as it was before.
        """
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        entry = Entry(seq=len(self.entries) + 1, time=stamp, event=event, data=data)
        line = format_entry(entry).encode()
        try:
            _write_all(self._descriptor, line, self._length)
            os.fsync(self._descriptor)
        except OSError as error:
            self._undo()
            raise self._error(error) from None
        self._length += len(line)
        self.entries.append(entry)
        return entry

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._length)
        os.fsync(self._descriptor)

    def _undo(self) -> None:
        try:
            self._cut()
        except OSError:
            return  # what was written of the line has no line break, so readers ignore it

    def _error(self, error: OSError) -> HpcplanError:
        return HpcplanError(f"{self.path}: cannot be written: {error.strerror or error}")

    def close(self) -> None:
        """Close the file; everything written is on disk already."""
        os.close(self._descriptor)

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _sync_directory(directory: Path) -> None:
    """Make the file's name last, too; a file system that cannot sync directories does so itself."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
