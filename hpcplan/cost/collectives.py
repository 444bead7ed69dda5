"""How long communication takes on the real topology: latency and bandwidth over groups of ranks.

A group is ``size`` ranks whose places are ``stride`` accelerators apart. "Inside" means in the domain that NVLink or
the like joins: a node, or a rack of nodes. Ring algorithms move (n-1)/n of the data once
(all-gather, reduce-scatter) or twice (all-reduce) through every rank (Thakur, Rabenseifner & Gropp 2005, section 4;
NCCL's "bus bandwidth"). There a ring runs at the accelerator's link rate. Between nodes all groups of a node
run at once and share its interfaces; a group with k members in a domain gets k shares, since it opens as many rings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcplan.cost.constants import Constants
from hpcplan.cost.machine import Machine
from hpcplan.cost.shardings import Floats, Ints

__all__ = ["Group", "all_gather", "all_reduce", "all_to_all", "group", "point_to_point"]


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that communicate: arrays of shape (candidates,)."""

    size: Ints
    bus_bytes_per_s: Floats  # what one rank's ring carries, large messages
    step_latency_s: Floats  # one traversal around the group is size - 1 of these inside a node
    half_bytes: float

    def effective(self, message_bytes: Floats) -> Floats:
        """Return the bandwidth in bytes/s that a message of that size gets."""
        return self.bus_bytes_per_s * message_bytes / (message_bytes + self.half_bytes)


def group(machine: Machine, constants: Constants, size: Ints, stride: Ints) -> Group:
    """Return the group of ``size`` ranks that are ``stride`` accelerators apart."""
    near = np.clip(machine.gpus_per_domain // np.maximum(stride, 1), 1, size)
    crosses = size > near
    span = machine.nodes_spanned(size * stride)
    node_bandwidth, latency = machine.reach(span)
    inside = machine.intra_node_bytes_per_s * constants.intra_node_efficiency.value
    between = node_bandwidth * near / machine.gpus_per_node * constants.inter_node_efficiency.value
    bus = np.where(crosses, np.minimum(inside, between), inside)
    domains = np.maximum(1, size // near)
    hops = np.where(crosses, np.log2(np.maximum(domains, 2)) * latency, 0.0)
    inside_hops = (np.minimum(near, size) - 1) * machine.intra_node_latency_s
    return Group(size, bus, hops + inside_hops, constants.message_half_bytes.value)


def all_gather(over: Group, total_bytes: Floats) -> Floats:
    """Return seconds to gather (or reduce and scatter) ``total_bytes``, the sum over ranks."""
    moved = total_bytes * (over.size - 1) / over.size
    return np.where(over.size > 1, moved / over.effective(np.maximum(total_bytes, 1.0)) + over.step_latency_s, 0.0)


def all_reduce(over: Group, message_bytes: Floats) -> Floats:
    """Return seconds to reduce ``message_bytes`` on every rank: reduce-scatter, then all-gather."""
    return 2.0 * all_gather(over, message_bytes)


def all_to_all(machine: Machine, constants: Constants, over: Group, stride: Ints, sent_bytes: Floats) -> Floats:
    """Return seconds until every rank has sent ``sent_bytes``, in equal parts to all ranks of the group.

    What leaves the node goes through the sender's own share of the interfaces; the rest stays inside meanwhile.
    """
    near = np.clip(machine.gpus_per_domain // np.maximum(stride, 1), 1, over.size)
    node_bandwidth, _ = machine.reach(machine.nodes_spanned(over.size * stride))
    inside = machine.intra_node_bytes_per_s * constants.intra_node_efficiency.value
    between = node_bandwidth / machine.gpus_per_node * constants.inter_node_efficiency.value
    stays = sent_bytes * (near - 1) / over.size / inside
    leaves = sent_bytes * (over.size - near) / over.size / between
    return np.where(over.size > 1, np.maximum(stays, leaves) + over.step_latency_s, 0.0)


def point_to_point(machine: Machine, constants: Constants, message_bytes: Floats, span: Ints) -> Floats:
    """Return seconds to send a message from a pipeline stage to the next, all ranks of a stage sending at once.

    ``span`` is how many accelerators the pipeline covers: if it leaves the node, the slowest boundary does.
    """
    nodes = machine.nodes_spanned(span)
    node_bandwidth, latency = machine.reach(nodes)
    inside = machine.intra_node_bytes_per_s * constants.intra_node_efficiency.value
    between = node_bandwidth / machine.gpus_per_node * constants.inter_node_efficiency.value
    crosses = span > machine.gpus_per_domain
    bandwidth = np.where(crosses, np.minimum(inside, between), inside)
    return message_bytes / bandwidth + np.where(crosses, latency, machine.intra_node_latency_s)
