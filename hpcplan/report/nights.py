"""Which nights are due, one run at a time, and what is kept of the old ones."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path

from hpcplan.documents import write_text
from hpcplan.errors import HpcplanError, InputError, Problem

__all__ = ["bounds", "due", "finished", "locked", "swept"]

_STATE = "nights.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run.

    Raises:
        HpcplanError: another run holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(Problem(f"cannot be written: {error.strerror}", file=str(folder))) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HpcplanError(f"{folder}: another night's run has not ended; this one is left to the next") from None
        yield


def due(folder: Path, now: int, zone: tzinfo | None, most: int) -> list[date]:
    """Return the days not reported yet, oldest first, ``most`` at most; the first time, yesterday."""
    yesterday = datetime.fromtimestamp(now, zone).date() - timedelta(days=1)
    last = _last(folder)
    if last is None:
        return [yesterday]
    missed = (yesterday - last).days
    return [yesterday - timedelta(days=back) for back in reversed(range(max(0, min(missed, most))))]


def _last(folder: Path) -> date | None:
    path = folder / _STATE
    if not path.exists():
        return None
    try:
        return date.fromisoformat(json.loads(path.read_text())["last"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"cannot be read: {error}", file=str(path)), hint="remove it") from None


def finished(folder: Path, night: date) -> None:
    """Note that a night was reported."""
    write_text(folder / _STATE, json.dumps({"last": night.isoformat()}) + "\n")


def bounds(night: date, zone: tzinfo | None) -> tuple[int, int]:
    """Return a local day's first second and the first behind it: 23 or 25 hours where the clocks change."""
    first = datetime(night.year, night.month, night.day, tzinfo=zone)
    following = night + timedelta(days=1)
    last = datetime(following.year, following.month, following.day, tzinfo=zone)
    return int(first.timestamp()), int(last.timestamp())


def swept(folder: Path, keep: int) -> int:
    """Remove the pages of all but the newest ``keep`` nights; return how many files went."""
    nights: dict[str, list[Path]] = {}
    for path in folder.glob("????-??-??.*"):
        nights.setdefault(path.name[:10], []).append(path)
    old = [path for night in sorted(nights)[:-keep] for path in nights[night]] if keep > 0 else []
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
