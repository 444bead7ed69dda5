"""The door for every file from outside: read it once, safely, and remember the line of every key.

YAML is read event by event with libyaml, so that a document never grows beyond what its text holds (alias bombs), never
nests deeper than ``MAX_DEPTH``, and keeps the line of every key. Scalars follow the YAML 1.2 core schema: ``no`` is a
word, ``12:30:00`` is not 45,000, and ``007`` stays a name. JSON files are read the same way, since JSON is YAML 1.2.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import HpcplanError, InputError, Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from yaml.events import Event

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Document",
    "Loc",
    "field_path",
    "parse_document",
    "read_document",
    "read_text",
    "write_bytes",
    "write_figure",
    "write_parts",
    "write_text",
]

MAX_BYTES: Final = 32 * 1024**2
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 2_000_000  # values after aliases are followed; a 10,000-node site has about 100,000

Loc = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """A parsed file: its plain value, and the line (from 1) of every key and item in it.

    Lines of JSON are looked for when somebody asks, which is when something is wrong.
    """

    value: Any
    source: str
    known_lines: dict[Loc, int] | None = None
    text: str = ""

    @property
    def lines(self) -> dict[Loc, int]:
        """The line of every location."""
        if self.known_lines is None:
            self.known_lines = _parse_yaml(self.text, self.source).lines if self.text else {}
        return self.known_lines

    def line(self, loc: Loc) -> int | None:
        """Return the line of ``loc``, or of the closest thing around it that has one."""
        for end in range(len(loc), -1, -1):
            if loc[:end] in self.lines:
                return self.lines[loc[:end]]
        return None

    def problem(self, loc: Loc, message: str) -> Problem:
        """Return a :class:`Problem` at ``loc``."""
        return Problem(message, file=self.source, line=self.line(loc), field=field_path(loc))


def field_path(loc: Loc) -> str | None:
    """Return ``partitions.batch.nodes[2]`` for its location, ``None`` for the whole document."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path or None


_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def _scalar(text: str, *, plain: bool) -> Any:
    if not plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 40:
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) < 60:
        return float(text)
    return text


