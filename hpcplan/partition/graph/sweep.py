"""The best chain of ideals through a family, by dynamic programming over (ideal, accelerators used, CPUs used).

The value of a state is the least load of the busiest device of any chain that ends in it. Ideals are visited in an
order in which each comes after all that it contains; from each, every ideal that one more device can reach within the
limit is updated, all at once with array operations. What keeps this small is the limit: states whose remaining work
cannot fit on the remaining devices under it are never opened, and an accelerator's piece lies within a window of
ideals, since they are sorted by accelerator time.

The load of the piece between ideals J and I is W(I) - W(J) + B(I) + sum of t [P meets R] - t [P lacks some of R] over
the outputs that cross the border of J, where R is what such an output meets outside J, t its transfer time and B(I)
the time of all outputs that cross the border of I: B counts an output of J that I does not complete although the piece
may not touch it, and the sum corrects that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpcplan.partition.graph.bounds import CpuShare
from hpcplan.partition.graph.groups import Groups
from hpcplan.partition.graph.ideals import Family

__all__ = ["Chain", "OutOfTimeError", "Sweep", "Triple"]

Floats = NDArray[np.float64]
Triple = tuple[int, int, int]
State = tuple[int, int]  # CPUs and accelerators used
ROUNDING = 1e-9
BLOCK = 2048


class OutOfTimeError(Exception):
    """The deadline passed; carries no message to a user."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Pieces in the order of data flow: whether each is on a CPU, and its groups. ``load`` is the busiest one's."""

    load: float
    pieces: tuple[tuple[bool, tuple[int, ...]], ...]
    cuts: tuple[int, ...]  # the ideals between pieces, as bit masks


