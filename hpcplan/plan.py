"""The Plan: what was chosen, what it promises, how it is cut into jobs, and everything rendering needs to know.

A plan is plain data. It crosses from the planner to the renderer as ``plan.json`` and carries no reference back to the
site or the workload file, only their digests. The same inputs give the same bytes; how long the search took is
therefore shown, never stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.site.model import Environment
from hpcplan.validation import Value, read_model

__all__ = [
    "Alternative",
    "Estimate",
    "Job",
    "MemoryBreakdown",
    "Placement",
    "Plan",
    "Provenance",
    "Search",
    "Segment",
    "Sharding",
    "Source",
    "TimeBreakdown",
    "Training",
    "read_plan",
]

Recompute = Literal["none", "selective", "full"]
Amount = Annotated[int, Field(ge=0)]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4", "int4"]


class Sharding(Value):
    """How one workload is split: tp x pp x dp x cp ranks (experts share them), and what each rank does.

    ``zero`` is the ZeRO stage (0 none, 1 optimizer states, 2 and gradients, 3 and parameters; Rajbhandari et al. 2020).
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
    recompute: Recompute
    sequence_parallel: bool
    precision: Precision
    nodes: PositiveInt
    gpus: PositiveInt
    gpus_per_node: PositiveInt


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
    activations_bytes: Amount
    logits_bytes: Amount
    buffers_bytes: Amount
    framework_bytes: Amount


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
    """A runner-up, and in a few words why it lost."""

    plan: Sharding
    estimate: Estimate
    why: str


class Search(Value):
    """What was searched. ``pruned`` counts by rule; ``candidates`` = ``feasible`` + the sum of ``pruned``."""

    candidates: int
    feasible: int
    pruned: dict[str, int]
    objective: str
    why: str = Field(description="why the winner won, in a sentence")


class Training(Value):
    """The run as a whole."""

    model: str
    parameters: PositiveInt
    sequence_length: PositiveInt
    global_batch: PositiveInt
    steps: PositiveInt
    tokens: PositiveInt
    checkpoint_interval_steps: PositiveInt
    time_to_train_s: NonNegative
    cost: NonNegative | None = None
    currency: str | None = None
    energy_kwh: NonNegative | None = None


class Placement(Value):
    """Where ranks go: the partition, and the order of the axes from the fastest-varying rank upwards.

    ``node_order`` lists hosts where the plan was made for given nodes; ``switches`` asks Slurm for at most that many
    leaf switches.
    """

    partition: str
    node_group: str
    order: tuple[Literal["tp", "cp", "ep", "dp", "pp"], ...] = ("tp", "cp", "dp", "pp")
    switches: PositiveInt | None = None
    node_order: tuple[str, ...] = ()


class Segment(Value):
    """One job of the chain: training steps ``first_step`` to ``last_step`` (counted from 1, both included)."""

    index: PositiveInt
    first_step: PositiveInt
    last_step: PositiveInt
    time_limit_s: PositiveInt
    warning_s: Annotated[int, Field(ge=1, le=65535)] = Field(
        description="how long before the time limit the trainer is told to save and stop"
    )
    expected_s: NonNegative


class Job(Value):
    """What each job of the chain asks Slurm for and runs."""

    name: str
    framework: Literal["megatron-lm", "torchrun", "srun"]
    cpus_per_node: PositiveInt
    gres: str | None = Field(None, description="what a node is asked for, as in gpu:8 or gpu:h100:8")
    gpu_request: Literal["gres", "gpus-per-node", "none"] = "gres"
    slurm_version: str | None = None
    account: str | None = None
    qos: str | None = None
    environment: Environment = Environment.model_construct()
    command: tuple[str, ...] = Field((), description="the trainer and its own arguments, one word each")
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    checkpoint_dir: str = "checkpoints"
    data: tuple[str, ...] = ()
    model_arguments: dict[str, Any] = Field(default_factory=dict, description="the model's shape, for launchers")


class Source(Value):
    """An input: its name, where it was read, and the SHA-256 of its content after validation."""

    name: str
    path: str
    sha256: str


class Provenance(Value):
    """What made this plan; enough to make it again."""

    hpcplan: str
    site: Source
    workload: Source
    constants: Source
    command: str


class Plan(Value):
    """The chosen sharding with everything that follows from it."""

    schema_version: Literal[1] = 1
    name: str
    plan: Sharding
    estimate: Estimate
    alternatives: tuple[Alternative, ...] = ()
    search: Search
    training: Training
    placement: Placement
    segments: tuple[Segment, ...] = Field(min_length=1)
    job: Job
    provenance: Provenance

    def text(self) -> str:
        """Return the text of ``plan.json``: ASCII, so that it reads back the same whatever a name holds."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        InputError: not a plan; with file, line and field.
    """
    return read_model(path, Plan)
