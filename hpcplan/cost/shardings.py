"""Many shardings at once: one NumPy array a field, all of the same length."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ACTIVATION",
    "ALL_GATHER",
    "ALL_TO_ALL",
    "CONTEXT_EXCHANGE",
    "CPU",
    "DEVICE",
    "FULL",
    "GPIPE",
    "GRADIENTS",
    "MLP",
    "NONE",
    "NVME",
    "OFFLOAD",
    "ONE_F_ONE_B",
    "QUANTIZED",
    "RECOMPUTE",
    "RECOMPUTE_MLP",
    "RING",
    "SCHEDULES",
    "SELECTIVE",
    "WEIGHTS",
    "ZERO_BUBBLE",
    "Floats",
    "Ints",
    "Shardings",
]

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

RECOMPUTE = ("none", "selective", "full")
NONE, SELECTIVE, FULL = range(3)

SCHEDULES = ("1f1b", "gpipe", "zero-bubble")
ONE_F_ONE_B, GPIPE, ZERO_BUBBLE = range(3)

OFFLOAD = ("none", "cpu", "nvme")
DEVICE, CPU, NVME = range(3)

RECOMPUTE_MLP = ("none", "activation", "all")
_, ACTIVATION, MLP = range(3)

CONTEXT_EXCHANGE = ("p2p", "all_gather", "a2a")
RING, ALL_GATHER, ALL_TO_ALL = range(3)

QUANTIZED = ("none", "weights", "gradients", "both")
WEIGHTS, GRADIENTS = 1, 2


@dataclass(frozen=True, slots=True)
class Shardings:
    """Ranks form a grid tp x cp x dp x pp, tp fastest; experts are spread over ``ep`` of the cp x dp ranks.

    All arrays are int64 of shape (candidates,). ``micro_batch`` counts sequences; ``micro_batches`` those that one
    data-parallel rank runs in a step; ``recompute`` indexes ``RECOMPUTE``; ``sequence_parallel`` is 0 or 1;
    ``schedule`` indexes ``SCHEDULES`` (1F1B with ``vpp`` above 1 is interleaved); ``offload`` indexes ``OFFLOAD``:
    where the optimizer states live and are stepped. What comes after ``sequence_parallel`` may be left out: 1F1B, on
    the accelerator, stages cut evenly. ``last_layers`` are those of a last stage that has fewer than the others. A cut
    that is stated in full is ``fullest_layers``, those of the largest stage (with ``last_layers``, those of the last),
    and ``kept_layers``, of how many layers the fullest stage keeps activations, each micro-batch counted by itself.
    Full recomputation is of all layers, or of ``spared_layers`` of each stage where that is not 0; without it these are
    layers whose activations wait on the host, which is taken to cost no time. Of all layers, ``recompute_block``
    neighbours share one checkpoint and are run again together (0 is 1). ZeRO divides over all dp x cp ranks, or
    over groups of ``shard_group`` of them that are copies of each other (hybrid sharding) where that is not 0. With
    stage 3, groups of ``secondary_group`` neighbours keep 16-bit weights once more, from which the backward pass
    gathers them (hpZ; Wang et al. 2023, arXiv:2306.10209, section 3.2), where that is not 0; ``quantized`` has bits for
    weights gathered in 8 bits (qwZ, ibid. 3.1) and gradients reduced in 4 (qgZ, ibid. 3.3). ``recompute_mlp`` says what
    of the feed-forward layer, or the experts, is run again beside ``recompute``: nothing, its activation, or all of it.
    ``context_exchange`` indexes ``CONTEXT_EXCHANGE``: how context-parallel ranks come by keys and values.
    """

    tp: Ints
    pp: Ints
    vpp: Ints
    dp: Ints
    cp: Ints
    ep: Ints
    micro_batch: Ints
    micro_batches: Ints
    zero: Ints
    recompute: Ints
    sequence_parallel: Ints
    schedule: Ints = None  # type: ignore[assignment]  # filled in below: the length is not known here
    offload: Ints = None  # type: ignore[assignment]
    last_layers: Ints = None  # type: ignore[assignment]
    fullest_layers: Ints = None  # type: ignore[assignment]
    kept_layers: Ints = None  # type: ignore[assignment]
    spared_layers: Ints = None  # type: ignore[assignment]
    shard_group: Ints = None  # type: ignore[assignment]
    recompute_block: Ints = None  # type: ignore[assignment]
    secondary_group: Ints = None  # type: ignore[assignment]
    recompute_mlp: Ints = None  # type: ignore[assignment]
    context_exchange: Ints = None  # type: ignore[assignment]
    quantized: Ints = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("schedule", "offload", "last_layers", "fullest_layers", "kept_layers", "spared_layers",
                     "shard_group", "recompute_block", "secondary_group", "recompute_mlp", "context_exchange",
                     "quantized"):  # fmt: skip
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros_like(self.tp))

    @property
    def gpus(self) -> Ints:
        """Accelerators that each sharding uses."""
        return self.tp * self.pp * self.dp * self.cp

    @property
    def shards(self) -> Ints:
        """Ranks that ZeRO divides over."""
        replicas = self.dp * self.cp
        return np.asarray(np.where(self.shard_group > 0, np.minimum(self.shard_group, replicas), replicas), np.int64)

    @property
    def expert_shards(self) -> Ints:
        """The same for experts: each group holds all of them, spread over ``ep`` of its ranks."""
        return np.asarray(np.maximum(1, self.shards // self.ep), np.int64)

    def stage_layers(self, layers: float | Floats) -> Floats:
        """Return the layers of the fullest stage, of so many layers in all."""
        if self.fullest_layers.all():
            return np.asarray(self.fullest_layers, dtype=float)
        cut = np.ceil(layers / self.pp)
        if self.last_layers.any():
            others = np.ceil((layers - self.last_layers) / np.maximum(1, self.pp - 1))
            cut = np.where(self.last_layers > 0, others, cut)
        return np.where(self.fullest_layers > 0, self.fullest_layers, cut) if self.fullest_layers.any() else cut

    def in_flight(self, stage: float | Ints = 0) -> Floats:
        """Return of how many micro-batches a stage, counted from 0, keeps the activations of all its layers at a time.

        Stage i of p keeps p - i under 1F1B (Narayanan et al. 2021, section 2.2) and all of them under GPipe.
        Interleaved, it runs 2 (p - i - 1) + (v - 1) p of its parts ahead and one more (Korthikanti et al. 2022,
        appendix C, for the first). The zero-bubble schedule ZB-H1 keeps p - i, and of i more what products of weights'
        gradients need (Qi et al. 2023, arXiv:2401.10241, section 2.3 and table 3: 32 of 34 bytes).
        """
        left = np.maximum(1, self.pp - stage)
        parts = 2 * left - 1 + (self.vpp - 1) * self.pp
        one_by_one = np.where(self.vpp > 1, parts / self.vpp, left)
        kept = np.where(self.schedule == ZERO_BUBBLE, left + (self.pp - left) * 32 / 34, one_by_one)
        return np.where(self.schedule == GPIPE, self.micro_batches, np.minimum(kept, self.micro_batches)).astype(float)

    def recomputed(self, layers: float | Floats) -> Floats:
        """Return the share of a stage's layers that full recomputation runs again, of a model of so many layers."""
        return np.where(self.recompute == FULL, self.spared(layers), 0.0)

    def spared(self, layers: float | Floats) -> Floats:
        """Return the share of a stage's layers that keep no more than their input on the accelerator."""
        some = np.minimum(1.0, self.spared_layers / self.stage_layers(layers))
        return np.where((self.recompute == FULL) & (self.spared_layers == 0), 1.0, some)

    def mlp_again(self, least: int) -> NDArray[np.bool_]:
        """Tell where the feed-forward layer's activation, or ``MLP``, all of it, is run again by itself."""
        return np.asarray((self.recompute_mlp >= least) & (self.recompute != FULL))

    def blocks(self, layers: float | Floats) -> tuple[Floats, Floats]:
        """Return the checkpoints a layer of full recomputation, and of how many layers it holds all tensors at a time.

        Each virtual stage is cut by itself, and its last block may be shorter (``uniform`` in Megatron-LM).
        """
        part = np.ceil(self.stage_layers(layers) / self.vpp)
        size = np.where((self.recompute == FULL) & (self.spared_layers == 0), np.maximum(1, self.recompute_block), 1)
        size = np.minimum(size, part)
        return np.ceil(part / size) / part, size.astype(float)

    def __len__(self) -> int:
        return len(self.tp)

    def take(self, index: Ints | NDArray[np.bool_] | slice) -> Shardings:
        """Return the shardings at these places, in this slice, or where the mask is true."""
        return Shardings(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})

    @classmethod
    def of(cls, **fields: int | list[int]) -> Shardings:
        """Return shardings from scalars and lists; a scalar is repeated, and what is not given is 1 (0 for flags)."""
        zero = {"zero", "recompute", "sequence_parallel", "schedule", "offload", "last_layers",
                "fullest_layers", "kept_layers", "spared_layers", "shard_group", "recompute_block",
                "secondary_group", "recompute_mlp", "context_exchange", "quantized"}  # fmt: skip
        names = [field.name for field in dataclasses.fields(cls)]
        columns = [np.atleast_1d(np.asarray(fields.get(n, 0 if n in zero else 1), dtype=np.int64)) for n in names]
        return cls(**dict(zip(names, np.broadcast_arrays(*columns), strict=True)))

    @classmethod
    def concatenate(cls, parts: list[Shardings]) -> Shardings:
        """Return all of them, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})
