"""What can train: each framework, the releases that its launcher configuration is written for, and what it cannot run.

The search leaves out what a framework cannot run, and rendering refuses it; both ask here, so that they agree. Sources
are the frameworks' own option lists: ``megatron/training/arguments.py`` (Megatron-LM), ``ConfigContainer``
(Megatron-Bridge), the configuration page and ``runtime/pipe/engine.py`` (DeepSpeed), ``config/job_config.py`` and
``distributed/parallel_dims.py`` (torchtitan), ``parallelism_config.py`` (Accelerate), the guides on multi-process JAX
and on ``MultiWorkerMirroredStrategy`` (TensorFlow). On groups of ranks that are copies of each other:
``megatron/core/parallel_state.py`` (partial distributed optimizers, of experts as well), ``runtime/zero/mics.py``
(DeepSpeed). On layers: ``megatron/core/transformer/transformer_block.py`` (``block``, in each virtual stage), and
``distributed/activation_checkpoint.py`` (torchtitan, every n-th of a process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

__all__ = ["FRAMEWORKS", "Framework", "ShardingLike", "SomeLayers", "Traits", "refusals", "with_capacity"]

Framework = Literal[
    "megatron-lm", "nemo", "deepspeed", "torchtitan", "accelerate", "torchrun", "jax", "tensorflow", "mpi", "srun"
]  # fmt: skip
SomeLayers = Literal["any", "chunk", "nth"]
Refusal = tuple[str, str]
"""The field of the sharding, and why it cannot be what it is."""

_ALL_ZERO: Final = frozenset(range(4))
_ALL_RECOMPUTE: Final = frozenset({"none", "selective", "full"})
_ALL_AXES: Final = frozenset({"tp", "pp", "vpp", "cp", "ep"})
_ALL_SCHEDULES: Final = frozenset({"1f1b", "gpipe", "zero-bubble"})
_ALL_OFFLOAD: Final = frozenset({"none", "cpu", "nvme"})
_ALL_MLP: Final = frozenset({"none", "activation", "all"})
_ALL_CONTEXT: Final = frozenset({"p2p", "all_gather", "a2a"})
_DELAYED: Final = frozenset({"fp8-delayed"})
_SCALINGS: Final = frozenset({"fp8", "fp8-delayed", "fp8-blockwise", "mxfp8"})
_ALL_PRECISIONS: Final = frozenset({"fp32", "tf32", "fp16", "bf16", "int8", "fp4", "int4"}) | _SCALINGS


class ShardingLike(Protocol):
    """What :func:`refusals` looks at; a plan's sharding is one."""

    @property
    def tp(self) -> int: ...
    @property
    def pp(self) -> int: ...
    @property
    def vpp(self) -> int: ...
    @property
    def dp(self) -> int: ...
    @property
    def cp(self) -> int: ...
    @property
    def ep(self) -> int: ...
    @property
    def micro_batches(self) -> int: ...
    @property
    def zero(self) -> int: ...
    @property
    def shard_group(self) -> int | None: ...
    @property
    def recompute(self) -> str: ...
    @property
    def recompute_layers(self) -> int | None: ...
    @property
    def secondary_group(self) -> int | None: ...
    @property
    def recompute_block(self) -> int | None: ...
    @property
    def sequence_parallel(self) -> bool: ...
    @property
    def precision(self) -> str: ...
    @property
    def schedule(self) -> str: ...
    @property
    def offload(self) -> str: ...
    @property
    def recompute_mlp(self) -> str: ...
    @property
    def context_exchange(self) -> str: ...
    @property
    def quantized(self) -> str: ...


Rule = Callable[[ShardingLike], Iterator[Refusal]]


def _anything(_: ShardingLike) -> Iterator[Refusal]:
    yield from ()


