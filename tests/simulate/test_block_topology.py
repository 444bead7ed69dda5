"""Slurm's topology/block: segments of nodes that lie within one block each."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import SlurmError
from hpcplan.hostlist import expand
from hpcplan.simulate.block_topology import Blocks
from hpcplan.simulate.controller import Controller
from hpcplan.simulate.jobs import Behaviour, Request
from hpcplan.simulate.placement import Placement
from hpcplan.simulate.slurm_cluster import SlurmCluster, cluster_of_site, read_slurm_cluster
from hpcplan.site.load import load_site
from tests.simulate.clusters import job, write_site

OTHERWISE = {  # waited there, but for the first of the uneven ones, and it was not found out why
    ("twos-8-16", "17", "n[1-12,25,27-36]"), ("uneven-3-6-options", "4", "n[1-3,9-12,18-26]"),
    ("uneven-3-6-options", "8", "n[4-8,12-17,21-26]"), ("uneven-3-6-options", "20", "n[3-17,20-26]"),
}  # fmt: skip
RECORDED = Path(__file__).parent / "data" / "blocks"
CONF = """\
ClusterName=blocks
TopologyPlugin=topology/block
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1
NodeName=n[1-16] CPUs=8
PartitionName=batch Nodes=ALL Default=YES OverSubscribe=EXCLUSIVE
"""
BLOCKS = (
    "BlockName=b1 Nodes=n[1-4]\nBlockName=b2 Nodes=n[5-8]\nBlockName=b3 Nodes=n[9-12]\nBlockName=b4 Nodes=n[13-16]\n"
)
YAML = """\
- topology: default
  cluster_default: true
  block:
    block_sizes: [4, 8]
    blocks:
      - {block: b1, nodes: "n[1-4]"}
      - {block: b2, nodes: "n[5-8]"}
      - {block: b3, nodes: "n[9-12]"}
      - {block: b4, nodes: "n[13-16]"}
