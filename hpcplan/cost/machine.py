"""What the cost model needs to know of a machine: one node group, its accelerator, and its place in the fabric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.shardings import Floats, Ints
from hpcplan.errors import InputError
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Accelerator, Site
from hpcplan.site.topology import Tier, Topology

__all__ = ["Machine", "machine_of"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Equal nodes of equal accelerators. Bandwidths in bytes/s one way, an accelerator's or a node's as the name says.

    ``tiers`` are the neighbourhoods of the fabric, nearest first; the last holds all nodes.
    """

    accelerator: Accelerator
    gpus_per_node: int
    gpus_per_domain: int  # joined by NVLink or the like: a node's, or those of several nodes
    intra_node_bytes_per_s: float
    intra_node_latency_s: float
    tiers: tuple[Tier, ...]

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self.tiers[-1].nodes

    def nodes_spanned(self, gpus: Ints) -> Ints:
        """Return how many nodes that many consecutive accelerators touch, when they begin at a node's first."""
        return -(-gpus // self.gpus_per_node)

    def reach(self, nodes: Ints) -> tuple[Floats, Floats]:
        """Return the bandwidth of one node (bytes/s) and the latency (s) of the smallest tier that holds ``nodes``."""
        sizes = np.array([tier.nodes for tier in self.tiers])
        index = np.minimum(np.searchsorted(sizes, nodes), len(sizes) - 1)
        bandwidth = np.array([tier.bandwidth_bytes_per_s for tier in self.tiers])
        latency = np.array([tier.latency_s for tier in self.tiers])
        return bandwidth[index], latency[index]


def machine_of(site: Site, topology: Topology, group: str, hosts: Sequence[str] | None = None) -> Machine:
    """Return the machine that a node group, or some hosts of it, makes.

    Raises:
        InputError: the group has no accelerators.
    """
    node = site.node_groups[group]
    accelerator = accelerator_of(site, group)
    if accelerator is None or node.accelerators is None:
        raise InputError(f"node group {group!r} of site {site.name!r} has no accelerators")
    members = topology.nodes(group) if hosts is None else list(hosts)
    link = node.intra_node
    return Machine(
        accelerator=accelerator,
        gpus_per_node=node.accelerators.count,
        gpus_per_domain=node.accelerators.count * (link.domain_nodes if link else 1),
        intra_node_bytes_per_s=link.bandwidth_bytes_per_s if link else node.node_bandwidth_bytes_per_s,
        intra_node_latency_s=link.latency_s if link else node.nics.latency_s,
        tiers=tuple(topology.tiers(members)),
    )
