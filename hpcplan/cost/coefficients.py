"""The cost model's constants: numbers that no data sheet gives.

All are positive, so that a calibration can multiply them: a fit works on their logarithms. ``DEFAULTS`` gives each its
meaning; the values in use, with their sources, are data in ``site_configs/constants``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcplan.cost.shape import Number

__all__ = ["NAMES", "Coefficients"]


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Scalars, or arrays of shape (rows,) where rows come from different systems."""

    matmul_efficiency: Number  # share of the dense peak that a large product reaches
    matmul_half_rows: Number  # rows at which a product reaches half of that
    matmul_half_width: Number  # the same for its columns and its inner dimension
    attention_efficiency: Number  # share of the peak that flash attention reaches with heads of 128
    attention_half_sequence: Number  # tokens at which it reaches half of that
    attention_half_head: Number  # head width at which it reaches half of its best
    score_bytes: Number  # traffic a score element, forward, where attention is not fused
    memory_efficiency: Number  # share of the memory bandwidth that streaming kernels reach
    stream_elements: Number  # elements moved by norms and residuals, a hidden unit and layer, forward
    activation_elements: Number  # elements moved by the activation, a feed-forward unit, forward
    kernel_launch_s: Number  # a kernel; counts where it exceeds the kernel's own time
    loss_elements: Number  # elements moved by the loss, a logit
    link_efficiency: Number  # bus bandwidth over link rate inside a domain, large messages
    network_efficiency: Number  # the same between nodes
    host_path_efficiency: Number  # of that again where data go over the host's PCIe instead of links
    link_half_bytes: Number  # message at which a collective inside a domain reaches half of its bandwidth
    network_half_bytes: Number  # the same between nodes
    tensor_exposed: Number  # share of tensor-parallel traffic that arithmetic does not hide
    tensor_backward_exposed: (
        Number  # share of the backward pass's input-gradient exchanges that weight gradients do not hide
    )
    gather_efficiency: Number  # what gathers and reductions of ZeRO stage 3 and FSDP reach of other collectives' rate
    gradient_exposed: Number  # share of gradient traffic that is on the critical path although the backward pass runs
    sharded_exposed: Number  # the same for ZeRO stage 3 and FSDP
    expert_exposed: Number  # share of expert-parallel traffic that arithmetic does not hide
    pipeline_exposed: Number  # share of stage-to-stage transfers in the steady state that is waited for
    bubble: Number  # the bubble over that of the ideal schedule
    step_overhead_s: Number  # once a step: data, logging, scalars
    micro_batch_overhead_s: Number  # once a micro-batch and stage
    straggler: Number  # slower by so much for each doubling of the nodes
    routing_elements: Number  # moved for a token's copy, forward: sorted and split by expert, joined and sorted back
    expert_imbalance: Number  # busiest over mean expert
    state_copies: Number  # optimizer states as kept over 12 bytes a parameter: fp32 gradients, flat buffers, copies
    step_bytes: Number  # a parameter that a rank steps, only meanwhile: fp32 gradients, square roots of moments
    selective_kept: Number  # share of the activations that selective recomputation keeps (scores are never kept)
    framework_bytes: Number  # what the trainer's allocator holds beyond its tensors, however small these are
    context_bytes: Number  # CUDA's context and kernels, which no allocator counts
    nccl_bytes: Number  # NCCL's buffers, the same, where there are several ranks
    kept_activations: Number  # what is kept for the backward pass over the tensors that fused kernels keep
    activation_fragmentation: Number  # what the allocator holds over the layer at work, logits and gathered weights
    gathered_layers: Number  # whose weights ZeRO stage 3 and FSDP hold whole at a time: the running and the next
    gradient_bytes: Number  # of a gradient as it is summed over micro-batches and reduced over replicas
    logit_bytes: Number  # per element: 16-bit logits, fp32 copy, gradient

    def scaled(self, factors: Mapping[str, Number]) -> Coefficients:
        """Return these with some multiplied."""
        return dataclasses.replace(self, **{name: getattr(self, name) * factor for name, factor in factors.items()})

    def take(self, index: NDArray[np.int64]) -> Coefficients:
        """Return those of these rows, of arrays of shape (rows,)."""
        return Coefficients(**{name: np.asarray(getattr(self, name))[index] for name in NAMES})


NAMES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Coefficients))
