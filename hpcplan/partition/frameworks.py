"""What each framework can really run, as values of the search's columns.

Degrees, ZeRO stages, recomputation and precisions are those of :mod:`hpcplan.frameworks`, which rendering asks too;
here is what only the search decides: schedules, offload, and how they go together. Sources: Megatron-LM,
``megatron/training/arguments.py`` (``validate_args``), and the Megatron Core developer guide on Megatron-FSDP (with
tensor, expert and context parallelism) and on offloading the optimizer (with the distributed optimizer); torchtitan,
``torchtitan/config/parallelism.py``, with the schedules of ``torch/distributed/pipelining/schedules.py``; DeepSpeed,
``deepspeed/runtime/pipe/engine.py`` (no ZeRO 2 or 3 in a pipeline) and ``schedule.py`` (1F1B), and its configuration
reference on ``offload_optimizer`` and on AutoEP (not with AutoTP); PyTorch, ``fully_shard`` with ``CPUOffloadPolicy``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from hpcplan.cost.shardings import (
    CONTEXT_EXCHANGE,
    CPU,
    DEVICE,
    GPIPE,
    NVME,
    ONE_F_ONE_B,
    RECOMPUTE,
    RECOMPUTE_MLP,
    ZERO_BUBBLE,
)
from hpcplan.frameworks import FRAMEWORKS, Framework, SomeLayers

__all__ = ["Capabilities", "capabilities"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Values of the columns of :class:`hpcplan.cost.shardings.Shardings` that a framework has.

    ``axes`` may be more than 1. ``zero_in_pipeline`` are the ZeRO stages that go with a pipeline;
    ``replicated_alone``: stage 0 goes with data parallelism alone. ``offload`` wants stage ``offload_from``.
    """

    axes: frozenset[str]
    zero: tuple[int, ...]
    recompute: tuple[int, ...]
    sequence_parallel: tuple[int, ...]  # with tensor parallelism
    precisions: frozenset[str]
    zero_in_pipeline: tuple[int, ...] = (0, 1)
    replicated_alone: bool = False
    schedules: tuple[int, ...] = (ONE_F_ONE_B,)
    offload: tuple[int, ...] = (DEVICE,)
    offload_from: int = 1
    experts_need_sequence_parallel: bool = False
    experts_beside_tensor: bool = True  # expert parallelism goes with tensor parallelism
    accumulates: bool = True  # gradients, over micro-batches
    recompute_from: int = 0  # least ZeRO stage for recomputation
    unequal_batches: bool = False  # micro-batches of different size on different accelerators
    tensor_needs_replicas: bool = False  # tensor parallelism goes with sharded data parallelism only
    hybrid: frozenset[int] = frozenset()  # ZeRO stages that go with groups of ranks that are copies of each other
    hybrid_alone: bool = False  # these go with data parallelism alone
    least_replicas: int = 1  # of data-parallel ranks, in such a group
    blocks: str | None = None  # whether layers recomputed in full can share a checkpoint: "always", or in a "pipeline"
    secondary: bool = False  # whether groups can keep weights once more beside ZeRO 3
    recompute_mlp: tuple[int, ...] = (0,)  # of MLPs by themselves
    activation: str = "all"  # of which layers the activation alone can be recomputed
    activation_not_in: frozenset[str] = frozenset()  # precisions
    context_exchange: tuple[int, ...] = (0,)
    some_layers: SomeLayers | None = None  # which can be recomputed in full, where not all are

    def copies(self, ep: int) -> bool:
        """Whether groups can be copies of each other with experts spread over so many ranks."""
        return ep == 1 or not self.hybrid_alone


_CORE: Final = {"offload": (DEVICE, CPU), "experts_need_sequence_parallel": True}
_SHARDED: Final = {"replicated_alone": True, "offload": (DEVICE, CPU), "offload_from": 2}
_ANY_SCHEDULE: Final = (ONE_F_ONE_B, GPIPE, ZERO_BUBBLE)
_OWN_TRAINER: Final = {
    "schedules": _ANY_SCHEDULE,
    "offload": (DEVICE, CPU, NVME),
    "zero_in_pipeline": (0, 1, 2, 3),
    "unequal_batches": True,
}
_MORE: Final[Mapping[Framework, Mapping[str, Any]]] = {
    "megatron-lm": _CORE,
    "nemo": _CORE,
    "deepspeed": {"offload": (DEVICE, CPU, NVME), "experts_beside_tensor": False, "hybrid_alone": True},
    "torchtitan": {**_SHARDED, "schedules": _ANY_SCHEDULE, "zero_in_pipeline": (2, 3)},
    "accelerate": {**_SHARDED, "recompute_from": 2, "tensor_needs_replicas": True, "least_replicas": 2},
    "torchrun": {  # DDP, FSDP2
        **_SHARDED,
        "axes": frozenset({"ep"}),
        "zero": (0, 2, 3),
        "sequence_parallel": (0,),
        "unequal_batches": True,
    },
    "tensorflow": {"accumulates": False},
    "jax": {"offload": (DEVICE, CPU), "unequal_batches": True},
    "mpi": _OWN_TRAINER,
    "srun": _OWN_TRAINER,
}


@cache
def capabilities(framework: Framework) -> Capabilities:
    """Return what a framework can run."""
    traits = FRAMEWORKS[framework]
    common: dict[str, Any] = {
        "axes": traits.axes,
        "zero": tuple(sorted(traits.zero)),
        "recompute": tuple(i for i, name in enumerate(RECOMPUTE) if name in traits.recompute),
        "sequence_parallel": {"free": (0, 1), "always": (1,), "never": (0,)}[traits.sequence_parallel],
        "precisions": traits.precision,
        "hybrid": traits.hybrid,
        "some_layers": traits.some_layers,
        "blocks": traits.blocks,
        "secondary": traits.secondary,
        "recompute_mlp": tuple(i for i, name in enumerate(RECOMPUTE_MLP) if name in traits.recompute_mlp),
        "activation": traits.activation,
        "activation_not_in": traits.activation_not_in,
        "context_exchange": tuple(i for i, name in enumerate(CONTEXT_EXCHANGE) if name in traits.context_exchange),
    }
    return Capabilities(**{**common, **_MORE[framework]})
