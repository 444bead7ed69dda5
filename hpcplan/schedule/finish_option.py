"""The ways to ask that a search of the earliest finish looks at: places, sizes and lengths of jobs, and their plans."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hpcplan.cost.money import money
from hpcplan.plan import Plan
from hpcplan.schedule.chain import mean_time_to_failure_s
from hpcplan.schedule.checkpoint import write_time_s
from hpcplan.schedule.finish import Chain, Finish, Way
from hpcplan.schedule.finish_queue import Entrant, KnownQueue
from hpcplan.schedule.planner import Planned, make_plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpcplan.site.load import LoadedSite
    from hpcplan.site.model import Site
    from hpcplan.workload.load import LoadedWorkload

__all__ = ["Candidate", "Option", "candidate", "longest_s", "places", "shorter_s", "sizes"]

_MOST_SIZES: Final = 8  # node counts that are looked at
_SHORTER: Final = 0.5  # of the walltime limit: shorter jobs fit into holes, and wait more often
_SHORTEST_S: Final = 4 * 3600  # jobs are not cut below this


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

    def as_dict(self, now_s: int | None, best: Option) -> dict[str, Any]:
        """Return plain data for JSON; times are seconds from now, ``later`` is a share of the best one's."""
        later = self.finish.later_than(best.finish)
        finish = {f"p{level}": _rounded(self.finish.quantile_s(level / 100)) for level in (10, 50, 90)}
        return {
            "nodes": self.nodes, "partition": self.partition, "qos": self.qos, "time_limit_s": self.limit_s,
            "jobs": len(self.planned.plan.segments), "futures": len(self.finish.finish_s),
            "first_wait_s": {f"p{level}": round(_share(self.first_waits_s, level)) for level in (50, 90)},
            "waited_s": round(float(np.median(self.finish.waited_s))),
            "held_s": round(float(np.median(self.finish.held_s))),
            "lost_s": round(float(np.mean(self.finish.lost_s))),
            "finish_s": finish,
            "finish": None if now_s is None else {k: None if v is None else now_s + v for k, v in finish.items()},
            "later": round(later, 4) if math.isfinite(later) else None,
            "cost": self.cost,
        }  # fmt: skip


@dataclass(slots=True)
class Candidate:
    """A way to ask in the making: its plan, and the ways in which it went so far, one for each future."""

    planned: Planned
    partition: str
    qos: str | None
    limit_s: int
    entrant: Entrant
    site: Site
    ways: list[Way] = dataclasses.field(default_factory=list)
    firsts_s: list[float] = dataclasses.field(default_factory=list)
    cap_s: float = math.inf

    @property
    def nodes(self) -> int:
        """How many nodes each job asks for."""
        return self.planned.plan.plan.nodes

    def finish_s(self) -> NDArray[np.float64]:
        """Return when each way was done, in seconds from now, in the order of futures."""
        return np.array([way[0] for way in self.ways], dtype=np.float64)

    def quantile_s(self, share: float) -> float:
        """Return the time within which ``share`` of the ways are done."""
        return Finish.of(self.ways).quantile_s(share)

    def cost(self) -> float | None:
        """Return what it costs at the median, ``None`` where the site has no prices."""
        hours = float(np.median([way[2] for way in self.ways])) / 3600 * self.nodes
        found = money(self.site, self.planned.plan.placement.node_group, hours)
        return None if found is None else round(found, 2)

    def option(self) -> Option:
        """Return what is told of it."""
        waits = np.rint(np.array(self.firsts_s)).astype(np.int64)
        return Option(
            self.planned, self.partition, self.qos, self.nodes, self.limit_s, waits, Finish.of(self.ways, self.cap_s),
            self.cost(),
        )  # fmt: skip


def places(loaded: LoadedWorkload, site: Site) -> list[tuple[str, str | None]]:
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


def sizes(loaded: LoadedWorkload, site: Site, partition: str, asked: tuple[int, int] | None) -> list[int]:
    """Return node counts to look at: powers of two and the ends of the range."""
    part = site.partitions.get(partition)
    if part is None:
        return [1]  # make_plan will say what is wrong
    available = max((len(site.node_groups[group].hostnames()) for group in part.nodes), default=1)
    low, high = asked or loaded.workload.request.nodes or (1, available)
    high = min(high, available, part.max_nodes or available)
    low = min(low, high)
    found = sorted({low, high, *(2**power for power in range(20) if low < 2**power < high)})
    return (
        found
        if len(found) <= _MOST_SIZES
        else [found[i * (len(found) - 1) // (_MOST_SIZES - 1)] for i in range(_MOST_SIZES)]
    )


def longest_s(loaded: LoadedWorkload, site: Site, partition: str, qos: str | None) -> float | None:
    """Return the longest time limit, in seconds, that a job may have there; ``None`` without one."""
    limits = [loaded.workload.request.walltime_s]
    limits += [site.partitions[partition].max_time_s] if partition in site.partitions else []
    limits += [site.qos[qos].max_time_s] if qos is not None and qos in site.qos else []
    return min((limit for limit in limits if limit is not None), default=None)


def shorter_s(loaded: LoadedWorkload, site: Site, one: Candidate) -> float | None:
    """Return the shorter limit that a way to ask is worth trying with, in seconds; ``None`` where none is."""
    most_s = longest_s(loaded, site, one.partition, one.qos)
    if most_s is None or most_s * _SHORTER < _SHORTEST_S or one.limit_s <= most_s * _SHORTER:
        return None
    return most_s * _SHORTER


def candidate(
    loaded: LoadedWorkload, site: LoadedSite, known: KnownQueue, place: tuple[str, str | None], count: int,
    limit_s: float | None, how: dict[str, Any],
) -> Candidate:  # fmt: skip
    """Return one way to ask.

    Raises:
        InputError: the request contradicts the site.
        InfeasibleError: it does not fit, or its jobs can never start.
    """
    partition, qos = place
    update: dict[str, Any] = {"partition": partition}
    if limit_s is not None:
        update["walltime_s"] = math.floor(limit_s / 60) * 60
    request = loaded.workload.request.model_copy(update=update)
    launch = loaded.workload.launch.model_copy(update={"qos": qos})
    asked = loaded.workload.model_copy(update={"request": request, "launch": launch})
    planned = make_plan(dataclasses.replace(loaded, workload=asked), site, nodes=(count, count), **how)
    plan = planned.plan
    longest = max(segment.time_limit_s for segment in plan.segments)
    entrant = known.entrant(_chain(loaded, site.site, plan, known, qos), plan, qos, longest)
    return Candidate(planned, partition, qos, longest, entrant, site.site)


def _chain(loaded: LoadedWorkload, site: Site, plan: Plan, known: KnownQueue, qos: str | None) -> Chain:
    group, count = plan.placement.node_group, plan.plan.nodes
    mean_s = mean_time_to_failure_s(site, {group: count})
    return Chain(
        segments=plan.segments,
        step_s=plan.estimate.iter_time_s,
        step_high_s=max(plan.estimate.high, plan.estimate.iter_time_s),
        steps_between_checkpoints=plan.training.checkpoint_interval_steps,
        write_s=write_time_s(site, loaded.workload.model),
        failure_rate_per_s=0.0 if mean_s is None else 1 / mean_s,
        preemption_rate_per_s=known.preemption_rate_per_s(plan.placement.partition, qos),
    )


def _share(waits_s: NDArray[np.int64] | Sequence[int], level: int) -> float:
    return float(np.quantile(waits_s, level / 100))


def _rounded(value: float) -> int | None:
    return round(value) if math.isfinite(value) else None
