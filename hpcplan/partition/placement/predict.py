"""The predicted step of a placement, and the load of every link.

All groups of an axis communicate at the same time; the exchange takes as long as its busiest link needs for what it has
to carry in a step, and the latency of its messages. How much of that is waited for, the plan's traffic says
(:mod:`hpcplan.partition.placement.traffic`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.partition.placement.grid import Flows, Grid, flows
from hpcplan.partition.placement.network import Network
from hpcplan.plan import Exchange, LinkLoad, Traffic, TrafficTerm

__all__ = ["Predictor", "Quality", "busiest"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Of many placements, shape (placements,): the step in seconds, and how evenly links are used (less is better)."""

    step_s: Floats
    unevenness: Floats


class Predictor:
    """Predicts the step for one order of the axes on one network."""

    def __init__(self, traffic: Traffic, grid: Grid, network: Network) -> None:
        self.traffic = traffic
        self.grid = grid
        self.network = network
        self._flows = [[flows(grid, exchange) for exchange in term.exchanges] for term in traffic.terms]
        self._used = network.rate > 0

    @property
    def effort(self) -> int:
        """How much work one placement is to look at: its flows, each as much as the network makes it."""
        return max(1, round(self.network.effort * sum(len(f.source) for of_term in self._flows for f in of_term)))

    def quality(self, hosts: Ints) -> Quality:
        """Return the quality of placements: the host of each block, shape (placements, blocks)."""
        step = np.full(len(hosts), self.traffic.fixed_s)
        uneven = np.zeros(len(hosts))
        for term, of_term in zip(self.traffic.terms, self._flows, strict=True):
            takes = np.zeros(len(hosts))
            for exchange, between in zip(term.exchanges, of_term, strict=True):
                busy, late, spread = self._exchange(exchange, between, hosts)
                takes += busy + late
                uneven += term.scale * spread
            step += _waited(term, takes)
        return Quality(step, uneven)

    def _exchange(self, exchange: Exchange, between: Flows, hosts: Ints) -> tuple[Floats, Floats, Floats]:
        """Return seconds of the busiest link, seconds of latency, and a norm of the times of all links."""
        inside = self._inside(exchange, between)
        late = self.traffic.link_latency_s if between.inside else 0.0
        if not len(between.source):
            nothing = np.zeros(len(hosts))
            return nothing + inside, nothing + exchange.rounds * late, nothing
        source, target = hosts[:, between.source], hosts[:, between.target]
        times = self._times(self.network.loads(source, target, between.bytes))
        busiest = times.max(axis=1)
        spread = busiest * np.sqrt(np.square(times / np.maximum(busiest, 1e-300)[:, None]).sum(axis=1))
        farthest = np.maximum(late, self.network.latency(source, target).max(axis=1))
        return np.maximum(inside, busiest), exchange.rounds * _hops(exchange, between) * farthest, spread

    def _inside(self, exchange: Exchange, between: Flows) -> float:
        return between.inside * exchange.sent_bytes / self.traffic.link_bytes_per_s

    def _times(self, loads: Floats) -> Floats:
        rate = self.network.rate
        return np.divide(loads, rate, out=np.zeros_like(loads), where=np.broadcast_to(rate > 0, loads.shape))

    def bound_s(self, largest_domain: int, nearest_s: float) -> float:
        """Return what no choice and order of nodes can beat, for this order of the axes, in seconds.

        Whatever leaves a block passes the interfaces of its node, or the links of its domain if the whole group finds
        room in one (``largest_domain`` nodes); ``nearest_s`` is the least latency between two nodes.
        """
        step = self.traffic.fixed_s
        network = self.network.node_rate
        domain = self.traffic.link_bytes_per_s * self.grid.gpus_per_node
        for term, of_term in zip(self.traffic.terms, self._flows, strict=True):
            takes = 0.0
            for exchange, between in zip(term.exchanges, of_term, strict=True):
                busy = self._inside(exchange, between)
                late = self.traffic.link_latency_s if between.inside else 0.0
                if len(between.source):
                    out = np.bincount(between.source, between.bytes, minlength=self.grid.blocks).max()
                    into = np.bincount(between.target, between.bytes, minlength=self.grid.blocks).max()
                    if largest_domain < 2:
                        least = max(out, into) / network
                    elif between.blocks <= largest_domain:
                        least = max(out, into) / max(domain, network)
                    else:  # at least one flow of each group has to leave its domain
                        least = float(between.bytes.min()) / network
                    busy = max(busy, float(least))
                    late = max(late, nearest_s)
                hops = _hops(exchange, between) if len(between.source) else 1.0
                takes += busy + exchange.rounds * hops * late
            step += float(_waited(term, np.array([takes]))[0])
        return step

    def links(self, hosts: Ints) -> list[LinkLoad]:
        """Return every link that carries something, the busiest first, and what most of it is of."""
        loads = [
            (term.name, self.network.loads(hosts[None, f.source], hosts[None, f.target], f.bytes)[0])
            for term, of_term in zip(self.traffic.terms, self._flows, strict=True)
            for f in of_term
            if len(f.source)
        ]
        if not loads:
            return []
        table = np.array([load for _, load in loads])
        total = table.sum(axis=0)
        times = self._times(total)
        most = table.argmax(axis=0)
        order = np.lexsort((np.arange(len(times)), -np.round(times, 9)))[: int((times > 0).sum())]
        return [self._link(int(i), float(total[i]), float(times[i]), loads[int(most[i])][0]) for i in order]

    def _link(self, number: int, size: float, busy_s: float, mostly: str) -> LinkLoad:
        source, target = self.network.link(number)
        return LinkLoad(source=source, target=target, bytes=round(size), busy_s=round(busy_s, 6), mostly=mostly)


def busiest(links: Sequence[LinkLoad], count: int) -> tuple[LinkLoad, ...]:
    """Return the first ``count`` of links, those that carry as much of the same as one, with their number."""
    alike: dict[tuple[float, float, str], list[LinkLoad]] = {}
    for link in links:
        alike.setdefault((link.busy_s, link.bytes, link.mostly), []).append(link)
    first = list(alike.values())[:count]
    return tuple(same[0].model_copy(update={"alike": len(same)}) for same in first)


def _hops(exchange: Exchange, between: Flows) -> float:
    """Return how many latencies a message of a collective takes: up and down a tree of its blocks (NCCL's trees)."""
    return max(1.0, math.log2(between.blocks)) if exchange.pattern in ("ring", "all-to-all") else 1.0


def _waited(term: TrafficTerm, takes: Floats) -> Floats:
    whole = term.scale * takes
    return term.weight * (term.exposed * whole + np.maximum(0.0, (1 - term.exposed) * whole - term.hidden_s))
