"""What a submission comes to on a machine: the door at which the controller refuses, in its own words.

Whole nodes are given out, as with ``OverSubscribe=EXCLUSIVE`` (slurm.conf(5)), but where the machine and the partition
let jobs share them. The texts are those of Slurm 22.05; a limit of the partition lets a job in and keeps it pending, as
with ``EnforcePartLimits=NO``.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from hpcplan.errors import SlurmError, nearest
from hpcplan.hostlist import expand
from hpcplan.simulate.jobs import UNLIMITED_S, JobSpec, Request
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.several_partitions import joined

__all__ = ["Admission", "refusal", "resolve"]

_ASKED: Final = attrgetter(
    "partition", "qos", "nodes_min", "nodes_max", "ntasks", "ntasks_per_node", "cpus_per_task", "time_limit_s", "gpus",
    "gpus_per_node", "gpus_per_task", "gpu_type", "memory_per_node_bytes", "memory_per_cpu_bytes",
    "memory_per_gpu_bytes", "switches", "segment", "consolidate_segments", "spread_segments", "exclusive_topo",
    "exclude", "nodelist", "constraint", "exclusive", "account",
    "other_gres",
)  # fmt: skip
_REMEMBERED: Final = 4096  # requests; a trace of a million jobs has a few hundred kinds
_UNAVAILABLE: Final = "Requested node configuration is not available"


def refusal(reason: str, *before: str, hint: str | None = None) -> SlurmError:
    """Return the error with which sbatch would report that the controller refused."""
    lines = [f"sbatch: error: {line}" for line in before]
    return SlurmError("\n".join([*lines, f"sbatch: error: Batch job submission failed: {reason}"]), hint=hint)


class Admission:
    """The door of one machine, which remembers what it was asked last: most jobs are like others."""

    def __init__(self, machine: Machine, *, whole_nodes: bool = True) -> None:
        self._machine = machine
        self._whole_nodes = whole_nodes
        self._known: dict[object, Request] = {}

    def resolve(self, spec: JobSpec, *, anew: bool = False) -> Request:
        """Return what ``spec`` asks of the machine; ``anew``, if its job has been taken before.

        Raises:
            SlurmError: the controller would refuse it.
        """
        if not anew:
            self._refuse_closed(spec)
        asked = _ASKED(spec)
        found = self._known.get(asked)
        if found is None:
            found = resolve(spec, self._machine, whole_nodes=self._whole_nodes)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[asked] = found
        return found

    def _refuse_closed(self, spec: JobSpec) -> None:
        """Refuse a new job of partitions that take none."""
        parts = self._machine.partitions
        names = (spec.partition or self._machine.default_partition()).split(",")
        if all(name in parts and not parts[name].accepts for name in names):
            raise refusal("Required partition not available (inactive or drain)")


def resolve(spec: JobSpec, machine: Machine, *, whole_nodes: bool = True) -> Request:
    """Return what ``spec`` asks of ``machine``; without ``whole_nodes``, jobs may share nodes as the machine has it.

    Raises:
        SlurmError: the controller would refuse it.
    """
    _refuse_gpus(spec)
    if "," in (spec.partition or ""):
        return _of_several(spec, machine, whole_nodes=whole_nodes)
    partition = _partition(spec, machine)
    eligible, required = _named_nodes(spec, machine, partition)
    groups = [group for group in machine.groups if group.mask & eligible]
    fitting = _fitting(spec, groups)
    for group in groups:
        if group not in fitting:
            eligible &= ~group.mask
    minimum, maximum = _node_count(spec, fitting, required)
    limit_s = _limit(spec, partition)
    reason = _limit_reason(partition, minimum, maximum, limit_s)
    if reason is None and (eligible.bit_count() < minimum or required & ~eligible):
        raise refusal(_UNAVAILABLE, hint=_what_there_is(partition, machine))
    if partition.max_nodes is not None:
        maximum = max(minimum, min(maximum, partition.max_nodes))
    share = _share(spec, machine, partition, minimum) if not whole_nodes else {}
    if share.get("spread"):
        maximum = max(maximum, partition.max_nodes or eligible.bit_count())
    return Request(
        partition=partition.name,
        minimum=minimum,
        maximum=max(minimum, min(maximum, eligible.bit_count())),
        limit_s=limit_s,
        eligible=eligible,
        required=required,
        cpus=share.pop("cpus", _cpus(spec, minimum)),
        gpus=_gpus(spec, minimum),
        memory_per_node_bytes=_memory(spec),
        limit_reason=reason,
        switches=int(spec.switches.partition("@")[0]) if spec.switches else 0,
        segment=spec.segment or 0,
        together=spec.consolidate_segments,
        apart=spec.spread_segments,
        alone=spec.exclusive_topo,
        **share,
    )


def _refuse_gpus(spec: JobSpec) -> None:
    """Refuse what is asked for by the GPU, or of GPUs by the task, without saying how many of these there are."""
    why = None
    if spec.gpus_per_task and not (spec.gpus or spec.ntasks or spec.ntasks_per_node):
        why = "Failed to validate job spec. --gpus-per-task used without either --gpus or -n/--ntasks is not allowed."
    elif spec.memory_per_gpu_bytes and not (spec.gpus or spec.gpus_per_node or spec.gpus_per_task):
        mib = spec.memory_per_gpu_bytes // 1024**2
        why = f"Requested mem_per_tres=gres:gpu:{mib} but did not request any GPU."
    if why is not None:
        raise SlurmError(f"sbatch: error: {why}\nsbatch: error: Invalid generic resource (gres) specification")


def _of_several(spec: JobSpec, machine: Machine, *, whole_nodes: bool) -> Request:
    """Return what a job asks of each partition that it names; those that cannot hold it are passed over.

    Raises:
        SlurmError: one is not there, or none can hold it.
    """
    names = list(dict.fromkeys(word for word in (spec.partition or "").split(",") if word))
    for name in names:
        _partition(replace(spec, partition=name, account=None, qos=None), machine)
    requests: list[Request] = []
    refused: SlurmError | None = None
    for name in names:
        try:
            requests.append(resolve(replace(spec, partition=name), machine, whole_nodes=whole_nodes))
        except SlurmError as error:
            refused = refused or error
    if not requests:
        raise refused or refusal("Invalid partition name specified", f"invalid partition specified: {spec.partition}")
    return joined(requests, lambda name: machine.partitions[name].priority_tier)


def _share(spec: JobSpec, machine: Machine, partition: PartitionShape, nodes: int) -> dict[str, Any]:
    """Return what a job asks of each node that it shares, as fields of its request; none, if it gets whole nodes."""
    sharing = machine.sharing
    if sharing is None or not machine.shares_nodes:
        return {}
    over: dict[str, Any] = {"jobs_per_resource": 1 if spec.exclusive else partition.jobs_per_resource}
    if sharing.least_loaded or partition.least_loaded:
        over["least_loaded"] = True
    if partition.exclusive or spec.exclusive or not sharing.cpus:
        return over if not partition.exclusive else {}
    tasks_a_node = spec.ntasks_per_node
    if spec.gpus_per_task and spec.ntasks and not tasks_a_node:
        tasks_a_node = -(-spec.ntasks // nodes)
    node_gpus = max(spec.gpus_per_node or 0, (spec.gpus_per_task or 0) * (tasks_a_node or 1))
    if spec.gpus and not node_gpus:
        node_gpus = -(-spec.gpus // nodes)
    cpus = spec.cpus_per_task * (tasks_a_node or 1)
    if spec.cpus_per_task == 1 and node_gpus and sharing.default_cpus_per_gpu:
        cpus = max(cpus, node_gpus * sharing.default_cpus_per_gpu)
    memory: int | None = 0
    by_cpu = 0
    if sharing.memory:
        per_cpu = partition.default_memory_per_cpu_bytes or sharing.default_memory_per_cpu_bytes
        asked = _memory(spec)
        if spec.memory_per_node_bytes == 0:
            memory = None
        elif spec.memory_per_cpu_bytes:
            memory = by_cpu = spec.memory_per_cpu_bytes
        elif asked is not None:
            memory = asked
        elif per_cpu:
            memory = by_cpu = per_cpu
        else:
            memory = partition.default_memory_per_node_bytes or sharing.default_memory_per_node_bytes
        if by_cpu:
            memory = by_cpu * cpus
        if memory and sharing.max_memory_per_cpu_bytes:
            cpus = max(cpus, -(-memory // sharing.max_memory_per_cpu_bytes))
    tasks = (spec.ntasks or 0) * spec.cpus_per_task
    spread = spec.nodes_min is None and tasks_a_node is None and tasks > cpus * nodes
    return {
        "node_cpus": cpus,
        "node_gpus": node_gpus,
        "node_gres": spec.other_gres,
        "node_memory_bytes": memory,
        "memory_per_cpu_bytes": by_cpu,
        "cpus": max(cpus * nodes, tasks),
        "spread": spread,
        **over,
    }


def _partition(spec: JobSpec, machine: Machine) -> PartitionShape:
    name = spec.partition or machine.default_partition()
    if name not in machine.partitions:
        close = nearest(name, machine.partitions)
        hint = close.removeprefix("; ") if close else None
        raise refusal("Invalid partition name specified", f"invalid partition specified: {name}", hint=hint)
    partition = machine.partitions[name]
    if spec.account is not None and partition.accounts and spec.account not in partition.accounts:
        allowed = f"{name} allows {', '.join(partition.accounts)}"
        raise refusal("Invalid account or account/partition combination specified", hint=allowed)
    if spec.qos is not None and partition.qos and spec.qos not in partition.qos:
        raise refusal("Invalid qos specification", hint=f"{name} allows {', '.join(partition.qos)}")
    return partition


def _named_nodes(spec: JobSpec, machine: Machine, partition: PartitionShape) -> tuple[int, int]:
    """Return the masks of the nodes that may serve and of those that must, by name and by feature."""
    try:
        required = machine.mask_of(expand(spec.nodelist)) if spec.nodelist else 0
        excluded = machine.mask_of(expand(spec.exclude)) if spec.exclude else 0
    except (KeyError, ValueError) as error:
        raise refusal("Invalid node name specified", hint=str(error).strip("'\"")) from None
    eligible = partition.mask & ~excluded
    if spec.constraint:
        eligible &= _with_features(spec.constraint, machine)
    return eligible, required


def _with_features(constraint: str, machine: Machine) -> int:
    """Return the nodes with these features: ``a&b`` (also ``a,b``) or ``a|b`` (sbatch(1), --constraint)."""
    known = {feature for group in machine.groups for feature in group.features}
    alternatives = [option.replace(",", "&").split("&") for option in constraint.strip("()").split("|")]
    mask = 0
    for wanted in alternatives:
        if unknown := [feature for feature in wanted if feature not in known]:
            raise refusal("Invalid feature specification", hint=f"{unknown[0]!r}{nearest(unknown[0], known)}")
        for group in machine.groups:
            if all(feature in group.features for feature in wanted):
                mask |= group.mask
    return mask


def _fitting(spec: JobSpec, groups: list[NodeGroupShape]) -> list[NodeGroupShape]:
    """Return the node groups of which one node has what the job wants on each node."""
    cpus = spec.cpus_per_task * (spec.ntasks_per_node or 1)
    with_cpus = [group for group in groups if group.cpus >= cpus]
    if groups and not with_cpus:
        raise refusal(_UNAVAILABLE, "CPU count per node can not be satisfied")
    memory = _memory(spec)
    with_memory = [group for group in with_cpus if memory is None or group.memory_bytes >= memory]
    if groups and not with_memory:
        raise refusal(_UNAVAILABLE, "Memory specification can not be satisfied")
    wants_gpus = any((spec.gpus, spec.gpus_per_node, spec.gpus_per_task))
    per_node = max(spec.gpus_per_node or 0, spec.gpus_per_task or 0, 1 if wants_gpus else 0)
    fitting = [
        group
        for group in with_memory
        if group.gpus >= per_node and (not wants_gpus or spec.gpu_type in (None, group.gpu_type))
    ]
    for name, count in spec.other_gres:
        if not any(name == other for group in groups for other, _ in group.other_gres):
            raise refusal("Invalid generic resource (gres) specification", hint=f"no node has {name!r}")
        fitting = [group for group in fitting if dict(group.other_gres).get(name, 0) >= count]
    if groups and not fitting:
        offered = sorted({group.gres or "no GPUs" for group in groups})
        raise refusal(_UNAVAILABLE, hint=f"these nodes have {', '.join(offered)}")
    return fitting


def _memory(spec: JobSpec) -> int | None:
    """Return the bytes that one node must have, ``None`` where the job asks for whatever a node has."""
    if spec.memory_per_cpu_bytes:
        return spec.memory_per_cpu_bytes * spec.cpus_per_task * (spec.ntasks_per_node or 1)
    if spec.memory_per_gpu_bytes:
        return spec.memory_per_gpu_bytes * (spec.gpus_per_node or 1)
    return spec.memory_per_node_bytes or None  # --mem=0 asks for all that a node has


def _node_count(spec: JobSpec, groups: list[NodeGroupShape], required: int) -> tuple[int, int]:
    """Return the fewest and the most nodes that the job takes."""
    if spec.nodes_min is not None and spec.nodes_min < 1:
        raise refusal("Node count specification invalid")
    needed = max(_nodes_for_tasks(spec, groups), _nodes_for_gpus(spec, groups), required.bit_count(), 1)
    if spec.gpus and spec.gpus_per_node:
        needed = max(needed, -(-spec.gpus // spec.gpus_per_node))
    if spec.nodes_min is None:
        return needed, needed
    minimum, maximum = spec.nodes_min, spec.nodes_max or spec.nodes_min
    if spec.ntasks is not None and spec.ntasks < minimum:
        minimum = maximum = spec.ntasks  # sbatch warns: can't run 1 processes on 2 nodes, setting nnodes to 1
    if needed > maximum:
        raise refusal(_UNAVAILABLE, hint=f"its tasks and GPUs need {needed} nodes")
    return max(minimum, needed), maximum


def _nodes_for_tasks(spec: JobSpec, groups: list[NodeGroupShape]) -> int:
    if spec.ntasks is None or not groups:
        return 1
    fit = min(group.cpus for group in groups) // spec.cpus_per_task
    per_node = max(1, min(fit, spec.ntasks_per_node or fit))
    return -(-spec.ntasks // per_node)


def _nodes_for_gpus(spec: JobSpec, groups: list[NodeGroupShape]) -> int:
    total = spec.gpus or (spec.gpus_per_task or 0) * (spec.ntasks or 1)
    per_node = min((group.gpus for group in groups), default=0)
    return -(-total // per_node) if total and per_node else 1


def _limit(spec: JobSpec, partition: PartitionShape) -> int:
    """Return the time limit in seconds: what was asked for, else the partition's default, else its maximum."""
    if spec.time_limit_s is not None:
        return spec.time_limit_s or UNLIMITED_S
    return partition.default_time_s or partition.max_time_s or UNLIMITED_S


