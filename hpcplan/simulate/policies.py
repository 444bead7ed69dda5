"""Scheduling policies: which of the queued jobs start now, and where. They see a state and change nothing.

- ``fcfs``: strictly in order; a job that does not fit holds up its partition (Slurm's ``sched/builtin``).
- ``easy``: EASY backfilling (Lifka, *The ANL/IBM SP Scheduling System*, JSSPP 1995; Mu'alem & Feitelson, IEEE TPDS
  12(6), 2001): a reservation for the head of each partition's queue; a later job starts if it delays no reservation.
- ``backfill``: like Slurm's ``sched/backfill``: a reservation for every job that is looked at (slurm.conf(5),
  ``SchedulerParameters``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from hpcplan.errors import InputError, nearest
from hpcplan.simulate.het_jobs import earliest_together, fit_together, groups_of
from hpcplan.simulate.profile import Profile, Slot, choose
from hpcplan.simulate.several_partitions import requests_of

if TYPE_CHECKING:
    from hpcplan.simulate.jobs import Job, Request

__all__ = ["POLICIES", "Backfill", "ClusterView", "Decision", "Fcfs", "Policy", "Start", "policy_named"]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What a policy may see: node masks, what runs as (end by time limit, nodes), and each partition's nodes.

    ``het_jobs`` is whether there may be heterogeneous jobs, whose components start together.
    """

    now: int
    free: int
    available: int
    running: Sequence[tuple[int, int]]
    partitions: dict[str, int]
    het_jobs: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """A job that starts now on these nodes; ``backfilled`` if it overtook one that waits."""

    job: Job
    nodes: int
    backfilled: bool


@dataclass(slots=True)
class Decision:
    """What a scheduling pass came to. ``reservations`` are by job id, and only those that the pass needed."""

    starts: list[Start] = field(default_factory=list)
    reservations: dict[int, Slot] = field(default_factory=dict)


class Policy(Protocol):
    """A scheduling policy: a pure function of the queue (in its order) and the cluster."""

    def decide(self, queue: Sequence[Job], view: ClusterView) -> Decision:
        """Return the jobs to start now."""
        ...


@dataclass(frozen=True, slots=True)
class Fcfs:
    """First come, first served, partition by partition."""

    def decide(self, queue: Sequence[Job], view: ClusterView) -> Decision:
        """Start jobs in order until the first that does not fit; that one holds up its partition's nodes.

        A job that could not start even on an empty machine, because its nodes are down, holds up nobody.
        """
        decision = Decision()
        usable = view.free
        groups = groups_of(queue) if view.het_jobs else {}
        for job in queue:
            if not usable:
                break
            if job.het_id is not None:
                usable = self._start_together(decision, groups.pop(job.het_id, ()), view, usable)
                continue
            request, nodes = _first_that_fits(job, usable)
            if nodes:
                decision.starts.append(Start(_within(job, request), nodes, backfilled=False))
                usable &= ~nodes
                continue
            for one in requests_of(job.request):
                if choose(one, view.available):
                    usable &= ~view.partitions[one.partition]
        return decision

    def _start_together(self, decision: Decision, members: Sequence[Job], view: ClusterView, usable: int) -> int:
        """Start the components of a job if all fit, and return the nodes that are left to those behind it."""
        found = fit_together(members, lambda _: usable, choose)
        if found is not None:
            for job in members:
                decision.starts.append(Start(job, found[job.id], backfilled=False))
                usable &= ~found[job.id]
        elif fit_together(members, lambda _: view.available, choose):
            for job in members:
                usable &= ~view.partitions[job.request.partition]
        return usable


@dataclass(frozen=True, slots=True)
class Backfill:
    """Backfilling with reservations, under the names that slurm.conf(5) gives its parameters.

    ``bf_job_part_count_reserve`` is how many waiting jobs of each partition get a reservation, 0 for all: 1 is EASY.
    ``bf_window_s`` is how far ahead reservations are made, ``None`` for any distance; ``bf_max_job_test`` how many jobs
    a pass looks at. ``spread`` plans reservations on nodes that are busy now, which leaves most to backfill.
    """

    bf_job_part_count_reserve: int = 0
    bf_window_s: int | None = None
    bf_max_job_test: int | None = None
    spread: bool = False

    def decide(self, queue: Sequence[Job], view: ClusterView) -> Decision:
        """Start what fits in order, reserve for what does not, and start later jobs that delay no reservation."""
        return self._plan(queue, view, whole_queue=False)

    def plan(self, queue: Sequence[Job], view: ClusterView) -> Decision:
        """Return the same decision with the reservation of every job that has one, for ``squeue --start``."""
        return self._plan(queue, view, whole_queue=True)

    def _plan(self, queue: Sequence[Job], view: ClusterView, *, whole_queue: bool) -> Decision:
        tested = queue if self.bf_max_job_test is None else queue[: self.bf_max_job_test]
        pass_ = _Pass(self, view)
        last = len(tested) - 1
        groups = groups_of(tested) if view.het_jobs else {}
        for position, job in enumerate(tested):
            if position > last:
                break
            if job.het_id is not None:
                pass_.plan_together(groups.pop(job.het_id, ()))
                continue
            if pass_.start(job) or not pass_.may_reserve(job):
                continue
            if not whole_queue:
                last = _last_that_fits(tested, position, last, pass_.free)
                if position >= last:
                    break
            pass_.reserve(job)
        return pass_.decision


