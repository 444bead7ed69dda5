"""A Plan in the words of Megatron-LM's training scripts (``megatron/training/arguments.py``, Core 0.9 to 0.20).

Everything that the plan decides becomes an option; what it leaves open (learning rate, tokenizer, logging) is the
trainer's own command. An option that both would give is refused, for then the plan would not be what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from hpcplan.errors import InputError, Problem, nearest
from hpcplan.plan import Plan, Sharding
from hpcplan.render.quoting import option_groups

__all__ = [
    "environment",
    "even_layout",
    "launch_words",
    "missing",
    "plan_options",
    "recompute_method",
    "recompute_modules",
    "stage_layout",
]

Option = tuple[str, ...]

_NORMALIZATION: Final = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}
_POSITION: Final = {"rope": "rope", "learned": "learned_absolute", "none": "none"}
# The orders that Megatron-LM has, and whether one needs its other mapping.
_RANK_ORDER: Final[dict[tuple[str, ...], bool]] = {("tp", "cp", "dp", "pp"): False, ("tp", "cp", "pp", "dp"): True}


def _flag(name: str) -> Callable[[Any], list[Option]]:
    return lambda value: [(name,)] if value else []


def _unless(name: str) -> Callable[[Any], list[Option]]:
    return lambda value: [] if value else [(name,)]


def _number(name: str) -> Callable[[Any], list[Option]]:
    return lambda value: [] if value is None else [(name, str(value))]


def _choice(name: str, words: Mapping[str, str]) -> Callable[[Any], list[Option]]:
    def option(value: Any) -> list[Option]:
        if value not in words:
            raise ValueError(f"Megatron-LM has no {value!r} for {name}" + nearest(str(value), words))
        return [(name, words[value])]

    return option


def _latent_attention(value: Mapping[str, int] | None) -> list[Option]:
    """Multi-head latent attention, with the norm on queries and keys that DeepSeek-V2 and V3 have."""
    if value is None:
        return []
    return [
        ("--multi-latent-attention",),
        ("--q-lora-rank", str(value["q_lora_rank"])),
        ("--kv-lora-rank", str(value["kv_lora_rank"])),
        ("--qk-head-dim", str(value["qk_nope_head_dim"])),
        ("--qk-pos-emb-head-dim", str(value["qk_rope_head_dim"])),
        ("--v-head-dim", str(value["v_head_dim"])),
        ("--qk-layernorm",),
    ]


# What model_arguments may say, and the options that say the same.
_MODEL: Final[dict[str, Callable[[Any], list[Option]]]] = {
    "num_layers": _number("--num-layers"),
    "hidden_size": _number("--hidden-size"),
    "ffn_hidden_size": _number("--ffn-hidden-size"),
    "num_attention_heads": _number("--num-attention-heads"),
    "num_query_groups": _number("--num-query-groups"),
    "head_dim": _number("--kv-channels"),
    "vocab_size": _number("--vocab-size"),
    "max_position_embeddings": _number("--max-position-embeddings"),
    "gated": _flag("--swiglu"),
    "normalization": _choice("--normalization", _NORMALIZATION),
    "norm_epsilon": _number("--norm-epsilon"),
    "position_embedding": _choice("--position-embedding-type", _POSITION),
    "rotary_base": _number("--rotary-base"),
    "tied_embeddings": _unless("--untie-embeddings-and-output-weights"),
    "bias": _unless("--disable-bias-linear"),
    "num_experts": _number("--num-experts"),
    "experts_per_token": _number("--moe-router-topk"),
    "moe_ffn_hidden_size": _number("--moe-ffn-hidden-size"),
    "latent_attention": _latent_attention,
}


def launch_words(plan: Plan) -> list[Option]:
    """Return the trainer and all its options, each option with its values as one tuple of words.

    Raises:
        InputError: the plan asks for what Megatron-LM cannot do, or the trainer's own command sets what the
            plan decides.
    """
    script, *own = _command(plan)
    decided = plan_options(plan)
    _refuse_conflicts(own, {option[0] for option in decided})
    return [(script,), *option_groups(own), *decided, *_stand_ins(plan, own)]


def _command(plan: Plan) -> list[str]:
    words = list(plan.job.command) or ["pretrain_gpt.py"]
    return words[1:] if words[0] in {"python", "python3"} and len(words) > 1 else words


def _refuse_conflicts(own: list[str], decided: set[str]) -> None:
    for word in own:
        name = word.partition("=")[0]
        if name in decided:
            message = f"{name} is decided by the plan; take it out of the trainer's own arguments"
            raise InputError(Problem(message, field="job.command"))


def plan_options(plan: Plan) -> list[Option]:
    """Return the options that express the plan: shape, sharding, batch, precision, steps and checkpoints."""
    return [
        *_shape(plan),
        *_sharding(plan),
        *_memory(plan),
        *_precision(plan),
        ("--micro-batch-size", str(plan.plan.micro_batch)),
        ("--global-batch-size", str(plan.training.global_batch)),
        ("--train-iters", str(plan.training.steps)),
        ("--save-interval", str(plan.training.checkpoint_interval_steps)),
        ("--exit-signal-handler",),
        *_data(plan),
    ]


def _shape(plan: Plan) -> Iterator[Option]:
    shape = {"max_position_embeddings": plan.training.sequence_length} | plan.job.model_arguments
    yield from _experts(shape)
    for name in _implied(shape):
        shape.pop(name, None)
    for name, value in shape.items():
        try:
            yield from _option(name, value)
        except ValueError as error:
            raise InputError(Problem(str(error), field=f"job.model_arguments.{name}")) from None
    yield "--seq-length", str(plan.training.sequence_length)


def _implied(shape: Mapping[str, Any]) -> Iterator[str]:
    """Yield what needs no option of its own, given the rest of the shape."""
    yield from ("shared_experts", "dense_layers", "capacity_factor")  # said by _experts
    if not shape.get("num_experts"):
        yield from ("num_experts", "experts_per_token", "moe_ffn_hidden_size")
    if shape.get("num_query_groups") == shape.get("num_attention_heads"):
        yield "num_query_groups"  # plain multi-head attention
    if shape.get("latent_attention"):
        yield from ("head_dim", "num_query_groups")  # has widths of its own
    elif shape.get("head_dim") and shape["head_dim"] * shape.get("num_attention_heads", 0) == shape.get("hidden_size"):
        yield "head_dim"  # Megatron-LM's own default


def _experts(shape: Mapping[str, Any]) -> Iterator[Option]:
    if not shape.get("num_experts"):
        return
    if shape.get("capacity_factor") is not None:
        yield "--moe-expert-capacity-factor", str(shape["capacity_factor"])
    shared, dense, layers = shape.get("shared_experts"), shape.get("dense_layers"), shape.get("num_layers")
    if shared:
        width = shape.get("moe_ffn_hidden_size") or shape["ffn_hidden_size"]
        yield "--moe-shared-expert-intermediate-size", str(shared * width)
    if dense:
        yield "--moe-layer-freq", f"([0]*{dense}+[1]*{layers - dense})"


def _option(name: str, value: Any) -> list[Option]:
    if name not in _MODEL:
        raise ValueError("Megatron-LM has no option for it" + nearest(name, _MODEL))
    options = _MODEL[name](value)
    if name == "num_query_groups" and options:
        return [("--group-query-attention",), *options]
    return options


def _sharding(plan: Plan) -> Iterator[Option]:
    sharding = plan.plan
    yield "--tensor-model-parallel-size", str(sharding.tp)
    if sharding.sequence_parallel:
        yield ("--sequence-parallel",)
    yield "--pipeline-model-parallel-size", str(sharding.pp)
    yield from _pipeline(plan)
    if sharding.cp > 1:
        yield "--context-parallel-size", str(sharding.cp)
        if sharding.context_exchange != "p2p":
            yield "--cp-comm-type", sharding.context_exchange
    if plan.job.model_arguments.get("num_experts"):
        yield "--expert-model-parallel-size", str(sharding.ep)
        yield "--moe-token-dispatcher-type", "alltoall"
    order: tuple[str, ...] = tuple(axis for axis in plan.placement.order if axis != "ep")
    if order not in _RANK_ORDER:
        message = f"Megatron-LM cannot order its ranks {'-'.join(order)}; it has tp-cp-dp-pp and tp-cp-pp-dp"
        raise InputError(Problem(message, field="placement.order"))
    if _RANK_ORDER[order]:
        yield ("--use-tp-pp-dp-mapping",)


def _pipeline(plan: Plan) -> Iterator[Option]:
    """Say how layers are cut into stages; cuts that count embedding and loss need Core 0.11, a layout needs 0.13."""
    sharding, layers = plan.plan, plan.job.model_arguments.get("num_layers")
    stages = sharding.pp * sharding.vpp
    if layers is None or stages == 1:
        return
    if sharding.stage_layers:
        yield "--pipeline-model-parallel-layout", stage_layout(sharding.stage_layers)
        return
    if stages > layers:
        message = f"{layers} layers cannot be cut into {sharding.pp} x {sharding.vpp} stages"
        raise InputError(Problem(message, field="plan.pp"))
    if layers % stages == 0:
        if sharding.vpp > 1:
            yield "--num-layers-per-virtual-pipeline-stage", str(layers // stages)
    elif (layers + 2) % stages == 0:
        yield ("--account-for-embedding-in-pipeline-split",)
        yield ("--account-for-loss-in-pipeline-split",)
        if sharding.vpp > 1:
            yield "--num-virtual-stages-per-pipeline-rank", str(sharding.vpp)
    else:
        yield "--pipeline-model-parallel-layout", even_layout(layers, stages)


def even_layout(layers: int, stages: int) -> str:
    """Return ``Et*11|t*11|t*10L``: layers spread evenly, the stage with the loss last to get one more than others."""
    least, extra = divmod(layers, stages)
    longer = [*range(1, stages - 1), 0][:extra]
    return stage_layout([least + (stage in longer) for stage in range(stages)])


def stage_layout(stage_layers: Sequence[int]) -> str:
    """Return the layout of stages with so many layers each, in the order of layers: ``Et*11|t*11|t*10L``."""
    return "E" + "|".join(f"t*{layers}" if layers else "" for layers in stage_layers) + "L"


def _memory(plan: Plan) -> Iterator[Option]:
    sharding = plan.plan
    if sharding.zero >= 1:
        yield ("--use-distributed-optimizer",)
    if sharding.copies > 1:
        yield "--num-distributed-optimizer-instances", str(sharding.copies)
    if sharding.zero >= 2:
        strategy = "optim_grads" if sharding.zero == 2 else "optim_grads_params"
        yield ("--use-megatron-fsdp",)
        yield "--data-parallel-sharding-strategy", strategy
        yield "--ckpt-format", "fsdp_dtensor"
    elif sharding.dp * sharding.cp > 1:
        yield ("--overlap-grad-reduce",)
        if sharding.zero == 1:
            yield ("--overlap-param-gather",)
    if sharding.offload == "cpu":
        yield ("--optimizer-cpu-offload",)
        yield ("--use-precision-aware-optimizer",)
    if sharding.recompute_mlp != "none":
        yield "--recompute-granularity", "selective"
        yield ("--recompute-modules", *recompute_modules(plan))
        if sharding.recompute_mlp == "activation":
            yield ("--moe-grouped-gemm",)
    elif sharding.recompute == "selective":
        yield "--recompute-granularity", "selective"
    elif sharding.recompute == "full":
        method, layers = recompute_method(sharding)
        yield "--recompute-granularity", "full"
        yield "--recompute-method", method
        yield "--recompute-num-layers", str(layers)


def recompute_modules(plan: Plan) -> list[str]:
    """Return which modules are recomputed selectively: attention's kernel, and of MLPs or experts what the plan says.

    Raises:
        InputError: the activation alone, without experts: Megatron Core has that of experts only (Core 0.12).
    """
    sharding, shape = plan.plan, plan.job.model_arguments
    modules = ["core_attn"] if sharding.recompute == "selective" else []
    experts, dense = bool(shape.get("num_experts")), shape.get("dense_layers") or 0
    if sharding.recompute_mlp == "activation":
        if not experts:
            message = "Megatron Core recomputes the activation alone in experts only; 'all' recomputes plain MLPs"
            raise InputError(Problem(message, field="plan.recompute_mlp"))
        return [*modules, "moe_act"]
    return [*modules, *["moe"] * experts, *["mlp"] * (not experts or dense > 0)]


def recompute_method(sharding: Sharding) -> tuple[str, int]:
    """Return how layers are recomputed in full: all, in blocks of so many, or so many of each virtual stage."""
    if sharding.recompute_layers is None:
        return "uniform", sharding.recompute_block or 1
    return "block", sharding.recompute_layers // sharding.vpp


def _precision(plan: Plan) -> Iterator[Option]:
    options: dict[str, list[Option]] = {
        "fp32": [],
        "fp16": [("--fp16",)],
        "bf16": [("--bf16",)],
        "fp8": [("--bf16",), ("--fp8-format", "hybrid"), ("--fp8-recipe", "tensorwise")],
        "fp8-delayed": [("--bf16",), ("--fp8-format", "hybrid")],  # the default of every release
        "fp8-blockwise": [("--bf16",), ("--fp8-format", "e4m3"), ("--fp8-recipe", "blockwise")],
        "mxfp8": [("--bf16",), ("--fp8-format", "e4m3"), ("--fp8-recipe", "mxfp8")],
        "fp4": [("--bf16",), ("--fp4-format", "e2m1")],
    }
    if plan.plan.precision not in options:
        message = f"Megatron-LM has no option for {plan.plan.precision}" + nearest(plan.plan.precision, options)
        raise InputError(Problem(message, field="plan.precision"))
    yield from options[plan.plan.precision]


def _data(plan: Plan) -> Iterator[Option]:
    if plan.job.data:
        yield ("--data-path", *plan.job.data)
    else:
        yield ("--mock-data",)


def _stand_ins(plan: Plan, own: list[str]) -> Iterator[Option]:
    """Return what a run on mock data needs to start at all, where the trainer's own command does not say it."""
    if plan.job.data:
        return
    given = {word.partition("=")[0] for word in own}
    for option in (("--tokenizer-type", "NullTokenizer"), ("--lr", "1.0e-4"), ("--eval-iters", "0")):
        if option[0] not in given:
            yield option


def missing(plan: Plan) -> list[str]:
    """Return what Megatron-LM will ask for and neither the plan nor the trainer's own command says."""
    if not plan.job.data:
        return []
    given = {word.partition("=")[0] for word in plan.job.command}
    needed = {"--lr": "a learning rate", "--tokenizer-type": "a tokenizer"}
    return [f"{name} ({what})" for name, what in needed.items() if name not in given]


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables that Megatron-LM insists on.

    Up to Hopper, tensor and context parallelism need ``CUDA_DEVICE_MAX_CONNECTIONS=1``, for kernels to start in the
    order in which they were issued; Megatron-FSDP refuses to start with it.
    """
    sharding = plan.plan
    if sharding.zero < 2 and (sharding.tp > 1 or sharding.cp > 1):
        return {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    return {}
