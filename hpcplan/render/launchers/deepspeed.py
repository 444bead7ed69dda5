"""A Plan as DeepSpeed's JSON (https://www.deepspeed.ai/docs/config-json/), for 0.16.4 and later.

``tensor_parallel`` is DeepSpeed's automatic tensor parallelism; with a pipeline the trainer's own ``PipelineModule``
splits, from ``HPCPLAN_TP`` and ``HPCPLAN_PP``. ``expert_parallel`` came with 0.19. Activations are recomputed where
the trainer calls ``deepspeed.checkpointing`` or Hugging Face's ``gradient_checkpointing_enable``. Groups of ranks that
are copies of each other are those of MiCS (``deepspeed/runtime/zero/mics.py``; Zhang et al. 2022, arXiv:2205.00119),
groups that keep weights once more those of ZeRO++ (``zero_hpz_partition_size``; Wang et al. 2023, arXiv:2306.10209).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hpcplan.plan import Plan
from hpcplan.render.launchers.launch import Launch, groups, own_words, refuse, refuse_decided

__all__ = ["CONFIG", "config", "launch"]

CONFIG: Final = "deepspeed.json"


def launch(plan: Plan) -> Launch:
    """Return the trainer's words and ``deepspeed.json``.

    Raises:
        InputError: the ranks are in an order that DeepSpeed does not have, or the trainer names another configuration.
    """
    words = own_words(plan)
    refuse_decided(words, ("--deepspeed_config", "--deepspeed-config", "--deepspeed", "--deepscale_config"))
    if tuple(axis for axis in plan.placement.order if axis not in {"cp", "ep"}) != ("tp", "dp", "pp"):
        raise refuse("placement.order", "DeepSpeed orders its ranks tp-dp-pp, the fastest first, and no other way")
    return Launch(command=groups(words), configs={CONFIG: config(plan)}, notes=tuple(_notes(plan)))


def config(plan: Plan) -> dict[str, Any]:
    """Return the content of ``deepspeed.json``."""
    sharding, experts = plan.plan, plan.job.model_arguments.get("num_experts")
    content: dict[str, Any] = {
        "train_batch_size": plan.training.global_batch,
        "train_micro_batch_size_per_gpu": sharding.micro_batch,
        "gradient_accumulation_steps": sharding.micro_batches,
        "steps_per_print": 10,
        "wall_clock_breakdown": False,
        "zero_optimization": _zero(plan),
    }
    if sharding.precision in {"bf16", "fp16"}:
        content[sharding.precision] = {"enabled": True}
    content["data_types"] = {"grad_accum_dtype": "fp32"}
    if sharding.tp > 1 and sharding.pp == 1:
        content["tensor_parallel"] = {"autotp_size": sharding.tp}
    if sharding.pp > 1:
        content["pipeline"] = {
            "stages": sharding.pp,
            "activation_checkpoint_interval": (sharding.recompute_block or 1) if sharding.recompute == "full" else 0,
        }
    if sharding.ep > 1 and experts:
        content["expert_parallel"] = {"enabled": True, "autoep_size": sharding.ep}
    if sharding.recompute == "full":
        content["activation_checkpointing"] = {
            "partition_activations": sharding.tp > 1,
            "contiguous_memory_optimization": False,
            "cpu_checkpointing": False,
        }
    return content


def _zero(plan: Plan) -> dict[str, Any]:
    stage = plan.plan.zero
    content: dict[str, Any] = {"stage": stage}
    if stage >= 1:
        content |= {"overlap_comm": stage >= 2, "contiguous_gradients": True, "reduce_scatter": True}
    if stage == 3:
        content["stage3_gather_16bit_weights_on_model_save"] = False
    if plan.plan.shard_group is not None:
        content["mics_shard_size"] = plan.plan.shard_group
    if plan.plan.secondary_group is not None:
        content["zero_hpz_partition_size"] = plan.plan.secondary_group
    if plan.plan.quantized in ("weights", "both"):
        content["zero_quantized_weights"] = True
    if plan.plan.quantized in ("gradients", "both"):
        content["zero_quantized_gradients"] = True
    device = {"cpu": "cpu", "nvme": "nvme"}.get(plan.plan.offload)
    if device is not None:
        place: dict[str, Any] = {"device": device, "pin_memory": True}
        if device == "nvme":
            place["nvme_path"] = plan.job.staging.target if plan.job.staging else "/tmp"
        content["offload_optimizer"] = place
    return content


def _notes(plan: Plan) -> Iterator[str]:
    yield (
        "DeepSpeed loads and saves where the trainer tells it to: engine.load_checkpoint and save_checkpoint in "
        "$HPCPLAN_CHECKPOINT_DIR"
    )
    if plan.plan.shard_group is not None:
        yield "states are divided by MiCS, so the trainer makes its model inside deepspeed.zero.MiCS_Init"
    if plan.plan.pp > 1:
        yield "the trainer builds its PipelineModule with HPCPLAN_PP stages (and HPCPLAN_TP, if it splits tensors)"
