"""The nodes and partitions of a cluster, with node sets as bit masks.

Bit *i* of a mask is the *i*-th node in the order of the site file, which is the order that Slurm fills whole nodes in:
lowest first. Python's integers make the set operations of a scheduler (and, and-not, count) single instructions over a
few machine words, as Slurm's own bit maps do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hpcplan.hostlist import compress, expand

if TYPE_CHECKING:
    from hpcplan.site.model import NodeGroup, Site

__all__ = ["Machine", "NodeGroupShape", "PartitionShape", "Sharing", "lowest"]


def lowest(mask: int, count: int) -> int:
    """Return the ``count`` lowest bits that are set in ``mask``.

    >>> bin(lowest(0b110110, 3))
    '0b10110'
    """
    if count <= 0:
        return 0
    if mask.bit_count() <= count:
        return mask
    low, high = count, mask.bit_length()  # the answer is mask's part below some position between these
    while low < high:
        middle = (low + high) // 2
        if (mask & ((1 << middle) - 1)).bit_count() >= count:
            high = middle
        else:
            low = middle + 1
    return mask & ((1 << low) - 1)


@dataclass(frozen=True, slots=True)
class NodeGroupShape:
    """Nodes that are alike: what each has. ``mask`` says which they are; those of less ``weight`` are filled first."""

    mask: int
    cpus: int
    memory_bytes: int
    gpus: int = 0
    gpu_type: str | None = None
    features: tuple[str, ...] = ()
    weight: int = 1
    threads_per_core: int = 1  # CPUs of one core go to one job
    cpus_per_socket: int = 0  # 0: not known
    other_gres: tuple[tuple[str, int], ...] = ()  # (name, count) of what is no GPU

    @property
    def gres(self) -> str | None:
        """What Slurm calls the accelerators of one node: ``gpu:8`` or ``gpu:h100:8``."""
        if not self.gpus:
            return None
        return f"gpu:{self.gpu_type}:{self.gpus}" if self.gpu_type else f"gpu:{self.gpus}"


@dataclass(frozen=True, slots=True)
class PartitionShape:
    """A partition: its nodes and its limits; ``None`` is no limit.

    Jobs of a higher ``priority_tier`` go before all others; ``priority_job_factor`` goes into the multifactor priority
    (slurm.conf(5)). ``exclusive`` gives every job whole nodes; ``jobs_per_resource`` is how many jobs may have the same
    CPUs, or with select/linear the same nodes (``OverSubscribe=FORCE:4``). ``limits_qos`` is the QOS whose limits hold
    for every job here; ``preempt_mode`` is what preemption does to them (``off``, ``requeue``, ``cancel``), ``None``
    for what it does elsewhere. With ``least_loaded`` jobs go where most CPUs are free (LLN).
    """

    name: str
    mask: int
    default: bool = False
    max_time_s: int | None = None
    default_time_s: int | None = None
    max_nodes: int | None = None
    qos: tuple[str, ...] = ()
    up: bool = True
    priority_tier: int = 1
    priority_job_factor: int = 1
    min_nodes: int | None = None
    exclusive: bool = True
    jobs_per_resource: int = 1
    max_cpus_per_node: int | None = None
    default_memory_per_cpu_bytes: int | None = None
    default_memory_per_node_bytes: int | None = None
    limits_qos: str | None = None
    accounts: tuple[str, ...] = ()
    preempt_mode: str | None = None
    grace_time_s: int = 0
    accepts: bool = True
    least_loaded: bool = False

    @property
    def state(self) -> str:
        """``up``, ``down``, ``drain`` or ``inactive``: whether it starts jobs, and takes new ones."""
        if self.accepts:
            return "up" if self.up else "down"
        return "drain" if self.up else "inactive"


@dataclass(frozen=True, slots=True)
class Sharing:
    """What jobs may share a node by (slurm.conf(5), ``SelectTypeParameters``), and what they get who do not say.

    Without ``cpus`` (select/linear) nodes are shared whole or not at all. Where ``memory`` is counted and there is no
    default, a job gets all of a node's. With ``sockets`` the CPUs of one socket go to one job (CR_Socket), and with
    ``least_loaded`` jobs go where most CPUs are free (CR_LLN).
    """

    cpus: bool = True
    memory: bool = False
    default_memory_per_cpu_bytes: int | None = None
    default_memory_per_node_bytes: int | None = None
    max_memory_per_cpu_bytes: int | None = None
    default_cpus_per_gpu: int | None = None
    sockets: bool = False
    least_loaded: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while a mock cluster runs: node names, what they have, and the partitions over them."""

    names: tuple[str, ...]
    groups: tuple[NodeGroupShape, ...]
    partitions: Mapping[str, PartitionShape]
    sharing: Sharing | None = None
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _numbering: _Numbering = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {name: position for position, name in enumerate(self.names)})
        object.__setattr__(self, "_numbering", _Numbering(self.names))

    @property
    def shares_nodes(self) -> bool:
        """Whether a node may hold more than one job."""
        if self.sharing is None:
            return False
        parts = self.partitions.values()
        return any(not part.exclusive and (self.sharing.cpus or part.jobs_per_resource > 1) for part in parts)

    @property
    def all_nodes(self) -> int:
        """The mask of every node."""
        return (1 << len(self.names)) - 1

    def default_partition(self) -> str:
        """Return the partition marked as default, else the first."""
        marked = [name for name, partition in self.partitions.items() if partition.default]
        return marked[0] if marked else next(iter(self.partitions))

    def mask_of(self, names: Iterable[str]) -> int:
        """Return the mask of these nodes.

        Raises:
            KeyError: a name that no node has.
        """
        mask = 0
        for name in names:
            mask |= 1 << self._index[name]
        return mask

    def names_of(self, mask: int) -> list[str]:
        """Return the names of the nodes in ``mask``, in order."""
        names = []
        while mask:
            bit = mask & -mask
            names.append(self.names[bit.bit_length() - 1])
            mask ^= bit
        return names

    def node_list(self, mask: int) -> str:
        """Return the hostlist of ``mask``: ``n[1-4,7]``."""
        return self._numbering.hostlist(mask)

    def total(self, mask: int, what: str) -> int:
        """Return the sum of ``cpus``, ``gpus`` or ``memory_bytes`` over the nodes in ``mask``."""
        return sum((group.mask & mask).bit_count() * int(getattr(group, what)) for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` is its inverse."""
        return {
            "nodes": compress(self.names),
            "groups": [{**asdict(group), "mask": hex(group.mask)} for group in self.groups],
            "partitions": [{**asdict(part), "mask": hex(part.mask)} for part in self.partitions.values()],
            "sharing": None if self.sharing is None else asdict(self.sharing),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Machine:
        """Return the machine of :meth:`as_dict`."""
        groups = (
            NodeGroupShape(
                **{
                    **group,
                    "mask": int(group["mask"], 16),
                    "features": tuple(group["features"]),
                    "other_gres": tuple((name, count) for name, count in group.get("other_gres", ())),
                }
            )
            for group in data["groups"]
        )
        partitions = (
            PartitionShape(
                **{
                    **part,
                    "mask": int(part["mask"], 16),
                    "qos": tuple(part["qos"]),
                    "accounts": tuple(part.get("accounts", ())),
                }
            )
            for part in data["partitions"]
        )
        sharing = Sharing(**data["sharing"]) if data.get("sharing") else None
        return cls(tuple(expand(data["nodes"])), tuple(groups), {part.name: part for part in partitions}, sharing)

    @classmethod
    def from_site(cls, site: Site) -> Machine:
        """Return the machine that a site file describes; time limits are rounded down to the second."""
        names: list[str] = []
        masks: dict[str, int] = {}
        groups = []
        for group_name, group in site.node_groups.items():
            hosts = group.hostnames()
            masks[group_name] = ((1 << len(hosts)) - 1) << len(names)
            names.extend(hosts)
            groups.append(_group_shape(group, masks[group_name]))
        partitions = {}
        default = site.default_partition()
        for name, part in site.partitions.items():
            mask = 0
            for group_name in part.nodes:
                mask |= masks[group_name]
            partitions[name] = PartitionShape(
                name=name,
                mask=mask,
                default=name == default,
                max_time_s=None if part.max_time_s is None else int(part.max_time_s),
                default_time_s=None if part.default_time_s is None else int(part.default_time_s),
                max_nodes=part.max_nodes,
                min_nodes=part.min_nodes,
                qos=part.qos,
                up=part.state in {"up", "drain"},
                priority_tier=part.priority_tier,
                exclusive=part.exclusive,
                default_memory_per_cpu_bytes=part.default_memory_per_cpu_bytes,
                default_memory_per_node_bytes=part.default_memory_per_node_bytes,
                limits_qos=part.partition_qos,
                accounts=part.accounts,
                preempt_mode=part.preempt_mode,
                grace_time_s=int(part.grace_time_s or 0),
            )
        shared = any(not part.exclusive for part in site.partitions.values())
        memory = any(
            part.default_memory_per_cpu_bytes or part.default_memory_per_node_bytes for part in site.partitions.values()
        )
        cpus_per_gpu = {part.default_cpus_per_gpu for part in site.partitions.values()} - {None}
        sharing = Sharing(memory=memory, default_cpus_per_gpu=min(cpus_per_gpu, default=None)) if shared else None  # type: ignore[type-var]
        return cls(tuple(names), tuple(groups), partitions, sharing)

    @classmethod
    def of_processors(cls, count: int, partition: str = "batch") -> Machine:
        """Return a machine of ``count`` equal one-processor nodes in one partition without limits, as traces have."""
        mask = (1 << count) - 1
        group = NodeGroupShape(mask=mask, cpus=1, memory_bytes=1)
        names = tuple(f"p{number}" for number in range(1, count + 1))
        return cls(names, (group,), {partition: PartitionShape(partition, mask, default=True)})


class _Numbering:
    """Node names as stems and numbers, so that a hostlist is written run by run and not name by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._stems: list[str] = []
        self._numbers: list[str] = []
        self._follows = 0  # the nodes whose name is the one before with the next number
        for position, name in enumerate(names):
            stem = name.rstrip("0123456789")
            number = name[len(stem) :]
            if len(number) > 18:  # as hostlists have it, no number but part of the name
                stem, number = name, ""
            if number and position and self._stems[-1] == stem and self._numbers[-1]:
                before = self._numbers[-1]
                if number == f"{int(before) + 1:0{len(before)}d}":
                    self._follows |= 1 << position
            self._stems.append(stem)
            self._numbers.append(number)

    def hostlist(self, mask: int) -> str:
        """Return what :func:`hpcplan.hostlist.compress` makes of the names of these nodes."""
        firsts = mask & ~((mask << 1) & self._follows)
        lasts = mask & ~((mask & self._follows) >> 1)
        groups: list[tuple[str, list[str]]] = []
        while firsts:
            low, high = firsts & -firsts, lasts & -lasts
            firsts ^= low
            lasts ^= high
            first, last = low.bit_length() - 1, high.bit_length() - 1
            stem, number = self._stems[first], self._numbers[first]
            text = number if first == last else f"{number}-{self._numbers[last]}"
            if number and groups and groups[-1][0] == stem and groups[-1][1]:
                groups[-1][1].append(text)
            else:
                groups.append((stem, [text] if number else []))
        return ",".join(_bracketed(stem, ranges) for stem, ranges in groups)


def _bracketed(stem: str, ranges: Sequence[str]) -> str:
    if len(ranges) == 1 and "-" not in ranges[0]:
        return stem + ranges[0]
    return f"{stem}[{','.join(ranges)}]" if ranges else stem


def _group_shape(group: NodeGroup, mask: int) -> NodeGroupShape:
    accelerators = group.accelerators
    return NodeGroupShape(
        mask=mask,
        cpus=group.cpus,
        memory_bytes=group.memory_bytes,
        gpus=accelerators.count if accelerators else 0,
        gpu_type=accelerators.gres if accelerators else None,
        features=group.features,
        weight=group.weight,
    )
