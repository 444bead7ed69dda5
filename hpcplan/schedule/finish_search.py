"""Time to solution: which nodes, partition, QoS and length of job get a training done first, the queue included."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from hpcplan.cost.money import money
from hpcplan.errors import InfeasibleError, InputError
from hpcplan.plan import Plan
from hpcplan.schedule.chain import mean_time_to_failure_s
from hpcplan.schedule.chain_waits import ChainWaits, drawn_waits
from hpcplan.schedule.checkpoint import write_time_s
from hpcplan.schedule.finish import Chain, Finish, Wait, simulate_chain
from hpcplan.schedule.forecast.answer import from_history_alone
from hpcplan.schedule.forecast.snapshot import QueueJob, QueueSnapshot
from hpcplan.schedule.forecast.wait import Forecaster
from hpcplan.schedule.planner import Planned, make_plan
from hpcplan.units import format_duration

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.site.load import LoadedSite
    from hpcplan.site.model import Site
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["Criterion", "FinishPlan", "Option", "Queue", "plan_for_finish"]

Criterion = Literal["p50", "p90", "cost"]
_MOST_SIZES: Final = 8  # node counts that are looked at
_HOPELESS: Final = 2.5  # sizes that train this many times as long as another takes, waits and all, are passed over
_WORSE: Final = 1.2  # sizes that finish this much later than another are not tried with shorter jobs
_LENGTHS: Final = (1.0, 0.5)  # of the walltime limit: shorter jobs fit into holes, and wait more often
_SHORTEST_S: Final = 4 * 3600  # jobs are not cut below this
_CHAINS: Final = 1000  # simulated for each option, where waits are drawn each for itself
_FUTURES: Final = (200, 24)  # of the queue, each gone through by one chain, on a pool and on a cluster
_WAITS: Final = (120, 30)  # drawn for each kind of job, on a pool and on a cluster, where they take longer


@dataclass(frozen=True, slots=True)
class Queue:
    """What is known of the queue: a snapshot with its history, where the present is (not) to be counted on."""

    snapshot: QueueSnapshot
    present: bool = True


@dataclass(frozen=True, slots=True)
class Option:
    """One way to ask: its plan, how it goes, and what it costs at the median."""

    planned: Planned
    partition: str
    qos: str | None
    nodes: int
    limit_s: int
    first_waits_s: NDArray[np.int64]
    finish: Finish
    cost: float | None

    def as_dict(self, now_s: int | None) -> dict[str, Any]:
        """Return plain data for JSON; times are seconds from now."""
        finish = {f"p{level}": _rounded(self.finish.quantile_s(level / 100)) for level in (10, 50, 90)}
        return {
            "nodes": self.nodes, "partition": self.partition, "qos": self.qos, "time_limit_s": self.limit_s,
            "jobs": len(self.planned.plan.segments),
            "first_wait_s": {f"p{level}": _share(self.first_waits_s, level) for level in (50, 90)},
            "waited_s": round(float(np.median(self.finish.waited_s))),
            "held_s": round(float(np.median(self.finish.held_s))),
            "lost_s": round(float(np.mean(self.finish.lost_s))),
            "finish_s": finish,
            "finish": None if now_s is None else {k: None if v is None else now_s + v for k, v in finish.items()},
            "cost": self.cost,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class FinishPlan:
    """The option chosen, all that were looked at (in the order of nodes), and a sentence that says why."""

    planned: Planned
    best: Option
    options: tuple[Option, ...]
    criterion: Criterion
    now_s: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, with the trade-off under ``finish``."""
        data = self.planned.as_dict()
        data["finish"] = {
            "criterion": self.criterion,
            "now": self.now_s,
            "best": self.best.as_dict(self.now_s),
            "options": [option.as_dict(self.now_s) for option in self.options],
        }
        return data


