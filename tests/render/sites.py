"""Three sites for golden scripts, one framework after another; the test cluster of tests/slurm would take all of them.

``superpod``: --gpus-per-node, Pyxis, a recent Slurm, checks of nodes with a spare one, data staged inside each node.
``lab``: --gres, modules and a virtual environment, Slurm 22.05, nothing beside. ``old``: no GPU GRES, Apptainer, an
unknown Slurm, a burst buffer.
"""

from __future__ import annotations

from typing import Any

from hpcplan.frameworks import FRAMEWORKS, Framework
from hpcplan.plan import Health, Placement, Plan, Pool, Stage, Staging
from hpcplan.site.model import Container, Environment
from tests.render import plans

SITES: dict[str, dict[str, Any]] = {
    "superpod": {
        "gres": "gpu:8",
        "gpu_request": "gpus-per-node",
        "slurm_version": "23.11",
        "environment": Environment(
            variables={"NCCL_IB_HCA": "mlx5_0,mlx5_1", "NCCL_SOCKET_IFNAME": "=bond0"},
            container=Container(runtime="pyxis", image="nvcr.io#nvidia/pytorch:24.05-py3", mounts=("/data:/data:ro",)),
        ),
        "checkpoint_dir": "/tmp/hpcplan golden/checkpoints",
        "health": Health(
            gpus=8, interfaces=("mlx5_0", "mlx5_1"), interface_bytes_per_s=50e9, all_reduce_bytes_per_s=1e11,
            spare_nodes=1,
        ),
        "staging": Staging(sources=("/data/web text",), target="/raid/scratch"),
        "sample_every_s": 30,
    },
    "lab": {
        "gres": "gpu:8",
        "gpu_request": "gres",
        "slurm_version": "22.05",
        "environment": Environment(modules=("cuda/12.4", "nccl/2.21"), setup=("source ~/venv/bin/activate",)),
    },
    "old": {
        "gres": None,
        "gpu_request": "none",
        "slurm_version": None,
        "environment": Environment(container=Container(runtime="apptainer", image="/images/torch 2.5.sif")),
        "staging": Staging(
            sources=("/data",), target="/bb/job", shared=True,
            directives=("#DW jobdw type=scratch capacity=1TiB access_mode=striped",),
        ),
        "sample_every_s": 60,
        "mpi": "pmi2",
    },
}  # fmt: skip
SHARDINGS: dict[Framework, dict[str, Any]] = {
    "megatron-lm": {"tp": 8, "pp": 2, "vpp": 2, "dp": 2, "sequence_parallel": True},
    "nemo": {"tp": 4, "pp": 4, "vpp": 5, "dp": 2, "sequence_parallel": True, "precision": "fp8"},
    "deepspeed": {"tp": 2, "dp": 16, "zero": 2, "recompute": "full", "offload": "cpu"},
    "torchtitan": {"tp": 8, "pp": 2, "vpp": 2, "dp": 2, "zero": 3, "sequence_parallel": True},
    "accelerate": {"tp": 2, "cp": 2, "dp": 8, "zero": 3, "recompute": "full"},
    "torchrun": {"dp": 32, "zero": 3},
    "jax": {"tp": 8, "dp": 4, "zero": 3},
    "tensorflow": {"dp": 32, "zero": 0, "recompute": "none"},
    "mpi": {"dp": 32, "zero": 0, "recompute": "none"},
    "srun": {"dp": 32, "zero": 0, "recompute": "none", "precision": "fp16"},
}
COMMANDS: dict[Framework, tuple[str, ...]] = {
    "megatron-lm": ("pretrain_gpt.py", "--lr", "1.5e-4", "--tokenizer-type", "NullTokenizer"),
    "nemo": ("scripts/training/run_recipe.py", "--recipe", "llama3_70b_pretrain_config"),
    "torchtitan": ("-m", "torchtitan.train"),
    "mpi": ("./train", "--steps", "300"),
}
HYBRID: dict[Framework, dict[str, Any]] = {
    "megatron-lm": {"tp": 4, "pp": 2, "vpp": 2, "dp": 4, "ep": 2, "sequence_parallel": True, "shard_group": 2,
                    "recompute_layers": 6},
    "nemo": {"tp": 2, "dp": 16, "ep": 8, "zero": 3, "sequence_parallel": True, "shard_group": 8, "recompute_layers": 9},
    "deepspeed": {"dp": 32, "zero": 3, "shard_group": 8},
    "torchtitan": {"tp": 2, "dp": 16, "ep": 8, "zero": 3, "sequence_parallel": True, "shard_group": 8,
                   "recompute_layers": 16},
    "accelerate": {"tp": 2, "cp": 2, "dp": 8, "zero": 3, "shard_group": 4},
    "torchrun": {"dp": 32, "zero": 3, "shard_group": 8, "recompute_layers": 20},
    "jax": {"tp": 2, "dp": 16, "zero": 3, "shard_group": 4, "recompute_layers": 7},
    "srun": {"dp": 32, "zero": 2, "shard_group": 16, "recompute_layers": 1},
}  # fmt: skip
STAGES = (
    Stage(
        name="preprocess", kind="preprocess", command=("python3", "tokenize.py", "--input", "/data/raw text"),
        partition="batch", nodes=2, tasks_per_node=8, cpus_per_task=2, time_limit_s=7200,
    ),
    Stage(
        name="sweep", kind="array", command=("python3", "evaluate.py"), after=("train",), partition="batch",
        points=({"TASK": "mmlu", "SHOTS": "5"}, {"TASK": "gsm8k $(x)", "SHOTS": "8"}), max_parallel=1,
        gres="gpu:1", time_limit_s=3600,
    ),
    Stage(
        name="convert", command=("python3", "convert.py", "--to", "hf"), after=("train",), after_any=("sweep",),
        partition="batch", time_limit_s=600,
    ),
)  # fmt: skip


