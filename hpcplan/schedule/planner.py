"""From a workload and a site to a Plan: search, place, cut into jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcplan import __version__
from hpcplan.cost.constants import Constants, constants_for
from hpcplan.cost.money import energy_kwh, money
from hpcplan.errors import InputError, nearest
from hpcplan.partition.explain import why_it_lost, why_it_won
from hpcplan.partition.search import Objective, Outcome, search
from hpcplan.plan import Alternative, Estimate, Plan, Provenance, Search, Segment, Sharding, Source, Training
from hpcplan.schedule.assemble import estimate, job, placement, sharding
from hpcplan.schedule.checkpoint import checkpoint_interval_s, write_time_s
from hpcplan.schedule.segments import cut_into_segments
from hpcplan.site.load import LoadedSite, accelerator_of
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from hpcplan.units import format_duration
from hpcplan.workload.arithmetic import parameters
from hpcplan.workload.load import LoadedWorkload
from hpcplan.workload.model import Workload

__all__ = ["Planned", "choose_pool", "make_plan"]

_LONG_CHAIN = 30
_NO_LIMIT_S = 7 * 86400.0  # where neither the partition nor the user limits a job


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what is shown but not stored: the time the search took, and what was assumed."""

    plan: Plan
    seconds: float
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data with ``search.seconds``."""
        data = self.plan.model_dump(mode="json")
        data["search"]["seconds"] = round(self.seconds, 3)
        data["notes"] = list(self.notes)
        return data


def choose_pool(workload: Workload, site: Site) -> tuple[str, str]:
    """Return the partition and the node group to plan on: what was asked for, else the default with accelerators.

    Raises:
        InputError: an unknown partition or group, a group outside the partition, or none with accelerators.
    """
    request = workload.request
    name = request.partition or site.default_partition()
    if name not in site.partitions:
        raise InputError(f"site {site.name!r} has no partition {name!r}" + nearest(name, site.partitions))
    groups = site.partitions[name].nodes
    if request.node_group is not None:
        if request.node_group not in groups:
            message = f"partition {name!r} has no node group {request.node_group!r}"
            raise InputError(message + nearest(request.node_group, groups))
        return name, request.node_group
    for group in groups:
        if site.node_groups[group].accelerators is not None:
            return name, group
    raise InputError(f"partition {name!r} of site {site.name!r} has no nodes with accelerators")


def _node_range(
    workload: Workload, site: Site, partition: str, group: str, asked: tuple[int, int] | None
) -> tuple[int, int]:
    available = len(site.node_groups[group].hostnames())
    cap = site.partitions[partition].max_nodes
    most = available if cap is None else min(cap, available)
    nodes = asked or workload.request.nodes or (1, most)
    if nodes[0] > most:
        why = f"partition {partition!r} allows {most}" if most < available else f"node group {group!r} has {available}"
        raise InputError(f"{nodes[0]} nodes were asked for; {why}")
    return nodes[0], min(nodes[1], most)


def make_plan(
    loaded: LoadedWorkload,
    site: LoadedSite,
    *,
    nodes: tuple[int, int] | None = None,
    objective: Objective = "step",
    fixed: Mapping[str, int] | None = None,
    alternatives: int = 5,
    constants_folder: Path | None = None,
    command: str = "",
) -> Planned:
    """Return the best plan for a workload on a site.

    Args:
        loaded: the workload.
        site: the site.
        nodes: least and most nodes; else what the workload asks for, else any number the partition allows.
        objective: ``step`` or ``train`` (shortest), ``cost`` or ``energy`` (least, for the whole run).
        fixed: parts of the sharding that are given, such as ``{"tp": 8}``.
        alternatives: how many runners-up to keep.
        constants_folder: of the cost model's constants; the shipped ones if absent.
        command: what the user typed, for the plan's provenance.

    Raises:
        InputError: the request contradicts the site.
        InfeasibleError: nothing satisfies it; the message names what binds.
    """
    workload = loaded.workload
    partition, group = choose_pool(workload, site.site)
    constants = _constants(workload, site.site, group, constants_folder)
    span = _node_range(workload, site.site, partition, group, nodes)
    topology = build_topology(site.site)
    outcome = search(
        workload, site.site, topology, group, constants.coefficients,
        nodes=span, objective=objective, fixed=fixed, keep=alternatives + 1,
    )  # fmt: skip
    interval = constants.interval
    shardings = [sharding(outcome, workload, i) for i in range(len(outcome.best))]
    estimates = [estimate(outcome, i, interval) for i in range(len(outcome.best))]
    segments, every = _chain(workload, site.site, partition, group, shardings[0], estimates[0])
    plan = Plan(
        name=workload.name,
        plan=shardings[0],
        estimate=estimates[0],
        alternatives=tuple(
            Alternative(plan=shardings[i], estimate=estimates[i], why=why_it_lost(outcome, i))
            for i in range(1, len(shardings))
        ),
        search=Search(
            candidates=outcome.candidates,
            feasible=outcome.feasible,
            pruned=outcome.pruned,
            objective=objective,
            why=why_it_won(outcome),
        ),
        training=_training(workload, site.site, group, outcome, segments, every),
        placement=placement(site.site, topology, partition, group, shardings[0]),
        segments=segments,
        job=job(workload, site.site, group, shardings[0]),
        provenance=Provenance(
            hpcplan=__version__,
            site=Source(name=site.site.name, path=str(site.path), sha256=site.sha256),
            workload=Source(name=workload.name, path=str(loaded.path), sha256=loaded.sha256),
            constants=Source(name=constants.name, path=str(constants.paths[0].parent), sha256=constants.sha256),
            command=command,
        ),
    )
    return Planned(plan, outcome.seconds, (*loaded.assumed, *_warnings(plan)))


def _constants(workload: Workload, site: Site, group: str, folder: Path | None) -> Constants:
    node, chip = site.node_groups[group].accelerators, accelerator_of(site, group)
    return constants_for(
        accelerator=node.type if node else "",
        family=chip.family if chip else None,
        framework=workload.request.framework,
        precision=workload.training.precision,
        site=site.name,
        folder=folder,
    )


def _chain(
    workload: Workload, site: Site, partition: str, group: str, best: Sharding, promised: Estimate
) -> tuple[tuple[Segment, ...], int]:
    """Return the jobs, and the steps between checkpoints."""
    run, request = workload.training, workload.request
    write_s = write_time_s(site, workload.model)
    every_s = request.checkpoint_interval_s
    if every_s is None:
        every_s = checkpoint_interval_s(write_s, site.node_groups[group].mtbf_s, best.nodes)
    every = max(1, min(run.steps, round(every_s / promised.iter_time_s)))
    overhead = write_s / every
    limits = (request.walltime_s, site.partitions[partition].max_time_s)
    limit = min((value for value in limits if value is not None), default=_NO_LIMIT_S)
    segments = cut_into_segments(run.steps, promised.iter_time_s + overhead, promised.high + overhead, limit, write_s)
    return tuple(segments), every


def _training(
    workload: Workload, site: Site, group: str, outcome: Outcome, segments: tuple[Segment, ...], every: int
) -> Training:
    total_s = sum(segment.expected_s for segment in segments)
    hours = total_s / 3600 * int(outcome.nodes[0])
    cost, energy = money(site, group, hours), energy_kwh(site, group, hours)
    return Training(
        model=workload.name,
        parameters=parameters(workload.model),
        sequence_length=workload.training.sequence_length,
        global_batch=workload.training.global_batch,
        steps=workload.training.steps,
        tokens=workload.training.tokens,
        checkpoint_interval_steps=every,
        time_to_train_s=round(total_s, 1),
        cost=None if cost is None else round(cost, 2),
        currency=None if cost is None else site.prices.currency,
        energy_kwh=None if energy is None else round(energy, 1),
    )


def _warnings(plan: Plan) -> list[str]:
    """Return what a careful colleague would point out about a plan."""
    said: list[str] = []
    if len(plan.segments) > _LONG_CHAIN:
        said.append(
            f"this is a chain of {len(plan.segments)} jobs ({format_duration(plan.training.time_to_train_s)} without "
            "queue waits); more nodes or fewer tokens would shorten it"
        )
    if plan.job.framework == "megatron-lm" and plan.job.model_arguments.get("position_embedding") == "alibi":
        said.append(
            "Megatron-LM has no ALiBi, so this plan cannot be rendered for it; --framework srun renders it for another "
            "trainer, such as Megatron-DeepSpeed"
        )
    return said
