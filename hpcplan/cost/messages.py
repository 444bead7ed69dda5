"""What ranks send each other in a step: how many collectives, of how many bytes.

How long they take is for :mod:`hpcplan.cost.step`, on the neighbourhoods of a machine, and for
:mod:`hpcplan.partition.placement`, on the links of a site. Both ask here what there is to send.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.memory import Held
from hpcplan.cost.recipe import Recipe
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import GPIPE, GRADIENTS, MLP, WEIGHTS, Floats, Ints, Shardings

__all__ = [
    "RING_PASSES",
    "Gather",
    "activation_bytes",
    "dispatch_bytes",
    "dispatches",
    "gradient_gathers",
    "hop_bytes",
    "hops",
    "ring_bytes",
    "swapped_bytes",
    "tensor_reductions",
    "waits",
]

_UNPACKED_BYTES = 3.0  # of a weight that comes in 8 bits: read, and written in 16
_PACKED_BYTES = 4.0  # of a gradient: read in 16 bits and written in 4, read as received, added up and written
RING_PASSES = 3  # of keys and values, a layer and micro-batch: forward, and twice as much backward


def activation_bytes(shape: Shape, machine: Machine, sequence: Number, s: Shardings) -> Floats:
    """Return the bytes of one micro-batch between two layers, on one context-parallel rank, not split further."""
    return np.asarray(s.micro_batch * sequence / s.cp * shape.hidden * machine.element_bytes, dtype=float)


def tensor_reductions(shape: Shape, s: Shardings, backward: Number = 1.0) -> Floats:
    """Return how many all-reduces of an activation a layer takes; ``backward`` counts those of the backward pass.

    Two all-reduces forward and two backward (Shoeybi et al. 2019, section 3); with sequence parallelism each becomes a
    reduce-scatter and an all-gather of the same volume, and inputs that were kept in pieces are gathered once more
    (Korthikanti et al. 2022, section 4.2.2). Full recomputation repeats the forward ones, that of feed-forward layers
    one of the two.
    """
    again = s.recomputed(shape.layers) + 0.5 * s.mlp_again(MLP)
    return np.asarray(2.0 * (1 + again) + 2.0 * backward + np.where(s.sequence_parallel == 1, 1.0, 0.0), dtype=float)


def ring_bytes(shape: Shape, machine: Machine, sequence: Number, s: Shardings) -> Floats:
    """Return the keys and values of a layer of all context-parallel ranks, in bytes (Liu et al. 2023)."""
    tokens = s.micro_batch * sequence / s.cp
    return np.asarray(tokens * shape.key_value_width * machine.element_bytes / s.tp * s.cp, dtype=float)


def swapped_bytes(shape: Shape, machine: Machine, sequence: Number, s: Shardings) -> Floats:
    """Return what a rank sends of a layer in all-to-alls before and after attention, forward (Jacobs et al. 2023).

    Queries, keys, values and outputs change from all heads of a part of the sequence to all of it for some heads, and
    back (DeepSpeed-Ulysses, arXiv:2309.14509, section 3.1).
    """
    tokens = s.micro_batch * sequence / s.cp
    widths = (shape.heads * shape.head_dim + shape.key_value_width + shape.attention_out) / s.tp
    return np.asarray(tokens * widths * machine.element_bytes, dtype=float)


def dispatches(shape: Shape, s: Shardings) -> Floats:
    """Return how many all-to-alls a layer takes, of the mean layer: to the experts and back, in every pass."""
    again = s.recomputed(shape.layers) + s.mlp_again(MLP)
    return np.asarray(shape.sparse_layers / shape.layers * 2 * (2 + again), dtype=float)


def dispatch_bytes(shape: Shape, c: Coefficients, s: Shardings, activation: Floats) -> Floats:
    """Return the bytes of one of a token's copies, for all tokens that a rank sends, as the busiest rank sees it."""
    return np.asarray(activation * shape.busiest_expert(c.expert_imbalance) / s.tp, dtype=float)


def hop_bytes(s: Shardings, activation: Floats) -> Floats:
    """Return what each tensor-parallel rank sends to the next stage: its part (Narayanan et al. 2021, section 4.1)."""
    return np.asarray(activation / s.tp, dtype=float)


def hops(s: Shardings) -> Floats:
    """Return how many messages each stage passes on in a step, forward and backward."""
    return np.asarray(s.micro_batches * s.vpp * 2, dtype=float)


def waits(s: Shardings) -> Floats:
    """Return how often the busiest stage exchanges messages with a neighbour in a step.

    In the steady state of 1F1B an activation goes to the next stage while a gradient comes from there, and the same
    with the stage before (``send_forward_recv_backward`` and ``send_backward_recv_forward`` of Megatron-LM's
    schedules). Of two stages each has one of these neighbours alone, of interleaved ones both; GPipe sends one way at
    a time.
    """
    one_neighbour = (s.pp == 2) & (s.vpp == 1) & (s.schedule != GPIPE)
    return hops(s) / np.where(one_neighbour, 2.0, 1.0)


