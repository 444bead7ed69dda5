"""A Plan as overrides of a Megatron-Bridge recipe (NeMo), for 0.6: ``run_recipe.py --recipe … section.key=value``.

The names are those of its guide "Megatron-LM to Megatron Bridge" and of its ``ConfigContainer``. The length of
sequences is the dataset's; the model's follows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from hpcplan.plan import Plan
from hpcplan.render.launchers.launch import Launch, own_words, refuse, refuse_decided
from hpcplan.render.megatron import even_layout, recompute_method, recompute_modules, stage_layout
from hpcplan.render.quoting import option_groups

__all__ = ["launch", "overrides"]

# megatron/bridge/training/mixed_precision.py: the names that it registers
_PRECISION: Final = {
    "bf16": "bf16_mixed",
    "fp16": "fp16_mixed",
    "fp8": "bf16_with_fp8_current_scaling_mixed",
    "fp8-delayed": "bf16_with_fp8_delayed_scaling_mixed",
    "fp8-blockwise": "bf16_with_fp8_subchannel_scaling_mixed",
    "mxfp8": "bf16_with_mxfp8_mixed",
    "fp4": "bf16_with_nvfp4_mixed",
}
_RANK_ORDER: Final[dict[tuple[str, ...], bool]] = {("tp", "cp", "dp", "pp"): False, ("tp", "cp", "pp", "dp"): True}


def launch(plan: Plan) -> Launch:
    """Return the recipe's words with the plan's overrides.

    Raises:
        InputError: an order of ranks that it does not have, or an override of the trainer's own that the plan decides.
    """
    words = own_words(plan)
    decided = dict(overrides(plan))
    refuse_decided(words, [*decided, "checkpoint.save", "checkpoint.load", *_SHORT])
    options = tuple((f"{name}={_text(value)}",) for name, value in decided.items())
    return Launch(
        command=(*option_groups(words), *options),
        step_file="latest_checkpointed_iteration.txt",
        notes=tuple(_notes(words)),
    )


_SHORT: Final = (
    "-tp", "-pp", "-cp", "-vp", "-ep", "-gb", "-mb", "-ms", "-sl", "--tensor_model_parallel_size",
    "--pipeline_model_parallel_size", "--context_parallel_size", "--virtual_pipeline_model_parallel_size",
    "--expert_model_parallel_size", "--max_steps", "--global_batch_size", "--micro_batch_size", "--seq_length",
    "--save_dir", "--load_dir", "--save_interval",
)  # fmt: skip


def overrides(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Yield every override that expresses the plan: parallelism, memory, precision, batch, steps, checkpoints."""
    sharding, run = plan.plan, plan.training
    yield "model.tensor_model_parallel_size", sharding.tp
    yield "model.sequence_parallel", sharding.sequence_parallel
    yield "model.pipeline_model_parallel_size", sharding.pp
    yield "model.virtual_pipeline_model_parallel_size", sharding.vpp if sharding.vpp > 1 else None
    yield "model.context_parallel_size", sharding.cp
    if sharding.context_exchange != "p2p":
        yield "model.cp_comm_type", sharding.context_exchange
    if plan.job.model_arguments.get("num_experts"):
        yield "model.expert_model_parallel_size", sharding.ep
        yield "model.moe_expert_capacity_factor", plan.job.model_arguments.get("capacity_factor")
    yield from _stages(plan)
    yield from _recompute(plan)
    yield from _data_parallel(plan)
    if sharding.precision in _PRECISION:
        yield "mixed_precision", _PRECISION[sharding.precision]
    yield "train.micro_batch_size", sharding.micro_batch
    yield "train.global_batch_size", run.global_batch
    yield "train.train_iters", run.steps
    yield "train.exit_signal_handler", True
    yield "dataset.seq_length", run.sequence_length
    yield "checkpoint.save_interval", run.checkpoint_interval_steps


def _stages(plan: Plan) -> Iterator[tuple[str, Any]]:
    sharding, layers = plan.plan, plan.job.model_arguments.get("num_layers")
    stages = sharding.pp * sharding.vpp
    if layers is None or stages == 1:
        return
    if sharding.stage_layers:
        yield "model.pipeline_model_parallel_layout", stage_layout(sharding.stage_layers)
    elif layers < stages:
        raise refuse("plan.pp", f"{layers} layers cannot be cut into {sharding.pp} x {sharding.vpp} stages")
    elif layers % stages and (layers + 2) % stages == 0:
        yield "model.account_for_embedding_in_pipeline_split", True
        yield "model.account_for_loss_in_pipeline_split", True
    elif layers % stages:
        yield "model.pipeline_model_parallel_layout", even_layout(layers, stages)


def _recompute(plan: Plan) -> Iterator[tuple[str, Any]]:
    kind = plan.plan.recompute
    if plan.plan.recompute_mlp != "none":
        yield "model.recompute_granularity", "selective"
        yield "model.recompute_modules", "[" + ",".join(recompute_modules(plan)) + "]"
        return
    yield "model.recompute_granularity", None if kind == "none" else kind
    if kind == "full":
        method, layers = recompute_method(plan.plan)
        yield "model.recompute_method", method
        yield "model.recompute_num_layers", layers


def _data_parallel(plan: Plan) -> Iterator[tuple[str, Any]]:
    sharding = plan.plan
    order = tuple(axis for axis in plan.placement.order if axis != "ep")
    if order not in _RANK_ORDER:
        message = f"Megatron-Bridge cannot order its ranks {'-'.join(order)}; it has tp-cp-dp-pp and tp-cp-pp-dp"
        raise refuse("placement.order", message)
    if sharding.zero >= 2 and _RANK_ORDER[order]:
        raise refuse("placement.order", "Megatron-Bridge cannot order its ranks tp-cp-pp-dp with ZeRO 2 or 3")
    yield "dist.use_tp_pp_dp_mapping", _RANK_ORDER[order]
    yield "ddp.use_distributed_optimizer", sharding.zero >= 1
    yield "optimizer.use_distributed_optimizer", sharding.zero >= 1
    if sharding.copies > 1:
        yield "ddp.num_distributed_optimizer_instances", sharding.copies
    if sharding.zero >= 2:
        yield "dist.use_megatron_fsdp", True
        yield "ddp.use_megatron_fsdp", True
        strategy = "optim_grads" if sharding.zero == 2 else "optim_grads_params"
        yield "ddp.data_parallel_sharding_strategy", strategy
        yield "checkpoint.ckpt_format", "fsdp_dtensor"
    elif sharding.dp * sharding.cp > 1:
        yield "ddp.overlap_grad_reduce", True
        yield "ddp.overlap_param_gather", sharding.zero == 1
    if sharding.offload == "cpu":
        yield "optimizer.optimizer_cpu_offload", True


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _notes(words: list[str]) -> Iterator[str]:
    if not any(word.partition("=")[0] in {"--recipe", "--model"} for word in words):
        yield "Megatron-Bridge starts from a recipe; name one in the trainer's own command, with --recipe"
