"""One node, as a site file describes it: accelerators, the links among them, interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from hpcplan.documents import Loc
from hpcplan.hostlist import expand
from hpcplan.quantities import Bandwidth, Bytes, Duration, NonNegative, PositiveInt, Watts
from hpcplan.site.fields import Hostlist, Words
from hpcplan.validation import Value

__all__ = ["AcceleratorGroup", "IntraNode", "NetworkInterfaces", "NodeGroup", "NumaNode"]

Index = Annotated[int, Field(ge=0)]


class AcceleratorGroup(Value):
    """The accelerators of one node: ``type`` is a name of the catalogue or of the site's own ``accelerators``."""

    type: str
    count: PositiveInt
    gres: str | None = Field(None, description="the GRES type that Slurm knows it by, as in gpu:h100:8")
    mig: dict[str, PositiveInt] = Field(
        default_factory=dict, description="MIG instances a node by profile, as in `{1g.10gb: 14}`; whole GPUs if absent"
    )


class NumaNode(Value):
    """What is near to one NUMA node or socket; accelerators and interfaces are numbered from 0."""

    accelerators: tuple[Index, ...] = ()
    nics: tuple[Index, ...] = ()
    cpus: str | None = Field(None, description="a range of CPU numbers, as in `0-55`")


class IntraNode(Value):
    """The links among a node's accelerators; ``bandwidth`` is what one accelerator can send, one way."""

    kind: Literal["nvswitch", "nvlink", "xgmi", "pcie", "none"] = "nvswitch"
    bandwidth_bytes_per_s: Bandwidth = Field(alias="bandwidth", description="of one accelerator, one way")
    latency_s: Duration = Field(2e-6, alias="latency")
    domain_nodes: PositiveInt = Field(1, description="consecutive nodes that the links join, as 18 in an NVL72 rack")
    links: PositiveInt | None = Field(None, description="links of one accelerator, as 18 NVLinks of an H100")
    mesh: tuple[tuple[Index, ...], ...] = Field(
        (), description="links between each two accelerators, a row for each, where no switch joins them"
    )
    pcie_bytes_per_s: Bandwidth | None = Field(
        None, alias="pcie", description="of one accelerator to its socket, one way"
    )
    numa: tuple[NumaNode, ...] = Field((), description="what is near to which socket, in order")


class NetworkInterfaces(Value):
    """The network interfaces of one node; ``bandwidth`` is that of each, one way."""

    count: PositiveInt = 1
    bandwidth_bytes_per_s: Bandwidth = Field(alias="bandwidth", description="of each, one way")
    latency_s: Duration = Field(2e-6, alias="latency", description="from memory to the wire")
    names: Words = Field((), description="as NCCL_IB_HCA wants them")
    nearest: tuple[Words, ...] = Field((), description="interfaces nearest to accelerator 0, 1, …: its rail")


class NodeGroup(Value):
    """Nodes that are alike."""

    nodes: Hostlist = Field(description="a Slurm hostlist, as in gpu[001-128]")
    cpus: PositiveInt = Field(description="CPUs a node, as Slurm counts them")
    memory_bytes: Bytes = Field(alias="memory", description="main memory a node")
    sockets: PositiveInt = 2
    accelerators: AcceleratorGroup | None = Field(None, description="absent for CPU-only nodes")
    intra_node: IntraNode | None = Field(None, description="needed with more than one accelerator a node")
    nics: NetworkInterfaces = Field(description="what joins a node to the fabric")
    gres: dict[str, PositiveInt] = Field(
        default_factory=dict, description="other generic resources a node, as in `{nvme: 2}`"
    )
    features: Words = Field((), description="Slurm features, for --constraint")
    weight: PositiveInt = Field(1, description="Slurm's Weight: nodes of less weight are taken first")
    power_w: Watts | None = Field(None, alias="power", description="one node under load, accelerators included")
    price_per_hour: NonNegative | None = Field(None, description="one node, in the site's currency")
    mtbf_s: Duration | None = Field(None, alias="mtbf", description="mean time between failures of one node")
    local_storage: str | None = Field(None, description="path of fast storage inside each node, for staged data")

    def hostnames(self) -> list[str]:
        """Return the names of the nodes, in order."""
        return expand(self.nodes)

    @property
    def node_bandwidth_bytes_per_s(self) -> float:
        """What one node can send into the fabric, one way."""
        return self.nics.count * self.nics.bandwidth_bytes_per_s

    def inside_problems(self) -> Iterator[tuple[Loc, str]]:
        """Yield what does not fit together inside the node."""
        gpus = self.accelerators.count if self.accelerators else 0
        if gpus > 1 and self.intra_node is None:
            yield (), "'intra_node' is missing: say how its accelerators are linked"
        if self.nics.nearest and len(self.nics.nearest) != gpus:
            yield ("nics", "nearest"), f"needs an entry for each of the {gpus} accelerators"
        if self.intra_node is None:
            return
        mesh = self.intra_node.mesh
        if mesh and (len(mesh) != gpus or any(len(row) != gpus for row in mesh)):
            yield ("intra_node", "mesh"), f"must be a square table of the {gpus} accelerators"
        elif any(mesh[a][b] != mesh[b][a] for a in range(len(mesh)) for b in range(a)):
            yield ("intra_node", "mesh"), "must say the same for both ends of a link"
        for index, near in enumerate(self.intra_node.numa):
            for key, numbers, count in (
                ("accelerators", near.accelerators, gpus),
                ("nics", near.nics, self.nics.count),
            ):
                if any(number >= count for number in numbers):
                    yield ("intra_node", "numa", index, key), f"numbers go from 0 to {count - 1}"