def plan_for_finish(
    loaded: LoadedWorkload,
    site: LoadedSite,
    queue: Queue | None,
    *,
    nodes: tuple[int, int] | None = None,
    criterion: Criterion = "p50",
    deadline_s: float | None = None,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
    **how: Any,
) -> FinishPlan:
    """Return the plan that is done first, or that is cheapest among those done by a deadline.

    Args:
        loaded: the workload.
        site: the site.
        queue: what is known of its queue; with nothing, no waits are assumed, and the plan's notes say so.
        nodes: least and most nodes; else what the workload or the partition says.
        criterion: ``p50`` or ``p90`` (the least of that quantile of the finish), or ``cost``.
        deadline_s: seconds from now by which nine of ten ways must be done.
        seed: of the random numbers.
        each: called after each option.
        how: passed to :func:`~hpcplan.schedule.planner.make_plan`.

    Raises:
        InputError: the request contradicts the site, or ``cost`` is asked for where the site has no prices.
        InfeasibleError: nothing satisfies it.
    """
    workload = loaded.workload
    request = workload.request.model_copy(update={"deadline_s": None})
    loaded = dataclasses.replace(loaded, workload=workload.model_copy(update={"request": request}))
    waits = _Waits(queue, site.site, seed)
    options: list[Option] = []
    failures: list[InfeasibleError] = []
    for partition, qos in _places(loaded, site.site):
        for count in reversed(_sizes(loaded, site.site, partition, nodes)):
            try:
                within_s = _worth_looking_at_s(options, criterion, deadline_s)
                options += _options(loaded, site, partition, qos, count, waits, seed, how, within_s)
            except InfeasibleError as error:
                failures.append(error)
            each()
    if not options and deadline_s is not None and not failures:
        raise InfeasibleError(f"the deadline binds: no number of nodes trains within {format_duration(deadline_s)}")
    if not options:
        raise failures[0] if failures else InfeasibleError("no number of nodes can be asked for")
    best = _best(options, criterion, deadline_s)
    why = _why(best, options, waits.now_s, criterion, deadline_s)
    search = best.planned.plan.search.model_copy(update={"objective": "finish", "why": why})
    plan = best.planned.plan.model_copy(update={"search": search})
    planned = dataclasses.replace(
        best.planned, plan=plan, notes=(*best.planned.notes, *waits.notes, *_assumed(site.site, plan))
    )
    ordered = tuple(sorted(options, key=lambda one: (one.partition, one.qos or "", one.nodes, -one.limit_s)))
    return FinishPlan(planned, best, ordered, criterion, waits.now_s)


def _worth_looking_at_s(options: Sequence[Option], criterion: Criterion, deadline_s: float | None) -> float:
    """Return the time to train beyond which a size cannot be chosen, nor tell anybody much."""
    if criterion == "cost":
        return math.inf if deadline_s is None else deadline_s
    return _HOPELESS * min((one.finish.quantile_s(0.5) for one in options), default=math.inf)


def _places(loaded: LoadedWorkload, site: Site) -> list[tuple[str, str | None]]:
    """Return the partitions and QoS to look at: those asked for, else all with accelerators."""
    request, launch = loaded.workload.request, loaded.workload.launch
    if request.partition is not None:
        names = [request.partition]
    else:
        names = [
            name
            for name, part in site.partitions.items()
            if part.state == "up" and any(site.node_groups[group].accelerators is not None for group in part.nodes)
        ]
    found: list[tuple[str, str | None]] = []
    for name in names:
        part = site.partitions.get(name)
        allowed = part.qos if part is not None else ()
        wanted = (launch.qos,) if launch.qos else tuple(one for one in allowed if one in site.qos) or (site.slurm.qos,)
        found += [(name, qos) for qos in wanted]
    return found


