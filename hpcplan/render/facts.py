"""``HPCPLAN_*``: what the plan decided, in the variables that every job exports."""

from __future__ import annotations

from hpcplan.plan import Plan, Segment, Stage

__all__ = ["stage_facts", "training_facts"]


def training_facts(plan: Plan, segment: Segment) -> dict[str, str]:
    """Return the variables of a training job."""
    sharding, training, data = plan.plan, plan.training, plan.data_shards
    chosen: dict[str, object] = {
        "STAGE_LAYERS": " ".join(map(str, sharding.stage_layers)) or None,
        "SHARD_GROUP": sharding.shard_group,
        "SECONDARY_GROUP": sharding.secondary_group,
        "RECOMPUTE_LAYERS": sharding.recompute_layers,
        "RECOMPUTE_BLOCK": sharding.recompute_block,
        "RECOMPUTE_MLP": None if sharding.recompute_mlp == "none" else sharding.recompute_mlp,
        "CONTEXT_EXCHANGE": None if sharding.context_exchange == "p2p" else sharding.context_exchange,
        "QUANTIZED": None if sharding.quantized == "none" else sharding.quantized,
        "CAPACITY_FACTOR": plan.job.model_arguments.get("capacity_factor"),
    }
    of_data: dict[str, object] = {} if data is None else {"DATA_MANIFEST": data.manifest, "DATA_LANES": data.lanes}
    return _named(
        {
            "CAMPAIGN": plan.name,
            "STAGE": "train",
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
            "SCHEDULE": sharding.schedule,
            **{name: value for name, value in chosen.items() if value is not None},
            "RANK_ORDER": "-".join(plan.placement.order),
            "SEQUENCE_PARALLEL": int(sharding.sequence_parallel),
            "ZERO": sharding.zero,
            "OFFLOAD": sharding.offload,
            "RECOMPUTE": sharding.recompute,
            "PRECISION": sharding.precision,
            "SEQUENCE_LENGTH": training.sequence_length,
            "MICRO_BATCH": sharding.micro_batch,
            "MICRO_BATCHES": sharding.micro_batches,
            "GLOBAL_BATCH": training.global_batch,
            **of_data,
        }
    )


def stage_facts(plan: Plan, stage: Stage) -> dict[str, str]:
    """Return the variables of a job beside training."""
    return _named({"CAMPAIGN": plan.name, "STAGE": stage.name})


def _named(facts: dict[str, object]) -> dict[str, str]:
    return {f"HPCPLAN_{name}": str(value) for name, value in facts.items()}
