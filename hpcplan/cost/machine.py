"""What the cost model needs to know of a machine: one node group, its accelerator, and its place in the fabric."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcplan.cost.formats import format_of
from hpcplan.cost.mesh import ring_shares
from hpcplan.cost.shape import Number
from hpcplan.cost.shardings import Floats, Ints
from hpcplan.errors import InputError
from hpcplan.plan import Precision
from hpcplan.site.inside import PCIE_BYTES_PER_S
from hpcplan.site.load import accelerator_of
from hpcplan.site.model import Accelerator, Site
from hpcplan.site.node import IntraNode
from hpcplan.site.topology import Tier, Topology

__all__ = ["Machine", "machine_of", "make_machine", "slowest"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Equal nodes of equal accelerators: scalars, or arrays of shape (rows,) for many machines in one call.

    Bandwidths are bytes/s one way, latencies seconds, peaks FLOP/s at the precision of the products and of attention.
    The ``tier_*`` arrays, of shape (tiers,) or (rows, tiers), are the neighbourhoods of the fabric, nearest first;
    ``gpus_per_domain`` accelerators are joined by NVLink or the like: a node's, or those of several nodes.
    """

    memory_bytes: Number
    memory_bytes_per_s: Number
    peak_flops: Number
    attention_peak_flops: Number
    element_bytes: Number
    gpus_per_node: Number
    gpus_per_domain: Number
    link_bytes_per_s: Number
    link_latency_s: Number
    tier_nodes: Floats
    tier_bytes_per_s: Floats
    tier_latency_s: Floats
    host_link_bytes_per_s: Number = 2.5e10  # one accelerator to its host, one way: PCIe 4.0 x16 less its protocol
    host_memory_bytes_per_s: Number = 2.0e11  # one node's main memory: eight channels of DDR4-3200
    host_memory_bytes: Number = np.inf  # one node's
    through_host: Number = 0.0  # 1 where accelerators of a node have no links of their own and go over the host's PCIe
    nvme_bytes_per_s: Number = 0.0  # one node's local storage, reading and writing; 0 where there is none
    operand_bytes: Number = 2.0  # of an element as products take it
    cast_bytes: Number = 0.0  # read and written to bring one to that from 16 bits
    ring_shares: Floats = field(default_factory=lambda: np.ones(1))  # of the links, by ranks in a domain; else the last

    @property
    def nodes(self) -> int:
        """How many nodes there are (of one machine)."""
        return int(self.tier_nodes[-1])

    def nodes_spanned(self, gpus: Number | Ints) -> Number:
        """Return how many nodes that many consecutive accelerators touch, when they begin at a node's first."""
        return np.ceil(np.asarray(gpus) / self.gpus_per_node)

    def reach(self, nodes: Number) -> tuple[Floats, Floats]:
        """Return the bandwidth of one node (bytes/s) and the latency (s) of the smallest tier that holds ``nodes``."""
        smaller = self.tier_nodes < np.asarray(nodes)[..., None]
        index = np.minimum(smaller.sum(axis=-1), self.tier_nodes.shape[-1] - 1)
        if self.tier_nodes.ndim == 1:
            return self.tier_bytes_per_s[index], self.tier_latency_s[index]
        rows = np.arange(len(self.tier_nodes))
        return self.tier_bytes_per_s[rows, index], self.tier_latency_s[rows, index]

    def crossing(self, nodes: Number, senders: Number) -> tuple[Floats, Floats]:
        """Return the same for ``senders`` neighbouring nodes of each neighbourhood that send out of it, not all.

        What bounds a tier is the up-links of the tier below, shared by the nodes that send over them at once: where
        these are fewer than the nodes below, each gets more of the links, up to what its interfaces carry.
        """
        _, latency = self.reach(nodes)
        tiers = self.tier_nodes.shape[-1]
        rates, best = [], self.tier_bytes_per_s[..., 0]
        for tier in range(tiers):
            if tier:
                fewer = np.maximum(1.0, self.tier_nodes[..., tier - 1] / np.maximum(1.0, np.asarray(senders)))
                best = np.minimum(best, self.tier_bytes_per_s[..., tier] * fewer)
            rates.append(best + 0.0 * np.asarray(nodes))
        smaller = self.tier_nodes < np.asarray(nodes)[..., None]
        index = np.minimum(smaller.sum(axis=-1), tiers - 1)
        return np.take_along_axis(np.stack(rates, axis=-1), index[..., None], axis=-1)[..., 0], latency

    def ring_share(self, ranks: Number | Ints) -> Floats:
        """Return which share of one accelerator's links a ring of so many ranks of a domain can use."""
        index = np.minimum(np.asarray(ranks).astype(np.int64), self.ring_shares.shape[-1]) - 1
        if self.ring_shares.ndim == 1:
            return np.asarray(self.ring_shares[index])
        return np.asarray(self.ring_shares[np.arange(len(self.ring_shares)), index])

    @classmethod
    def stack(cls, machines: Sequence[Machine]) -> Machine:
        """Return many machines as one; shorter lists of tiers and of rings repeat their last."""

        def column(name: str) -> Any:
            values = [np.asarray(getattr(m, name), dtype=float) for m in machines]
            if name.startswith("tier_") or name == "ring_shares":
                longest = max(len(v) for v in values)
                values = [np.pad(v, (0, longest - len(v)), mode="edge") for v in values]
            return np.array(values)

        return cls(*(column(field.name) for field in dataclasses.fields(cls)))


