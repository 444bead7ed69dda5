"""ibnetdiscover and cluster models: whole fabrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.site.importers.cluster_model import read_cluster_model
from hpcplan.site.importers.findings import Devices, Findings, Note
from hpcplan.site.importers.ibnetdiscover import lane_bytes_per_s, parse_ibnetdiscover
from hpcplan.site.importers.read import read_sources
from hpcplan.site.merge import merge
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.topology import build_topology


def fabric(hosts: int, rails: int, spines: int, *, speed: str = "4xNDR", cables: int = 2) -> str:
    """Return what ibnetdiscover prints of one pod: a leaf a rail, each with ``cables`` to every spine."""
    lines = ["#", "# Topology file: generated", ""]

    def port(number: int, other: str, there: int, text: str, lid: str = "lid 1") -> str:
        return f'[{number}]\t"{other}"[{there}](0a1b) \t\t# "{text}" {lid} {speed}'

    for rail in range(rails):
        lines += [
            "vendid=0x2c9",
            f"switchguid=0xa{rail}(a{rail})",
            f'Switch\t65 "S-a{rail}"\t\t# "MF0;leaf{rail}:MQM9700/U1" enhanced',
        ]
        lines += [port(h + 1, f"H-{h}{rail}", 1, f"node{h:02d} mlx5_{rail}") for h in range(hosts)]
        lines += [
            port(30 + s * cables + c, f"S-b{s}", rail * cables + c + 1, f"MF0;spine{s}:MQM9700/U1")
            for s in range(spines)
            for c in range(cables)
        ]
        lines.append(port(65, f"H-agg{rail}", 1, "Mellanox Technologies Aggregation Node"))
    for s in range(spines):
        lines.append(f'Switch\t65 "S-b{s}"\t\t# "MF0;spine{s}:MQM9700/U1" enhanced port 0')
        lines += [
            port(rail * cables + c + 1, f"S-a{rail}", 30 + s * cables + c, f"MF0;leaf{rail}:MQM9700/U1")
            for rail in range(rails)
            for c in range(cables)
        ]
    for rail in range(rails):
        for h in range(hosts):
            lines += ["", "caguid=0x1", f'Ca\t1 "H-{h}{rail}"\t\t# "node{h:02d} mlx5_{rail}"']
            lines.append(f'[1](1f) \t"S-a{rail}"[{h + 1}]\t\t# lid 2 lmc 0 "MF0;leaf{rail}:MQM9700/U1" lid 1 {speed}')
        lines += [f'Ca\t1 "H-agg{rail}"\t\t# "Mellanox Technologies Aggregation Node"']
        lines.append(f'[1](1f) \t"S-a{rail}"[65]\t\t# lid 2 lmc 0 "MF0;leaf{rail}:MQM9700/U1" lid 1 {speed}')
    return "\n".join(lines) + "\n"


def parse(text: str) -> Findings:
    return parse_ibnetdiscover(text, Path("ib.txt"))


def test_hosts_interfaces_switches_and_cables_are_counted() -> None:
    found = parse(fabric(hosts=4, rails=2, spines=3))
    assert found.counts() == {
        "nodes": 4,
        "switches": 5,
        "leaf_switches": 2,
        "root_switches": 3,
        "switch_links": 2 * 3 * 2,
    }
    [nodes] = found.nodes
    assert nodes.nics is not None
    assert nodes.nics.bandwidth_bytes_per_s is not None
    assert (nodes.nics.count.value, nodes.nics.names) == (2, ("mlx5_0", "mlx5_1"))
    assert nodes.nics.bandwidth_bytes_per_s.value == pytest.approx(50e9)
    assert {link.bandwidth_bytes_per_s for link in found.links} == {2 * 50e9}


@pytest.mark.parametrize(
    ("speed", "bytes_per_s"), [("4xEDR", 12.5e9), ("2xHDR", 12.5e9), ("4xHDR", 25e9), ("4xXDR", 100e9)]
)
def test_width_and_speed_make_the_bandwidth(speed: str, bytes_per_s: float) -> None:
    [nodes] = parse(fabric(hosts=1, rails=1, spines=1, speed=speed)).nodes
    assert nodes.nics is not None
    assert nodes.nics.bandwidth_bytes_per_s is not None
    assert nodes.nics.bandwidth_bytes_per_s.value == pytest.approx(bytes_per_s)


def test_an_unknown_speed_counts_nothing_and_is_said() -> None:
    found = parse(fabric(hosts=1, rails=1, spines=1, speed="4xZZZ"))
    assert found.nodes[0].nics is not None
    assert found.nodes[0].nics.bandwidth_bytes_per_s is None
    assert "ZZZ" in found.problems[0].message
    assert lane_bytes_per_s("ZZZ") is None


def test_adapters_without_a_hosts_name_are_counted_and_left_out() -> None:
    text = fabric(hosts=3, rails=1, spines=1).replace("node01 mlx5_0", "MT4129 ConnectX7   Mellanox Technologies")
    found = parse(text)
    assert found.counts()["nodes"] == 2
    assert "1 adapters" in found.problems[0].message


def test_an_output_cut_after_the_switches_still_knows_its_hosts() -> None:
    whole = fabric(hosts=4, rails=2, spines=3)
    found = parse(whole[: whole.index("caguid")])
    assert found.counts() == parse(whole).counts()
    assert "10 adapters are named by switches alone" in found.problems[0].message


def test_a_management_host_on_a_spine_does_not_make_it_a_leaf() -> None:
    text = fabric(hosts=8, rails=4, spines=1, cables=4)
    text = text.replace("enhanced port 0\n", 'enhanced port 0\n[60]\t"H-ufm"[1](1)\t# "ufm mlx5_0" lid 9 4xNDR\n')
    text += (
        'Ca\t1 "H-ufm"\t\t# "ufm mlx5_0"\n[1](1f) \t"S-b0"[60]\t\t# lid 2 lmc 0 "MF0;spine0:MQM9700/U1" lid 1 4xNDR\n'
    )
    found = parse(text)
    assert found.counts()["leaf_switches"] == 4
    assert found.counts()["nodes"] == 8
    assert found.counts()["switch_links"] == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing that ibnetdiscover prints"),
        ('Ca\t1 "H-1"\t# "n1 mlx5_0"\n', "no switch"),
        ("SwitchName=a Nodes=b\n", "is not a line of ibnetdiscover"),
        ('[1] "S-1"[2] # "x" lid 1 4xNDR\n', "is not a line"),
    ],
)
def test_what_is_no_such_output_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def model(tmp_path: Path, text: str) -> Findings:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    return read_cluster_model(path)


NEW = """
switches:
  core: {labels: {region: us}, switches: [leaf-1, leaf-2, empty]}
