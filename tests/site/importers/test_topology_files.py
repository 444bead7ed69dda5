"""topology.conf and topology.yaml: every kind, and what Slurm would refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.errors import InputError
from hpcplan.hostlist import compress
from hpcplan.site.importers.findings import Findings, Note
from hpcplan.site.importers.read import read_sources
from hpcplan.site.importers.topology_conf import read_topology_conf
from hpcplan.site.importers.topology_yaml import parse_topology_yaml


def conf(tmp_path: Path, text: str) -> Findings:
    path = tmp_path / "topology.conf"
    path.write_text(text)
    return read_topology_conf(path)


def yaml(text: str, topology: str | None = None) -> Findings:
    return parse_topology_yaml(text, Path("topology.yaml"), topology=topology)


def test_a_tree_has_its_nodes_children_and_lines(tmp_path: Path) -> None:
    found = conf(
        tmp_path, "SwitchName=a Nodes=n[1-2] LinkSpeed=900\nSwitchName=b Nodes=n3\nswitchname=top Switches=a,b\n"
    )
    assert [(s.name, s.nodes, s.children, s.place.line) for s in found.switches] == [
        ("a", ("n1", "n2"), (), 1),
        ("b", ("n3",), (), 2),
        ("top", (), ("a", "b"), 3),
    ]
    assert not found.links, "LinkSpeed is no bandwidth"


@pytest.mark.parametrize(
    ("text", "kind", "blocks"),
    [
        ("BlockName=a Nodes=n[1-4]\nBlockName=b Nodes=n[5-8]\nBlockSizes=4,8\n", "block", 2),
        ("RingName=r Nodes=n[1-16]\n", "ring", 1),
    ],
)
def test_blocks_and_rings(tmp_path: Path, text: str, kind: str, blocks: int) -> None:
    found = conf(tmp_path, text)
    assert [block.kind for block in found.blocks] == [kind] * blocks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BlockName=a Nodes=n1\nBlockSizes=4,12\n", "12 is not the base block size 4 times a power of two"),
        ("BlockSizes=four\n", "whole numbers"),
        ("RingName=r Nodes=n[1-17]\n", "at most 16"),
        ("SwitchNam=a Nodes=n1\n", "SwitchNam.*switchname"),
        ("SwitchName=a Nodes=n[1\n", "brackets"),
        ("SwitchName=a Nod", "Key=Value"),
    ],
)
def test_what_slurm_would_refuse_of_topology_conf(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        conf(tmp_path, text)


def test_what_scontrol_shows_of_a_tree_is_read_like_the_file(tmp_path: Path) -> None:
    text = (
        "SwitchName=leaf0 Level=0 LinkSpeed=1 Nodes=s[0-1]\nSwitchName=spine Level=1 LinkSpeed=1 Nodes=s[0-1] "
        "Switches=leaf0\n"
    )
    found = conf(tmp_path, text)
    assert [(s.name, s.nodes, s.children) for s in found.switches] == [
        ("leaf0", ("s0", "s1"), ()),
        ("spine", (), ("leaf0",)),
    ]
    assert not found.problems


@pytest.mark.parametrize(
    "text",
    ["SwitchName=a\n", "SwitchName=a Nodes=n1 Switches=b\n", "SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n"],
)
def test_a_switch_that_makes_no_sense_is_a_problem(tmp_path: Path, text: str) -> None:
    [problem] = conf(tmp_path, text).problems
    assert problem.line == text.count("\n")


ALL_KINDS = """
- topology: t
  tree: {switches: [{switch: s, children: "a,b"}, {switch: a, nodes: "n[1-2]"}, {switch: b, nodes: n3}]}
- topology: b
  cluster_default: true
  block: {block_sizes: [2, 4], blocks: [{block: b1, nodes: "n[1-2]"}, {block: b2, nodes: "n[3-4]"}]}
- topology: f
  flat: true
- topology: r
  ring: {rings: [{ring: r1, nodes: "n[1-8]"}]}
- topology: x
  torus3d:
    toruses: [{name: p, dims: {x: 2, y: 2, z: 1}, nodes: "n[1-4]", placements: [{dims: {x: 2, y: 1, z: 1}}]}]
