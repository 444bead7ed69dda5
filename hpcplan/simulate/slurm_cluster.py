"""A machine and its scheduling from slurm.conf and topology.conf, for simulations (slurm.conf(5), topology.conf(5))."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcplan.errors import InputError, Problem
from hpcplan.hostlist import expand
from hpcplan.simulate.account_policy import AccountPolicy, Limits, QosPolicy
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape, Sharing
from hpcplan.simulate.placement import SwitchShape
from hpcplan.simulate.reservations import Reservation
from hpcplan.simulate.slurm_settings import SlurmSettings, consumes_cpus, gres_count, scheduling
from hpcplan.simulate.topology_files import blocks_of, read_switches
from hpcplan.site.importers.slurm_lines import ConfLine, Reader
from hpcplan.units import parse_slurm_time

if TYPE_CHECKING:
    from hpcplan.simulate.moments import Moments
    from hpcplan.site.model import Site

__all__ = ["SlurmCluster", "cluster_of_site", "read_slurm_cluster"]

_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class SlurmCluster:
    """The nodes and partitions of a slurm.conf, the switches over them, and how its slurmctld schedules.

    With ``block_sizes``, the lowest switches are the blocks of topology/block.
    """

    machine: Machine
    settings: SlurmSettings
    switches: tuple[SwitchShape, ...] = ()
    policy: AccountPolicy = field(default_factory=AccountPolicy)
    reservations: tuple[Reservation, ...] = ()
    block_sizes: tuple[int, ...] = ()
    moments: Moments | None = None  # of a recording that is compared with

    def as_dict(self) -> dict[str, Any]:
        """Return all but the machine and the reservations as plain data for JSON; :meth:`from_dict` is its inverse."""
        settings = {
            key: sorted(value) if isinstance(value, frozenset) else value
            for key, value in asdict(self.settings).items()
        }
        return {
            "settings": settings,
            "switches": [[one.name, hex(one.mask), one.level] for one in self.switches],
            "policy": self.policy.as_dict(),
            "block_sizes": list(self.block_sizes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], machine: Machine) -> SlurmCluster:
        """Return the cluster of :meth:`as_dict`."""
        settings = dict(data["settings"])
        settings["priority_flags"] = frozenset(settings["priority_flags"])
        for key in ("priority_weight_tres", "licenses"):
            settings[key] = tuple((name, count) for name, count in settings[key])
        switches = tuple(SwitchShape(name, int(mask, 16), level) for name, mask, level in data["switches"])
        policy, sizes = AccountPolicy.from_dict(data["policy"]), tuple(data.get("block_sizes", ()))
        return cls(machine, SlurmSettings(**settings), switches, policy, block_sizes=sizes)


def read_slurm_cluster(path: Path, topology: Path | None = None) -> SlurmCluster:
    """Read a slurm.conf, with the topology.conf or topology.yaml given, or the one beside it where ``TopologyPlugin``
    asks for a tree or for blocks.

    Raises:
        InputError: a file that cannot be read, or in which slurmctld would not find a cluster; with file, line and key.
    """
    reader = Reader()
    lines = list(reader.read(path))
    if reader.problems:
        raise InputError(reader.problems)
    values = {key: value for line in lines if not _defines(line) for key, value in line.pairs.items()}
    try:
        settings = scheduling(values)
    except ValueError as error:
        raise InputError(Problem(str(error), file=str(path))) from None
    machine = _machine(lines, path, _sharing(values))
    if topology is None and values.get("topologyplugin", "").lower() in {"topology/tree", "topology/block"}:
        named = [path.name.replace("slurm.conf", name) for name in ("topology.yaml", "topology.conf")]
        beside = [path.with_name(name) for name in (*named, "topology.yaml", "topology.conf") if name != path.name]
        topology = next((file for file in beside if file.is_file()), path.with_name("topology.conf"))
    if topology is None:
        return SlurmCluster(machine, settings)
    switches, sizes = read_switches(topology, machine)
    if sizes and values.get("selecttype", "").lower() == "select/linear":  # it takes no notice of them: tried on 25.11
        return SlurmCluster(machine, settings)
    return SlurmCluster(machine, settings, switches, block_sizes=sizes)


def cluster_of_site(site: Site) -> SlurmCluster:
    """Return the cluster of a site file, scheduled as it says; leaf switches, or blocks, are those of its fabric."""
    machine = Machine.from_site(site)
    switches: list[SwitchShape] = []
    sizes: tuple[int, ...] = ()
    if site.fabric.kind == "blocks":
        switches, sizes = blocks_of(site, machine)
    elif site.fabric.switches:
        leaves: dict[int, str] = {}  # the rails of one leaf have the same nodes
        for switch in site.fabric.switches:
            leaves.setdefault(machine.mask_of(expand(switch.nodes)) if switch.nodes else 0, switch.name)
        switches = [SwitchShape(name, mask, 0) for mask, name in leaves.items() if mask]
        if len(switches) > 1:
            switches.append(SwitchShape("all", machine.all_nodes, 1))
    return SlurmCluster(machine, _site_settings(site), tuple(switches), _site_policy(site), block_sizes=sizes)


def _site_settings(site: Site) -> SlurmSettings:
    """Return the scheduling that the site file gives, else Slurm's defaults."""
    policy = site.scheduler
    parameters = ",".join(f"{name}={value}" if value else name for name, value in policy.parameters.items())
    shared = any(not part.exclusive for part in site.partitions.values())
    weights = {f"priorityweight{name.replace('_', '')}": str(weight) for name, weight in policy.weights.items()}
    values = {
        "schedulertype": f"sched/{policy.scheduler}",
        "schedulerparameters": parameters,
        "prioritytype": f"priority/{policy.priority if policy.weights else 'basic'}",
        "selecttype": "select/cons_tres" if shared else "select/linear",
        "accountingstoragetype": "accounting_storage/slurmdbd",
        "preempttype": f"preempt/{policy.preempt_type}",
        "preemptmode": policy.preempt_mode,
        **weights,
    }
    return scheduling(values)


