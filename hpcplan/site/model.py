"""What a site has: the schema of a site file (``site_configs/*.yaml``).

A field's alias is the key in the file, where quantities carry units; the Python name carries the unit. Bandwidths are
one way, per link or per accelerator as the field says, as in the makers' data sheets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hpcplan.documents import Loc
from hpcplan.errors import nearest
from hpcplan.hostlist import expand
from hpcplan.quantities import Bandwidth, Bytes, Duration, EnergyPrice, Flops, NonNegative, PositiveInt, Watts
from hpcplan.validation import Value

__all__ = [
    "Accelerator",
    "AcceleratorGroup",
    "Container",
    "Environment",
    "Fabric",
    "FabricLevel",
    "IntraNode",
    "NetworkInterfaces",
    "NodeGroup",
    "Partition",
    "Prices",
    "Site",
    "SlurmSettings",
    "Storage",
    "Switch",
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _hostlist(value: Any) -> Any:
    if isinstance(value, str):
        expand(value, limit=1_000_000)  # refuses bad syntax and hostile sizes here, where the line is known
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_list)]
Hostlist = Annotated[str, BeforeValidator(_hostlist)]


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
        for name in _FALLBACK.get(precision, (precision,)):
            if name in self.peak_flops:
                return self.peak_flops[name]
        raise KeyError(precision)


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


class AcceleratorGroup(Value):
    """The accelerators of one node: ``type`` is a name of the catalogue or of the site's own ``accelerators``."""

    type: str
    count: PositiveInt
    gres: str | None = Field(None, description="the GRES type that Slurm knows it by, as in gpu:h100:8")


class IntraNode(Value):
    """The links among a node's accelerators; ``bandwidth`` is what one accelerator can send, one way."""

    kind: Literal["nvswitch", "nvlink", "xgmi", "pcie", "none"] = "nvswitch"
    bandwidth_bytes_per_s: Bandwidth = Field(alias="bandwidth", description="of one accelerator, one way")
    latency_s: Duration = Field(2e-6, alias="latency")
    domain_nodes: PositiveInt = Field(1, description="consecutive nodes that the links join, as 18 in an NVL72 rack")


class NetworkInterfaces(Value):
    """The network interfaces of one node; ``bandwidth`` is that of each, one way."""

    count: PositiveInt = 1
    bandwidth_bytes_per_s: Bandwidth = Field(alias="bandwidth", description="of each, one way")
    latency_s: Duration = Field(2e-6, alias="latency", description="from memory to the wire")
    names: Words = Field((), description="as NCCL_IB_HCA wants them")


class NodeGroup(Value):
    """Nodes that are alike."""

    nodes: Hostlist = Field(description="a Slurm hostlist, as in gpu[001-128]")
    cpus: PositiveInt = Field(description="CPUs a node, as Slurm counts them")
    memory_bytes: Bytes = Field(alias="memory", description="main memory a node")
    sockets: PositiveInt = 2
    accelerators: AcceleratorGroup | None = Field(None, description="absent for CPU-only nodes")
    intra_node: IntraNode | None = Field(None, description="needed with more than one accelerator a node")
    nics: NetworkInterfaces = Field(description="what joins a node to the fabric")
    features: Words = Field((), description="Slurm features, for --constraint")
    power_w: Watts | None = Field(None, alias="power", description="one node under load, accelerators included")
    price_per_hour: NonNegative | None = Field(None, description="one node, in the site's currency")
    mtbf_s: Duration | None = Field(None, alias="mtbf", description="mean time between failures of one node")

    def hostnames(self) -> list[str]:
        """Return the names of the nodes, in order."""
        return expand(self.nodes)

    @property
    def node_bandwidth_bytes_per_s(self) -> float:
        """What one node can send into the fabric, one way."""
        return self.nics.count * self.nics.bandwidth_bytes_per_s


class Partition(Value):
    """A Slurm partition over node groups."""

    nodes: Words = Field(description="names of node groups")
    default: bool = False
    max_time_s: Duration | None = Field(None, alias="max_time", description="no limit if absent")
    default_time_s: Duration | None = Field(None, alias="default_time", description="for jobs that name no limit")
    max_nodes: PositiveInt | None = Field(None, description="of one job")
    qos: Words = Field((), description="those allowed here")
    exclusive: bool = Field(True, description="jobs get whole nodes")


class FabricLevel(Value):
    """One level of switches of a regular tree, from the leaves up.

    ``size`` is how many children (nodes under a leaf, switches above) one switch joins; ``uplink`` is the bandwidth of
    all links together from one of these switches to the level above, one way.
    """

    name: str = Field(description="switches are called by it and a number")
    size: PositiveInt = Field(description="children of one switch")
    uplink_bytes_per_s: Bandwidth | None = Field(None, alias="uplink", description="absent at the top level")
    latency_s: Duration = Field(3e-7, alias="latency", description="one switch, port to port")


class Switch(Value):
    """One switch of a tree that is written out: it joins ``nodes`` or other ``switches``."""

    name: str
    nodes: Hostlist | None = None
    switches: Words = ()
    uplink_bytes_per_s: Bandwidth | None = Field(None, alias="uplink")
    latency_s: Duration = Field(3e-7, alias="latency")


