"""What scontrol show and sinfo print, as text and as JSON of several releases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcplan.errors import InputError
from hpcplan.site.importers.findings import Findings
from hpcplan.site.importers.scontrol import parse_scontrol
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site

CONFIG = """Configuration data as of 2026-03-01T10:00:00
AccountingStorageHost   = db
ClusterName             = alpha
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PriorityWeightAge       = 1000
SchedulerParameters     = bf_window=2880,bf_continue
SchedulerType           = sched/backfill
SelectType              = select/cons_tres
SLURM_VERSION           = 25.05.1
TopologyPlugin          = topology/tree

Slurmctld(primary) at ctl is UP
"""

NODE = """NodeName=g1 Arch=x86_64 CoresPerSocket=32
   CPUAlloc=0 CPUEfctv=64 CPUTot=64 CPULoad=0.02
   AvailableFeatures=a100,fast
   ActiveFeatures=a100,fast
   Gres=gpu:a100:4(S:0-1),nvme:1
   NodeAddr=g1 NodeHostName=g1 Version=23.11.4
   OS=Linux 5.14.0 #1 SMP Mon Jan 1 00:00:00 UTC 2024
   RealMemory=512000 AllocMem=0 FreeMem=500000 Sockets=2 Boards=1
   State=IDLE+DRAIN ThreadsPerCore=1 TmpDisk=0 Weight=5 Owner=N/A MCS_label=N/A
   Partitions=gpu,debug
   Reason=State=DOWN said a person [root@2026-01-01T00:00:00]

NodeName=g2 Arch=x86_64 CoresPerSocket=32
   CPUTot=64 AvailableFeatures=a100,fast Gres=gpu:a100:4(S:0-1),nvme:1 Version=23.11.4
   RealMemory=512000 Sockets=2 State=MIXED ThreadsPerCore=1 Weight=5
   Partitions=gpu

NodeName=f1 State=FUTURE CPUTot=1
"""

PARTITION = """PartitionName=gpu
   AllowGroups=ALL AllowAccounts=phys,chem AllowQos=normal,high
   AllocNodes=ALL Default=YES QoS=gpuq
   DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime=120 Hidden=NO
   MaxNodes=2 MaxTime=2-00:00:00 MinNodes=1 LLN=NO MaxCPUsPerNode=UNLIMITED
   Nodes=g[1-2]
   PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=EXCLUSIVE
   OverTimeLimit=NONE PreemptMode=OFF
   State=UP TotalCPUs=128 TotalNodes=2 SelectTypeParameters=NONE
   JobDefaults=DefCpuPerGPU=8
   DefMemPerCPU=4000 MaxMemPerNode=UNLIMITED
