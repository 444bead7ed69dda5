"""What a site has: the schema of a site file (``site_configs/*.yaml``).

A field's alias is the key in the file, where quantities carry units; the Python name carries the unit. Bandwidths are
one way, per link or per accelerator as the field says, as in the makers' data sheets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from hpcplan.documents import Loc
from hpcplan.errors import nearest
from hpcplan.hostlist import expand
from hpcplan.quantities import Bandwidth, Bytes, Duration, Flops, Watts
from hpcplan.site.fabric import Cables, Fabric, FabricLevel, Switch, Torus, level_names
from hpcplan.site.fields import Hostlist, Words
from hpcplan.site.node import AcceleratorGroup, IntraNode, NetworkInterfaces, NodeGroup, NumaNode
from hpcplan.site.policy import (
    Container,
    Environment,
    Partition,
    Prices,
    Qos,
    SchedulerPolicy,
    SlurmSettings,
    Storage,
)
from hpcplan.site.running import BurstBuffer, Checks
from hpcplan.validation import Value

__all__ = [
    "Accelerator",
    "AcceleratorGroup",
    "BurstBuffer",
    "Cables",
    "Checks",
    "Container",
    "Environment",
    "Fabric",
    "FabricLevel",
    "IntraNode",
    "NetworkInterfaces",
    "NodeGroup",
    "NumaNode",
    "Partition",
    "Prices",
    "Qos",
    "SchedulerPolicy",
    "Site",
    "SlurmSettings",
    "Storage",
    "Switch",
    "Torus",
    "rate_of",
]


class Accelerator(Value):
    """One kind of accelerator: data-sheet figures, dense (without structured sparsity), one device."""

    memory_bytes: Bytes = Field(alias="memory")
    memory_bandwidth_bytes_per_s: Bandwidth = Field(alias="memory_bandwidth")
    peak_flops: dict[str, Flops] = Field(
        alias="peak", description="FLOP/s by fp32, tf32, bf16, fp16, fp8, int8, fp4, int4"
    )
    power_w: Watts | None = Field(None, alias="power")
    sparse_speedup: Annotated[float, Field(ge=1)] = Field(1.0, description="of products with weights pruned 2:4")
    family: str | None = Field(None, description="the chip that it shares constants of the cost model with")
    source: str | None = None

    def peak(self, precision: str) -> float:
        """Return the peak rate in FLOP/s at ``precision``, or at the closest wider one that the chip has."""
        for name in _FALLBACK.get(rate_of(precision), (precision,)):
            if name in self.peak_flops:
                return self.peak_flops[name]
        raise KeyError(precision)

    def multiplies(self, precision: str) -> bool:
        """Tell whether the chip has a rate for that precision; blocks of 32 (MX) came with 4-bit products."""
        return rate_of(precision) in self.peak_flops and (precision != "mxfp8" or "fp4" in self.peak_flops)


def rate_of(precision: str) -> str:
    """Return the precision whose rate products have: ``fp8`` however 8-bit values are scaled."""
    return "fp8" if "fp8" in precision else precision


_FALLBACK: Mapping[str, tuple[str, ...]] = {
    "fp4": ("fp4", "fp8", "bf16", "fp16", "fp32"),
    "int4": ("int4", "int8", "bf16", "fp16", "fp32"),
    "int8": ("int8", "bf16", "fp16", "fp32"),
    "fp8": ("fp8", "bf16", "fp16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "tf32": ("tf32", "fp32"),
    "fp32": ("fp32", "tf32"),
}


class Site(Value):
    """A cluster: partitions over groups of equal nodes, joined by a fabric."""

    name: str
    description: str = Field("", description="one line, for lists")
    sources: Words = Field((), description="where the figures come from, and which are assumed")
    node_groups: dict[str, NodeGroup] = Field(min_length=1)
    partitions: dict[str, Partition] = Field(min_length=1)
    fabric: Fabric = Field(description="the network between nodes")
    accelerators: dict[str, Accelerator] = Field(default_factory=dict, description="overrides the catalogue")
    drained: Hostlist | None = Field(None, description="nodes that take no jobs at present")
    qos: dict[str, Qos] = Field(default_factory=dict, description="by name")
    scheduler: SchedulerPolicy = SchedulerPolicy.model_construct()
    slurm: SlurmSettings = SlurmSettings.model_construct()
    environment: Environment = Environment.model_construct()
    prices: Prices = Prices.model_construct()
    storage: Storage | None = None
    checks: Checks | None = Field(Checks.model_construct(), description="null for none")
    sample_every_s: Duration | None = Field(
        30, alias="sample_every", description="how often jobs write their use of GPUs, CPUs and memory; null for never"
    )

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield names that nothing defines, nodes in two groups, and what is wrong with the fabric."""
        yield from self._group_problems()
        for name, partition in self.partitions.items():
            for index, group in enumerate(partition.nodes):
                if group not in self.node_groups:
                    loc: Loc = ("partitions", name, "nodes", index)
                    yield loc, f"no node group is called {group!r}" + nearest(group, self.node_groups)
        if sum(partition.default for partition in self.partitions.values()) > 1:
            yield ("partitions",), "more than one partition is the default"
        for name, qos in self.qos.items():
            for other in qos.preempts:
                if other not in self.qos:
                    yield ("qos", name, "preempts"), f"no QoS is called {other!r}" + nearest(other, self.qos)
        wrong = list(self.fabric.inconsistencies())
        for loc, message in wrong:
            yield ("fabric", *loc), message
        if not wrong:
            yield from self._coverage_problems()

    def _group_problems(self) -> Iterator[tuple[Loc, str]]:
        owner: dict[str, str] = {}
        for name, group in self.node_groups.items():
            for host in group.hostnames():
                if host in owner:
                    where = "twice in this group" if owner[host] == name else f"also in group {owner[host]!r}"
                    yield ("node_groups", name, "nodes"), f"node {host!r} is {where}"
                    break
                owner[host] = name
            for loc, message in group.inside_problems():
                yield ("node_groups", name, *loc), message

    def _coverage_problems(self) -> Iterator[tuple[Loc, str]]:
        """Yield nodes that the fabric joins twice or not at all, and names in it that are no node's."""
        owner = {host: name for name, group in self.node_groups.items() for host in group.hostnames()}
        for host in expand(self.drained) if self.drained else []:
            if host not in owner:
                yield ("drained",), f"node {host!r} is in no node group"
                break
        yield from self._name_problems(owner)
        if self.fabric.levels:
            if math.prod(level.size for level in self.fabric.levels) < len(owner):
                message = f"the sizes of the levels multiply to fewer than the site's {len(owner)} nodes"
                yield ("fabric", "levels"), message
            return
        leaf: dict[str, str] = {}
        joins = [
            *(("switches", index, switch.name, switch.nodes) for index, switch in enumerate(self.fabric.switches)),
            *(("toruses", index, torus.name, torus.nodes) for index, torus in enumerate(self.fabric.toruses)),
        ]
        for key, index, name, nodes in joins:
            for host in expand(nodes) if nodes else []:
                if host not in owner:
                    yield ("fabric", key, index, "nodes"), f"node {host!r} is in no node group"
                    break
                if host in leaf and (self.fabric.kind != "rails" or leaf[host] == name):
                    yield ("fabric", key, index, "nodes"), f"node {host!r} is already under {leaf[host]!r}"
                    break
                leaf[host] = name
        key = "toruses" if self.fabric.toruses else "switches"
        if loose := next((host for host in owner if host not in leaf), None):
            yield ("fabric", key), f"node {loose!r} of group {owner[loose]!r} is under no switch"

    def _name_problems(self, owner: Mapping[str, str]) -> Iterator[tuple[Loc, str]]:
        """Yield switches that are called like a node, or like a switch of another level."""
        for index, switch in enumerate(self.fabric.switches):
            if switch.name in owner:
                yield ("fabric", "switches", index, "name"), f"{switch.name!r} is a node's name; switches need others"
        taken = dict.fromkeys(owner, "a node")
        for index, names in enumerate(level_names(self.fabric.levels, len(owner))):
            clash = next((name for name in names if name in taken), None)
            if clash is not None:
                message = f"its switches are numbered {names[0]!r} and on, and {clash!r} is {taken[clash]}; rename it"
                yield ("fabric", "levels", index, "name"), message
            taken |= dict.fromkeys(names, "a switch of another level")

    def default_partition(self) -> str:
        """Return the partition marked as default, else the first."""
        marked = [name for name, partition in self.partitions.items() if partition.default]
        return marked[0] if marked else next(iter(self.partitions))
