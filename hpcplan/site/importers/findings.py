"""What one file says of a site: the value that every importer fills as far as it can, each figure with its origin.

Importers only report. Whether two files agree, and what is assumed where none speaks, is for ``hpcplan.site.merge``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import MAX_HOSTS, compress, expand

__all__ = [
    "ASSUMED",
    "EVERY_NODE",
    "BlockFound",
    "Budget",
    "Devices",
    "Figure",
    "Findings",
    "InsideFound",
    "LinkFound",
    "NicsFound",
    "NodesFound",
    "Note",
    "NumaFound",
    "PartitionFound",
    "Place",
    "SchedulerFound",
    "SwitchFound",
    "few",
]

ASSUMED: Final = "assumed"
EVERY_NODE: Final = "*"  # the name of a line that holds for every node, such as one of gres.conf without NodeName

T_co = TypeVar("T_co", covariant=True)


def few(names: Iterable[str]) -> str:
    """Return names as a hostlist, cut where it is long, for messages."""
    text = compress(names)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True, slots=True)
class Note(Problem):
    """What was simplified or is not known: worth saying, but no contradiction, so ``--strict`` lets it pass."""


@dataclass(slots=True)
class Budget:
    """How many names one file may still stand for: every list may be short, and all of them together endless."""

    left: int = 2 * MAX_HOSTS  # a node may stand in many partitions and in the leaves of several rails


@dataclass(frozen=True, slots=True)
class Place:
    """A line (from 1) of a file."""

    file: str
    line: int | None = None
    budget: Budget = field(default_factory=Budget, compare=False, repr=False)

    @property
    def origin(self) -> str:
        """``from slurm.conf:12``, as the comments of a written site file say it."""
        name = Path(self.file).name
        return f"from {name}" if self.line is None else f"from {name}:{self.line}"

    def problem(self, message: str, field: str | None = None) -> Problem:
        """Return a :class:`Problem` at this place."""
        return Problem(message, file=self.file, line=self.line, field=field)

    def note(self, message: str, field: str | None = None) -> Note:
        """Return a :class:`Note` at this place."""
        return Note(message, file=self.file, line=self.line, field=field)

    def hosts(self, hostlist: str, field: str) -> tuple[str, ...]:
        """Expand a hostlist that stands here.

        Raises:
            InputError: it is not one, names more than ``MAX_HOSTS``, or the file as a whole names too many.
        """
        try:
            names = tuple(expand(hostlist, limit=MAX_HOSTS))
        except ValueError as error:
            raise InputError(self.problem(str(error), field)) from None
        self.budget.left -= len(names)
        if self.budget.left < 0:
            raise InputError(self.problem(f"all lists up to here name more than {Budget().left:,} nodes", field))
        return names


@dataclass(frozen=True, slots=True)
class Figure(Generic[T_co]):
    """A value and where it comes from: ``from slurm.conf:12``, ``from ibnetdiscover.out`` or ``assumed``."""

    value: T_co
    origin: str


@dataclass(frozen=True, slots=True)
class Devices:
    """The accelerators of one node; ``type`` is what the file calls them, ``None`` where it does not say.

    ``mig`` are their instances by profile, where they are divided; ``count`` is of whole ones.
    """

    count: int
    type: str | None = None
    mig: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NicsFound:
    """The network interfaces of one node that join it to the fabric; ``names`` stand in the order of the GPUs."""

    count: Figure[int]
    bandwidth_bytes_per_s: Figure[float] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodesFound:
    """Nodes that one line describes alike."""

    names: tuple[str, ...]
    place: Place
    cpus: Figure[int] | None = None
    memory_bytes: Figure[int] | None = None
    sockets: Figure[int] | None = None
    gpus: Figure[Devices] | None = None
    features: Figure[tuple[str, ...]] | None = None
    weight: Figure[int] | None = None
    gres: Figure[tuple[tuple[str, int], ...]] | None = None
    nics: NicsFound | None = None


@dataclass(frozen=True, slots=True)
class PartitionFound:
    """A partition; ``nodes`` is ``None`` for all of the cluster."""

    name: str
    place: Place
    nodes: tuple[str, ...] | None
    default: bool = False
    max_time_s: int | None = None
    default_time_s: int | None = None
    max_nodes: int | None = None
    qos: tuple[str, ...] = ()
    exclusive: bool | None = None
    min_nodes: int | None = None
    state: str = "up"
    partition_qos: str | None = None
    accounts: tuple[str, ...] = ()
    priority_tier: int | None = None
    preempt_mode: str | None = None
    grace_time_s: float | None = None
    default_memory_per_cpu_bytes: int | None = None
    default_memory_per_node_bytes: int | None = None
    default_cpus_per_gpu: int | None = None


@dataclass(frozen=True, slots=True)
class SchedulerFound:
    """How the controller decides, in the words of ``site.policy.SchedulerPolicy``; ``None`` where nothing is said."""

    origin: str
    scheduler: str | None = None
    priority: str | None = None
    preempt_type: str | None = None
    preempt_mode: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    weights: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchFound:
    """A switch with the nodes and the switches right below it."""

    name: str
    place: Place
    nodes: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkFound:
    """All cables together between two switches, bytes/s one way; ``low`` is the one nearer to the nodes."""

    low: str
    high: str
    links: int
    bandwidth_bytes_per_s: float
    origin: str


@dataclass(frozen=True, slots=True)
class BlockFound:
    """Nodes that belong closer together than the rest.

    ``kind`` is ``block`` or ``ring`` or ``torus`` as Slurm has them, or ``domain`` where the file says that one
    accelerator fabric (NVLink) joins them. ``dims`` are those of a ring or torus whose every cell has a node.
    """

    name: str
    place: Place
    nodes: tuple[str, ...]
    kind: str = "block"
    dims: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NumaFound:
    """What is near to one socket: numbers of GPUs and interfaces, a range of CPUs."""

    gpus: tuple[int, ...]
    nics: tuple[int, ...] = ()
    cpus: str | None = None


@dataclass(frozen=True, slots=True)
class InsideFound:
    """The inside of one node.

    ``kind`` is that of ``site.model.IntraNode``, or ``unknown`` where the file does not tell NVLinks; ``links`` are
    NVLinks of one GPU, 0 for none; ``nics_of_gpu[g]`` are the interfaces nearest to GPU ``g``; ``gpu_type`` is a name
    of the catalogue, where the file tells the chip. ``mesh[a][b]`` are the NVLinks between two GPUs that no switch
    joins; ``numa`` are the GPUs and interfaces (by their number) near to each socket.
    """

    gpus: int
    kind: str
    origin: str
    links: int = 0
    bandwidth_bytes_per_s: float | None = None
    gpu_type: str | None = None
    nics_of_gpu: tuple[tuple[str, ...], ...] = ()
    sockets: int | None = None
    mesh: tuple[tuple[int, ...], ...] = ()
    numa: tuple[NumaFound, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one file says. ``problems`` are what is odd in it, yet can be lived with.

    ``rails`` says that the switches are physical, so that leaves which share their nodes are rails of one group;
    ``dragonfly`` that Slurm's tree stands for one (TopologyParam in slurm.conf(5)).
    """

    source: str
    cluster: Figure[str] | None = None
    version: Figure[str] | None = None
    nodes: tuple[NodesFound, ...] = ()
    partitions: tuple[PartitionFound, ...] = ()
    switches: tuple[SwitchFound, ...] = ()
    links: tuple[LinkFound, ...] = ()
    blocks: tuple[BlockFound, ...] = ()
    inside: InsideFound | None = None
    nics: NicsFound | None = None
    shared_nodes: bool | None = None
    topology_plugin: bool = False
    rails: bool = False
    dragonfly: bool = False
    block_sizes: tuple[int, ...] = ()
    scheduler: SchedulerFound | None = None
    drained: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    @property
    def label(self) -> str:
        """The file's name without its folder, as comments and messages call it."""
        return Path(self.source).name

    def counts(self) -> dict[str, int]:
        """Return how many of each thing the file names, before anything is simplified or dropped."""
        names = {name for found in self.nodes for name in found.names if name != EVERY_NODE}
        names.update(name for switch in self.switches for name in switch.nodes)
        names.update(name for block in self.blocks for name in block.nodes)
        children = {child for switch in self.switches for child in switch.children}
        lows = {link.low for link in self.links}
        roots = [switch for switch in self.switches if switch.name not in children and switch.name not in lows]
        gpus = sum(found.gpus.value.count * len(found.names) for found in self.nodes if found.gpus)
        every = {
            "nodes": len(names),
            "partitions": len(self.partitions),
            "switches": len(self.switches),
            "leaf_switches": sum(1 for switch in self.switches if switch.nodes),
            "root_switches": len(roots),
            "switch_links": sum(link.links for link in self.links),
            "blocks": len(self.blocks),
            "drained": len(self.drained),
            "gpus": gpus,
            "gpus_a_node": self.inside.gpus if self.inside else 0,
            "nics_a_node": self.nics.count.value if self.nics else 0,
        }
        return {key: value for key, value in every.items() if value}
