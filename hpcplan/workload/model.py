"""What is to be trained: the schema of a workload file, and the shape of a transformer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hpcplan.documents import Loc
from hpcplan.frameworks import Framework
from hpcplan.plan import Precision
from hpcplan.quantities import Count, Duration, Fraction, NonNegative, PositiveInt
from hpcplan.validation import Value

__all__ = [
    "Adapters",
    "Experts",
    "Framework",
    "LatentAttention",
    "Launch",
    "ModelShape",
    "NodeRange",
    "Request",
    "Stage",
    "StageIn",
    "Training",
    "Workload",
    "parse_node_range",
]

_RANGE = re.compile(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?")


def parse_node_range(value: Any) -> tuple[int, int]:
    """Return ``(least, most)`` for ``16``, ``'16'`` or ``'4:16'``.

    Raises:
        ValueError: neither, or the range is empty or runs backwards.
    """
    if isinstance(value, list | tuple) and len(value) == 2:
        least, most = int(value[0]), int(value[1])
    else:
        match = _RANGE.fullmatch(str(value))
        if match is None:
            raise ValueError(f"{value!r} is not a number of nodes; write it like 16 or 4:16")
        least, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= least <= most:
        raise ValueError(f"{value!r} is not a range of nodes: it must be 1 or more, the smaller number first")
    return least, most


NodeRange = Annotated[tuple[int, int], BeforeValidator(parse_node_range)]


class Experts(Value):
    """A mixture of experts in the feed-forward layers."""

    count: PositiveInt
    per_token: PositiveInt = Field(description="routed experts that each token visits")
    ffn: PositiveInt = Field(description="inner width of one expert")
    shared: Annotated[int, Field(ge=0)] = 0
    dense_layers: Annotated[int, Field(ge=0)] = Field(0, description="first layers with a plain feed-forward layer")
    capacity_factor: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="of the mean load, what each expert computes: more is dropped, less filled up; dropless if absent",
    )


class LatentAttention(Value):
    """Multi-head latent attention (DeepSeek-AI 2024, arXiv:2405.04434, section 2.1)."""

    q_lora_rank: PositiveInt
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    v_head_dim: PositiveInt


class ModelShape(Value):
    """The shape of a transformer, decoder or encoder."""

    layers: PositiveInt
    hidden: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = Field(None, description="as many as heads if absent")
    head_dim: PositiveInt | None = Field(None, description="hidden / heads if absent")
    ffn: PositiveInt
    vocab: PositiveInt
    gated: bool = Field(True, description="three matrices in the feed-forward layer (SwiGLU) rather than two")
    relu: bool = Field(False, description="ReLU in a feed-forward layer of two matrices, which keeps its output alone")
    bias: bool = False
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    position: Literal["rope", "learned", "alibi"] = "rope"
    max_positions: PositiveInt | None = Field(None, description="rows of a learned position table")
    tied_embeddings: bool = False
    causal: bool = True
    dropout: bool = False
    attention_dropout: bool | None = Field(None, description="dropout of attention scores; as `dropout` if absent")
    window: PositiveInt | None = Field(None, description="tokens that a token sees in a layer with a sliding window")
    windowed_layers: Annotated[int, Field(ge=0)] = Field(0, description="layers with such a window; the others see all")
    experts: Experts | None = None
    latent_attention: LatentAttention | None = None

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and of values."""
        return self.kv_heads or self.heads

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden // self.heads

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield numbers that contradict each other."""
        if self.head_dim is None and self.hidden % self.heads:
            yield ("heads",), f"hidden ({self.hidden}) is not a multiple of heads; give head_dim"
        if self.heads % self.key_value_heads:
            yield ("kv_heads",), f"heads ({self.heads}) is not a multiple of kv_heads"
        if self.relu and self.gated:
            yield ("relu",), "is of a feed-forward layer of two matrices; write gated: false"
        if self.windowed_layers > (self.layers if self.window else 0):
            few = f"is more than the {self.layers} layers there are" if self.window else "needs a window"
            yield ("windowed_layers",), few
        if self.experts is not None:
            if self.experts.per_token > self.experts.count:
                yield ("experts", "per_token"), f"is more than the {self.experts.count} experts there are"
            if self.experts.dense_layers > self.layers:
                yield ("experts", "dense_layers"), f"is more than the {self.layers} layers there are"


class Adapters(Value):
    """Fine-tuning with low-rank adapters on every projection outside experts (Hu et al. 2021, arXiv:2106.09685).

    ``base`` is how the frozen weights are kept: ``nf4`` is QLoRA (Dettmers et al. 2023, arXiv:2305.14314).
    """

    rank: PositiveInt
    base: Literal["bf16", "int8", "nf4"] = "bf16"


class Training(Value):
    """The training run."""

    tokens: Count
    global_batch: Count = Field(description="sequences a step")
    sequence_length: Count
    precision: Precision = "bf16"
    adapters: Adapters | None = Field(None, description="train adapters only; all weights if absent")
    pruned: Literal["none", "2:4"] = Field("none", description="weights of which two in four are zero; some chips gain")
    bytes_per_token: NonNegative = Field(4, description="what a token takes in storage; 4 is an int32 token number")

    @property
    def steps(self) -> int:
        """Optimizer steps, the last one perhaps only partly needed."""
        return -(-self.tokens // (self.global_batch * self.sequence_length))


class Request(Value):
    """What the user insists on; what is absent is for the planner to choose."""

    nodes: NodeRange | None = None
    partition: str | None = None
    node_group: str | None = None
    framework: Framework = "megatron-lm"
    walltime_s: Duration | None = Field(
        None, alias="walltime", description="of one job; the partition's limit if absent"
    )
    deadline_s: Duration | None = Field(None, alias="deadline", description="for the whole training, queue excluded")
    budget: NonNegative | None = Field(None, description="for the whole training, in the site's currency")
    memory_headroom: Fraction = Field(0.05, description="share of each accelerator's memory that stays free")
    checkpoint_interval_s: Duration | None = Field(None, alias="checkpoint_interval")


class StageIn(Value):
    """Data to copy nearer to the nodes. With ``split`` each node gets a share of the files, else each gets all."""

    sources: tuple[str, ...] = Field(min_length=1, description="absolute paths of files or folders")
    split: bool = False


class Stage(Value):
    """A job beside training: ``preprocess`` and ``task`` run a command once, ``array`` once for each of ``points``."""

    kind: Literal["task", "preprocess", "array"] = "task"
    command: tuple[str, ...] = Field(min_length=1)
    after: tuple[str, ...] = Field((), description="stages that must have succeeded; `train` is the training")
    after_any: tuple[str, ...] = Field((), description="stages that must have ended, well or not")
    partition: str | None = Field(None, description="that of training if absent")
    nodes: PositiveInt = 1
    tasks_per_node: PositiveInt = 1
    cpus_per_task: PositiveInt = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    time_limit_s: Duration = Field(3600, alias="time_limit")
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    points: tuple[dict[str, str], ...] = Field((), description="of an array: the variables of each of its tasks")
    max_parallel: PositiveInt | None = Field(None, description="of an array: how many of its tasks run at a time")


class Launch(Value):
    """What is run, and with what; each word of ``command`` reaches the trainer as it stands."""

    command: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    checkpoint_dir: str = "checkpoints"
    setup: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    account: str | None = None
    qos: str | None = None
    stage_in: StageIn | None = Field(None, description="data to copy to the site's fast storage before training")
    stages: dict[str, Stage] = Field(default_factory=dict, description="jobs beside training, by name")
    after: tuple[str, ...] = Field((), description="stages that must have succeeded before training starts")
    after_any: tuple[str, ...] = Field((), description="stages that must have ended before training starts")


class Workload(Value):
    """A training workload: a model, the run, and what the user insists on."""

    name: str
    description: str = ""
    model: ModelShape
    training: Training
    request: Request = Request.model_construct()
    launch: Launch = Launch.model_construct()
    sources: tuple[str, ...] = ()

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield what is wrong with the model's numbers."""
        for loc, message in self.model.inconsistencies():
            yield ("model", *loc), message