def make_machine(
    accelerator: Accelerator,
    precision: Precision,
    *,
    gpus_per_node: int,
    link_bytes_per_s: float,
    link_latency_s: float,
    tiers: Sequence[Tier],
    domain_nodes: int = 1,
    through_host: bool = False,
    shares: Floats | None = None,
) -> Machine:
    """Return the machine that equal nodes make; attention kernels run in 16 bits beside 8-bit products."""
    wide = precision in ("fp32", "tf32")
    faster = accelerator.peak(precision) > accelerator.peak("bf16")
    narrow = format_of(precision if wide or faster else "bf16", transposes=accelerator.family == "H100")
    return Machine(
        memory_bytes=accelerator.memory_bytes,
        memory_bytes_per_s=accelerator.memory_bandwidth_bytes_per_s,
        peak_flops=accelerator.peak(precision),
        attention_peak_flops=accelerator.peak(precision if wide else "bf16"),
        element_bytes=4 if wide else 2,
        gpus_per_node=gpus_per_node,
        gpus_per_domain=gpus_per_node * domain_nodes,
        link_bytes_per_s=link_bytes_per_s,
        link_latency_s=link_latency_s,
        tier_nodes=np.array([float(tier.nodes) for tier in tiers]),
        tier_bytes_per_s=np.array([tier.bandwidth_bytes_per_s for tier in tiers]),
        tier_latency_s=np.array([tier.latency_s for tier in tiers]),
        through_host=float(through_host),
        operand_bytes=narrow.operand_bytes,
        cast_bytes=narrow.cast_bytes,
        ring_shares=np.ones(1) if shares is None else shares,
    )


def machine_of(
    site: Site, topology: Topology, group: str, precision: Precision, hosts: Sequence[str] | None = None
) -> Machine:
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
    return make_machine(
        accelerator,
        precision,
        gpus_per_node=node.accelerators.count,
        link_bytes_per_s=link.bandwidth_bytes_per_s if link else node.node_bandwidth_bytes_per_s,
        link_latency_s=link.latency_s if link else node.nics.latency_s,
        tiers=topology.tiers(members),
        domain_nodes=link.domain_nodes if link else 1,
        through_host=link is None or link.kind == "pcie",
        shares=_shares(link),
    )


def _shares(link: IntraNode | None) -> Floats | None:
    """Return what rings can use of links that join some accelerators of a node only; ``None`` where all are joined."""
    if link is None or not link.mesh or max(map(sum, link.mesh)) == 0:
        return None
    over_host = (link.pcie_bytes_per_s or PCIE_BYTES_PER_S) / link.bandwidth_bytes_per_s
    return ring_shares(link.mesh, min(1.0, over_host))


def slowest(machines: Sequence[Machine]) -> Machine:
    """Return the machine that equal work on unequal nodes sees: every figure is that of the nodes worst at it.

    All wait for the slowest, whichever pool that is in each respect. Memory is that of the largest pool, since stages
    that are cut for unequal pools put what is large there.
    """
    network = min(machines, key=lambda m: float(m.tier_bytes_per_s[-1]))

    def least(name: str) -> float:
        return min(float(np.asarray(getattr(m, name))) for m in machines)

    def most(name: str) -> float:
        return max(float(np.asarray(getattr(m, name))) for m in machines)

    return dataclasses.replace(
        network,
        memory_bytes=most("memory_bytes"),
        memory_bytes_per_s=least("memory_bytes_per_s"),
        peak_flops=least("peak_flops"),
        attention_peak_flops=least("attention_peak_flops"),
        gpus_per_node=least("gpus_per_node"),
        gpus_per_domain=least("gpus_per_domain"),
        link_bytes_per_s=least("link_bytes_per_s"),
        link_latency_s=most("link_latency_s"),
        host_link_bytes_per_s=least("host_link_bytes_per_s"),
        host_memory_bytes_per_s=least("host_memory_bytes_per_s"),
        host_memory_bytes=least("host_memory_bytes"),
        nvme_bytes_per_s=least("nvme_bytes_per_s"),
        through_host=most("through_host"),
    )
