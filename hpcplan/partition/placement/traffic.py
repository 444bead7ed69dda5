"""What a step of a sharding sends, in bytes, tied to the cost model's estimate of what that takes.

What is sent is the cost model's own (:mod:`hpcplan.cost.messages`). Each term of the estimate is turned into a rate:
its seconds on the neighbourhoods that the cost model assumes, over the seconds that its exchanges keep those links
busy. A placement then changes the busy time and nothing else, so that a placement on the assumed neighbourhoods has the
estimate's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from hpcplan.cost import collectives, messages
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.memory import held_parameters
from hpcplan.cost.recipe import PRETRAINING, Recipe
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import CONTEXT_EXCHANGE, QUANTIZED, RECOMPUTE, RECOMPUTE_MLP, SCHEDULES, Shardings
from hpcplan.plan import Estimate, Exchange, ExchangeAxis, Sharding, Traffic, TrafficTerm
from hpcplan.workload.model import ModelShape

__all__ = ["as_the_cost_model_has_it", "traffic_of"]


@dataclass(frozen=True, slots=True)
class _Volumes:
    """What the exchanges of a sharding have in common."""

    shape: Shape
    sharding: Sharding
    s: Shardings  # the same, as the cost model has it
    machine: Machine
    c: Coefficients
    recipe: Recipe
    sequence: int

    @property
    def activation_bytes(self) -> float:
        """Of one micro-batch, between two layers."""
        return float(messages.activation_bytes(self.shape, self.machine, self.sequence, self.s)[0])

    @property
    def layers(self) -> float:
        """Of the fullest stage, in all micro-batches of a step."""
        return float(self.s.stage_layers(self.shape.layers)[0]) * self.sharding.micro_batches

    def seconds(self, exchange: Exchange) -> float:
        """Return how long the cost model's neighbourhoods would carry an exchange of the default order."""
        s = self.sharding
        replicas, copies = s.dp * s.cp, s.copies
        shards = replicas // copies
        experts = max(1, shards // s.ep)
        size, stride = {
            "tp": (s.tp, 1), "cp": (s.cp, s.tp), "ep": (s.ep, s.tp), "pp": (s.pp, s.tp * replicas),
            "dp": (shards, s.tp), "rdp": (copies, s.tp * shards),
            "edp": (experts, s.tp * s.ep), "redp": (copies, s.tp * s.ep * experts),
        }[exchange.axis]  # fmt: skip
        every = exchange.pattern == "all-to-all"
        group = collectives.group(self.machine, self.c, np.array([size]), np.array([stride]), all_at_once=every)
        if exchange.axis == "pp":
            sent, over = np.array([exchange.sent_bytes, 0.0]), (np.array([s.gpus]), np.array([stride]))
            hop, late = collectives.point_to_point(self.machine, self.c, sent, *over)
            return float(hop + (exchange.rounds - 1) * late)
        if every:
            busy = collectives.all_to_all(group, exchange.sent_bytes) - group.latency_s
            return float((busy + exchange.rounds * group.latency_s)[0])
        return float((exchange.sent_bytes / group.bus_bytes_per_s + exchange.rounds * group.latency_s)[0])


def traffic_of(
    model: ModelShape,
    sequence_length: int,
    sharding: Sharding,
    estimate: Estimate,
    machine: Machine,
    coefficients: Coefficients,
    recipe: Recipe = PRETRAINING,
    *,
    node_bytes_per_s: float,
    node_latency_s: float,
) -> Traffic:
    """Return what a step sends.

    Args:
        model: its shape.
        sequence_length: in tokens.
        sharding: the ranks.
        estimate: what the cost model promises, term by term.
        machine: that it was priced on.
        coefficients: that it was priced with.
        recipe: how the model is trained: all weights or adapters.
        node_bytes_per_s: what one node can send into the fabric.
        node_latency_s: of its interfaces.
    """
    volumes = _Volumes(
        shape=Shape.of(model), sharding=sharding, s=as_the_cost_model_has_it(sharding, model.layers), machine=machine,
        c=coefficients, recipe=recipe, sequence=sequence_length,
    )  # fmt: skip
    time = estimate.breakdown.time
    of_stage = time.compute_s + time.recompute_s + time.tensor_parallel_s + time.context_parallel_s
    of_stage += time.expert_parallel_s
    bubble = 1 + time.pipeline_bubble_s / of_stage if of_stage else 1.0
    terms = [
        _plain("tensor_parallel", time.tensor_parallel_s, bubble, volumes, _tensor(volumes)),
        _context(time.context_parallel_s, bubble, time.compute_s, volumes),
        _plain("expert_parallel", time.expert_parallel_s, bubble, volumes, _experts(volumes)),
        _gradients(time.data_parallel_s, time.compute_s + time.recompute_s, volumes),
        _plain("pipeline_transfer", time.pipeline_transfer_s, 1.0, volumes, _pipeline(volumes)),
    ]
    kept = [term for term in terms if term is not None]
    waited = sum(term.weight * _waited_s(term, volumes) for term in kept)
    return Traffic(
        fixed_s=estimate.iter_time_s - waited,
        node_bytes_per_s=node_bytes_per_s,
        node_latency_s=node_latency_s,
        network_efficiency=float(coefficients.network_efficiency),
        link_bytes_per_s=float(machine.link_bytes_per_s) * float(coefficients.link_efficiency),
        link_latency_s=float(machine.link_latency_s),
        terms=tuple(kept),
    )


def _waited_s(term: TrafficTerm, volumes: _Volumes) -> float:
    whole = term.scale * sum(volumes.seconds(exchange) for exchange in term.exchanges)
    return term.exposed * whole + max(0.0, (1 - term.exposed) * whole - term.hidden_s)


def _plain(
    name: str, estimated_s: float, weight: float, volumes: _Volumes, exchanges: list[Exchange]
) -> TrafficTerm | None:
    """Return a term that is waited for throughout."""
    busy = sum(volumes.seconds(exchange) for exchange in exchanges)
    if not exchanges or not busy or not estimated_s:
        return None
    return TrafficTerm(
        name=name, weight=weight, exposed=1.0, hidden_s=0.0, scale=estimated_s / busy, exchanges=tuple(exchanges)
    )


def _rings(axis: ExchangeAxis, total_bytes: float, times: float, size: int) -> Exchange:
    """Return all-gathers, or reduce-scatters, of so many bytes in all; an all-reduce is two of them."""
    return Exchange(axis=axis, pattern="ring", sent_bytes=times * total_bytes * (size - 1) / size, rounds=times)


def _tensor(v: _Volumes) -> list[Exchange]:
    """All-reduces of every layer, the head and the embedding as another layer."""
    if v.sharding.tp == 1:
        return []
    times = float(messages.tensor_reductions(v.shape, v.s)[0]) * (v.layers + v.sharding.micro_batches)
    return [_rings("tp", v.activation_bytes, 2 * times, v.sharding.tp)]


def _context(estimated_s: float, weight: float, compute_s: float, v: _Volumes) -> TrafficTerm | None:
    """Keys and values around the ring in every layer, while attention computes; else gathered or swapped before it."""
    if v.sharding.cp == 1:
        return None
    if v.sharding.context_exchange == "a2a":
        sent = 2.0 * float(messages.swapped_bytes(v.shape, v.machine, v.sequence, v.s)[0]) * v.layers
        swaps = Exchange(axis="cp", pattern="all-to-all", sent_bytes=sent, rounds=8 * v.layers)
        return _plain("context_parallel", estimated_s, weight, v, [swaps])
    total = float(messages.ring_bytes(v.shape, v.machine, v.sequence, v.s)[0])
    exchange = _rings("cp", total, messages.RING_PASSES * v.layers, v.sharding.cp)
    if v.sharding.context_exchange == "all_gather":
        return _plain("context_parallel", estimated_s, weight, v, [exchange])
    busy = v.seconds(exchange)
    hidden = max(0.0, busy - estimated_s) if estimated_s else max(busy, 0.5 * compute_s)
    scale = max(1.0, estimated_s / busy)
    return TrafficTerm(
        name="context_parallel", weight=weight, exposed=0.0, hidden_s=hidden, scale=scale, exchanges=(exchange,)
    )


def _experts(v: _Volumes) -> list[Exchange]:
    """Every token to its experts and back, in every pass of the layers that have some."""
    if v.sharding.ep == 1:
        return []
    times = float(messages.dispatches(v.shape, v.s)[0]) * v.layers
    sent = float(messages.dispatch_bytes(v.shape, v.c, v.s, np.array([v.activation_bytes]))[0])
    sent *= float(v.shape.experts_per_token)
    return [Exchange(axis="ep", pattern="all-to-all", sent_bytes=times * sent, rounds=times)]


def _gradients(estimated_s: float, arithmetic_s: float, v: _Volumes) -> TrafficTerm | None:
    """Gradients, and parameters that are gathered: among the ranks that share them, and between copies of these."""
    s = v.sharding
    if s.dp * s.cp == 1 or not estimated_s:
        return None
    held = held_parameters(v.shape, v.s, v.recipe)
    sums: dict[ExchangeAxis, list[float]] = {}
    for gather in messages.gradient_gathers(v.c, v.s, held, v.recipe):
        size, times, total = (float(values[0]) for values in (gather.size, gather.times, gather.total_bytes))
        times *= 2 if gather.both else 1
        if size > 1 and times * total > 0:
            of_axis = sums.setdefault(cast(ExchangeAxis, gather.axis.removeprefix("s")), [0.0, 0.0])
            of_axis[0] += times * total * (size - 1) / size
            of_axis[1] += times
    exchanges = tuple(
        Exchange(axis=axis, pattern="ring", sent_bytes=sent, rounds=rounds) for axis, (sent, rounds) in sums.items()
    )
    busy = sum(v.seconds(exchange) for exchange in exchanges)
    share = float(v.c.sharded_exposed if s.zero == 3 else v.c.gradient_exposed)
    hidden = arithmetic_s if s.zero == 3 else arithmetic_s / s.micro_batches * 2 / 3
    # The estimate is share * whole as long as the rest hides, and whole - hidden beyond.
    whole = estimated_s / share if (1 - share) * estimated_s <= share * hidden else estimated_s + hidden
    return TrafficTerm(
        name="data_parallel", exposed=share, hidden_s=hidden, scale=whole / busy, exchanges=exchanges
    ) if busy else None  # fmt: skip


def as_the_cost_model_has_it(s: Sharding, layers: int) -> Shardings:
    """Return a plan's sharding as a row of the cost model's, cut as the plan says."""
    return Shardings.of(
        tp=s.tp, pp=s.pp, vpp=s.vpp, dp=s.dp, cp=s.cp, ep=s.ep, micro_batch=s.micro_batch,
        micro_batches=s.micro_batches, zero=s.zero, sequence_parallel=int(s.sequence_parallel),
        recompute=RECOMPUTE.index(s.recompute), schedule=SCHEDULES.index(s.schedule),
        spared_layers=s.recompute_layers or 0, shard_group=s.shard_group or 0,
        fullest_layers=max(s.layers_of_ranks(layers)), recompute_block=s.recompute_block or 0,
        secondary_group=s.secondary_group or 0, recompute_mlp=RECOMPUTE_MLP.index(s.recompute_mlp),
        context_exchange=CONTEXT_EXCHANGE.index(s.context_exchange), quantized=QUANTIZED.index(s.quantized),
    )  # fmt: skip


def _pipeline(v: _Volumes) -> list[Exchange]:
    """Activations to the next stage and their gradients back; interleaved, the last stage is followed by the first.

    Each tensor-parallel rank sends a part, and without sequence parallelism the next stage puts the parts together.
    """
    s = v.sharding
    if s.pp == 1:
        return []
    each_way = float(messages.hops(v.s)[0]) / 2
    sent = each_way * float(messages.hop_bytes(v.s, np.array([v.activation_bytes]))[0])
    pattern: Literal["chain", "loop"] = "loop" if s.vpp > 1 else "chain"
    found = [Exchange(axis="pp", pattern=pattern, sent_bytes=sent, rounds=each_way)]
    if s.tp > 1 and not s.sequence_parallel:
        found.append(_rings("tp", v.activation_bytes, 2 * each_way, s.tp))
    return found
