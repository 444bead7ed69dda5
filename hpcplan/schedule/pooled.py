"""From a workload and several pools of unlike nodes to one Plan: a job that uses them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hpcplan import __version__
from hpcplan.cost.memory import memory
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import RECOMPUTE, Shardings
from hpcplan.errors import HpcplanError, InfeasibleError, InputError
from hpcplan.partition.explain import MEMORY_TERMS, TERMS
from hpcplan.partition.frameworks import capabilities
from hpcplan.partition.kinds import kinds_of
from hpcplan.partition.pool_batches import fixed_shares, share_batch
from hpcplan.partition.pool_stages import fixed_layers, share_layers
from hpcplan.partition.pools import Member, PooledPlan, members_of
from hpcplan.partition.search import search
from hpcplan.plan import (
    Breakdown,
    Estimate,
    MemoryBreakdown,
    Placement,
    Plan,
    Pool,
    Provenance,
    Search,
    Sharding,
    Source,
    TimeBreakdown,
)
from hpcplan.schedule.assemble import job, stages
from hpcplan.schedule.chain import chain_of, training_of
from hpcplan.schedule.planner import constants_on, warnings_of
from hpcplan.site.load import LoadedSite
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology
from hpcplan.units import format_duration
from hpcplan.workload.load import LoadedWorkload
from hpcplan.workload.model import Workload

__all__ = ["Pooled", "make_pooled_plan"]


@dataclass(frozen=True, slots=True)
class Pooled:
    """A plan over pools, how the other rules of sharing would do, and each pool alone: steps in seconds, or ``None``.

    ``rules`` are equal shares and shares by peak FLOP/s, with the same sharding; ``None`` where that does not fit.
    """

    plan: Plan
    shared: PooledPlan
    rules: dict[str, float | None]
    alone: dict[str, float | None]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, with the comparison."""
        data = self.plan.model_dump(mode="json")
        data["pools"] = {
            "along": self.shared.along,
            "step_s": self.shared.step_s,
            "bound_s": self.shared.bound_s,
            "gap": max(0.0, 1 - self.shared.bound_s / self.shared.step_s),
            "rules": self.rules,
            "alone": self.alone,
        }
        data["notes"] = list(self.notes)
        return data


def make_pooled_plan(
    loaded: LoadedWorkload,
    site: LoadedSite,
    partition: str,
    counts: Mapping[str, int],
    *,
    constants_folder: Path | None = None,
    command: str = "",
) -> Pooled:
    """Return the best plan for one job over several node groups.

    Args:
        loaded: the workload.
        site: the site.
        partition: of the groups.
        counts: nodes of each group.
        constants_folder: of the cost model's constants; the shipped ones if absent.
        command: what the user typed, for the plan's provenance.

    Raises:
        InputError: the request contradicts the site.
        InfeasibleError: the framework has no way to share, or nothing fits.
    """
    workload, topology = loaded.workload, build_topology(site.site)
    most = site.site.partitions[partition].max_nodes
    if most is not None and sum(counts.values()) > most:
        raise InputError(f"{sum(counts.values())} nodes were asked for; partition {partition!r} allows {most}")
    constants = partial(constants_on, workload, site.site, constants_folder)
    kinds = kinds_of(workload, site.site, topology, [*counts], constants)
    lacking = [group for group in counts if group not in {kind.group for kind in kinds}]
    if lacking:
        message = f"the precision binds: {' and '.join(lacking)} has no products in {workload.training.precision}"
        raise InfeasibleError(message, hint="leave it out, or train in another precision")
    members = members_of(site.site, topology, kinds, dict(counts))
    shared = _best(workload, members)
    alone: dict[str, float | None] = {}
    for kind in kinds:
        count = counts[kind.group]
        try:
            alone[kind.group] = float(search(workload, [kind], nodes=(count, count), keep=1).costs.step_s[0])
        except HpcplanError:
            alone[kind.group] = None
    promised = _estimate(workload, shared)
    segments, every = chain_of(workload, site.site, partition, counts, promised)
    sharding = _sharding(workload, shared)
    first = shared.members[0].kind
    plan = Plan(
        name=workload.name,
        plan=sharding,
        estimate=promised,
        search=Search(candidates=1, feasible=1, pruned={}, objective="step", why=_why(shared)),
        training=training_of(workload, site.site, counts, segments, every),
        placement=_placement(site.site, partition, workload, shared),
        segments=segments,
        stages=stages(workload, site.site, partition),
        after=workload.launch.after,
        after_any=workload.launch.after_any,
        job=job(workload, site.site, first.group, sharding, [member.kind.group for member in shared.members]),
        provenance=Provenance(
            hpcplan=__version__,
            site=Source(name=site.site.name, path=str(site.path), sha256=site.sha256),
            workload=Source(name=workload.name, path=str(loaded.path), sha256=loaded.sha256),
            constants=Source(name=first.constants.name, path=str(first.constants.paths[0].parent),
                             sha256=first.constants.sha256),
            command=command,
        ),
    )  # fmt: skip
    notes = (*loaded.assumed, *warnings_of(plan), *_slower_than_alone(shared, alone))
    return Pooled(plan, shared, _rules(workload, shared), alone, notes)


def _best(workload: Workload, members: Sequence[Member]) -> PooledPlan:
    """Return the better of sharing the layers and sharing the batch, as far as the framework has both."""
    ways = [share_layers, share_batch] if capabilities(workload.request.framework).unequal_batches else [share_layers]
    found: list[PooledPlan] = []
    errors: list[InfeasibleError] = []
    for way in ways:
        try:
            found.append(way(workload, members))
        except InfeasibleError as error:
            errors.append(error)
    if not found:
        raise InfeasibleError("; ".join(error.message for error in errors))
    return min(found, key=lambda plan: plan.step_s)


