"""The levels of a fabric as arrays: what closed forms on trees need, for ten thousand nodes as for ten.

Vertices are numbered: hosts first, in the site's order, then switches, children before parents. Switches that serve the
same children in parallel (rails, the roots of a Clos network) are one vertex here, with the links of all of them, since
traffic spreads over them; a dragonfly's groups are vertices as well. The graph of
:class:`hpcplan.site.topology.Topology` has every switch on its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcplan.errors import HpcplanError, nearest

__all__ = ["Bundle", "Floats", "Hierarchy", "Ints", "Levels", "hierarchy_of"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Levels: TypeAlias = NDArray[np.int8]


@dataclass(slots=True)
class Bundle:
    """Parallel switches that serve the same children: hosts or other bundles, by name.

    ``up_bytes_per_s`` is one way, all links of all its switches together, ``None`` at a root; ``latency_s`` is one
    switch, port to port. ``physical`` is false for what is no switch, such as a dragonfly's group.
    """

    name: str
    switches: tuple[str, ...]
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    up_bytes_per_s: float | None = None
    up_links: int = 1
    latency_s: float = 3e-7
    physical: bool = True


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """A forest over hosts. All arrays have one entry a vertex, but for those of the domains, which have one a host.

    ``parent`` is -1 at roots; ``level`` is 0 for hosts, 1 for leaf switches. ``up_*`` describe the links from a vertex
    to its parent, all together, one way: bytes/s (0 at roots), seconds for one traversal, number of links.

    Hosts of one accelerator domain (an NVL72 rack) have the same number in ``domain``, others -1; inside it each can
    send ``domain_bytes_per_s`` at ``domain_latency_s``.
    """

    names: tuple[str, ...]
    host_count: int
    parent: Ints
    level: Ints
    up_bytes_per_s: Floats
    up_latency_s: Floats
    up_links: Ints
    domain: Ints
    domain_bytes_per_s: Floats
    domain_latency_s: Floats
    bundles: dict[str, Bundle] = field(default_factory=dict)

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each vertex by its name."""
        return {name: number for number, name in enumerate(self.names)}

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts, in the order of their numbers."""
        return self.names[: self.host_count]

    def numbers(self, names: Iterable[str]) -> Ints:
        """Return the numbers of vertices.

        Raises:
            HpcplanError: one of them is unknown.
        """
        index = self.index
        try:
            return np.array([index[name] for name in names], dtype=np.int64)
        except KeyError as error:
            name = str(error.args[0])
            raise HpcplanError(f"no node or switch is called {name!r}" + nearest(name, self.names)) from None

    def domain_link(self, a: int, b: int) -> tuple[float, float]:
        """Return bandwidth and latency between two hosts inside a common accelerator domain; (0, infinite) if none."""
        if self.domain[a] < 0 or self.domain[a] != self.domain[b]:
            return 0.0, math.inf
        rate, latency = self.domain_bytes_per_s[[a, b]], self.domain_latency_s[[a, b]]
        return float(rate.min()), float(latency.max())

    @cached_property
    def above(self) -> Ints:
        """The switch above each host on each level: shape (levels, hosts), row 0 the leaves, -1 where there is none."""
        levels = int(self.level.max(initial=0))
        table = np.full((levels, self.host_count), -1, dtype=np.int64)
        at = self.parent[: self.host_count].copy()
        for _ in range(levels):
            here = np.flatnonzero(at >= 0)
            table[self.level[at[here]] - 1, here] = at[here]
            at[here] = self.parent[at[here]]
        return table

    @cached_property
    def reach_bytes_per_s(self) -> Floats:
        """The narrowest link from each host up to its switch on each level: shape (levels, hosts), 0 for none."""
        return self._along(np.minimum, self.up_bytes_per_s, np.inf, 0.0)

    @cached_property
    def reach_latency_s(self) -> Floats:
        """The latency from each host up to its switch on each level: shape (levels, hosts), infinite for none."""
        return self._along(np.add, self.up_latency_s, 0.0, np.inf)

    def _along(self, join: np.ufunc, of_link: Floats, start: float, missing: float) -> Floats:
        result = np.full(self.above.shape, missing)
        value = np.full(self.host_count, start)
        at = np.arange(self.host_count)
        for _ in range(len(self.above)):
            here = np.flatnonzero(self.parent[at] >= 0)
            value[here] = join(value[here], of_link[at[here]])
            at[here] = self.parent[at[here]]
            result[self.level[at[here]] - 1, here] = value[here]
        return result

    @cached_property
    def hosts_below(self) -> Ints:
        """How many hosts are below each vertex; 1 for a host."""
        return self.below(np.ones(self.host_count)).astype(np.int64)

    def below(self, of_host: Floats) -> Floats:
        """Return, for each vertex, the sum over the hosts below it (or itself); ``of_host`` has shape (hosts,)."""
        total = np.zeros(len(self.names))
        total[: self.host_count] = of_host
        leaves = self.parent[: self.host_count]
        np.add.at(total, leaves[leaves >= 0], np.asarray(of_host, dtype=float)[leaves >= 0])
        for number in range(self.host_count, len(self.names)):  # children stand before parents
            if self.parent[number] >= 0:
                total[self.parent[number]] += total[number]
        return total


def hierarchy_of(
    hosts: Sequence[str], bundles: Sequence[Bundle], nic_bytes_per_s: Floats, nic_latency_s: Floats, nic_links: Ints
) -> Hierarchy:
    """Return the hierarchy of bundles (children before parents) over hosts with these interfaces, shape (hosts,)."""
    count = len(hosts) + len(bundles)
    names = (*hosts, *(bundle.name for bundle in bundles))
    number = {name: index for index, name in enumerate(names)}
    parent = np.full(count, -1, dtype=np.int64)
    level = np.zeros(count, dtype=np.int64)
    up, latency, links = np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    by_name = {bundle.name: bundle for bundle in bundles}
    for bundle in bundles:
        own = number[bundle.name]
        below = np.array([number[name] for name in bundle.hosts], dtype=np.int64)
        parent[below] = own
        up[below], links[below] = nic_bytes_per_s[below], nic_links[below]
        latency[below] = nic_latency_s[below] + bundle.latency_s / 2
        level[own] = 1 + max((int(level[number[child]]) for child in bundle.children), default=0)
        for name in bundle.children:
            child = by_name[name]
            here = number[name]
            parent[here], links[here] = own, child.up_links
            up[here] = child.up_bytes_per_s or 0.0
            latency[here] = (child.latency_s + bundle.latency_s) / 2
    nothing = np.zeros(len(hosts))
    return Hierarchy(
        names, len(hosts), parent, level, up, latency, links,
        np.full(len(hosts), -1, dtype=np.int64), nothing, nothing.copy(), by_name,
    )  # fmt: skip
