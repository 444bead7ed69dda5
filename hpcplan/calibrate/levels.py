"""What a calibration may move, and how far: factors on the constants, by level.

Each row's constants are the base values times one factor a level: for its chip's family, its accelerator, its
framework, its precision, the features of its trainer, and its site. Every factor's logarithm has a normal prior around
zero, whose standard deviation says how much such constants are believed to differ at that level: the fit explains what
many rows share by the base, and what few rows have by the levels that are theirs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.calibrate.batch import Batch, System
from hpcplan.calibrate.rows import Row
from hpcplan.cost.coefficients import NAMES, Coefficients
from hpcplan.cost.constants import Belief, implied_features, lineage, scalings

__all__ = ["LEVELS", "MEMORY_LEVELS", "Level", "believed", "labels"]


@dataclass(frozen=True, slots=True)
class Level:
    """A level's name, which is its folder among the constants, and the spread (of the logarithm) of each constant."""

    kind: str
    spread: Mapping[str, float]
    inherited: bool = True  # whether a fork of a trainer takes on the factors of that
    only: frozenset[str] | None = None  # labels that move anything here; all if absent
    without: frozenset[str] = frozenset()  # labels that do not

    def moves(self, label: str) -> bool:
        """Tell whether a fit may move anything of this label."""
        return label not in self.without and (self.only is None or label in self.only)


_BENCHMARKED = frozenset({"B200", "B300"})
LEVELS = (
    Level(
        "base",
        {
            "matmul_efficiency": 0.08, "matmul_half_rows": 0.3, "matmul_half_width": 0.3, "attention_efficiency": 0.2,
            "attention_half_head": 0.4, "attention_half_sequence": 0.4, "score_bytes": 0.3, "memory_efficiency": 0.15,
            "stream_elements": 0.3, "activation_elements": 0.3, "kernel_launch_s": 0.4, "loss_elements": 0.4,
            "link_efficiency": 0.05, "network_efficiency": 0.15, "link_half_bytes": 0.2,
            "host_path_efficiency": 0.4, "network_half_bytes": 0.5, "tensor_exposed": 0.25,
            "tensor_backward_exposed": 0.4, "gather_efficiency": 0.2, "expert_exposed": 0.4, "gradient_exposed": 0.6,
            "sharded_exposed": 0.6, "pipeline_exposed": 0.4, "bubble": 0.06, "step_overhead_s": 0.6,
            "micro_batch_overhead_s": 0.6, "straggler": 0.7, "routing_elements": 0.4,
        },
    ),
    Level(
        "families",
        {
            "matmul_efficiency": 0.08, "memory_efficiency": 0.08, "matmul_half_rows": 0.3,
            "matmul_half_width": 0.3, "link_efficiency": 0.1, "network_efficiency": 0.1,
        },
    ),
    # what is believed of Blackwell's kernels, and of cuDNN's beside FlashAttention-2, are benchmarks of them alone
    Level("families", {"attention_efficiency": 0.08}, only=_BENCHMARKED),
    Level("families", {"attention_efficiency": 0.2}, without=_BENCHMARKED),
    Level("accelerators", {"matmul_efficiency": 0.05, "attention_efficiency": 0.1, "memory_efficiency": 0.05}),
    Level(
        "frameworks",
        {
            "matmul_efficiency": 0.08, "attention_efficiency": 0.08, "memory_efficiency": 0.1, "kernel_launch_s": 0.5,
            "gradient_exposed": 0.5, "sharded_exposed": 0.7, "micro_batch_overhead_s": 0.7, "step_overhead_s": 0.7,
            "tensor_exposed": 0.3, "stream_elements": 0.25, "score_bytes": 0.3, "network_efficiency": 0.15,
            "gather_efficiency": 0.4, "expert_exposed": 0.4,
        },
    ),
    # trainers call the same few kernels for attention; this one has one of its own
    Level("frameworks", {"attention_efficiency": 0.25}, only=frozenset({"llm-foundry"})),
    Level("precisions", {"matmul_efficiency": 0.15, "stream_elements": 0.3, "matmul_half_rows": 0.3}),
    # a feature moves what it is about, and nothing else
    Level(
        "features", {"stream_elements": 0.4, "activation_elements": 0.4, "kernel_launch_s": 0.4},
        only=frozenset({"compile"}),
    ),
    Level("features", {"matmul_efficiency": 0.1}, only=frozenset({"rowwise"})),
    Level("features", {"tensor_exposed": 0.4}, only=frozenset({"async-tp"})),
    Level("features", {"expert_exposed": 0.3}, only=frozenset({"expert-overlap"})),
    Level("features", {"attention_efficiency": 0.08}, only=frozenset({"cudnn-attention"})),
    Level("features", {"kernel_launch_s": 0.5, "stream_elements": 0.3}, only=frozenset({"whole-graph"})),
    Level(
        "sites",
        {
            "matmul_efficiency": 0.06, "attention_efficiency": 0.09, "memory_efficiency": 0.07, "kernel_launch_s": 0.24,
            "link_efficiency": 0.12, "network_efficiency": 0.15, "gradient_exposed": 0.3, "sharded_exposed": 0.42,
            "micro_batch_overhead_s": 0.3, "step_overhead_s": 0.3, "matmul_half_rows": 0.15, "matmul_half_width": 0.15,
            "tensor_exposed": 0.15, "stream_elements": 0.12, "pipeline_exposed": 0.15, "gather_efficiency": 0.12,
        },
    ),
)  # fmt: skip

MEMORY_LEVELS = (
    Level(
        "base",
        {"state_copies": 0.06, "framework_bytes": 0.3, "activation_fragmentation": 0.06, "logit_bytes": 0.1,
         "selective_kept": 0.02},
    ),
    Level(
        "frameworks",
        {"state_copies": 0.4, "framework_bytes": 0.3, "activation_fragmentation": 0.2, "logit_bytes": 0.4,
         "selective_kept": 0.4, "kept_activations": 0.15},
        inherited=False,
    ),
    # fused kernels keep less
    Level("features", {"activation_fragmentation": 0.25, "logit_bytes": 0.3, "kept_activations": 0.15}),
    Level("sites", {"framework_bytes": 0.3, "activation_fragmentation": 0.1, "logit_bytes": 0.2}),
)  # fmt: skip


def labels(kind: str, row: Row, system: System, inherited: bool = True) -> tuple[str, ...]:
    """Return the files of a level that hold factors for a row."""
    return {
        "base": ("base",),
        "families": (system.family,),
        "accelerators": (system.accelerator,),
        "frameworks": lineage(row.framework) if inherited else (row.framework,),
        "precisions": scalings(row.precision),
        "features": (*row.features, *implied_features(row.framework, system.family, row.precision, row.features)),
        "sites": (row.site,),
    }[kind]


def believed(batch: Batch, base: Coefficients, beliefs: Sequence[Belief]) -> Coefficients:
    """Return every row's constants before the fit: ``base`` times what is believed of the labels it bears."""
    logs = np.zeros((len(batch), len(NAMES)))
    for belief in beliefs:
        for i, (row, system) in enumerate(zip(batch.rows, batch.systems, strict=True)):
            if belief.label in labels(belief.kind, row, system):
                logs[i, NAMES.index(belief.constant)] += np.log(belief.factor)
    return batch.coefficients(base, logs)
