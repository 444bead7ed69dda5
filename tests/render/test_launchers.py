"""What each framework's configuration says of a plan, and what is refused because it cannot say it."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from hpcplan.errors import InputError
from hpcplan.frameworks import FRAMEWORKS, Framework
from hpcplan.plan import Plan
from hpcplan.render import render_plan
from hpcplan.render.launchers import launch_of
from tests.render import plans
from tests.render.sites import framework_plan

MOE = plans.MIXTRAL


def planned(framework: Framework, *, model: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """Return a plan on 4 nodes of 8 GPUs with a sharding changed; ``dp`` takes what the other axes leave."""
    order = changes.pop("order", None)
    base = {
        "tp": 1, "pp": 1, "vpp": 1, "cp": 1, "ep": 1, "micro_batch": 1, "micro_batches": 8, "zero": 1,
        "recompute": "none", "sequence_parallel": False, "nodes": 4, "gpus": 32,
    }  # fmt: skip
    sizes: dict[str, Any] = base | changes
    sizes["dp"] = 32 // (sizes["tp"] * sizes["pp"] * sizes["cp"])
    sharding = plans.sharding(**sizes)
    batch = sharding.dp * sharding.micro_batch * sharding.micro_batches
    plan = framework_plan(framework, "lab", plan=sharding, training=plans.training(global_batch=batch, steps=300))
    update: dict[str, Any] = {}
    if model is not None:
        update["job"] = plan.job.model_copy(update={"model_arguments": model})
    if order is not None:
        update["placement"] = plan.placement.model_copy(update={"order": order})
    return plan.model_copy(update=update)


def titan(**changes: Any) -> dict[str, Any]:
    return tomllib.loads(render_plan(planned("torchtitan", **changes))["torchtitan.toml"])


def deepspeed(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render_plan(planned("deepspeed", **changes))["deepspeed.json"])
    return found


def accelerate(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render_plan(planned("accelerate", **changes))["accelerate.yaml"])
    return found


def bridge(**changes: Any) -> dict[str, str]:
    words = [word for group in launch_of(planned("nemo", **changes)).command for word in group]
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_torchtitan_counts_stages_micro_batches_and_layers() -> None:
    found = titan(tp=2, pp=4, vpp=2, zero=3, sequence_parallel=True, micro_batch=2, recompute="full")
    assert found["parallelism"] == {
        "data_parallel_replicate_degree": 1, "data_parallel_shard_degree": 4, "fsdp_reshard_after_forward": "always",
        "tensor_parallel_degree": 2, "context_parallel_degree": 1, "expert_parallel_degree": 1,
        "expert_tensor_parallel_degree": 1, "pipeline_parallel_degree": 4,
        "pipeline_parallel_schedule": "Interleaved1F1B", "pipeline_parallel_microbatch_size": 2,
        "pipeline_parallel_layers_per_stage": 10, "pipeline_parallel_first_stage_less_layers": 0,
        "pipeline_parallel_last_stage_less_layers": 0,
    }  # fmt: skip
    assert (found["training"]["local_batch_size"], found["training"]["global_batch_size"]) == (16, 64)
    assert found["activation_checkpoint"] == {"mode": "full"}


def test_torchtitan_accumulates_without_a_pipeline_and_shards_as_zero_says() -> None:
    found = titan(zero=2, micro_batch=2)
    assert (found["training"]["local_batch_size"], found["training"]["global_batch_size"]) == (2, 512)
    assert found["parallelism"]["fsdp_reshard_after_forward"] == "never"
    assert titan(zero=0)["parallelism"]["data_parallel_replicate_degree"] == 32


def test_torchtitans_model_is_known_by_its_shape_whatever_the_workload_is_called() -> None:
    plan = planned("torchtitan", zero=3)
    named = plan.model_copy(update={"training": plan.training.model_copy(update={"model": "my run"})})
    assert tomllib.loads(render_plan(named)["torchtitan.toml"])["model"] == {"name": "llama3", "flavor": "70B"}
    with pytest.raises(InputError, match=r"torchtitan has no flavor for .*--model.name and --model.flavor"):
        titan(zero=3, model={**plans.LLAMA_70B, "hidden_size": 8000})


def test_torchtitan_names_the_layers_of_uneven_stages() -> None:
    found = titan(pp=4, zero=2, stage_layers=(19, 21, 21, 19))
    parts = found["parallelism"]["module_fqns_per_model_part"]
    assert [sum(name.startswith("layers.") for name in part) for part in parts] == [19, 21, 21, 19]
    assert (parts[0][0], parts[1][0], parts[3][-2:]) == ("tok_embeddings", "layers.19", ["norm", "output"])


def test_torchtitans_experts_are_split_by_tensor_parallelism_too_as_the_plan_has_it() -> None:
    parallelism = titan(tp=2, ep=8, zero=3, sequence_parallel=True)["parallelism"]
    assert (parallelism["expert_parallel_degree"], parallelism["expert_tensor_parallel_degree"]) == (8, 2)


def test_deepspeeds_batch_is_consistent_and_zero_offloads_where_the_plan_says() -> None:
    found = deepspeed(tp=2, zero=3, micro_batch=2, offload="nvme", recompute="full")
    assert found["train_batch_size"] == 16 * 2 * 8
    assert (found["train_micro_batch_size_per_gpu"], found["gradient_accumulation_steps"]) == (2, 8)
    assert found["tensor_parallel"] == {"autotp_size": 2}
    assert found["zero_optimization"]["stage"] == 3
    assert found["zero_optimization"]["offload_optimizer"]["device"] == "nvme"
    assert found["bf16"] == {"enabled": True}
    assert "activation_checkpointing" in found


def test_deepspeeds_pipeline_and_experts() -> None:
    assert deepspeed(pp=4, recompute="full")["pipeline"] == {"stages": 4, "activation_checkpoint_interval": 1}
    assert deepspeed(ep=8, model=MOE)["expert_parallel"] == {"enabled": True, "autoep_size": 8}


def test_accelerates_mesh_has_every_axis() -> None:
    found = accelerate(tp=2, cp=2, zero=2, recompute="full", offload="cpu")
    assert found["parallelism_config"] == {
        "parallelism_config_dp_replicate_size": 1,
        "parallelism_config_dp_shard_size": 8,
        "parallelism_config_tp_size": 2,
        "parallelism_config_cp_size": 2,
        "parallelism_config_cp_comm_strategy": "allgather",
    }
    fsdp = found["fsdp_config"]
    assert (fsdp["fsdp_version"], fsdp["fsdp_reshard_after_forward"], fsdp["fsdp_offload_params"]) == (2, False, True)
    assert (found["distributed_type"], found["num_processes"], found["mixed_precision"]) == ("FSDP", 32, "bf16")
    assert accelerate(zero=0)["distributed_type"] == "MULTI_GPU"


@pytest.mark.parametrize(
    ("precision", "name"),
    [
        ("fp8", "fp8_current_scaling"), ("fp8-delayed", "fp8_delayed_scaling"), ("mxfp8", "mxfp8"),
        ("fp8-blockwise", "fp8_subchannel_scaling"), ("fp4", "nvfp4"),
    ],
)  # fmt: skip
def test_bridge_is_told_how_narrow_values_are_scaled(precision: str, name: str) -> None:
    assert bridge(precision=precision)["mixed_precision"] == f"bf16_with_{name}_mixed"


def test_bridge_overrides_say_the_whole_plan() -> None:
    found = bridge(tp=2, pp=4, vpp=5, cp=2, zero=1, recompute="full", sequence_parallel=True, precision="fp8")
    assert found.items() >= {
        "model.tensor_model_parallel_size": "2", "model.pipeline_model_parallel_size": "4",
        "model.virtual_pipeline_model_parallel_size": "5", "model.context_parallel_size": "2",
        "model.sequence_parallel": "true", "model.recompute_granularity": "full", "model.recompute_num_layers": "1",
        "mixed_precision": "bf16_with_fp8_current_scaling_mixed", "ddp.use_distributed_optimizer": "true",
        "train.micro_batch_size": "1", "train.global_batch_size": "16", "train.train_iters": "300",
        "dataset.seq_length": "8192", "checkpoint.save_interval": "100", "train.exit_signal_handler": "true",
    }.items()  # fmt: skip


def test_bridge_cuts_uneven_stages_by_a_layout() -> None:
    assert bridge(pp=2, stage_layers=(39, 41))["model.pipeline_model_parallel_layout"] == "Et*39|t*41L"
    uneven = bridge(pp=4, model={**plans.LLAMA_70B, "num_layers": 79})
    assert uneven["model.pipeline_model_parallel_layout"] == "Et*20|t*20|t*20|t*19L"
    embedding = bridge(pp=8, model={**plans.LLAMA_70B, "num_layers": 126})
    assert embedding["model.account_for_embedding_in_pipeline_split"] == "true"
    assert "model.pipeline_model_parallel_layout" not in embedding


def test_bridge_shards_parameters_with_megatron_fsdp() -> None:
    found = bridge(zero=3)
    assert found["ddp.data_parallel_sharding_strategy"] == "optim_grads_params"
    assert (found["ddp.use_megatron_fsdp"], found["checkpoint.ckpt_format"]) == ("true", "fsdp_dtensor")


def megatron_options(**changes: Any) -> dict[str, tuple[str, ...]]:
    options = launch_of(planned("megatron-lm", **changes)).command[1:]
    return {name: tuple(values) for name, *values in options}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_megatrons_groups_are_instances_of_its_optimizer(zero: int) -> None:
    found = megatron_options(zero=zero, shard_group=8)
    assert found["--num-distributed-optimizer-instances"] == ("4",)
    assert bridge(zero=zero, shard_group=8)["ddp.num_distributed_optimizer_instances"] == "4"
    assert "--num-distributed-optimizer-instances" not in megatron_options(zero=zero)


def test_torchtitan_accelerate_and_deepspeed_have_copies_of_groups() -> None:
    found = titan(zero=3, cp=2, shard_group=8)["parallelism"]
    assert (found["data_parallel_replicate_degree"], found["data_parallel_shard_degree"]) == (4, 4)
    found = accelerate(zero=3, tp=2, cp=2, shard_group=8)["parallelism_config"]
    assert found["parallelism_config_dp_replicate_size"] == 2
    assert found["parallelism_config_dp_shard_size"] == 4
    assert deepspeed(zero=3, shard_group=8)["zero_optimization"]["mics_shard_size"] == 8
    assert "mics_shard_size" not in deepspeed(zero=3)["zero_optimization"]


def test_some_layers_are_recomputed_as_each_framework_counts_them() -> None:
    """Megatron-LM counts those of a virtual stage; torchtitan takes every n-th of the 20 that a rank holds."""
    found = megatron_options(pp=4, vpp=5, recompute="full", recompute_layers=10)
    assert (found["--recompute-method"], found["--recompute-num-layers"]) == (("block",), ("2",))
    assert bridge(pp=4, recompute="full", recompute_layers=7)["model.recompute_num_layers"] == "7"
    for layers, every in ((10, "2"), (6, "3"), (5, "4"), (1, "11")):
        found = titan(pp=4, zero=3, recompute="full", recompute_layers=layers)["activation_checkpoint"]
        assert found == {"mode": "selective", "selective_ac_option": every}
        assert 20 // int(every) == layers
    uneven = titan(pp=4, zero=3, stage_layers=(19, 21, 21, 19), recompute="full", recompute_layers=7)
    assert uneven["activation_checkpoint"]["selective_ac_option"] == "3"
    assert titan(zero=3, recompute="full")["activation_checkpoint"] == {"mode": "full"}


def test_weights_are_kept_once_more_by_groups_of_deepspeed() -> None:
    assert deepspeed(zero=3, secondary_group=8)["zero_optimization"]["zero_hpz_partition_size"] == 8
    assert "zero_hpz_partition_size" not in deepspeed(zero=3)["zero_optimization"]


def test_what_deepspeed_sends_in_fewer_bits_has_a_key_of_its_own() -> None:
    zero = deepspeed(zero=3, quantized="both")["zero_optimization"]
    assert zero["zero_quantized_weights"] is zero["zero_quantized_gradients"] is True
    assert "zero_quantized_gradients" not in deepspeed(zero=3, quantized="weights")["zero_optimization"]
    assert "zero_quantized_weights" not in deepspeed(zero=3)["zero_optimization"]


def test_mlps_that_are_run_again_are_modules_of_selective_recomputation() -> None:
    """Megatron Core's "mlp" is a plain one, "moe" a layer of experts, "moe_act" what follows its first product."""
    found = megatron_options(recompute="selective", recompute_mlp="all")
    assert found["--recompute-granularity"] == ("selective",)
    assert found["--recompute-modules"] == ("core_attn", "mlp")
    assert megatron_options(recompute_mlp="all")["--recompute-modules"] == ("mlp",)
    assert megatron_options(ep=8, model=MOE, recompute_mlp="all")["--recompute-modules"] == ("moe",)
    some_plain = MOE | {"dense_layers": 2}
    assert megatron_options(ep=8, model=some_plain, recompute_mlp="all")["--recompute-modules"] == ("moe", "mlp")
    activation = megatron_options(ep=8, model=MOE, recompute_mlp="activation")
    assert activation["--recompute-modules"] == ("moe_act",)
    assert "--moe-grouped-gemm" in activation
    scaled = {"ep": 8, "model": MOE, "recompute_mlp": "activation"}
    assert megatron_options(precision="fp8", **scaled)["--fp8-recipe"] == ("tensorwise",)
    with pytest.raises(InputError, match="cannot recompute the activation alone in fp8-delayed"):
        megatron_options(precision="fp8-delayed", **scaled)
    assert "--recompute-modules" not in megatron_options(recompute="selective")
    with pytest.raises(InputError, match="in experts only") as caught:
        megatron_options(recompute_mlp="activation")
    assert caught.value.problems[0].field == "plan.recompute_mlp"
    assert bridge(recompute="selective", recompute_mlp="all")["model.recompute_modules"] == "[core_attn,mlp]"