def _sizes(loaded: LoadedWorkload, site: Site, partition: str, asked: tuple[int, int] | None) -> list[int]:
    """Return node counts to look at: powers of two and the ends of the range."""
    part = site.partitions.get(partition)
    if part is None:
        return [1]  # make_plan will say what is wrong
    available = max((len(site.node_groups[group].hostnames()) for group in part.nodes), default=1)
    low, high = asked or loaded.workload.request.nodes or (1, available)
    high = min(high, available, part.max_nodes or available)
    low = min(low, high)
    sizes = sorted({low, high, *(2**power for power in range(20) if low < 2**power < high)})
    return (
        sizes
        if len(sizes) <= _MOST_SIZES
        else [sizes[i * (len(sizes) - 1) // (_MOST_SIZES - 1)] for i in range(_MOST_SIZES)]
    )


def _options(
    loaded: LoadedWorkload, site: LoadedSite, partition: str, qos: str | None, count: int, waits: _Waits, seed: int,
    how: dict[str, Any], within_s: float,
) -> list[Option]:  # fmt: skip
    """Return the options of one size: with jobs as long as allowed, and with shorter ones where there is a queue."""
    found: list[Option] = []
    limits = [loaded.workload.request.walltime_s, site.site.partitions[partition].max_time_s]
    limits += [site.site.qos[qos].max_time_s] if qos in site.site.qos and qos is not None else []
    most_s = min((limit for limit in limits if limit is not None), default=None)
    for length in _LENGTHS if waits.known and most_s is not None else (1.0,):
        if length < 1 and (most_s is None or most_s * length < _SHORTEST_S):
            continue
        if found and found[-1].finish.quantile_s(0.5) > _WORSE / _HOPELESS * within_s:
            break
        update: dict[str, Any] = {"partition": partition}
        if most_s is not None:
            update["walltime_s"] = math.floor(most_s * length / 60) * 60
        request = loaded.workload.request.model_copy(update=update)
        launch = loaded.workload.launch.model_copy(update={"qos": qos})
        asked = loaded.workload.model_copy(update={"request": request, "launch": launch})
        planned = make_plan(dataclasses.replace(loaded, workload=asked), site, nodes=(count, count), **how)
        plan = planned.plan
        if plan.training.time_to_train_s > within_s:
            break
        if found and len(plan.segments) == len(found[-1].planned.plan.segments):
            continue  # the run is short: the same jobs again
        limit_s = max(segment.time_limit_s for segment in plan.segments)
        chain = _chain(loaded, site.site, plan, waits, qos)
        random = np.random.default_rng((seed, count, limit_s))
        finish, first = waits.simulated(chain, plan, qos, limit_s, random)
        hours = float(np.median(finish.held_s)) / 3600 * plan.plan.nodes
        cost = money(site.site, plan.placement.node_group, hours)
        found.append(
            Option(
                planned,
                partition,
                qos,
                plan.plan.nodes,
                limit_s,
                first,
                finish,
                None if cost is None else round(cost, 2),
            )
        )
    return found


def _chain(loaded: LoadedWorkload, site: Site, plan: Plan, waits: _Waits, qos: str | None) -> Chain:
    group, count = plan.placement.node_group, plan.plan.nodes
    mean_s = mean_time_to_failure_s(site, {group: count})
    return Chain(
        segments=plan.segments,
        step_s=plan.estimate.iter_time_s,
        step_high_s=max(plan.estimate.high, plan.estimate.iter_time_s),
        steps_between_checkpoints=plan.training.checkpoint_interval_steps,
        write_s=write_time_s(site, loaded.workload.model),
        failure_rate_per_s=0.0 if mean_s is None else 1 / mean_s,
        preemption_rate_per_s=waits.preemption_rate_per_s(plan.placement.partition, qos),
    )


class _Waits:
    """Waits of a job submitted now, and of one submitted some time, by what it asks for."""

    def __init__(self, queue: Queue | None, site: Site, seed: int) -> None:
        self.queue = queue
        self.site = site
        self.seed = seed
        self.known = queue is not None
        self.now_s = queue.snapshot.now_s if queue is not None and queue.present else None
        history = queue.snapshot.history if queue is not None else ()
        self._forecaster = Forecaster(history, seed=seed, limit_use=None if queue is None else queue.snapshot.limit_use)
        self._usual = bool(history)
        self._seen: dict[tuple[object, ...], NDArray[np.int64]] = {}
        self._drawn: ChainWaits | None = None
        self.notes = tuple(self._said())

    def _said(self) -> list[str]:
        if self.queue is None:
            return ["nothing is known of the queue (no snapshot, no history): every job is taken to start at once"]
        if not self.queue.present:
            return ["the present queue is not known: waits are those of ordinary moments of the history"]
        if not self._usual:
            said = ["there is no history: later jobs are taken to wait as long as one submitted now"]
            if self.queue.snapshot.limit_use:
                said.append(f"jobs use their limits as {self.queue.snapshot.limit_source or 'given'} says")
            return said
        return []

    def simulated(
        self, chain: Chain, plan: Plan, qos: str | None, limit_s: int, random: np.random.Generator
    ) -> tuple[Finish, NDArray[np.int64]]:
        """Return how the chain of a plan goes, and the waits of its first job in seconds."""
        if self.queue is None:
            none = np.zeros(1, dtype=np.int64)
            return simulate_chain(
                chain, lambda _: drawn_waits(none, none, random), samples=_CHAINS, random=random
            ), none
        snapshot = self.queue.snapshot
        width, partition = plan.plan.nodes, plan.placement.partition
        if snapshot.procs is not None:
            width, partition = self._share_of_pool(plan), ""
        job = QueueJob(
            label="chain", width=width, limit_s=limit_s, submit_s=snapshot.now_s, partition=partition or None,
            priority=self._priority(qos),
        )  # fmt: skip
        try:
            return self._in_queue(chain, job, random)
        except InputError as error:
            raise InfeasibleError(f"{job.width} nodes: {error.message}") from None

    def _in_queue(self, chain: Chain, job: QueueJob, random: np.random.Generator) -> tuple[Finish, NDArray[np.int64]]:
        assert self.queue is not None
        snapshot = self.queue.snapshot
        usual: NDArray[np.int64] | None = None
        if self._usual:
            key = (job.width, job.partition, job.limit_s)
            if key not in self._seen:
                count = _WAITS[snapshot.procs is None]
                self._seen[key] = from_history_alone(snapshot, [job], samples=count, seed=self.seed)[0].waits_s
            usual = self._seen[key]
        if not self.queue.present:
            assert usual is not None
            waits = drawn_waits(usual, usual, random)
            return simulate_chain(chain, lambda _: waits, samples=_CHAINS, random=random), usual
        futures = self._futures()
        futures.check(job)
        firsts: list[float] = []

        def wait_in(number: int) -> Wait:
            later = usual if usual is not None else firsts or [0.0]
            inner = futures.wait_in(number, job, later, random)

            def wait(submit_s: float, held_s: float) -> float:
                found = inner(submit_s, held_s)
                if submit_s <= 0:
                    firsts.append(found)
                return found

            return wait

        finish = simulate_chain(chain, wait_in, samples=futures.count, random=random)
        return finish, np.array(firsts, dtype=np.int64)

    def _futures(self) -> ChainWaits:
        assert self.queue is not None
        if self._drawn is None:
            snapshot = self.queue.snapshot
            self._drawn = ChainWaits(snapshot, self._forecaster, futures=_FUTURES[snapshot.procs is None])
        return self._drawn

    def _share_of_pool(self, plan: Plan) -> int:
        """Return how many of a pool's processors the plan's nodes are; those of a trace are nodes."""
        assert self.queue is not None
        assert self.queue.snapshot.procs is not None
        total = sum(len(group.hostnames()) for group in self.site.node_groups.values())
        each = max(1, round(self.queue.snapshot.procs / total)) if self.queue.present else 1
        return plan.plan.nodes * each

    def _priority(self, qos: str | None) -> int:
        """Return a priority above the waiting jobs of lower QoS, 0 (last) where that is not known."""
        assert self.queue is not None
        if qos is None or qos not in self.site.qos:
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


def _best(options: Sequence[Option], criterion: Criterion, deadline_s: float | None) -> Option:
    """Return the option that the criterion picks; ties go to fewer nodes."""
    chosen = list(options)
    if deadline_s is not None:
        chosen = [one for one in options if one.finish.quantile_s(0.9) <= deadline_s]
        if not chosen:
            soonest = min(options, key=lambda one: one.finish.quantile_s(0.9))
            raise InfeasibleError(
                f"the deadline binds: of all ways to ask, {soonest.nodes} nodes are surest to be done soon, and are "
                f"done in {format_duration(soonest.finish.quantile_s(0.9))} (P90); the deadline is "
                f"{format_duration(deadline_s)}"
            )
    if criterion == "cost":
        if any(one.cost is None for one in chosen):
            raise InputError(
                "the site has no prices to tell what is cheapest by", hint="price_per_hour of its node groups"
            )
        return min(chosen, key=lambda one: (one.cost or 0.0, one.finish.quantile_s(0.9), one.nodes))
    level = 0.5 if criterion == "p50" else 0.9
    return min(chosen, key=lambda one: (one.finish.quantile_s(level), one.nodes, -one.limit_s))


def _why(
    best: Option, options: Sequence[Option], now_s: int | None, criterion: Criterion, deadline_s: float | None
) -> str:
    """Return one sentence: when the chosen nodes start and are done, and what the most telling other would do."""
    wait = _about(float(np.median(best.first_waits_s)))
    said = (
        f"{_nodes(best.nodes)} start {wait} and finish {_when(best.finish.quantile_s(0.5), now_s)} "
        f"(P90 {_when(best.finish.quantile_s(0.9), now_s)})"
    )
    if criterion == "cost" and best.cost is not None:
        within = f" that are done within {format_duration(deadline_s)}" if deadline_s is not None else ""
        said += f", for the least money of all{within}"
    others = [one for one in options if one.nodes != best.nodes]
    if not others:
        return said
    level = 0.9 if criterion == "p90" else 0.5
    wider = [one for one in others if one.nodes > best.nodes] or others
    other = min(wider, key=lambda one: one.finish.quantile_s(level))
    waits_s, finish_s = float(np.median(other.first_waits_s)), other.finish.quantile_s(level)
    if waits_s > 2 * float(np.median(best.first_waits_s)) + 60:
        return (
            f"{said}; {_nodes(other.nodes)} would wait {_about(waits_s, prefix='')} and finish {_when(finish_s, now_s)}"
        )
    return f"{said}; {_nodes(other.nodes)} would finish {_when(finish_s, now_s)}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _about(seconds: float, prefix: str = "in ") -> str:
    return (f"{prefix}~{format_duration(seconds)}") if seconds >= 60 else ("at once" if prefix else "not at all")


def _when(seconds: float, now_s: int | None) -> str:
    """Return ``by Tue 09:00`` where the present is a date, else ``after 3 d``."""
    if not math.isfinite(seconds):
        return "never"
    if now_s is None or now_s < 10**9 // 2:
        return f"after {format_duration(seconds)}"
    return datetime.fromtimestamp(now_s + seconds, UTC).strftime("by %a %d %b %H:%M UTC")


def _assumed(site: Site, plan: Plan) -> list[str]:
    group = plan.placement.node_group
    if site.node_groups[group].mtbf_s is None:
        return [f"node group {group!r} has no mtbf: its nodes are taken not to fail"]
    return []


def _share(waits_s: NDArray[np.int64], level: int) -> int:
    return round(float(np.quantile(waits_s, level / 100)))


def _rounded(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None
