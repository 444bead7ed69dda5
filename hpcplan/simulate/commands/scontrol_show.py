"""``scontrol show``: everything but the jobs."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Iterator
from functools import partial
from typing import Final

from hpcplan.hostlist import compress, expand
from hpcplan.simulate.cluster_records import node_records
from hpcplan.simulate.commands.controller import Controller
from hpcplan.simulate.commands.formatting import Clock, at_least, elapsed, limit, release
from hpcplan.simulate.commands.reply import Call, Refusal
from hpcplan.simulate.job_records import Share, node_shares
from hpcplan.simulate.machine import Machine, NodeGroupShape, PartitionShape
from hpcplan.simulate.store import Session
from hpcplan.slurm.records import NodeRecord

__all__ = [
    "config_lines", "gpus_used", "hostlist_words", "hostname_words", "memory_used", "node_block", "nodes_named",
    "partition_block", "state_word", "topology_lines",
]  # fmt: skip

_MIB: Final = 1024**2
_HERE: Final = "127.0.0.1"  # all nodes are this machine; scripts whose ranks have to meet look here


def node_block(
    session: Session, node: NodeRecord, group: NodeGroupShape, clock: Clock, *, detail: bool = False
) -> list[str]:
    """Return the lines of one node."""
    cpus, allocated = node.cpus or 0, node.cpus_allocated or 0
    memory = (node.memory_bytes or 0) // _MIB
    features = ",".join(node.features) or "(null)"
    gres = f",gres/gpu={node.gpus}" if node.gpus else ""
    used = f"cpu={allocated}" + (f",gres/gpu={gpus_used(session, node.name)}" if allocated and node.gpus else "")
    in_use = re.sub(r":\d+$", f":{gpus_used(session, node.name) if allocated else 0}", node.gres or "")
    began = clock.moment(session.started)
    since = partial(at_least, session.settings.slurm_version)
    used_memory = memory_used(session, node.name) // _MIB
    lines = [
        f"NodeName={node.name} Arch={platform.machine()} CoresPerSocket=1 ",
        f"CPUAlloc={allocated} CPUEfctv={cpus} CPUTot={cpus} CPULoad=0.00",
        f"AvailableFeatures={features}",
        f"ActiveFeatures={features}",
        f"Gres={node.gres or '(null)'}",
        *(["GresDrain=N/A", f"GresUsed={in_use or 'gpu:0'}"] if detail else []),
        f"NodeAddr={_HERE} NodeHostName={node.name} Version={release(session.settings.slurm_version)}",
        f"OS={platform.system()} {platform.release()} {platform.version()} ",
        f"RealMemory={memory} AllocMem={used_memory} FreeMem={memory - used_memory} Sockets={cpus} Boards=1",
        f"State={state_word(node)} ThreadsPerCore=1 TmpDisk=0 Weight={group.weight} Owner=N/A MCS_label=N/A",
        f"Partitions={','.join(node.partitions)} ",
        f"BootTime={began} SlurmdStartTime={began}",
        f"LastBusyTime={clock.moment(session.engine.now)}" + (" ResumeAfterTime=None" if since("23.02") else ""),
        f"CfgTRES=cpu={cpus},mem={memory}M,billing={cpus}{gres}",
        f"AllocTRES={used if allocated else ''}",
        *([] if since("24.05") else ["CapWatts=n/a"]),
        "CurrentWatts=0 AveWatts=0",
        *([] if since("24.05") else ["ExtSensorsJoules=n/s ExtSensorsWatts=0 ExtSensorsTemp=n/s"]),
    ]
    if node.reason:
        lines.append(f"Reason={node.reason} [root@{began}]")
    return lines


def state_word(node: NodeRecord) -> str:
    """Return ``IDLE+DRAIN`` and the like."""
    used = node.cpus_allocated or 0
    held = "IDLE" if not used else "ALLOCATED" if used == node.cpus else "MIXED"
    base = held if node.state in {"drained", "draining", "completing"} else node.state.upper()
    return "+".join([base, *(flag for flag in node.flags if flag != base)])


def gpus_used(session: Session, name: str) -> int:
    """Return how many GPUs of a node jobs hold."""
    return sum(share.gpus for share in _shares(session, name))


def memory_used(session: Session, name: str) -> int:
    """Return how many bytes of a node's memory jobs asked for."""
    bit = session.machine.mask_of([name])
    whole = [job for job in session.engine.running.values() if job.held_nodes & bit and job.request.whole]
    asked = sum(job.request.memory_per_node_bytes or 0 for job in whole)
    return asked + sum(share.memory_bytes for share in _shares(session, name, shared=True))