@dataclass(frozen=True, slots=True)
class Traits:
    """One framework. What is not refused here is either expressed in its configuration or the trainer's own business.

    ``tasks`` is what Slurm starts: one task a ``node``, whose launcher starts the workers, or one a ``gpu``. ``hybrid``
    are the ZeRO stages that it can divide over groups of ranks. ``some_layers`` says which of a rank's layers it can
    recompute in full where it is not all: ``any`` number of them, as many of each virtual stage (``chunk``), or every
    n-th (``nth``). ``blocks``: several of them can share one checkpoint (``pipeline``: in a pipeline only).
    ``secondary``: beside ZeRO 3 groups can keep weights once more, and what is sent can be quantized. ``recompute_mlp``
    and ``context_exchange`` are what it has of these; ``activation`` says in which layers it can recompute that alone,
    ``activation_not_in`` in which precisions it cannot.
    ``capacity`` says whether its experts can be given a capacity factor.
    """

    title: str
    versions: str
    tasks: Literal["node", "gpu"]
    command: tuple[str, ...]
    axes: frozenset[str] = _ALL_AXES
    zero: frozenset[int] = _ALL_ZERO
    recompute: frozenset[str] = _ALL_RECOMPUTE
    precision: frozenset[str] = _ALL_PRECISIONS
    sequence_parallel: Literal["free", "always", "never"] = "free"
    schedules: frozenset[str] = frozenset({"1f1b"})
    offload: frozenset[str] = frozenset({"none", "cpu"})
    hybrid: frozenset[int] = frozenset()
    some_layers: SomeLayers | None = None
    blocks: Literal["always", "pipeline"] | None = None
    secondary: bool = False
    recompute_mlp: frozenset[str] = frozenset({"none"})
    activation: Literal["all", "experts"] = "all"
    activation_not_in: frozenset[str] = frozenset()
    context_exchange: frozenset[str] = frozenset({"p2p"})
    capacity: bool = False
    rule: Rule = _anything


_AXIS_NAMES: Final = {
    "tp": "tensor parallelism",
    "pp": "pipeline parallelism",
    "vpp": "interleaved stages",
    "cp": "context parallelism",
    "ep": "expert parallelism",
}


def _deepspeed(s: ShardingLike) -> Iterator[Refusal]:
    if s.pp > 1 and s.zero > 1:
        yield "zero", "ZeRO-2 and ZeRO-3 do not go with its pipeline engine; at most 1 with pp > 1"
    if s.ep > 1 and s.tp > 1:
        yield "ep", "its expert parallelism does not go with its tensor parallelism"
    if s.shard_group is not None and s.tp * s.ep > 1:
        yield "shard_group", "MiCS divides over groups where nothing but the data is parallel"


def _torchtitan(s: ShardingLike) -> Iterator[Refusal]:
    if s.pp > 1 and s.schedule == "gpipe" and s.vpp > 1:
        yield "vpp", "GPipe is not interleaved"
    if s.zero == 0 and s.dp > 1 and s.tp * s.pp * s.cp > 1:
        yield "zero", "it replicates (ZeRO 0) only where nothing else is parallel; 2 or 3 shard"
    if s.vpp > 1 and s.micro_batches % s.pp:
        yield "micro_batches", "interleaved stages want a multiple of pp"


def _accelerate(s: ShardingLike) -> Iterator[Refusal]:
    if s.zero == 0 and s.tp * s.cp > 1:
        yield "zero", "tensor and context parallelism go with sharded parameters (2 or 3) only"
    if s.zero == 0 and s.recompute == "full":
        yield "recompute", "it recomputes only where it shards (ZeRO 2 or 3)"
    if s.shard_group is not None and s.shard_group <= s.cp:
        yield "shard_group", "a group is of two data-parallel ranks or more"


def _tensorflow(s: ShardingLike) -> Iterator[Refusal]:
    if s.micro_batches > 1:
        yield "micro_batches", "MultiWorkerMirroredStrategy accumulates no gradients; 1, with a larger micro-batch"


def _own(title: str, versions: str, tasks: Literal["node", "gpu"], command: tuple[str, ...]) -> Traits:
    """Return a launcher of trainers that do all of it themselves."""
    return Traits(
        title, versions, tasks, command, schedules=_ALL_SCHEDULES, offload=_ALL_OFFLOAD, hybrid=frozenset({1, 2, 3}),
        some_layers="any", blocks="always", recompute_mlp=_ALL_MLP, context_exchange=_ALL_CONTEXT, capacity=True,
    )  # fmt: skip


