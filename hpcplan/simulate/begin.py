"""The times that ``--begin`` takes (sbatch(1)): ``now+2hours``, ``16:00``, ``tomorrow``, ``2031-01-20T12:34``."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Final

from hpcplan.errors import SlurmError

__all__ = ["begin_time", "is_begin"]

_NOW: Final = re.compile(r"now(?:\+(\d+)(second|minute|hour|day|week)?s?)?", re.IGNORECASE)
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.IGNORECASE)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_HOURS: Final = {"midnight": 0, "noon": 12, "fika": 15, "teatime": 16}


def begin_time(text: str | None, now: int) -> int | None:
    """Return the unix time that ``text`` means at ``now``, in the laptop's time zone; ``None`` for no text.

    Raises:
        SlurmError: not a time, in sbatch's words.
    """
    if text is None:
        return None
    relative = _NOW.fullmatch(text)
    if relative is not None:
        return now + int(relative[1] or 0) * _SECONDS[(relative[2] or "second").lower()]
    here = datetime.fromtimestamp(now).astimezone()
    moment = _clock(text.lower(), here) or _date(text, here)
    if moment is None:
        raise SlurmError(
            f"Invalid time specification (pos=0): {text}\nsbatch: error: Invalid --begin specification",
            hint="write it like now+2hours, 16:00 or 2031-01-20T12:34",
        )
    return int(moment.timestamp())


def is_begin(text: str) -> bool:
    """Whether :func:`begin_time` can read a text."""
    try:
        begin_time(text, 0)
    except SlurmError:
        return False
    return True


def _clock(word: str, here: datetime) -> datetime | None:
    """Return the next time that a clock shows ``word``; ``today`` and ``tomorrow`` keep the time of day."""
    if word in {"today", "tomorrow"}:
        return here + timedelta(days=word == "tomorrow")
    match = _CLOCK.fullmatch(word)
    try:
        if match is not None:
            at = time(int(match[1]), int(match[2]), int(match[3] or 0))
        elif word in _HOURS:
            at = time(_HOURS[word])
        else:
            return None
    except ValueError:
        return None
    moment = datetime.combine(here.date(), at).astimezone()
    return moment if moment > here else datetime.combine(here.date() + timedelta(days=1), at).astimezone()


def _date(text: str, here: datetime) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(here.tzinfo)
    except ValueError:
        return None