"""


def test_the_default_topology_is_chosen_and_the_others_are_named() -> None:
    found = yaml(ALL_KINDS)
    assert [(block.name, block.kind) for block in found.blocks] == [("b1", "block"), ("b2", "block")]
    [note] = found.problems
    assert isinstance(note, Note)
    assert "x (torus3d)" in note.message


@pytest.mark.parametrize(
    ("name", "switches", "kinds"),
    [("t", 3, []), ("b", 0, ["block"] * 2), ("f", 0, []), ("r", 0, ["ring"]), ("x", 0, ["torus"])],
)
def test_each_kind_can_be_chosen_by_name(name: str, switches: int, kinds: list[str]) -> None:
    found = yaml(ALL_KINDS, name)
    assert len(found.switches) == switches
    assert [block.kind for block in found.blocks] == kinds


def test_a_name_that_the_file_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="no topology is called 'tt'"):
        yaml(ALL_KINDS, "tt")


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ("block: [a]", "block", "must be a mapping"),
        ("ring: r=n1", "ring", "must be a mapping"),
        ("torus3d: 4x2x2", "torus3d", "must be a mapping"),
        ("tree: {switches: s1=n1}", "tree.switches", "must be a list of switches"),
        ("tree: {switches: [{switch: s}]}", "tree.switches[0]", "either 'nodes' or 'children'"),
        ("tree: {switchs: []}", "tree.switchs", "did you mean 'switches'"),
        ("flat: true\n  ring: {rings: []}", "ring", "excludes 'flat'"),
        ("flat: maybe", "flat", "true or false"),
        ("block: {block_sizes: [4, 12], blocks: [{block: b, nodes: n1}]}", "block.block_sizes", "power of two"),
        ("ring: {rings: [{ring: r, nodes: 'n[1-17]'}]}", "ring.rings[0].nodes", "at most 16"),
        (
            "torus3d: {toruses: [{name: p, dims: {x: 4, y: 4, z: 2}, nodes: 'n[1-8]'}]}",
            "torus3d.toruses[0].nodes",
            "32",
        ),
        (
            "torus3d: {toruses: [{name: p, dims: {x: 0, y: 1, z: 1}, nodes: n1}]}",
            "torus3d.toruses[0].dims.x",
            "above 0",
        ),
        (
            "torus3d: {toruses: [{name: p, dims: {x: 1, y: 1, z: 1}, regions: a=n1}]}",
            "torus3d.toruses[0].regions",
            "must be a list of regions",
        ),
        ("cluster_default: true", None, "says no kind"),
    ],
)
def test_what_slurm_would_refuse_of_topology_yaml(body: str, field: str | None, message: str) -> None:
    with pytest.raises(InputError) as caught:
        yaml(f"- topology: t\n  {body}\n")
    [problem] = caught.value.problems
    assert message in problem.message
    assert problem.field == (f"[0].{field}" if field else "[0]")
    assert problem.line is not None


def test_flat_false_does_not_exclude_another_kind() -> None:
    assert yaml("- topology: t\n  flat: false\n  ring: {rings: [{ring: r, nodes: n1}]}\n").blocks


@pytest.mark.parametrize("text", ["word\n", "3\n"])
def test_a_document_that_is_no_topology_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="list of topologies"):
        yaml(text)


def test_the_two_kinds_of_file_are_told_apart_without_a_suffix(tmp_path: Path) -> None:
    for text in ("# c\nSwitchName=a Nodes=n1\n", "---\n- topology: t\n  tree: {switches: {switch: a, nodes: n1}}\n"):
        path = tmp_path / "topology"
        path.write_text(text)
        [switch] = read_sources({"topology": path})["topology"].switches
        assert (switch.name, switch.nodes) == ("a", ("n1",))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.booleans())
def test_a_tree_written_from_a_random_model_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], split: bool
) -> None:
    leaves = {f"leaf{i}": tuple(f"r{i}n{j:02d}" for j in range(size)) for i, size in enumerate(sizes)}
    lines = [f"SwitchName={name} Nodes={compress(nodes)}" for name, nodes in leaves.items()]
    top = f"Switches={compress(leaves)}"
    lines.append(f"switchname=top \\\n  {top}" if split else f"SwitchName=top {top} # all")
    found = conf(tmp_path_factory.mktemp("topology"), "\n".join(lines))
    assert {s.name: s.nodes for s in found.switches if s.nodes} == leaves
    assert found.switches[-1].children == tuple(leaves)