def _site_policy(site: Site) -> AccountPolicy:
    """Return the QOS of the site file."""
    found = {}
    for name, qos in site.qos.items():
        limits = Limits(
            job_wall_s=None if qos.max_time_s is None else int(qos.max_time_s),
            job_tres={} if qos.max_nodes is None else {"node": qos.max_nodes},
            user_tres={} if qos.max_gpus_per_user is None else {"gres/gpu": qos.max_gpus_per_user},
            user_jobs=qos.max_jobs_per_user,
        )
        found[name] = QosPolicy(name, qos.priority, limits, tuple(qos.preempts))
    return AccountPolicy(found)


def _defines(line: ConfLine) -> bool:
    return line.first in {"nodename", "partitionname", "downnodes", "nodeset", "frontendname"}


def _sharing(values: Mapping[str, str]) -> Sharing:
    """Return how jobs share nodes. Of 22.05's defaults: select/linear, and with select/cons_tres ``CR_Core_Memory``."""

    def mib(key: str) -> int | None:
        value = values.get(key, "")
        return int(value) * _MIB if value.isdecimal() and int(value) else None

    by = values.get("selecttypeparameters", "").upper()
    by = by if any(word in by for word in ("CPU", "CORE", "SOCKET", "MEMORY")) else "CR_CORE_MEMORY"
    per_gpu = values.get("jobdefaults", "").lower().partition("defcpupergpu=")[2].partition(",")[0]
    return Sharing(
        cpus=consumes_cpus(values),
        memory="MEMORY" in by and consumes_cpus(values),
        default_memory_per_cpu_bytes=mib("defmempercpu"),
        default_memory_per_node_bytes=mib("defmempernode"),
        max_memory_per_cpu_bytes=mib("maxmempercpu"),
        default_cpus_per_gpu=int(per_gpu) if per_gpu.isdecimal() else None,
        sockets="SOCKET" in by and consumes_cpus(values),
        least_loaded="CR_LLN" in values.get("selecttypeparameters", "").upper(),
    )


def _machine(lines: list[ConfLine], path: Path, sharing: Sharing) -> Machine:
    names: list[str] = []
    groups: list[NodeGroupShape] = []
    defaults: dict[str, dict[str, str]] = {"nodename": {}, "partitionname": {}}
    partitions: list[tuple[ConfLine, dict[str, str]]] = []
    for line in lines:
        kind = line.first
        if kind not in defaults:
            continue
        if line.pairs[kind].upper() == "DEFAULT":
            defaults[kind].update({key: value for key, value in line.pairs.items() if key != kind})
        elif kind == "nodename":
            hosts = _hosts(line, kind)
            groups.append(_group(line, defaults[kind] | line.pairs, ((1 << len(hosts)) - 1) << len(names)))
            names.extend(hosts)
        else:
            partitions.append((line, defaults[kind] | line.pairs))
    if not names or not partitions:
        what = "nodes (NodeName=…)" if not names else "partitions (PartitionName=…)"
        raise InputError(Problem(f"names no {what}", file=str(path)))
    shapes = {}
    index = {name: 1 << position for position, name in enumerate(names)}
    for line, pairs in partitions:
        shapes[pairs["partitionname"]] = _partition(line, pairs, index)
    return Machine(tuple(names), tuple(groups), shapes, sharing)


