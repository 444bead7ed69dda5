"""What a GPU of each pipeline stage holds under one sharding, and which is the fullest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.memory import by_stage
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Shardings
from hpcplan.partition.explain import MEMORY_TERMS
from hpcplan.partition.kinds import Kind
from hpcplan.workload.model import Workload

__all__ = ["StageMemory", "fullest", "stage_memory"]


@dataclass(frozen=True, slots=True)
class StageMemory:
    """A GPU of one stage, counted from 0: its ranks, its layers, of how many micro-batches it keeps the activations of
    all of them, and its memory by term.
    """

    stage: int
    first_rank: int
    last_rank: int
    layers: int
    in_flight: float
    terms_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """The sum of all terms."""
        return sum(self.terms_bytes.values())


def stage_memory(workload: Workload, kind: Kind, s: Shardings, layers: Sequence[int]) -> tuple[StageMemory, ...]:
    """Return the memory of each stage of one sharding whose stages have so many layers."""
    sequence, count = workload.training.sequence_length, np.asarray(layers, dtype=np.int64)
    stages, each = np.arange(len(count)), s.take(np.zeros(len(count), dtype=np.int64))
    held = by_stage(
        Shape.of(workload.model), sequence, kind.machine, each, kind.coefficients, kind.recipe, stages, count
    )  # fmt: skip
    ranks = int(s.gpus[0] // s.pp[0])
    return tuple(
        StageMemory(
            stage=stage,
            first_rank=stage * ranks,
            last_rank=(stage + 1) * ranks - 1,
            layers=int(count[stage]),
            in_flight=round(float(s.in_flight(stage)[0]), 3),
            terms_bytes={name: round(float(getattr(held, name)[stage])) for name in MEMORY_TERMS},
        )
        for stage in range(len(count))
    )


def fullest(stages: Sequence[StageMemory]) -> StageMemory:
    """Return the stage whose GPUs need most; the first of equals."""
    return max(stages, key=lambda one: one.total_bytes)
