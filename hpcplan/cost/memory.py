"""How much memory the fullest rank needs: parameters, gradients, optimizer states, activations, logits, the rest.

Mixed-precision Adam keeps per parameter 2 bytes of 16-bit weights, 4 of fp32 gradients (as Megatron-LM accumulates
them) and 12 of fp32 master weights and moments (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1; there the
gradients are 16-bit). Activations follow Korthikanti et al. 2022 (arXiv:2205.05198, section 4), counted tensor by
tensor so that gated layers and grouped-query attention come out right; the 5as/h term is there where attention is not
fused, since flash attention keeps no score matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.compute import STATE_BYTES
from hpcplan.cost.machine import Machine
from hpcplan.cost.recipe import PRETRAINING, Recipe
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import CPU, DEVICE, FULL, GPIPE, SELECTIVE, Floats, Shardings

__all__ = [
    "Held",
    "Memory",
    "held_parameters",
    "host_bytes",
    "layer_activation_bytes",
    "memory",
    "score_bytes_kept",
]


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters that the fullest rank holds before ZeRO divides them: replicated over dp x cp, and its experts.

    ``trained`` are those that have gradients and optimizer states: all of the two, or the adapters alone.
    """

    dense: Floats
    experts: Floats
    trained_dense: Floats
    trained_experts: Floats


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the fullest rank, arrays of shape (rows,)."""

    parameters: Floats
    gradients: Floats
    optimizer: Floats
    activations: Floats
    logits: Floats
    buffers: Floats
    framework: Floats

    @property
    def total(self) -> Floats:
        """The sum of all terms."""
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
            + self.buffers
            + self.framework
        )


def held_parameters(shape: Shape, s: Shardings, recipe: Recipe = PRETRAINING) -> Held:
    """Return what the fullest rank of each sharding holds: its share of the layers of one stage, and a table.

    With one stage, tied embeddings are held once; with more, the first stage has the table and the last the head.
    """
    layers = s.stage_layers(shape.layers)
    both = shape.table_parameters + np.where(np.asarray(shape.tied_embeddings) > 0, 0, shape.head_parameters)
    ends = np.where(s.pp == 1, both, np.maximum(shape.table_parameters, shape.head_parameters)) / s.tp
    sparse = np.minimum(layers, shape.sparse_layers)
    plain = layers - sparse
    feed_forward = plain * shape.ffn_parameters + sparse * shape.router_parameters
    shared = layers * shape.attention_parameters + feed_forward
    routed = sparse * shape.expert_parameters * shape.experts / s.ep
    dense, experts = shared / s.tp + ends, np.broadcast_to(routed / s.tp, ends.shape)
    rank = np.asarray(recipe.adapter_rank, dtype=float)
    if not rank.any():
        return Held(dense, experts, dense, experts)
    # of a projection that is cut, one of the two adapter matrices is cut and the other is on every rank
    adapters = rank * (layers * shape.adapter_attention + plain * shape.adapter_ffn) * (1 + 1 / s.tp) / 2
    return Held(dense, experts, np.where(rank > 0, adapters, dense), np.where(rank > 0, 0.0, experts))


def layer_activation_bytes(shape: Shape, sequence: Number, s: Shardings, element_bytes: Number = 2.0) -> Floats:
    """Return the bytes that one layer keeps for the backward pass of one micro-batch, without recomputation or scores.

    For a GPT layer with tensor and sequence parallelism this is 34 sbh/t in 16 bits (Korthikanti et al. 2022, equation
    4, less the attention term); dropout masks take a byte an element in any precision.
    """
    tokens = s.micro_batch * sequence / s.cp
    sparse = shape.sparse_layers / shape.layers
    wide = shape.expert_ffn * (shape.experts_per_token + shape.shared_experts)
    inner = (1 - sparse) * shape.ffn + sparse * wide
    routed = sparse * shape.hidden * shape.experts_per_token  # each token's copies at its experts
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    replicated = (4 * element_bytes + 2 * shape.dropout) * shape.hidden / split
    attention = shape.attention_in + shape.query_up + shape.key_value_up + shape.attention_out
    sharded = element_bytes * (attention + inner * shape.ffn_matrices + routed) / s.tp
    return tokens * (replicated + sharded)


def score_bytes_kept(shape: Shape, sequence: Number, s: Shardings, element_bytes: Number = 2.0) -> Floats:
    """Return the bytes of scores that plain attention keeps a layer and micro-batch: the softmax's output.

    Dropout on it adds a mask and its own output: 5 a s^2 b / t in all in 16 bits (Korthikanti et al. 2022).
    """
    kept = element_bytes + shape.dropout * (1 + element_bytes)
    return np.asarray(kept * shape.heads * sequence * s.micro_batch * sequence / s.cp / s.tp, dtype=float)


def _activations(
    shape: Shape,
    sequence: Number,
    s: Shardings,
    c: Coefficients,
    flash: Number,
    in_flight: Floats,
    element_bytes: Number,
) -> Floats:
    """Return the activations of a stage that keeps those of ``in_flight`` micro-batches."""
    layers = s.stage_layers(shape.layers)
    scores = np.where(np.asarray(flash) > 0, 0.0, score_bytes_kept(shape, sequence, s, element_bytes))
    tensors = layer_activation_bytes(shape, sequence, s, element_bytes)
    whole = np.where(s.recompute == SELECTIVE, tensors * c.selective_kept, tensors + scores)
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    entry = element_bytes * s.micro_batch * sequence / s.cp * shape.hidden / split
    kept = np.where(s.recompute == FULL, entry, whole)
    again = np.where(s.recompute == SELECTIVE, scores + tensors * np.maximum(0.0, 1 - c.selective_kept), 0.0)
    working = np.where(s.recompute == FULL, whole, again)
    return layers * kept * in_flight + working


def _in_flight(s: Shardings) -> Floats:
    """Return the micro-batches that the first stage keeps: pp under 1F1B, all of them under GPipe.

    Interleaving keeps (pp - 1) / (pp * vpp) more (Korthikanti et al. 2022, appendix C); the zero-bubble schedule ZB-H1
    keeps as many as 1F1B (Qi et al. 2023, arXiv:2401.10241, table 2).
    """
    plain = np.minimum(s.pp, s.micro_batches).astype(np.float64)
    kept = np.where(s.vpp > 1, plain * (1 + (s.pp - 1) / (s.pp * s.vpp)), plain)
    return np.where(s.schedule == GPIPE, s.micro_batches, kept)


def memory(
    shape: Shape, sequence: Number, machine: Machine, s: Shardings, c: Coefficients, recipe: Recipe = PRETRAINING
) -> Memory:
    """Return the memory of the fullest rank of each sharding: of the first stage, or the last with its logits."""
    held, flash = held_parameters(shape, s, recipe), recipe.flash
    replicas, expert_replicas = s.dp * s.cp, np.maximum(1, s.dp * s.cp // s.ep)

    def divided(dense: Floats, experts: Floats, from_stage: int) -> Floats:
        split = s.zero >= from_stage
        return dense / np.where(split, replicas, 1) + experts / np.where(split, expert_replicas, 1)

    trained = (held.trained_dense, held.trained_experts)
    gathered = (s.zero == 3) & (s.pp > 1)  # FSDP under a pipeline keeps weights and gradients whole during a step
    whole = np.where(gathered, held.dense + held.experts, 0.0)
    whole_gradients = np.where(gathered, sum(trained), 0.0)
    weights = machine.element_bytes * divided(*trained, 3)
    if np.any(np.asarray(recipe.adapter_rank) > 0):
        frozen = recipe.frozen_bytes * divided(held.dense, held.experts, 3)
        weights = weights + np.where(np.asarray(recipe.adapter_rank) > 0, frozen, 0.0)

    tokens = s.micro_batch * sequence / s.cp
    first = (
        _activations(shape, sequence, s, c, flash, _in_flight(s), machine.element_bytes) * c.activation_fragmentation
    )
    last = (
        _activations(shape, sequence, s, c, flash, np.ones(len(s)), machine.element_bytes) * c.activation_fragmentation
    )
    logits = tokens * shape.vocab / s.tp * c.logit_bytes
    last_is_fuller = last + logits > first
    one_layer = (held.dense + held.experts) / s.stage_layers(shape.layers)
    layers = np.where((s.zero == 3) & (s.pp == 1), c.gathered_layers * one_layer * machine.element_bytes, 0.0)
    kept = np.where(np.asarray(machine.element_bytes) == 4, STATE_BYTES - 4, STATE_BYTES)  # fp32 weights need no copy
    passed = np.where(s.gpus > 1, 2.0 * 2.0 * tokens * shape.hidden, 0.0)
    return Memory(
        parameters=weights,
        gradients=4 * np.maximum(divided(*trained, 2), whole_gradients),
        optimizer=np.where(s.offload == DEVICE, c.state_copies * kept * divided(*trained, 1), 0.0),
        activations=np.where(last_is_fuller, last, first),
        logits=np.where(last_is_fuller, logits, 0.0),
        buffers=layers + machine.element_bytes * whole + passed,
        framework=np.broadcast_to(np.asarray(c.framework_bytes, dtype=float), (len(s),)),
    )


def host_bytes(shape: Shape, machine: Machine, s: Shardings, recipe: Recipe = PRETRAINING) -> Floats:
    """Return the bytes of one node's main memory that offloaded optimizer states take: 16 a parameter, with gradients.

    States on local storage pass through the host a piece at a time and are not counted.
    """
    held = held_parameters(shape, s, recipe)
    replicas, expert_replicas = s.dp * s.cp, np.maximum(1, s.dp * s.cp // s.ep)
    split = s.zero >= 1
    mine = held.trained_dense / np.where(split, replicas, 1)
    mine = mine + held.trained_experts / np.where(split, expert_replicas, 1)
    on_node = np.minimum(machine.gpus_per_node, s.gpus)
    return np.where(s.offload == CPU, (STATE_BYTES + 4) * mine * on_node, 0.0)