def test_context_parallel_ranks_come_by_keys_as_the_plan_says() -> None:
    assert megatron_options(cp=2, context_exchange="all_gather")["--cp-comm-type"] == ("all_gather",)
    assert "--cp-comm-type" not in megatron_options(cp=2)
    assert bridge(cp=2, context_exchange="a2a")["model.cp_comm_type"] == "a2a"
    script = render_plan(planned("srun", cp=2, context_exchange="a2a"))["train-01.sbatch"]
    assert "export HPCPLAN_CONTEXT_EXCHANGE=a2a" in script


def test_layers_share_a_checkpoint_as_each_framework_says_it() -> None:
    found = megatron_options(pp=4, vpp=5, recompute="full", recompute_block=2)
    assert (found["--recompute-method"], found["--recompute-num-layers"]) == (("uniform",), ("2",))
    assert bridge(pp=4, recompute="full", recompute_block=5)["model.recompute_num_layers"] == "5"
    pipeline = deepspeed(pp=4, recompute="full", recompute_block=5)["pipeline"]
    assert pipeline == {"stages": 4, "activation_checkpoint_interval": 5}


def test_a_capacity_factor_reaches_the_experts() -> None:
    model = MOE | {"capacity_factor": 1.25}
    assert megatron_options(ep=8, model=model)["--moe-expert-capacity-factor"] == ("1.25",)
    assert "--moe-expert-capacity-factor" not in megatron_options(ep=8, model=MOE)
    assert bridge(ep=8, model=model)["model.moe_expert_capacity_factor"] == "1.25"
    assert bridge(ep=8, model=MOE)["model.moe_expert_capacity_factor"] == "null", "a recipe may have another"
    assert "export HPCPLAN_CAPACITY_FACTOR=1.25" in render_plan(planned("srun", model=model))["train-01.sbatch"]


