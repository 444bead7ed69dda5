"""What a template is given. Every public field here is a variable of the templates; nothing else is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from hpcplan import __version__
from hpcplan.hostlist import compress
from hpcplan.plan import Plan, Segment
from hpcplan.render import megatron
from hpcplan.render.quoting import job_name, option_groups
from hpcplan.validation import digest

__all__ = ["MAX_RESTARTS", "STAGE", "ScriptContext", "script_contexts"]

STAGE = "train"
MAX_RESTARTS = 3  # a job that Slurm has requeued more often than this meets the same bad node or bug again and again


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """The variables of one sbatch script."""

    plan: Plan
    """the whole plan, field by field as in plan.json"""
    segment: Segment
    """the segment that this job trains"""
    stage: str
    """``train``"""
    key: str
    """of this job in the campaign: ``train-01``"""
    last: bool
    """whether this is the last segment of the chain"""
    job_name: str
    """a name that Slurm takes"""
    script_name: str
    """the file's own name: ``train-01.sbatch``"""
    version: str
    """of hpcplan"""
    plan_sha256: str
    """digest of the plan's content"""
    tasks_per_node: int
    """one with torchrun and megatron-lm, one a GPU with srun"""
    cpus_per_task: int
    gpu_count: str | None
    """value of --gpus-per-node, as in ``8`` or ``h100:8``; none where the site wants --gres or has no GPU GRES"""
    gres: str | None
    """value of --gres, as in ``gpu:8``; never together with ``gpu_count``"""
    node_list: str | None
    """value of --nodelist, where the plan was made for given nodes"""
    signal_lead_s: int
    """how long before its time limit the job is warned, in seconds"""
    expected_runtime_s: int
    """whole seconds, rounded up"""
    max_restarts: int
    """how often Slurm may requeue the job before it gives up"""
    checkpoint_dir_is_absolute: bool
    step_file: str | None
    """file under the checkpoint folder with the last step saved, where the framework writes one itself"""
    variables: dict[str, str]
    """environment, the site's and the workload's; the workload's wins"""
    facts: dict[str, str]
    """``HPCPLAN_*`` variables that tell the trainer what the plan decided"""
    setup: tuple[str, ...]
    """shell lines, the site's first"""
    command: tuple[tuple[str, ...], ...]
    """the trainer: its first element is the program, each further one an option with its values"""


def _script_key(plan: Plan, segment: Segment) -> str:
    """Return the name of a segment's job and script: ``train-01``, with digits enough for names to sort."""
    width = max(2, len(str(len(plan.segments))))
    return f"{STAGE}-{segment.index:0{width}d}"


def script_contexts(plan: Plan) -> list[ScriptContext]:
    """Return the variables of every segment's script, in order.

    Raises:
        InputError: the framework cannot do what the plan asks for.
    """
    job, sharding = plan.job, plan.plan
    megatron_lm = job.framework == "megatron-lm"
    tasks_per_node = sharding.gpus_per_node if job.framework == "srun" else 1
    by_count = job.gpu_request == "gpus-per-node" and (job.gres or "").startswith("gpu:")
    order = plan.placement.node_order
    common: dict[str, Any] = {
        "plan": plan,
        "stage": STAGE,
        "version": __version__,
        "plan_sha256": digest(plan),
        "tasks_per_node": tasks_per_node,
        "cpus_per_task": max(1, job.cpus_per_node // tasks_per_node),
        "gpu_count": (job.gres or "").removeprefix("gpu:") if by_count else None,
        "gres": None if by_count or job.gpu_request == "none" else job.gres,
        "node_list": compress(order) if order else None,
        "max_restarts": MAX_RESTARTS,
        "checkpoint_dir_is_absolute": PurePosixPath(job.checkpoint_dir).is_absolute(),
        "step_file": "latest_checkpointed_iteration.txt" if megatron_lm else None,
        "variables": (megatron.environment(plan) if megatron_lm else {}) | job.environment.variables | job.variables,
        "setup": (*job.environment.setup, *job.setup),
        "command": tuple(megatron.launch_words(plan)) if megatron_lm else _own_command(plan),
    }
    return [ScriptContext(**common, **_of_segment(plan, segment)) for segment in plan.segments]


def _of_segment(plan: Plan, segment: Segment) -> dict[str, Any]:
    key = _script_key(plan, segment)
    return {
        "segment": segment,
        "key": key,
        "script_name": f"{key}.sbatch",
        "job_name": job_name(plan.name, f"-{key}"),
        "last": segment.index == len(plan.segments),
        "signal_lead_s": segment.warning_s,
        "expected_runtime_s": math.ceil(segment.expected_s),
        "facts": _facts(plan, segment),
    }


def _own_command(plan: Plan) -> tuple[tuple[str, ...], ...]:
    words = plan.job.command
    if plan.job.framework == "torchrun" and words[0] in {"python", "python3"} and len(words) > 1:
        words = words[1:]  # torchrun starts the interpreter itself
    return tuple(option_groups(words))


def _facts(plan: Plan, segment: Segment) -> dict[str, str]:
    sharding, training = plan.plan, plan.training
    facts = {
        "CAMPAIGN": plan.name,
        "STAGE": STAGE,
        "SEGMENT": segment.index,
        "SEGMENTS": len(plan.segments),
        "FIRST_STEP": segment.first_step,
        "LAST_STEP": segment.last_step,
        "TOTAL_STEPS": training.steps,
        "CHECKPOINT_INTERVAL_STEPS": training.checkpoint_interval_steps,
        "TP": sharding.tp,
        "PP": sharding.pp,
        "VPP": sharding.vpp,
        "DP": sharding.dp,
        "CP": sharding.cp,
        "EP": sharding.ep,
        "RANK_ORDER": "-".join(plan.placement.order),
        "SEQUENCE_PARALLEL": int(sharding.sequence_parallel),
        "ZERO": sharding.zero,
        "RECOMPUTE": sharding.recompute,
        "PRECISION": sharding.precision,
        "SEQUENCE_LENGTH": training.sequence_length,
        "MICRO_BATCH": sharding.micro_batch,
        "MICRO_BATCHES": sharding.micro_batches,
        "GLOBAL_BATCH": training.global_batch,
    }
    return {f"HPCPLAN_{name}": str(value) for name, value in facts.items()}
