"""Keeping many campaigns going from one process: a turn for each, round after round, with one question a round to each
Slurm. It has no memory that matters: kill it, start another, or run two. What has ended is left alone until somebody
does something with it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hpcplan.campaign.advance import Turn, advance
from hpcplan.campaign.journal import JOURNAL_NAME
from hpcplan.campaign.ledger import Ledger, read_ledger
from hpcplan.campaign.match import since
from hpcplan.campaign.policy import POLICY_NAME
from hpcplan.campaign.status import CampaignState
from hpcplan.errors import ConflictError, HpcplanError, SlurmUnreachableError
from hpcplan.slurm.backend import Backend
from hpcplan.slurm.records import JobRecord

__all__ = ["Round", "Tracker"]

_log = logging.getLogger(__name__)

_LONGEST_S: Final = 300.0
_OVER: Final = frozenset({CampaignState.DONE, CampaignState.FAILED, CampaignState.CANCELLED})
_Stamp = tuple[tuple[int, int] | None, ...]


def _stamp(directory: Path) -> _Stamp:
    """Return what changes when somebody acts on a campaign or edits its policy: sizes and times of these files."""
    found: list[tuple[int, int] | None] = []
    for name in (JOURNAL_NAME, POLICY_NAME):
        try:
            about = (directory / name).stat()
            found.append((about.st_size, about.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


@dataclass(slots=True)
class Round:
    """What one round found: the turns by directory, what went wrong by directory, and which Slurm answered.

    ``passing`` are the campaigns for which the next round may go better.
    """

    turns: dict[Path, Turn] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    answers: dict[str, bool] = field(default_factory=dict)
    passing: set[Path] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def moving(self) -> bool:
        """Whether anything is left that may still change by itself, as far as is known."""
        return bool(self.passing) or any(turn.status.moving for turn in self.turns.values())


class _Remembered:
    """A backend that answers for jobs from one question asked before, and passes on everything else."""

    def __init__(self, backend: Backend, records: Sequence[JobRecord], asked: Iterable[int]) -> None:
        self._backend, self._asked = backend, frozenset(asked)
        self._records = records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def jobs(self, job_ids: Sequence[int] | None = None, *, since: int | None = None) -> list[JobRecord]:
        """Return what is remembered of these jobs, if all of them were asked for; ask anew otherwise."""
        if job_ids is None or not self._asked.issuperset(job_ids):
            return self._backend.jobs(job_ids, since=since)
        wanted = frozenset(job_ids)
        return [one for one in self._records if not wanted.isdisjoint((one.job_id, one.array_job_id))]


class Tracker:
    """Tracks campaigns until told to stop. ``directories`` is asked anew each round."""

    def __init__(
        self,
        directories: Callable[[], Iterable[Path]],
        open_backend: Callable[[str], Backend],
        *,
        interval_s: Callable[[Backend], float],
        settle_s: Callable[[Backend], float],
        on_round: Callable[[Round], None] = lambda found: None,
    ) -> None:
        self._directories, self._open = directories, open_backend
        self._interval_s, self._settle_s = interval_s, settle_s
        self._on_round = on_round
        self._stop = threading.Event()
        self._backends: dict[str, Backend] = {}
        self._failures = 0
        self._over: dict[Path, tuple[_Stamp, Turn]] = {}

    def stop(self) -> None:
        """Stop after the turn under way; may be called from a signal handler."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def run(self, *, until_done: bool = False) -> Round:
        """Take rounds until :meth:`stop`, or until nothing moves any more; return the last."""
        while True:
            found = self.round()
            self._on_round(found)
            if self.stopping or (until_done and not found.moving):
                return found
            if self._stop.wait(self._pause_s(found)):
                return found

    def _pause_s(self, found: Round) -> float:
        """Return how long to wait: the politest of the backends', doubled with jitter while one does not answer."""
        base = max((self._interval_s(backend) for backend in self._backends.values()), default=15.0)
        self._failures = 0 if all(found.answers.values()) else self._failures + 1
        if not self._failures:
            return base
        return float(min(_LONGEST_S, base * 2 ** min(self._failures, 10)) * random.uniform(0.75, 1.25))

    def round(self) -> Round:
        """Take one turn for each campaign."""
        found, began = Round(), time.monotonic()
        for name, campaigns in self._by_backend(found).items():
            backend = self._ask(name, campaigns, found)
            for directory in campaigns if backend is not None else ():
                if self.stopping:
                    break
                assert backend is not None
                self._turn(directory, backend, found)
        found.seconds = time.monotonic() - began
        return found

    def _by_backend(self, found: Round) -> dict[str, dict[Path, Ledger]]:
        groups: dict[str, dict[Path, Ledger]] = {}
        for directory in self._directories():
            try:
                ledger = read_ledger(directory)
            except HpcplanError as error:
                found.problems[directory] = error.message
                continue
            stamp, turn = self._over.get(directory, (None, None))
            if turn is not None and stamp == _stamp(directory):
                found.turns[directory] = turn
            elif ledger.backend is not None:
                groups.setdefault(ledger.backend, {})[directory] = ledger
        return groups

    def _ask(self, name: str, campaigns: dict[Path, Ledger], found: Round) -> Backend | None:
        """Return a backend that knows how all these campaigns' jobs stand, ``None`` where Slurm does not answer."""
        ids = [job_id for ledger in campaigns.values() for job_id in ledger.job_ids]
        try:
            backend = self._backends.get(name) or self._open(name)
            self._backends[name] = backend
            start = since((ledger.opened_at for ledger in campaigns.values()), backend.now())
            records = backend.jobs(ids, since=start) if ids else []
        except HpcplanError as error:
            found.answers[name] = False
            found.problems |= dict.fromkeys(campaigns, error.message)
            found.passing |= set(campaigns)
            return None
        found.answers[name] = True
        return cast(Backend, _Remembered(backend, records, ids))

    def _nap(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _turn(self, directory: Path, backend: Backend, found: Round) -> None:
        before = _stamp(directory)
        try:
            turn = advance(directory, backend, settle_s=self._settle_s(backend), sleep=self._nap)
            found.turns[directory] = turn
            if turn.status.state in _OVER and not turn.acts and before == _stamp(directory):
                self._over[directory] = (before, turn)  # Slurm need not be asked again before somebody does something
        except ConflictError as error:
            found.problems[directory] = error.message
            found.passing.add(directory)
            _log.info("%s: %s", directory, error.message)
        except SlurmUnreachableError as error:
            found.answers[backend.name] = False
            found.problems[directory] = error.message
            found.passing.add(directory)
        except HpcplanError as error:
            found.problems[directory] = error.message
            _log.warning("%s: %s", directory, error.message)
