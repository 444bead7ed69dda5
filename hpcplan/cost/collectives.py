"""How long communication takes on the real topology: latency and bandwidth over groups of ranks.

A group is ``size`` ranks whose places are ``stride`` accelerators apart. "Inside" means in the domain that NVLink or
the like joins: a node, or a rack of nodes. Ring algorithms move (n-1)/n of the data once (all-gather, reduce-scatter)
or twice (all-reduce) through every rank (Thakur, Rabenseifner & Gropp 2005, section 4; NCCL's "bus bandwidth"). Inside,
a ring runs at the accelerator's link rate. Between nodes all groups of a node run at once and share its interfaces; a
group with k members in a domain gets k shares, since it opens as many rings.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hpcplan.cost.coefficients import Coefficients
from hpcplan.cost.machine import Machine
from hpcplan.cost.shape import Number
from hpcplan.cost.shardings import Floats, Ints

__all__ = ["Group", "all_gather", "all_reduce", "all_to_all", "broadcasts", "group", "point_to_point"]

_ON_THE_WAY_BYTES = 2.0**20  # of a broadcast that each domain has before the next gets any: two of NCCL's slices


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that communicate: arrays of shape (rows,)."""

    size: Ints
    near: Floats  # members inside one domain
    bus_bytes_per_s: Floats  # what one rank's ring carries, large messages
    inside_bytes_per_s: Floats
    outside_bytes_per_s: Floats  # one rank's own share of the interfaces
    latency_s: Floats  # of one pass around the ring or up the tree
    half_bytes: Floats

    def effective(self, message_bytes: Number) -> Floats:
        """Return the bandwidth in bytes/s that a message of that size gets."""
        return self.bus_bytes_per_s * message_bytes / (message_bytes + self.half_bytes)


def _link(machine: Machine, c: Coefficients, ranks: Number | Ints) -> Floats:
    """Return what a ring over so many ranks of a domain carries.

    Over the host's PCIe it also shares bridges and main memory; where no switch joins all accelerators, it has the
    links that :mod:`hpcplan.cost.mesh` finds for it.
    """
    host = np.where(machine.through_host, c.host_path_efficiency, 1.0)
    return np.asarray(machine.link_bytes_per_s * c.link_efficiency * host * machine.ring_share(ranks), dtype=float)


