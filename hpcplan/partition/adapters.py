"""The same model as a fine-tuning run with adapters, for telling what that lighter training would need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from hpcplan.cost.recipe import recipe_of
from hpcplan.partition.kinds import Kind
from hpcplan.workload.model import Adapters, Workload

__all__ = ["ADAPTED", "with_adapters", "with_training"]

ADAPTED: Final = {
    "LoRA (rank 16)": Adapters(rank=16),
    "QLoRA (rank 16, frozen weights in NF4)": Adapters(rank=16, base="nf4"),
}


def with_adapters(workload: Workload, kinds: Sequence[Kind], adapters: Adapters) -> tuple[Workload, list[Kind]]:
    """Return the workload as a fine-tuning run with adapters, and the kinds of node with its recipe."""
    training = workload.training.model_copy(update={"adapters": adapters})
    return with_training(workload, kinds, training)


def with_training(workload: Workload, kinds: Sequence[Kind], training: object) -> tuple[Workload, list[Kind]]:
    changed = workload.model_copy(update={"training": training})
    recipes = [recipe_of(changed.training, kind.chip) for kind in kinds]
    return changed, [
        dataclasses.replace(
            kind,
            recipe=dataclasses.replace(
                recipe,
                bytes_per_token=kind.recipe.bytes_per_token,
                storage_bytes_per_s=kind.recipe.storage_bytes_per_s,
            ),
        )
        for kind, recipe in zip(kinds, recipes, strict=True)
    ]