@dataclass
class Sweep:
    """One family swept under one limit.

    ``forbidden`` are triples (a, b, c) of groups: a piece with a and c must have b too. They stand for gaps in the
    backward part of pieces that turned up and are not allowed.
    """

    groups: Groups
    family: Family
    limit: float
    forbidden: Sequence[Triple] = ()
    deadline: float = float("inf")
    value: dict[State, Floats] = field(default_factory=dict)
    source: dict[State, NDArray[np.int64]] = field(default_factory=dict)

    def best(self) -> Chain | None:
        """Return the best chain whose busiest device is at or below the limit, or ``None`` if there is none.

        Raises:
            OutOfTimeError: the deadline passed before that was known.
        """
        n = len(self.family)
        self.value[0, 0] = np.full(n, np.inf)
        self.value[0, 0][0] = 0.0
        self._prepare()
        for j, tops, crossing in self._opened():
            live = self._live(j)
            if live:
                self._expand(j, live, tops, crossing)
        final = [(values[n - 1], state) for state, values in self.value.items() if values[n - 1] <= self.limit]
        return self._chain(*min(final)) if final else None

    def _prepare(self) -> None:
        graph, family = self.groups.graph, self.family
        share = CpuShare(self.groups)
        self._saves = [share.saves(cpus * self.limit) for cpus in range(graph.cpus + 1)]
        self._work = family.accelerator_time + family.border
        self._total = float(family.accelerator_time[-1])
        self._memory = graph.memory_bytes * (1 + ROUNDING)
        self._all_on_accelerator = bool(self.groups.on_accelerator.all())
        reach = self.limit * (1 + ROUNDING)
        self._slack = ROUNDING * (self._total + self.limit)
        self._window = np.searchsorted(family.accelerator_time, family.accelerator_time + reach + self._slack, "right")
        one_cpu = self._saves[1] if graph.cpus else 0.0
        self._cpu_window = np.searchsorted(
            family.accelerator_time, family.accelerator_time + one_cpu + self._slack, "right"
        )
        self._reached = np.zeros(len(family), dtype=np.bool_)
        self._reached[0] = True

    def _opened(self) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
        """Yield every reached ideal with its last groups and the outputs that cross its border."""
        n = len(self.family)
        for start in range(0, n - 1, BLOCK):
            stop = min(start + BLOCK, n - 1)
            tables = None
            for j in range(start, stop):
                if not self._reached[j]:
                    continue
                if time.monotonic() > self.deadline:
                    raise OutOfTimeError
                if tables is None:
                    tables = self._tables(start, stop)
                yield j, np.flatnonzero(tables[0][j - start]), np.flatnonzero(tables[1][j - start])

    def _tables(self, start: int, stop: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        has = self.family.has[:, start:stop]
        tops = has.copy()
        for g, after in enumerate(self.groups.after):
            if after:
                tops[g] &= ~has[list(after)].any(axis=0)
        crossing = np.empty((len(self.groups.borders), stop - start), dtype=np.bool_)
        for e, pins in enumerate(self.groups.borders):
            rows = has[list(pins)]
            crossing[e] = rows.any(axis=0) ^ rows.all(axis=0)
        return np.ascontiguousarray(tops.T), np.ascontiguousarray(crossing.T)

    def _live(self, j: int) -> list[tuple[State, float]]:
        """Return the states of ideal ``j`` worth going on from, with their values."""
        graph, family = self.groups.graph, self.family
        rest = self._total - family.accelerator_time[j] - self._slack
        size = float(family.size_bytes[-1] - family.size_bytes[j])
        found: dict[State, float] = {}
        for state, values in self.value.items():
            value = float(values[j])
            if value > self.limit:
                continue
            cpus, accelerators = graph.cpus - state[0], graph.accelerators - state[1]
            need = rest - self._saves[cpus] + (0.0 if cpus else family.border[j])
            if need <= accelerators * self.limit and (cpus or size <= accelerators * self._memory):
                found[state] = value
        return [
            (state, value)
            for state, value in found.items()
            if not any(
                other != state and other[0] <= state[0] and other[1] <= state[1] and value >= better
                for other, better in found.items()
            )
        ]

    def _expand(
        self, j: int, live: Sequence[tuple[State, float]], tops: NDArray[np.intp], crossing: NDArray[np.intp]
    ) -> None:
        graph = self.groups.graph
        by_accelerator = [item for item in live if item[0][1] < graph.accelerators]
        by_cpu = [item for item in live if item[0][0] < graph.cpus]
        if by_accelerator:
            targets = self._supersets(j, int(self._window[j]), tops)
            targets, load = self._accelerator(j, targets, crossing)
            for (cpus, accelerators), value in by_accelerator:
                self._update((cpus, accelerators + 1), 2 * j, targets, np.maximum(load, value))
        if by_cpu:
            targets = self._supersets(j, int(self._cpu_window[j]), tops)
            load = self.family.cpu_time[targets] - self.family.cpu_time[j]
            targets, load = self._allowed(j, targets, load, load <= self.limit)
            for (cpus, accelerators), value in by_cpu:
                self._update((cpus + 1, accelerators), 2 * j + 1, targets, np.maximum(load, value))

    def _supersets(self, j: int, stop: int, tops: NDArray[np.intp]) -> NDArray[np.intp]:
        if not len(tops):
            return np.arange(j + 1, stop)
        has = self.family.has[:, j + 1 : stop]
        inside = has[tops[0]].copy()
        for g in tops[1:]:
            inside &= has[g]
        return np.flatnonzero(inside) + (j + 1)

    def _accelerator(
        self, j: int, targets: NDArray[np.intp], crossing: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], Floats]:
        family, groups = self.family, self.groups
        keep = family.size_bytes[targets] - family.size_bytes[j] <= self._memory
        if not self._all_on_accelerator:
            keep &= family.cpu_only[targets] == family.cpu_only[j]
        targets = targets[keep]
        outside: dict[tuple[int, ...], float] = {}
        inside = family.has[:, j]
        for e in crossing:
            rest = tuple(g for g in groups.borders[e] if not inside[g])
            outside[rest] = outside.get(rest, 0.0) + float(groups.border_time[e])
        load = self._work[targets] - (family.accelerator_time[j] + sum(outside.values()))
        for rest, transfer in outside.items():
            if len(rest) == 1:
                load += (2 * transfer) * family.has[rest[0]][targets]
            else:
                rows = family.has[:, targets][list(rest)] if len(targets) < 64 else family.has[list(rest)][:, targets]
                load += transfer * rows.any(axis=0)
                load += transfer * rows.all(axis=0)
        return self._allowed(j, targets, load, load <= self.limit)

    def _allowed(
        self, j: int, targets: NDArray[np.intp], load: Floats, keep: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], Floats]:
        has = self.family.has
        for a, b, c in self.forbidden:
            if not has[a, j] and not has[c, j]:
                lacks = ~has[b][targets] if not has[b, j] else True
                keep = keep & ~(has[a][targets] & has[c][targets] & lacks)
        return targets[keep], load[keep]

    def _update(self, state: State, origin: int, targets: NDArray[np.intp], load: Floats) -> None:
        if state not in self.value:
            self.value[state] = np.full(len(self.family), np.inf)
            self.source[state] = np.full(len(self.family), -1, dtype=np.int64)
        better = load < self.value[state][targets]
        chosen = targets[better]
        self.value[state][chosen] = load[better]
        self.source[state][chosen] = origin
        self._reached[chosen] = True

    def _chain(self, load: float, state: State) -> Chain:
        has, at, last = self.family.has, len(self.family) - 1, float(load)
        pieces: list[tuple[bool, tuple[int, ...]]] = []
        cuts: list[int] = []
        while at:
            j, on_cpu = divmod(int(self.source[state][at]), 2)
            pieces.append((bool(on_cpu), tuple(int(g) for g in np.flatnonzero(has[:, at] & ~has[:, j]))))
            state = (state[0] - on_cpu, state[1] - 1 + on_cpu)
            at = j
            cuts.append(sum(1 << int(g) for g in np.flatnonzero(has[:, at])))
        return Chain(last, tuple(reversed(pieces)), tuple(reversed(cuts[:-1])))
