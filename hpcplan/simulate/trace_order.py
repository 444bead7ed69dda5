"""A trace that is not in the order of submission, put into that order as it is read, and its rows put back."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcplan.simulate.outcome import Row
    from hpcplan.simulate.traces import TraceJob, TraceSource

__all__ = ["BySubmission", "in_order"]


class BySubmission:
    """The jobs of a source in the order of submission, those of the same second in the order of the trace.

    Held are 24 bytes for each job, and those that come before one that was submitted earlier.
    """

    def __init__(self, source: TraceSource) -> None:
        """Read when the jobs were submitted.

        Raises:
            InputError: the trace cannot be read.
        """
        self._source = source
        self._positions = array("q")  # in the trace, by rank in the order of submission
        times = array("q", (job.submit_s for job in source))
        self._first_after = times  # the earliest submission from each job on
        for position in range(len(times) - 2, -1, -1):
            if times[position + 1] < times[position]:
                times[position] = times[position + 1]

    def __iter__(self) -> Iterator[TraceJob]:
        """Yield them."""
        positions = self._positions = array("q")
        early: list[tuple[int, int, TraceJob]] = []
        first_after = self._first_after
        for position, job in enumerate(self._source):
            heappush(early, (job.submit_s, position, job))
            while early and (position + 1 == len(first_after) or early[0][0] <= first_after[position + 1]):
                _, place, following = heappop(early)
                positions.append(place)
                yield following

    def in_trace_order(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows of the jobs, which come in the order of submission, in the order of the trace."""
        return in_order((self._positions[rank], row) for rank, row in enumerate(rows))


def in_order(found: Iterable[tuple[int, Row]]) -> Iterator[Row]:
    """Yield rows in the order of their positions, each as soon as those before it are known."""
    early: dict[int, Row] = {}
    following = 0
    for position, row in found:
        if position != following:
            early[position] = row
            continue
        yield row
        following += 1
        while early and following in early:
            yield early.pop(following)
            following += 1