def _limit_reason(partition: PartitionShape, minimum: int, maximum: int, limit_s: int) -> str | None:
    """Return Slurm's word for the partition limit that the job breaks."""
    most = min(partition.mask.bit_count(), partition.max_nodes or partition.mask.bit_count())
    if minimum > most or maximum < (partition.min_nodes or 0):
        return "PartitionNodeLimit"
    if partition.max_time_s is not None and limit_s > partition.max_time_s:
        return "PartitionTimeLimit"
    return None


def _cpus(spec: JobSpec, nodes: int) -> int:
    tasks = spec.ntasks or nodes * (spec.ntasks_per_node or 1)
    return max(nodes, tasks * spec.cpus_per_task)


def _gpus(spec: JobSpec, nodes: int) -> int:
    if spec.gpus is not None:
        return spec.gpus
    if spec.gpus_per_node is not None:
        return spec.gpus_per_node * nodes
    return (spec.gpus_per_task or 0) * (spec.ntasks or nodes * (spec.ntasks_per_node or 1))


def _what_there_is(partition: PartitionShape, machine: Machine) -> str:
    groups = [group for group in machine.groups if group.mask & partition.mask]
    kinds = ", ".join(
        f"{(group.mask & partition.mask).bit_count()} nodes with {group.cpus} CPUs and {group.gres or 'no GPUs'}"
        for group in groups
    )
    return f"{partition.name} has {kinds}"
