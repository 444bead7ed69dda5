"""Many shardings at once: one NumPy array a field, all of the same length."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CPU",
    "DEVICE",
    "FULL",
    "GPIPE",
    "NONE",
    "NVME",
    "OFFLOAD",
    "ONE_F_ONE_B",
    "RECOMPUTE",
    "SCHEDULES",
    "SELECTIVE",
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


@dataclass(frozen=True, slots=True)
class Shardings:
    """Ranks form a grid tp x cp x dp x pp, tp fastest; experts are spread over ``ep`` of the cp x dp ranks.

    All arrays are int64 of shape (candidates,). ``micro_batch`` counts sequences; ``micro_batches`` those that one
    data-parallel rank runs in a step; ``recompute`` indexes ``RECOMPUTE``; ``sequence_parallel`` is 0 or 1;
    ``schedule`` indexes ``SCHEDULES`` (1F1B with ``vpp`` above 1 is interleaved); ``offload`` indexes ``OFFLOAD``:
    where the optimizer states live and are stepped. The last two may be left out: 1F1B, on the accelerator.
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

    def __post_init__(self) -> None:
        for name in ("schedule", "offload", "last_layers"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros_like(self.tp))

    @property
    def gpus(self) -> Ints:
        """Accelerators that each sharding uses."""
        return self.tp * self.pp * self.dp * self.cp

    def stage_layers(self, layers: float | Floats) -> Floats:
        """Return the layers of the fullest stage, of so many layers in all."""
        others = np.ceil((layers - self.last_layers) / np.maximum(1, self.pp - 1))
        return np.where(self.last_layers > 0, others, np.ceil(layers / self.pp))

    def __len__(self) -> int:
        return len(self.tp)

    def take(self, index: Ints | NDArray[np.bool_] | slice) -> Shardings:
        """Return the shardings at these places, in this slice, or where the mask is true."""
        return Shardings(**{field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)})

    @classmethod
    def of(cls, **fields: int | list[int]) -> Shardings:
        """Return shardings from scalars and lists; a scalar is repeated, and what is not given is 1 (0 for flags)."""
        zero = {"zero", "recompute", "sequence_parallel", "schedule", "offload", "last_layers"}
        names = [field.name for field in dataclasses.fields(cls)]
        columns = [np.atleast_1d(np.asarray(fields.get(n, 0 if n in zero else 1), dtype=np.int64)) for n in names]
        return cls(**dict(zip(names, np.broadcast_arrays(*columns), strict=True)))

    @classmethod
    def concatenate(cls, parts: list[Shardings]) -> Shardings:
        """Return all of them, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})
