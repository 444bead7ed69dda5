from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.slurm import scontrol

# as Slurm 22.05.8 printed it, shortened
NODE = (
    "NodeName={name} Arch=x86_64 CoresPerSocket=1  CPUAlloc=2 CPUEfctv=16 CPUTot=16 CPULoad=0.06 "
    "AvailableFeatures=h100,sim ActiveFeatures=h100,sim Gres=gpu:h100:8(S:0-1) NodeAddr=127.0.0.1 "
    "NodeHostName=localhost Port=17003 Version=22.05.8 OS=Linux 6.1.0 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=2000 "
    "AllocMem=0 FreeMem=23201 Sockets=16 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A "
    "MCS_label=N/A Partitions=batch,debug  BootTime=1795216071 CfgTRES=cpu=16,mem=2000M,billing=16,gres/gpu=8 "
    "AllocTRES=cpu=2 CapWatts=n/a{tail}"
)
PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} QoS=N/A "
    "DefaultTime={default_time} DisableRootJobs=NO Hidden=NO MaxNodes={max_nodes} MaxTime={max_time} MinNodes=0 "
    "Nodes={nodes} PriorityJobFactor=1 State={state} TotalCPUs=128 TotalNodes=8 SelectTypeParameters=NONE "
    "TRES=cpu=128,mem=16000M,node=8,billing=128,gres/gpu=64"
)


def node_line(name: str = "n0", state: str = "MIXED", tail: str = "") -> str:
    return NODE.format(name=name, state=state, tail=tail)


def partition_line(name: str = "batch", **changed: str) -> str:
    usual = {"default": "YES", "default_time": "01:00:00", "max_nodes": "UNLIMITED", "max_time": "1-00:00:00",
             "nodes": "n[0-7]", "state": "UP"}  # fmt: skip
    return PARTITION.format(name=name, **{**usual, **changed})


def test_a_node() -> None:
    (node,) = scontrol.nodes(node_line())
    assert (node.name, node.state, node.flags, node.usable) == ("n0", "mixed", (), True)
    assert (node.cpus, node.cpus_allocated, node.gpus) == (16, 2, 8)
    assert node.memory_bytes == 2000 * 1024**2
    assert (node.partitions, node.features) == (("batch", "debug"), ("h100", "sim"))
    assert node.gres == "gpu:h100:8(S:0-1)"
    assert node.reason is None


def test_nodes_come_in_the_order_of_their_numbers() -> None:
    lines = [node_line(name) for name in ("n10", "n2", "login", "n1")]
    assert [node.name for node in scontrol.nodes("\n".join(lines) + "\n")] == ["login", "n1", "n2", "n10"]


@pytest.mark.parametrize(
    ("word", "state", "flags"),
    [
        ("IDLE", "idle", ()),
        ("IDLE+DRAIN", "idle", ("drain",)),
        ("DOWN*", "down", ("not_responding",)),
        ("DOWN*+DRAIN", "down", ("not_responding", "drain")),
        ("MIXED+CLOUD+NOT_RESPONDING+POWERED_DOWN", "mixed", ("cloud", "not_responding", "powered_down")),
        ("ALLOCATED+MAINTENANCE", "allocated", ("maint",)),
        ("DRAINED$", "drained", ("maint",)),
        ("IDLE~", "idle", ("powered_down",)),
        ("MAINT", "maint", ()),
        ("DOWN+NOT_RESPONDING", "down", ("not_responding",)),
    ],
)
def test_node_states_of_old_releases_and_new(word: str, state: str, flags: tuple[str, ...]) -> None:
    assert scontrol.node_state(word) == (state, flags)


@pytest.mark.parametrize("state", ["IDLE+DRAIN", "DOWN*", "ALLOCATED+MAINTENANCE", "DRAINED$", "IDLE*", "UNKNOWN"])
def test_nodes_that_cannot_be_used(state: str) -> None:
    (node,) = scontrol.nodes(node_line(state=state))
    assert not node.usable


def test_what_people_write_into_a_reason_does_not_change_the_node() -> None:
    tail = " Reason=bad DIMM State=IDLE Partitions=none Gres=gpu:64 [root@2026-11-20T23:30:00] Comment=CPUTot=1"
    (node,) = scontrol.nodes(node_line(state="IDLE+DRAIN", tail=tail))
    assert (node.state, node.flags, node.partitions, node.gpus, node.cpus) == (
        "idle", ("drain",), ("batch", "debug"), 8, 16,
    )  # fmt: skip
    assert node.reason is not None
    assert node.reason.startswith("bad DIMM")


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60))
def test_no_reason_changes_anything_else(reason: str) -> None:
    (plain,), (node,) = scontrol.nodes(node_line()), scontrol.nodes(node_line(tail=f" Reason={reason}"))
    kept = ("name", "state", "flags", "partitions", "cpus", "cpus_allocated", "memory_bytes", "gpus", "features")
    assert [getattr(node, name) for name in kept] == [getattr(plain, name) for name in kept]


def test_partitions_with_and_without_limits() -> None:
    lines = [
        partition_line("long", default="NO", default_time="NONE", max_time="UNLIMITED"),
        partition_line("debug", default="NO", max_nodes="2", max_time="00:10:00", state="DRAIN", nodes="(null)"),
        partition_line(),
    ]
    batch, debug, long = scontrol.partitions("\n".join(lines))
    assert (batch.name, batch.state, batch.nodes, batch.total_nodes, batch.default) == (
        "batch",
        "up",
        "n[0-7]",
        8,
        True,
    )
    assert (batch.max_time_s, batch.default_time_s, batch.max_nodes) == (86400, 3600, None)
    assert (debug.max_time_s, debug.max_nodes, debug.state, debug.nodes) == (600, 2, "drain", "")
    assert (long.max_time_s, long.default_time_s, long.default) == (None, None, False)


def test_a_cluster_without_nodes_has_none() -> None:
    assert scontrol.nodes("No nodes in the system\n") == []
    assert scontrol.partitions("No partitions in the system\n") == []


@pytest.mark.parametrize("line", ["NodeName=n0 CPUTot=16", "NodeName=n0 State=IDLE CPUTot=many"])
def test_a_node_that_makes_no_sense_is_an_error(line: str) -> None:
    with pytest.raises(SlurmError, match="scontrol: the nodes cannot be read"):
        scontrol.nodes(line)


def test_settings_without_a_value_are_left_out() -> None:
    text = "Configuration data as of 2026\nClusterName             = lab\nX11Parameters = (null)\nPath = /a=b\n"
    assert scontrol.settings(text) == {"ClusterName": "lab", "Path": "/a=b"}


def test_a_recorded_answer_of_a_lab(shared_data: Path) -> None:
    folder = shared_data / "topology" / "scontrol"
    nodes = scontrol.nodes((folder / "lab-22.05-show-nodes-oneliner.txt").read_text())
    assert nodes
    assert all(node.cpus and node.memory_bytes and node.partitions for node in nodes)
    assert scontrol.settings((folder / "lab-22.05-show-config.txt").read_text())["SLURM_VERSION"].startswith("22.05")
