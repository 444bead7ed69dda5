"""How long one optimizer step takes: arithmetic and communication on the critical path of the slowest rank.

Pipelines follow 1F1B, plain or interleaved: with m micro-batches and v virtual stages the bubble is (p-1)/(vm) of the
steady state (Narayanan et al. 2021, arXiv:2104.04473, section 2.2), and the slowest stage sets the pace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost import collectives
from hpcplan.cost.compute import Arithmetic, LayerTime
from hpcplan.cost.constants import Constants
from hpcplan.cost.machine import Machine
from hpcplan.cost.memory import Memory, held_parameters, memory
from hpcplan.cost.shardings import FULL, Floats, Shardings
from hpcplan.plan import Precision
from hpcplan.workload.arithmetic import layers_by_kind, model_flops_per_token
from hpcplan.workload.model import ModelShape

__all__ = ["Costs", "StepTime", "price"]


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds on the critical path, arrays of shape (candidates,)."""

    compute: Floats
    recompute: Floats
    tensor_parallel: Floats
    context_parallel: Floats
    expert_parallel: Floats
    pipeline_bubble: Floats
    pipeline_transfer: Floats
    data_parallel: Floats
    optimizer: Floats

    @property
    def total(self) -> Floats:
        """The sum of all terms: one step."""
        return (
            self.compute
            + self.recompute
            + self.tensor_parallel
            + self.context_parallel
            + self.expert_parallel
            + self.pipeline_bubble
            + self.pipeline_transfer
            + self.data_parallel
            + self.optimizer
        )


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


def price(
    shape: ModelShape,
    sequence: int,
    global_batch: int,
    precision: Precision,
    machine: Machine,
    constants: Constants,
    s: Shardings,
) -> Costs:
    """Price many shardings of one model at once.

    Args:
        shape: the model.
        sequence: tokens a sequence.
        global_batch: sequences a step; each sharding has dp x micro_batch x micro_batches of them.
        precision: of the matrix products.
        machine: the nodes.
        constants: what data sheets do not say.
        s: the shardings, arrays of shape (candidates,).
    """
    arithmetic = Arithmetic(shape, sequence, precision, machine, constants, s)
    needed = memory(shape, sequence, arithmetic.element_bytes, s, constants)
    time = _step(shape, machine, constants, s, arithmetic)
    step_s = time.total
    tokens = float(global_batch * sequence)
    peak = machine.accelerator.peak(precision)
    mfu = model_flops_per_token(shape, sequence) * tokens / (step_s * s.gpus * peak)
    return Costs(time, needed, step_s, needed.total, tokens / step_s, mfu)


