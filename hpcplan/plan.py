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

from hpcplan.frameworks import Framework
from hpcplan.quantities import NonNegative, PositiveInt
from hpcplan.site.model import Environment
from hpcplan.validation import Value, read_model

__all__ = [
    "Alternative",
    "DataShards",
    "Estimate",
    "Exchange",
    "ExchangeAxis",
    "Health",
    "Job",
    "LinkLoad",
    "MemoryBreakdown",
    "Neighbourhood",
    "Placement",
    "PlacementEstimate",
    "Plan",
    "Pool",
    "Provenance",
    "Search",
    "Segment",
    "Sharding",
    "Source",
    "Stage",
    "Staging",
    "TimeBreakdown",
    "Traffic",
    "TrafficTerm",
    "Training",
    "read_plan",
]

Recompute = Literal["none", "selective", "full"]
Amount = Annotated[int, Field(ge=0)]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4", "int4"]


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
    recompute: Recompute
    recompute_layers: PositiveInt | None = Field(
        None, description="of each rank's layers, how many are recomputed in full; all if absent"
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


class Pool(Value):
    """The nodes of one kind in a job over unequal ones; each is a component of a heterogeneous job."""

    node_group: str
    partition: str
    nodes: PositiveInt
    gpus_per_node: PositiveInt
    cpus_per_node: PositiveInt
    gres: str | None = None
    micro_batch: PositiveInt | None = Field(None, description="sequences, where the pools' differ")
    layers: PositiveInt | None = Field(None, description="of the model, where the pools share them")
    data_share: NonNegative | None = Field(None, description="of the training data that passes through here, 0 to 1")


ExchangeAxis = Literal["tp", "cp", "ep", "dp", "edp", "rdp", "redp", "pp"]


class Exchange(Value):
    """Messages of one kind, a step: in groups of ranks along an axis, by a pattern.

    ``dp`` are the ranks that ZeRO divides over, ``rdp`` those of different groups that hold the same; ``edp`` and
    ``redp`` are the same for experts.

    Each rank passes ``sent_bytes`` to its successor in a ring; to all others in equal parts, of which it keeps its own
    (all-to-all); or to the next stage and as much back (chain; in a loop the first stage follows the last). ``rounds``
    counts the messages whose latency is waited for.
    """

    axis: ExchangeAxis
    pattern: Literal["ring", "all-to-all", "chain", "loop"]
    sent_bytes: NonNegative
    rounds: NonNegative


class TrafficTerm(Value):
    """Exchanges behind one term of the step time, and how much of their time is waited for.

    ``scale`` x the time that they keep links busy is their whole time; of that the share ``exposed`` is waited for,
    and of the rest what exceeds ``hidden_s``; ``weight`` counts the pipeline bubble's share of it.
    """

    name: str
    weight: NonNegative = 1.0
    exposed: NonNegative
    hidden_s: NonNegative
    scale: NonNegative
    exchanges: tuple[Exchange, ...]


class Traffic(Value):
    """What a step sends, for the prediction of a placement: the step is ``fixed_s`` and what is waited for."""

    fixed_s: float
    node_bytes_per_s: NonNegative = Field(description="of one node's network interfaces, one way")
    node_latency_s: NonNegative
    network_efficiency: NonNegative
    link_bytes_per_s: NonNegative = Field(description="of one accelerator inside a domain, one way, as reached")
    link_latency_s: NonNegative
    terms: tuple[TrafficTerm, ...] = ()


class Neighbourhood(Value):
    """A switch, or an NVLink domain (``domain``), over nodes or over others that name it as their parent."""

    name: str
    parent: str | None = None
    nodes: str | None = Field(None, description="a hostlist")
    uplink_bytes_per_s: NonNegative | None = Field(None, description="no limit if absent")
    latency_s: NonNegative = 0.0
    domain: bool = False


class LinkLoad(Value):
    """One direction of a link: what it carries a step, how long that keeps it busy, and which term sends most of it.

    ``alike`` counts the links that carry as much of the same, this one among them.
    """

    source: str
    target: str
    bytes: NonNegative
    busy_s: NonNegative
    mostly: str
    alike: PositiveInt = 1


class PlacementEstimate(Value):
    """The predicted step of a placement, beside others, in seconds; see the explanation of placement.

    ``ideal_step_s`` has the whole machine empty to choose from; ``slurm_step_s`` is Slurm's choice of the same free
    nodes in its own order, ``reordered_step_s`` that choice in the best order; ``random_step_s`` the median of some
    random ones; ``bound_step_s`` what no order of nodes can beat.
    """

    step_s: NonNegative
    ideal_step_s: NonNegative
    slurm_step_s: NonNegative
    reordered_step_s: NonNegative
    random_step_s: NonNegative
    bound_step_s: NonNegative
    proof: Literal["bound", "exhaustive", "none"] = Field(
        "none", description="why no order of nodes is better: it reaches the bound, or all were tried"
    )
    busiest: tuple[LinkLoad, ...] = ()


class Placement(Value):
    """Where ranks go: the partition, and the order of the axes from the fastest-varying rank upwards.

    ``node_order`` lists hosts where the plan was made for given nodes; ``switches`` asks Slurm for at most that many
    leaf switches, ``segment`` for pieces of that many nodes inside one block each, ``exclude`` for none of these nodes.
    With ``distribution`` ``arbitrary`` the job puts its nodes in order itself, by ``traffic`` and ``fabric``, once it
    knows which ones it was given.
    """

    partition: str
    node_group: str
    order: tuple[Literal["tp", "cp", "ep", "dp", "pp"], ...] = ("tp", "cp", "dp", "pp")
    switches: PositiveInt | None = None
    segment: PositiveInt | None = None
    exclude: str | None = Field(None, description="a hostlist")
    node_order: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = Field((), description="the parts of a job over unequal nodes, in the order of ranks")
    distribution: Literal["block", "arbitrary"] = "block"
    traffic: Traffic | None = None
    fabric: tuple[Neighbourhood, ...] = ()
    prediction: PlacementEstimate | None = None


class DataShards(Value):
    """The manifest that says which rank reads what: its file, the SHA-256 of its content, and its sums."""

    manifest: str = Field(description="path of the manifest, as the jobs see it")
    sha256: str
    files: PositiveInt
    lanes: PositiveInt = Field(description="streams that the files are divided over; dp divides them")
    tokens: PositiveInt = Field(description="of one pass over all files")
    imbalance: NonNegative = Field(description="the longest lane over the mean, less 1")


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


class Health(Value):
    """What every node must show before the trainer starts; what is None is not looked at.

    ``all_reduce_bytes_per_s`` is the bus bandwidth of an all-reduce over two nodes, as NCCL's tests define it (time of
    2(n-1)/n of the buffer); a node fails below ``least_share`` of it, or of ``interface_bytes_per_s``.
    """

    gpus: PositiveInt | None = None
    interfaces: tuple[str, ...] = Field((), description="InfiniBand devices; all that the node has, if empty")
    interface_bytes_per_s: NonNegative | None = Field(None, description="of each, one way")
    all_reduce_bytes_per_s: NonNegative | None = None
    least_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    spare_nodes: Amount = Field(0, description="asked for beyond the plan's, to stand in for nodes that fail")


class Staging(Value):
    """Copying data nearer to the nodes before training; the next segment finds what is already there.

    ``split`` gives each node a share of the files, of about equal bytes; otherwise each gets all. On a ``shared``
    target (a burst buffer) the nodes copy a share each and everyone sees all.
    """

    sources: tuple[str, ...] = Field(min_length=1, description="absolute paths of files or folders")
    target: str = Field(description="absolute path of the fast storage")
    split: bool = False
    shared: bool = False
    directives: tuple[str, ...] = Field((), description="burst buffer lines: #BB, #BB_LUA or #DW")
    streams: PositiveInt = Field(4, description="files that a node copies at a time")


class Stage(Value):
    """A job beside training: preparing data, evaluating, converting, or an array of runs with different settings.

    ``after`` names stages (``train`` is the training) that must have succeeded, ``after_any`` ones that must have
    ended.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=40)
    kind: Literal["task", "preprocess", "array"] = "task"
    command: tuple[str, ...] = Field(min_length=1)
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    partition: str
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    cpus_per_task: PositiveInt = 1
    gres: str | None = None
    time_limit_s: PositiveInt
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    points: tuple[dict[str, str], ...] = Field((), description="of an array: the variables of each of its tasks")
    max_parallel: PositiveInt | None = Field(None, description="of an array: how many of its tasks run at a time")


class Job(Value):
    """What each job of the chain asks Slurm for and runs."""

    name: str
    framework: Framework
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
    mpi: str | None = Field(None, description="value of srun --mpi; the site's default if absent")
    health: Health | None = None
    staging: Staging | None = None
    sample_every_s: PositiveInt | None = Field(None, description="how often use of GPUs, CPUs and memory is written")
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
    data_shards: DataShards | None = None
    segments: tuple[Segment, ...] = Field(min_length=1)
    stages: tuple[Stage, ...] = Field((), description="jobs beside training")
    after: tuple[str, ...] = Field((), description="stages that must have succeeded before training starts")
    after_any: tuple[str, ...] = Field((), description="stages that must have ended before training starts")
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
