"""Which nodes are closest together: the best nodes for a job, given that some are busy or drained."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from hpcplan.errors import HpcplanError, InfeasibleError
from hpcplan.site.topology import Topology

__all__ = ["best_nodes"]


def best_nodes(
    topology: Topology,
    count: int,
    *,
    hosts: Iterable[str] | None = None,
    busy: Collection[str] = (),
    drained: Collection[str] | None = None,
) -> list[str]:
    """Return the ``count`` nodes that are closest together, in the order of the fabric: neighbours stand together.

    They are under the lowest switch that has so many free; of several such switches the one with the fewest free, so
    that large gaps stay whole. Under it, whole accelerator domains and leaves are filled, fullest first, and what
    remains comes from the smallest that is large enough: few leaves, and few of them broken. On a torus they are the
    smallest box.

    Args:
        topology: of the site.
        count: how many.
        hosts: the nodes to choose from; all of the site if not given.
        busy: nodes that are taken.
        drained: nodes that take no jobs; those that the site file calls drained if not given.

    Raises:
        InfeasibleError: fewer nodes are free, or nothing joins so many of them.
        HpcplanError: an unknown node, or a count below 1.
    """
    if count < 1:
        raise HpcplanError(f"{count} is no number of nodes")
    hierarchy = topology.hierarchy
    usable = np.zeros(hierarchy.host_count, dtype=bool)
    usable[hierarchy.numbers(hierarchy.hosts if hosts is None else hosts)] = True
    out = topology.drained if drained is None else drained
    for taken in (busy, out):
        numbers = hierarchy.numbers(taken)
        usable[numbers[numbers < hierarchy.host_count]] = False
    free = np.flatnonzero(usable)
    if len(free) < count:
        raise InfeasibleError(f"{count} nodes are wanted and {len(free)} are free")
    return [hierarchy.names[number] for number in topology.choose(count, free)]