"""

TOPOLOGY = """SwitchName=s0 Level=0 LinkSpeed=1 Nodes=g1
SwitchName=s1 Level=0 LinkSpeed=1 Nodes=g2
SwitchName=top Level=1 LinkSpeed=1 Nodes=g[1-2] Switches=s[0-1]
"""


def parse(*texts: str) -> Findings:
    return parse_scontrol([(f"answer{number}", text) for number, text in enumerate(texts)])


def site(*texts: str) -> Site:
    return read_back(write_draft(merge({"scontrol": parse(*texts)})))


def one_line(text: str) -> str:
    """Return what ``--oneliner`` prints of the same."""
    return "\n".join(" ".join(record.split("\n   ")) for record in text.split("\n\n"))


@pytest.mark.parametrize("shape", [str, one_line])
def test_all_answers_together_make_the_site(shape: Any) -> None:
    found = site(CONFIG, shape(NODE), shape(PARTITION), TOPOLOGY)
    [group] = found.node_groups.values() if len(found.node_groups) == 1 else [next(iter(found.node_groups.values()))]
    assert (group.cpus, group.sockets, group.weight, group.features) == (64, 2, 5, ("a100", "fast"))
    assert group.accelerators is not None
    assert (group.accelerators.count, group.accelerators.gres, group.gres) == (4, "a100", {"nvme": 1})
    gpu = found.partitions["gpu"]
    assert (gpu.max_time_s, gpu.default_time_s, gpu.max_nodes, gpu.exclusive) == (172800, 3600, 2, True)
    assert (gpu.qos, gpu.accounts, gpu.partition_qos, gpu.priority_tier) == (
        ("normal", "high"),
        ("phys", "chem"),
        "gpuq",
        10,
    )
    assert (gpu.preempt_mode, gpu.grace_time_s, gpu.default_cpus_per_gpu) == ("off", 120, 8)
    assert gpu.default_memory_per_cpu_bytes == 4000 * 1024**2
    assert (found.slurm.version, found.slurm.cluster, found.slurm.topology) == ("25.05.1", "alpha", True)
    assert found.scheduler.parameters == {"bf_window": "2880", "bf_continue": ""}
    assert found.scheduler.preempt_mode == "requeue"
    assert (found.drained, [switch.name for switch in found.fabric.switches]) == ("g1", ["s0", "s1", "top"])


def test_nodes_alone_name_their_partitions_and_the_release() -> None:
    found = site(NODE)
    assert {name: part.nodes for name, part in found.partitions.items()} == {
        "gpu": ("a100", "a100-2"),
        "debug": ("a100",),
    }
    assert found.slurm.version == "23.11.4"


def test_partitions_alone_name_the_nodes() -> None:
    found = site(PARTITION)
    assert [group.nodes for group in found.node_groups.values()] == ["g[1-2]"]


def test_blocks_are_told_with_their_sizes() -> None:
    text = (
        "BlockName=b1 BlockIndex=0 Nodes=n[1-4] BlockSize=4\nBlockName=b2 BlockIndex=1 Nodes=n[5-8] BlockSize=4\n"
        "AggregatedBlock=b[1-2] BlockIndex=2 Nodes=n[1-8] BlockSize=8\n"
    )
    found = site(text)
    assert (found.fabric.kind, found.fabric.block_sizes) == ("blocks", (4, 8))


def nodes_json(**shape: Any) -> str:
    node = {"name": "g1", "cpus": 64, "sockets": 2, "cores": 32, "threads": 1, "gres": "gpu:h100:8(S:0-1)", **shape}
    return json.dumps({"meta": {"slurm": {"release": "24.05.3"}}, "nodes": [node]})


@pytest.mark.parametrize(
    ("shape", "drained"),
    [
        ({"state": "idle", "state_flags": ["DRAIN"], "features": "a,b", "real_memory": 1024, "weight": 3}, True),
        ({"state": ["IDLE", "DRAIN"], "features": ["a", "b"], "real_memory": 1024, "weight": 3}, True),
        (
            {"state": ["MIXED"], "features": ["a", "b"], "real_memory": {"set": True, "number": 1024},
             "weight": {"set": True, "infinite": False, "number": 3}},
            False,
        ),
    ],
)  # fmt: skip
def test_the_same_node_in_the_shapes_of_several_releases(shape: dict[str, Any], drained: bool) -> None:
    found = site(nodes_json(partitions=["p", "q"], **shape))
    [group] = found.node_groups.values()
    assert (group.cpus, group.memory_bytes, group.weight, group.features) == (64, 1024**3, 3, ("a", "b"))
    assert group.accelerators is not None
    assert (group.accelerators.count, found.slurm.version) == (8, "24.05.3")
    assert found.drained == ("g1" if drained else None)
    assert list(found.partitions) == ["p", "q"]


PARTITIONS_2205 = {
    "name": "gpu", "nodes": "g[1-2]", "flags": ["default"], "state": "UP", "max_time_limit": 60,
    "default_time_limit": 30, "maximum_nodes_per_job": 2, "priority_tier": 3, "allowed_qos": "high",
}  # fmt: skip
PARTITIONS_2405 = {
    "name": "gpu", "nodes": {"configured": "g[1-2]", "total": 2},
    "partition": {"state": ["UP"]}, "maximums": {"time": {"set": True, "infinite": False, "number": 60},
                                                 "nodes": {"set": True, "infinite": False, "number": 2}},
    "defaults": {"time": {"set": True, "number": 30}}, "priority": {"tier": 3},
    "qos": {"allowed": "high", "assigned": ""},
}  # fmt: skip


@pytest.mark.parametrize("row", [PARTITIONS_2205, PARTITIONS_2405])
def test_partitions_in_the_shapes_of_several_releases(row: dict[str, Any]) -> None:
    gpu = site(json.dumps({"partitions": [row]})).partitions["gpu"]
    assert (gpu.max_time_s, gpu.default_time_s, gpu.max_nodes, gpu.priority_tier) == (3600, 1800, 2, 3)
    assert gpu.qos == ("high",)


SINFO_LONG = """NODELIST   NODES PARTITION STATE CPUS S:C:T MEMORY TMP_DISK WEIGHT AVAIL_FE REASON
g1             1      gpu* idle    64 2:32:1 512000 0 1 a100 none
g2             1      gpu* drained 64 2:32:1 512000 0 1 a100 bad disk again
"""


@pytest.mark.parametrize(
    "table",
    [
        "PARTITION AVAIL  TIMELIMIT  NODES  STATE NODELIST\ngpu*         up 1-00:00:00      2   idle g[1-2]\n",
        SINFO_LONG,
        "NODELIST|PARTITION|CPUS|GRES|STATE\ng[1-2]|gpu*|64|gpu:a100:4(S:0-1)|idle\n",
    ],
)
def test_sinfo_tables(table: str) -> None:
    found = site("Fri Mar  1 10:00:00 2026\n" + table)
    assert sum(len(group.hostnames()) for group in found.node_groups.values()) == 2
    assert found.default_partition() == "gpu"


def sinfo_row(names: list[str], state: str) -> dict[str, Any]:
    """Return a row of ``sinfo --json`` as Slurm 25.11 has it: nodes of one partition that are alike."""
    return {
        "node": {"state": [state]}, "nodes": {"nodes": names, "total": len(names)},
        "cpus": {"minimum": 8, "maximum": 8}, "memory": {"minimum": 1024, "maximum": 1024},
        "gres": {"total": "gpu:4", "used": "gpu:0"}, "features": {"total": "a100", "active": "a100"},
        "partition": PARTITIONS_2405 | {"nodes": {"configured": "g[1-10]", "total": 10}},
    }  # fmt: skip


def test_rows_of_sinfo_s_json_are_one_partition_and_one_group_in_the_order_of_names() -> None:
    rows = [sinfo_row(["g3", "g10"], "MIXED"), sinfo_row([f"g{number}" for number in (1, 2, *range(4, 10))], "IDLE")]
    found = site(json.dumps({"sinfo": rows, "meta": {"slurm": {"release": "25.11.7"}}}))
    assert [(group.nodes, group.cpus) for group in found.node_groups.values()] == [("g[1-10]", 8)]
    gpu = found.partitions["gpu"]
    assert (gpu.max_time_s, gpu.default_time_s, gpu.max_nodes, found.slurm.version) == (3600, 1800, 2, "25.11.7")


@pytest.mark.parametrize(
    "text",
    ["", "hello\nworld\n", '{"jobs": [], "meta": {"slurm": {"release": "24.05.3"}}}', "{", "[]",
     "slurm_load_partitions: Unable to contact slurm controller (connect failure)\n"],
)  # fmt: skip
def test_what_these_commands_do_not_print_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


def test_a_torus_is_named_as_left_out() -> None:
    found = parse("NodeName=n1 CPUTot=4 State=IDLE\n\nTorusName=t1 Dims=2x2 Nodes=n[1-4]\n")
    assert any("give its topology.yaml" in str(problem) for problem in found.problems)