def _shares(session: Session, name: str, *, shared: bool = False) -> Iterator[Share]:
    """Yield what each running job has of a node, or only each that shares it."""
    bit = session.machine.mask_of([name])
    for job in session.engine.running.values():
        if job.held_nodes & bit and not (shared and job.request.whole):
            position = (job.nodes & (bit - 1)).bit_count()
            yield node_shares(job, session.machine)[position]


def nodes_named(session: Session, word: str | None) -> list[tuple[NodeRecord, NodeGroupShape]]:
    """Return the nodes that a hostlist names, all for none.

    Raises:
        KeyError: a name that no node has.
    """
    records = {node.name: node for node in node_records(session.engine)}
    try:
        names = list(records) if word is None else list(expand(word))
    except ValueError:
        names = [word or ""]
    found = []
    for name in names:
        if name not in records:
            raise KeyError(name)
        bit = session.machine.mask_of([name])
        found.append((records[name], next(group for group in session.machine.groups if group.mask & bit)))
    return found


def partition_block(machine: Machine, part: PartitionShape, version: str) -> list[str]:
    """Return the lines of one partition."""
    nodes, cpus, gpus = part.mask.bit_count(), machine.total(part.mask, "cpus"), machine.total(part.mask, "gpus")
    memory = machine.total(part.mask, "memory_bytes") // _MIB
    tres = f"cpu={cpus},mem={memory}M,node={nodes},billing={cpus}" + (f",gres/gpu={gpus}" if gpus else "")
    default = "NONE" if part.default_time_s is None else elapsed(part.default_time_s)
    most = "UNLIMITED" if part.max_nodes is None else part.max_nodes
    topology = " ExclusiveTopo=NO" if at_least(version, "24.05") else ""
    sockets = " MaxCPUsPerSocket=UNLIMITED" if at_least(version, "23.02") else ""
    return [
        f"PartitionName={part.name}",
        f"AllowGroups=ALL AllowAccounts={','.join(part.accounts) or 'ALL'} AllowQos={','.join(part.qos) or 'ALL'}",
        f"AllocNodes=ALL Default={'YES' if part.default else 'NO'} QoS=N/A",
        f"DefaultTime={default} DisableRootJobs=NO ExclusiveUser=NO{topology} GraceTime={part.grace_time_s} Hidden=NO",
        (
            f"MaxNodes={most} MaxTime={limit(part.max_time_s, elapsed)} MinNodes={part.min_nodes or 0} LLN=NO "
            f"MaxCPUsPerNode={part.max_cpus_per_node or 'UNLIMITED'}{sockets}"
        ),
        f"Nodes={machine.node_list(part.mask)}",
        (
            f"PriorityJobFactor={part.priority_job_factor} PriorityTier={part.priority_tier} RootOnly=NO ReqResv=NO "
            "OverSubscribe=NO"
        ),
        "OverTimeLimit=NONE PreemptMode=OFF",
        f"State={part.state.upper()} TotalCPUs={cpus} TotalNodes={nodes} SelectTypeParameters=NONE",
        "JobDefaults=(null)",
        "DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED",
        f"TRES={tres}",
    ]


def config_lines(controller: Controller, session: Session, clock: Clock) -> list[str]:
    """Return what of slurm.conf means something here."""
    settings, machine = session.settings, session.machine
    host = socket.gethostname()
    values: dict[str, object] = {
        "AccountingStorageEnforce": "none",
        "AccountingStorageTRES": "cpu,mem,energy,node,billing,fs/disk,vmem,pages,gres/gpu",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AuthType": "auth/munge",
        "BOOT_TIME": clock.moment(session.started),
        "ClusterName": settings.cluster,
        "DefMemPerNode": "UNLIMITED",
        "EnforcePartLimits": "NO",
        "FirstJobId": 1,
        "GresTypes": "gpu" if any(group.gpus for group in machine.groups) else "(null)",
        "JobAcctGatherFrequency": 30,
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobRequeue": 1,
        "KillOnBadExit": 0,
        "KillWait": f"{controller.kill_wait_s:g} sec",
        "MaxArraySize": 1001,
        "MaxJobCount": 10000,
        "MaxNodeCount": len(machine.names),
        "MinJobAge": "300 sec",
        "MpiDefault": "none",
        "NEXT_JOB_ID": session.engine.next_id,
        "PreemptMode": "OFF",
        "PreemptType": "preempt/none",
        "PriorityType": "priority/multifactor" if getattr(session.engine, "multifactor", None) else "priority/basic",
        "ProctrackType": "proctrack/linuxproc",
        "SchedulerType": "sched/builtin" if settings.policy == "fcfs" else "sched/backfill",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_MEMORY" if machine.sharing is None or machine.sharing.memory else "CR_CPU",
        "SlurmUser": f"root({os.getuid()})",
        "SlurmctldHost[0]": host,
        "SLURM_CONF": str(controller.store.directory / "machine.json"),
        "SLURM_VERSION": release(settings.slurm_version),
        "SwitchType": "switch/none",
        "TaskPlugin": "task/none",
        "TopologyPlugin": f"topology/{_topology(controller)}",
    }
    lines = [f"{name:<23} = {value}" for name, value in values.items()]
    moment = clock.moment(session.engine.now)
    return [
        f"Configuration data as of {moment}", *lines, "", f"Slurmctld(primary) at {host} is UP",
    ]  # fmt: skip