@dataclass(frozen=True, slots=True)
class Gather:
    """All-gathers (or reduce-scatters) of ``total_bytes`` over groups of ``size`` ranks ``stride`` apart, a step.

    Where ``both`` is set each is a reduce-scatter and an all-gather: an all-reduce. ``axis`` is ``dp`` for the ranks
    that ZeRO divides over, ``rdp`` for groups that are copies of each other and ``sdp`` for those that keep weights
    once more; ``edp``, ``redp`` and ``sedp`` are those of experts. ``sharded`` marks those of ZeRO stage 3, which are
    slower than others. ``unpacked_bytes`` are read and written on the accelerator to pack and unpack what is sent.
    """

    axis: str
    size: Ints
    stride: Ints
    total_bytes: Floats
    times: Floats
    sharded: Floats
    both: bool = False
    unpacked_bytes: Number = 0.0


def gradient_gathers(c: Coefficients, s: Shardings, held: Held, recipe: Recipe) -> Iterator[Gather]:
    """Yield what data-parallel ranks exchange.

    Gradients are reduced once a step (stages 0 to 2) and parameters gathered in 16 bits; stage 3 reduces gradients, and
    gathers parameters for the forward and the backward pass, of every micro-batch; in a pipeline it gathers and reduces
    once a step, since stages would wait for more (as PyTorch's FSDP does there). Frozen weights have no gradients, but
    stage 3 gathers them as they are kept. With hybrid sharding (Zhao et al. 2023, arXiv:2304.11277, section 3.2.2) that
    is among the ranks of a group, whose reduced gradients are then summed over the groups. Where groups keep weights
    once more, the backward pass gathers them there (Wang et al. 2023, arXiv:2306.10209, section 3.2). Weights may be
    gathered in 8 bits, gradients sent in 4 (ibid., sections 3.1 and 3.3): half and a quarter of 16.
    """
    whole, whole_of_experts = s.dp * s.cp, np.maximum(1, s.dp * s.cp // s.ep)
    fully = s.zero == 3
    batches = np.where(s.pp > 1, 1, s.micro_batches)
    in_turn = (np.asarray(recipe.owner_after_owner) > 0) & (s.zero > 0)  # weights are broadcast, not gathered
    once = np.select([s.zero == 0, in_turn], [0.0, 0.0], 1.0)
    gathered = np.where(fully, 2.0 * batches - np.where(s.pp > 1, 1, 0), once)
    reduced = np.where(fully, batches, np.where(s.zero == 0, 2.0, 1.0))  # without ZeRO an all-reduce
    adapters = np.asarray(recipe.adapter_rank) > 0
    qwz, qgz = fully & (s.quantized & WEIGHTS > 0), fully & (s.quantized & GRADIENTS > 0)
    weight, gradient = np.where(qwz, 1.0, 2.0), np.where(qgz, 0.5, c.gradient_bytes)
    unpacked, packed = np.where(qwz, _UNPACKED_BYTES, 0.0), np.where(qgz, _PACKED_BYTES, 0.0)
    for prefix, all_ranks, shards, stride, trained, frozen in (
        ("", whole, s.shards, s.tp, held.trained_dense, held.dense),
        ("e", whole_of_experts, s.expert_shards, s.tp * s.ep, held.trained_experts, held.experts),
    ):
        if not np.any(frozen):
            continue
        size = np.where(s.zero == 0, all_ranks, shards)
        packing, unpacking = packed * trained, unpacked * trained
        yield Gather(f"{prefix}dp", size, stride, gradient * trained, reduced, fully, unpacked_bytes=packing)
        again = np.where(fully & (s.secondary_group > 0) & (s.pp == 1), batches, 0)
        yield Gather(f"{prefix}dp", size, stride, weight * trained, gathered - again, fully, unpacked_bytes=unpacking)
        if again.any():
            near = np.minimum(size, np.maximum(1, s.secondary_group // (s.ep if prefix else 1)))
            yield Gather(f"s{prefix}dp", near, stride, weight * trained, again, fully, unpacked_bytes=unpacking)
        if adapters.any():
            kept = np.where(adapters, recipe.frozen_bytes * frozen, 0.0)
            yield Gather(f"{prefix}dp", size, stride, kept, np.where(fully, 2.0 * batches, 0.0), fully)
        if s.shard_group.any():
            copies, over = np.maximum(1, all_ranks // size), c.gradient_bytes * trained / size
            times = np.where(fully, batches, 1.0)
            yield Gather(f"r{prefix}dp", copies, stride * size, over, times, np.zeros_like(fully), both=True)