_MEGATRON_PRECISIONS: Final = frozenset({"fp32", "fp16", "bf16", "fp4"}) | _SCALINGS
FRAMEWORKS: Final[dict[Framework, Traits]] = {
    "megatron-lm": Traits(
        "Megatron-LM",
        "Core 0.9 and later; hybrid sharding 0.10, fp8 and MLPs recomputed 0.12, uneven stages 0.13, ZeRO 2, 3 0.14, "
        "fp4 0.15",
        "node", ("pretrain_gpt.py",), precision=_MEGATRON_PRECISIONS, hybrid=frozenset({1, 2, 3}),
        some_layers="chunk", blocks="always", recompute_mlp=_ALL_MLP, activation="experts",
        activation_not_in=_DELAYED, context_exchange=_ALL_CONTEXT, capacity=True,
    ),
    "nemo": Traits(
        "NeMo Megatron-Bridge", "0.6", "node", ("scripts/training/run_recipe.py",), precision=_MEGATRON_PRECISIONS,
        hybrid=frozenset({1, 2, 3}), some_layers="chunk", blocks="always", recompute_mlp=_ALL_MLP,
        activation="experts", activation_not_in=_DELAYED, context_exchange=_ALL_CONTEXT, capacity=True,
    ),
    "deepspeed": Traits(
        "DeepSpeed", "0.16.4 and later; experts and ZeRO-3 with tp 0.19", "node", ("train.py",),
        axes=frozenset({"tp", "pp", "ep"}), recompute=frozenset({"none", "full"}),
        precision=frozenset({"fp32", "fp16", "bf16"}), sequence_parallel="never", offload=_ALL_OFFLOAD,
        hybrid=frozenset({3}), blocks="pipeline", secondary=True, rule=_deepspeed,
    ),
    "torchtitan": Traits(
        "torchtitan", "0.2 (TOML)", "node", ("-m", "torchtitan.train"), zero=frozenset({0, 2, 3}),
        precision=frozenset({"fp32", "bf16", "fp8"}), sequence_parallel="always", schedules=_ALL_SCHEDULES,
        hybrid=frozenset({2, 3}), some_layers="nth", rule=_torchtitan,
    ),
    "accelerate": Traits(
        "Hugging Face Accelerate", "1.10 and later", "node", ("train.py",), axes=frozenset({"tp", "cp"}),
        zero=frozenset({0, 2, 3}), recompute=frozenset({"none", "full"}),
        precision=frozenset({"fp32", "fp16", "bf16", "fp8"}), sequence_parallel="never", hybrid=frozenset({2, 3}),
        rule=_accelerate,
    ),
    "torchrun": _own("PyTorch torchrun", "2.0 and later", "node", ("train.py",)),
    "jax": _own("JAX", "0.4.20 and later", "gpu", ("python3", "train.py")),
    "tensorflow": Traits(
        "TensorFlow", "2.11 and later", "node", ("python3", "train.py"), axes=frozenset(), zero=frozenset({0}),
        precision=frozenset({"fp32", "tf32", "fp16", "bf16"}), sequence_parallel="never",
        offload=frozenset({"none"}), some_layers="any", capacity=True, rule=_tensorflow,
    ),
    "mpi": _own("MPI", "any that srun starts", "gpu", ("./train",)),
    "srun": _own("srun", "any", "gpu", ("python3", "train.py")),
}  # fmt: skip
assert set(FRAMEWORKS) == set(get_args(Framework))


def with_capacity() -> list[Framework]:
    """Return the frameworks whose experts can be given a capacity factor."""
    return [name for name, traits in FRAMEWORKS.items() if traits.capacity]


def refusals(framework: Framework, sharding: ShardingLike) -> Iterator[Refusal]:
    """Yield what the framework cannot do of a sharding: the field, and a sentence that says what it can."""
    traits = FRAMEWORKS[framework]
    for axis, name in _AXIS_NAMES.items():
        if getattr(sharding, axis) > 1 and axis not in traits.axes:
            yield axis, f"{traits.title} has no {name} that hpcplan can configure"
    if sharding.zero not in traits.zero and sharding.dp > 1:
        choices = ", ".join(map(str, sorted(traits.zero)))
        yield "zero", f"{traits.title} has no ZeRO stage {sharding.zero}; it has {choices}"
    yield from _groups(traits, sharding)
    yield from _layers(traits, sharding)
    if sharding.recompute not in traits.recompute:
        choices = " or ".join(sorted(traits.recompute, key=("none", "selective", "full").index))
        yield "recompute", f"{traits.title} cannot recompute {sharding.recompute}; it has {choices}"
    if sharding.precision not in traits.precision:
        yield "precision", f"{traits.title} has no option for {sharding.precision}"
    if sharding.pp > 1 and sharding.schedule not in traits.schedules:
        yield "schedule", f"{traits.title} has no schedule {sharding.schedule}"
    if sharding.offload not in traits.offload:
        yield "offload", f"{traits.title} cannot keep optimizer states on {sharding.offload}"
    if sharding.tp > 1 and traits.sequence_parallel == "always" and not sharding.sequence_parallel:
        yield "sequence_parallel", f"{traits.title} always splits the sequence with tensor parallelism"
    if traits.sequence_parallel == "never" and sharding.sequence_parallel:
        yield "sequence_parallel", f"{traits.title} cannot split the sequence with tensor parallelism"
    yield from _recomputed_mlp(traits, sharding)
    if sharding.cp > 1 and sharding.context_exchange not in traits.context_exchange:
        choices = " or ".join(sorted(traits.context_exchange))
        yield "context_exchange", f"{traits.title} has no {sharding.context_exchange} in context parallelism; {choices}"
    if sharding.cp == 1 and sharding.context_exchange != "p2p":
        yield "context_exchange", f"{traits.title} exchanges nothing without context parallelism (cp 1)"
    yield from ((field, f"{traits.title}: {message}") for field, message in traits.rule(sharding))


