"""What traffic does to links: the load of every link under given flows, and what simultaneous collectives get.

Links are full duplex: the up and the down direction of a link are two figures. Flows between nodes of one accelerator
domain stay on the domain's own links and load none of the fabric's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from hpcplan.errors import HpcplanError
from hpcplan.site.hierarchy import Floats, Hierarchy, Ints

if TYPE_CHECKING:
    from hpcplan.site.topology import Topology

__all__ = ["Collective", "LinkLoads", "effective_bandwidths", "link_loads"]


@dataclass(frozen=True, eq=False)
class LinkLoads:
    """What each link of a :class:`Hierarchy` carries, in the unit of the flows (bytes, or bytes/s).

    ``up[v]`` goes from vertex ``v`` to its parent, ``down[v]`` the other way; both have shape (vertices,), 0 at roots.
    """

    hierarchy: Hierarchy
    up: Floats
    down: Floats

    @property
    def busiest_s(self) -> float:
        """How long the busiest link takes if loads are bytes (seconds); above 1 if they are bytes/s, it is too much."""
        return float(self.times_s().max(initial=0.0))

    def times_s(self) -> Floats:
        """Return load over bandwidth of each link, the busier direction, shape (vertices,)."""
        most = np.maximum(self.up, self.down)
        rate = self.hierarchy.up_bytes_per_s
        return np.divide(most, rate, out=np.where(most > 0, np.inf, 0.0), where=rate > 0)


def link_loads(topology: Topology, sources: ArrayLike, targets: ArrayLike, amounts: ArrayLike) -> LinkLoads:
    """Return the load of every link when each flow takes the way over the lowest switch above both of its ends.

    Args:
        topology: of the site.
        sources: numbers of hosts (``topology.hierarchy.numbers``), shape (flows,).
        targets: the same for the other end, shape (flows,).
        amounts: bytes, or bytes/s, of each flow; shape (flows,), or one figure for all.

    Raises:
        HpcplanError: nothing joins the ends of a flow.
    """
    hierarchy = topology.hierarchy
    a, b = np.asarray(sources, dtype=np.int64), np.asarray(targets, dtype=np.int64)
    amount = np.broadcast_to(np.asarray(amounts, dtype=float), a.shape)
    fabric = (a != b) & ~((hierarchy.domain[a] >= 0) & (hierarchy.domain[a] == hierarchy.domain[b]))
    a, b, amount = a[fabric], b[fabric], amount[fabric]
    up, down = np.zeros(len(hierarchy.names)), np.zeros(len(hierarchy.names))
    at_a, at_b = a.copy(), b.copy()
    for level in range(len(hierarchy.above) + 1):
        for at, load, other in ((at_a, up, at_b), (at_b, down, at_a)):
            moves = np.flatnonzero((at >= 0) & (at != other) & (hierarchy.level[at] == level))
            climbs = moves[hierarchy.parent[at[moves]] >= 0]
            np.add.at(load, at[climbs], amount[climbs])
        for at, other in ((at_a, at_b.copy()), (at_b, at_a.copy())):
            moves = np.flatnonzero((at >= 0) & (at != other) & (hierarchy.level[at] == level))
            at[moves] = hierarchy.parent[at[moves]]
    if (at_a != at_b).any() or (at_a < 0).any():
        raise HpcplanError("nothing joins the ends of a flow")
    return LinkLoads(hierarchy, up, down)


@dataclass(frozen=True, slots=True)
class Collective:
    """One group of nodes that communicate together.

    ``pattern`` is ``ring`` (all-reduce, all-gather, reduce-scatter, in the order of the tree) or ``all-to-all``.
    """

    hosts: tuple[str, ...]
    pattern: Literal["ring", "all-to-all"] = "ring"


def effective_bandwidths(topology: Topology, collectives: Sequence[Collective]) -> list[float]:
    """Return what each node of each collective can send, bytes/s one way, when all of them run at the same time.

    Links are shared max-min fair: the rate of all grows together, and a collective stops growing when one of its links
    is full (Bertsekas and Gallager, Data Networks, second edition, section 6.5.2). At rate r a ring in tree order sends
    r over each link that has members on both sides, once in each direction; an all-to-all of m members sends
    r k (m - k) / (m - 1) over a link with k of them below it. A collective of one node gets infinity.

    Raises:
        HpcplanError: an unknown node, a node twice in one collective, or nodes that nothing joins.
    """
    hierarchy = topology.hierarchy
    weights = [_weights(hierarchy, collective) for collective in collectives]
    left = hierarchy.up_bytes_per_s.copy()
    rates = np.zeros(len(collectives))
    growing = {number for number, (links, _) in enumerate(weights) if len(links)}
    rates[[number for number in range(len(collectives)) if number not in growing]] = np.inf
    demand = np.zeros(len(hierarchy.names))
    for number in growing:
        links, weight = weights[number]
        demand[links] += weight
    while growing:
        used = demand > 1e-12
        step = float((left[used] / demand[used]).min())
        left[used] -= step * demand[used]
        rates[sorted(growing)] += step
        full = used & (left <= 1e-9 * hierarchy.up_bytes_per_s)
        stopped = {number for number in growing if full[weights[number][0]].any()}
        for number in stopped:
            links, weight = weights[number]
            demand[links] -= weight
        growing -= stopped
    return _with_domains(hierarchy, collectives, rates)


def _with_domains(hierarchy: Hierarchy, collectives: Sequence[Collective], rates: Floats) -> list[float]:
    """Limit collectives inside one accelerator domain by the domain's links, which are not shared with others."""
    result = rates.tolist()
    for number, collective in enumerate(collectives):
        members = hierarchy.numbers(collective.hosts)
        if len(members) > 1 and _one_domain(hierarchy, members):
            result[number] = float(hierarchy.domain_bytes_per_s[members].min())
    return [float(rate) for rate in result]


def _one_domain(hierarchy: Hierarchy, members: Ints) -> bool:
    domains = hierarchy.domain[members]
    return bool(domains[0] >= 0 and (domains == domains[0]).all())


def _weights(hierarchy: Hierarchy, collective: Collective) -> tuple[Ints, Floats]:
    """Return the links that a collective uses, and what it sends over each at rate 1, in the busier direction."""
    members = hierarchy.numbers(collective.hosts)
    if len(np.unique(members)) < len(members):
        raise HpcplanError("a node stands twice in one collective")
    nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    if len(members) < 2 or _one_domain(hierarchy, members):
        return nothing
    count = len(members)
    vertices = members
    below: Floats = np.ones(count)
    links: list[Ints] = []
    shares: list[Floats] = []
    for level in range(len(hierarchy.above) + 1):
        here = hierarchy.level[vertices] == level
        crossing = here & (below < count)
        if (hierarchy.parent[vertices[crossing]] < 0).any():
            raise HpcplanError("nothing joins the nodes of one collective")
        links.append(vertices[crossing])
        shares.append(below[crossing])
        above = np.where(crossing, hierarchy.parent[vertices], vertices)
        vertices, inverse = np.unique(above, return_inverse=True)
        below = np.bincount(inverse.ravel(), weights=below).astype(np.float64)
    share = np.concatenate(shares)
    weight = np.ones(len(share)) if collective.pattern == "ring" else share * (count - share) / (count - 1)
    return np.concatenate(links), weight
