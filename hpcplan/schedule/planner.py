"""From a workload and a site to a Plan: search, place, cut into jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcplan import __version__
from hpcplan.cost.constants import LoadedConstants, default_constants
from hpcplan.cost.money import energy_kwh, money
from hpcplan.cost.shardings import RECOMPUTE
from hpcplan.errors import InputError, nearest
from hpcplan.partition.explain import MEMORY_TERMS, TERMS, why_it_lost, why_it_won
from hpcplan.partition.search import Objective, Outcome, search
from hpcplan.plan import (
    Alternative,
    Breakdown,
    Estimate,
    Job,
    MemoryBreakdown,
    Placement,
    Plan,
    Provenance,
    Search,
    Sharding,
    Source,
    TimeBreakdown,
    Training,
)
from hpcplan.schedule.checkpoint import checkpoint_interval_s, write_time_s
from hpcplan.schedule.segments import cut_into_segments
from hpcplan.site.load import LoadedSite
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology, build_topology
from hpcplan.workload.arithmetic import parameters
from hpcplan.workload.load import LoadedWorkload
from hpcplan.workload.model import Workload

__all__ = ["Planned", "choose_pool", "make_plan"]

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
    constants: LoadedConstants | None = None,
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
        constants: of the cost model; the shipped ones if absent.
        command: what the user typed, for the plan's provenance.

    Raises:
        InputError: the request contradicts the site.
        InfeasibleError: nothing satisfies it; the message names what binds.
    """
    constants = constants or default_constants()
    workload, model = loaded.workload, loaded.workload.model
    partition, group = choose_pool(workload, site.site)
    span = _node_range(workload, site.site, partition, group, nodes)
    topology = build_topology(site.site)
    outcome = search(
        workload, site.site, topology, group, constants.constants,
        nodes=span, objective=objective, fixed=fixed, keep=alternatives + 1,
    )  # fmt: skip
    interval = constants.constants.interval.value
    shardings = [_sharding(outcome, workload, i) for i in range(len(outcome.best))]
    estimates = [_estimate(outcome, i, interval) for i in range(len(outcome.best))]
    best, estimate = shardings[0], estimates[0]

    write_s = write_time_s(site.site, model)
    every_s = workload.request.checkpoint_interval_s or checkpoint_interval_s(
        write_s, site.site.node_groups[group].mtbf_s, best.nodes
    )
    every = max(1, min(workload.training.steps, round(every_s / estimate.iter_time_s)))
    overhead = write_s / every
    limit = workload.request.walltime_s or site.site.partitions[partition].max_time_s or _NO_LIMIT_S
    if (partition_limit := site.site.partitions[partition].max_time_s) is not None:
        limit = min(limit, partition_limit)
    segments = cut_into_segments(
        workload.training.steps, estimate.iter_time_s + overhead, estimate.high + overhead, limit, write_s
    )
    total_s = sum(segment.expected_s for segment in segments)
    hours = total_s / 3600 * best.nodes
    cost, energy = money(site.site, group, hours), energy_kwh(site.site, group, outcome.machine, hours)
    plan = Plan(
        name=workload.name,
        plan=best,
        estimate=estimate,
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
        training=Training(
            model=workload.name,
            parameters=parameters(model),
            sequence_length=workload.training.sequence_length,
            global_batch=workload.training.global_batch,
            steps=workload.training.steps,
            tokens=workload.training.tokens,
            checkpoint_interval_steps=every,
            time_to_train_s=round(total_s, 1),
            cost=None if cost is None else round(cost, 2),
            currency=None if cost is None else site.site.prices.currency,
            energy_kwh=None if energy is None else round(energy, 1),
        ),
        placement=_placement(site.site, topology, partition, group, best),
        segments=tuple(segments),
        job=_job(workload, site.site, group, best),
        provenance=Provenance(
            hpcplan=__version__,
            site=Source(name=site.site.name, path=str(site.path), sha256=site.sha256),
            workload=Source(name=workload.name, path=str(loaded.path), sha256=loaded.sha256),
            constants=Source(name=constants.constants.name, path=str(constants.path), sha256=constants.sha256),
            command=command,
        ),
    )
    return Planned(plan, outcome.seconds, loaded.assumed)


