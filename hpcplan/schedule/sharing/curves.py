"""Scaling curves from the planner: how long a workload takes on each number of nodes of each pool, and what it costs.

The search is asked once for each model, batch, pool and number of nodes; its answers are kept on disk under a key that
holds everything they depend on, so that a portfolio is priced again in no time, whatever its tokens and deadlines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hpcplan import __version__
from hpcplan.documents import write_text
from hpcplan.errors import HpcplanError, InfeasibleError, InputError, nearest
from hpcplan.hostlist import expand
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.search import search
from hpcplan.plan import Breakdown, Estimate, MemoryBreakdown, TimeBreakdown
from hpcplan.resources import data_dir
from hpcplan.schedule.chain import chain_of, training_of
from hpcplan.schedule.checkpoint import write_time_s
from hpcplan.schedule.planner import constants_on
from hpcplan.schedule.segments import STARTUP_S
from hpcplan.schedule.sharing.portfolio import Portfolio, Wanted
from hpcplan.schedule.sharing.problem import Job, Option, Problem
from hpcplan.site.load import LoadedSite
from hpcplan.site.topology import Topology, build_topology
from hpcplan.validation import digest
from hpcplan.workload.model import Workload

__all__ = ["PoolPlace", "Pricing", "counts_up_to", "pools_of"]

_ALL_UP_TO = 4  # nodes; above, steps grow with the number


@dataclass(frozen=True, slots=True)
class PoolPlace:
    """A pool: a node group, the partition that its jobs go to, its nodes, and the most that one job may have."""

    group: str
    partition: str
    nodes: int
    most: int


def pools_of(site: LoadedSite, partition: str | None) -> dict[str, PoolPlace]:
    """Return the node groups with accelerators of a partition, or of all that are up.

    A group of several partitions is used through the one that lets jobs run longest.

    Raises:
        InputError: no such partition, or no group with accelerators.
    """
    partitions = site.site.partitions
    if partition is not None and partition not in partitions:
        raise InputError(f"site {site.site.name!r} has no partition {partition!r}" + nearest(partition, partitions))
    names = [partition] if partition is not None else [n for n, p in partitions.items() if p.state == "up"]
    drained = set(expand(site.site.drained)) if site.site.drained else set()
    found: dict[str, PoolPlace] = {}
    for name in sorted(names, key=lambda n: -(partitions[n].max_time_s or float("inf"))):
        for group in partitions[name].nodes:
            node = site.site.node_groups[group]
            count = len([host for host in node.hostnames() if host not in drained])
            if node.accelerators is not None and count and group not in found:
                found[group] = PoolPlace(group, name, count, min(count, partitions[name].max_nodes or count))
    if not found:
        raise InputError(f"site {site.site.name!r} has no nodes with accelerators in {', '.join(names)}")
    return {group: found[group] for group in site.site.node_groups if group in found}


def counts_up_to(most: int, least: int = 1) -> list[int]:
    """Return the numbers of nodes to price: all small ones, then 2^k and 3 x 2^k, and the most."""
    counts = {*range(1, _ALL_UP_TO + 1), least, most}
    counts |= {base * 2**k for base in (2, 3) for k in range(most.bit_length())}
    return sorted(count for count in counts if least <= count <= most)


@dataclass
class Pricing:
    """Prices workloads on one site; ``asked`` counts the searches that were not in the cache."""

    site: LoadedSite
    constants_folder: Path | None = None
    cache: Path | None = field(default_factory=lambda: data_dir() / "curves")
    asked: int = 0
    known: dict[str, dict[str, list[float] | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build the site's graph once."""
        self.topology: Topology = build_topology(self.site.site)

    def problem(
        self, portfolio: Portfolio, wanted: list[Wanted], on_workload: Callable[[], None] = lambda: None
    ) -> Problem:
        """Return the portfolio as a problem, every workload with its curve.

        Raises:
            InputError: a workload names a partition or group that is not there.
            InfeasibleError: a workload runs on no number of nodes; the message says what binds.
        """
        jobs: list[Job] = []
        for each in wanted:
            jobs.append(self.job(each))
            on_workload()
        used = {option.pool for job in jobs for option in job.options}
        pools = {group: place.nodes for group, place in self._all_pools(wanted).items() if group in used}
        return Problem(pools, tuple(jobs), portfolio.budget, portfolio.horizon_s)

    def _all_pools(self, wanted: list[Wanted]) -> dict[str, PoolPlace]:
        found: dict[str, PoolPlace] = {}
        for each in wanted:
            found |= self.places(each.loaded.workload)
        return {group: found[group] for group in self.site.site.node_groups if group in found}

    def places(self, workload: Workload) -> dict[str, PoolPlace]:
        """Return the pools that a workload may use.

        Raises:
            InputError: it names a partition or a group that is not there.
        """
        pools = pools_of(self.site, workload.request.partition)
        group = workload.request.node_group
        if group is not None and group not in pools:
            raise InputError(f"{workload.name}: no node group {group!r} with accelerators" + nearest(group, pools))
        return {group: pools[group]} if group is not None else pools

    def job(self, wanted: Wanted) -> Job:
        """Return one workload with its curve on every pool; what more nodes do not make faster is left out."""
        workload = wanted.loaded.workload
        options: list[Option] = []
        intervals: list[float] = []
        why: dict[str, str] = {}  # pool: what binds on the most nodes that were tried
        for place in self.places(workload).values():
            best = float("inf")
            for option, interval_s in self._curve(workload, place, why):
                if option.run_s < best * (1 - 1e-3):
                    best = option.run_s
                    options.append(option)
                    intervals.append(interval_s)
        if not options:
            told = "".join(f"\n{group}: {what}" for group, what in why.items())
            raise InfeasibleError(f"{wanted.name} runs on no pool of site {self.site.site.name!r}{told}")
        return Job(
            name=wanted.name,
            options=tuple(options),
            priority=wanted.priority,
            weight=wanted.weight,
            arrival_s=wanted.arrival_s,
            deadline_s=wanted.deadline_s,
            budget=wanted.budget,
            checkpoint_s=min(intervals),
            restart_s=STARTUP_S + 2 * write_time_s(self.site.site, workload.model),  # written, and read again
        )

    def _curve(self, workload: Workload, place: PoolPlace, why: dict[str, str]) -> list[tuple[Option, float]]:
        least, most = workload.request.nodes or (1, place.most)
        if least > place.most:
            why[place.group] = f"a job may have {place.most} nodes, {least} are asked for"
            return []
        steps = self._steps(workload, place, counts_up_to(min(most, place.most), least), why)
        site, found = self.site.site, []
        for count, (step_s, high_s) in steps.items():
            promised = _promise(step_s, high_s)
            try:
                segments, every = chain_of(workload, site, place.partition, {place.group: count}, promised)
            except InfeasibleError as error:
                why[place.group] = error.message
                continue
            run = training_of(workload, site, {place.group: count}, segments, every)
            option = Option(place.group, count, run.time_to_train_s, run.cost, run.energy_kwh)
            found.append((option, every * step_s))
        return found

    def _steps(
        self, workload: Workload, place: PoolPlace, counts: list[int], why: dict[str, str]
    ) -> dict[int, tuple[float, float]]:
        """Return the best step and the upper end of its interval, by nodes; numbers on which nothing runs are out."""
        (kind,) = kinds_of(
            workload, self.site.site, self.topology, [place.group],
            partial(constants_on, workload, self.site.site, self.constants_folder),
        )  # fmt: skip
        known, path = self._recall(self._key(workload, kind, place.group))
        fresh, found = False, {}
        for count in counts:
            if not known.get(str(count)):
                known[str(count)], fresh = self._search(workload, kind, count), True
            answer = known[str(count)]
            if isinstance(answer, str):
                why[place.group] = answer
            else:
                found[count] = (answer[0], answer[1])
        if fresh and path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(known) + "\n")
            except (OSError, HpcplanError):
                self.cache = None  # a cache that cannot be written is no reason to stop
        return found

    def _search(self, workload: Workload, kind: Kind, count: int) -> list[float] | str:
        """Return the best step and the upper end of its interval, or what binds."""
        self.asked += 1
        try:
            outcome = search(workload, [kind], nodes=(count, count), keep=1)
        except InfeasibleError as error:
            return error.message
        step_s = float(outcome.costs.step_s[0])
        return [step_s, step_s * (1 + float(kind.half_width(workload, outcome.best)[0]))]

    def _key(self, workload: Workload, kind: Kind, group: str) -> str:
        training = workload.training.model_dump(mode="json", exclude={"tokens"})
        request = [workload.request.framework, workload.request.memory_headroom]
        parts = [__version__, self.site.sha256, group, kind.constants.sha256, training, request]
        return digest([*parts, workload.model.model_dump(mode="json")])[:32]

    def _recall(self, key: str) -> tuple[dict[str, list[float] | str], Path | None]:
        path = None if self.cache is None else self.cache / f"{key}.json"
        if key not in self.known:
            try:
                read = json.loads(path.read_text()) if path is not None and path.is_file() else {}
                self.known[key] = read if isinstance(read, dict) else {}
            except (OSError, ValueError):
                self.known[key] = {}
        return self.known[key], path


def _promise(step_s: float, high_s: float) -> Estimate:
    """Return an estimate that says how long a step takes, and nothing else."""
    time = TimeBreakdown(**dict.fromkeys(TimeBreakdown.model_fields, 0.0))
    memory = MemoryBreakdown(**dict.fromkeys(MemoryBreakdown.model_fields, 0))
    return Estimate(
        iter_time_s=step_s, high=high_s, low=step_s**2 / high_s, memory_bytes=0, tokens_per_s=0.0, mfu=0.0,
        breakdown=Breakdown(time=time, memory=memory),
    )  # fmt: skip
