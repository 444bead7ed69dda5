"""Time to solution: which nodes, partition, QoS and length of job get a training done first, the queue included.

All ways to ask are gone through a few futures of the queue, and those that can still win through more
(:mod:`.finish_race`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hpcplan.cost.money import money
from hpcplan.errors import InfeasibleError, InputError
from hpcplan.plan import Plan
from hpcplan.schedule.finish_option import Candidate, Option, candidate, longest_s, places, shorter_s, sizes
from hpcplan.schedule.finish_queue import KnownQueue, Queue
from hpcplan.schedule.finish_race import Criterion, Race, level_of
from hpcplan.schedule.finish_words import why
from hpcplan.schedule.planner import Planned
from hpcplan.schedule.workers import Workers
from hpcplan.units import format_duration

if TYPE_CHECKING:
    from hpcplan.site.load import LoadedSite
    from hpcplan.site.model import Site
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["Criterion", "FinishPlan", "Option", "Queue", "Stand", "plan_for_finish"]

_HOPELESS: Final = 2.0  # sizes that train this many times as long as another takes, waits and all, are passed over


@dataclass(frozen=True, slots=True)
class Stand:
    """How a search stands: ways gone through, how many of all there may be, and the way to ask that leads."""

    done: int
    most: int
    leader: Candidate | None

    @property
    def best(self) -> str:
        """What is told of the leader; nothing as long as there is none."""
        if self.leader is None:
            return ""
        return f"{self.leader.nodes} nodes, done after {format_duration(self.leader.quantile_s(0.5))}"


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
            "best": self.best.as_dict(self.now_s, self.best),
            "options": [option.as_dict(self.now_s, self.best) for option in self.options],
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
    processes: int = 1,
    each: Callable[[Stand], None] = lambda stand: None,
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
        processes: that may share the work where it is long; the answer is the same with any number.
        each: told how the search stands, again and again.
        how: passed to :func:`~hpcplan.schedule.planner.make_plan`.

    Raises:
        InputError: the request contradicts the site, or ``cost`` is asked for where the site has no prices.
        InfeasibleError: nothing satisfies it.
    """
    workload = loaded.workload
    request = workload.request.model_copy(update={"deadline_s": None})
    loaded = dataclasses.replace(loaded, workload=workload.model_copy(update={"request": request}))
    if criterion == "cost":
        _need_prices(loaded, site.site)
    known = KnownQueue(queue, site.site, seed)
    with Workers(known, processes if known.costly else 1) as workers:
        race = Race(known, criterion, deadline_s, workers, lambda: each(_stand(race, known)))
        failures = _enter(race, loaded, site, known, nodes, how)
        if not race.candidates and deadline_s is not None and not failures:
            raise InfeasibleError(f"the deadline binds: no number of nodes trains within {format_duration(deadline_s)}")
        if not race.candidates:
            raise failures[0] if failures else InfeasibleError("no number of nodes can be asked for")
        race.go_on()
    contenders = [one.option() for one in race.running]
    options = contenders + [one.option() for one in race.candidates if one not in race.running]
    best = _best(contenders, options, criterion, deadline_s)
    sentence = why(best, options, known.now_s, criterion, deadline_s)
    search = best.planned.plan.search.model_copy(update={"objective": "finish", "why": sentence})
    plan = best.planned.plan.model_copy(update={"search": search})
    planned = dataclasses.replace(
        best.planned, plan=plan, notes=(*best.planned.notes, *known.notes, *_assumed(site.site, plan))
    )
    ordered = tuple(sorted(options, key=lambda one: (one.partition, one.qos or "", one.nodes, -one.limit_s)))
    return FinishPlan(planned, best, ordered, criterion, known.now_s)


def _need_prices(loaded: LoadedWorkload, site: Site) -> None:
    """Refuse to look for the cheapest among nodes of which some have no price."""
    asked = {name for name, _ in places(loaded, site) if name in site.partitions}
    groups = {group for name in asked for group in site.partitions[name].nodes}
    missing = sorted(
        group
        for group in groups
        if site.node_groups[group].accelerators is not None and money(site, group, 1.0) is None
    )
    if missing:
        raise InputError(
            f"site {site.name!r} has no price of {', '.join(missing)} to tell what is cheapest by",
            hint="price_per_hour of the node group, or the site's price of energy and the group's power",
        )


def _enter(
    race: Race, loaded: LoadedWorkload, site: LoadedSite, known: KnownQueue, nodes: tuple[int, int] | None,
    how: dict[str, Any],
) -> list[InfeasibleError]:  # fmt: skip
    """Enter the ways to ask that may win, those of most nodes first; return why others cannot be had."""
    failures: list[InfeasibleError] = []
    for place in places(loaded, site.site):
        for count in reversed(sizes(loaded, site.site, place[0], nodes)):
            try:
                one = candidate(loaded, site, known, place, count, longest_s(loaded, site.site, *place), how)
            except InfeasibleError as error:
                failures.append(error)
                continue
            if one.planned.plan.training.time_to_train_s <= race.worth_looking_at_s(_HOPELESS):
                race.enter(one)
    race.drop()
    for one in list(race.running) if known.queue is not None else ():
        limit_s = shorter_s(loaded, site.site, one)
        if limit_s is None:
            continue
        try:
            shorter = candidate(loaded, site, known, (one.partition, one.qos), one.nodes, limit_s, how)
        except InfeasibleError:
            continue
        if len(shorter.planned.plan.segments) != len(one.planned.plan.segments):  # else the same jobs again
            race.enter(shorter)
    return failures


def _stand(race: Race, known: KnownQueue) -> Stand:
    rounds = known.rounds
    others = sum(max(len(one.ways), rounds[-2] if one in race.running else 0) for one in race.candidates)
    most = max(race.done, others + rounds[-1] - rounds[-2])
    return Stand(race.done, most, race.leading)


def _best(
    contenders: Sequence[Option], options: Sequence[Option], criterion: Criterion, deadline_s: float | None
) -> Option:
    """Return the option that the criterion picks; ties go to fewer nodes."""
    chosen = list(contenders)
    if deadline_s is not None:
        chosen = [one for one in contenders if one.finish.quantile_s(0.9) <= deadline_s]
        if not chosen:
            soonest = min(options, key=lambda one: one.finish.quantile_s(0.9))
            raise InfeasibleError(
                f"the deadline binds: of all ways to ask, {soonest.nodes} nodes are surest to be done soon, and are "
                f"done in {format_duration(soonest.finish.quantile_s(0.9))} (P90); the deadline is "
                f"{format_duration(deadline_s)}"
            )
    if criterion == "cost":
        return min(chosen, key=lambda one: (one.cost or 0.0, one.finish.quantile_s(0.9), one.nodes))
    level = level_of(criterion)
    return min(chosen, key=lambda one: (one.finish.quantile_s(level), one.nodes, -one.limit_s))


def _assumed(site: Site, plan: Plan) -> list[str]:
    group = plan.placement.node_group
    if site.node_groups[group].mtbf_s is None:
        return [f"node group {group!r} has no mtbf: its nodes are taken not to fail"]
    return []
