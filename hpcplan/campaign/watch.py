"""Following a campaign until it has ended, politely, through times when Slurm does not answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcplan.campaign.status import CampaignStatus, status
from hpcplan.errors import SlurmUnreachableError
from hpcplan.slurm.backend import Backend

__all__ = ["polite_interval_s", "watch"]

_MOCK_S: Final = 1.0
_REAL_S: Final = 15.0  # the controller serves a whole site
_LONGEST_S: Final = 300.0


def polite_interval_s(backend: Backend) -> float:
    """Return how often a cluster may be asked, in seconds: 15 for a real one, 1 for a mock."""
    return _MOCK_S if backend.name == "mock" else _REAL_S


def watch(
    directory: Path,
    backend: Backend,
    *,
    interval_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[CampaignStatus]:
    """Yield the campaign's status every ``interval_s`` seconds, and last the one with which it ended.

    While Slurm does not answer, the last status known comes again with a note, and the time between questions doubles,
    with jitter, up to five minutes.

    Raises:
        SlurmUnreachableError: Slurm does not answer the first question.
        InputError, ConflictError: as :func:`hpcplan.campaign.status`.
    """
    interval_s = polite_interval_s(backend) if interval_s is None else interval_s
    latest = status(directory, backend)
    wait_s = interval_s
    while True:
        yield latest
        if not latest.moving:
            return
        sleep(wait_s)
        try:
            latest = status(directory, backend)
            wait_s = interval_s
        except SlurmUnreachableError as error:
            note = f"Slurm does not answer; this is the last that was known ({error.message})"
            latest = replace(latest, notes=(*(n for n in latest.notes if "does not answer" not in n), note))
            wait_s = min(_LONGEST_S, 2 * wait_s) * random.uniform(0.75, 1.25)