class Fabric(Value):
    """The network between nodes: a tree, either regular (``levels``) or written out (``switches``)."""

    kind: Literal["tree"] = "tree"
    technology: str | None = None
    levels: tuple[FabricLevel, ...] = ()
    switches: tuple[Switch, ...] = ()

    def inconsistencies(self) -> Iterator[tuple[Loc, str]]:
        """Yield what is wrong with the tree."""
        if bool(self.levels) == bool(self.switches):
            yield (), "give either 'levels' (a regular tree) or 'switches' (one by one)"
        for index, level in enumerate(self.levels[:-1]):
            if level.uplink_bytes_per_s is None:
                yield ("levels", index), "'uplink' is missing; only the top level has none"
        names: set[str] = set()
        for index, switch in enumerate(self.switches):
            if switch.name in names:
                yield ("switches", index, "name"), f"switch {switch.name!r} is defined twice"
            names.add(switch.name)
        yield from self._switch_problems(names)

    def _switch_problems(self, names: set[str]) -> Iterator[tuple[Loc, str]]:
        parent: dict[str, str] = {}
        for index, switch in enumerate(self.switches):
            if (switch.nodes is None) == (not switch.switches):
                yield ("switches", index), "give either 'nodes' (a leaf) or 'switches' (above leaves)"
            for child in switch.switches:
                if child not in names:
                    yield ("switches", index, "switches"), f"no switch is called {child!r}" + nearest(child, names)
                elif child in parent:
                    yield ("switches", index, "switches"), f"{child!r} is already under {parent[child]!r}"
                parent.setdefault(child, switch.name)
        for index, switch in enumerate(self.switches):
            seen, above = {switch.name}, parent.get(switch.name)
            while above is not None and above not in seen:
                seen.add(above)
                above = parent.get(above)
            if above is not None:
                yield ("switches", index), f"{switch.name!r} is above itself"
                return
            if switch.name in parent and switch.uplink_bytes_per_s is None:
                yield ("switches", index), f"'uplink' is missing: {switch.name!r} is under {parent[switch.name]!r}"


class Container(Value):
    """How containers are started: Pyxis (``srun --container-image``) or Apptainer."""

    runtime: Literal["pyxis", "apptainer"]
    image: str
    mounts: Words = ()


class Environment(Value):
    """What a job needs on this site before the trainer starts."""

    modules: Words = Field((), description="for `module load`")
    setup: Words = Field((), description="shell lines, run once a node before the trainer")
    variables: dict[str, str] = Field(default_factory=dict, description="environment, such as NCCL_IB_HCA")
    container: Container | None = None


class SlurmSettings(Value):
    """How this site's Slurm wants to be asked."""

    version: str | None = Field(None, pattern=r"^\d{2}\.\d{2}(\.\d+)?$", description="such as 23.11; unknown if absent")
    cluster: str | None = None
    gpu_request: Literal["gres", "gpus-per-node", "none"] = Field(
        "gres", description="how jobs ask for accelerators: --gres, --gpus-per-node, or not at all"
    )
    account: str | None = Field(None, description="where the workload names none")
    qos: str | None = Field(None, description="where the workload names none")
    topology: bool = Field(False, description="topology/tree or topology/block is on, so --switches means something")


class Prices(Value):
    """What it costs, in one currency."""

    currency: str = "USD"
    energy_per_kwh: EnergyPrice | None = Field(None, alias="energy")
    pue: Annotated[float, Field(ge=1)] = 1.0
    source: str | None = None


class Storage(Value):
    """A file system that the nodes share; bandwidths are what all nodes together get."""

    path: str
    read_bytes_per_s: Bandwidth = Field(alias="read")
    write_bytes_per_s: Bandwidth = Field(alias="write")


class Site(Value):
    """A cluster: partitions over groups of equal nodes, joined by a fabric."""

    name: str
    description: str = Field("", description="one line, for lists")
    sources: Words = Field((), description="where the figures come from, and which are assumed")
    node_groups: dict[str, NodeGroup] = Field(min_length=1)
    partitions: dict[str, Partition] = Field(min_length=1)
    fabric: Fabric = Field(description="the network between nodes")
    accelerators: dict[str, Accelerator] = Field(default_factory=dict, description="overrides the catalogue")
    slurm: SlurmSettings = SlurmSettings.model_construct()
    environment: Environment = Environment.model_construct()
    prices: Prices = Prices.model_construct()
    storage: Storage | None = None

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
        for loc, message in self.fabric.inconsistencies():
            yield ("fabric", *loc), message
        nodes = sum(len(group.hostnames()) for group in self.node_groups.values())
        if self.fabric.levels and math.prod(level.size for level in self.fabric.levels) < nodes:
            yield ("fabric", "levels"), f"the sizes of the levels multiply to fewer than the site's {nodes} nodes"

    def _group_problems(self) -> Iterator[tuple[Loc, str]]:
        owner: dict[str, str] = {}
        leaf: dict[str, str] = {}
        for name, group in self.node_groups.items():
            for host in group.hostnames():
                if host in owner:
                    where = "twice in this group" if owner[host] == name else f"also in group {owner[host]!r}"
                    yield ("node_groups", name, "nodes"), f"node {host!r} is {where}"
                    break
                owner[host] = name
            if group.accelerators is not None and group.accelerators.count > 1 and group.intra_node is None:
                yield ("node_groups", name), "'intra_node' is missing: say how its accelerators are linked"
        for index, switch in enumerate(self.fabric.switches):
            loc = ("fabric", "switches", index, "nodes")
            for host in expand(switch.nodes) if switch.nodes else []:
                if host not in owner:
                    yield loc, f"node {host!r} is in no node group"
                    break
                if host in leaf:
                    yield loc, f"node {host!r} is already under {leaf[host]!r}"
                    break
                leaf[host] = switch.name
        if self.fabric.switches and (loose := next((host for host in owner if host not in leaf), None)):
            yield ("fabric", "switches"), f"node {loose!r} of group {owner[loose]!r} is under no switch"

    def default_partition(self) -> str:
        """Return the partition marked as default, else the first."""
        marked = [name for name, partition in self.partitions.items() if partition.default]
        return marked[0] if marked else next(iter(self.partitions))
