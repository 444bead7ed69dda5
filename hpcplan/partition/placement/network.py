"""Links of a fabric as arrays, and what flows between nodes load them with.

Links are full duplex: each direction is a link of its own. What nodes of one accelerator domain (an NVL72 rack) send
each other stays on the domain's links. Many placements are looked at in one call: sources and targets of flows have
shape (placements, flows).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.errors import HpcplanError
from hpcplan.site.hierarchy import Hierarchy

__all__ = ["Network", "TreeNetwork"]


class Network(Protocol):
    """What a placement is judged on. Hosts are numbers, in the order of ``hosts``; ``rate`` has one entry a link."""

    hosts: tuple[str, ...]
    rate: Floats
    """bytes/s that a link really carries, one way"""
    node_rate: float
    """the most that one node can send into the fabric, bytes/s"""
    effort: float
    """how much work it is to look at a flow, 1 on a tree"""

    def loads(self, source: Ints, target: Ints, amount: Floats) -> Floats:
        """Return the bytes on every link, shape (placements, links); ``amount`` has shape (flows,)."""

    def latency(self, source: Ints, target: Ints) -> Floats:
        """Return seconds from host to host, of the shape of ``source``."""

    def nearest_s(self, hosts: Ints) -> float:
        """Return seconds that no latency between two of ``hosts`` is below."""

    def link(self, number: int) -> tuple[str, str]:
        """Return the names of the two ends of a link, in the direction of the traffic."""


class TreeNetwork:
    """A tree of switches, or what behaves like one: parallel switches of rails or of a Clos network are one vertex."""

    def __init__(
        self, hierarchy: Hierarchy, *, efficiency: float, domain_bytes_per_s: float, domain_latency_s: float
    ) -> None:
        """Take a hierarchy, and what links between nodes and one node in its accelerator domain reach."""
        self.hosts = hierarchy.hosts
        self._hierarchy = hierarchy
        self._domain = hierarchy.domain
        self._domain_latency_s = domain_latency_s
        hosts = hierarchy.host_count
        self._vertices = len(hierarchy.names)
        up = hierarchy.up_bytes_per_s * efficiency
        self.node_rate = float(up[:hosts].max())
        self.effort = 1.0
        self.rate = np.concatenate([up, up, np.full(2 * hosts, domain_bytes_per_s)])
        self._above = np.vstack([np.arange(hosts), hierarchy.above])  # (levels, hosts), row 0 the hosts themselves

    def _inside(self, source: Ints, target: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        domain = self._domain[source]
        inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (domain >= 0) & (domain == self._domain[target])
        return inside

    def loads(self, source: Ints, target: Ints, amount: Floats) -> Floats:
        """Return the bytes on every link, shape (placements, links).

        Raises:
            HpcplanError: nothing joins the ends of a flow.
        """
        placements, links = len(source), len(self.rate)
        row = np.broadcast_to(np.arange(placements)[:, None] * links, source.shape)
        weight = np.broadcast_to(amount, source.shape)
        inside = self._inside(source, target)
        total = np.zeros(placements * links)
        vertices = self._vertices
        if inside.any():
            for ends, offset in ((source, 2 * vertices), (target, 2 * vertices + len(self.hosts))):
                total += np.bincount((row + ends + offset)[inside], weight[inside], minlength=total.size)
        joined = inside | (source == target)
        for level in self._above:
            a, b = level[source], level[target]
            differ = ~inside & (a != b)
            joined |= (a == b) & (a >= 0)
            for ends, offset in ((a, 0), (b, vertices)):
                used = differ & (ends >= 0)
                total += np.bincount((row + ends + offset)[used], weight[used], minlength=total.size)
        if not joined.all():
            raise HpcplanError("nothing joins some of the nodes that have to talk")
        return total.reshape(placements, links)

    def latency(self, source: Ints, target: Ints) -> Floats:
        """Return seconds from host to host over the lowest switch above both."""
        result = np.full(source.shape, np.inf)
        reach = self._hierarchy.reach_latency_s
        for level in range(len(reach) - 1, -1, -1):
            a, b = self._above[level + 1][source], self._above[level + 1][target]
            both = (a == b) & (a >= 0)
            result = np.where(both, reach[level][source] + reach[level][target], result)
        result = np.where(self._inside(source, target), self._domain_latency_s, result)
        return np.where(source == target, 0.0, result)

    def nearest_s(self, hosts: Ints) -> float:
        """Return twice the least latency from a host to its leaf, or a domain's own where two are in one."""
        _, sizes = np.unique(self._domain[hosts][self._domain[hosts] >= 0], return_counts=True)
        leaf = 2 * float(np.sort(self._hierarchy.up_latency_s[hosts])[:1].sum())
        return min(leaf, self._domain_latency_s) if (sizes > 1).any() else leaf

    def link(self, number: int) -> tuple[str, str]:
        """Return the names of the two ends of a link, in the direction of the traffic."""
        names, parent = self._hierarchy.names, self._hierarchy.parent
        if number >= 2 * self._vertices:
            host = number - 2 * self._vertices
            inward = host >= len(self.hosts)
            name = names[host - len(self.hosts) if inward else host]
            return ("NVLink domain", name) if inward else (name, "NVLink domain")
        vertex = number % self._vertices
        ends = names[vertex], names[parent[vertex]]
        return ends if number < self._vertices else (ends[1], ends[0])
