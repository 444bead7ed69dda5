"""A queue as it stands, followed by the compiled controller, with jobs of one's own submitted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from hpcplan.simulate.compiled import layout as at
from hpcplan.simulate.compiled.controller import FEED, STARTED, advance, resume, submit
from hpcplan.simulate.compiled.driver import Coming, Driver, Switch

__all__ = ["CourseDriver"]

_FED: Final = 256  # jobs at a time: what is not reached has been prepared in vain


class CourseDriver(Driver):
    """One future of a queue: the jobs that run and wait go on, others are submitted, and so are jobs of one's own."""

    def __init__(
        self, rules: Mapping[str, int], clock: Mapping[str, int], *, all_nodes: int, available: int,
        lines: Sequence[int], partitions: Sequence[tuple[int, int]], coming: Iterable[Coming],
        switches: Sequence[Switch] = (),
    ) -> None:  # fmt: skip
        """Set it up with nothing in the queue; nodes that are not ``available`` take no jobs."""
        super().__init__(
            rules, clock, all_nodes=all_nodes, lines=lines, partitions=partitions, factors=0, wants_nodes=False,
            switches=switches,
        )  # fmt: skip
        self._available = available
        self._sets[at.ALL] = self._row(available)
        self._coming: Iterator[Coming] = iter(coming)
        self._following = next(self._coming, None)
        self._fed = 0
        self._feed_more()

    @property
    def now(self) -> int:
        """The present time, in seconds."""
        return int(self._of[at.OF_CLOCK, at.NOW])

    @property
    def least_priority(self) -> int | None:
        """The lowest priority of the jobs that wait, ``None`` if none do."""
        waiting = self._of[at.WAITING, : self._of[at.OF_CLOCK, at.N_WAITING]]
        return int(self._of[at.PRIORITY, waiting].min()) if len(waiting) else None

    @property
    def submitted(self) -> int:
        """How many of the others that come have been submitted."""
        clock = self._of[at.OF_CLOCK]
        return self._fed - int(clock[at.N_COMING] - clock[at.FIRST_COMING])

    def take_over(self, jobs: Sequence[Coming], starts_s: Sequence[int | None], nodes: Sequence[int]) -> None:
        """Take over jobs that run on ``nodes`` since ``starts_s``, or wait (``None``)."""
        slots = self._write(list(jobs))
        for slot, start_s, held in zip(slots, starts_s, nodes, strict=True):
            if start_s is not None:
                self._of[at.START_S, slot] = start_s
                self._sets[at.CHOSEN] = self._row(held & self._available)
            resume(self._rules, self._of, self._sets, slot)

    def advance(self, to_s: int) -> None:
        """Let everything happen up to and including ``to_s``."""
        self._go(to_s, -1)
        self._of[at.OF_CLOCK, at.NOW] = max(self.now, to_s)

    def submit(self, job: Coming, until_s: int) -> int | None:
        """Submit a job now and go on until it starts; return when (seconds), ``None`` if not by ``until_s``."""
        slot = int(self._write([job])[0])
        submit(self._rules, self._of, self._sets, self._shares, slot)
        if self._of[at.START_S, slot] == at.NEVER and self._go(until_s, slot) != STARTED:
            return None
        return int(self._of[at.START_S, slot])

    def _go(self, until_s: int, watched: int) -> int:
        while True:
            code: int = advance(self._rules, self._of, self._sets, self._shares, until_s, watched)
            self._of[at.OF_CLOCK, at.N_ENDED] = 0
            if code != FEED:
                return code
            self._feed_more()

    def _feed_more(self) -> None:
        chunk, self._following = self._chunk(self._coming, self._following, _FED)
        self._fed += len(chunk)
        self._feed(chunk, more=self._following is not None)
