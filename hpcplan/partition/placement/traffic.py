"""What a step of a sharding sends, in bytes, tied to the cost model's estimate of what that takes.

The volumes are those of :mod:`hpcplan.cost.step`. Each term of the estimate is turned into a rate: its seconds on the
neighbourhoods that the cost model assumes, over the seconds that its exchanges keep those links busy. A placement then
changes the busy time and nothing else, so that a placement on the assumed neighbourhoods has the estimate's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpcplan.cost import collectives
from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.memory import held_parameters
from hpcplan.cost.shape import Shape
from hpcplan.cost.shardings import Shardings
from hpcplan.plan import Estimate, Exchange, Sharding, Traffic, TrafficTerm
from hpcplan.workload.model import ModelShape

__all__ = ["traffic_of"]


@dataclass(frozen=True, slots=True)
class _Volumes:
    """What the exchanges of a sharding have in common."""

    shape: Shape
    s: Sharding
    machine: Machine
    c: Coefficients
    activation_bytes: float
    layers: float
    events: float  # of one kind a layer, in a step: micro-batches

    def seconds(self, exchange: Exchange) -> float:
        """Return how long the cost model's neighbourhoods would carry an exchange of the default order."""
        s = self.s
        replicas = s.dp * s.cp
        size, stride = {
            "tp": (s.tp, 1), "cp": (s.cp, s.tp), "ep": (s.ep, s.tp), "dp": (replicas, s.tp),
            "edp": (max(1, replicas // s.ep), s.tp * s.ep), "pp": (s.pp, s.tp * replicas),
        }[exchange.axis]  # fmt: skip
        group = collectives.group(self.machine, self.c, np.array([size]), np.array([stride]))
        if exchange.axis == "pp":
            nothing = np.zeros(1)
            hop = collectives.point_to_point(self.machine, self.c, nothing + exchange.sent_bytes, np.array([s.gpus]))
            late = collectives.point_to_point(self.machine, self.c, nothing, np.array([s.gpus]))
            return float((hop + (exchange.rounds - 1) * late)[0])
        if exchange.pattern == "all-to-all":
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
        node_bytes_per_s: what one node can send into the fabric.
        node_latency_s: of its interfaces.
    """
    shape = Shape.of(model)
    tokens = sharding.micro_batch * sequence_length / sharding.cp
    volumes = _Volumes(
        shape=shape, s=sharding, machine=machine, c=coefficients,
        activation_bytes=float(tokens * model.hidden * machine.element_bytes),
        layers=float(np.ceil(model.layers / sharding.pp)), events=float(sharding.micro_batches),
    )  # fmt: skip
    time = estimate.breakdown.time
    of_stage = time.compute_s + time.recompute_s + time.tensor_parallel_s + time.context_parallel_s
    of_stage += time.expert_parallel_s
    bubble = 1 + time.pipeline_bubble_s / of_stage if of_stage else 1.0
    terms = [
        _plain("tensor_parallel", time.tensor_parallel_s, bubble, volumes, _tensor(volumes)),
        _context(time.context_parallel_s, bubble, time.compute_s, volumes, tokens),
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


def _tensor(v: _Volumes) -> list[Exchange]:
    """Two all-reduces a pass and layer, the head and the embedding as another layer; each is two passes of a ring."""
    if v.s.tp == 1:
        return []
    reductions = (3 if v.s.recompute == "full" else 2) * 2 * (v.layers + 1) * v.events
    sent = 2 * reductions * v.activation_bytes * (v.s.tp - 1) / v.s.tp
    return [Exchange(axis="tp", pattern="ring", sent_bytes=sent, rounds=2 * reductions)]


def _context(estimated_s: float, weight: float, compute_s: float, v: _Volumes, tokens: float) -> TrafficTerm | None:
    """Ring attention: keys and values once around, three times a layer, while it computes."""
    if v.s.cp == 1:
        return None
    width = tokens * float(v.shape.key_value_width) * float(v.machine.element_bytes) / v.s.tp
    passes = 3 * v.layers * v.events
    exchange = Exchange(axis="cp", pattern="ring", sent_bytes=passes * width * (v.s.cp - 1), rounds=passes)
    busy = v.seconds(exchange)
    hidden = max(0.0, busy - estimated_s) if estimated_s else max(busy, 0.5 * compute_s)
    scale = max(1.0, estimated_s / busy)
    return TrafficTerm(
        name="context_parallel", weight=weight, exposed=0.0, hidden_s=hidden, scale=scale, exchanges=(exchange,)
    )


def _experts(v: _Volumes) -> list[Exchange]:
    """Every token to its experts and back, in every pass of the layers that have some."""
    if v.s.ep == 1:
        return []
    share = float(v.shape.sparse_layers) / float(v.shape.layers)
    times = (3 if v.s.recompute == "full" else 2) * 2 * share * v.layers * v.events
    sent = v.activation_bytes * float(v.shape.experts_per_token) * float(v.c.expert_imbalance) / v.s.tp
    return [Exchange(axis="ep", pattern="all-to-all", sent_bytes=times * sent, rounds=times)]


def _gradients(estimated_s: float, arithmetic_s: float, v: _Volumes) -> TrafficTerm | None:
    """Gradients once a step and parameters gathered again, or for ZeRO stage 3 both in every micro-batch."""
    s = v.s
    replicas = s.dp * s.cp
    if replicas == 1 or not estimated_s:
        return None
    held = held_parameters(v.shape, _one(s))
    elements = {"dp": (float(held.dense[0]), replicas), "edp": (float(held.experts[0]), replicas // s.ep)}
    each = 6.0 * s.micro_batches if s.zero == 3 else 8.0 if s.zero == 0 else 6.0
    rounds = 3.0 * s.micro_batches if s.zero == 3 else 2.0
    exchanges = tuple(
        Exchange(axis="dp" if axis == "dp" else "edp", pattern="ring",
                 sent_bytes=each * count * (size - 1) / size, rounds=rounds)
        for axis, (count, size) in elements.items() if size > 1 and count > 0
    )  # fmt: skip
    busy = sum(v.seconds(exchange) for exchange in exchanges)
    share = float(v.c.sharded_exposed if s.zero == 3 else v.c.gradient_exposed)
    hidden = arithmetic_s if s.zero == 3 else arithmetic_s / s.micro_batches * 2 / 3
    # The estimate is share * whole as long as the rest hides, and whole - hidden beyond.
    whole = estimated_s / share if (1 - share) * estimated_s <= share * hidden else estimated_s + hidden
    return TrafficTerm(
        name="data_parallel", exposed=share, hidden_s=hidden, scale=whole / busy, exchanges=exchanges
    ) if busy else None  # fmt: skip


def _one(s: Sharding) -> Shardings:
    return Shardings.of(tp=s.tp, pp=s.pp, vpp=s.vpp, dp=s.dp, cp=s.cp, ep=s.ep, micro_batch=s.micro_batch,
                        micro_batches=s.micro_batches, zero=s.zero)  # fmt: skip


def _pipeline(v: _Volumes) -> list[Exchange]:
    """Activations to the next stage and their gradients back; interleaved, the last stage is followed by the first."""
    if v.s.pp == 1:
        return []
    messages = v.events * v.s.vpp
    split = v.s.tp if v.s.sequence_parallel else 1
    sent = messages * v.activation_bytes / split
    pattern: Literal["chain", "loop"] = "loop" if v.s.vpp > 1 else "chain"
    return [Exchange(axis="pp", pattern=pattern, sent_bytes=sent, rounds=messages)]