blocks:
- switch: leaf-1
  nodes: ["n[1-2]", n4]
  annotations: {accelerator.topology.test/domain: d1, accelerator.topology.test/sub-domain: r1}
- switch: leaf-2
  nodes: ["n[5-7]"]
  labels: {network.topology.nvidia.com/accelerator: d2, network.topology.nvidia.com/level3: x}
- {nodes: [cpu1]}
"""

OLD = """
topology: topology/tree
switches:
- {name: top, switches: [a, b]}
- {name: a, capacity_blocks: [cb1]}
- {name: b, capacity_blocks: [cb2, cb3]}
capacity_blocks:
- {name: cb1, type: H100, nvlink: v1, nodes: [n1, n2]}
- {name: cb2, type: H100, nodes: [n3]}
- {name: cb3, nodes: [n4]}
"""


def test_a_model_with_blocks_under_named_switches(tmp_path: Path) -> None:
    found = model(tmp_path, NEW)
    assert found.counts() == {"nodes": 7, "switches": 4, "leaf_switches": 2, "root_switches": 1, "blocks": 2}
    assert {block.name: block.nodes for block in found.blocks} == {"d1": ("n1", "n2", "n4"), "d2": ("n5", "n6", "n7")}
    assert {problem.message for problem in found.problems} >= {"switch 'empty' joins nothing; it is left out"}


def test_a_model_of_the_older_layout(tmp_path: Path) -> None:
    found = model(tmp_path, OLD)
    leaves = {switch.name: switch.nodes for switch in found.switches if switch.nodes}
    assert leaves == {"a": ("n1", "n2"), "b": ("n3", "n4")}
    assert [(block.name, block.nodes) for block in found.blocks] == [("v1", ("n1", "n2"))]
    assert found.nodes[0].gpus is not None
    assert found.nodes[0].gpus.value.type == "h100"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("a: b\n", None),
        ("[]\n", None),
        ("blocks: [{switch: a}]\n", "blocks[0]"),
        ("blocks: word\n", "blocks"),
        ("blocks: [{nodes: ['n[1-']}]\n", "blocks.0.nodes"),
        ("switches: [{switches: [a]}]\nblocks: []\n", "switches[0]"),
        ("switches: {a: 3}\n", "switches.a"),
    ],
)
def test_what_is_no_model_is_refused_with_its_field(tmp_path: Path, text: str, field: str | None) -> None:
    with pytest.raises(InputError) as caught:
        model(tmp_path, text)
    assert caught.value.problems[0].field == field


def test_the_cables_of_physical_switches_are_the_up_links_of_topology_confs_tree(tmp_path: Path) -> None:
    (tmp_path / "ib.txt").write_text(fabric(hosts=8, rails=4, spines=2, cables=3))
    (tmp_path / "topology.conf").write_text(
        "SwitchName=pod1 Nodes=node[00-07]\nSwitchName=pod2 Nodes=x[0-3]\nSwitchName=top Switches=pod[1-2]\n"
    )
    found = read_sources({"topology": tmp_path / "topology.conf", "ibnetdiscover": tmp_path / "ib.txt"})
    pod1, pod2, top = merge(found).tree
    assert pod1.uplink is not None
    assert pod2.uplink is not None
    assert (pod1.uplink.value, pod1.uplink.origin) == (4 * 2 * 3 * 50e9, "from ib.txt")
    assert pod2.uplink.origin.startswith("assumed")
    assert top.uplink is None


def test_rails_and_spines_are_kept_with_all_their_cables(tmp_path: Path) -> None:
    (tmp_path / "ib.txt").write_text(fabric(hosts=8, rails=4, spines=2, cables=3))
    draft = merge(read_sources({"ibnetdiscover": tmp_path / "ib.txt"}))
    topology = build_topology(read_back(write_draft(draft)))
    assert (draft.kind, topology.kind) == ("rails", "rails")
    assert sorted(topology.switches()) == ["leaf0", "leaf1", "leaf2", "leaf3", "spine0", "spine1"]
    assert topology.graph.edges["leaf2", "spine1"]["links"] == 3
    assert topology.graph.edges["leaf2", "spine1"]["bandwidth_bytes_per_s"] == pytest.approx(3 * 50e9)
    leaf, spine = topology.bundles()
    assert leaf.switches == ("leaf0", "leaf1", "leaf2", "leaf3")
    assert spine.switches == ("spine0", "spine1")
    assert leaf.up_bytes_per_s == pytest.approx(4 * 2 * 3 * 50e9)
    assert leaf.up_links == 4 * 2 * 3


def test_a_cable_slower_than_those_beside_it_is_a_note() -> None:
    whole = fabric(hosts=2, rails=2, spines=1, cables=4)
    one = '[30]\t"S-b0"[1](0a1b) \t\t# "MF0;spine0:MQM9700/U1" lid 1 4x'
    other = '[1]\t"S-a0"[30](0a1b) \t\t# "MF0;leaf0:MQM9700/U1" lid 1 4x'
    assert whole.count(one) == whole.count(other) == 1
    found = parse(whole.replace(f"{one}NDR", f"{one}HDR").replace(f"{other}NDR", f"{other}HDR"))
    [note] = found.problems
    assert isinstance(note, Note)
    assert "1 cable runs at 25.0 GB/s between leaf0 and spine0, others at 50.0 GB/s" in note.message
    assert found.counts()["switch_links"] == 8


def test_hosts_with_domains_get_the_names_that_slurm_has() -> None:
    found = parse(fabric(hosts=3, rails=2, spines=1).replace(" mlx5_", ".hpc.example.org mlx5_"))
    assert sorted(name for nodes in found.nodes for name in nodes.names) == ["node00", "node01", "node02"]


def test_grouped_output_and_complaints_among_it_are_read() -> None:
    text = fabric(hosts=2, rails=2, spines=1)
    grouped = text.replace("\nvendid=0x2c9\n", "\nNon-Chassis Nodes\nvendid=0x2c9\nsysimgguid=0x1\t\t# Chassis 1\n")
    found = parse("ibwarn: [77] mad_rpc: _do_madrpc failed; dport (DR path slid 0)\n" + grouped)
    assert found.counts() == parse(text).counts()
    assert "complains on 1 lines" in found.problems[0].message


def test_an_output_cut_within_a_line_is_a_problem() -> None:
    found = parse(fabric(hosts=2, rails=1, spines=1)[:-20] + "\n[2](")
    assert "cut in this line" in found.problems[0].message


def test_other_outputs_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="without -p and -l"):
        parse('CA     4  1 0x0008f10403960984 4x SDR - SW     6 22 0x005442ba00003080 ( "a HCA-1" - "b" )\n')


NODES = """
switches:
  S1: {switches: [S2, S3]}
  S2: {nodes: ["I[21-22]", I25]}
  S3: {nodes: ["I[34-35]"]}