def _rules(workload: Workload, shared: PooledPlan) -> dict[str, float | None]:
    step = fixed_layers if shared.along == "pipeline" else fixed_shares
    peaks = [float(np.asarray(member.kind.machine.peak_flops)) for member in shared.members]
    return {"equal": step(workload, shared, [1.0] * len(peaks)), "by peak FLOP/s": step(workload, shared, peaks)}


def _slower_than_alone(shared: PooledPlan, alone: Mapping[str, float | None]) -> list[str]:
    return [
        f"{group} alone takes {format_duration(step_s)} a step, less than all pools together"
        for group, step_s in alone.items()
        if step_s is not None and step_s < shared.step_s
    ]


def _why(shared: PooledPlan) -> str:
    what = "layers over the stages of one pipeline" if shared.along == "pipeline" else "batch over all replicas"
    gap = max(0.0, 1 - shared.bound_s / shared.step_s)
    return (
        f"the shortest step of all ways to share the {what} over {len(shared.members)} pools; without grain and "
        f"waiting it could not be below {format_duration(shared.bound_s)} ({gap:.1%} less)"
    )


def _sharding(workload: Workload, shared: PooledPlan) -> Sharding:
    return Sharding(
        tp=shared.tp, pp=shared.pp, dp=shared.dp, ep=shared.ep, micro_batch=max(shared.micro_batch),
        micro_batches=shared.micro_batches, zero=shared.zero, recompute=RECOMPUTE[shared.recompute],
        sequence_parallel=bool(shared.sequence_parallel), stage_layers=shared.stage_layers,
        precision=workload.training.precision, nodes=sum(member.nodes for member in shared.members),
        gpus=shared.gpus, gpus_per_node=shared.members[0].kind.gpus_per_node,
    )  # fmt: skip


def _layers_by_pool(shared: PooledPlan) -> list[int | None]:
    if shared.along == "batch":
        return [None] * len(shared.members)
    ends = np.cumsum(shared.stages)
    return [sum(shared.stage_layers[end - count : end]) for end, count in zip(ends, shared.stages, strict=True)]


def _placement(site: Site, partition: str, workload: Workload, shared: PooledPlan) -> Placement:
    """Return the pools in the order of ranks; data parallelism is inside a stage, so stages follow each other."""
    pools: list[Pool] = []
    layers = _layers_by_pool(shared)
    for place, member in enumerate(shared.members):
        node = site.node_groups[member.kind.group]
        assert node.accelerators is not None  # a Kind has some
        kind = node.accelerators.gres
        count = member.kind.gpus_per_node
        sequences = member.gpus // shared.tp * shared.micro_batch[place] * shared.micro_batches
        pools.append(
            Pool(
                node_group=member.kind.group,
                partition=partition,
                nodes=member.nodes,
                gpus_per_node=count,
                cpus_per_node=node.cpus,
                gres=None if site.slurm.gpu_request == "none" else (f"gpu:{kind}:{count}" if kind else f"gpu:{count}"),
                micro_batch=shared.micro_batch[place] if shared.along == "batch" else None,
                layers=layers[place],
                data_share=sequences / workload.training.global_batch if shared.along == "batch" else None,
            )
        )
    return Placement(partition=partition, node_group=pools[0].node_group, pools=tuple(pools))


def _estimate(workload: Workload, shared: PooledPlan) -> Estimate:
    terms = {f"{name}_s": round(max(0.0, shared.terms[name]), 6) for name in TERMS}
    step = sum(terms.values())
    # no measured run says how unequal pools share a step: as wide as far from all of them
    interval = max(float(member.kind.constants.half_width(0.0)) for member in shared.members)
    tokens = workload.training.global_batch * workload.training.sequence_length
    flops = (
        float(np.asarray(Shape.of(workload.model).model_flops_per_token(workload.training.sequence_length))) * tokens
    )
    peak = sum(float(np.asarray(member.kind.machine.peak_flops)) * member.gpus for member in shared.members)
    held = _memory(workload, shared)
    return Estimate(
        iter_time_s=round(step, 6),
        memory_bytes=sum(held.values()),
        tokens_per_s=round(tokens / step, 1),
        mfu=round(flops / (step * peak), 4),
        low=round(step / (1 + interval), 6),
        high=round(step * (1 + interval), 6),
        breakdown=Breakdown(time=TimeBreakdown(**terms), memory=MemoryBreakdown(**held)),
    )


def _memory(workload: Workload, shared: PooledPlan) -> dict[str, int]:
    """Return the fullest accelerator's memory by term: its stage's states, and the rest of its total as activations."""
    full = int(np.argmax(shared.memory_bytes))
    member, layers = shared.members[full], workload.model.layers
    if shared.along == "pipeline":
        end = sum(shared.stages[: full + 1])
        layers = max(shared.stage_layers[end - shared.stages[full] : end])
    shape = Shape.of(workload.model.model_copy(update={"layers": layers}))
    s = Shardings.of(tp=shared.tp, dp=shared.dp, ep=shared.ep, micro_batch=shared.micro_batch[full],
                     micro_batches=shared.micro_batches, zero=shared.zero, recompute=shared.recompute,
                     sequence_parallel=shared.sequence_parallel)  # fmt: skip
    kind = member.kind
    held = memory(shape, workload.training.sequence_length, kind.machine, s, kind.coefficients, kind.recipe)
    found = {f"{name}_bytes": round(float(getattr(held, name)[0])) for name in MEMORY_TERMS}
    found["activations_bytes"] = 0
    over = sum(found.values()) - round(shared.memory_bytes[full])
    found["activations_bytes"] = max(0, -over)
    return found
