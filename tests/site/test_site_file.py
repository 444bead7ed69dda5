"""Site files: what is accepted, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcplan.errors import InputError
from hpcplan.site import list_sites, load_site
from hpcplan.site.load import accelerator_of, read_site
from hpcplan.site.topology import build_topology

GOOD = """\
name: tiny
node_groups:
  gpu:
    nodes: n[0-7]
    cpus: 16
    memory: 64 GiB
    accelerators: {type: A100-SXM4-40GB, count: 8}
    intra_node: {bandwidth: 300 GB/s}
    nics: {count: 4, bandwidth: 200 Gb/s}
partitions:
  batch: {nodes: gpu, max_time: 1-00:00:00}
fabric:
  levels:
    - {name: leaf, size: 4, uplink: 200 GB/s}
    - {name: spine, size: 2}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


def test_a_good_file_reads_with_base_units(tmp_path: Path) -> None:
    site = read_site(write(tmp_path, GOOD))
    group = site.node_groups["gpu"]
    assert group.memory_bytes == 64 * 1024**3
    assert group.node_bandwidth_bytes_per_s == pytest.approx(4 * 25e9)
    assert site.partitions["batch"].max_time_s == 86400
    chip = accelerator_of(site, "gpu")
    assert chip is not None
    assert chip.peak("bf16") == pytest.approx(312e12)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    cpus: 16", "    cpu: 16", ["site.yaml:5: node_groups.gpu.cpu: unknown key", "did you mean 'cpus'"]),
        ("memory: 64 GiB", "memory: 64 Gib/s", ["site.yaml:6: node_groups.gpu.memory", "not a unit of memory"]),
        ("memory: 64 GiB", "memory: 64", ["site.yaml:6: node_groups.gpu.memory", "has no unit", "80 GiB"]),
        ("cpus: 16", "cpus: -16", ["site.yaml:5: node_groups.gpu.cpus", "greater than 0"]),
        (
            "nodes: gpu",
            "nodes: gpus",
            ["site.yaml:11: partitions.batch.nodes", "no node group is called 'gpus'", "gpu"],
        ),
        ("n[0-7]", "n[0-7", ["site.yaml:4: node_groups.gpu.nodes", "brackets that do not match"]),
        ("n[0-7]", "n[0-9999999999]", ["site.yaml:4: node_groups.gpu.nodes", "names more than"]),
        ("A100-SXM4-40GB", "A100-40GB", ["site.yaml:7: node_groups.gpu.accelerators.type", "A100-SXM4-40GB"]),
        ("size: 2}", "size: 1}", ["fabric.levels", "fewer than the site's 8 nodes"]),
        (", uplink: 200 GB/s", "", ["site.yaml:14: fabric.levels[0]", "'uplink' is missing"]),
        ("name: tiny\n", "", ["name: is missing"]),
        ("    intra_node: {bandwidth: 300 GB/s}\n", "", ["site.yaml:3: node_groups.gpu", "'intra_node' is missing"]),
        ("name: leaf", "name: n", ["site.yaml:14: fabric.levels[0].name", "'n1' is a node; rename it"]),
        ("name: spine", "name: leaf", ["site.yaml:15: fabric.levels[1].name", "'leaf1' is a switch of another level"]),
        (
            "levels:\n    - {name: leaf, size: 4, uplink: 200 GB/s}\n    - {name: spine, size: 2}",
            "switches:\n    - {name: n3, nodes: 'n[0-7]'}",
            ["site.yaml:14: fabric.switches[0].name", "'n3' is a node's name"],
        ),
        ("fabric:", "fabrick:", ["unknown key; did you mean 'fabric'?"]),
    ],
)
def test_a_mistake_is_named_with_line_field_and_what_is_right(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        read_site(write(tmp_path, GOOD.replace(old, new)))
    for words in expected:
        assert words in str(caught.value)


def test_one_machine_is_a_site(tmp_path: Path) -> None:
    """A site of a single node: its levels hold one switch, its graph two vertices."""
    two = "- {name: leaf, size: 4, uplink: 200 GB/s}\n    - {name: spine, size: 2}"
    text = GOOD.replace("n[0-7]", "box").replace(two, "- {name: net, size: 1}")
    topology = build_topology(read_site(write(tmp_path, text)))
    assert (topology.hierarchy.hosts, topology.switches()) == (("box",), ["net1"])


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_site(write(tmp_path, GOOD.replace("cpus: 16", "cpus: 0").replace("300 GB/s", "fast")))
    assert len(caught.value.problems) == 2


def test_a_node_belongs_to_one_group(tmp_path: Path) -> None:
    second = "  more:\n    nodes: n7\n    cpus: 1\n    memory: 1 GiB\n    nics: {bandwidth: 1 Gb/s}\npartitions:"
    with pytest.raises(InputError, match="node 'n7' is also in group 'gpu'"):
        read_site(write(tmp_path, GOOD.replace("partitions:", second)))


@pytest.mark.parametrize("name", sorted(list_sites()))
def test_every_shipped_site_is_valid_and_says_its_sources(name: str) -> None:
    loaded = load_site(name)
    assert loaded.site.name == name
    assert loaded.site.sources
    assert loaded.sha256 == load_site(loaded.path).sha256


def test_comments_and_layout_do_not_change_a_sites_digest(tmp_path: Path) -> None:
    plain = load_site(write(tmp_path, GOOD)).sha256
    commented = load_site(write(tmp_path, "# hello\n" + GOOD.replace("cpus: 16", "cpus:    16  # sixteen"))).sha256
    assert plain == commented
