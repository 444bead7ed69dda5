"""A plan in Megatron-LM's words."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from hpcplan.errors import InputError
from hpcplan.plan import Placement, Plan
from hpcplan.render.megatron import environment, launch_words, missing, plan_options


def options(plan: Plan) -> dict[str, tuple[str, ...]]:
    given = {option[0]: option[1:] for option in plan_options(plan)}
    assert len(given) == len(plan_options(plan)), "an option was given twice"
    return given


def with_sharding(plans: ModuleType, **changes: Any) -> Plan:
    plan: Plan = plans.plan(plan=plans.sharding(**changes))
    return plan


def test_llama3_70b_says_the_whole_plan(plans: ModuleType) -> None:
    given = options(plans.plan())
    assert given == {
        "--num-layers": ("80",),
        "--hidden-size": ("8192",),
        "--num-attention-heads": ("64",),
        "--group-query-attention": (),
        "--num-query-groups": ("8",),
        "--ffn-hidden-size": ("28672",),
        "--vocab-size": ("128256",),
        "--max-position-embeddings": ("8192",),
        "--swiglu": (),
        "--normalization": ("RMSNorm",),
        "--position-embedding-type": ("rope",),
        "--untie-embeddings-and-output-weights": (),
        "--disable-bias-linear": (),
        "--seq-length": ("8192",),
        "--tensor-model-parallel-size": ("8",),
        "--sequence-parallel": (),
        "--pipeline-model-parallel-size": ("4",),
        "--num-layers-per-virtual-pipeline-stage": ("4",),
        "--use-distributed-optimizer": (),
        "--overlap-grad-reduce": (),
        "--overlap-param-gather": (),
        "--recompute-granularity": ("selective",),
        "--bf16": (),
        "--micro-batch-size": ("1",),
        "--global-batch-size": ("1024",),
        "--train-iters": ("2500",),
        "--save-interval": ("100",),
        "--exit-signal-handler": (),
        "--data-path": ("0.7", "/data/web_text_document", "0.3", "/data/code_text_document"),
    }


def test_a_gpt3_shape_has_biases_layernorm_and_tied_embeddings(plans: ModuleType) -> None:
    shape = plans.LLAMA_70B | {
        "gated": False, "normalization": "layernorm", "position_embedding": "learned", "tied_embeddings": True,
        "bias": True, "num_query_groups": 64,
    }  # fmt: skip
    given = options(plans.plan(job=plans.job(model_arguments=shape)))
    assert given["--normalization"] == ("LayerNorm",)
    assert given["--position-embedding-type"] == ("learned_absolute",)
    for absent in ("--swiglu", "--untie-embeddings-and-output-weights", "--disable-bias-linear"):
        assert absent not in given
    assert "--group-query-attention" not in given, "as many groups as heads is plain multi-head attention"


def test_experts_bring_their_own_axis(plans: ModuleType) -> None:
    plan = plans.plan(
        plan=plans.sharding(tp=2, pp=2, vpp=1, dp=32, ep=8, micro_batches=32),
        job=plans.job(model_arguments=plans.MIXTRAL),
    )
    given = options(plan)
    assert given["--num-experts"] == ("8",)
    assert given["--moe-router-topk"] == ("2",)
    assert given["--expert-model-parallel-size"] == ("8",)


def test_deepseek_v3_has_latent_attention_shared_experts_and_dense_first_layers(plans: ModuleType) -> None:
    latent = {
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    }  # fmt: skip
    shape = plans.LLAMA_70B | {
        "num_layers": 61, "hidden_size": 7168, "num_attention_heads": 128, "num_query_groups": 128, "head_dim": 128,
        "num_experts": 256, "experts_per_token": 8, "moe_ffn_hidden_size": 2048, "shared_experts": 2,
        "dense_layers": 3, "latent_attention": latent,
    }  # fmt: skip
    given = options(
        plans.plan(
            plan=plans.sharding(tp=2, pp=21, vpp=1, dp=1, cp=1, ep=1, nodes=21, gpus=42, gpus_per_node=2),
            job=plans.job(model_arguments=shape),
        )
    )
    assert given["--moe-layer-freq"] == ("([0]*3+[1]*58)",)
    assert given["--moe-shared-expert-intermediate-size"] == ("4096",)
    assert given["--moe-ffn-hidden-size"] == ("2048",)
    assert (given["--qk-head-dim"], given["--qk-pos-emb-head-dim"], given["--v-head-dim"]) == (
        ("128",),
        ("64",),
        ("128",),
    )
    assert "--multi-latent-attention" in given
    assert not {"--kv-channels", "--num-query-groups"} & set(given)


def test_a_head_width_of_its_own_is_said(plans: ModuleType) -> None:
    usual = plans.job(model_arguments=plans.LLAMA_70B | {"head_dim": 128})
    unusual = plans.job(model_arguments=plans.LLAMA_70B | {"head_dim": 256})
    assert "--kv-channels" not in options(plans.plan(job=usual))
    assert options(plans.plan(job=unusual))["--kv-channels"] == ("256",)


@pytest.mark.parametrize(
    ("precision", "words"),
    [
        ("fp32", set()),
        ("fp16", {"--fp16"}),
        ("bf16", {"--bf16"}),
        ("fp8", {"--bf16", "--fp8-format=hybrid", "--fp8-recipe=tensorwise"}),
        ("fp8-delayed", {"--bf16", "--fp8-format=hybrid"}),  # what Megatron-LM does if no recipe is named
        ("fp8-blockwise", {"--bf16", "--fp8-format=e4m3", "--fp8-recipe=blockwise"}),
        ("mxfp8", {"--bf16", "--fp8-format=e4m3", "--fp8-recipe=mxfp8"}),
        ("fp4", {"--bf16", "--fp4-format=e2m1"}),
    ],
)
def test_precision(precision: str, words: set[str], plans: ModuleType) -> None:
    given = options(with_sharding(plans, precision=precision))
    options_of_precision = ("--fp16", "--bf16", "--fp8-format", "--fp8-recipe", "--fp4-format")
    assert {"=".join((name, *given[name])) for name in options_of_precision if name in given} == words


@pytest.mark.parametrize(
    ("recompute", "words"),
    [
        ("none", {}),
        ("selective", {"--recompute-granularity": ("selective",)}),
        (
            "full",
            {
                "--recompute-granularity": ("full",),
                "--recompute-method": ("uniform",),
                "--recompute-num-layers": ("1",),
            },
        ),
    ],
)
def test_recomputation(recompute: str, words: dict[str, tuple[str, ...]], plans: ModuleType) -> None:
    given = options(with_sharding(plans, recompute=recompute))
    assert {name: value for name, value in given.items() if "recompute" in name} == words


@pytest.mark.parametrize(
    ("zero", "present", "absent"),
    [
        (0, {"--overlap-grad-reduce"}, {"--use-distributed-optimizer", "--overlap-param-gather"}),
        (1, {"--use-distributed-optimizer", "--overlap-param-gather"}, {"--use-megatron-fsdp"}),
        (2, {"--use-megatron-fsdp", "--data-parallel-sharding-strategy"}, {"--overlap-param-gather"}),
        (3, {"--use-megatron-fsdp", "--ckpt-format"}, {"--overlap-param-gather"}),
    ],
)
def test_optimizer_sharding(zero: int, present: set[str], absent: set[str], plans: ModuleType) -> None:
    given = set(options(with_sharding(plans, zero=zero)))
    assert present <= given
    assert not absent & given


def test_layers_that_divide_only_with_embedding_and_loss_are_cut_so(plans: ModuleType) -> None:
    job = plans.job(model_arguments=plans.LLAMA_70B | {"num_layers": 126})  # llama3-405b: 126 + 2 = 16 x 8
    given = options(plans.plan(plan=plans.sharding(pp=16, vpp=4, dp=1, micro_batches=1024), job=job))
    assert "--account-for-embedding-in-pipeline-split" in given
    assert "--account-for-loss-in-pipeline-split" in given
    assert given["--num-virtual-stages-per-pipeline-rank"] == ("4",)


@pytest.mark.parametrize(
    ("layers", "pp", "vpp", "layout"),
    [(32, 3, 1, "Et*11|t*11|t*10L"), (33, 4, 1, "Et*8|t*9|t*8|t*8L"), (11, 2, 2, "Et*3|t*3|t*3|t*2L")],
)
def test_layers_that_do_not_divide_are_laid_out_one_by_one(
    layers: int, pp: int, vpp: int, layout: str, plans: ModuleType
) -> None:
    job = plans.job(model_arguments=plans.LLAMA_70B | {"num_layers": layers})
    given = options(plans.plan(plan=plans.sharding(pp=pp, vpp=vpp), job=job))
    assert given["--pipeline-model-parallel-layout"] == (layout,)
    parts = [int(part.strip("EL").removeprefix("t*")) for part in layout.split("|")]
    assert sum(parts) == layers
    assert max(parts) == -(-layers // (pp * vpp))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"plan": {"precision": "tf32"}}, "plan.precision"),
        ({"plan": {"pp": 16, "dp": 1, "vpp": 6}}, "plan.pp"),
        ({"model": {"position_embedding": "alibi"}}, "job.model_arguments.position_embedding"),
        ({"model": {"state_space": 4}}, "job.model_arguments.state_space"),
        ({"order": ("dp", "tp", "cp", "pp")}, "placement.order"),
        ({"command": ("pretrain_gpt.py", "--micro-batch-size", "4")}, "job.command"),
        ({"command": ("pretrain_gpt.py", "--seq-length=4096")}, "job.command"),
    ],
)
def test_what_megatron_cannot_do_is_refused_by_field(changes: dict[str, Any], field: str, plans: ModuleType) -> None:
    job = plans.job(model_arguments=plans.LLAMA_70B | changes.get("model", {}))
    job = job.model_copy(update={"command": changes.get("command", job.command)})
    placement = Placement(partition="batch", node_group="dgx", order=changes.get("order", ("tp", "cp", "dp", "pp")))
    plan = plans.plan(plan=plans.sharding(**changes.get("plan", {})), job=job, placement=placement)
    with pytest.raises(InputError) as caught:
        launch_words(plan)
    assert caught.value.problems[0].field == field


def test_pipeline_before_data_parallelism_is_another_mapping(plans: ModuleType) -> None:
    placement = Placement(partition="batch", node_group="dgx", order=("tp", "cp", "pp", "dp"))
    assert "--use-tp-pp-dp-mapping" in options(plans.plan(placement=placement))
    assert "--use-tp-pp-dp-mapping" not in options(plans.plan())


def test_the_trainers_own_words_come_first_and_whole(plans: ModuleType) -> None:
    words = launch_words(plans.plan())
    assert words[0] == ("/opt/megatron-lm/pretrain_gpt.py",)
    assert words[1] == ("--lr", "1.5e-4")
    assert ("--tokenizer-model", "/models/llama 3") in words


def test_without_data_the_run_is_a_rehearsal_that_starts(plans: ModuleType) -> None:
    words = launch_words(plans.plan(job=plans.job(data=(), command=())))
    assert words[0] == ("pretrain_gpt.py",)
    assert {("--mock-data",), ("--tokenizer-type", "NullTokenizer"), ("--lr", "1.0e-4")} <= set(words)
    own = launch_words(plans.plan(job=plans.job(data=(), command=("python3", "my_gpt.py", "--lr=3e-4"))))
    assert own[0] == ("my_gpt.py",)
    assert [group for group in own if group[0].startswith("--lr")] == [("--lr=3e-4",)]


def test_what_nobody_says_is_named(plans: ModuleType) -> None:
    assert missing(plans.plan()) == []
    assert missing(plans.plan(job=plans.job(command=("pretrain_gpt.py",)))) == [
        "--lr (a learning rate)",
        "--tokenizer-type (a tokenizer)",
    ]
    assert missing(plans.plan(job=plans.job(command=(), data=()))) == []


def test_one_connection_where_tensor_parallelism_needs_it_and_fsdp_does_not_forbid_it(plans: ModuleType) -> None:
    assert environment(plans.plan()) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert environment(with_sharding(plans, zero=3)) == {}
    assert environment(with_sharding(plans, tp=1, dp=32)) == {}
