"""From a workload and a site to a Plan: search, place, cut into jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan import __version__
from hpcplan.cost.constants import Constants, constants_for
from hpcplan.errors import InputError, nearest
from hpcplan.partition.explain import why_it_lost, why_it_won
from hpcplan.partition.explanation import Explanation, explain, explanation_data
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.kinds import Kind, kinds_of
from hpcplan.partition.pareto import front_rows
from hpcplan.partition.placement import placement_of
from hpcplan.partition.search import Objective, Outcome, search
from hpcplan.partition.stage_memory import StageMemory, stage_memory
from hpcplan.plan import Alternative, Plan, Precision, Provenance, Search, Source
from hpcplan.schedule.assemble import estimate, job, sharding, stages
from hpcplan.schedule.chain import chain_of, training_of
from hpcplan.site.load import LoadedSite, accelerator_of
from hpcplan.site.model import Site, rate_of
from hpcplan.site.topology import build_topology
from hpcplan.units import format_duration
from hpcplan.workload.load import LoadedWorkload
from hpcplan.workload.model import Workload

__all__ = ["Planned", "choose_groups", "constants_on", "make_plan", "warnings_of"]

_LONG_CHAIN = 30
_WORTH_ASKING = 1.05  # longer steps on the nodes of Slurm's choice are worth a word


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what is shown but not stored: the time the search took, what was assumed, and why it won."""

    plan: Plan
    seconds: float
    notes: tuple[str, ...]
    outcome: Outcome
    explanation: Explanation | None = None
    stages: tuple[StageMemory, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data with ``search.seconds``."""
        data = self.plan.model_dump(mode="json")
        data["search"]["seconds"] = round(self.seconds, 3)
        data["notes"] = list(self.notes)
        if self.outcome.front is not None:
            data["pareto"] = front_rows(self.outcome, self.outcome.front)
        if self.explanation is not None:
            data["explain"] = explanation_data(self.explanation)
        return data


def choose_groups(workload: Workload, site: Site) -> tuple[str, tuple[str, ...]]:
    """Return the partition to plan on and its node groups with accelerators, or the one that was asked for.

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
        return name, (request.node_group,)
    usable = tuple(group for group in groups if site.node_groups[group].accelerators is not None)
    if not usable:
        raise InputError(f"partition {name!r} of site {site.name!r} has no nodes with accelerators")
    return name, usable


def _node_range(
    workload: Workload, site: Site, partition: str, groups: Sequence[str], asked: tuple[int, int] | None
) -> tuple[int, int]:
    """Return the least and the most nodes: a job runs on nodes of one group."""
    available = max(len(site.node_groups[group].hostnames()) for group in groups)
    cap = site.partitions[partition].max_nodes
    most = available if cap is None else min(cap, available)
    nodes = asked or workload.request.nodes or (1, most)
    if nodes[0] > most:
        names = " or ".join(repr(group) for group in groups)
        why = f"partition {partition!r} allows {most}" if most < available else f"node group {names} has {available}"
        raise InputError(f"{nodes[0]} nodes were asked for; {why}")
    return nodes[0], min(nodes[1], most)


def make_plan(
    loaded: LoadedWorkload,
    site: LoadedSite,
    *,
    nodes: tuple[int, int] | None = None,
    objective: Objective = "step",
    fixed: Mapping[str, int] | None = None,
    precisions: Sequence[Precision] = (),
    alternatives: int = 5,
    pareto: bool = False,
    explained: bool = False,
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
        precisions: of the products, to choose from; the workload's if empty.
        alternatives: how many runners-up to keep.
        pareto: whether to find what no other beats in step time, cost, energy and nodes at once.
        explained: whether to find out what nearly won and what changes would be worth.
        constants_folder: of the cost model's constants; the shipped ones if absent.
        command: what the user typed, for the plan's provenance.

    Raises:
        InputError: the request contradicts the site.
        InfeasibleError: nothing satisfies it; the message names what binds.
    """
    workload = loaded.workload
    partition, groups = choose_groups(workload, site.site)
    span = _node_range(workload, site.site, partition, groups, nodes)
    topology = build_topology(site.site)
    constants_of = partial(constants_on, workload, site.site, constants_folder)
    kinds = kinds_of(workload, site.site, topology, groups, constants_of, precisions)
    outcome = search(
        workload, kinds, nodes=span, objective=objective, fixed=fixed, keep=alternatives + 1, pareto=pareto
    )
    group, constants = outcome.winner.group, outcome.winner.constants
    shardings = [sharding(outcome, workload, i) for i in range(len(outcome.best))]
    estimates = [estimate(workload, outcome, i) for i in range(len(outcome.best))]
    segments, every = chain_of(workload, site.site, partition, {group: shardings[0].nodes}, estimates[0])
    plan = Plan(
        name=workload.name,
        plan=shardings[0],
        estimate=estimates[0],
        alternatives=tuple(
            Alternative(
                plan=shardings[i],
                estimate=estimates[i],
                why=why_it_lost(outcome, i),
                node_group=outcome.kinds[int(outcome.kind[i])].group if len(groups) > 1 else None,
            )
            for i in range(1, len(shardings))
        ),
        search=Search(
            candidates=outcome.candidates,
            feasible=outcome.feasible,
            pruned=outcome.pruned,
            objective=objective,
            why=why_it_won(outcome),
        ),
        training=training_of(workload, site.site, {group: shardings[0].nodes}, segments, every),
        placement=placement_of(
            workload,
            site.site,
            topology,
            partition,
            group,
            shardings[0],
            estimates[0],
            outcome.winner.machine,
            constants.coefficients,
        ),
        segments=segments,
        stages=stages(workload, site.site, partition),
        after=workload.launch.after,
        after_any=workload.launch.after_any,
        job=job(workload, site.site, group, shardings[0]),
        provenance=Provenance(
            hpcplan=__version__,
            site=Source(name=site.site.name, path=str(site.path), sha256=site.sha256),
            workload=Source(name=workload.name, path=str(loaded.path), sha256=loaded.sha256),
            constants=Source(name=constants.name, path=str(constants.paths[0].parent), sha256=constants.sha256),
            command=command,
        ),
    )
    held = stage_memory(
        workload, outcome.winner, outcome.best.take(np.array([0])), shardings[0].layers_of_ranks(workload.model.layers)
    )
    why: Explanation | None = None
    if explained:
        lower = _lower_precisions(workload, outcome.winner)
        quantized = kinds_of(workload, site.site, topology, (group,), constants_of, lower) if lower else []
        why = explain(workload, kinds, outcome, span, fixed or {}, quantized, held)
    return Planned(plan, outcome.seconds, (*loaded.assumed, *warnings_of(plan)), outcome, why, held)


def constants_on(workload: Workload, site: Site, folder: Path | None, group: str, precision: Precision) -> Constants:
    """Return the cost model's constants on a node group."""
    node, chip = site.node_groups[group].accelerators, accelerator_of(site, group)
    return constants_for(
        accelerator=node.type if node else "",
        family=chip.family if chip else None,
        framework=workload.request.framework,
        precision=precision,
        site=site.name,
        folder=folder,
    )


def _lower_precisions(workload: Workload, kind: Kind) -> list[Precision]:
    """Return the precisions below the winner's that its accelerator has figures for and the framework knows."""
    order: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp8", "int8", "fp4", "int4")
    current = "bf16" if kind.precision == "fp16" else rate_of(kind.precision)
    can = capabilities(workload.request.framework).precisions
    lower = order[order.index(current) + 1 :]
    return [precision for precision in lower if precision in kind.chip.peak_flops and precision in can]


def warnings_of(plan: Plan) -> list[str]:
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
    predicted = plan.placement.prediction
    if (
        predicted is not None
        and predicted.reordered_step_s > predicted.step_s * _WORTH_ASKING
        and not plan.placement.segment
    ):
        said.append(
            f"a step takes {format_duration(predicted.step_s)} on nodes chosen for it, and "
            f"{format_duration(predicted.reordered_step_s)} on those that Slurm would choose; hpcplan place --ask "
            "names the nodes, or leaves others out"
        )
    return said
