"""A Plan as torchtitan's TOML (``torchtitan/config/job_config.py``), for 0.2, the last release that reads TOML.

A rank's batch of one step is ``local_batch_size``; what is missing to ``global_batch_size`` is accumulated. With a
pipeline the local batch is cut into micro-batches of ``pipeline_parallel_microbatch_size``, so there it is the whole
share of the rank. Expert parallelism borrows ranks of data and context parallelism, as in the plan, where experts are
split by tensor parallelism like the rest; left alone, torchtitan would borrow those ranks, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from hpcplan.plan import Plan
from hpcplan.render.launchers.launch import Launch, groups, own_words, refuse, refuse_decided

__all__ = ["CONFIG", "FLAVORS", "config", "launch"]

CONFIG: Final = "torchtitan.toml"
# torchtitan/models/*/__init__.py of 0.2: models by layers, width, attention heads, vocabulary and experts
FLAVORS: Final = {
    (32, 4096, 32, 128256, None): ("llama3", "8B"),
    (80, 8192, 64, 128256, None): ("llama3", "70B"),
    (126, 16384, 128, 128256, None): ("llama3", "405B"),
    (61, 7168, 128, 129280, 256): ("deepseek_v3", "671B"),
}
_SHAPE: Final = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "num_experts")
_SCHEDULES: Final = {
    ("1f1b", False): "1F1B",
    ("1f1b", True): "Interleaved1F1B",
    ("gpipe", False): "GPipe",
    ("zero-bubble", False): "InterleavedZeroBubble",
    ("zero-bubble", True): "InterleavedZeroBubble",
}


def launch(plan: Plan) -> Launch:
    """Return the trainer's words and ``torchtitan.toml``.

    Raises:
        InputError: a model that torchtitan does not have, an order of ranks or a cut into stages that it cannot make,
            or an option of the trainer's own that the plan decides.
    """
    words = own_words(plan)
    content = config(plan, words)
    decided = [f"--{section}.{key}" for section, values in content.items() for key in values]
    refuse_decided(words, [*decided, "--job.config_file", "--job.dump_folder"])
    order = tuple(axis for axis in plan.placement.order if axis != "ep")
    if order != ("tp", "cp", "dp", "pp"):
        raise refuse("placement.order", "torchtitan orders its ranks tp-cp-dp-pp, the fastest first, and no other way")
    return Launch(command=groups(words), configs={CONFIG: content}, notes=tuple(_notes(plan)))


def config(plan: Plan, words: list[str]) -> dict[str, dict[str, Any]]:
    """Return the content of ``torchtitan.toml``, by section; ``words`` may choose the model with ``--model.…``."""
    sharding, run = plan.plan, plan.training
    pipelined = sharding.pp > 1
    content: dict[str, dict[str, Any]] = {"job": {"description": plan.name}}
    content |= _model(plan, words)
    content["training"] = {
        "local_batch_size": sharding.micro_batch * (sharding.micro_batches if pipelined else 1),
        "global_batch_size": run.global_batch,
        "seq_len": run.sequence_length,
        "steps": run.steps,
        "mixed_precision_param": "float32" if sharding.precision == "fp32" else "bfloat16",
        "mixed_precision_reduce": "float32",
        "enable_cpu_offload": sharding.offload == "cpu",
    }
    content["parallelism"] = _parallelism(plan)
    content["activation_checkpoint"] = _recompute(plan)
    content["checkpoint"] = {
        "enable": True,
        "folder": "checkpoint",
        "interval": run.checkpoint_interval_steps,
        "last_save_model_only": False,
        "keep_latest_k": 2,
    }
    if sharding.precision == "fp8":
        content["quantize.linear.float8"] = {"recipe_name": "rowwise", "filter_fqns": ["output"]}
    return content


def _recompute(plan: Plan) -> dict[str, Any]:
    """Return how activations are recomputed: all layers, single operators, or every n-th of a rank's layers in full."""
    sharding = plan.plan
    if sharding.recompute_layers is None:
        option = {"selective_ac_option": "op"} if sharding.recompute == "selective" else {}
        return {"mode": sharding.recompute} | option
    layers = plan.job.model_arguments.get("num_layers")
    held = layers if layers is None else max(sharding.layers_of_ranks(layers))
    for every in range(2, (held or 0) + 1):
        if held and held // every == sharding.recompute_layers:
            return {"mode": "selective", "selective_ac_option": str(every)}
    message = (
        f"torchtitan recomputes every n-th layer, which of {held or 'an unknown number of'} layers a rank never makes"
    )
    raise refuse("plan.recompute_layers", f"{message} {sharding.recompute_layers}")