@pytest.mark.parametrize("framework", ["deepspeed", "torchtitan", "accelerate"])
def test_experts_of_other_frameworks_get_no_capacity(framework: Framework) -> None:
    with pytest.raises(InputError, match="gives its experts no capacity; megatron-lm or nemo or") as caught:
        render_plan(planned(framework, zero=3, model=MOE | {"capacity_factor": 1.25}))
    assert caught.value.problems[0].field == "job.model_arguments.capacity_factor"


def test_the_mesh_of_jax_is_in_the_order_of_ranks() -> None:
    mesh = json.loads(render_plan(planned("jax", tp=4, pp=2, ep=8, order=("tp", "cp", "pp", "dp")))["mesh.json"])
    assert (mesh["axes"], mesh["shape"], mesh["expert_parallel"]) == (["dp", "pp", "cp", "tp"], [4, 2, 1, 4], 8)


@pytest.mark.parametrize(
    ("framework", "changes", "field"),
    [
        ("deepspeed", {"pp": 2, "zero": 2}, "plan.zero"),
        ("deepspeed", {"cp": 2}, "plan.cp"),
        ("deepspeed", {"tp": 2, "ep": 8, "model": MOE}, "plan.ep"),
        ("deepspeed", {"tp": 2, "order": ("dp", "tp", "cp", "pp")}, "placement.order"),
        ("torchtitan", {"tp": 2, "zero": 3}, "plan.sequence_parallel"),
        ("torchtitan", {"zero": 1}, "plan.zero"),
        ("torchtitan", {"tp": 2, "zero": 3, "sequence_parallel": True, "order": ("tp", "pp", "cp", "dp")},
         "placement.order"),
        ("accelerate", {"pp": 2, "zero": 2}, "plan.pp"),
        ("accelerate", {"zero": 0, "tp": 2}, "plan.zero"),
        ("nemo", {"pp": 2, "zero": 3, "order": ("tp", "cp", "pp", "dp")}, "placement.order"),
        ("nemo", {"precision": "int8"}, "plan.precision"),
        ("tensorflow", {"zero": 0}, "plan.micro_batches"),
        ("tensorflow", {"zero": 0, "tp": 2, "micro_batches": 1}, "plan.tp"),
        ("megatron-lm", {"order": ("pp", "tp", "cp", "dp"), "pp": 2}, "placement.order"),
        ("megatron-lm", {"zero": 0, "shard_group": 8}, "plan.shard_group"),
        ("megatron-lm", {"shard_group": 5}, "plan.shard_group"),
        ("megatron-lm", {"shard_group": 32}, "plan.shard_group"),
        ("megatron-lm", {"ep": 8, "shard_group": 4, "model": MOE}, "plan.shard_group"),
        ("megatron-lm", {"pp": 4, "vpp": 5, "recompute": "full", "recompute_layers": 7}, "plan.recompute_layers"),
        ("nemo", {"recompute": "selective", "recompute_layers": 7}, "plan.recompute_layers"),
        ("torchtitan", {"pp": 4, "zero": 3, "recompute": "full", "recompute_layers": 9}, "plan.recompute_layers"),
        ("deepspeed", {"recompute": "full", "recompute_layers": 7}, "plan.recompute_layers"),
        ("deepspeed", {"recompute": "full", "recompute_block": 2}, "plan.recompute_block"),
        ("deepspeed", {"zero": 2, "secondary_group": 8}, "plan.secondary_group"),
        ("deepspeed", {"zero": 3, "secondary_group": 7}, "plan.secondary_group"),
        ("megatron-lm", {"zero": 3, "secondary_group": 8}, "plan.secondary_group"),
        ("torchtitan", {"zero": 3, "recompute": "full", "recompute_block": 2}, "plan.recompute_block"),
        ("megatron-lm", {"recompute": "selective", "recompute_block": 2}, "plan.recompute_block"),
        ("deepspeed", {"zero": 2, "quantized": "both"}, "plan.quantized"),
        ("megatron-lm", {"zero": 3, "quantized": "weights"}, "plan.quantized"),
        ("torchtitan", {"zero": 3, "recompute_mlp": "all"}, "plan.recompute_mlp"),
        ("megatron-lm", {"recompute": "full", "recompute_mlp": "all"}, "plan.recompute_mlp"),
        ("megatron-lm", {"context_exchange": "a2a"}, "plan.context_exchange"),
        ("torchtitan", {"zero": 3, "cp": 2, "context_exchange": "a2a"}, "plan.context_exchange"),
        ("deepspeed", {"zero": 2, "shard_group": 8}, "plan.shard_group"),
        ("deepspeed", {"zero": 3, "tp": 2, "shard_group": 8}, "plan.shard_group"),
        ("accelerate", {"zero": 2, "recompute": "full", "recompute_layers": 7}, "plan.recompute_layers"),
        ("accelerate", {"zero": 3, "cp": 4, "shard_group": 4}, "plan.shard_group"),
    ],
)  # fmt: skip
def test_what_a_framework_cannot_say_is_refused_by_field(
    framework: Framework, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        render_plan(planned(framework, **changes))
    assert [problem.field for problem in caught.value.problems] == [field]
    assert FRAMEWORKS[framework].title.split()[-1] in caught.value.problems[0].message


@pytest.mark.parametrize(
    ("framework", "word"),
    [
        ("megatron-lm", "--tensor-model-parallel-size"),
        ("nemo", "model.pipeline_model_parallel_size=2"),
        ("nemo", "--save_dir"),
        ("deepspeed", "--deepspeed_config=mine.json"),
        ("torchtitan", "--training.steps"),
    ],
)
def test_a_command_that_sets_what_the_plan_decides_is_refused(framework: Framework, word: str) -> None:
    plan = framework_plan(framework, "lab")
    command = (*plan.job.command, word, "1")
    with pytest.raises(InputError, match="is decided by the plan"):
        render_plan(plan.model_copy(update={"job": plan.job.model_copy(update={"command": command})}))
