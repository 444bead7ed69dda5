"""The parts of a Plan, made from what the search found."""

from __future__ import annotations

from typing import Any

from hpcplan.cost.shardings import RECOMPUTE
from hpcplan.partition.explain import MEMORY_TERMS, TERMS
from hpcplan.partition.search import Outcome
from hpcplan.plan import Breakdown, Estimate, Job, MemoryBreakdown, Placement, Sharding, TimeBreakdown
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology
from hpcplan.workload.model import Workload

__all__ = ["estimate", "job", "placement", "sharding"]

_DEFAULT_COMMAND = {"megatron-lm": ("pretrain_gpt.py",), "torchrun": ("train.py",), "srun": ("python3", "train.py")}


def sharding(outcome: Outcome, workload: Workload, i: int) -> Sharding:
    """Return the sharding of candidate ``i``."""
    s = outcome.best
    return Sharding(
        tp=int(s.tp[i]), pp=int(s.pp[i]), vpp=int(s.vpp[i]), dp=int(s.dp[i]), cp=int(s.cp[i]), ep=int(s.ep[i]),
        micro_batch=int(s.micro_batch[i]), micro_batches=int(s.micro_batches[i]), zero=int(s.zero[i]),
        recompute=RECOMPUTE[int(s.recompute[i])],
        sequence_parallel=bool(s.sequence_parallel[i]), precision=workload.training.precision,
        nodes=int(outcome.nodes[i]), gpus=int(s.gpus[i]), gpus_per_node=int(outcome.machine.gpus_per_node),
    )  # fmt: skip


def estimate(outcome: Outcome, i: int, interval: float) -> Estimate:
    """Return what candidate ``i`` promises; ``interval`` is the half-width of its 90 % interval, as a share."""
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


def placement(site: Site, topology: Topology, partition: str, group: str, best: Sharding) -> Placement:
    """Return the rank order and, where Slurm knows the topology, the fewest leaf switches that can hold the job."""
    switches: int | None = None
    if site.slurm.topology:
        hosts = topology.closest(best.nodes, topology.nodes(group))
        switches = len({topology.ancestors(host)[0] for host in hosts})
    order = ("tp", "cp", "ep", "dp", "pp") if best.ep > 1 else ("tp", "cp", "dp", "pp")
    return Placement(partition=partition, node_group=group, order=order, switches=switches)


def job(workload: Workload, site: Site, group: str, best: Sharding) -> Job:
    """Return what each job asks Slurm for and runs."""
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
