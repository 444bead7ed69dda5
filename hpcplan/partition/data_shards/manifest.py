"""The manifest: JSON lines that say which file is in which lane, and what each job of the chain reads.

The first line has the figures, then come a line a file (with the lane of the whole, or of each of its pieces), a line
a job of the chain, and at last the SHA-256 of all lines before it. A program that knows no more than this page can
read it; see the reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hpcplan.documents import read_text, write_text
from hpcplan.errors import InputError, Problem
from hpcplan.partition.data_shards.balance import Method, division_of
from hpcplan.partition.data_shards.inputs import DataFile, inputs_digest
from hpcplan.partition.data_shards.shards import Piece, Shards
from hpcplan.plan import DataShards, Segment
from hpcplan.quantities import PositiveInt
from hpcplan.validation import Value

__all__ = ["FileLine", "Header", "JobLine", "Manifest", "manifest_text", "read_manifest", "write_manifest"]

_MAX_BYTES = 1024**3
Amount = Annotated[int, Field(ge=0)]


class Header(Value):
    """The first line."""

    kind: Literal["data-shards"] = "data-shards"
    schema_version: Literal[1] = 1
    files: PositiveInt
    lanes: PositiveInt
    tokens: PositiveInt = Field(description="of one pass over all files")
    longest_lane: PositiveInt = Field(description="in tokens")
    bound: PositiveInt = Field(description="no division has a shorter longest lane, in tokens")
    method: Method = Field(description="exact; longest-first, whole files; cut, equal to a token")
    seed: int
    sequence_length: PositiveInt
    global_batch: PositiveInt = Field(description="sequences a step")
    tokens_a_step: PositiveInt = Field(description="of each lane")
    inputs_sha256: str = Field(description="of PATH<tab>BYTES<tab>TOKENS lines, by path")


class FileLine(Value):
    """A file. ``pieces`` are (lane, first token, end), the end not included; a whole file has one."""

    path: str
    tokens: PositiveInt
    bytes: Amount | None = None
    sha256: str | None = None
    pieces: tuple[tuple[Amount, Amount, PositiveInt], ...] = Field(min_length=1)


class JobLine(Value):
    """A job of the chain: its steps (from 1, both included) and where every lane is when it begins, in tokens."""

    segment: PositiveInt
    first_step: PositiveInt
    last_step: PositiveInt
    lane_token: Amount


class _EndLine(Value):
    lines_sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read: the division, the jobs, and the digest of the file's content."""

    shards: Shards
    jobs: tuple[JobLine, ...]
    header: Header
    sha256: str

    def as_plan_field(self, path: Path) -> DataShards:
        """Return what a plan says of it; ``path`` is where the jobs find it."""
        return DataShards(
            manifest=str(path), sha256=self.sha256, files=self.header.files, lanes=self.header.lanes,
            tokens=self.header.tokens, imbalance=round(self.shards.division.imbalance, 6),
        )  # fmt: skip


def _jobs(shards: Shards, segments: Sequence[Segment]) -> list[JobLine]:
    return [
        JobLine(segment=s.index, first_step=first, last_step=s.last_step, lane_token=shards.lane_token(first))
        for s in segments
        for first in (s.first_step,)
    ]


def _lines(shards: Shards, segments: Sequence[Segment]) -> Iterator[Value]:
    division = shards.division
    yield Header(
        files=len(shards.files), lanes=len(shards.lanes), tokens=shards.tokens, longest_lane=max(division.load),
        bound=division.bound, method=division.method, seed=shards.seed, sequence_length=shards.sequence_length,
        global_batch=shards.global_batch, tokens_a_step=shards.tokens_a_step, inputs_sha256=inputs_digest(shards.files),
    )  # fmt: skip
    pieces: list[list[tuple[int, int, int]]] = [[] for _ in shards.files]
    for lane, members in enumerate(shards.lanes):
        for piece in members:
            pieces[piece.file].append((lane, piece.start, piece.stop))
    for file, own in zip(shards.files, pieces, strict=True):
        parts = tuple(sorted(own, key=lambda part: part[1]))
        yield FileLine(path=file.path, tokens=file.tokens, bytes=file.bytes, sha256=file.sha256, pieces=parts)
    yield from _jobs(shards, segments)


