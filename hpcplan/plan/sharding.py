"""What was chosen and what it promises: a sharding, its step time and memory term by term, and the runners-up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.validation import Value

__all__ = [
    "Alternative",
    "Amount",
    "Breakdown",
    "Estimate",
    "MemoryBreakdown",
    "Precision",
    "Recompute",
    "Search",
    "Sharding",
    "TimeBreakdown",
]

Recompute = Literal["none", "selective", "full"]
Amount = Annotated[int, Field(ge=0)]
# fp8 has a scale a tensor, taken from its values, or fp8-delayed from earlier ones; blocks of 128 or 32 have their own
Precision = Literal[
    "fp32", "tf32", "fp16", "bf16", "fp8", "fp8-delayed", "fp8-blockwise", "mxfp8", "int8", "fp4", "int4"
]


class Sharding(Value):
    """How one workload is split: tp x pp x dp x cp ranks (experts share them), and what each rank does.

    ``zero`` is the ZeRO stage (0 none, 1 optimizer states, 2 and gradients, 3 and parameters; Rajbhandari et al. 2020),
    over all dp x cp ranks or, with hybrid sharding, over ``shard_group`` neighbours of them, whose groups are copies.
    ``stage_layers`` counts the layers of each of the pp x vpp parts of the pipeline, in the order of layers, where they
    are not all the same; stage i has the parts i, i + pp, ...
    """

    tp: PositiveInt
    pp: PositiveInt
    vpp: PositiveInt = Field(1, description="virtual stages a rank (interleaved 1F1B); 1 is plain 1F1B")
    dp: PositiveInt
    cp: PositiveInt = 1
    ep: PositiveInt = 1
    micro_batch: PositiveInt = Field(description="sequences")
    micro_batches: PositiveInt = Field(description="a step, on each data-parallel rank")
    zero: Annotated[int, Field(ge=0, le=3)]
    shard_group: PositiveInt | None = Field(
        None, description="data-parallel ranks that ZeRO divides over, in groups that are copies; all if absent"
    )
    secondary_group: PositiveInt | None = Field(
        None, description="neighbouring ranks that keep 16-bit weights once more beside ZeRO 3 (hpZ); none if absent"
    )
    recompute: Recompute
    recompute_layers: PositiveInt | None = Field(
        None, description="of each rank's layers, how many are recomputed in full; all if absent"
    )
    recompute_block: PositiveInt | None = Field(
        None, description="of layers recomputed in full, how many neighbours share one checkpoint; 1 if absent"
    )
    recompute_mlp: Literal["none", "activation", "all"] = Field(
        "none", description="what of feed-forward layers or experts is run again beside that: their activation, or all"
    )
    context_exchange: Literal["p2p", "all_gather", "a2a"] = Field(
        "p2p", description="how context-parallel ranks come by keys and values; as Megatron-LM's cp-comm-type"
    )
    quantized: Literal["none", "weights", "gradients", "both"] = Field(
        "none", description="what ZeRO 3 sends in fewer bits: weights in 8 (qwZ of ZeRO++), gradients in 4 (qgZ)"
    )
    sequence_parallel: bool
    schedule: Literal["1f1b", "gpipe", "zero-bubble"] = "1f1b"
    offload: Literal["none", "cpu", "nvme"] = Field(
        "none", description="where optimizer states live, if not on the GPU"
    )
    stage_layers: tuple[Amount, ...] = ()
    precision: Precision
    nodes: PositiveInt
    gpus: PositiveInt
    gpus_per_node: PositiveInt

    @property
    def copies(self) -> int:
        """How many groups of ranks each hold all that ZeRO divides; 1 without hybrid sharding."""
        return 1 if self.shard_group is None else self.dp * self.cp // self.shard_group

    def layers_of_ranks(self, layers: int) -> list[int]:
        """Return how many of the layers a rank of each stage holds; cut evenly where nothing else is said."""
        parts = self.stage_layers or [(layers + i) // (self.pp * self.vpp) for i in range(self.pp * self.vpp)]
        return [sum(parts[stage :: self.pp]) for stage in range(self.pp)]


class TimeBreakdown(Value):
    """Where one step's time goes, in seconds on the critical path; the terms add up to ``iter_time_s``."""

    compute_s: NonNegative
    recompute_s: NonNegative
    tensor_parallel_s: NonNegative
    context_parallel_s: NonNegative
    expert_parallel_s: NonNegative
    pipeline_bubble_s: NonNegative
    pipeline_transfer_s: NonNegative
    data_parallel_s: NonNegative
    optimizer_s: NonNegative
    overhead_s: NonNegative
    data_loading_s: NonNegative = 0.0


class MemoryBreakdown(Value):
    """Where the fullest rank's memory goes, in bytes; the terms add up to ``memory_bytes``."""

    parameters_bytes: Amount
    gradients_bytes: Amount
    optimizer_bytes: Amount
    optimizer_step_bytes: Amount = 0
    activations_bytes: Amount
    logits_bytes: Amount
    buffers_bytes: Amount
    framework_bytes: Amount
    context_bytes: Amount = 0


class Breakdown(Value):
    """Step time and memory, term by term."""

    time: TimeBreakdown
    memory: MemoryBreakdown


class Estimate(Value):
    """What a sharding promises. ``low`` and ``high`` bound the step time in seconds (a 90 % interval)."""

    iter_time_s: NonNegative
    memory_bytes: Amount
    tokens_per_s: NonNegative
    mfu: NonNegative
    low: NonNegative
    high: NonNegative
    breakdown: Breakdown


class Alternative(Value):
    """A runner-up, and in a few words why it lost; ``node_group`` where there were several to choose from."""

    plan: Sharding
    estimate: Estimate
    why: str
    node_group: str | None = None


class Search(Value):
    """What was searched. ``pruned`` counts by rule; ``candidates`` = ``feasible`` + the sum of ``pruned``."""

    candidates: int
    feasible: int
    pruned: dict[str, int]
    objective: str
    why: str = Field(description="why the winner won, in a sentence")
