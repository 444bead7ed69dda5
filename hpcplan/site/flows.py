"""The most that one set of nodes can send to another at once.

On trees, and on rails and Clos networks through their hierarchy, this is a closed form from the leaves up; elsewhere it
is a maximum flow through the graph (Dinic's algorithm, ``scipy.sparse.csgraph.maximum_flow``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcplan.errors import HpcplanError
from hpcplan.site.hierarchy import Hierarchy, Ints

if TYPE_CHECKING:
    from hpcplan.site.topology import Topology

__all__ = ["bandwidth_between"]

_WHOLE = 2**31 - 1  # capacities of the maximum flow are whole numbers of 32 bits


def bandwidth_between(topology: Topology, sources: Sequence[str], targets: Sequence[str]) -> float:
    """Return what ``sources`` together can send to ``targets``, bytes/s one way, when nobody else talks.

    Nodes of both sets that share an accelerator domain use its links beside the fabric; no node forwards for another,
    but on a torus, whose nodes are its switches.

    Raises:
        HpcplanError: an empty set, an unknown node, or a node in both sets.
    """
    hierarchy = topology.hierarchy
    a, b = hierarchy.numbers(sources), hierarchy.numbers(targets)
    if not len(a) or not len(b) or np.intersect1d(a, b).size:
        raise HpcplanError("two sets of nodes without a common one are needed")
    inside = _inside_domains(hierarchy, a, b)
    if topology.kind in ("torus", "dragonfly"):
        return inside + _maximum_flow(topology, sources, targets)
    return inside + _on_tree(hierarchy, a, b)


def _inside_domains(hierarchy: Hierarchy, a: Ints, b: Ints) -> float:
    rate, domain = hierarchy.domain_bytes_per_s, hierarchy.domain
    both = np.intersect1d(domain[a][domain[a] >= 0], domain[b][domain[b] >= 0])
    ends = [(rate[a[domain[a] == d]].sum(), rate[b[domain[b] == d]].sum()) for d in both]
    return float(sum(min(pair) for pair in ends))


def _on_tree(hierarchy: Hierarchy, a: Ints, b: Ints) -> float:
    """Match what wants to leave and what can be taken in at the lowest switch above both.

    Matching lower never costs anything: a flow that went further up would use the same links below, and more.
    """
    leaving, entering = np.zeros(len(hierarchy.names)), np.zeros(len(hierarchy.names))
    leaving[np.unique(a)] = math.inf
    entering[np.unique(b)] = math.inf
    total = 0.0
    for number in range(len(hierarchy.names)):  # children stand before parents
        matched = min(leaving[number], entering[number])
        if matched:
            total += matched
            leaving[number] -= matched
            entering[number] -= matched
        parent, rate = hierarchy.parent[number], hierarchy.up_bytes_per_s[number]
        if parent >= 0:
            leaving[parent] += min(leaving[number], rate)
            entering[parent] += min(entering[number], rate)
    return float(total)


def _maximum_flow(topology: Topology, sources: Sequence[str], targets: Sequence[str]) -> float:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_flow

    index = {name: number for number, name in enumerate(topology.graph.nodes)}
    edges = [
        (index[a], index[b], float(data["bandwidth_bytes_per_s"])) for a, b, data in topology.graph.edges(data=True)
    ]
    start, end = len(index), len(index) + 1
    joined = np.zeros(len(index))  # what all links of a vertex carry together: more can neither leave nor enter it
    for a, b, rate in edges:
        joined[[a, b]] += rate
    scale = _WHOLE / joined.max(initial=1.0)
    arcs = [(u, v, int(rate * scale)) for a, b, rate in edges for u, v in ((a, b), (b, a))]
    arcs += [(start, index[name], int(joined[index[name]] * scale)) for name in sources]
    arcs += [(index[name], end, int(joined[index[name]] * scale)) for name in targets]
    rows, columns, rates = zip(*arcs, strict=True)
    capacity = csr_matrix((np.array(rates, dtype=np.int32), (rows, columns)), shape=(end + 1, end + 1))
    flow: float = maximum_flow(capacity, start, end).flow_value / scale
    return flow
