"""Frameworks without a configuration of their own: the trainer reads the plan from ``HPCPLAN_*``, and from a mesh."""

from __future__ import annotations

from typing import Any, Final

from hpcplan.plan import Plan
from hpcplan.render.launchers.launch import Launch, groups, own_words

__all__ = ["MESH", "bare", "jax", "mesh", "tensorflow", "torchrun"]

MESH: Final = "mesh.json"


def bare(plan: Plan) -> Launch:
    """Return the command as it is, for srun and MPI."""
    return Launch(command=groups(plan.job.command))


def torchrun(plan: Plan) -> Launch:
    """Return the command without its interpreter, which torchrun starts itself."""
    return Launch(command=groups(own_words(plan)))


def jax(plan: Plan) -> Launch:
    """Return the command and ``mesh.json``, from which the trainer makes its ``jax.sharding.Mesh``.

    One process drives one accelerator; ``jax.distributed.initialize()`` without arguments finds the others by Slurm's
    variables and ``JAX_COORDINATOR_ADDRESS``.
    """
    note = (
        "jax.distributed.initialize() needs no arguments in a plain Slurm job; over unequal nodes and on Kubernetes "
        "give it num_processes=$WORLD_SIZE and process_id=$RANK"
    )
    return Launch(command=groups(plan.job.command), configs={MESH: mesh(plan)}, notes=(note,))


def tensorflow(plan: Plan) -> Launch:
    """Return the command; ``TF_CONFIG`` is made on each node, which is one worker with all its accelerators."""
    note = "MultiWorkerMirroredStrategy splits a global batch itself: batch the dataset with HPCPLAN_GLOBAL_BATCH"
    return Launch(command=groups(plan.job.command), notes=(note,))


def mesh(plan: Plan) -> dict[str, Any]:
    """Return the axes of the device mesh, the slowest-varying first, and what the plan decides beside."""
    sharding = plan.plan
    sizes = {"tp": sharding.tp, "cp": sharding.cp, "dp": sharding.dp, "pp": sharding.pp}
    axes = [axis for axis in reversed(plan.placement.order) if axis != "ep"]
    decided = {
        "axes": axes,
        "shape": [sizes[axis] for axis in axes],
        "expert_parallel": sharding.ep,
        "virtual_stages": sharding.vpp,
        "micro_batch": sharding.micro_batch,
        "micro_batches": sharding.micro_batches,
        "shard_parameters": sharding.zero == 3,
        "shard_optimizer": sharding.zero >= 1,
        "remat": sharding.recompute,
        "sequence_parallel": sharding.sequence_parallel,
        "precision": sharding.precision,
    }
    chosen = {
        "shard_group": sharding.shard_group,
        "remat_layers": sharding.recompute_layers,
        "remat_block": sharding.recompute_block,
        "remat_mlp": None if sharding.recompute_mlp == "none" else sharding.recompute_mlp,
        "context_exchange": sharding.context_exchange if sharding.cp > 1 else None,
        "capacity_factor": plan.job.model_arguments.get("capacity_factor"),
    }
    return decided | {name: value for name, value in chosen.items() if value is not None}