def _recomputed_mlp(traits: Traits, s: ShardingLike) -> Iterator[Refusal]:
    """Yield what is wrong with the recomputation of feed-forward layers or experts by themselves."""
    if s.recompute_mlp not in traits.recompute_mlp:
        yield "recompute_mlp", f"{traits.title} has no option that recomputes {s.recompute_mlp} of an MLP by itself"
    elif s.recompute_mlp != "none" and s.recompute == "full":
        yield "recompute_mlp", f"{traits.title} recomputes MLPs already where it recomputes layers in full"
    elif s.recompute_mlp == "activation" and s.precision in traits.activation_not_in:
        yield "recompute_mlp", f"{traits.title} cannot recompute the activation alone in {s.precision}"


def _groups(traits: Traits, s: ShardingLike) -> Iterator[Refusal]:
    """Yield what is wrong with hybrid sharding: groups that are no copies, or that the framework cannot make."""
    group, replicas, second = s.shard_group, s.dp * s.cp, s.secondary_group
    if s.quantized != "none":
        if not traits.secondary:
            yield "quantized", f"{traits.title} sends weights and gradients as they are"
        elif s.zero != 3 or group is not None or s.tp * s.pp * s.ep > 1:
            yield "quantized", f"{traits.title} quantizes what ZeRO 3 alone sends"
    if second is not None:
        if not traits.secondary:
            yield "secondary_group", f"{traits.title} keeps weights once, divided as ZeRO says"
        elif s.zero != 3 or group is not None or s.tp * s.pp * s.ep > 1:
            yield "secondary_group", f"{traits.title} keeps weights once more beside ZeRO 3 alone"
        elif second < 2 or second >= replicas or replicas % second:
            yield "secondary_group", f"{traits.title} has several groups of as many ranks, which {second} do not make"
    if group is None:
        return
    if s.zero not in traits.hybrid:
        able = " or ".join(map(str, sorted(traits.hybrid)))
        can = f"it can with ZeRO {able}" if able else "it divides over all ranks or none"
        yield "shard_group", f"{traits.title} cannot divide ZeRO {s.zero} over groups of ranks; {can}"
    if group < 2 or group >= replicas or replicas % group or s.dp % (replicas // group):
        message = f"groups of as many fill dp ({s.dp}) times cp ({s.cp}), and there are several"
        yield "shard_group", f"{traits.title} cannot divide over {group} ranks: {message}"
    elif group % s.ep:
        message = f"each group holds all experts, which are spread over {s.ep}"
        yield "shard_group", f"{traits.title} cannot divide over {group} ranks: {message}"


def _layers(traits: Traits, s: ShardingLike) -> Iterator[Refusal]:
    """Yield what is wrong with the recomputation of some layers only, or of several together."""
    if (s.recompute_block or 1) > 1:
        if s.recompute != "full" or s.recompute_layers is not None:
            yield (
                "recompute_block",
                f"{traits.title} can have layers share a checkpoint where all are recomputed in full",
            )
        elif traits.blocks is None or (traits.blocks == "pipeline" and s.pp == 1):
            where = " without a pipeline" if traits.blocks else ""
            yield "recompute_block", f"{traits.title} recomputes layer by layer{where}"
    if s.recompute_layers is None:
        return
    if s.recompute != "full":
        message = f"can count layers that are recomputed in full alone, and recompute is {s.recompute}"
        yield "recompute_layers", f"{traits.title} {message}"
    elif traits.some_layers is None:
        yield "recompute_layers", f"{traits.title} recomputes all layers or none"
    elif traits.some_layers == "chunk" and s.recompute_layers % s.vpp:
        message = f"counts layers of each virtual stage, so {s.recompute_layers} is no multiple of vpp ({s.vpp})"
        yield "recompute_layers", f"{traits.title} {message}"
