"""How a model is trained, beside shape and sharding: what is trained, in what form it is kept, how it is fed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.shape import Number
from hpcplan.site.model import Accelerator, Storage
from hpcplan.workload.model import Training

__all__ = ["PRETRAINING", "Recipe", "recipe_of"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Scalars, or arrays of shape (rows,).

    With adapters (LoRA; Hu et al. 2021, arXiv:2106.09685, section 4.1) the model's own weights are frozen: they get no
    gradients and no optimizer states, and may be kept in fewer bytes than products use (QLoRA; Dettmers et al. 2023,
    arXiv:2305.14314, section 3), from which they are unpacked before each use.
    """

    flash: Number = 1.0  # 1 where attention is fused, 0 where scores go through memory
    dispatch_once: Number = 0.0  # 1 where a token goes to each node and rank of its experts once, not to each expert
    graphed: Number = 0.0  # share of a layer's kernels outside experts that are replayed as CUDA graphs
    fused_experts: Number = 0.0  # 1 where experts are one operator, with their biases and activations
    owner_after_owner: Number = 0.0  # 1 where updated weights are broadcast by each owner in turn, not gathered at once
    adapter_rank: Number = 0.0  # of low-rank adapters on every projection outside experts; 0 trains all weights
    frozen_bytes: Number = (
        2.0  # a frozen weight as kept: 2 in 16 bits, 1 in int8, 0.516 in NF4 with double quantisation
    )
    sparse_speedup: Number = 1.0  # of forward products with pruned weights, on hardware that gains from the pattern
    bytes_per_token: Number = 0.0  # what a token of the training data takes in storage
    storage_bytes_per_s: Number = np.inf  # what all nodes together read

    @classmethod
    def stack(cls, recipes: list[Recipe]) -> Recipe:
        """Return many recipes as one, each field an array."""
        return cls(*(np.array([getattr(r, f.name) for r in recipes], dtype=float) for f in dataclasses.fields(cls)))


PRETRAINING = Recipe()
_NF4_BYTES = 0.5 + 0.127 / 8  # Dettmers et al. 2023, section 3: 0.127 bits a weight for its constants, quantised too
_FROZEN_BYTES = {"bf16": 2.0, "int8": 1.0, "nf4": _NF4_BYTES}


def recipe_of(training: Training, chip: Accelerator | None = None, storage: Storage | None = None) -> Recipe:
    """Return the recipe of a training run on an accelerator, its data read from ``storage`` (free if absent)."""
    adapters = training.adapters
    return Recipe(
        adapter_rank=adapters.rank if adapters else 0.0,
        frozen_bytes=_FROZEN_BYTES[adapters.base] if adapters else 2.0,
        sparse_speedup=chip.sparse_speedup if chip and training.pruned == "2:4" else 1.0,
        bytes_per_token=training.bytes_per_token,
        storage_bytes_per_s=storage.read_bytes_per_s if storage else np.inf,
    )