def _model(plan: Plan, words: list[str]) -> dict[str, dict[str, Any]]:
    given = {word.partition("=")[0] for word in words}
    section: dict[str, Any] = {}
    if not {"--model.name", "--model.flavor"} <= given:
        shape = tuple(plan.job.model_arguments.get(name) or None for name in _SHAPE)
        if shape not in FLAVORS:
            message = f"torchtitan has no flavor for {plan.training.model!r}; name one in the trainer's own command"
            raise refuse("training.model", f"{message}: --model.name and --model.flavor")
        name, flavor = FLAVORS[shape]
        section = {"name": name, "flavor": flavor}
    if plan.plan.precision == "fp8":
        section["converters"] = ["quantize.linear.float8"]
    return {"model": section} if section else {}


def _parallelism(plan: Plan) -> dict[str, Any]:
    sharding = plan.plan
    sharded = sharding.zero > 0
    content: dict[str, Any] = {
        "data_parallel_replicate_degree": sharding.copies if sharded else sharding.dp,
        "data_parallel_shard_degree": sharding.dp // sharding.copies if sharded else 1,
        "fsdp_reshard_after_forward": "always" if sharding.zero == 3 else "never",
        "tensor_parallel_degree": sharding.tp,
        "context_parallel_degree": sharding.cp,
        "expert_parallel_degree": sharding.ep,
        "expert_tensor_parallel_degree": sharding.tp if sharding.ep > 1 else 1,
        "pipeline_parallel_degree": sharding.pp,
    }
    if sharding.pp > 1:
        content |= _pipeline(plan)
    return content


def _pipeline(plan: Plan) -> dict[str, Any]:
    """Say how layers are cut into stages: the first and last may have fewer, for the embedding and the loss.

    torchtitan counts stages as ceil((layers + less at the first + less at the last) / layers a stage).
    """
    sharding, layers = plan.plan, plan.job.model_arguments.get("num_layers")
    stages = sharding.pp * sharding.vpp
    content: dict[str, Any] = {
        "pipeline_parallel_schedule": _SCHEDULES[(sharding.schedule, sharding.vpp > 1)],
        "pipeline_parallel_microbatch_size": sharding.micro_batch,
    }
    if sharding.stage_layers:
        content["module_fqns_per_model_part"] = _parts(sharding.stage_layers)
        return content
    if layers is None:
        return content
    for less in (0, 1):
        each = math.ceil((layers + 2 * less) / stages)
        if math.ceil((layers + 2 * less) / each) == stages and each > less:
            return content | {
                "pipeline_parallel_layers_per_stage": each,
                "pipeline_parallel_first_stage_less_layers": less,
                "pipeline_parallel_last_stage_less_layers": less,
            }
    raise refuse("plan.pp", f"torchtitan cannot cut {layers} layers into {sharding.pp} x {sharding.vpp} stages")


def _parts(stage_layers: tuple[int, ...]) -> list[list[str]]:
    """Return the modules of each part by name, as the models of torchtitan call them."""
    parts, first = [], 0
    for layers in stage_layers:
        parts.append([f"layers.{index}" for index in range(first, first + layers)])
        first += layers
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", "output"]
    return parts


def _notes(plan: Plan) -> Iterator[str]:
    yield (
        "torchtitan does not save when it is told to stop: a job cut by its time limit goes back to the last of its "
        f"checkpoints, at most {plan.training.checkpoint_interval_steps} steps"
    )
