"""The parts of a Plan, made from what the search found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcplan.cost.shardings import CONTEXT_EXCHANGE, OFFLOAD, QUANTIZED, RECOMPUTE, RECOMPUTE_MLP, SCHEDULES
from hpcplan.errors import InputError, Problem
from hpcplan.frameworks import FRAMEWORKS
from hpcplan.partition.explain import MEMORY_TERMS, TERMS
from hpcplan.partition.search import Outcome
from hpcplan.partition.stages import stage_layers
from hpcplan.plan import (
    Breakdown,
    Estimate,
    Health,
    Job,
    MemoryBreakdown,
    Sharding,
    Stage,
    Staging,
    TimeBreakdown,
)
from hpcplan.site.model import Environment, NodeGroup, Site
from hpcplan.workload.model import Workload

__all__ = ["estimate", "job", "sharding", "stages"]


def sharding(outcome: Outcome, workload: Workload, i: int) -> Sharding:
    """Return the sharding of candidate ``i``."""
    s, kind = outcome.best, outcome.kinds[int(outcome.kind[i])]
    return Sharding(
        tp=int(s.tp[i]), pp=int(s.pp[i]), vpp=int(s.vpp[i]), dp=int(s.dp[i]), cp=int(s.cp[i]), ep=int(s.ep[i]),
        micro_batch=int(s.micro_batch[i]), micro_batches=int(s.micro_batches[i]), zero=int(s.zero[i]),
        shard_group=int(s.shard_group[i]) or None, secondary_group=int(s.secondary_group[i]) or None,
        recompute=RECOMPUTE[int(s.recompute[i])],
        recompute_layers=int(s.spared_layers[i]) or None, recompute_block=int(s.recompute_block[i]) or None,
        recompute_mlp=RECOMPUTE_MLP[int(s.recompute_mlp[i])], quantized=QUANTIZED[int(s.quantized[i])],
        context_exchange=CONTEXT_EXCHANGE[int(s.context_exchange[i])],
        sequence_parallel=bool(s.sequence_parallel[i]), schedule=SCHEDULES[int(s.schedule[i])],
        offload=OFFLOAD[int(s.offload[i])], stage_layers=stage_layers(workload, kind, s.take(np.array([i]))),
        precision=kind.precision,
        nodes=int(outcome.nodes[i]), gpus=int(s.gpus[i]), gpus_per_node=kind.gpus_per_node,
    )  # fmt: skip


def estimate(workload: Workload, outcome: Outcome, i: int) -> Estimate:
    """Return what candidate ``i`` promises, with its 90 % interval."""
    costs, kind = outcome.costs, outcome.kinds[int(outcome.kind[i])]
    interval = float(kind.half_width(workload, outcome.best.take(np.array([i])))[0])
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


def job(workload: Workload, site: Site, group: str, best: Sharding, others: Sequence[str] = ()) -> Job:
    """Return what each job asks Slurm for and runs; ``others`` are the node groups that take part beside ``group``."""
    groups = tuple(dict.fromkeys((group, *others)))
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
        environment=_environment(site, groups),
        command=launch.command or FRAMEWORKS[workload.request.framework].command,
        setup=launch.setup,
        variables=launch.variables,
        checkpoint_dir=launch.checkpoint_dir,
        data=launch.data,
        mpi=site.slurm.mpi,
        health=_health(site, groups),
        staging=_staging(workload, site, group),
        sample_every_s=None if site.sample_every_s is None else max(1, round(site.sample_every_s)),
        model_arguments=_model_arguments(workload),
    )


def _environment(site: Site, groups: Sequence[str]) -> Environment:
    """Return the site's environment; what NCCL can be told from the interfaces and the fabric is added to it.

    ``=`` in front of the names makes NCCL match them exactly, as mlx5_1 is the beginning of mlx5_10, too. On rails a
    ring that changes interfaces crosses the spine (NVIDIA, NCCL user guide, ``NCCL_IB_HCA`` and ``NCCL_CROSS_NIC``).
    """
    known: dict[str, str] = {}
    if names := _interfaces(site, groups):
        known["NCCL_IB_HCA"] = "=" + ",".join(names)
    if site.fabric.kind == "rails":
        known["NCCL_CROSS_NIC"] = "0"
    return site.environment.model_copy(update={"variables": known | site.environment.variables})


def _interfaces(site: Site, groups: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the interfaces, if they are the same in all groups."""
    names = {site.node_groups[group].nics.names for group in groups}
    return names.pop() if len(names) == 1 else ()


def _health(site: Site, groups: Sequence[str]) -> Health | None:
    """Return what every node should show; an all-reduce over two nodes runs at their interfaces' rate.

    Of unequal groups it is what the least of them has.
    """
    nodes, checks = [site.node_groups[group] for group in groups], site.checks
    if checks is None or any(node.accelerators is None for node in nodes):
        return None
    return Health(
        gpus=min(node.accelerators.count for node in nodes if node.accelerators) if checks.gpus else None,
        interfaces=_interfaces(site, groups),
        interface_bytes_per_s=min(node.nics.bandwidth_bytes_per_s for node in nodes) if checks.links else None,
        all_reduce_bytes_per_s=min(map(_all_reduce_rate, nodes)) if checks.all_reduce else None,
        least_share=checks.least_share,
        spare_nodes=checks.spare_nodes if len(groups) == 1 else 0,
    )


def _all_reduce_rate(node: NodeGroup) -> float:
    rate = node.node_bandwidth_bytes_per_s
    return rate if node.intra_node is None else min(rate, node.intra_node.bandwidth_bytes_per_s)


def _staging(workload: Workload, site: Site, group: str) -> Staging | None:
    """Return how data gets to the site's fast storage: inside each node if there is such, else a burst buffer.

    Raises:
        InputError: the workload asks for it, and the site has neither.
    """
    wanted = workload.launch.stage_in
    if wanted is None:
        return None
    local, buffer = site.node_groups[group].local_storage, site.storage.burst_buffer if site.storage else None
    if local is not None:
        return Staging(sources=wanted.sources, target=local, split=wanted.split)
    if buffer is not None:
        return Staging(sources=wanted.sources, target=buffer.path, shared=True, directives=buffer.directives)
    message = f"site {site.name!r} has no local_storage in node group {group!r} and no storage.burst_buffer"
    raise InputError(Problem(message, field="launch.stage_in"))


def stages(workload: Workload, site: Site, partition: str) -> tuple[Stage, ...]:
    """Return the jobs beside training."""
    return tuple(
        Stage(
            name=name,
            kind=asked.kind,
            command=asked.command,
            after=asked.after,
            after_any=asked.after_any,
            partition=asked.partition or partition,
            nodes=asked.nodes,
            tasks_per_node=asked.tasks_per_node,
            cpus_per_task=asked.cpus_per_task,
            gres=f"gpu:{asked.gpus_per_node}" if asked.gpus_per_node and site.slurm.gpu_request != "none" else None,
            time_limit_s=math.ceil(asked.time_limit_s),
            setup=asked.setup,
            variables=asked.variables,
            points=asked.points,
            max_parallel=asked.max_parallel,
        )
        for name, asked in workload.launch.stages.items()
    )


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
        "capacity_factor": experts.capacity_factor if experts else None,
        "latent_attention": shape.latent_attention.model_dump() if shape.latent_attention else None,
    }