def framework_plan(framework: Framework, site: str, **changes: Any) -> Plan:
    """Return a plan for llama3-70b on 4 nodes of 8 GPUs, for one framework on one site, in two segments."""
    sizes = {"tp": 1, "pp": 1, "vpp": 1, "dp": 1, "micro_batches": 1, "sequence_parallel": False, "zero": 1}
    sizes |= SHARDINGS[framework]
    accumulated = 1 if framework == "tensorflow" else 8
    sharding = plans.sharding(**(sizes | {"micro_batches": accumulated, "nodes": 4, "gpus": 32}))
    command = COMMANDS.get(framework, ("python3", "train.py", "--data", "/data/web text"))
    settings: dict[str, Any] = {
        "framework": framework, "account": "research", "cpus_per_node": 16, "command": command, "data": (),
        "checkpoint_dir": "checkpoints", **SITES[site],
    }  # fmt: skip
    fields: dict[str, Any] = {
        "plan": sharding,
        "training": plans.training(global_batch=sharding.dp * accumulated, steps=300),
        "segments": plans.segments(200, 100, time_limit_s=43200, expected_s=36000.0),
        "placement": Placement(partition="batch", node_group="dgx", switches=None if site == "old" else 1),
        "job": plans.job(**settings),
    }
    return plans.plan(**(fields | changes))


def hybrid_plan(framework: Framework) -> Plan:
    """Return a plan whose states are divided over groups of ranks, with some layers recomputed where it can be said.

    Its model has experts, with a capacity factor where the framework gives them one.
    """
    sizes = {"pp": 1, "vpp": 1, "recompute": "full", "sequence_parallel": False, "micro_batches": 8} | HYBRID[framework]
    plan = framework_plan(
        framework, "lab", plan=plans.sharding(**(sizes | {"tp": sizes.get("tp", 1), "nodes": 4, "gpus": 32}))
    )
    batch = plan.plan.dp * 8
    model = plans.LLAMA_70B if framework in {"deepspeed", "accelerate"} else plans.MIXTRAL
    if FRAMEWORKS[framework].capacity:
        model = model | {"capacity_factor": 1.25}
    command = plan.job.command
    if framework == "torchtitan":
        command = (*command, "--model.name", "mixtral", "--model.flavor", "8x7B")
    return plan.model_copy(
        update={
            "training": plans.training(global_batch=batch, steps=300),
            "job": plan.job.model_copy(update={"model_arguments": model, "command": command}),
        }
    )


def pooled_plan(framework: Framework) -> Plan:
    """Return a plan for two nodes of 8 GPUs and one of 4 as one job, with micro-batches of their own."""
    pools = (
        Pool(
            node_group="h100",
            partition="batch",
            nodes=2,
            gpus_per_node=8,
            cpus_per_node=16,
            gres="gpu:8",
            micro_batch=2,
        ),
        Pool(
            node_group="a100", partition="long", nodes=1, gpus_per_node=4, cpus_per_node=8, gres="gpu:4", micro_batch=1
        ),
    )
    sharding = plans.sharding(
        tp=1, pp=1, vpp=1, dp=20, micro_batch=2, micro_batches=2, zero=2, nodes=3, gpus=20, gpus_per_node=8,
        sequence_parallel=False,
    )  # fmt: skip
    return framework_plan(
        framework, "lab", plan=sharding, training=plans.training(global_batch=72, steps=300),
        placement=Placement(partition="batch", node_group="h100", pools=pools, exclude="n7"),
    )  # fmt: skip


def staged_plan(site: str) -> Plan:
    """Return the plan of plain srun with stages before and after training."""
    return framework_plan("srun", site, stages=STAGES, after=("preprocess",))


FRAMEWORK_NAMES: tuple[Framework, ...] = tuple(FRAMEWORKS)
