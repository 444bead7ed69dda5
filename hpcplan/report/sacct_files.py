"""Files of accounting text: opened whether plain, gzip or Zstandard, and read in blocks of whole lines."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from hpcplan.errors import InputError, Problem
from hpcplan.report.faults import Faults

__all__ = ["Blocks", "is_plain", "opened"]

_BLOCK_BYTES: Final = 4 * 1024**2  # what is made of it stays in the processor's cache
_MAX_LINE: Final = 4 * 1024**2  # what is longer is no line, and is broken somewhere
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@contextmanager
def opened(path: Path | str, faults: Faults) -> Iterator[IO[bytes]]:
    """Open a file of text, told by its first bytes to be plain, gzip or Zstandard; ``-`` is standard input.

    A compressed file that ends early is a fault, and what came before counts.

    Raises:
        InputError: the file is missing, a directory or not readable.
    """
    name = str(path)
    try:
        if name == "-":
            yield _unpacked(sys.stdin.buffer)
            return
        if Path(path).is_dir():
            raise InputError(Problem("is a directory; name a file in it", file=name))
        with Path(path).open("rb") as stream, _unpacked(stream) as plain:
            yield plain
    except FileNotFoundError:
        raise InputError(Problem("no such file", file=name)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        faults.add("file cut short", f"the compressed file ends early: {error}", name, 0, "")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(f"cannot be read: {reason}", file=name)) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "zstandard":
            raise
        faults.add("file cut short", f"the compressed file ends early: {error}", name, 0, "")


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    if not hasattr(stream, "peek"):
        stream = io.BufferedReader(cast(io.RawIOBase, stream))
    magic = cast(io.BufferedReader, stream).peek(4)[:4]
    if magic[:2] == _GZIP:
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if magic == _ZSTD:
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, reader), 1024**2))
    return stream


def is_plain(path: Path | str) -> bool:
    """Whether a path is a file that is not packed."""
    try:
        with Path(path).open("rb") as stream:
            magic = stream.read(4)
        return Path(path).is_file() and magic[:2] != _GZIP and magic != _ZSTD
    except OSError:
        return False


class Blocks:
    r"""The text of a file as UTF-8 in pieces of whole lines, each with whether more may follow.

    Lines end in ``\n`` alone; what is not UTF-8 has become U+FFFD. What of a piece :meth:`give_back` returns comes
    again before what follows.
    """

    def __init__(
        self, path: Path | str, faults: Faults, block_bytes: int = _BLOCK_BYTES, *, start: int = 0,
        stop: int | None = None,
    ) -> None:  # fmt: skip
        """Take a file, or of one that is not packed the bytes from ``start`` to ``stop``; ``at`` says how far it is."""
        self.path = path
        self.faults = faults
        self.block_bytes = block_bytes
        self.stop = stop
        self.at = start
        self._held: list[bytes] = []

    def give_back(self, tail: bytes) -> None:
        """Take back the end of the last piece."""
        self._held.insert(0, tail)

    def __iter__(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the pieces.

        Raises:
            InputError: as :func:`opened`.
        """
        ended = False
        with opened(self.path, self.faults) as stream:
            if self.at:
                stream.seek(self.at)
            while not ended:
                size = sum(map(len, self._held))
                wanted = size + self.block_bytes  # what was given back could not be read without more
                while size < wanted and not ended:
                    # what there is, also before a damaged end
                    room = min(1024**2, self.block_bytes)
                    room = room if self.stop is None else min(room, self.stop - self.at)
                    part = cast(io.BufferedReader, stream).read1(room)
                    self.at += len(part)
                    self._held.append(part)
                    size += len(part)
                    ended = not part
                yield from self._cut(ended)
        if not ended:  # the file was cut short: the line that was being read is no whole one
            yield from self._cut(True, whole=False)

    def _cut(self, ended: bool, *, whole: bool = True) -> Iterator[tuple[bytes, bool]]:
        if ended and whole:
            text, self._held = b"".join(self._held), [b""]
        else:
            text = self._until_last_newline()
            if not text and not ended and sum(map(len, self._held)) > _MAX_LINE:
                text, self._held = b"".join(self._held), [b""]
        if text:
            yield _clean(text), not ended

    def _until_last_newline(self) -> bytes:
        """Take what there is of whole lines, and keep the rest."""
        for place in range(len(self._held) - 1, -1, -1):
            at = self._held[place].rfind(b"\n") + 1
            if at:
                text = b"".join([*self._held[:place], self._held[place][:at]])
                self._held = [self._held[place][at:], *self._held[place + 1 :]]
                return text
        return b""


def _clean(text: bytes) -> bytes:
    if b"\r" in text:
        text = re.sub(rb"\r+(?=\n|$)", b"", text)
    if text.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode(errors="replace").encode()
    return text
