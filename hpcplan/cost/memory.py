"""How much memory the fullest rank needs: parameters, gradients, optimizer states, activations, logits, the rest.

Mixed-precision Adam keeps per parameter 2 bytes of 16-bit weights, 4 of fp32 gradients (as Megatron-LM accumulates
them) and 12 of fp32 master weights and moments (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1; there the
gradients are 16-bit). Activations follow Korthikanti et al. 2022 (arXiv:2205.05198, section 4), counted tensor by
tensor so that gated layers and grouped-query attention come out right; the 5as/h term is there where attention is not
fused, since flash attention keeps no score matrix.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.compute import STATE_BYTES
from hpcplan.cost.machine import Machine
from hpcplan.cost.recipe import PRETRAINING, Recipe
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import (
    ACTIVATION,
    ALL_GATHER,
    ALL_TO_ALL,
    CPU,
    DEVICE,
    FULL,
    GRADIENTS,
    MLP,
    SELECTIVE,
    WEIGHTS,
    Floats,
    Ints,
    Shardings,
)

__all__ = [
    "Held",
    "Memory",
    "by_stage",
    "end_parameters",
    "gathered_bytes",
    "held_parameters",
    "host_bytes",
    "layer_activation_bytes",
    "least_blocks",
    "memory",
    "score_bytes_kept",
]


# of what CUDA, NCCL and cuBLAS take elsewhere; chosen: NCCL has 2 channels over PCIe, 16 and more over NVLink, and each
# has buffers to its peers
_WITHOUT_LINKS = 0.6


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
    """Bytes of the fullest rank, arrays of shape (rows,).

    ``logits`` is what they take beyond the tensors of the layer at work, which are gone while the loss is computed, and
    ``optimizer_step`` what the optimizer's own tensors take beyond activations, logits and gathered weights, which are
    gone while it steps. ``context`` is what the card holds beside what the trainer's allocator does.
    """

    parameters: Floats
    gradients: Floats
    optimizer: Floats
    optimizer_step: Floats
    activations: Floats
    logits: Floats
    buffers: Floats
    framework: Floats
    context: Floats

    @property
    def total(self) -> Floats:
        """The sum of all terms."""
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.optimizer_step
            + self.activations
            + self.logits
            + self.buffers
            + self.framework
            + self.context
        )

    @property
    def reserved(self) -> Floats:
        """What the trainer's allocator holds: all but CUDA's context and NCCL's buffers."""
        return self.total - self.context


def end_parameters(shape: Shape, s: Shardings) -> Floats:
    """Return the parameters of embedding and head on a rank that holds them: both of them, or one in a pipeline."""
    both = shape.table_parameters + np.where(np.asarray(shape.tied_embeddings) > 0, 0, shape.head_parameters)
    one = np.maximum(shape.table_parameters, shape.head_parameters)
    return np.asarray(np.where(s.pp == 1, both, one) / s.tp, dtype=float)


def held_parameters(shape: Shape, s: Shardings, recipe: Recipe = PRETRAINING) -> Held:
    """Return what the fullest rank of each sharding holds: its share of the layers of one stage, and a table.

    With one stage, tied embeddings are held once; with more, the first stage has the table and the last the head.
    """
    layers = s.stage_layers(shape.layers)
    ends = end_parameters(shape, s)
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
    """Return the bytes that one layer keeps for the backward pass of one micro-batch, without scores.

    Nothing is recomputed but what ``recompute_mlp`` says: the output of the activation, which is formed again from what
    it reads, or all that the feed-forward layer or the experts keep beside their input.
    For a GPT layer with tensor and sequence parallelism this is 34 sbh/t in 16 bits (Korthikanti et al. 2022, equation
    4, less the attention term); dropout masks take a byte an element in any precision.
    """
    tokens = s.micro_batch * sequence / s.cp
    sparse, spared = shape.sparse_layers / shape.layers, np.minimum(1.0, np.asarray(shape.ffn_kept) - 1.0)
    copies = shape.experts_per_token * shape.busiest_expert(1.0)
    wide = shape.expert_ffn * (copies + shape.shared_experts)
    inner = (1 - sparse) * shape.ffn + sparse * wide
    routed = np.where(s.mlp_again(MLP), 0.0, sparse * shape.hidden * copies)  # each token's at its experts
    kept = np.where(s.mlp_again(MLP), 0.0, shape.ffn_kept - spared * s.mlp_again(ACTIVATION))
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    replicated = (4 * element_bytes + 2 * shape.dropout) * shape.hidden / split
    attention = shape.attention_in + shape.query_up + shape.key_value_up + shape.attention_out
    sharded = element_bytes * (attention + inner * kept + routed) / s.tp
    return tokens * (replicated + sharded)