def _hosts(line: ConfLine, key: str) -> list[str]:
    try:
        return expand(line.pairs[key])
    except ValueError as error:
        raise line.error(key, str(error)) from None


def _group(line: ConfLine, pairs: dict[str, str], mask: int) -> NodeGroupShape:
    def number(key: str, default: int) -> int:
        value = pairs.get(key, "")
        if value and not value.isdecimal():
            raise line.error(key, f"{value!r} is not a whole number")
        return int(value) if value else default

    sockets = number("sockets", 0) or number("boards", 1) * number("socketsperboard", 1)
    cpus = number("cpus", number("procs", 0)) or sockets * number("corespersocket", 1) * number("threadspercore", 1)
    cores = sockets * number("corespersocket", 1) or number("boards", 1) * number("corespersocket", 1)
    gpus, gpu_type = _gpus(pairs.get("gres", ""))
    features = pairs.get("features", pairs.get("feature", ""))
    return NodeGroupShape(
        mask=mask,
        cpus=cpus,
        memory_bytes=number("realmemory", 1) * _MIB,
        gpus=gpus,
        gpu_type=gpu_type,
        features=tuple(feature for feature in features.split(",") if feature),
        weight=number("weight", 1),
        threads_per_core=number("threadspercore", 1) if sockets and cpus > cores else 1,
        cpus_per_socket=max(1, cpus // (sockets or number("boards", 1))),
        other_gres=_other_gres(pairs.get("gres", "")),
    )


def _gpus(gres: str) -> tuple[int, str | None]:
    """Return how many GPUs ``gpu:h100:8,nvme:1`` has, and of which type."""
    count, kind = 0, None
    for word in gres.split(","):
        parts = word.partition("(")[0].split(":")
        if parts[0] == "gpu":
            middle = [part for part in parts[1:] if not part.isdecimal()]
            kind = middle[0] if middle else kind
            count += int(parts[-1]) if parts[-1].isdecimal() else 1
    return count, kind


def _other_gres(gres: str) -> tuple[tuple[str, int], ...]:
    """Return name and count of whatever is no GPU; of several types of one name the sum."""
    found: Counter[str] = Counter()
    for word in gres.split(","):
        parts = word.partition("(")[0].split(":")
        if parts[0] and parts[0] != "gpu":
            found[parts[0]] += gres_count(parts[-1]) if len(parts) > 1 else 1
    return tuple(sorted(found.items()))


def _partition(line: ConfLine, pairs: dict[str, str], index: dict[str, int]) -> PartitionShape:
    def limit(key: str) -> int | None:
        try:
            return parse_slurm_time(pairs.get(key, ""))
        except ValueError as error:
            raise line.error(key, str(error)) from None

    def number(key: str) -> int | None:
        value = pairs.get(key, "")
        return int(value) if value.isdecimal() else None

    share, _, times = (pairs.get("oversubscribe") or pairs.get("shared") or "no").partition(":")
    force = share.lower() == "force"
    nodes = pairs.get("nodes", "")
    hosts = list(index) if nodes.upper() == "ALL" else _hosts(line, "nodes") if nodes else []
    mask = 0
    for host in hosts:
        if host not in index:
            raise line.error("nodes", f"no NodeName line names {host!r}")
        mask |= index[host]
    return PartitionShape(
        name=pairs["partitionname"],
        mask=mask,
        default=pairs.get("default", "no").lower() == "yes",
        max_time_s=limit("maxtime"),
        default_time_s=limit("defaulttime"),
        max_nodes=number("maxnodes"),
        up=pairs.get("state", "up").upper() in {"UP", "DRAIN"},
        priority_tier=number("prioritytier") or number("priority") or 1,
        priority_job_factor=number("priorityjobfactor") or number("priority") or 1,
        min_nodes=number("minnodes"),
        exclusive=share.lower() == "exclusive",
        jobs_per_resource=(int(times) if times.isdecimal() else 4) if force else 1,
        max_cpus_per_node=number("maxcpuspernode"),
        default_memory_per_cpu_bytes=_MIB * (number("defmempercpu") or 0) or None,
        default_memory_per_node_bytes=_MIB * (number("defmempernode") or 0) or None,
        limits_qos=pairs.get("qos"),
        qos=_words(pairs.get("allowqos", "all")),
        accounts=_words(pairs.get("allowaccounts", "all")),
        preempt_mode=pairs.get("preemptmode", "").lower() or None,
        grace_time_s=number("gracetime") or 0,
        least_loaded=pairs.get("lln", "no").lower() == "yes",
    )


def _words(value: str) -> tuple[str, ...]:
    return () if value.lower() == "all" else tuple(word for word in value.split(",") if word)
