"""What becomes of a way of sharing: workloads arrive, run for as long as they really take, and end.

Static: decided once, with all arrivals known; each workload keeps its nodes. Dynamic: decided anew at each arrival and
end, for what waits; what runs keeps its nodes. Elastic: what runs, too, is given more or fewer nodes at its next
checkpoint; stopping and going on costs a restart.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, get_args

from hpcplan.schedule.sharing.problem import Job, Option, Placed, Problem

__all__ = ["MODES", "Decide", "Mode", "Piece", "Run", "carry_out", "simulate", "used_node_s"]

Mode = Literal["static", "dynamic", "elastic"]
MODES: tuple[Mode, ...] = get_args(Mode)
_DONE = 1e-9


@dataclass(frozen=True, slots=True)
class Piece:
    """One stretch of a workload on the same nodes."""

    option: Option
    start_s: float
    end_s: float


@dataclass(slots=True)
class Run:
    """What became of one workload: its stretches, in order."""

    job: int
    pieces: list[Piece] = field(default_factory=list)

    @property
    def start_s(self) -> float:
        """When it first ran."""
        return self.pieces[0].start_s

    @property
    def end_s(self) -> float:
        """When it was done."""
        return self.pieces[-1].end_s

    @property
    def resizes(self) -> int:
        """How often its nodes changed."""
        return len(self.pieces) - 1

    def share_of(self, whole: float | None, piece: Piece) -> float | None:
        """Return what a stretch adds to a figure of the whole run on its nodes."""
        return None if whole is None else whole * (piece.end_s - piece.start_s) / piece.option.run_s

    def cost(self) -> float | None:
        """Return what it cost, ``None`` where a pool has no price."""
        return _total([self.share_of(piece.option.cost, piece) for piece in self.pieces])

    def energy_kwh(self) -> float | None:
        """Return the energy it took, ``None`` where a pool has no power."""
        return _total([self.share_of(piece.option.energy_kwh, piece) for piece in self.pieces])


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) else None


class Decide(Protocol):
    """A policy at work: options for the workloads of a problem, ``None`` for those that should wait longer.

    Times are counted from now on; what runs is ``fixed``, unless it may be changed. Returned in the order in which they
    should start.
    """

    def __call__(self, problem: Problem, remaining: Sequence[float], now_s: float) -> list[tuple[int, Option | None]]:
        """Decide."""


def carry_out(problem: Problem, plan: Sequence[Placed], factors: Sequence[float]) -> list[Run]:
    """Return what becomes of a fixed plan when each workload takes ``factors`` times as long as predicted.

    On each pool workloads start in the order of the plan, none before its arrival, each as soon as its nodes are free.
    """
    runs: list[Run] = []
    for pool, nodes in problem.pools.items():
        free, at, ends = nodes, 0.0, list[tuple[float, int]]()
        for each in sorted((p for p in plan if p.option.pool == pool), key=lambda p: (p.start_s, p.job)):
            at = max(at, problem.jobs[each.job].arrival_s)
            while ends and ends[0][0] <= at * (1 + 1e-12):
                free += heapq.heappop(ends)[1]
            while free < each.option.nodes:
                end, back = heapq.heappop(ends)
                at, free = max(at, end), free + back
            free -= each.option.nodes
            end = at + each.option.run_s * factors[each.job]
            heapq.heappush(ends, (end, each.option.nodes))
            runs.append(Run(each.job, [Piece(each.option, at, end)]))
    return sorted(runs, key=lambda run: run.job)


@dataclass(slots=True)
class _Live:
    """A workload that has arrived: what is left of it, and where it runs."""

    remaining: float = 1.0
    option: Option | None = None
    since_s: float = 0.0  # start of this stretch
    works_from_s: float = 0.0  # after the restart
    target: Option | None = None


class _Simulation:
    """The site, from event to event."""

    def __init__(self, problem: Problem, decide: Decide, mode: Mode, factors: Sequence[float]) -> None:
        self.problem, self.decide, self.elastic, self.factors = problem, decide, mode == "elastic", factors
        self.free = dict(problem.pools)
        self.live: dict[int, _Live] = {}
        self.runs = {j: Run(j) for j in range(len(problem.jobs))}
        self.now = 0.0

    def run(self) -> list[Run]:
        arrivals = sorted(range(len(self.problem.jobs)), key=lambda j: (self.problem.jobs[j].arrival_s, j))
        queue: list[tuple[Option | None, int]] = []
        while arrivals or self.live:
            times = [self._end_s(j) for j, live in self.live.items() if live.option is not None]
            times += [self._checkpoint_s(j) for j, live in self.live.items() if live.target is not None]
            times += [self.problem.jobs[arrivals[0]].arrival_s] if arrivals else []
            self.now = max(self.now, min(times))
            changed = False
            for j in [j for j, live in self.live.items() if live.option and self._end_s(j) <= self.now + 1e-6]:
                self._stop(j)
                del self.live[j]
                changed = True
            while arrivals and self.problem.jobs[arrivals[0]].arrival_s <= self.now + 1e-6:
                self.live[arrivals.pop(0)] = _Live()
                changed = True
            if changed:
                queue = self._decide()
            self._resize(bool(queue))
            queue = self._start(queue)
            self._never_idle(arrivals)
        return list(self.runs.values())

    def _end_s(self, j: int) -> float:
        live = self.live[j]
        assert live.option is not None
        return live.works_from_s + live.remaining * live.option.run_s * self.factors[j]

    def _checkpoint_s(self, j: int) -> float:
        """Return the next checkpoint from now on, at most the end."""
        live, every = self.live[j], self.problem.jobs[j].checkpoint_s
        done = max(0.0, self.now - live.works_from_s)
        return min(self._end_s(j), live.works_from_s + math.ceil(done / every - 1e-6) * every)

    def _left(self, j: int) -> float:
        """Return the share of a workload that is left now."""
        live = self.live[j]
        if live.option is None:
            return live.remaining
        worked = max(0.0, self.now - live.works_from_s) / (live.option.run_s * self.factors[j])
        return max(0.0, live.remaining - worked)

    def _stop(self, j: int) -> None:
        live = self.live[j]
        assert live.option is not None
        self.runs[j].pieces.append(Piece(live.option, live.since_s, self.now))
        self.free[live.option.pool] += live.option.nodes
        live.remaining, live.option, live.target = self._left(j), None, None

    def _begin(self, j: int, option: Option, restart_s: float) -> None:
        live = self.live[j]
        live.option, live.since_s, live.works_from_s, live.target = option, self.now, self.now + restart_s, None
        self.free[option.pool] -= option.nodes

    def _decide(self) -> list[tuple[Option | None, int]]:
        """Ask the policy; return what should start, in order, and note what should change."""
        names = sorted(self.live)
        left = [max(_DONE, self._left(j)) for j in names]
        jobs = tuple(self._as_seen(j, share) for j, share in zip(names, left, strict=True))
        if not jobs:
            return []
        horizon = self.problem.horizon_s
        left_horizon = None if horizon is None else max(1.0, horizon - self.now)
        seen = Problem(self.problem.pools, jobs, self._budget_left(), left_horizon)
        waiting: list[tuple[Option | None, int]] = []
        for index, option in self.decide(seen, left, self.now):
            j = names[index]
            whole = None if option is None else self._whole(j, option)
            if self.live[j].option is None:
                waiting.append((whole, j))
            else:
                self.live[j].target = whole if self.elastic and whole != self.live[j].option else None
        return waiting

    def _budget_left(self) -> float | None:
        """Return what is left of the budget of all: what ended and what runs have used their part."""
        if self.problem.budget is None:
            return None
        used = [run.cost() or 0.0 for run in self.runs.values() if run.pieces]
        for live in self.live.values():
            if live.option is not None:
                used.append((live.option.cost or 0.0) * (self.now - live.since_s) / live.option.run_s)
        return max(1e-9, self.problem.budget - math.fsum(used))

    def _as_seen(self, j: int, left: float) -> Job:
        """Return a workload as it is now: what is left of it, here at once, elsewhere after a restart."""
        job, live = self.problem.jobs[j], self.live[j]
        runs = live.option is not None

        def part(option: Option) -> Option:
            restart = 0.0 if option == live.option or not runs else job.restart_s
            worth = left + restart / option.run_s
            return replace(
                option,
                run_s=max(1e-6, left * option.run_s + restart),
                cost=None if option.cost is None else option.cost * worth,
                energy_kwh=None if option.energy_kwh is None else option.energy_kwh * worth,
            )

        options = (live.option,) if live.option is not None and not self.elastic else job.options
        deadline = None if job.deadline_s is None else max(1.0, job.deadline_s - self.now)
        return replace(
            job, options=tuple(part(o) for o in options if o is not None), arrival_s=0.0, deadline_s=deadline,
            budget=None if runs or left < 1 else job.budget, fixed=runs,
        )  # fmt: skip

    def _whole(self, j: int, option: Option) -> Option:
        return next(o for o in self.problem.jobs[j].options if (o.pool, o.nodes) == (option.pool, option.nodes))

    def _resize(self, somebody_waits: bool) -> None:
        """Let what has reached its checkpoint take its new nodes: fewer first, since others wait for them."""
        due = [j for j, live in self.live.items() if live.target and self._checkpoint_s(j) <= self.now + 1e-6]
        for j in sorted(due, key=lambda j: (self._growth(j), j)):
            live, job = self.live[j], self.problem.jobs[j]
            target, current = live.target, live.option
            assert target is not None
            assert current is not None
            back = current.nodes if target.pool == current.pool else 0
            left = self._left(j)
            gains = left * (current.run_s - target.run_s) > job.restart_s
            if (self._growth(j) > 0 and not gains) or (self._growth(j) <= 0 and not (gains or somebody_waits)):
                live.target = None
            elif target.nodes <= self.free[target.pool] + back:
                self._stop(j)
                self._begin(j, target, job.restart_s)
            else:
                live.target = None  # no room now; the next event asks again

    def _growth(self, j: int) -> int:
        live = self.live[j]
        assert live.option is not None
        return (live.target.nodes if live.target else live.option.nodes) - live.option.nodes

    def _start(self, queue: list[tuple[Option | None, int]]) -> list[tuple[Option | None, int]]:
        """Start what fits, in order; what does not, waits, and what comes after may pass."""
        left: list[tuple[Option | None, int]] = []
        for wanted, j in queue:
            option = self._now(j, wanted)
            if option is not None and option.nodes <= self.free[option.pool]:
                self._begin(j, option, 0.0)
            else:
                left.append((wanted, j))
        return left

    def _now(self, j: int, wanted: Option | None) -> Option | None:
        """Return what a workload can start on: where it may grow later, fewer nodes than it is to have will do."""
        if wanted is None or not self.elastic or wanted.nodes <= self.free[wanted.pool]:
            return wanted
        fewer = [o for o in self.problem.jobs[j].at(wanted.pool) if o.nodes <= self.free[wanted.pool]]
        return fewer[-1] if fewer else wanted

    def _never_idle(self, arrivals: Sequence[int]) -> None:
        """Start something where everything waits and nothing will happen any more."""
        if arrivals or not self.live or any(live.option is not None for live in self.live.values()):
            return
        j = min(self.live)
        self._begin(j, min(self.problem.jobs[j].options, key=lambda option: option.run_s), 0.0)


def simulate(problem: Problem, decide: Decide, mode: Mode, factors: Sequence[float] | None = None) -> list[Run]:
    """Return what becomes of every workload when a policy decides at each event.

    Args:
        problem: workloads, their arrivals and pools.
        decide: the policy.
        mode: ``dynamic`` or ``elastic``.
        factors: how much longer than predicted each workload takes; 1 if absent.
    """
    return _Simulation(problem, decide, mode, factors or [1.0] * len(problem.jobs)).run()


def used_node_s(runs: Sequence[Run]) -> Mapping[str, float]:
    """Return the node-seconds used on each pool."""
    used: dict[str, float] = {}
    for run in runs:
        for piece in run.pieces:
            used[piece.option.pool] = used.get(piece.option.pool, 0.0) + piece.option.nodes * (
                piece.end_s - piece.start_s
            )
    return used