def score_bytes_kept(shape: Shape, sequence: Number, s: Shardings, element_bytes: Number = 2.0) -> Floats:
    """Return the bytes of scores that plain attention keeps a layer and micro-batch: the softmax's output.

    Dropout on it adds a mask and its own output: 5 a s^2 b / t in all in 16 bits (Korthikanti et al. 2022).
    """
    kept = element_bytes + shape.score_dropout * (1 + element_bytes)
    return np.asarray(kept * shape.heads * sequence * s.micro_batch * sequence / s.cp / s.tp, dtype=float)


def _activations(
    shape: Shape, sequence: Number, s: Shardings, c: Coefficients, flash: Number, element_bytes: Number
) -> tuple[Floats, Floats]:
    """Return the activations that a layer keeps of a micro-batch, and those of the layers that are at work."""
    scores = np.where(np.asarray(flash) > 0, 0.0, score_bytes_kept(shape, sequence, s, element_bytes))
    tensors, formed = layer_activation_bytes(shape, sequence, s, element_bytes), np.zeros(len(s))
    if s.recompute_mlp.any():
        everything = dataclasses.replace(s, recompute_mlp=np.zeros_like(s.tp))
        formed = layer_activation_bytes(shape, sequence, everything, element_bytes) - tensors
    whole = np.where(s.recompute == SELECTIVE, tensors * c.selective_kept, tensors + scores)
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    entry = element_bytes * s.micro_batch * sequence / s.cp * shape.hidden / split
    share, (checkpoints, together) = s.spared(shape.layers), s.blocks(shape.layers)
    kept = share * entry * checkpoints + (1.0 - share) * whole
    again = np.where(s.recompute == SELECTIVE, scores + tensors * np.maximum(0.0, 1 - c.selective_kept), 0.0)
    return kept, np.where(s.recompute == FULL, whole * together, again + formed)


def _kept_layers(shape: Shape, s: Shardings) -> Floats:
    """Return of how many layers the fullest stage keeps activations, each micro-batch counted by itself.

    That is the first; where its first part has a layer less, as interleaved ones do that count embedding and head as
    layers, it may be the second.
    """
    layers, first = s.stage_layers(shape.layers), s.in_flight()
    spared = np.where((s.vpp > 1) & (s.last_layers > 0), np.minimum(2 * s.pp - 1, s.micro_batches), 0)
    kept = np.maximum(layers * first - spared, layers * s.in_flight(1) * (s.pp > 1))
    return np.where(s.kept_layers > 0, s.kept_layers, kept)


def _whole(layers: Floats) -> Ints:
    """Return so many layers and a part of one as whole ones."""
    return np.asarray(np.ceil(layers - 1e-9), dtype=np.int64)