def _sharding(outcome: Outcome, workload: Workload, i: int) -> Sharding:
    s = outcome.best
    return Sharding(
        tp=int(s.tp[i]), pp=int(s.pp[i]), vpp=int(s.vpp[i]), dp=int(s.dp[i]), cp=int(s.cp[i]), ep=int(s.ep[i]),
        micro_batch=int(s.micro_batch[i]), micro_batches=int(s.micro_batches[i]), zero=int(s.zero[i]),
        recompute=RECOMPUTE[int(s.recompute[i])],  # type: ignore[arg-type]
        sequence_parallel=bool(s.sequence_parallel[i]), precision=workload.training.precision,
        nodes=int(outcome.nodes[i]), gpus=int(s.gpus[i]), gpus_per_node=outcome.machine.gpus_per_node,
    )  # fmt: skip


def _estimate(outcome: Outcome, i: int, interval: float) -> Estimate:
    costs = outcome.costs
    time = {f"{name}_s": round(float(getattr(costs.time, name)[i]), 6) for name in TERMS}
    memory = {f"{name}_bytes": round(float(getattr(costs.memory, name)[i])) for name in MEMORY_TERMS}
    step = sum(time.values())  # of the rounded terms, so that the file adds up
    return Estimate(
        iter_time_s=round(step, 6),
        memory_bytes=sum(memory.values()),
        tokens_per_s=round(float(costs.tokens_per_s[i]), 1),
        mfu=round(float(costs.mfu[i]), 4),
        low=round(step / (1 + interval), 6),
        high=round(step * (1 + interval), 6),
        breakdown=Breakdown(time=TimeBreakdown(**time), memory=MemoryBreakdown(**memory)),
    )


def _placement(site: Site, topology: Topology, partition: str, group: str, best: Sharding) -> Placement:
    """Return the rank order and, where Slurm knows the topology, the fewest leaf switches that can hold the job."""
    switches: int | None = None
    if site.slurm.topology:
        hosts = topology.closest(best.nodes, topology.nodes(group))
        switches = len({topology.ancestors(host)[0] for host in hosts})
    order = ("tp", "cp", "ep", "dp", "pp") if best.ep > 1 else ("tp", "cp", "dp", "pp")
    return Placement(partition=partition, node_group=group, order=order, switches=switches)


def _job(workload: Workload, site: Site, group: str, best: Sharding) -> Job:
    node, launch = site.node_groups[group], workload.launch
    assert node.accelerators is not None  # choose_pool and machine_of have seen to it
    kind = node.accelerators.gres
    gres = f"gpu:{kind}:{best.gpus_per_node}" if kind else f"gpu:{best.gpus_per_node}"
    return Job(
        name=workload.name,
        framework=workload.request.framework,
        cpus_per_node=node.cpus,
        gres=None if site.slurm.gpu_request == "none" else gres,
        gpu_request=site.slurm.gpu_request,
        slurm_version=site.slurm.version,
        account=launch.account or site.slurm.account,
        qos=launch.qos or site.slurm.qos,
        environment=site.environment,
        command=launch.command or _DEFAULT_COMMAND[workload.request.framework],
        setup=launch.setup,
        variables=launch.variables,
        checkpoint_dir=launch.checkpoint_dir,
        data=launch.data,
        model_arguments=_model_arguments(workload),
    )


_DEFAULT_COMMAND = {"megatron-lm": ("pretrain_gpt.py",), "torchrun": ("train.py",), "srun": ("python3", "train.py")}


def _model_arguments(workload: Workload) -> dict[str, Any]:
    shape, experts = workload.model, workload.model.experts
    return {
        "num_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_query_groups": shape.key_value_heads,
        "head_dim": shape.head_size,
        "ffn_hidden_size": shape.ffn,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.max_positions or workload.training.sequence_length,
        "gated": shape.gated,
        "bias": shape.bias,
        "normalization": shape.norm,
        "position_embedding": shape.position,
        "tied_embeddings": shape.tied_embeddings,
        "num_experts": experts.count if experts else None,
        "experts_per_token": experts.per_token if experts else None,
        "moe_ffn_hidden_size": experts.ffn if experts else None,
        "shared_experts": experts.shared if experts else None,
        "dense_layers": experts.dense_layers if experts else None,
        "latent_attention": shape.latent_attention.model_dump() if shape.latent_attention else None,
    }
