"""A Plan as Hugging Face Accelerate's YAML, for 1.10 and later: FSDP2 with ``parallelism_config``, or plain DDP.

Its mesh is dp_replicate, dp_shard, cp, tp from the slowest to the fastest rank (``accelerate/parallelism_config.py``).
What ``Accelerator()`` reads from the environment and not from the file, such as gradient accumulation, goes there.
"""

from __future__ import annotations

from typing import Any, Final

from hpcplan.plan import Plan
from hpcplan.render.launchers.launch import Launch, groups, own_words, refuse

__all__ = ["CONFIG", "config", "launch"]

CONFIG: Final = "accelerate.yaml"
_PRECISION: Final = {"fp32": "no", "fp16": "fp16", "bf16": "bf16", "fp8": "fp8"}
_NOTE: Final = (
    "the trainer's DataLoader gives HPCPLAN_MICRO_BATCH sequences a batch, and accelerator.save_state saves in "
    "$HPCPLAN_CHECKPOINT_DIR"
)


def launch(plan: Plan) -> Launch:
    """Return the trainer's words and ``accelerate.yaml``.

    Raises:
        InputError: the ranks are in an order that Accelerate does not have.
    """
    order = tuple(axis for axis in plan.placement.order if axis not in {"ep", "pp"})
    if order != ("tp", "cp", "dp"):
        raise refuse("placement.order", "Accelerate orders its ranks tp-cp-dp, the fastest first, and no other way")
    return Launch(
        command=groups(own_words(plan)),
        configs={CONFIG: config(plan)},
        variables={"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": str(plan.plan.micro_batches)},
        notes=(_NOTE,),
    )


def config(plan: Plan) -> dict[str, Any]:
    """Return the content of ``accelerate.yaml``; who meets where is on the command line, job by job."""
    sharding = plan.plan
    sharded = sharding.zero > 0 and sharding.gpus > 1
    content: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if sharded else "MULTI_GPU",
        "mixed_precision": _PRECISION[sharding.precision],
        "num_machines": sharding.nodes,
        "num_processes": sharding.gpus,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
        "debug": False,
    }
    if not sharded:
        return content
    content["fsdp_config"] = {
        "fsdp_version": 2,
        "fsdp_reshard_after_forward": sharding.zero == 3,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_activation_checkpointing": sharding.recompute == "full",
        "fsdp_cpu_ram_efficient_loading": False,
        "fsdp_offload_params": sharding.offload == "cpu",
        "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    }
    content["parallelism_config"] = {
        "parallelism_config_dp_replicate_size": sharding.copies,
        "parallelism_config_dp_shard_size": sharding.dp // sharding.copies,
        "parallelism_config_tp_size": sharding.tp,
        "parallelism_config_cp_size": sharding.cp,
    }
    if sharding.cp > 1:
        content["parallelism_config"]["parallelism_config_cp_comm_strategy"] = "allgather"
    return content
