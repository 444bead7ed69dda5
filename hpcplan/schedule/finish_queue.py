"""What is known of a site's queue, as far as chains of jobs that will be submitted to it are concerned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from hpcplan.errors import InfeasibleError, InputError
from hpcplan.plan import Plan
from hpcplan.schedule.chain_waits import ChainWaits, drawn_waits
from hpcplan.schedule.finish import Chain, Wait, Way, one_way
from hpcplan.schedule.forecast.answer import from_history_alone
from hpcplan.schedule.forecast.demand import demand_reasons, demand_words, predict_demand
from hpcplan.schedule.forecast.pool import NEVER_S
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.site.model import Site

__all__ = ["Entrant", "KnownQueue", "Queue"]

_ROUNDS: Final = ((20, 60, 200, 400), (4, 8, 16, 32))  # futures that have been gone through, on a pool and on a cluster
_CHAINS: Final = (100, 1000, 2000)  # where waits are drawn each for itself
_WAITS: Final = (120, 30)  # of ordinary moments, drawn for each kind of job, on a pool and on a cluster


@dataclass(frozen=True, slots=True)
class Queue:
    """What is known of the queue: a snapshot with its history, where the present is (not) to be counted on."""

    snapshot: QueueSnapshot
    present: bool = True


@dataclass(frozen=True, slots=True)
class Entrant:
    """A chain of jobs and what each of them asks the queue for; ``usual_s`` are waits where no present is known."""

    chain: Chain
    job: QueueJob | None
    usual_s: NDArray[np.int64] | None = None


class KnownQueue:
    """Ways in which chains go through a queue; with no queue known, every job starts at once."""

    def __init__(self, queue: Queue | None, site: Site, seed: int) -> None:
        self.queue = queue
        self.site = site
        self.seed = seed
        self.now_s = queue.snapshot.now_s if queue is not None and queue.present else None
        self.rounds: tuple[int, ...] = _CHAINS
        notes = _said(queue)
        self._futures: ChainWaits | None = None
        self._seen: dict[tuple[object, ...], NDArray[np.int64]] = {}
        if queue is not None and queue.present:
            snapshot = queue.snapshot
            self.rounds = _ROUNDS[snapshot.procs is None]
            forecaster = Forecaster(snapshot.history, snapshot.jobs, seed=seed, limit_use=snapshot.limit_use)
            self._futures = ChainWaits(snapshot, forecaster, futures=self.rounds[-1])
            notes += _others(snapshot, forecaster)
        self.notes = tuple(notes)

    @property
    def costly(self) -> bool:
        """Whether one way takes long enough to work out for several processes to be worth their start."""
        return self._futures is not None and self.queue is not None and self.queue.snapshot.procs is None

    def entrant(self, chain: Chain, plan: Plan, qos: str | None, limit_s: int) -> Entrant:
        """Return the chain of a plan, ready to go through the queue.

        Raises:
            InfeasibleError: its jobs can never start.
        """
        if self.queue is None:
            return Entrant(chain, None)
        snapshot = self.queue.snapshot
        width, partition = plan.plan.nodes, plan.placement.partition
        if snapshot.procs is not None:
            width, partition = self._share_of_pool(plan), ""
        job = QueueJob(
            label="chain", width=width, limit_s=limit_s, submit_s=snapshot.now_s, partition=partition or None,
            priority=self.priority(qos),
        )  # fmt: skip
        try:
            if self._futures is not None:
                self._futures.check(job)
                return Entrant(chain, job)
            return Entrant(chain, job, self._usual_s(job))
        except InputError as error:
            raise InfeasibleError(f"{job.width} nodes: {error.message}") from None

    def _usual_s(self, job: QueueJob) -> NDArray[np.int64]:
        assert self.queue is not None
        key = (job.width, job.partition, job.limit_s)
        if key not in self._seen:
            snapshot = self.queue.snapshot
            count = _WAITS[snapshot.procs is None]
            self._seen[key] = from_history_alone(snapshot, [job], samples=count, seed=self.seed)[0].waits_s
        return self._seen[key]

    def way(self, entrant: Entrant, number: int, cap_s: float = math.inf) -> tuple[Way, float]:
        """Return way ``number`` in which a chain goes, and the wait of its first job in seconds.

        Chance is the same for all chains: the same steps are slow, and the same moments bring failures.
        """
        random = np.random.default_rng((self.seed, number))
        if self._futures is not None and entrant.job is not None:
            wait = self._futures.wait_in(number, entrant.job, random, cap_s=cap_s)
        else:
            usual = np.zeros(1, dtype=np.int64) if entrant.usual_s is None else entrant.usual_s
            wait = drawn_waits(usual, usual, random)
        firsts: list[float] = []

        def noted(submit_s: float, held_s: float) -> float:
            found = wait(submit_s, held_s)
            if not firsts:
                firsts.append(found)
            return found

        noting: Wait = noted
        way = one_way(entrant.chain, noting, random, cap_s=cap_s)
        return way, min(firsts[0], cap_s, NEVER_S) if firsts else 0.0

    def _share_of_pool(self, plan: Plan) -> int:
        """Return how many of a pool's processors the plan's nodes are; those of a trace are nodes."""
        assert self.queue is not None
        assert self.queue.snapshot.procs is not None
        total = sum(len(group.hostnames()) for group in self.site.node_groups.values())
        each = max(1, round(self.queue.snapshot.procs / total)) if self.queue.present else 1
        return plan.plan.nodes * each

    def priority(self, qos: str | None) -> int:
        """Return a priority above the waiting jobs of lower QoS, 0 (last) where that is not known."""
        if self.queue is None or qos is None or qos not in self.site.qos:
            return 0
        mine = self.site.qos[qos].priority
        lower = [
            job.priority
            for job in self.queue.snapshot.pending
            if job.qos in self.site.qos and self.site.qos[job.qos or ""].priority < mine
        ]
        return max(lower, default=-1) + 1

    def preemption_rate_per_s(self, partition: str, qos: str | None) -> float:
        """Return how often jobs there were preempted, per second that they ran."""
        if self.queue is None:
            return 0.0
        mine = [
            job
            for job in self.queue.snapshot.history
            if job.partition in (None, partition) and (qos is None or job.qos in (None, qos))
        ]
        ran_s = sum((job.end_s or 0) - (job.start_s or 0) for job in mine)
        return sum(job.state == "PREEMPTED" for job in mine) / ran_s if ran_s else 0.0


def _others(snapshot: QueueSnapshot, forecaster: Forecaster) -> list[str]:
    """Return what others are drawn to submit, and why not by a forecast of the demand."""
    demand = predict_demand(forecaster.arrivals, snapshot.now_s, 1, seed=forecaster.seed)
    coming = demand_words(demand, "node" if snapshot.procs is None else "processor")
    told = [f"others submit in the next day {coming}"] if coming else []
    if not forecaster.arrivals.known:
        told.append("later jobs are taken to wait as long as one submitted now")
    return told + demand_reasons(forecaster.arrivals, demand)


def _said(queue: Queue | None) -> list[str]:
    if queue is None:
        return ["nothing is known of the queue (no snapshot, no history): every job is taken to start at once"]
    if not queue.present:
        return ["the present queue is not known: waits are those of ordinary moments of the history"]
    if queue.snapshot.history or not queue.snapshot.limit_use:
        return []
    return [f"jobs use their limits as {queue.snapshot.limit_source or 'given'} says"]
