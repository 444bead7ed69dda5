"""How much memory the fullest rank needs: parameters, gradients, optimizer states, activations, logits, the rest.

Mixed-precision Adam keeps per parameter 2 bytes of 16-bit weights, 4 of fp32 gradients (as Megatron-LM accumulates
them) and 12 of fp32 master weights and moments (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1; there the
gradients are 16-bit). Activations follow Korthikanti et al. 2022 (arXiv:2205.05198, section 4), counted tensor by
tensor so that gated layers and grouped-query attention come out right, and without the 5as/h term of plain attention,
since flash attention keeps no score matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost.constants import Constants
from hpcplan.cost.shardings import FULL, Floats, Shardings
from hpcplan.workload.arithmetic import (
    attention_parameters,
    dense_ffn_parameters,
    embedding_parameters,
    expert_parameters,
    router_parameters,
)
from hpcplan.workload.model import ModelShape

__all__ = ["Held", "Memory", "held_parameters", "layer_activation_bytes", "memory"]


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters that the fullest rank holds before ZeRO divides them, replicated over dp x cp, and its experts."""

    dense: Floats
    experts: Floats


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the fullest rank, arrays of shape (candidates,)."""

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


def held_parameters(shape: ModelShape, s: Shardings) -> Held:
    """Return what the fullest rank of each sharding holds: its share of the layers of one stage, and a table.

    With one stage, tied embeddings are held once; with more, the first stage has the table and the last the head.
    """
    layers = np.ceil(shape.layers / s.pp)
    table, head = embedding_parameters(shape), shape.vocab * shape.hidden
    both = table if shape.tied_embeddings else table + head
    ends = np.where(s.pp == 1, both, max(table, head)) / s.tp
    if shape.experts is None:
        per_layer = (attention_parameters(shape) + dense_ffn_parameters(shape)) / s.tp
        return Held(layers * per_layer + ends, np.zeros(len(s)))
    sparse = np.minimum(layers, shape.layers - shape.experts.dense_layers)
    dense = layers - sparse
    shared = (
        layers * attention_parameters(shape) + dense * dense_ffn_parameters(shape) + sparse * router_parameters(shape)
    )
    routed = sparse * expert_parameters(shape) * shape.experts.count / s.ep
    return Held(shared / s.tp + ends, routed / s.tp)


def layer_activation_bytes(shape: ModelShape, sequence: int, s: Shardings) -> Floats:
    """Return the bytes that one layer keeps for the backward pass of one micro-batch, without recomputation.

    For a GPT layer with tensor and sequence parallelism this is 34 sbh/t (Korthikanti et al. 2022, equation 4, less
    the attention term).
    """
    tokens = s.micro_batch * sequence / s.cp
    h, a, k, d = shape.hidden, shape.heads, shape.key_value_heads, shape.head_size
    inner = shape.ffn
    if shape.experts is not None:
        inner = shape.experts.ffn * (shape.experts.per_token + shape.experts.shared)
        routed = 2 * h * shape.experts.per_token  # each token's copies at its experts
    else:
        routed = 0
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    replicated = (8 + (2 if shape.dropout else 0)) * h / split
    sharded = (2 * (a + 2 * k) * d + 2 * a * d + 2 * inner * (3 if shape.gated else 2) + routed) / s.tp
    return tokens * (replicated + sharded)


def _activations(shape: ModelShape, sequence: int, s: Shardings, in_flight: Floats) -> Floats:
    """Return the activations of a stage that keeps those of ``in_flight`` micro-batches."""
    layers = np.ceil(shape.layers / s.pp)
    whole = layer_activation_bytes(shape, sequence, s)
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    entry = 2.0 * s.micro_batch * sequence / s.cp * shape.hidden / split
    kept = np.where(s.recompute == FULL, entry, whole)
    working = np.where(s.recompute == FULL, whole, 0.0)
    return layers * kept * in_flight + working


def _in_flight(s: Shardings) -> Floats:
    """Return the micro-batches that the first stage keeps under 1F1B.

    Interleaving keeps (pp - 1) / (pp * vpp) more (Korthikanti et al. 2022, appendix C).
    """
    plain = np.minimum(s.pp, s.micro_batches).astype(np.float64)
    return np.where(s.vpp > 1, plain * (1 + (s.pp - 1) / (s.pp * s.vpp)), plain)


def memory(shape: ModelShape, sequence: int, precision_bytes: int, s: Shardings, constants: Constants) -> Memory:
    """Return the memory of the fullest rank of each sharding."""
    held = held_parameters(shape, s)
    replicas, expert_replicas = s.dp * s.cp, np.maximum(1, s.dp * s.cp // s.ep)

    def divided(bytes_each: float, from_stage: int) -> Floats:
        dense = held.dense / np.where(s.zero >= from_stage, replicas, 1)
        experts = held.experts / np.where(s.zero >= from_stage, expert_replicas, 1)
        return bytes_each * (dense + experts)

    tokens = s.micro_batch * sequence / s.cp
    fragmentation = constants.activation_fragmentation.value
    first = _activations(shape, sequence, s, _in_flight(s)) * fragmentation
    last = _activations(shape, sequence, s, np.ones(len(s))) * fragmentation
    logits = tokens * shape.vocab / s.tp * constants.logit_bytes.value
    last_is_fuller = last + logits > first
    layers = np.ceil(shape.layers / s.pp)
    one_layer = (held.dense + held.experts) / layers
    gathered = np.where(s.zero == 3, 2 * one_layer * precision_bytes, 0.0)  # the running layer and the next
    passed = 2.0 * 2.0 * tokens * shape.hidden
    return Memory(
        parameters=divided(precision_bytes, 3),
        gradients=divided(4, 2),
        optimizer=divided(12, 1),
        activations=np.where(last_is_fuller, last, first),
        logits=np.where(last_is_fuller, logits, 0.0),
        buffers=gathered + np.where(s.gpus > 1, passed, 0.0),
        framework=np.full(len(s), constants.framework_bytes.value),
    )
