"""How long one optimizer step takes: arithmetic and communication on the critical path of the slowest rank.

Pipelines follow GPipe or 1F1B, plain or interleaved: with m micro-batches and v virtual stages the bubble is (p-1)/(vm)
of the steady state (Narayanan et al. 2021, arXiv:2104.04473, section 2.2), and the slowest stage sets the pace. The
zero-bubble schedule ZB-H1 fills it with gradients of weights: (p-1)(F + B - W) is left of (p-1)(F + B + W), where B
makes the gradients of inputs and W those of weights (Qi et al. 2023, arXiv:2401.10241, table 1).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import reduce

import numpy as np

from hpcplan.cost import collectives, messages
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.compute import Arithmetic, LayerTime
from hpcplan.cost.correction import Corrected
from hpcplan.cost.machine import Machine
from hpcplan.cost.memory import Held, Memory, held_parameters, memory
from hpcplan.cost.recipe import PRETRAINING, Recipe
from hpcplan.cost.shape import Number, Shape
from hpcplan.cost.shardings import ALL_GATHER, ALL_TO_ALL, ZERO_BUBBLE, Floats, Shardings

__all__ = ["Costs", "StepTime", "gradient_exchange", "price"]

_MORE_SWAPS = 6.0  # of queries, keys, values and outputs, forward and backward, beside the two that are timed


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds on the critical path, arrays of shape (rows,)."""

    compute: Floats
    recompute: Floats
    tensor_parallel: Floats
    context_parallel: Floats
    expert_parallel: Floats
    pipeline_bubble: Floats
    pipeline_transfer: Floats
    data_parallel: Floats
    optimizer: Floats
    overhead: Floats
    data_loading: Floats

    @property
    def total(self) -> Floats:
        """The sum of all terms: one step."""
        terms: list[Floats] = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return reduce(np.add, terms)


@dataclass(frozen=True, slots=True)
class Costs:
    """What each sharding takes: time (s), memory (bytes), throughput (tokens/s), model FLOP utilisation (0-1)."""

    time: StepTime
    memory: Memory
    step_s: Floats
    memory_bytes: Floats
    tokens_per_s: Floats
    mfu: Floats


@dataclass(frozen=True, slots=True)
class _LayerTraffic:
    """Exposed communication of one layer and one micro-batch, forward and backward together, in seconds."""

    tensor: Floats
    context: Floats
    expert: Floats

    @property
    def total(self) -> Floats:
        """All of it."""
        return self.tensor + self.context + self.expert


def price(
    shape: Shape,
    sequence: Number,
    global_batch: Number,
    machine: Machine,
    c: Coefficients,
    s: Shardings,
    recipe: Recipe = PRETRAINING,
    corrected: Corrected | None = None,
) -> Costs:
    """Price many shardings at once, of one model on one machine, or each row of its own.

    Args:
        shape: the model, or one a row.
        sequence: tokens a sequence.
        global_batch: sequences a step; each sharding has dp x micro_batch x micro_batches of them.
        machine: the nodes, at the precision of the matrix products.
        c: what data sheets do not say.
        s: the shardings, arrays of shape (rows,).
        recipe: how it is trained: all weights or adapters, with fused attention or without, fed from which storage.
        corrected: what measured runs of the site add to step times; every term is multiplied alike.
    """
    arithmetic = Arithmetic(shape, sequence, machine, c, s, recipe)
    needed = memory(shape, sequence, machine, s, c, recipe)
    read_s = global_batch * sequence * recipe.bytes_per_token / recipe.storage_bytes_per_s
    time = _step(shape, machine, c, s, arithmetic, np.asarray(read_s, dtype=float))
    if corrected is not None:
        time = _scaled(time, corrected.factor(shape, sequence, s))
    step_s = time.total
    tokens = np.asarray(global_batch * sequence, dtype=float)
    mfu = shape.model_flops_per_token(sequence) * tokens / (step_s * s.gpus * machine.peak_flops)
    return Costs(time, needed, step_s, needed.total, tokens / step_s, mfu)


def _scaled(terms: StepTime, factor: Floats) -> StepTime:
    return dataclasses.replace(
        terms, **{field.name: getattr(terms, field.name) * factor for field in dataclasses.fields(terms)}
    )