def _step(shape: ModelShape, machine: Machine, constants: Constants, s: Shardings, arithmetic: Arithmetic) -> StepTime:
    layers = np.ceil(shape.layers / s.pp)
    dense, sparse = layers_by_kind(shape)
    mean_layer = arithmetic.layer(sparse=False).scaled(dense / shape.layers)
    if sparse:
        mean_layer = mean_layer + arithmetic.layer(sparse=True).scaled(sparse / shape.layers)
    head = arithmetic.head()
    traffic = _layer_traffic(shape, machine, constants, s, arithmetic, mean_layer)
    m = s.micro_batches * constants.straggler.value

    work = layers * (mean_layer.forward_s + mean_layer.backward_s) + head.forward_s + head.backward_s
    again = layers * mean_layer.recompute_s
    tensor = (layers + 1) * traffic.tensor  # the head and the embedding exchange as much as a layer
    context, expert = layers * traffic.context, layers * traffic.expert
    stage = work + again + tensor + context + expert
    # Filling and draining passes the mean stage, not the one with the head.
    mean_stage = stage - (head.forward_s + head.backward_s) * (1 - 1 / s.pp)
    bubble = (s.pp - 1) / s.vpp * mean_stage * constants.straggler.value

    hop = collectives.point_to_point(machine, constants, _boundary_bytes(shape, arithmetic, s), s.gpus)
    crossings = (s.pp - 1) * 2 + s.micro_batches * s.vpp * 2 * (1 - constants.pipeline_overlap.value)
    transfer = np.where(s.pp > 1, crossings * hop, 0.0)

    held = held_parameters(shape, s)
    gradients = _data_parallel(machine, constants, s, held.dense, held.experts, m * (work + again))
    replicas, expert_replicas = s.dp * s.cp, np.maximum(1, s.dp * s.cp // s.ep)
    updated = np.where(s.zero >= 1, held.dense / replicas + held.experts / expert_replicas, held.dense + held.experts)
    return StepTime(
        compute=m * work,
        recompute=m * again,
        tensor_parallel=m * tensor,
        context_parallel=m * context,
        expert_parallel=m * expert,
        pipeline_bubble=bubble,
        pipeline_transfer=transfer,
        data_parallel=gradients,
        optimizer=arithmetic.optimizer(updated),
    )


def _boundary_bytes(shape: ModelShape, arithmetic: Arithmetic, s: Shardings) -> Floats:
    split = np.where(s.sequence_parallel == 1, s.tp, 1)
    return arithmetic.tokens * shape.hidden * arithmetic.element_bytes / split


def _layer_traffic(
    shape: ModelShape,
    machine: Machine,
    constants: Constants,
    s: Shardings,
    arithmetic: Arithmetic,
    layer: LayerTime,
) -> _LayerTraffic:
    activation = arithmetic.tokens * shape.hidden * arithmetic.element_bytes
    tp = collectives.group(machine, constants, s.tp, np.ones_like(s.tp))
    # Two all-reduces forward and two backward (Shoeybi et al. 2019, section 3); with sequence parallelism each becomes
    # a reduce-scatter and an all-gather of the same volume. Full recomputation repeats the forward ones.
    passes = np.where(s.recompute == FULL, 3, 2)
    tensor = passes * 2 * collectives.all_reduce(tp, activation)

    cp = collectives.group(machine, constants, s.cp, s.tp)
    keys_values = 2.0 * activation * shape.key_value_heads * shape.head_size / shape.hidden / s.tp
    ring = collectives.all_gather(cp, keys_values * s.cp)
    # Ring attention passes keys and values on while it computes (Liu et al. 2023); half of the layer can hide it.
    exposed = np.maximum(0.0, 3 * ring - 0.5 * (layer.forward_s + layer.backward_s))
    context = np.where(s.cp > 1, exposed + 3 * cp.step_latency_s, 0.0)

    expert = np.zeros(len(s))
    if shape.experts is not None:
        ep = collectives.group(machine, constants, s.ep, s.tp)
        sent = activation * shape.experts.per_token * constants.expert_imbalance.value / s.tp
        exchanges = 2 * passes  # to the experts and back
        share = (shape.layers - shape.experts.dense_layers) / shape.layers
        expert = share * exchanges * collectives.all_to_all(machine, constants, ep, s.tp, sent)
    return _LayerTraffic(tensor, context, expert)


def _data_parallel(
    machine: Machine, constants: Constants, s: Shardings, dense: Floats, experts: Floats, compute_s: Floats
) -> Floats:
    """Return the exposed seconds of gradient reduction and, for ZeRO, of gathering parameters.

    Gradients are reduced in fp32 once a step (stages 0 to 2) and parameters gathered in 16 bits; stage 3 gathers them
    for the forward and the backward pass of every micro-batch.
    """
    replicas = collectives.group(machine, constants, s.dp * s.cp, s.tp)
    expert_size = np.maximum(1, s.dp * s.cp // s.ep)
    expert_replicas = collectives.group(machine, constants, expert_size, s.tp * s.ep)

    def gather(bytes_each: float) -> Floats:
        return collectives.all_gather(replicas, bytes_each * dense) + np.where(
            experts > 0, collectives.all_gather(expert_replicas, bytes_each * experts), 0.0
        )

    reduce_scatter, gather_parameters = gather(4.0), gather(2.0)
    once = reduce_scatter + np.where(s.zero == 0, gather(4.0), gather_parameters)
    sharded = reduce_scatter * s.micro_batches / 2.0 + 2.0 * gather_parameters * s.micro_batches
    last_backward = compute_s / np.maximum(s.micro_batches, 1) * 2.0 / 3.0
    overlap = constants.data_parallel_overlap.value
    hidden = np.where(s.zero == 3, compute_s, last_backward) * overlap
    total = np.where(s.zero == 3, sharded, once)
    floor = (1 - overlap) * 0.1 * total  # the first and the last bucket are never hidden
    return np.where(s.dp * s.cp > 1, np.maximum(total - hidden, floor), 0.0)