def parse_document(text: str, source: str) -> Document:
    """Parse YAML or JSON text.

    Raises:
        InputError: not YAML, empty, nested too deep, a key given twice, more than one document, or aliases that would
            expand it beyond ``MAX_VALUES`` values.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            pass  # YAML in flow style, or something wrong: the other reader knows where
        else:
            if _depth(value) <= MAX_DEPTH:
                return Document(value, source, None, text)
    return _parse_yaml(text, source)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is given twice")
    return result


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _depth(value: Any) -> int:
    """Return how deep containers are nested, without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _parse_yaml(text: str, source: str) -> Document:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # JSON writes what lies beyond the basic plane as two escapes, which YAML does not join.
    joined = _SURROGATES.sub(_joined, text) if "\\u" in text else text
    try:
        return _Builder(source).build(yaml.parse(joined, Loader=loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "cannot be read"
        context = getattr(error, "context", None)
        message = f"not valid YAML: {what}" + (f" ({context})" if context else "")
        if "nesting depth" in what:  # libyaml has a limit of its own since 0.2.6, and may meet it first
            message = f"nested more than {MAX_DEPTH} deep"
        raise InputError(Problem(message, file=source, line=mark.line + 1 if mark else None)) from None


_SURROGATES: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


def _joined(match: re.Match[str]) -> str:
    high, low = int(match[2], 16), int(match[3], 16)
    return f"{match[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


class _Builder:
    """Builds plain values from YAML events without recursion, recording the line of every location."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[Loc, int] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.stack: list[_Frame] = []
        self.count = 0

    def build(self, events: Iterable[Event]) -> Document:
        import yaml

        root: list[Any] = []
        documents = 0
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error("a second document ('---') begins here; give one document a file", line)
            elif isinstance(event, yaml.ScalarEvent):
                value = _scalar(event.value, plain=event.implicit[0])
                self._add(value, 1, event.anchor, line, root, key=event.value)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    raise self._error(f"alias *{event.anchor} names an anchor that is not complete here", line)
                value, size = self.anchors[event.anchor]
                self._add(value, size, None, line, root)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if len(self.stack) >= MAX_DEPTH:
                    raise self._error(f"nested more than {MAX_DEPTH} deep", line)
                opened: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                self.stack.append(_Frame(opened, event.anchor, line, self.count, self._place(line)))
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                frame = self.stack.pop()
                self._add(frame.value, self.count - frame.count_before, frame.anchor, frame.line, root, counted=True)
        if not root or root[0] is None:
            raise InputError(Problem("the file is empty", file=self.source))
        return Document(root[0], self.source, self.lines)

    def _error(self, message: str, line: int) -> InputError:
        return InputError(Problem(message, file=self.source, line=line, field=field_path(self._loc())))

    def _loc(self) -> Loc:
        return self.stack[-1].child() if self.stack else ()

    def _place(self, line: int) -> Loc:
        loc = self._loc()
        self.lines.setdefault(loc, line)
        return loc

    def _add(
        self, value: Any, size: int, anchor: str | None, line: int, root: list[Any], *,
        key: str | None = None, counted: bool = False,
    ) -> None:  # fmt: skip
        if anchor is not None:
            self.anchors[anchor] = (value, max(1, size))
        if not counted:
            self.count += size
        if self.count > MAX_VALUES:
            raise self._error(f"aliases expand this file to more than {MAX_VALUES:,} values", line)
        if not self.stack:
            self.lines.setdefault((), line)
            root.append(value)
            return
        frame = self.stack[-1]
        if isinstance(frame.value, list):
            self.lines.setdefault(frame.child(), line)
            frame.value.append(value)
        elif frame.key is None:
            if isinstance(value, dict | list):
                raise self._error("a key must be a plain word", line)
            frame.key = key if key is not None else str(value)
            if frame.key in frame.value:
                first = self.lines[frame.child()]
                raise self._error(f"given twice; first on line {first}", line)
            self.lines[frame.child()] = line
        else:
            frame.value[frame.key] = value
            frame.key = None


@dataclass(slots=True)
class _Frame:
    value: Any
    anchor: str | None
    line: int
    count_before: int
    loc: Loc
    key: str | None = None

    def child(self) -> Loc:
        if isinstance(self.value, list):
            return (*self.loc, len(self.value))
        return self.loc if self.key is None else (*self.loc, self.key)


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file of at most ``max_bytes``.

    Raises:
        InputError: missing, a directory or other special file, unreadable, too large, or not UTF-8 text.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise InputError(Problem("is a directory; name a file in it", file=name))
        if path.exists() and not path.is_file():
            raise InputError(Problem("is not a regular file", file=name))
        size = path.stat().st_size
        if size > max_bytes:
            limit = f"{max_bytes / 1024**2:,.0f} MiB"
            raise InputError(Problem(f"is {size / 1024**2:,.0f} MiB large; at most {limit} are read", file=name))
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(Problem("no such file", file=name)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(Problem(f"cannot be read: {reason}", file=name)) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(Problem("is not UTF-8 text", file=name, line=line)) from None
    if "\0" in text:
        raise InputError(Problem("is a binary file", file=name, line=text.count("\n", 0, text.index("\0")) + 1))
    return text


def read_document(path: Path | str, *, max_bytes: int = MAX_BYTES) -> Document:
    """Read and parse a YAML or JSON file; see :func:`read_text` and :func:`parse_document` for what is refused."""
    return parse_document(read_text(Path(path), max_bytes=max_bytes), str(path))


def write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a UTF-8 file so that readers see the old content or the new, never a part.

    Where a link points to is written, and what is no file, such as ``/dev/stdout``, is written to as it is.

    Args:
        path: the file; its folder must exist.
        text: the whole content.
        mode: of the file, subject to the umask.

    Raises:
        HpcplanError: the folder is missing or not writable, or the disk is full; the old file is untouched.
    """
    write_bytes(path, text.encode(), mode=mode)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file as :func:`write_text` does."""
    write_parts(path, (data,), mode=mode)


_OPEN: Final = {"/dev/stdout": "1", "/dev/stderr": "2"}
_DESCRIPTOR: Final = re.compile(r"(?:/dev|/proc/self)/fd/(\d+)")


def _is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe, or an open file of this process: no file that could be put in its place."""
    in_devices = str(path.parent) in {"/dev", "/dev/fd"} or path.is_relative_to("/proc")
    return in_devices or (path.exists() and not path.is_file())


def _pour(path: Path, parts: Iterable[bytes]) -> None:
    """Write to a stream, when all parts are made. What is open already is not opened anew: it would begin again."""
    number = _OPEN.get(str(path)) or (match[1] if (match := _DESCRIPTOR.fullmatch(str(path))) else None)
    with tempfile.TemporaryFile() as made:
        made.writelines(parts)
        made.seek(0)
        with path.open("ab") if number is None else os.fdopen(os.dup(int(number)), "wb") as stream:
            shutil.copyfileobj(made, stream)


def write_parts(path: Path, parts: Iterable[bytes], *, mode: int = 0o666) -> None:
    """Write a file as :func:`write_text` does, part by part; nothing, if making a part fails."""
    temporary: str | None = None
    try:
        if _is_stream(path):
            _pour(path, parts)
            return
        path = Path(os.path.realpath(path))
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(mode & ~umask)
        Path(temporary).replace(path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise HpcplanError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_figure(path: Path, figure: Figure, *, salt: str = "hpcplan") -> None:
    """Write a picture in the format that the file's name ends with: the same bytes each time, without a date.

    Args:
        path: the file; its folder must exist.
        figure: the picture.
        salt: what the ids in an SVG are made of; other for pictures that are shown on one page.

    Raises:
        HpcplanError: as :func:`write_text`.
    """
    import matplotlib

    kind = path.suffix[1:].lower()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=undated)
    write_bytes(path, buffer.getvalue())
