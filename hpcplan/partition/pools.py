"""One job over unequal nodes: pools of different accelerators, counts and links.

Two ways to share the work. Along the pipeline: each pool holds whole stages, and faster or larger ones get more layers
(:mod:`hpcplan.partition.pool_stages`). Along the batch: every accelerator holds the model (sharded or not), and faster
ones take larger micro-batches (:mod:`hpcplan.partition.pool_batches`). Both are searched exactly; no way to share can
beat the bound, at which all pools work all the time at their best rate and nothing is waited for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpcplan.cost.machine import machine_of
from hpcplan.errors import InputError, nearest
from hpcplan.partition.kinds import Kind
from hpcplan.site.model import Site
from hpcplan.site.topology import Topology

__all__ = ["Member", "PooledPlan", "members_of", "parse_pools"]


@dataclass(frozen=True, slots=True)
class Member:
    """So many nodes of one kind in a job with others; ``kind.machine`` knows the way to the other pools."""

    kind: Kind
    nodes: int

    @property
    def gpus(self) -> int:
        """Accelerators of the pool."""
        return self.nodes * self.kind.gpus_per_node


@dataclass(frozen=True, slots=True)
class PooledPlan:
    """How one job is shared over pools, in the order of ranks.

    ``stage_layers`` are those of all stages in order and ``stages`` how many each pool has (none and one each where the
    batch is shared); ``micro_batch`` is that of each pool, in sequences; ``stage_s`` the time of a micro-batch on a
    stage of each pool, at most; ``memory_bytes`` of the fullest accelerator of each pool. ``terms`` add up to
    ``step_s``. ``bound_s`` cannot be beaten.
    """

    along: Literal["pipeline", "batch"]
    members: tuple[Member, ...]
    tp: int
    pp: int
    dp: int
    ep: int
    micro_batch: tuple[int, ...]
    micro_batches: int
    zero: int
    recompute: int
    sequence_parallel: int
    stages: tuple[int, ...]
    stage_layers: tuple[int, ...]
    stage_s: tuple[float, ...]
    memory_bytes: tuple[float, ...]
    step_s: float
    bound_s: float
    terms: dict[str, float]

    @property
    def gpus(self) -> int:
        """Accelerators of all pools."""
        return sum(member.gpus for member in self.members)


def parse_pools(words: Sequence[str], site: Site, partition: str) -> dict[str, int]:
    """Return nodes by group for ``('h100=2', 'a100')``; a group without a number is taken whole.

    Raises:
        InputError: a group that the partition does not have, or more nodes than it has.
    """
    groups = site.partitions[partition].nodes
    found: dict[str, int] = {}
    for word in words:
        name, equals, number = word.partition("=")
        if name not in groups:
            raise InputError(
                f"--pool {word!r}: partition {partition!r} has no node group {name!r}" + nearest(name, groups)
            )
        most = len(site.node_groups[name].hostnames())
        if equals and not (number.isdigit() and 1 <= int(number) <= most):
            raise InputError(f"--pool {word!r}: write {name}=N, with N from 1 to {most}")
        found[name] = int(number) if equals else most
    if len(found) < 2:
        raise InputError("--pool: name two or more node groups, as in --pool h100=2 --pool a100")
    return found


def members_of(site: Site, topology: Topology, kinds: Sequence[Kind], counts: dict[str, int]) -> list[Member]:
    """Return the pools, each machine with one more neighbourhood: all pools, over the slowest link between them."""
    chosen = {kind.group: topology.nodes(kind.group)[: counts[kind.group]] for kind in kinds}
    everyone = [host for hosts in chosen.values() for host in hosts]
    widest = topology.tiers(everyone)[-1]
    across = min(widest.bandwidth_bytes_per_s, *(site.node_groups[name].node_bandwidth_bytes_per_s for name in chosen))
    members: list[Member] = []
    for kind in kinds:
        own = machine_of(site, topology, kind.group, kind.precision, chosen[kind.group])
        machine = dataclasses.replace(
            own,
            host_memory_bytes=kind.machine.host_memory_bytes,
            tier_nodes=np.append(own.tier_nodes, float(len(everyone))),
            tier_bytes_per_s=np.append(own.tier_bytes_per_s, min(across, float(own.tier_bytes_per_s[-1]))),
            tier_latency_s=np.append(own.tier_latency_s, max(widest.latency_s, float(own.tier_latency_s[-1]))),
        )
        members.append(Member(dataclasses.replace(kind, machine=machine), counts[kind.group]))
    return members