"""


def read(folder: Path, topology: str, name: str = "topology.conf") -> SlurmCluster:
    (folder / "slurm.conf").write_text(CONF)
    (folder / name).write_text(topology)
    return read_slurm_cluster(folder / "slurm.conf")


@pytest.fixture
def cluster(tmp_path: Path) -> Controller:
    return Controller(read(tmp_path, BLOCKS + "BlockSizes=4,8\n"), name="blocks")


def run(cluster: Controller, nodes: int, segment: int | None = None) -> str | None:
    number = cluster.submit(job(nodes, segment=segment), Behaviour(100), "ana")
    cluster.advance(cluster.now + 5)
    found = cluster.running.get(number)
    return found.node_list if found is not None else None


@pytest.mark.parametrize(("name", "text"), [("topology.conf", BLOCKS + "BlockSizes=4,8\n"), ("topology.yaml", YAML)])
def test_blocks_are_read_from_either_file(tmp_path: Path, name: str, text: str) -> None:
    found = read(tmp_path, text, name)
    assert found.block_sizes == (4, 8)
    assert [one.name for one in found.switches] == ["b1", "b2", "b3", "b4", "all"]
    again = SlurmCluster.from_dict(found.as_dict(), found.machine)
    assert (again.switches, again.block_sizes) == (found.switches, found.block_sizes)


def test_a_small_job_fills_the_fullest_block_that_holds_it(cluster: Controller) -> None:
    assert run(cluster, 3) == "n[13-15]"
    assert run(cluster, 2) == "n[9-10]"
    assert run(cluster, 1) == "n16"
    assert run(cluster, 2) == "n[11-12]"
    assert run(cluster, 3) == "n[5-7]"


def test_a_larger_job_lies_within_one_group_of_blocks(cluster: Controller) -> None:
    run(cluster, 1)
    assert run(cluster, 8) == "n[1-8]"
    assert run(cluster, 7) == "n[9-12,14-16]"


def test_without_a_block_that_holds_it_a_job_waits(cluster: Controller) -> None:
    for nodes in (3, 3, 3, 3):
        run(cluster, nodes)
    assert cluster.free.bit_count() == 4
    assert run(cluster, 2) is None


def test_segments_may_lie_in_blocks_far_apart(cluster: Controller) -> None:
    assert [run(cluster, nodes) for nodes in (2, 4, 2)] == ["n[13-14]", "n[9-12]", "n[15-16]"]
    cluster.set_node_state(["n1", "n5"], "drain")
    assert run(cluster, 8) is None
    assert run(cluster, 6, segment=3) == "n[2-4,6-8]"


@pytest.mark.parametrize(
    ("asks", "refused"),
    [({"nodes": 6, "segment": 4}, "topology"), ({"nodes": None, "ntasks": 4, "segment": 2}, "topology"),
     ({"nodes": 8, "segment": 4, "nodelist": "n1"}, "topology"), ({"nodes": 4, "nodelist": "n1,n5"}, "node"),
     ({"nodes": 5, "nodes_max": 8, "segment": 4}, "topology"), ({"nodes": 4, "nodes_max": 6, "segment": 4}, None)],
)  # fmt: skip
def test_what_no_blocks_can_hold_is_refused_unless_held(
    cluster: Controller, asks: dict[str, Any], refused: str | None
) -> None:
    """As a real 25.11.7 did."""
    asks = {"nodes_max": asks["nodes"], **asks}
    spec = replace(job(1), nodes_min=asks.pop("nodes"), **asks)
    cluster.submit(replace(spec, hold=True), Behaviour(1), "ana")
    if refused is None:
        cluster.submit(spec, Behaviour(1), "ana")
        return
    with pytest.raises(SlurmError, match=f"Requested {refused} configuration is not available"):
        cluster.submit(spec, Behaviour(1), "ana")


def test_a_job_has_its_blocks_to_itself_until_it_ends(cluster: Controller) -> None:
    assert run(cluster, 1) == "n13"
    alone = cluster.submit(replace(job(2), exclusive_topo=True), Behaviour(100), "ana")
    cluster.advance(cluster.now + 5)
    assert cluster.running[alone].node_list == "n[9-10]"
    assert run(cluster, 4) == "n[5-8]"
    assert run(cluster, 2) == "n[14-15]"
    assert run(cluster, 4) == "n[1-4]"
    assert run(cluster, 2) is None
    cluster.advance(cluster.now + 200)
    assert run(cluster, 4) is not None


def test_more_nodes_than_the_whole_blocks_of_the_largest_size_are_never_had(tmp_path: Path) -> None:
    cluster = Controller(read(tmp_path, BLOCKS.rpartition("BlockName")[0] + "BlockSizes=4,8\n"), name="blocks")
    with pytest.raises(SlurmError, match="Requested node configuration is not available"):
        cluster.submit(job(9), Behaviour(1), "ana")


def test_a_shipped_site_has_its_racks_for_blocks() -> None:
    found = cluster_of_site(load_site("gb200-nvl72").site)
    assert found.block_sizes == (18,)
    tiny = Controller(found, name="racks")
    assert run(tiny, 20) == "nvl07n[01-02],nvl08n[01-18]"
    assert run(tiny, 17) == "nvl06n[01-17]"
    assert run(tiny, 16) == "nvl07n[03-18]"


def test_a_site_of_blocks_places_jobs_in_them(tmp_path: Path) -> None:
    text = (tmp_path / "x").with_suffix(".yaml")
    site = write_site(tmp_path).read_text().replace("levels: [{name: leaf, size: 8}]", (
        "kind: blocks\n  block_sizes: [4]\n  switches:\n    - {name: one, nodes: 'b[1-4]', uplink: 400 Gb/s}\n"
        "    - {name: two, nodes: 'b[5-6],s[1-2]', uplink: 400 Gb/s}\n    - {name: top, switches: [one, two]}"
    ))  # fmt: skip
    text.write_text(site)
    found = cluster_of_site(load_site(str(text)).site)
    assert found.block_sizes == (4,)
    assert found.machine.node_list(found.switches[0].mask) == "b[1-4]"


@given(
    pool=st.integers(0, 2**16 - 1), segments=st.integers(1, 4), size=st.integers(1, 5), whole=st.booleans(),
    required=st.integers(0, 2**16 - 1),
)  # fmt: skip
def test_each_segment_lies_within_one_block(pool: int, segments: int, size: int, *, whole: bool, required: int) -> None:
    masks = [0xF << shift for shift in (0, 4, 8, 12)]
    wanted = segments * size
    required &= pool & 0x11
    nodes = Blocks(masks, [4, 8]).choose(pool, wanted, 0 if whole else size, required)
    if not nodes:
        return
    assert nodes & ~pool == 0
    assert nodes.bit_count() == wanted
    assert required & ~nodes == 0
    if not whole and size <= 4:
        assert sum((nodes & mask).bit_count() // size for mask in masks) >= segments
    if whole and wanted <= 4:
        assert sum(bool(nodes & mask) for mask in masks) == 1


@pytest.mark.parametrize("name", sorted(folder.name for folder in RECORDED.iterdir()))
def test_the_nodes_are_those_that_a_real_controller_gave(name: str) -> None:
    """As ``tests/slurm/record_blocks.py`` recorded of Slurm 25.11.7."""
    found = read_slurm_cluster(RECORDED / name / "slurm.conf")
    placement = Placement(found.machine, found.switches, found.block_sizes)
    index = {name: 1 << position for position, name in enumerate(found.machine.names)}
    with (RECORDED / name / "decisions.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            free, given, alone, needed = (
                sum(index[node] for node in expand(text)) if text else 0
                for text in (row["free"], row["given"], row.get("alone"), row["options"].partition("--nodelist=")[2])
            )
            placement.keep(0, alone)
            wanted, _, most = row["nodes"].partition("-")
            request = Request(
                "batch", int(wanted), int(most or wanted), 60, found.machine.all_nodes, segment=int(row["segment"]),
                required=needed, together="consolidate" in row["options"], apart="spread" in row["options"],
                alone="topo" in row["options"],
            )  # fmt: skip
            if (name, row["nodes"], row["free"]) in OTHERWISE:
                continue
            chosen = placement.choose(request, free)
            assert found.machine.node_list(chosen) == found.machine.node_list(given), row


def test_select_linear_takes_no_notice_of_blocks(tmp_path: Path) -> None:
    """As tried on Slurm 25.11.7, of which a file without SelectType means select/cons_tres."""
    (tmp_path / "topology.conf").write_text(BLOCKS + "BlockSizes=4,8\n")
    for line, sizes in (("SelectType=select/linear\n", ()), ("", (4, 8))):
        (tmp_path / "slurm.conf").write_text(re.sub("SelectType.*\n", "", CONF).replace("Node", f"{line}Node", 1))
        assert read_slurm_cluster(tmp_path / "slurm.conf").block_sizes == sizes