def _stages(shape: Shape, s: Shardings) -> tuple[Shardings, Shardings]:
    """Return shardings told by their first stage, and by the first stage that has a layer more.

    The last stage is shorter than the others; of these, the ones with a layer more come late, since later stages keep
    fewer micro-batches.
    """
    uneven = (s.last_layers > 0) & (s.fullest_layers == 0) & (s.vpp == 1)
    least, extra = np.divmod(np.asarray(shape.layers, dtype=np.int64) - s.last_layers, np.maximum(1, s.pp - 1))

    def told(layers: Ints, stage: Ints) -> Shardings:
        return dataclasses.replace(
            s,
            fullest_layers=np.where(uneven, layers, s.fullest_layers),
            kept_layers=np.where(uneven, _whole(layers * s.in_flight(stage)), s.kept_layers),
        )

    return told(least, 0 * s.pp), told(np.where(extra > 0, least + 1, least), np.where(extra > 0, s.pp - 1 - extra, 0))


def gathered_bytes(shape: Shape, s: Shardings, held: Held, c: Coefficients, element_bytes: Number = 2.0) -> Floats:
    """Return what ZeRO stage 3 and FSDP hold whole for a time: weights of layers that run, and their gradients.

    The running layer and the next are gathered (Zhao et al. 2023, arXiv:2304.11277, section 3.3), and so are embedding
    and head, which belong to the root and stay until the backward pass is through; a layer's gradients are there whole
    in the weights' precision, and once more on their way to be reduced. ``gathered_layers`` below 2 are those of
    trainers that gather parameter by parameter. What is sent in fewer bits is there in both.
    """
    ends = end_parameters(shape, s)
    layer = (held.dense + held.experts - ends) / s.stage_layers(shape.layers)
    narrow = 1.0 * (s.quantized & WEIGHTS > 0) + 0.5 * (s.quantized & GRADIENTS > 0)  # as it is sent, beside
    at_work = layer * (2.0 * element_bytes + element_bytes + c.gradient_bytes + narrow)
    whole = (ends * element_bytes + at_work) * np.minimum(1.0, c.gathered_layers / 2.0)
    return np.where((s.zero == 3) & (s.pp == 1) & (s.shards > 1), whole, 0.0)


def _context_buffers(shape: Shape, tokens: Floats, s: Shardings, element_bytes: Number) -> Floats:
    """Return what context-parallel ranks hold of the layer at work beside their own part of it.

    Gathered, the keys and values of all ranks and their gradients (Llama team 2024, arXiv:2407.21783, section 3.3.2);
    with all-to-alls, queries, keys, values and outputs as sent and as received.
    """
    gathered = 2.0 * tokens * s.cp * shape.key_value_width / s.tp
    swapped = tokens * (shape.heads * shape.head_dim + shape.key_value_width + shape.attention_out) / s.tp
    held = np.select([s.context_exchange == ALL_GATHER, s.context_exchange == ALL_TO_ALL], [gathered, swapped], 0.0)
    return np.asarray(np.where(s.cp > 1, element_bytes * held, 0.0))


def memory(
    shape: Shape, sequence: Number, machine: Machine, s: Shardings, c: Coefficients, recipe: Recipe = PRETRAINING
) -> Memory:
    """Return the memory of the fullest rank of each sharding: of the first stage, or the last with its logits."""
    if not np.any((s.last_layers > 0) & (s.fullest_layers == 0)):
        return _fullest(shape, sequence, machine, s, c, recipe)
    plain, told = _stages(shape, s)
    first = _fullest(shape, sequence, machine, plain, c, recipe)
    differ = np.arange(len(s))  # rows of models of their own cannot be taken apart
    if not np.ndim(shape.layers) and not np.ndim(machine.memory_bytes):
        differ = np.flatnonzero(told.fullest_layers != plain.fullest_layers)
    longer = _fullest(shape, sequence, machine, told.take(differ), c, recipe)
    more = longer.total > first.total[differ]
    for name in (field.name for field in dataclasses.fields(Memory)):
        column = getattr(first, name)
        column[differ] = np.where(more, getattr(longer, name), column[differ])
    return first


