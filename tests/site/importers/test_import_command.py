"""``hpcplan site import`` as its users meet it: what is merged, warned of, written and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpcplan.cli.site_import import command
from hpcplan.errors import ConflictError, InputError
from hpcplan.site.catalogue import accelerators
from hpcplan.site.importers.findings import Note
from hpcplan.site.importers.read import read_sources
from hpcplan.site.load import load_site
from hpcplan.site.merge import Draft, merge
from hpcplan.site.merge_again import merge_edits
from hpcplan.site.merge_defaults import catalogue_name
from hpcplan.site.merge_write import read_back, write_draft
from hpcplan.site.model import Site
from hpcplan.site.topology import build_topology

SLURM = """ClusterName=lab
SelectType=select/cons_tres
NodeName=h[1-4] CPUs=128 RealMemory=1048576 Gres=gpu:h100:8 Feature=ib
NodeName=c[1-2] CPUs=64 RealMemory=262144
PartitionName=gpu Nodes=h[1-4] Default=YES MaxTime=2-0
PartitionName=all Nodes=ALL
"""
TREE = "SwitchName=a Nodes=h[1-4]\nSwitchName=b Nodes=c[1-2]\nSwitchName=top Switches=a,b\n"


def files(tmp_path: Path, **texts: str) -> dict[str, Path]:
    paths = {}
    for option, text in texts.items():
        paths[option.replace("_", "-")] = tmp_path / f"{option}.conf"
        (tmp_path / f"{option}.conf").write_text(text)
    return paths


def imported(
    tmp_path: Path, accelerator: str | None = None, gpus: int | None = None, **texts: str
) -> tuple[Site, Draft]:
    draft = merge(read_sources(files(tmp_path, **texts)), accelerator=accelerator, gpus=gpus)
    return read_back(write_draft(draft)), draft


def warnings(draft: Draft) -> list[str]:
    return [str(problem) for problem in draft.problems if not isinstance(problem, Note)]


def test_files_that_agree_give_a_site_without_a_warning(tmp_path: Path) -> None:
    site, draft = imported(
        tmp_path, slurm_conf=SLURM, topology=TREE, gres="NodeName=h[1-4] Name=gpu File=/dev/nvidia[0-7]\n"
    )
    assert not warnings(draft)
    h100, cpu = site.node_groups.values()
    assert (h100.nodes, h100.cpus, h100.memory_bytes, h100.features) == ("h[1-4]", 128, 1024**4, ("ib",))
    assert h100.accelerators is not None
    assert (h100.accelerators.type, h100.accelerators.count, h100.accelerators.gres) == ("H100-SXM5-80GB", 8, "h100")
    assert cpu.accelerators is None
    assert site.partitions["gpu"].nodes == ("h100",)
    assert site.partitions["all"].nodes == ("h100", "c")
    assert (site.default_partition(), site.partitions["gpu"].max_time_s) == ("gpu", 2 * 86400)
    assert not site.partitions["all"].exclusive
    assert (site.name, site.slurm.cluster, site.slurm.topology) == ("lab", "lab", True)


def test_every_figure_of_the_written_file_says_where_it_came_from(tmp_path: Path) -> None:
    _, draft = imported(tmp_path, slurm_conf=SLURM, topology=TREE)
    lines = write_draft(draft).splitlines()
    figures = [
        line for line in lines if line.strip().startswith(("cpus:", "memory:", "count:", "bandwidth:", "type:", "- {"))
    ]
    assert figures
    assert all("#" in line for line in figures)
    assert any(line.endswith("# from slurm_conf.conf:3") for line in figures)
    assert any(line.endswith("# assumed") for line in figures)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"topology": TREE.replace("c[1-2]", "c[1-2],h4")}, "h4 under a and b"),
        ({"topology": TREE.replace("c[1-2]", "c1")}, "c2"),
        ({"topology": TREE.replace("c[1-2]", "c[1-3]")}, "c3"),
        ({"topology": TREE.replace("a,b", "a,b,z")}, "z"),
        ({"gres": "NodeName=h[1-4] Name=gpu File=/dev/nvidia[0-6]\n"}, "7 GPUs, but 8 from slurm_conf.conf:3"),
        ({"gres": "NodeName=h[1-9] Name=gpu Count=8\n"}, "h[5-9]"),
        ({"gres": "NodeName=h[1-4] Name=gpu Type=a100 Count=8\n"}, "'a100', but 'h100'"),
        ({"gres": "NodeName=c1 Name=gpu Count=2\n"}, "gives these nodes none"),
        ({"slurm_conf": SLURM + "PartitionName=x Nodes=h1,q7\n"}, "q7"),
        ({"nvidia_smi_topo": "  GPU0 GPU1\nGPU0 X NV4\nGPU1 NV4 X\n"}, "2 GPUs, but nodes have 8"),
    ],
)
def test_files_that_contradict_each_other_are_a_warning_and_the_site_is_still_valid(
    tmp_path: Path, texts: dict[str, str], message: str
) -> None:
    site, draft = imported(tmp_path, **{"slurm_conf": SLURM, **texts})
    assert any(message in warning for warning in warnings(draft))
    assert len(build_topology(site).nodes()) == 6


def test_several_roots_are_kept_as_a_clos_network(tmp_path: Path) -> None:
    text = (
        "SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n[3-4]\nSwitchName=s1 Switches=a,b\nSwitchName=s2 Switches=a,b\n"
    )
    site, draft = imported(tmp_path, topology=text)
    assert site.fabric.kind == "clos"
    assert {switch.name for switch in site.fabric.switches} == {"a", "b", "s1", "s2"}
    assert not warnings(draft)
    topology = build_topology(site)
    assert topology.ancestors("n1") == ["a", "s1"]
    up = [topology.graph.edges["a", root]["bandwidth_bytes_per_s"] for root in ("s1", "s2")]
    assert up == [topology.bandwidth("n1", "n2")] * 2  # two nodes' worth, over two roots


def test_rings_are_kept_as_rings(tmp_path: Path) -> None:
    site, draft = imported(tmp_path, topology="RingName=r1 Nodes=n[1-4]\nRingName=r2 Nodes=m[1-4]\n")
    assert site.fabric.kind == "torus"
    assert [(torus.name, torus.dims, torus.nodes) for torus in site.fabric.toruses] == [
        ("r1", (4,), "n[1-4]"), ("r2", (4,), "m[1-4]"),
    ]  # fmt: skip
    assert not warnings(draft)
    assert "nothing joins the rings r[1-2]" in " ".join(problem.message for problem in draft.problems)


def test_a_torus_is_kept_with_its_dimensions(tmp_path: Path) -> None:
    text = "- topology: t\n  torus3d:\n    toruses:\n      - {name: p, dims: {x: 2, y: 3, z: 4}, nodes: 'n[01-24]'}\n"
    (tmp_path / "topology.yaml").write_text(text)
    draft = merge(read_sources({"topology": tmp_path / "topology.yaml"}))
    topology = build_topology(read_back(write_draft(draft)))
    assert topology.kind == "torus"
    assert topology.graph.number_of_edges() == 12 + 24 + 24  # one link a pair in the dimension of two


def test_blocks_are_kept_with_their_sizes(tmp_path: Path) -> None:
    site, _ = imported(tmp_path, topology="BlockName=b1 Nodes=n[1-4]\nBlockName=b2 Nodes=n[5-8]\nBlockSizes=4,8\n")
    assert (site.fabric.kind, site.fabric.block_sizes) == ("blocks", (4, 8))
    assert [switch.name for switch in site.fabric.switches] == ["b1", "b2", "spine"]


def test_slurm_conf_says_that_a_tree_stands_for_a_dragonfly(tmp_path: Path) -> None:
    tree = "SwitchName=r1 Nodes=h[1-2]\nSwitchName=r2 Nodes=h[3-4]\nSwitchName=r3 Nodes=c[1-2]\n"
    groups = "SwitchName=g1 Switches=r[1-2]\nSwitchName=g2 Switches=r3\nSwitchName=all Switches=g[1-2]\n"
    site, _ = imported(
        tmp_path, slurm_conf=SLURM + "TopologyPlugin=topology/tree\nTopologyParam=dragonfly\n", topology=tree + groups
    )
    topology = build_topology(site)
    assert topology.kind == "dragonfly"
    assert topology.graph.has_edge("r1", "r2")
    assert not topology.graph.has_node("g1")
    assert topology.ancestors("h1") == ["r1", "g1", "all"]


def test_trees_that_nothing_joins_stay_apart(tmp_path: Path) -> None:
    site, draft = imported(tmp_path, topology="SwitchName=x Nodes=n[1-2]\nSwitchName=y Nodes=m[1-2]\n")
    assert "nothing joins the trees under x,y" in draft.problems[0].message
    topology = build_topology(site)
    assert topology.ancestors("n1") == ["x"]
    assert topology.ancestors("m1") == ["y"]


def test_a_switch_above_itself_is_refused(tmp_path: Path) -> None:
    text = "SwitchName=a Nodes=n1\nSwitchName=b Switches=a,c\nSwitchName=c Switches=b\n"
    with pytest.raises(InputError, match="above itself"):
        imported(tmp_path, topology=text)


def test_a_switch_called_like_a_node_gets_another_name(tmp_path: Path) -> None:
    site, draft = imported(tmp_path, topology="SwitchName=n1 Nodes=n[1-2]\nSwitchName=top Switches=n1\n")
    assert [(s.name, s.switches) for s in site.fabric.switches] == [("n1-switch", ()), ("top", ("n1-switch",))]
    assert any("called like a node" in warning for warning in warnings(draft))


def test_blocks_of_rack_scale_accelerators_are_link_domains(tmp_path: Path) -> None:
    slurm = "NodeName=n[1-36] Gres=gpu:gb200:4 CPUs=144 RealMemory=960000\n"
    blocks = "BlockName=r1 Nodes=n[1-18]\nBlockName=r2 Nodes=n[19-36]\nBlockSizes=18\n"
    site, _ = imported(tmp_path, slurm_conf=slurm, topology=blocks)
    intra = site.node_groups["gb200"].intra_node
    assert intra is not None
    assert intra.domain_nodes == 18
    site, _ = imported(tmp_path, slurm_conf=slurm.replace("gb200", "a100"), topology=blocks)
    intra = site.node_groups["a100"].intra_node
    assert intra is not None
    assert intra.domain_nodes == 1, "blocks of A100 nodes share no NVLink"


def test_domains_of_a_cluster_model_need_accelerators_to_be_said(tmp_path: Path) -> None:
    text = "blocks: [{switch: s, nodes: ['n[1-4]'], annotations: {accelerator.topology.test/domain: d}}]\n"
    site, draft = imported(tmp_path, cluster_model=text)
    assert next(iter(site.node_groups.values())).accelerators is None
    assert any("--accelerator" in problem.message for problem in draft.problems)
    site, _ = imported(tmp_path, accelerator="GB200-186GB", gpus=4, cluster_model=text)
    intra = next(iter(site.node_groups.values())).intra_node
    assert intra is not None
    assert intra.domain_nodes == 4


def test_nodes_in_blocks_of_other_sizes_are_groups_of_their_own(tmp_path: Path) -> None:
    slurm = "NodeName=n[1-10] Gres=gpu:gb200:4\n"
    blocks = "BlockName=r1 Nodes=n[1-4]\nBlockName=r2 Nodes=n[5-8]\nBlockName=r3 Nodes=n[9-10]\n"
    site, _ = imported(tmp_path, slurm_conf=slurm, topology=blocks)
    found = {group.nodes: group.intra_node and group.intra_node.domain_nodes for group in site.node_groups.values()}
    assert found == {"n[1-8]": 4, "n[9-10]": 2}


@pytest.mark.parametrize(
    ("texts", "nodes", "switches"),
    [
        ({"topology": "RingName=a Nodes=n[1-8]\nRingName=b Nodes=n[9-16]\n"}, 16, 0),
        ({"topology": "BlockName=a Nodes=n[1-4]\n"}, 4, 1),
        ({"gres": "Name=gpu File=/dev/nvidia[0-9]\n"}, 1, 1),
        ({"gres": "NodeName=n[1-3] Name=gpu Count=2\n"}, 3, 1),
        ({"nvidia_smi_topo": "  GPU0 GPU1\nGPU0 X NV4\nGPU1 NV4 X\n"}, 1, 1),
        ({"slurm_conf": "NodeName=n[1-5]\n"}, 5, 1),
    ],
)
def test_each_file_alone_gives_a_site(tmp_path: Path, texts: dict[str, str], nodes: int, switches: int) -> None:
    site, _ = imported(tmp_path, **texts)
    topology = build_topology(site)
    assert (len(topology.nodes()), len(topology.switches())) == (nodes, switches)


def test_link_speed_makes_no_bandwidth(tmp_path: Path) -> None:
    plain, _ = imported(tmp_path, topology=TREE)
    fast, _ = imported(tmp_path, topology=TREE.replace("Nodes=h[1-4]", "Nodes=h[1-4] LinkSpeed=900"))
    assert plain.fabric == fast.fabric


def run(*arguments: str | Path) -> tuple[object, str, str]:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    return result.exception, result.stdout, result.stderr


def test_the_command_writes_a_file_that_the_other_commands_read(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE)
    output = tmp_path / "site.yaml"
    error, out, err = run("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "-o", output)
    assert error is None
    assert out == ""
    assert f"wrote {output}" in err
    assert load_site(output).site.name == "lab"


def test_without_an_output_the_file_goes_to_stdout_and_talk_to_stderr(tmp_path: Path) -> None:
    paths = files(tmp_path, topology=TREE)
    error, out, err = run("--topology", paths["topology"], "--name", "mine")
    assert error is None
    assert read_back(out).name == "mine"
    assert "switches 3" in err


def test_json_counts_what_was_found_and_lists_warnings(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE.replace("c[1-2]", "c[1-3]"))
    _, out, _ = run("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "--format", "json")
    answer = json.loads(out)
    assert answer["found"]["topology"] == {"nodes": 7, "switches": 3, "leaf_switches": 2, "root_switches": 1}
    assert (answer["nodes"], answer["switches"], answer["partitions"]) == (6, 3, 2)
    assert answer["warnings"][0]["line"] is not None or answer["warnings"][0]["file"]


def test_strict_makes_warnings_an_error_and_writes_nothing(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE.replace("c[1-2]", "c[1-2],h4"))
    output = tmp_path / "site.yaml"
    error, _, _ = run("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "--strict", "-o", output)
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert not output.exists()
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE)
    error, _, _ = run("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "--strict", "-o", output)
    assert error is None
    assert output.exists()


def test_importing_again_shows_the_difference_and_keeps_what_a_person_edited(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE)
    output = tmp_path / "site.yaml"
    arguments = ("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "-o", output)
    run(*arguments)
    output.write_text(
        output.read_text().replace("400 Gb/s", "200 Gb/s") + "storage: {path: /d, read: 1 GB/s, write: 1 GB/s}\n"
    )
    paths["slurm-conf"].write_text("# one line more\n" + SLURM.replace("CPUs=64", "CPUs=96"))
    error, _, err = run(*arguments)
    assert error is None
    assert "+    cpus: 96" in err
    site = load_site(output).site
    assert site.node_groups["c"].cpus == 96
    assert site.node_groups["h100"].nics.bandwidth_bytes_per_s == pytest.approx(25e9)
    assert site.storage is not None


def test_where_both_changed_a_line_the_persons_stays_and_is_said(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM)
    output = tmp_path / "site.yaml"
    run("--slurm-conf", paths["slurm-conf"], "-o", output)
    output.write_text(output.read_text().replace("cpus: 64", "cpus: 32"))
    paths["slurm-conf"].write_text(SLURM.replace("CPUs=64", "CPUs=96"))
    _, _, err = run("--slurm-conf", paths["slurm-conf"], "-o", output)
    assert "warning" in err
    assert "kept your 'cpus: 32" in err
    assert load_site(output).site.node_groups["c"].cpus == 32
    run("--slurm-conf", paths["slurm-conf"], "-o", output, "--force")
    assert load_site(output).site.node_groups["c"].cpus == 96


def test_neighbouring_lines_changed_by_either_side_both_change() -> None:
    base, mine, new = "x:\n  a: 1\n  b: 2\n", "x:\n  a: 1\n  b: 9\n", "x:\n  a: 5\n  b: 2\n"
    assert merge_edits(base, mine, new) == ("x:\n  a: 5\n  b: 9\n", [])


def test_a_file_that_no_import_wrote_is_not_overwritten(tmp_path: Path) -> None:
    paths = files(tmp_path, topology=TREE)
    output = tmp_path / "site.yaml"
    output.write_text("name: mine\n")
    error, _, _ = run("--topology", paths["topology"], "-o", output)
    assert isinstance(error, ConflictError)
    assert "-name: mine" in str(error)
    assert output.read_text() == "name: mine\n"


def test_edits_that_do_not_fit_what_is_imported_change_nothing(tmp_path: Path) -> None:
    paths = files(tmp_path, slurm_conf=SLURM, topology=TREE)
    output = tmp_path / "site.yaml"
    arguments = ("--slurm-conf", paths["slurm-conf"], "--topology", paths["topology"], "-o", output)
    run(*arguments)
    edited = output.read_text().replace('"c[1-2]"', '"c[1-3]"')
    output.write_text(edited)
    paths["slurm-conf"].write_text(SLURM.replace("CPUs=128", "CPUs=64").replace("c[1-2]", "c[1-2],d1"))
    error, _, _ = run(*arguments)
    assert isinstance(error, ConflictError)
    assert output.read_text() == edited


LINES = st.lists(st.sampled_from(["a: 1", "b: 2", "c: 3", "d: 4", "e: 5", "  # x"]), max_size=8).map("\n".join)


@given(LINES, LINES)
def test_one_sided_changes_are_taken_as_they_are(one: str, other: str) -> None:
    text = "".join(f"{line}\n" for line in other.splitlines()) or "\n"
    assert merge_edits(one, one, text)[0] == text
    assert merge_edits(one, text, one) == (text, [])
    assert merge_edits(one, text, text) == (text, [])


@pytest.mark.parametrize("arguments", [[], ["--accelerator", "A100-SXM4-80GB:x", "--gres", "g"], ["--slurm", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


def test_an_unknown_accelerator_names_the_nearest(tmp_path: Path) -> None:
    error, _, _ = run("--topology", files(tmp_path, topology=TREE)["topology"], "--accelerator", "H100-SXM5-80G")
    assert isinstance(error, InputError)
    assert "H100-SXM5-80GB" in str(error)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\0", b""])
@pytest.mark.parametrize(
    "option",
    ["slurm-conf", "topology", "gres", "ibnetdiscover", "nvidia-smi-topo", "nccl-xml", "cluster-model"],
)
def test_no_file_makes_a_traceback(tmp_path: Path, option: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    error, _, _ = run(f"--{option}", path)
    assert error is None or isinstance(error, InputError)
    for bad in (tmp_path, tmp_path / "missing"):
        error, _, _ = run(f"--{option}", bad)
        assert isinstance(error, InputError)


def test_ten_thousand_nodes_come_back_whole(tmp_path: Path) -> None:
    leaves = [f"SwitchName=l{i:03d} Nodes=n[{20 * i:05d}-{20 * i + 19:05d}]" for i in range(500)]
    tree = "\n".join([*leaves, "SwitchName=top Switches=l[000-499]"])
    site, draft = imported(tmp_path, slurm_conf="NodeName=n[00000-09999] CPUs=64\n", topology=tree)
    assert not warnings(draft)
    assert [group.nodes for group in site.node_groups.values()] == ["n[00000-09999]"]
    assert len(site.fabric.switches) == 501


@pytest.mark.parametrize(
    ("gres", "expected"),
    [
        ("a100", "A100-SXM4-80GB"),
        ("nvidia_a100-sxm4-40gb", "A100-SXM4-40GB"),
        ("nvidia_h100_80gb_hbm3", "H100-SXM5-80GB"),
        ("tesla_v100-sxm2-16gb", "V100-SXM2-16GB"),
        ("geforce_rtx_3090", "RTX-3090-24GB"),
        ("rtx3090", "RTX-3090-24GB"),
        ("gb200", "GB200-186GB"),
        ("mi250", "MI250X-128GB"),
        ("a100l", "A100-SXM4-80GB"),
        ("volta", "V100-SXM2-32GB"),
        ("rtx6000", None),
        ("gtx560", None),
    ],
)
def test_gres_types_are_taken_for_the_catalogues_accelerators(gres: str, expected: str | None) -> None:
    assert catalogue_name(gres, list(accelerators())) == expected


@pytest.mark.parametrize(
    ("option", "line", "lines"),
    [
        ("slurm_conf", "PartitionName=p{0} Nodes=n[1-900000]\n", 3),
        ("topology", "SwitchName=s{0} Nodes=n[1-900000]\n", 3),
        ("gres", "NodeName=n{0}[1-600000] Name=gpu\n", 2),
        ("cluster_model", "- {{nodes: ['n[1-900000]']}}\n", 3),
    ],
)
def test_lists_that_are_endless_only_together_are_refused(tmp_path: Path, option: str, line: str, lines: int) -> None:
    text = "".join(line.format(number) for number in range(lines))
    if option == "cluster_model":
        text = "blocks:\n" + text
    with pytest.raises(InputError, match="more than"):
        imported(tmp_path, **{option: text})


def test_many_leaves_over_the_same_nodes_are_rails(tmp_path: Path) -> None:
    text = "".join(f"SwitchName=s{number} Nodes=n[1-300]\n" for number in range(300))
    site, _ = imported(tmp_path, topology=text)
    assert site.fabric.kind == "rails"
    assert len(site.fabric.switches) == 300
    [leaf] = build_topology(site).bundles()
    assert len(leaf.switches) == 300