def _topology(controller: Controller) -> str:
    """Return ``tree``, ``block`` or ``none``, as the site has it."""
    import json

    fabric = json.loads((controller.store.directory / "site.json").read_text(encoding="utf-8")).get("fabric") or {}
    return "block" if fabric.get("kind") == "blocks" else "tree" if fabric.get("switches") else "none"


def topology_lines(site_json: str, only: str | None = None) -> list[str]:
    """Return the switches as ``topology/tree`` has them; none of a site without a tree.

    Raises:
        Refusal: no switch, and no node, of the name.
    """
    import json

    from hpcplan.errors import InputError
    from hpcplan.site.export import slurm_blocks, topology_conf
    from hpcplan.site.model import Site

    site = Site.model_validate(json.loads(site_json))
    if site.fabric.kind == "blocks":
        blocks = enumerate(slurm_blocks(site)[0])
        return [
            f"BlockName={name} BlockIndex={index} Nodes={compress(hosts)} BlockSize={len(hosts)}"
            for index, (name, hosts) in blocks
            if only is None or only == name or only in hosts
        ]
    try:
        text = topology_conf(site, "tree")
    except InputError:
        return []
    below: dict[str, tuple[str, list[str], list[str]]] = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word) if line.startswith("Switch") else {}
        if fields:
            below[fields["SwitchName"]] = (
                fields["SwitchName"], _expanded(fields.get("Nodes")), _expanded(fields.get("Switches"))
            )  # fmt: skip
    lines = [_switch_line(name, below) for name in below if only in (None, name) or only in _nodes_under(name, below)]
    if only is not None and not lines:
        raise Refusal(f"Topology information contains no switch or node named {only}")
    return lines


_Switches = dict[str, tuple[str, list[str], list[str]]]


def _expanded(text: str | None) -> list[str]:
    return list(expand(text)) if text else []


def _nodes_under(name: str, below: _Switches) -> list[str]:
    _, nodes, switches = below[name]
    return [*nodes, *(node for switch in switches for node in _nodes_under(switch, below))]


def _level(name: str, below: _Switches) -> int:
    return max((_level(switch, below) + 1 for switch in below[name][2]), default=0)


def _switch_line(name: str, below: _Switches) -> str:
    switches = f" Switches={compress(below[name][2])}" if below[name][2] else ""
    nodes = compress(_nodes_under(name, below))
    return f"SwitchName={name} Level={_level(name, below)} LinkSpeed=1 Nodes={nodes}{switches}"


def hostname_words(call: Call, word: str | None) -> list[str]:
    """Return the names in a hostlist, the job's own where none is given.

    Raises:
        Refusal: there is none.
    """
    text = word or call.env.get("SLURM_JOB_NODELIST") or call.env.get("SLURM_NODELIST")
    if not text:
        raise Refusal("scontrol: error: host list is empty", 0)
    try:
        return list(expand(text))
    except ValueError:
        raise Refusal(f"Invalid hostlist: {text}") from None


def hostlist_words(word: str | None, *, in_order: bool) -> str:
    """Return names as a hostlist.

    Raises:
        Refusal: there is none.
    """
    if not word:
        raise Refusal("scontrol: error: host list is empty")
    try:
        names = list(expand(word))
    except ValueError:
        raise Refusal(f"Invalid hostlist: {word}") from None
    return compress(sorted(names, key=_natural) if in_order else names)


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits or 0)