def by_stage(
    shape: Shape,
    sequence: Number,
    machine: Machine,
    s: Shardings,
    c: Coefficients,
    recipe: Recipe,
    stage: Ints,
    layers: Ints,
) -> Memory:
    """Return the memory of a rank of some stages, each counted from 0 and of so many layers: one row a stage.

    The first stage has the embedding, the last the head and the logits. :func:`memory` is of a rank that has the most
    of everything, so that no stage needs more.
    """
    kept = _whole(layers * s.in_flight(stage))
    each = dataclasses.replace(
        s, fullest_layers=np.maximum(1, layers), kept_layers=np.maximum(1, kept), last_layers=0 * layers
    )
    last = stage == s.pp - 1
    ends = {
        "table_parameters": np.where(stage == 0, shape.table_parameters, 0.0),
        "head_parameters": np.where(last, shape.head_parameters, 0.0),
        "vocab": np.where(last, shape.vocab, 0.0),
    }
    return _fullest(dataclasses.replace(shape, **ends), sequence, machine, each, c, recipe)


def _fullest(shape: Shape, sequence: Number, machine: Machine, s: Shardings, c: Coefficients, recipe: Recipe) -> Memory:
    s = dataclasses.replace(s, fullest_layers=s.stage_layers(shape.layers).astype(np.int64))  # worked out once
    held, flash, shards, expert_shards = held_parameters(shape, s, recipe), recipe.flash, s.shards, s.expert_shards

    def divided(dense: Floats, experts: Floats, from_stage: int) -> Floats:
        split = s.zero >= from_stage
        return dense / np.where(split, shards, 1) + experts / np.where(split, expert_shards, 1)

    trained = (held.trained_dense, held.trained_experts)
    kept_whole = (s.zero == 3) & (s.pp > 1)  # FSDP under a pipeline keeps weights and gradients whole during a step
    whole = np.where(kept_whole, held.dense + held.experts, 0.0)
    whole_gradients = np.where(kept_whole, sum(trained), 0.0)
    weights = machine.element_bytes * divided(*trained, 3)
    if s.secondary_group.any():
        copy = (s.zero == 3) & (s.secondary_group > 0)
        dense, experts = np.maximum(1, s.secondary_group), np.maximum(1, s.secondary_group // s.ep)
        weights = weights + np.where(copy, machine.element_bytes * (trained[0] / dense + trained[1] / experts), 0.0)
    if np.any(np.asarray(recipe.adapter_rank) > 0):
        frozen = recipe.frozen_bytes * divided(held.dense, held.experts, 3)
        weights = weights + np.where(np.asarray(recipe.adapter_rank) > 0, frozen, 0.0)

    tokens = s.micro_batch * sequence / s.cp
    each, working = _activations(shape, sequence, s, c, flash, machine.element_bytes)
    each, spread = each * c.kept_activations, c.activation_fragmentation
    first = _kept_layers(shape, s) * each + spread * working
    held_last = np.where(s.last_layers > 0, s.last_layers, s.stage_layers(shape.layers))
    last = held_last * s.in_flight(s.pp - 1) * each + spread * working
    logits = spread * np.maximum(0.0, tokens * shape.vocab / s.tp * c.logit_bytes - working)
    last_is_fuller = last + logits > first
    # from stage 2 on, gradients go to the host with the states as each layer is done (Ren et al. 2021, section 4.1)
    on_device = np.where((s.offload != DEVICE) & (s.zero >= 2), 1.0 / s.stage_layers(shape.layers), 1.0)
    gathered = gathered_bytes(shape, s, held, c, machine.element_bytes)
    kept = np.where(np.asarray(machine.element_bytes) == 4, STATE_BYTES - 4, STATE_BYTES)  # fp32 weights need no copy
    passed = np.where(s.gpus > 1, 2.0 * 2.0 * tokens * shape.hidden, 0.0)
    if s.context_exchange.any():
        passed = passed + _context_buffers(shape, tokens, s, machine.element_bytes)
    buffers = spread * (gathered + passed)
    stepped = np.where(s.offload == DEVICE, divided(*trained, 1), 0.0)
    links = np.where(machine.through_host, _WITHOUT_LINKS, 1.0) * np.ones(len(s))
    return Memory(
        parameters=weights,
        gradients=c.gradient_bytes * np.maximum(divided(*trained, 2), whole_gradients) * on_device,
        optimizer=c.state_copies * kept * stepped,
        optimizer_step=np.maximum(0.0, c.step_bytes * stepped - np.maximum(first, last + logits) - buffers),
        activations=np.where(last_is_fuller, last, first),
        logits=np.where(last_is_fuller, logits, 0.0),
        buffers=machine.element_bytes * whole + buffers,
        framework=c.framework_bytes * links,
        context=(c.context_bytes + np.where(s.gpus > 1, c.nccl_bytes, 0.0)) * links,
    )


def least_blocks(
    shape: Shape, sequence: Number, machine: Machine, s: Shardings, c: Coefficients, recipe: Recipe = PRETRAINING
) -> Ints:
    """Return in what blocks layers that are all recomputed in full need least memory, the smallest; 0 for one by one.

    Of p layers, k blocks keep k inputs, and ceil(p / k) layers are at work together: all k are looked at.
    """
    parts, place = np.unique(np.ceil(s.stage_layers(shape.layers) / s.vpp).astype(np.int64), return_inverse=True)
    tried = [sorted({-(-int(part) // blocks) for blocks in range(1, int(part) + 1)}) for part in parts]
    most = max(map(len, tried), default=1)
    sizes = np.array([each + each[-1:] * (most - len(each)) for each in tried], dtype=np.int64).reshape(-1, most)[place]
    one = dataclasses.replace(s, recompute_block=np.zeros_like(s.tp))
    logits = (s.micro_batch * sequence / s.cp * shape.vocab / s.tp * c.logit_bytes)[:, None]
    worst = np.zeros(sizes.shape)
    for each in _stages(shape, one) if s.last_layers.any() else (one,):
        need = _fullest(shape, sequence, machine, each, c, recipe)
        entry, layer = _activations(shape, sequence, each, c, recipe.flash, machine.element_bytes)
        held = each.stage_layers(shape.layers)
        held_last = np.where(s.last_layers > 0, s.last_layers, held) * s.in_flight(s.pp - 1)
        mine = np.ceil(held / s.vpp)[:, None]
        own = np.minimum(sizes, mine)
        kept = (entry * c.kept_activations)[:, None] * np.ceil(mine / own) / mine
        working = c.activation_fragmentation * layer[:, None] * own
        first = _kept_layers(shape, each)[:, None] * kept + working
        last = held_last[:, None] * kept + np.maximum(working, c.activation_fragmentation * logits)
        rest = need.total - need.activations - need.logits - need.optimizer_step
        worst = np.maximum(worst, rest[:, None] + np.maximum(first, last))
    best = sizes[np.arange(len(s)), worst.argmin(axis=1)] if len(s) else s.tp
    return np.where(best > 1, best, 0)


def host_bytes(shape: Shape, machine: Machine, s: Shardings, recipe: Recipe = PRETRAINING) -> Floats:
    """Return the bytes of one node's main memory that offloaded optimizer states take: 16 a parameter, with gradients.

    States on local storage pass through the host a piece at a time and are not counted.
    """
    held = held_parameters(shape, s, recipe)
    split = s.zero >= 1
    mine = held.trained_dense / np.where(split, s.shards, 1)
    mine = mine + held.trained_experts / np.where(split, s.expert_shards, 1)
    on_node = np.minimum(machine.gpus_per_node, s.gpus)
    return np.where(s.offload == CPU, (STATE_BYTES + 4) * mine * on_node, 0.0)