class _Pass:
    """One scheduling pass: what is still free, what has been decided, and what is reserved."""

    def __init__(self, policy: Backfill, view: ClusterView) -> None:
        self.policy = policy
        self.view = view
        self.free = view.free
        self.decision = Decision()
        self.calendar = _Calendar()
        self.reserved: dict[str, int] = {}
        self._profile: Profile | None = None

    def start(self, job: Job) -> bool:
        """Start a job now if that delays no reservation."""
        now, limit_s = self.view.now, job.request.limit_s
        request, nodes = _first_that_fits(job, self.free & ~self.calendar.taken_before(now + limit_s))
        if not nodes:
            return False
        self.decision.starts.append(Start(_within(job, request), nodes, backfilled=bool(self.decision.reservations)))
        self.free &= ~nodes
        if self._profile is not None:
            self._profile.take(Slot(now, now + limit_s, nodes))
        return True

    def may_reserve(self, job: Job) -> bool:
        """Whether the job's partition has reservations left."""
        most = self.policy.bf_job_part_count_reserve
        return not most or self.reserved.get(job.request.partition, 0) < most

    def reserve(self, job: Job) -> None:
        """Reserve for a job that has to wait, as early as can be, if that is within the window."""
        if self._profile is None:
            self._profile = self._make_profile()
        spare = self.view.free if self.policy.spread else 0
        slot = self._profile.earliest(job.request, spare)
        for one in job.request.alternatives:
            other = self._profile.earliest(one, spare)
            if slot is None or (other is not None and other.start < slot.start):
                slot = other
        window_s = self.policy.bf_window_s
        if slot is None or (window_s is not None and slot.start > self.view.now + window_s):
            return
        self._keep(job, slot)
        self._profile.take(slot)

    def plan_together(self, members: Sequence[Job]) -> None:
        """Start the components of a heterogeneous job now if that delays no reservation, else reserve for them."""
        now = self.view.now
        free = {job.id: self.free & ~self.calendar.taken_before(now + job.request.limit_s) for job in members}
        found = fit_together(members, lambda job: free[job.id], choose)
        if self._profile is None:
            self._profile = self._make_profile()
        backfilled = bool(self.decision.reservations)
        if found is not None:
            for job in members:
                self.decision.starts.append(Start(job, found[job.id], backfilled))
                self.free &= ~found[job.id]
                self._profile.take(Slot(now, now + job.request.limit_s, found[job.id]))
            return
        if not all(self.may_reserve(job) for job in members):
            return
        planned = earliest_together(self._profile, members)
        window_s = self.policy.bf_window_s
        if planned is None or (window_s is not None and planned[1] > now + window_s):
            return
        self._profile = planned[0]
        for job, slot in zip(members, planned[2], strict=True):
            self._keep(job, slot)

    def _keep(self, job: Job, slot: Slot) -> None:
        partition = job.request.partition
        self.reserved[partition] = self.reserved.get(partition, 0) + 1
        self.decision.reservations[job.id] = slot
        self.calendar.add(slot)

    def _make_profile(self) -> Profile:
        now = self.view.now
        started = [(now + start.job.request.limit_s, start.nodes) for start in self.decision.starts]
        return Profile(now, self.free, self.view.available, [*self.view.running, *started])


class _Calendar:
    """Reservations by start, each with the union of all nodes reserved up to it."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.unions: list[int] = []

    def add(self, slot: Slot) -> None:
        position = bisect_left(self.starts, slot.start)
        self.starts.insert(position, slot.start)
        self.unions.insert(position, self.unions[position - 1] if position else 0)
        for later in range(position, len(self.unions)):
            self.unions[later] |= slot.nodes

    def taken_before(self, time: int) -> int:
        """Return the nodes of all reservations that begin before ``time``."""
        position = bisect_left(self.starts, time)
        return self.unions[position - 1] if position else 0


def _last_that_fits(queue: Sequence[Job], after: int, last: int, free: int) -> int:
    """Return the last job that the free nodes would hold, reservations aside: nothing beyond it can start now."""
    if free:
        for position in range(last, after, -1):
            if _first_that_fits(queue[position], free)[1]:
                return position
    return after


def _first_that_fits(job: Job, mask: int) -> tuple[Request, int]:
    """Return the nodes that a job would be given, 0 if none, and its request for the partition that they are of."""
    request = job.request
    nodes = choose(request, mask)
    if nodes or not request.alternatives:
        return request, nodes
    for one in request.alternatives:
        if nodes := choose(one, mask):
            return one, nodes
    return request, 0


def _within(job: Job, request: Request) -> Job:
    """Return the job as it is seen in one of its partitions."""
    return job if request is job.request else replace(job, request=request)


EASY: Final = Backfill(bf_job_part_count_reserve=1, spread=True)
POLICIES: Final[dict[str, Policy]] = {"fcfs": Fcfs(), "easy": EASY, "backfill": Backfill()}


def policy_named(name: str, *, bf_window_s: int | None = None, bf_max_job_test: int | None = None) -> Policy:
    """Return the policy of that name; the limits apply to ``backfill`` alone.

    Raises:
        InputError: no policy has that name.
    """
    if name not in POLICIES:
        raise InputError(f"no policy is called {name!r}" + nearest(name, POLICIES))
    if name == "backfill":
        return Backfill(bf_window_s=bf_window_s, bf_max_job_test=bf_max_job_test)
    return POLICIES[name]