def _step(
    shape: Shape, machine: Machine, c: Coefficients, s: Shardings, arithmetic: Arithmetic, read_s: Floats
) -> StepTime:
    layer, head = arithmetic.layer(), arithmetic.head()
    traffic = _layer_traffic(shape, machine, c, s, arithmetic, layer)
    slower = 1.0 + c.straggler * np.log2(np.maximum(1.0, machine.nodes_spanned(s.gpus)))
    m = s.micro_batches * slower

    each = layer.forward_s + layer.backward_s
    output = head.forward_s + head.backward_s
    layers, ends = _slowest_stage(shape, s, each + layer.recompute_s + traffic.total, output)
    work = layers * each + ends * output
    again = layers * layer.recompute_s
    tensor = (layers + 1) * traffic.tensor  # the head and the embedding exchange as much as a layer
    context, expert = layers * traffic.context, layers * traffic.expert

    def passed(layers: Number, ends: Floats) -> Floats:
        """Filling and draining passes the stages beside the slowest, less what fills it."""
        # They may have fewer layers; each has its share of the head, all of which is among them where the last stage is
        # not the slowest.
        others = np.where(s.pp > 1, (shape.layers - layers) / np.maximum(1, s.pp - 1), layers)
        share = 1.0 / s.pp + np.where(s.pp > 1, (1.0 - ends) / np.maximum(1, s.pp - 1), 0.0)
        stage = others * (each + layer.recompute_s + traffic.total) + traffic.tensor + share * output
        fills = 2.0 * (others * layer.weight_s + share * head.weight_s)
        return np.maximum(0.0, stage - np.where(s.schedule == ZERO_BUBBLE, fills, 0.0))

    stage = passed(layers, ends)
    either = (s.schedule == ZERO_BUBBLE) & (s.last_layers > 0)
    if either.any():
        # which stage is the slowest must not decide what there is to fill: more work would then take less time
        stage = np.where(
            either,
            np.maximum(
                passed(s.stage_layers(shape.layers), 0.0 * ends), passed(s.last_layers.astype(float), 0.0 * ends + 1.0)
            ),
            stage,
        )
    bubble = (s.pp - 1) / s.vpp * stage * c.bubble * slower

    hop = _hop(shape, machine, c, s, arithmetic)
    crossings = (s.pp - 1) * 2 + messages.waits(s) * c.pipeline_exposed

    held = held_parameters(shape, s, arithmetic.recipe)
    dense, experts = held.trained_dense, held.trained_experts
    updated = np.where(s.zero >= 1, dense / s.shards + experts / s.expert_shards, dense + experts)
    busy = StepTime(
        compute=m * work,
        recompute=m * again,
        tensor_parallel=m * tensor,
        context_parallel=m * context,
        expert_parallel=m * expert,
        pipeline_bubble=bubble,
        pipeline_transfer=np.where(s.pp > 1, crossings * hop, 0.0),
        data_parallel=_data_parallel(machine, c, s, held, m * (work + again), arithmetic.recipe),
        optimizer=arithmetic.optimizer(updated),
        overhead=np.asarray(
            c.step_overhead_s + c.micro_batch_overhead_s * (s.micro_batches * s.vpp + s.pp - 1), dtype=float
        ),
        data_loading=np.zeros(len(s)),
    )
    # The next batch is read while this one is trained on.
    return dataclasses.replace(busy, data_loading=np.maximum(0.0, read_s - busy.total)) if read_s.any() else busy


def _slowest_stage(shape: Shape, s: Shardings, layer_s: Floats, output_s: Floats) -> tuple[Floats, Floats]:
    """Return how many layers the slowest stage has, and whether it has the output layer too (1 or 0).

    Stages that are cut evenly have as many layers as the fullest, the last one with the output layer beside. A last
    stage with fewer layers may be faster than the others.
    """
    full = s.stage_layers(shape.layers)
    others_slower = (s.last_layers > 0) & (full * layer_s >= s.last_layers * layer_s + output_s)
    last = np.where(s.last_layers > 0, s.last_layers, full)
    return np.where(others_slower, full, last), np.where(others_slower, 0.0, 1.0)


def _hop(shape: Shape, machine: Machine, c: Coefficients, s: Shardings, arithmetic: Arithmetic) -> Floats:
    """Return the seconds that a micro-batch takes from one stage to the next.

    Each tensor-parallel rank sends its part, and the next stage gathers the parts unless sequence parallelism keeps
    them apart (Narayanan et al. 2021, section 4.1, "scatter/gather"; DeepSpeed's pipelines do the same).
    """
    whole = messages.activation_bytes(shape, machine, arithmetic.sequence, s)
    sent = collectives.point_to_point(machine, c, messages.hop_bytes(s, whole), s.gpus, s.tp * s.cp * s.dp)
    tp = collectives.group(machine, c, s.tp, np.ones_like(s.tp))
    return sent + np.where(s.sequence_parallel == 1, 0.0, collectives.all_gather(tp, whole))


