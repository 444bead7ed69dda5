"""The finished jobs of a mock cluster: an append-only file of JSON lines, one attempt a line, in order of their ends.

The length that counts is kept with the cluster's state; what lies beyond it was written by a command that was killed
before it could commit, and is overwritten.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from hpcplan.errors import HpcplanError
from hpcplan.slurm.records import JobRecord

__all__ = ["Accounting"]

_BLOCK: Final = 1 << 20
_HEAD: Final = re.compile(
    rb'\{"job_id":(\d+),"end_time":(\d+),"user":("(?:[^"\\]|\\.)*"),"array_job_id":(\d+|null)'
    rb'(?:,"het_job_id":(\d+|null))?'
)


class Accounting:
    """The file at ``path``, of which the first ``length`` bytes count."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self.length = length

    def append(self, records: Iterable[JobRecord]) -> None:
        """Add records and force them to disk; ``length`` then covers them.

        Raises:
            HpcplanError: the file cannot be written; ``length`` is unchanged.
        """
        data = b"".join(_line(record) for record in records)
        if not data:
            return
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            with os.fdopen(descriptor, "r+b") as stream:
                stream.truncate(self.length)
                stream.seek(self.length)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise HpcplanError(f"{self.path}: cannot be written: {error.strerror or error}") from None
        self.length += len(data)

    def latest_first(
        self, *, since: int | None = None, job_ids: Collection[int] | None = None, user: str | None = None
    ) -> Iterator[JobRecord]:
        """Yield records from the newest end backwards, down to those that ended at ``since``.

        ``job_ids`` keeps jobs with these ids and the tasks of arrays and components of heterogeneous jobs with them,
        ``user`` those of one user.
        """
        owner = None if user is None else json.dumps(user).encode()
        for line in self._lines_backwards():
            head = _HEAD.match(line)
            if head is None:
                raise HpcplanError(f"{self.path}: is damaged: a line is not a job", hint="hpcplan mock stop --purge")
            if since is not None and int(head[2]) < since:
                return
            if owner is not None and head[3] != owner:
                continue
            ids = (head[1], head[4], head[5])
            if job_ids is not None and not any(one not in (None, b"null") and int(one) in job_ids for one in ids):
                continue
            yield JobRecord.from_dict(json.loads(line))

    def _lines_backwards(self) -> Iterator[bytes]:
        if not self.length:
            return
        try:
            with self.path.open("rb") as stream:
                position, rest = self.length, b""
                while position:
                    size = min(_BLOCK, position)
                    position -= size
                    stream.seek(position)
                    first, *lines = (stream.read(size) + rest).split(b"\n")
                    yield from (line for line in reversed(lines) if line)
                    rest = first
                if rest:
                    yield rest
        except OSError as error:
            raise HpcplanError(f"{self.path}: cannot be read: {error.strerror or error}") from None


def _line(record: JobRecord) -> bytes:
    """Return a record's line; the fields that searches go by come first."""
    data = record.as_dict()
    het = ("het_job_id",) if record.het_job_id is not None else ()
    head = {name: data.pop(name) for name in ("job_id", "end_time", "user", "array_job_id", *het)}
    rest = {name: value for name, value in data.items() if value is not None and value != ""}
    return json.dumps({**head, **rest}, separators=(",", ":")).encode() + b"\n"
