"""Plans written by hand, one a framework: what the planner would make, without needing it."""

from __future__ import annotations

from typing import Any

from hpcplan.plan import (
    Breakdown,
    Estimate,
    Job,
    MemoryBreakdown,
    Placement,
    Plan,
    Provenance,
    Search,
    Segment,
    Sharding,
    Source,
    TimeBreakdown,
    Training,
)
from hpcplan.site.model import Container, Environment

LLAMA_70B: dict[str, Any] = {
    "num_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_query_groups": 8,
    "ffn_hidden_size": 28672,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "gated": True,
    "normalization": "rmsnorm",
    "position_embedding": "rope",
    "tied_embeddings": False,
    "num_experts": None,
    "experts_per_token": None,
    "bias": False,
}
MIXTRAL: dict[str, Any] = {
    **LLAMA_70B,
    "num_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "ffn_hidden_size": 14336,
    "vocab_size": 32000,
    "num_experts": 8,
    "experts_per_token": 2,
}
H100_ENVIRONMENT = Environment(
    modules=("cuda/12.4", "nccl/2.21"),
    setup=("ulimit -l unlimited",),
    variables={"NCCL_IB_HCA": "mlx5_0,mlx5_1", "NCCL_SOCKET_IFNAME": "=bond0"},
)


def sharding(**changes: Any) -> Sharding:
    base: dict[str, Any] = {
        "tp": 8, "pp": 4, "vpp": 5, "dp": 4, "cp": 1, "ep": 1, "micro_batch": 1, "micro_batches": 256, "zero": 1,
        "recompute": "selective", "sequence_parallel": True, "precision": "bf16", "nodes": 16, "gpus": 128,
        "gpus_per_node": 8,
    }  # fmt: skip
    return Sharding(**(base | changes))


def segments(*lengths: int, time_limit_s: int = 86400, expected_s: float = 82800.5) -> tuple[Segment, ...]:
    chain: list[Segment] = []
    first = 1
    for index, steps in enumerate(lengths, start=1):
        chain.append(
            Segment(
                index=index,
                first_step=first,
                last_step=first + steps - 1,
                time_limit_s=time_limit_s,
                warning_s=min(240, time_limit_s // 2),
                expected_s=expected_s,
            )
        )
        first += steps
    return tuple(chain)


def training(**changes: Any) -> Training:
    base: dict[str, Any] = {
        "model": "llama3-70b", "parameters": 70_553_706_496, "sequence_length": 8192, "global_batch": 1024,
        "steps": 2500, "tokens": 20_971_520_000, "checkpoint_interval_steps": 100, "time_to_train_s": 226_000.0,
    }  # fmt: skip
    return Training(**(base | changes))


def _estimate(iter_time_s: float = 90.4) -> Estimate:
    times = dict.fromkeys(TimeBreakdown.model_fields, 0.0) | {"compute_s": iter_time_s}
    memory = dict.fromkeys(MemoryBreakdown.model_fields, 0.0) | {"parameters_bytes": 4e10}
    return Estimate(
        iter_time_s=iter_time_s, memory_bytes=4e10, tokens_per_s=92_000.0, mfu=0.42, low=85.0, high=96.0,
        breakdown=Breakdown(time=TimeBreakdown(**times), memory=MemoryBreakdown(**memory)),
    )  # fmt: skip


def _provenance() -> Provenance:
    source = Source(name="hand", path="tests/render/plans.py", sha256="0" * 64)
    return Provenance(hpcplan="0.1.0", site=source, workload=source, constants=source, command="by hand")


def plan(**changes: Any) -> Plan:
    """Return a plan for llama3-70b with Megatron-LM in three segments; ``changes`` replace whole fields."""
    base: dict[str, Any] = {
        "name": "llama3-70b",
        "plan": sharding(),
        "estimate": _estimate(),
        "search": Search(candidates=1, feasible=1, pruned={}, objective="step", why="the only one"),
        "training": training(),
        "placement": Placement(partition="batch", node_group="dgx", switches=1),
        "segments": segments(950, 950, 600),
        "job": job(),
        "provenance": _provenance(),
    }
    return Plan(**(base | changes))


def job(**changes: Any) -> Job:
    base: dict[str, Any] = {
        "name": "llama3-70b",
        "framework": "megatron-lm",
        "cpus_per_node": 112,
        "gres": "gpu:8",
        "gpu_request": "gres",
        "slurm_version": "23.11",
        "account": "nlp",
        "qos": None,
        "environment": H100_ENVIRONMENT,
        "command": (
            "/opt/megatron-lm/pretrain_gpt.py", "--lr", "1.5e-4", "--lr-decay-style", "cosine",
            "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", "/models/llama 3",
        ),
        "checkpoint_dir": "/scratch/nlp/llama3-70b",
        "data": ("0.7", "/data/web_text_document", "0.3", "/data/code_text_document"),
        "model_arguments": LLAMA_70B,
    }  # fmt: skip
    return Job(**(base | changes))


def torchrun_plan(**changes: Any) -> Plan:
    """Return a one-segment plan for PyTorch's own launcher, in a Pyxis container, on a site with --gpus-per-node."""
    container = Container(runtime="pyxis", image="nvcr.io#nvidia/pytorch:24.05-py3", mounts=("/data:/data:ro",))
    return plan(
        name="mixtral-8x7b",
        plan=sharding(
            tp=1, pp=1, vpp=1, dp=16, ep=8, micro_batches=4, zero=3, nodes=4, gpus=16, gpus_per_node=4,
            sequence_parallel=False,
        ),
        training=training(model="mixtral-8x7b", global_batch=64, steps=1000),
        placement=Placement(partition="gpu", node_group="a100", node_order=("a101", "a102", "a103", "a107")),
        segments=segments(1000, time_limit_s=172_800, expected_s=90_000.0),
        job=job(
            framework="torchrun", cpus_per_node=64, gres="gpu:a100:4", gpu_request="gpus-per-node", qos="long",
            environment=Environment(variables={"NCCL_NET_GDR_LEVEL": "PHB"}, container=container),
            variables={"HF_HOME": "/data/hugging face"}, setup=("pip install --no-deps -e .",),
            command=("python3", "train.py", "--config", "configs/mixtral 8x7b.toml"), checkpoint_dir="checkpoints",
            data=(), model_arguments=MIXTRAL,
        ),
    )  # fmt: skip


def srun_plan(**changes: Any) -> Plan:
    """Return a two-segment plan started by srun alone, on a small site without GPU GRES or accounting."""
    base: dict[str, Any] = {
        "name": "Bert (large), été",
        "plan": sharding(
            tp=1, pp=1, vpp=1, dp=4, micro_batches=8, zero=0, nodes=2, gpus=4, gpus_per_node=2, recompute="none",
            sequence_parallel=False, precision="fp16",
        ),
        "training": training(model="bert-large", global_batch=32, steps=30),
        "placement": Placement(partition="debug", node_group="mixed"),
        "segments": segments(20, 10, time_limit_s=3600, expected_s=1800.0),
        "job": job(
            framework="srun", cpus_per_node=16, gres=None, gpu_request="none", account=None, slurm_version=None,
            environment=Environment(), command=("python3", "-u", "trainer.py", "--steps", "30"),
            checkpoint_dir="checkpoints", data=(), model_arguments={},
        ),
    }  # fmt: skip
    return plan(**(base | changes))