def group(machine: Machine, c: Coefficients, size: Ints, stride: Ints, *, all_at_once: bool = False) -> Group:
    """Return the group of ``size`` ranks that are ``stride`` accelerators apart.

    A ring sends from each member to the next, and so do the rings of the accelerators between two members: over an
    up-link goes what the last ``stride`` accelerators below it send, or the last domain where members are closer than
    that. With ``all_at_once`` goes what all nodes below it send, as in an all-to-all.
    """
    near = np.clip(machine.gpus_per_domain // np.maximum(stride, 1), 1, size)
    crosses = size > near
    span = machine.nodes_spanned(size * stride)
    senders = span if all_at_once else machine.nodes_spanned(np.maximum(stride, machine.gpus_per_domain))
    node_bandwidth, latency = machine.crossing(span, senders)
    inside = np.broadcast_to(_link(machine, c, near), size.shape)
    outside = node_bandwidth / machine.gpus_per_node * c.network_efficiency
    bus = np.where(crosses, np.minimum(inside, outside * near), inside)
    domains = np.maximum(1, size // near)
    hops = np.where(crosses, np.log2(np.maximum(domains, 2)) * latency, 0.0)
    inside_hops = (near - 1) * machine.link_latency_s
    half = np.where(crosses, c.network_half_bytes, c.link_half_bytes)
    return Group(size, near, bus, inside, outside, hops + inside_hops, half)


def all_gather(over: Group, total_bytes: Number) -> Floats:
    """Return seconds to gather (or reduce and scatter) ``total_bytes``, the sum over ranks."""
    moved = total_bytes * (over.size - 1) / over.size
    time = moved / over.effective(np.maximum(total_bytes, 1.0)) + over.latency_s
    return np.where((over.size > 1) & (np.asarray(total_bytes) > 0), time, 0.0)


def all_reduce(over: Group, message_bytes: Number) -> Floats:
    """Return seconds to reduce ``message_bytes`` on every rank: reduce-scatter, then all-gather.

    Between two domains NCCL takes its double binary tree (Sanders, Speck & Traeff 2009), in which each domain sends
    half of the message up one tree and half down the other, where a ring sends 2 (n-1)/n of it. With more domains an
    inner one of a tree has two children, and both send as much as a ring.
    """
    ring = 2.0 * all_gather(over, message_bytes)
    two = over.size == 2 * over.near
    if not np.any(two):
        return ring
    less = 2.0 * (over.size - 1) / over.size
    apart = np.minimum(over.inside_bytes_per_s, less * over.outside_bytes_per_s * over.near)
    bus = np.where(two, np.maximum(over.bus_bytes_per_s, apart), over.bus_bytes_per_s)
    return 2.0 * all_gather(dataclasses.replace(over, bus_bytes_per_s=bus), message_bytes)


def broadcasts(over: Group, total_bytes: Number) -> Floats:
    """Return seconds until every rank has sent its share of ``total_bytes`` to all others, one rank after the other.

    The volume is that of an all-gather, but messages are a share each, and every one has to make its way around all
    domains: with many ranks that is most of the time.
    """
    share = total_bytes / over.size
    around = (np.maximum(1.0, over.size / over.near) - 1) * _ON_THE_WAY_BYTES / over.bus_bytes_per_s
    time = over.size * (share / over.effective(np.maximum(share, 1.0)) + around + over.latency_s)
    return np.where((over.size > 1) & (np.asarray(total_bytes) > 0), time, 0.0)


def all_to_all(over: Group, sent_bytes: Number, copies: Number = 1.0, once: Number = 0.0) -> Floats:
    """Return seconds until every rank has sent ``copies`` copies of ``sent_bytes``, each to a rank drawn evenly.

    What leaves the domain goes through the sender's own share of the interfaces; the rest stays inside meanwhile. With
    ``once``, a domain gets one copy, however many of its ranks want it, and passes one on to each of these (DeepSeek-AI
    2024, arXiv:2412.19437, section 3.2.2): of n others each is hit with probability 1 - (1 - 1/(n + 1))^copies.
    """
    domains = np.maximum(1.0, over.size / over.near)
    away = np.where(np.asarray(once) > 0, _hit(domains, copies), copies * (over.size - over.near) / over.size)
    stays = np.where(np.asarray(once) > 0, _hit(over.size, copies), copies * (over.near - 1) / over.size)
    inside = sent_bytes * stays / over.inside_bytes_per_s
    outside = sent_bytes * away / over.outside_bytes_per_s
    return np.where(over.size > 1, np.maximum(inside, outside) + over.latency_s, 0.0)


def _hit(places: Number | Ints, copies: Number) -> Number:
    """Return how many places other than its own get any of ``copies`` copies that are drawn evenly."""
    return (places - 1) * (1 - (1 - 1 / np.asarray(places)) ** copies)


def point_to_point(machine: Machine, c: Coefficients, message_bytes: Floats, span: Ints, stage: Ints) -> Floats:
    """Return seconds to send a message from a pipeline stage to the next, all ranks of a stage sending at once.

    ``span`` is how many accelerators the pipeline covers: if it leaves the domain, the slowest boundary does. Of the
    nodes below an up-link those of one ``stage`` send over it, so many accelerators: what the others send stays below.
    """
    node_bandwidth, latency = machine.crossing(machine.nodes_spanned(span), machine.nodes_spanned(stage))
    inside = _link(machine, c, np.minimum(span, 2))
    outside = node_bandwidth / machine.gpus_per_node * c.network_efficiency
    crosses = span > machine.gpus_per_domain
    bandwidth = np.where(crosses, np.minimum(inside, outside), inside)
    return message_bytes / bandwidth + np.where(crosses, latency, machine.link_latency_s)