nodes:
  I21: {capacity_block: CB2, type: H100, attributes: {nvlink: v1, gpus: [{model: NVIDIA H100 SXM5 80GB}, {index: 1}]}}
  I22: {capacity_block_id: CB2, attributes: {nvlink: v1}}
  I34:
  I36: {}
capacity_blocks:
"""


@pytest.mark.parametrize("blocks", ["- CB2\n- CB3\n", "  CB2: {nodes: ['I[21-22]', I25]}\n  CB3: {}\n", " []\n"])
def test_a_model_whose_switches_name_the_nodes(tmp_path: Path, blocks: str) -> None:
    found = model(tmp_path, NODES + blocks)
    assert {switch.name: switch.nodes for switch in found.switches} == {
        "S1": (), "S2": ("I21", "I22", "I25"), "S3": ("I34", "I35"),
    }  # fmt: skip
    assert [(block.name, block.nodes) for block in found.blocks] == [("v1", ("I21", "I22"))]
    assert found.nodes[0].gpus is not None
    assert (found.nodes[0].names, found.nodes[0].gpus.value) == (("I21",), Devices(2, "nvidia_h100_sxm5_80gb"))
    assert "nodes under no switch: I36" in found.problems[0].message


def test_the_chips_of_a_chassis_are_called_by_their_place_in_it() -> None:
    text = fabric(hosts=2, rails=2, spines=2)
    for kind, letter in (("leaf", "L"), ("spine", "S")):
        for number in range(2):
            text = text.replace(f"MF0;{kind}{number}:MQM9700/U1", f"MF0;core7:CS8500/{letter}0{number}/U1")
    names = [switch.name for switch in parse(text).switches]
    assert names == [f"core7-CS8500-{place}-U1" for place in ("L00", "L01", "S00", "S01")]
    same = [switch.name for switch in parse(fabric(2, 2, 1).replace("leaf1", "leaf0")).switches]
    assert same == ["leaf0-S-a0", "leaf0-S-a1", "spine0"]