def _line(value: Value) -> str:
    return json.dumps(value.model_dump(mode="json", exclude_none=True), separators=(", ", ": ")) + "\n"


def manifest_text(shards: Shards, segments: Sequence[Segment] = ()) -> str:
    """Return the text of a manifest: ASCII; the same division gives the same bytes."""
    text = "".join(_line(value) for value in _lines(shards, segments))
    return text + _line(_EndLine(lines_sha256=hashlib.sha256(text.encode()).hexdigest()))


def write_manifest(path: Path, shards: Shards, segments: Sequence[Segment] = ()) -> None:
    """Write a manifest; errors as :func:`hpcplan.documents.write_text`."""
    write_text(path, manifest_text(shards, segments))


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: not a manifest, cut short, changed since it was written, or of files that overlap or leave gaps;
            with file and line.
    """
    text = read_text(path, max_bytes=_MAX_BYTES)
    name = str(path)
    lines = text.splitlines(keepends=True)
    values = _parsed(name, lines[:-1])
    _check_end(name, lines)
    header, rest = values[0], values[1:]
    if not isinstance(header, Header):
        raise InputError(Problem("is no manifest of data shards: the first line has no figures", name, 1))
    files = [value for value in rest if isinstance(value, FileLine)]
    jobs = tuple(value for value in rest if isinstance(value, JobLine))
    if len(files) != header.files:
        raise InputError(Problem(f"has {len(files)} files, and its first line says {header.files}", name, 1))
    shards = _shards(name, header, files)
    return Manifest(shards, jobs, header, hashlib.sha256(text.encode()).hexdigest())


_ADAPTER: TypeAdapter[Header | FileLine | JobLine] = TypeAdapter(Header | FileLine | JobLine)


def _parsed(name: str, lines: Sequence[str]) -> list[Any]:
    values: list[Any] = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(_ADAPTER.validate_json(line))
        except ValidationError:
            raise InputError(Problem("is no line of a manifest of data shards", name, number)) from None
    if not values:
        raise InputError(Problem("is no manifest of data shards: it is empty or has one line", name))
    return values


def _check_end(name: str, lines: Sequence[str]) -> None:
    try:
        end = _EndLine.model_validate_json(lines[-1])
    except ValidationError:
        raise InputError(Problem("is cut short: the last line has no checksum", name, len(lines))) from None
    if end.lines_sha256 != hashlib.sha256("".join(lines[:-1]).encode()).hexdigest():
        message = "was changed since it was written: the checksum in its last line is of other lines; write it again"
        raise InputError(Problem(message, name))


def _shards(name: str, header: Header, files: Sequence[FileLine]) -> Shards:
    lanes: list[list[Piece]] = [[] for _ in range(header.lanes)]
    for number, file in enumerate(files):
        at = 0
        for lane, start, stop in file.pieces:
            if lane >= header.lanes or start != at or stop <= start:
                raise InputError(
                    Problem(f"{file.path}: pieces overlap, leave gaps or are in no lane", name, number + 2)
                )
            lanes[lane].append(Piece(number, start, stop))
            at = stop
        if at != file.tokens:
            raise InputError(Problem(f"{file.path}: pieces end at {at} of {file.tokens} tokens", name, number + 2))
    data = tuple(DataFile(file.path, file.tokens, file.bytes, file.sha256) for file in files)
    return Shards(
        data, tuple(tuple(lane) for lane in lanes), header.sequence_length, header.global_batch, header.seed,
        division_of([[piece.tokens for piece in lane] for lane in lanes], header.bound, header.method),
    )  # fmt: skip