def _layer_traffic(
    shape: Shape, machine: Machine, c: Coefficients, s: Shardings, arithmetic: Arithmetic, layer: LayerTime
) -> _LayerTraffic:
    activation = messages.activation_bytes(shape, machine, arithmetic.sequence, s)
    tp = collectives.group(machine, c, s.tp, np.ones_like(s.tp))
    reductions = messages.tensor_reductions(shape, s, c.tensor_backward_exposed)
    tensor = reductions * collectives.all_reduce(tp, activation) * c.tensor_exposed

    context = _context(shape, machine, c, s, arithmetic.sequence, 0.5 * (layer.forward_s + layer.backward_s))
    expert = np.zeros(len(s))
    if np.any(np.asarray(shape.experts) > 0):
        ep = collectives.group(machine, c, s.ep, s.tp, all_at_once=True)
        sent, once = messages.dispatch_bytes(shape, c, s, activation), arithmetic.recipe.dispatch_once
        exchange = collectives.all_to_all(ep, sent, shape.experts_per_token, once)
        expert = messages.dispatches(shape, s) * c.expert_exposed * exchange
    return _LayerTraffic(tensor, context, expert)


def _context(
    shape: Shape, machine: Machine, c: Coefficients, s: Shardings, sequence: Number, hidden_s: Floats
) -> Floats:
    """Return the exposed seconds in which context-parallel ranks come by keys and values, of a layer and micro-batch.

    Around the ring they pass while attention computes, as far as ``hidden_s`` goes (Liu et al. 2023). Gathered before
    attention (Llama team 2024, arXiv:2407.21783, section 3.3.2), forward and once more backward, and their gradients
    reduced, they are waited for; and so are all-to-alls, as many backward as forward.
    """
    cp = collectives.group(machine, c, s.cp, s.tp)
    total = messages.ring_bytes(shape, machine, sequence, s)
    gathered = messages.RING_PASSES * collectives.all_gather(cp, total)
    exposed = np.maximum(0.0, gathered - hidden_s) + messages.RING_PASSES * cp.latency_s
    if s.context_exchange.any():
        at_once = collectives.group(machine, c, s.cp, s.tp, all_at_once=True)
        swapped = 2.0 * collectives.all_to_all(at_once, messages.swapped_bytes(shape, machine, sequence, s))
        swapped = swapped + _MORE_SWAPS * at_once.latency_s
        how = s.context_exchange
        exposed = np.select([how == ALL_GATHER, how == ALL_TO_ALL], [gathered, swapped], exposed)
    return np.where(s.cp > 1, exposed, 0.0)


def _data_parallel(
    machine: Machine, c: Coefficients, s: Shardings, held: Held, compute_s: Floats, recipe: Recipe
) -> Floats:
    """Return the exposed seconds of what data-parallel ranks exchange.

    A share is always exposed; the rest hides behind the last backward pass, or in stage 3 behind all arithmetic.
    """
    total, after = gradient_exchange(machine, c, s, held, recipe)
    backward = np.where(s.zero == 3, compute_s, compute_s / np.maximum(s.micro_batches, 1) * 2.0 / 3.0)
    share = np.minimum(1.0, np.where(s.zero == 3, c.sharded_exposed, c.gradient_exposed))
    exposed = share * total + np.maximum(0.0, (1 - share) * total - backward) + after
    return np.where(s.dp * s.cp > 1, exposed, 0.0)


def gradient_exchange(
    machine: Machine, c: Coefficients, s: Shardings, held: Held, recipe: Recipe
) -> tuple[Floats, Floats]:
    """Return the seconds that data-parallel ranks exchange data: beside arithmetic, and after it."""
    total, groups = np.zeros(len(s)), dict[str, collectives.Group]()
    for gather in messages.gradient_gathers(c, s, held, recipe):
        if gather.axis not in groups:
            groups[gather.axis] = collectives.group(machine, c, gather.size, gather.stride)
        over = groups[gather.axis]
        slower = np.where(gather.sharded, c.gather_efficiency, 1.0)
        collective = collectives.all_reduce if gather.both else collectives.all_gather
        kernels = gather.unpacked_bytes / (machine.memory_bytes_per_s * c.memory_efficiency)
        total = total + gather.times * (collective(over, gather.total_bytes) / slower + kernels)
    in_turn = (np.asarray(recipe.owner_after_owner) > 0) & (s.zero > 0) & (s.zero < 3)
    if not np.any(in_turn):
        return total, np.zeros_like(total)
    trained = {"dp": held.trained_dense, "edp": held.trained_experts}
    sent = sum(collectives.broadcasts(groups[axis], 2.0 * trained[axis]) for axis in trained if axis in groups)
    return total, np.where(in_turn, sent, 0.0)  # after the optimizer's step, when nothing else runs
